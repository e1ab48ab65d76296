// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// keyring is what packages are verified with, of package debian-archive-keyring.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// listAge is how long package lists are good.
const listAge = 12 * time.Hour

// suites are those that kernels and the guest's programs come from. Apt itself
// ranks backports below the rest.
var suites = []string{"bookworm", "bookworm-backports", "trixie-backports"}

// archive is apt with sources, lists and a cache of its own: it believes that
// nothing is installed, and changes nothing of the machine. Proxies and
// passwords of the machine's configuration hold.
type archive struct {
	dir string
}

// openArchive prepares the state in dir.
func openArchive(ctx context.Context, dir string) (*archive, error) {
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "cache/none/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	mirror, err := ownMirror(ctx)
	if err != nil {
		return nil, err
	}
	var sources strings.Builder
	for _, s := range suites {
		fmt.Fprintf(&sources, "deb [arch=amd64 signed-by=%s] %s %s main\n", keyring, mirror, s)
	}
	a := &archive{dir: dir}
	// Other sources make the lists useless.
	if old, err := os.ReadFile(a.path("sources.list")); err != nil || string(old) != sources.String() {
		if err := os.RemoveAll(a.path("updated")); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(a.path("sources.list"), []byte(sources.String()), 0o644); err != nil {
		return nil, err
	}
	return a, os.WriteFile(a.path("status"), nil, 0o644)
}

func (a *archive) path(name string) string { return filepath.Join(a.dir, name) }

// ownMirror is the Debian mirror of the machine's apt configuration.
func ownMirror(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("ask apt for its Debian mirror: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if uri := strings.TrimRight(strings.TrimSpace(line), "/"); strings.HasSuffix(uri, "/debian") {
			return uri, nil
		}
	}
	return "", errors.New("this machine's apt knows no Debian mirror: kernels come from one")
}

// command is one of apt's programs on this state.
func (a *archive) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	options := []string{
		"-o", "Dir::State=" + a.path("state"), "-o", "Dir::State::status=" + a.path("status"), "-o", "Dir::Cache=" + a.path("cache"),
		"-o", "Dir::Etc::sourcelist=" + a.path("sources.list"), "-o", "Dir::Etc::sourceparts=-",
		"-o", "APT::Architecture=amd64", "-o", "APT::Architectures=amd64", "-o", "APT::Default-Release=bookworm",
		"-o", "APT::Get::AllowUnauthenticated=false", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none",
		"-o", "Acquire::Retries=3", "-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
	}
	cmd := exec.CommandContext(ctx, name, append(options, args...)...)
	cmd.Dir = a.path("cache/archives")
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	return cmd
}

// run returns what a program of apt says.
func (a *archive) run(ctx context.Context, name string, args ...string) (string, error) {
	return output(a.command(ctx, name, args...))
}

func output(cmd *exec.Cmd) (string, error) {
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(problems.String()))
	}
	return out.String(), nil
}

// unreachable says that the archive could not be asked and the cache does not
// do instead.
type unreachable struct{ cause error }

func (u *unreachable) Error() string {
	return fmt.Sprintf("the Debian archive cannot be reached, and nothing is cached: %v", u.cause)
}

func (u *unreachable) Unwrap() error { return u.cause }

// update fetches the lists of packages unless they are fresh. Old ones do when
// the archive is away.
func (a *archive) update(ctx context.Context) error {
	stamp := a.path("updated")
	info, err := os.Stat(stamp)
	if err == nil && time.Since(info.ModTime()) < listAge {
		return nil
	}
	have := err == nil
	// Without this apt ends well although a list could not be had.
	_, err = a.run(ctx, "apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any")
	switch {
	case err == nil:
		return os.WriteFile(stamp, nil, 0o644)
	case have && ctx.Err() == nil:
		fmt.Fprintf(os.Stderr, "test-kernels: the lists of packages are of %s: %v\n", info.ModTime().Format(time.DateTime), err)
		return nil
	}
	return &unreachable{err}
}

// newest is the package whose name matches with the highest version.
func (a *archive) newest(ctx context.Context, name *regexp.Regexp) (string, error) {
	names, err := a.run(ctx, "apt-cache", "pkgnames", "linux-image-")
	if err != nil {
		return "", err
	}
	matching := slices.DeleteFunc(strings.Fields(names), func(n string) bool { return !name.MatchString(n) })
	if len(matching) == 0 {
		return "", fmt.Errorf("no package of %s matches %s", strings.Join(suites, ", "), name)
	}
	out, err := a.run(ctx, "apt-cache", append([]string{"madison"}, matching...)...)
	if err != nil {
		return "", err
	}
	best, version := "", ""
	for line := range strings.Lines(out) {
		f := strings.Split(line, "|") // NAME | VERSION | SOURCE
		if len(f) < 3 {
			continue
		}
		v := strings.TrimSpace(f[1])
		if best == "" || exec.CommandContext(ctx, "dpkg", "--compare-versions", v, "gt", version).Run() == nil {
			best, version = strings.TrimSpace(f[0]), v
		}
	}
	if best == "" { // names that are only referred to
		return "", fmt.Errorf("%s offer none of %s", strings.Join(suites, ", "), strings.Join(matching, " "))
	}
	return best, nil
}

// parts are the packages that a kernel's image consists of: itself, and
// those of its release that it depends on (of 7.3 the image itself is empty).
func (a *archive) parts(ctx context.Context, image string) ([]string, error) {
	out, err := a.run(ctx, "apt-cache", "depends", "--important", image)
	if err != nil {
		return nil, err
	}
	release := strings.TrimPrefix(image, "linux-image-")
	names := []string{image}
	for line := range strings.Lines(out) {
		_, name, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if strings.HasPrefix(name, "linux-") && strings.HasSuffix(name, "-"+release) {
			names = append(names, name)
		}
	}
	return names, nil
}

// fetch downloads packages, with what they depend on or without, unless they
// are there, and returns the files. Apt checks each against the signed lists.
func (a *archive) fetch(ctx context.Context, depends bool, names ...string) ([]string, error) {
	args := append([]string{"install", "-y", "-qq", "--no-install-recommends"}, names...)
	if !depends {
		args = append([]string{"download", "-qq"}, names...)
	}
	// Of what is downloaded apt prints nothing: let it look elsewhere.
	list := a.command(ctx, "apt-get", append(args, "--print-uris", "-o", "Dir::Cache::archives="+a.path("cache/none"))...)
	list.Dir = a.path("cache/none")
	out, err := output(list)
	if err != nil {
		return nil, err
	}
	var files []string
	missing := false
	for line := range strings.Lines(out) {
		f := strings.Fields(line) // 'URI' FILE SIZE HASH
		if len(f) < 3 || !strings.HasSuffix(f[1], ".deb") {
			continue
		}
		file := a.path(filepath.Join("cache/archives", f[1]))
		files = append(files, file)
		if info, err := os.Stat(file); err != nil || fmt.Sprint(info.Size()) != f[2] {
			missing = true
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("apt-get names no files for %s", strings.Join(names, " "))
	}
	if !missing {
		return files, nil
	}
	if depends {
		args = append(args, "--download-only")
	}
	fmt.Fprintf(os.Stderr, "test-kernels: fetching %d packages: %s\n", len(files), strings.Join(names, " "))
	if _, err := a.run(ctx, "apt-get", args...); err != nil {
		return nil, &unreachable{err}
	}
	return files, nil
}
