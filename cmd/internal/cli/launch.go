// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/cmd/internal/cli/internal/attach"
	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/scope"
)

// launcher asks the daemon for a program; it is Client.Launch or Client.Exec
// with the request bound.
type launcher func(ctx context.Context, f *api.Files) (*api.Launched, error)

// attached runs a program with the caller's standard descriptors, forwards
// signals and waits for it.
func (a *app) attached(ctx context.Context, stdio *attach.Stdio, workspace *os.File, start launcher) (attach.Result, error) {
	status, theirs, err := confine.Pair()
	if err != nil {
		stdio.Close()
		return attach.Result{}, err
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGWINCH)
	defer signal.Stop(signals)

	launched, err := start(ctx, &api.Files{Workspace: workspace, Stdio: stdio.Files, Status: theirs})
	_ = theirs.Close()
	if err != nil {
		_ = status.Close()
		stdio.Close()
		return attach.Result{}, err
	}
	stdio.Passed()
	return attach.Wait(launched, status, stdio, signals), nil
}

// detached waits only for the sandbox to be established.
func detached(ctx context.Context, workspace *os.File, start launcher) (attach.Result, error) {
	ctx, cancel := interruptible(ctx)
	defer cancel()
	l, err := start(ctx, &api.Files{Workspace: workspace})
	if err != nil {
		return attach.Result{}, err
	}
	defer l.Close() //nolint:errcheck // nothing depends on it
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	f, err := l.Next()
	switch {
	case ctx.Err() != nil:
		return attach.Result{}, ctx.Err()
	case errors.Is(err, io.EOF):
		return attach.Result{}, errors.New("the daemon went away before the sandbox was established")
	case err != nil:
		return attach.Result{}, err
	case f.Type == api.FrameFailed && f.Failed != nil:
		return attach.Result{Failure: f.Failed, Code: f.Failed.Code}, nil
	case f.Type != api.FrameEstablished:
		return attach.Result{}, fmt.Errorf("the daemon answered %q", show.Text(f.Type, 40))
	}
	return attach.Result{ID: f.ID}, nil
}

// outcome turns the end of a program into the exit of this one.
func (a *app) outcome(r attach.Result) error {
	if r.Note != "" {
		_, _ = fmt.Fprintln(a.err, "ringfence: "+show.Text(r.Note, 500))
	}
	switch {
	case r.Failure == nil && r.Code == 0:
		return nil
	case r.Failure == nil:
		return &programExit{code: r.Code}
	}
	msg := r.Failure.Message
	if r.Failure.Missing != "" {
		msg += "\nmissing: " + r.Failure.Missing
	}
	return &exitError{Code: r.Code, Err: errors.New(msg), Remedy: r.Failure.Remedy}
}

// openWorkspace opens the directory with the caller's rights, for the daemon
// never resolves a path of a caller. It returns the directory's real path and
// where the caller stands below it.
func openWorkspace(flag string) (f *os.File, real, dir string, err error) {
	if flag == "none" {
		return nil, "", "", nil
	}
	path := flag
	if path == "" {
		path = "."
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", "", fmt.Errorf("workspace %s: %w", path, err)
	}
	f = os.NewFile(uintptr(fd), path)
	real, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err == nil && flag == "" {
		err = careless(real)
	}
	if err != nil {
		_ = f.Close()
		return nil, "", "", err
	}
	return f, real, below(real), nil
}

// careless refuses to make everything the caller has a workspace because the
// caller stands there; named with --workspace it is the caller's choice.
func careless(dir string) error {
	what := ""
	if dir == "/" {
		what = "the root of the file system"
	} else if home, err := os.UserHomeDir(); err == nil {
		if real, err := filepath.EvalSymlinks(home); err == nil && real == dir {
			what = "your home directory"
		}
	}
	if what == "" {
		return nil
	}
	return &exitError{Code: exitNothingRan, Err: fmt.Errorf("the current directory is %s: it does not become a workspace by accident", what),
		Remedy: "name one with --workspace DIR, or --workspace none"}
}

// below is the caller's working directory relative to root, "" if it is root
// or not below it.
func below(root string) string {
	cwd, err := os.Readlink("/proc/self/cwd")
	if err != nil {
		return ""
	}
	rel, err := filepath.Rel(root, cwd)
	if err != nil || rel == "." || !filepath.IsLocal(rel) {
		return ""
	}
	return rel
}

// explicitEnv resolves --env K and --env K=V.
func explicitEnv(flags []string) ([]string, error) {
	var out []string
	for _, kv := range flags {
		name, _, has := strings.Cut(kv, "=")
		if name == "" {
			return nil, usagef("--env %q has no name", kv)
		}
		if !has {
			v, ok := os.LookupEnv(name)
			if !ok {
				return nil, usagef("--env %s: the variable is not set", name)
			}
			kv = name + "=" + v
		}
		out = append(out, kv)
	}
	return out, nil
}

// environ is the caller's environment without what is no NAME=VALUE.
func environ() []string {
	var out []string
	for _, kv := range os.Environ() {
		if strings.IndexByte(kv, '=') > 0 {
			out = append(out, kv)
		}
	}
	return out
}

// principal completes --as: a scope without an agent gets the command's name.
func principal(as string, argv []string) (string, error) {
	if as == "" {
		return "", nil
	}
	if p, err := scope.ParsePrincipal(as); err == nil {
		return p.String(), nil
	}
	sel, err := scope.ParseSelector(as)
	if err != nil {
		return "", fmt.Errorf("--as: %w", scopeError(as, err))
	}
	p := scope.Principal{Org: sel.Org.String(), Team: sel.Team.String(), Agent: filepath.Base(argv[0])}
	if sel.HasTarget() || sel.Agent != scope.Any || sel.Sandbox != scope.Any || sel.Org.Wild || sel.Team.Wild || p.Valid() != nil {
		return "", usagef("--as %q is not org:X/team:Y or org:X/team:Y/agent:Z, for example org:local/team:default", as)
	}
	return p.String(), nil
}

// identity resolves --user. Without it a caller that is not root runs as
// itself (the daemon takes ids and groups from the socket, only the name and
// the home directory from here), and root gets a uid of the sandbox's own.
func identity(name string) (*api.Identity, error) {
	if name == "" {
		if os.Geteuid() == 0 {
			return nil, nil //nolint:nilnil // "no choice" is a value here
		}
		name = strconv.Itoa(os.Geteuid())
		if _, err := user.LookupId(name); err != nil { // a uid without a name
			home, _ := os.UserHomeDir()
			return &api.Identity{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Home: home}, nil
		}
	}
	u, err := user.Lookup(name)
	if err != nil {
		var uerr error
		if u, uerr = user.LookupId(name); uerr != nil {
			return nil, usagef("--user: no user %q", name)
		}
	}
	id := &api.Identity{Name: u.Username, Home: u.HomeDir}
	if id.UID, err = parseID(u.Uid); err != nil {
		return nil, err
	}
	if id.GID, err = parseID(u.Gid); err != nil {
		return nil, err
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("--user %s: groups: %w", name, err)
	}
	for _, g := range groups {
		n, err := parseID(g)
		if err != nil {
			return nil, err
		}
		id.Groups = append(id.Groups, n)
	}
	return id, nil
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}
