// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/profiles"
)

// Launch establishes a sandbox.
func (b *backend) Launch(ctx context.Context, c *api.Caller, r *api.LaunchRequest, f *api.Files) (api.Session, error) {
	s, err := b.launch(ctx, c, r, f)
	if err != nil {
		f.Close()
		return nil, launchFailure(err)
	}
	return &session{s: s}, nil
}

func (b *backend) launch(ctx context.Context, c *api.Caller, r *api.LaunchRequest, f *api.Files) (*sandbox.Sandbox, error) {
	profile, err := b.d.profile(r.Profile)
	if err != nil {
		return nil, err
	}
	if r.TTY && !profile.Terminal {
		return nil, &sandbox.LaunchError{Code: 125, Step: "terminal", Err: fmt.Errorf("profile %s gives no terminal", profile.Name),
			Missing: "terminal: true in the profile", Remedy: "run with input and output redirected, or use another profile"}
	}
	if err := b.d.refuseOwnPlaces(f.Workspace, profile); err != nil {
		return nil, err
	}
	principal, err := principalOf(r)
	if err != nil {
		return nil, err
	}
	q := &sandbox.Request{
		Principal: principal, Name: r.Name, Profile: profile, Learns: r.Learn, Owner: c.UID, Argv: r.Argv, Environ: r.Environ, Env: r.Env, Dir: r.Dir,
		Workspace: f.Workspace, WorkspaceAt: r.WorkspacePath, TTY: r.TTY, Rows: r.Rows, Cols: r.Cols, Detached: r.Detach,
		Stdio: f.Stdio, Status: f.Status,
	}
	if err := setIdentity(q, knownAs(c.UID, r.Identity), func() int { return groupID(b.d.cfg.Group) }); err != nil {
		return nil, err
	}
	if err := b.stdio(q); err != nil {
		return nil, err
	}
	var id string
	q.Prepare = func(given string, p scope.Principal) ([]string, error) {
		id = given
		return b.d.addSandboxDocuments(id, c.UID, p, r.Policies)
	}
	s, err := b.d.sandboxes.Launch(ctx, q)
	if err != nil && id != "" {
		b.d.dropSandboxDocuments(id)
		b.d.removeOutput(b.d.outputPath(id))
	}
	*f = api.Files{} // the manager has closed what it was given
	if f2 := q.Workspace; f2 != nil {
		f2.Close()
	}
	return s, err
}

// knownAs takes name and home directory of a caller who is not root from the
// machine's user database, whatever the request says: where secrets are hidden
// follows from it. A uid without an entry has neither.
func knownAs(caller uint32, id *api.Identity) *api.Identity {
	if caller == 0 || id == nil {
		return id
	}
	own := *id
	own.Name, own.Home = "", ""
	if u, err := user.LookupId(strconv.FormatUint(uint64(id.UID), 10)); err == nil {
		own.Name, own.Home = u.Username, u.HomeDir
	}
	return &own
}

// setIdentity: root without a wish gets a uid of the sandbox's own, root that
// asks for uid 0 gets it inside only, everybody else is somebody unprivileged.
// The operators' group never goes in; it is looked up only where it matters, for
// the user database may be far away.
func setIdentity(q *sandbox.Request, id *api.Identity, operatorsGroup func() int) error {
	if id == nil {
		q.OwnerHome = "/root"
		return nil
	}
	if id.UID == 0 {
		q.RootInside, q.OwnerHome = true, "/root"
		return nil
	}
	operators := operatorsGroup()
	if int(id.GID) == operators {
		return &sandbox.LaunchError{Code: 125, Step: "identity", Err: errors.New("the primary group is the operators' group, which no sandbox may have"),
			Remedy: "use another primary group: newgrp, or usermod -g"}
	}
	groups := slices.DeleteFunc(slices.Clone(id.Groups), func(g uint32) bool { return int(g) == operators || g == 0 })
	q.User = &sandbox.User{UID: id.UID, GID: id.GID, Groups: groups, Name: id.Name, Home: id.Home}
	q.OwnerHome = id.Home
	return nil
}

// stdio gives a detached sandbox /dev/null and a holder for its output.
func (b *backend) stdio(q *sandbox.Request) error {
	if !q.Detached {
		return nil
	}
	q.KeepOutput = b.d.startHolder
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	q.Stdio[0] = null
	return nil
}

// profile finds a profile: a text that the caller read, one of the policy
// directory, or one that ships.
func (d *Daemon) profile(doc api.Document) (*policy.Profile, error) {
	if doc.Text != "" {
		return parseProfile(doc.File, []byte(doc.Text))
	}
	name := doc.Name
	if name == "" {
		name = profiles.Default
	}
	if p, ok := d.library.Snapshot().Profile(name); ok {
		return p, nil
	}
	file, text, err := d.profileText(name)
	if err != nil {
		return nil, err
	}
	return d.parsed.parse(file, text)
}

func (d *Daemon) profileText(name string) (string, []byte, error) {
	if strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, ".") {
		return "", nil, fmt.Errorf("profile name %q", name)
	}
	file := filepath.Join(d.cfg.ProfileDir, name+".yaml")
	if b, err := os.ReadFile(file); err == nil {
		return file, b, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", nil, err
	}
	file, b, err := profiles.Read(name)
	if err != nil {
		return "", nil, fmt.Errorf("no profile named %q: shipped are %s; a path to a file works too", name, strings.Join(profiles.Names(), ", "))
	}
	return file, b, nil
}

// principalOf is who the sandbox runs as in policy.
func principalOf(r *api.LaunchRequest) (scope.Principal, error) {
	agent := agentName(r.Argv[0])
	if r.Scope == "" {
		return scope.ParsePrincipal(api.DefaultScope + "/agent:" + agent)
	}
	p, err := scope.ParsePrincipal(r.Scope)
	if err != nil {
		return p, err
	}
	if p.Agent == "" {
		p.Agent = agent
	}
	return p, nil
}

// agentName makes a selector value of a command's name.
func agentName(argv0 string) string {
	var b strings.Builder
	for _, c := range []byte(path.Base(argv0)) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.@-", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// launchFailure gives every failed launch its exit code and remedy.
func launchFailure(err error) error {
	var le *sandbox.LaunchError
	if errors.As(err, &le) {
		return &api.LaunchFailure{Code: le.Code, Message: le.Error(), Missing: le.Missing, Remedy: le.Remedy}
	}
	var ae *api.Error
	if errors.As(err, &ae) {
		return &api.LaunchFailure{Code: 125, Message: ae.Error(), Remedy: ae.Remedy}
	}
	return &api.LaunchFailure{Code: 125, Message: err.Error()}
}

// session is one launch that the API waits for.
type session struct{ s *sandbox.Sandbox }

func (s *session) ID() string { return s.s.Record.ID }

func (s *session) Wait(ctx context.Context) (api.Exit, error) {
	select {
	case <-s.s.Ended():
	case <-ctx.Done():
		return api.Exit{}, ctx.Err()
	}
	x := s.s.Exit()
	return api.Exit{Code: x.Code, Denials: s.s.Denials(), Failures: s.s.Failures(), Findings: findings(x), Why: x.Why}, nil
}

// Exec runs one more program in a sandbox.
func (b *backend) Exec(ctx context.Context, _ *api.Caller, id string, r *api.ExecRequest, f *api.Files) (api.Session, error) {
	defer f.Close()
	s, err := b.living(id)
	if err != nil {
		return nil, launchFailure(err)
	}
	p, err := s.Exec(ctx, &sandbox.ExecRequest{Argv: r.Argv, Env: r.Env, Dir: r.Dir, TTY: r.TTY, Rows: r.Rows, Cols: r.Cols, Stdio: f.Stdio, Status: f.Status})
	if err != nil {
		return nil, launchFailure(err)
	}
	return &execSession{id: id, p: p}, nil
}

type execSession struct {
	id string
	p  *sandbox.ExecProcess
}

func (s *execSession) ID() string { return s.id }

func (s *execSession) Wait(ctx context.Context) (api.Exit, error) {
	code, err := s.p.Wait(ctx)
	return api.Exit{Code: code}, err
}
