// SPDX-License-Identifier: Apache-2.0

package api

import (
	"path"
	"path/filepath"
	"strings"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Bounds on what a launch names. The kernel's own bounds (ARG_MAX) come after.
const (
	maxArgs    = 4096
	maxEnv     = 4096
	maxNameLen = 64
	maxPathLen = 4096
)

// checkName accepts [A-Za-z0-9][A-Za-z0-9_.-]*, at most 64 bytes.
func checkName(what, name string) error {
	ok := name != "" && len(name) <= maxNameLen
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = alnum || i > 0 && strings.IndexByte("_.-", c) >= 0
	}
	if !ok {
		return Errorf(CodeBadRequest, "the %s name %q is not 1 to %d of A-Z a-z 0-9 _ . -, beginning with a letter or digit", what, name, maxNameLen)
	}
	return nil
}

// checkLaunch checks the form of everything in a launch.
func checkLaunch(r *LaunchRequest) error {
	if err := checkArgv(r.Argv); err != nil {
		return err
	}
	if err := checkEnv(r.Environ, r.Env); err != nil {
		return err
	}
	if r.Name != "" {
		if err := checkName("sandbox", r.Name); err != nil {
			return err
		}
	}
	if err := checkScope(r.Scope); err != nil {
		return err
	}
	switch {
	case r.Dir != "" && (len(r.Dir) > maxPathLen || hasNUL(r.Dir) || !filepath.IsLocal(r.Dir) || path.Clean(r.Dir) != r.Dir):
		return Errorf(CodeBadRequest, "the directory %q is not a clean path below the workspace", r.Dir)
	case r.WorkspacePath != "" && !cleanAbs(r.WorkspacePath):
		return Errorf(CodeBadRequest, "the workspace path %q is not clean and absolute", r.WorkspacePath)
	case r.Detach && r.TTY:
		return Errorf(CodeBadRequest, "a detached sandbox has no terminal of the caller's")
	}
	if r.Profile.Name != "" && r.Profile.Text == "" {
		if err := checkName("profile", r.Profile.Name); err != nil {
			return err
		}
	}
	for _, d := range r.Policies {
		if d.Text == "" {
			return Errorf(CodeBadRequest, "the policy %q has no text: the client reads the file and sends what is in it", d.File)
		}
	}
	return nil
}

// checkScope accepts "" or a principal that names no sandbox: its id is the
// keeper's to give.
func checkScope(text string) error {
	if text == "" {
		return nil
	}
	p, err := scope.ParsePrincipal(text)
	if err != nil {
		return &Error{Code: CodeBadRequest, Message: "the scope is not org:X/team:Y/agent:Z", Detail: err.Error()}
	}
	if p.Sandbox != "" {
		return Errorf(CodeBadRequest, "the scope %q names a sandbox", text)
	}
	return nil
}

func checkExec(r *ExecRequest) error {
	if err := checkArgv(r.Argv); err != nil {
		return err
	}
	if r.Dir != "" && !cleanAbs(r.Dir) {
		return Errorf(CodeBadRequest, "the directory %q is not a clean absolute path", r.Dir)
	}
	return checkEnv(r.Env)
}

func checkArgv(argv []string) error {
	if len(argv) == 0 || argv[0] == "" {
		return Errorf(CodeBadRequest, "no command was given")
	}
	if len(argv) > maxArgs {
		return Errorf(CodeBadRequest, "more than %d arguments", maxArgs)
	}
	for _, a := range argv {
		if hasNUL(a) {
			return Errorf(CodeBadRequest, "an argument contains a NUL byte")
		}
	}
	return nil
}

func checkEnv(lists ...[]string) error {
	for _, env := range lists {
		if len(env) > maxEnv {
			return Errorf(CodeBadRequest, "more than %d environment variables", maxEnv)
		}
		for _, kv := range env {
			if strings.IndexByte(kv, '=') < 1 || hasNUL(kv) {
				return Errorf(CodeBadRequest, "an environment variable is not NAME=VALUE")
			}
		}
	}
	return nil
}

func cleanAbs(p string) bool {
	return len(p) <= maxPathLen && path.IsAbs(p) && path.Clean(p) == p && !hasNUL(p)
}

func hasNUL(s string) bool { return strings.IndexByte(s, 0) >= 0 }
