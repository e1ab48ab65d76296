// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/seccomp"
)

// plan turns the profile and the request into what init applies.
func (l *launch) plan(ctx context.Context) error {
	s, r := l.s, l.r
	filter, err := l.m.filter(FilterOf(r.Profile))
	if err != nil {
		return err
	}
	listener, err := l.initSocket()
	if err != nil {
		return err
	}
	defer listener.Close()
	var caller *confine.Credential // nil: root
	if r.Owner != 0 {
		caller = &confine.Credential{UID: r.User.UID, GID: r.User.GID, Groups: r.User.Groups}
	}
	walls, err := WallsOf(r.Profile, caller)
	if err != nil {
		return err
	}
	people, err := homes(passwdFile)
	if err != nil {
		return err
	}
	in := confine.PlanInput{
		Walls: walls, Caller: caller, SandboxID: s.Record.ID,
		HostUID: s.Record.UID, HostGID: l.hostGID(),
		Identity:  confine.Identity{UID: s.Record.UID, GID: l.hostGID()},
		RealHome:  r.OwnerHome,
		Homes:     people,
		Workspace: r.Workspace, WorkspaceTarget: r.WorkspaceAt,
		Argv: r.Argv, Env: environment(r, s.View()), Dir: r.Dir,
		CABundle: [][]byte{l.m.o.Bundle, s.authority.PEM()}, CACert: s.authority.PEM(),
		SeccompFilter: filter, Stdio: r.Stdio, Status: r.Status, Listener: listener,
		TTY: r.TTY, Rows: r.Rows, Cols: r.Cols, Idmaps: l.m.idmaps, Images: l.m.images,
	}
	in.JavaStore = l.m.java.with(s.authority.DER())
	if u := r.User; u != nil {
		in.Identity.Groups = u.Groups
	}
	if r.RootInside {
		in.Identity = confine.Identity{UserNS: true}
	}
	if err := l.openWorkspace(ctx, &in); err != nil {
		return err
	}
	l.watch(in.Binds)
	if l.prep, err = confine.Plan(in); err != nil {
		return err
	}
	s.Record.Env, s.Record.Dir = l.prep.Spec.Env, l.prep.Spec.Dir
	return nil
}

// initSocket is where a restarted keeper finds init again.
func (l *launch) initSocket() (*os.File, error) {
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(l.s.dir, initSocketName), Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	defer ln.Close()
	return ln.File()
}

const initSocketName = "init.sock"

// filter compiles each system call filter once.
func (m *Manager) filter(o seccomp.Options) ([]byte, error) {
	m.filterMu.Lock()
	defer m.filterMu.Unlock()
	if f := m.filters[o]; f != nil {
		return f, nil
	}
	f, err := seccomp.Compile(o)
	if err == nil {
		m.filters[o] = f
	}
	return f, err
}

// FilterOf is the system call part of a profile.
func FilterOf(p *policy.Profile) seccomp.Options {
	return seccomp.Options{AllowUnix: p.UnixSockets, AllowMemfd: p.Seccomp.Memfd, AllowNestedFilters: p.Seccomp.Memfd}
}

// WallsOf is the file and resource part of a profile. Paths that are optional
// are left out where the caller (nil: root) cannot see them.
func WallsOf(p *policy.Profile, caller *confine.Credential) (confine.Walls, error) {
	read, rerr := paths(p.Files.Read, caller)
	write, werr := paths(p.Files.Write, caller)
	if err := errors.Join(rerr, werr); err != nil {
		return confine.Walls{}, err
	}
	w := confine.Walls{
		System: systemPaths(p.Files.Exec), Exec: requiredPaths(p.Files.Exec),
		Read: read, Write: write,
		Guarded:  append(confine.DefaultGuarded(), p.Files.Hide...),
		TmpBytes: p.Tmp, ShmBytes: p.Shm, HomeBytes: p.Home, MinLandlockABI: p.Require.LandlockABI, UnixSockets: p.UnixSockets,
	}
	switch p.Workspace {
	case policy.WorkspaceRO:
		w.Workspace = confine.WorkspaceReadOnly
	case policy.WorkspaceRW:
		w.Workspace = confine.WorkspaceReadWrite
	}
	for name, v := range p.Resources.Rlimits {
		if n, ok := policy.RlimitNumber(name); ok {
			w.Rlimits = append(w.Rlimits, confine.Rlimit{Resource: n, Value: uint64(v)})
		}
	}
	return w, nil
}

func requiredPaths(entries []policy.PathEntry) []string {
	return named(entries, func(e policy.PathEntry) bool { return !e.Optional })
}

// systemPaths are the optional entries, all of them: the plan skips those that
// the caller cannot see.
func systemPaths(entries []policy.PathEntry) []string {
	return named(entries, func(e policy.PathEntry) bool { return e.Optional })
}

func named(entries []policy.PathEntry, want func(policy.PathEntry) bool) []string {
	var out []string
	for _, e := range entries {
		if want(e) {
			out = append(out, e.Path)
		}
	}
	return out
}

// paths leaves out optional entries that the caller cannot see: those that the
// host does not have, and those in directories that are closed to the caller,
// which must not learn what is in there.
func paths(entries []policy.PathEntry, caller *confine.Credential) ([]string, error) {
	var out []string
	for _, e := range entries {
		if e.Optional {
			there, err := confine.Visible(e.Path, caller)
			if err != nil {
				return nil, err
			}
			if !there {
				continue
			}
		}
		out = append(out, e.Path)
	}
	return out, nil
}

// environment is what the profile lets through, then what it sets, then what
// the operator asked for by name.
//
// A placeholder key is left out where the provider forwards the agent's own
// credential: it would be sent in its place.
func environment(r *Request, view *policy.View) []string {
	env := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, kv := range r.Environ {
		if k, v, ok := strings.Cut(kv, "="); ok && r.Profile.Env.Passes(k) {
			env[k] = v
		}
	}
	for k, v := range r.Profile.Env.Set {
		if d := keyVariables[k]; d != "" && v == placeholder {
			forwards := func(p *policy.Provider) bool { return p.Dialect == d && p.Credential == policy.CredentialPassthrough }
			if slices.ContainsFunc(view.Providers(), forwards) {
				continue
			}
		}
		env[k] = v
	}
	for _, kv := range r.Env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	out := make([]string, 0, len(env))
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}

// placeholder is what shipped profiles set key variables to.
const placeholder = "ringfence-placeholder"

// keyVariables are the variables in which SDKs look for a key, by dialect.
var keyVariables = map[string]string{
	"OPENAI_API_KEY": policy.DialectOpenAI, "ANTHROPIC_API_KEY": policy.DialectAnthropic,
	"GEMINI_API_KEY": policy.DialectGemini, "GOOGLE_API_KEY": policy.DialectGemini,
}

// openWorkspace fills in the workspace, its baseline and the git guards. A
// caller who brings none gets a sandbox without one, whatever the profile says.
func (l *launch) openWorkspace(ctx context.Context, in *confine.PlanInput) error {
	s, r := l.s, l.r
	if r.Workspace == nil && r.WorkspaceAt != "" {
		return fmt.Errorf("workspace %s: its descriptor is missing", r.WorkspaceAt)
	}
	if r.Workspace == nil || in.Walls.Workspace == confine.WorkspaceNone {
		in.Walls.Workspace, in.Workspace = confine.WorkspaceNone, nil
		if !path.IsAbs(in.Dir) {
			in.Dir = "" // the home
		}
		return nil
	}
	if err := confine.MayUse(r.Workspace, in.Caller); err != nil {
		return &LaunchError{Code: 125, Step: "workspace", Err: fmt.Errorf("%s: %w", r.WorkspaceAt, err), Remedy: "use a directory that you may list and enter"}
	}
	dev, ino, err := statOf(r.Workspace)
	if err != nil {
		return err
	}
	s.Record.Workspace, s.Record.WorkspaceDev, s.Record.WorkspaceIno = r.WorkspaceAt, dev, ino
	if r.Dir == "" || !path.IsAbs(r.Dir) {
		in.Dir = path.Join(r.WorkspaceAt, r.Dir)
	}
	if s.handback, err = newHandback(ctx, r.Workspace, s.dir, &s.Record, r.Profile); err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	s.Record.Handback = s.handback != nil
	l.undoes(s.handback.close)
	binds, err := s.handback.guards(r.WorkspaceAt)
	if err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	in.Binds = binds
	return nil
}
