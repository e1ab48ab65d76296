// SPDX-License-Identifier: Apache-2.0

package doubles

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNoGit says that git with its HTTP backend is not installed.
var ErrNoGit = errors.New("git http-backend is not installed")

// Git is a smart-HTTP git server with one repository, /repo.git.
type Git struct {
	Dir     string // holds repo.git
	handler http.Handler
}

// NewGit makes a bare repository with one commit below dir and returns its
// server; serve it with [Serve] or [CA.Serve]. Pushes are accepted.
func NewGit(dir string) (*Git, error) {
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return nil, ErrNoGit
	}
	backend := filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		return nil, ErrNoGit
	}
	bare, work := filepath.Join(dir, "repo.git"), filepath.Join(dir, "seed")
	steps := [][]string{
		{"init", "-q", "--bare", "-b", "main", bare},
		{"--git-dir", bare, "config", "http.receivepack", "true"},
		{"init", "-q", "-b", "main", work},
		{"-C", work, "commit", "-q", "--allow-empty", "-m", "first"},
	}
	for _, args := range steps {
		if err := git(dir, args...); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(work, "README"), []byte("from the git double\n"), 0o644); err != nil {
		return nil, fmt.Errorf("git double: %w", err)
	}
	for _, args := range [][]string{{"-C", work, "add", "README"}, {"-C", work, "commit", "-q", "-m", "second"}, {"-C", work, "push", "-q", bare, "main"}} {
		if err := git(dir, args...); err != nil {
			return nil, err
		}
	}
	return &Git{Dir: dir, handler: &cgi.Handler{Path: backend, Root: "/", Dir: dir,
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
		InheritEnv: []string{"PATH"}}}, nil
}

func git(dir string, args ...string) error {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=double", "GIT_AUTHOR_EMAIL=double@example.com", "GIT_COMMITTER_NAME=double", "GIT_COMMITTER_EMAIL=double@example.com"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git double: git %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// ServeHTTP hands the request to git http-backend.
func (g *Git) ServeHTTP(w http.ResponseWriter, req *http.Request) { g.handler.ServeHTTP(w, req) }
