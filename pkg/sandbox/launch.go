// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/ca"
	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/wire"
)

// How long init may take for one step before the launch is given up.
const initPatience = 20 * time.Second

// User is an unprivileged identity on the host.
type User struct {
	UID, GID uint32
	Groups   []uint32
	Name     string
	Home     string
}

// Request is one launch. The manager takes over the descriptors.
type Request struct {
	Principal   scope.Principal
	Name        string
	Profile     *policy.Profile
	Owner       uint32 // uid of the launcher
	OwnerHome   string // the launcher's home on the host
	User        *User  // nil: a uid of the sandbox's own
	RootInside  bool   // uid 0 inside a user namespace, an own uid on the host
	Argv        []string
	Environ     []string // the caller's; the profile filters
	Env         []string // asked for by name; wins
	Dir         string   // relative to the workspace, or absolute inside
	Workspace   *os.File
	WorkspaceAt string // path inside
	TTY         bool
	Rows, Cols  uint16
	Detached    bool
	Stdio       [3]*os.File
	Status      *os.File
	// KeepOutput, for a detached sandbox, starts a holder of its output and
	// returns what the sandbox writes to.
	KeepOutput func(id string) (*os.File, error)
	// Prepare is called with the id when policy for this sandbox can be
	// added, before anything is decided on it. It returns document names to
	// remember in the record.
	Prepare func(id string, p scope.Principal) ([]string, error)
}

// launch is one launch under way.
type launch struct {
	m *Manager
	r *Request
	s *Sandbox

	mu   sync.Mutex // guards undo: lanes run at the same time
	undo []func()

	cgroup  *os.File
	missing []string // controllers that are not there and may be missing
	ns      *os.File
	init    *confine.Init
	prep    *confine.Prepared
	probes  []confine.ProbeResult // what init said of them
	logged  bool                  // the start is in the event log, or may be

	released bool // the agent may run: the launch can only end like a running sandbox
}

// Launch establishes a sandbox and starts its agent. On error nothing runs
// and nothing is left behind; the error is a *LaunchError. Only processes that
// do not end although they were killed stay, behind their fence, and are
// reported as those of any other sandbox.
func (m *Manager) Launch(ctx context.Context, r *Request) (*Sandbox, error) {
	l := &launch{m: m, r: r, s: &Sandbox{m: m, state: Starting, ended: make(chan struct{}), done: make(chan struct{}), open: map[netip.Addr][]kernel.NameEntry{}}}
	defer l.close()
	for _, p := range phases {
		if err := l.together(ctx, p); err != nil {
			if l.released {
				return nil, l.abort(err)
			}
			for i := len(l.undo) - 1; i >= 0; i-- {
				l.undo[i]()
			}
			return nil, l.failed(err)
		}
	}
	go l.s.live()
	return l.s, nil
}

func launchError(step string, err error) error {
	var le *LaunchError
	if errors.As(err, &le) {
		return le
	}
	return &LaunchError{Code: 125, Step: step, Err: err}
}

// close releases what only the launch itself needed.
func (l *launch) close() {
	for _, f := range []*os.File{l.cgroup, l.ns, l.r.Status, l.r.Stdio[0], l.r.Stdio[1], l.r.Stdio[2]} {
		if f != nil {
			f.Close()
		}
	}
	if l.prep != nil {
		l.prep.Close()
	}
}

func (l *launch) undoes(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.undo = append(l.undo, f)
}

func (l *launch) register(context.Context) error {
	s, r := l.s, l.r
	s.Record = Record{
		Name: r.Name, Profile: r.Profile.Name, Explain: r.Profile.Explain, Unix: r.Profile.UnixSockets, Loopback: true,
		Owner: r.Owner, Argv: r.Argv, Detached: r.Detached, TTY: r.TTY, Created: time.Now().UTC(),
	}
	if err := l.m.register(s); err != nil {
		return err
	}
	l.undoes(func() {
		s.mu.Lock()
		s.state = Stopped
		s.mu.Unlock()
		l.m.unregister(s)
		close(s.done)
	})
	s.Principal = r.Principal
	s.Principal.Sandbox = s.Record.ID
	s.Record.Scope = s.Principal.String()
	if n := len(s.Record.Scope); n > wire.MaxScope {
		return &LaunchError{Code: 125, Step: "register", Err: fmt.Errorf("the scope has %d bytes, at most %d can be recorded: it begins with %.80s", n, wire.MaxScope, s.Record.Scope),
			Remedy: "use shorter names for org, team and agent"}
	}
	if s.Record.Name == "" {
		s.Record.Name = r.Principal.Agent + "-" + s.Record.ID[:4]
	}
	return nil
}

func (l *launch) identity(context.Context) error {
	s := l.s
	if u := l.r.User; u != nil {
		if u.UID == 0 || u.GID == 0 {
			return errors.New("no process of a sandbox may have host uid or gid 0")
		}
		s.Record.UID, s.Record.Groups = u.UID, append([]uint32{u.GID}, u.Groups...)
		return nil
	}
	uid, err := l.m.acquireUID(s.Record.Number)
	if err != nil {
		return err
	}
	s.uid, s.Record.UID, s.Record.OwnUID = uid, uid.Value, true
	l.undoes(func() { l.m.releaseUID(uid) })
	return nil
}

func (l *launch) directory(context.Context) (err error) {
	s := l.s
	s.dir = filepath.Join(l.m.o.Dir, s.Record.ID)
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return err
	}
	l.undoes(func() { os.RemoveAll(s.dir) })
	if s.names, err = OpenNames(filepath.Join(s.dir, "names")); err != nil {
		return err
	}
	l.undoes(func() { s.names.Close() })
	return nil
}

func (l *launch) certificate(context.Context) (err error) {
	l.s.authority, err = ca.New(l.s.dir, l.s.Record.ID, time.Now())
	return err
}

func (l *launch) policy(context.Context) error {
	if l.r.Prepare != nil {
		docs, err := l.r.Prepare(l.s.Record.ID, l.s.Principal)
		if err != nil {
			return err
		}
		l.s.Record.Documents = docs
	}
	l.s.view.Store(l.m.o.Snapshot().View(l.s.Principal))
	return nil
}

// fence makes the cgroup and attaches the programs while it is still empty.
func (l *launch) fence(context.Context) (err error) {
	s, o := l.s, l.m.o
	s.Record.Cgroup = filepath.Join(o.CgroupBase, cgroupPrefix+s.Record.ID)
	if l.cgroup, s.Record.CgroupID, err = makeCgroup(s.Record.Cgroup); err != nil {
		return err
	}
	l.undoes(func() {
		if err := RemoveCgroup(s.Record.Cgroup); err != nil {
			o.Logger.Error("undo of a launch", "error", err)
		}
	})
	if err := l.limits(); err != nil {
		return err
	}
	if s.Record.Unix && !o.UnixHooks && !l.r.Profile.IsOptional(policy.FeatureUnixHooks) {
		return &LaunchError{Code: 125, Step: "unix sockets", Missing: "cgroup unix socket hooks (kernel 6.7)",
			Err:    errors.New("the profile allows unix sockets and this kernel cannot watch them"),
			Remedy: "use a newer kernel, a profile without unixSockets, or list unixHooks under optional"}
	}
	if s.table, err = l.m.newTable(s.View().Snapshot()); err != nil {
		return err
	}
	l.undoes(func() {
		if err := l.m.dropTables(s.table); err != nil {
			o.Logger.Error("undo of a launch", "error", err)
		}
	})
	addrs := cidrEntries(s.View())
	if err := s.fill(s.table, s.refusal(), addrs); err != nil {
		return err
	}
	s.addrs, s.written = digest(addrs), true
	if s.fence, err = o.Fence.AttachSandbox(s.Record.Cgroup, s.kernelState()); err != nil {
		return err
	}
	l.undoes(func() {
		if err := errors.Join(endProcesses(s.Record.Cgroup, l.m.patience), s.fence.Detach()); err != nil {
			o.Logger.Error("undo of a launch", "error", err)
		}
	})
	return nil
}

// limits sets what the cgroup controllers of this machine can limit.
func (l *launch) limits() error {
	res := l.r.Profile.Resources
	for _, c := range []struct {
		file    string
		value   int64
		feature string
	}{{"memory.max", res.Memory, policy.FeatureMemoryLimit}, {"pids.max", res.PIDs, policy.FeaturePIDsLimit}} {
		if c.value == 0 {
			continue
		}
		have, err := limit(l.s.Record.Cgroup, c.file, c.value)
		if err != nil {
			return err
		}
		if have {
			continue
		}
		if !l.r.Profile.IsOptional(c.feature) {
			return &LaunchError{Code: 125, Step: "resource limits", Missing: "cgroup v2 controller for " + c.file,
				Err:    fmt.Errorf("the profile limits it and the controller is not there"),
				Remedy: fmt.Sprintf("enable the controller for cgroup v2, or list %s under optional in the profile", c.feature)}
		}
		l.missing = append(l.missing, c.feature)
	}
	return nil
}

func (s *Sandbox) kernelState() kernel.State {
	st := kernel.State{Sandbox: s.Record.Number, Policy: s.table, Generation: uint32(s.View().Snapshot().Revision()), Flags: kernel.FlagDNS}
	if s.Record.Loopback {
		st.Flags |= kernel.FlagLoopback
	}
	if s.Record.Unix {
		st.Flags |= kernel.FlagUnix
	}
	if f := s.Record.Foreign; f != nil && f.Direct {
		st.Flags |= kernel.FlagDirect
	}
	if f := s.Record.Foreign; f != nil && f.Inbound {
		st.Flags |= kernel.FlagInbound
	}
	return st
}

func (l *launch) clone(context.Context) (err error) {
	s := l.s
	l.init, err = confine.Start(confine.StartOptions{
		Init: l.m.o.Init, CgroupFD: int(l.cgroup.Fd()),
		UserNS: l.r.RootInside, HostUID: s.Record.UID, HostGID: l.hostGID(),
	})
	if err != nil {
		return err
	}
	l.undoes(func() {
		l.init.Conn.Close()
		_ = l.init.Process.Kill() // an error means that it has ended
		_, _ = l.init.Process.Wait()
	})
	if s.Record.Init, err = ProcessOf(l.init.Process.Pid); err != nil {
		return err
	}
	if s.Record.Namespaces, err = namespacesOf(strconv.Itoa(l.init.Process.Pid)); err != nil {
		return err
	}
	if s.uid != nil {
		return s.uid.Bind(s.Record.Init)
	}
	return nil
}

// output gives a detached sandbox something to write to.
func (l *launch) output(context.Context) error {
	if l.r.KeepOutput == nil {
		return nil
	}
	w, err := l.r.KeepOutput(l.s.Record.ID)
	if err != nil {
		return err
	}
	again, err := dup(w)
	if err != nil {
		w.Close()
		return err
	}
	l.r.Stdio[1], l.r.Stdio[2] = w, os.NewFile(uintptr(again), "output")
	return nil
}

func (l *launch) hostGID() uint32 {
	if l.r.User != nil {
		return l.r.User.GID
	}
	return l.s.Record.UID
}

func (l *launch) network(ctx context.Context) (err error) {
	s := l.s
	if l.ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", l.init.Process.Pid)); err != nil {
		return err
	}
	if err := setUpNetwork(l.ns); err != nil {
		return err
	}
	if s.listeners, err = openListeners(ctx, l.ns); err != nil {
		return err
	}
	l.undoes(s.listeners.Close)
	if err := s.listeners.tellClients(l.ns); err != nil {
		return err
	}
	if s.Record.Listeners, err = s.listeners.cookies(); err != nil {
		return err
	}
	return s.steer(l.ns)
}

func (s *Sandbox) steer(ns *os.File) error {
	l := s.listeners
	return s.fence.Steer(int(ns.Fd()), kernel.SteerListeners{TCP4: rawFD(l.TCP4), TCP6: rawFD(l.TCP6), UDP4: rawFD(l.UDP4), UDP6: rawFD(l.UDP6)})
}

func (l *launch) gateway(ctx context.Context) error {
	if err := l.m.publish(l.s); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// Before the announcement: one that fails may have been taken all the same.
	l.undoes(l.s.forget)
	if err := l.s.announce(ctx, l.m.o.Gateway); err != nil {
		return fmt.Errorf("the gateway did not take the sandbox: %w", err)
	}
	return nil
}

// forgetPause is between two attempts to tell a gateway that is just ending.
const forgetPause = 20 * time.Millisecond

// forget tells the gateway that the sandbox is gone.
func (s *Sandbox) forget() {
	s.mu.Lock()
	s.forgotten = true
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var err error
	for ctx.Err() == nil {
		// A gateway that ends meanwhile may have a successor that knows the
		// sandbox already.
		if _, _, err = s.m.o.Gateway.Call(ctx, wire.TypeSandboxRemove, wire.ID(s.Record.Number).Encode()); !errors.Is(err, wire.ErrClosed) {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(forgetPause):
		}
	}
	if err != nil {
		s.m.o.Logger.Warn("the gateway was not told about an ended sandbox; a new one will not know it", "sandbox", s.Record.ID, "error", err)
	}
}

func (l *launch) walls(ctx context.Context) error {
	if err := l.init.Conn.RefuseDescriptors(); err != nil {
		return err
	}
	l.m.expectProbes(l.s.Record.Number, l.s.Record.Init.PID)
	if err := l.prep.Send(l.init.Conn); err != nil {
		return err
	}
	c := newControl(l.init.Conn)
	l.s.mu.Lock()
	l.s.control = c
	l.s.mu.Unlock()
	ready, err := c.expect(ctx, confine.FrameReady, initPatience)
	if err != nil {
		return err
	}
	l.probes, err = confine.DecodeProbes(ready.Payload)
	return err
}

// save writes the record before the start is in the log: a keeper that finds
// no record knows that there was no start to end.
func (l *launch) save(context.Context) error {
	l.s.Record.Degraded = append(l.missing, l.prep.Notes...)
	l.s.noteGuard()
	if err := l.s.fence.Watch(l.s.Record.Watch); err != nil {
		return err
	}
	return l.s.Record.save(l.s.dir)
}

// record makes the launch a fact in the log. Whatever fails after that is
// recorded as the end of this sandbox.
func (l *launch) record(ctx context.Context) error {
	l.logged = true // an error may come after the event
	if _, err := l.m.o.Log.Append(ctx, l.s.startEvent()); err != nil {
		return fmt.Errorf("the event log does not take the start: %w", err)
	}
	return nil
}

// start lets the agent go.
func (l *launch) start(ctx context.Context) error {
	s := l.s
	l.released = true
	if err := s.control.send(confine.Frame{Type: confine.FrameGo}, nil); err != nil {
		return err
	}
	if _, err := s.control.expect(ctx, confine.FrameStarted, initPatience); err != nil {
		if isHostile(err) {
			s.recordHostile(err)
		}
		return err
	}
	s.Record.Started = true
	if err := s.Record.save(s.dir); err != nil {
		return err
	}
	s.mu.Lock()
	s.state = Running
	s.mu.Unlock()
	return nil
}

// catchUp applies a policy that came into force before the sandbox was
// published; from then on every one is applied to it as to any other. So its
// agent never runs under an older one than that of its start.
func (l *launch) catchUp(context.Context) error {
	snap := l.m.o.Snapshot()
	if l.s.View().Snapshot().Revision() == snap.Revision() {
		return nil
	}
	return l.s.enforce(snap)
}

// failed records the end of a launch whose start is in the log. It does not
// depend on the launch's context: that may be why it failed.
func (l *launch) failed(err error) error {
	if l.logged {
		l.s.recordStop(-1, err, nil)
	}
	return err
}

// abort ends a launch whose agent may have run, and says in the error what was
// found in its workspace.
func (l *launch) abort(why error) error {
	s := l.s
	go s.abort(why)
	select {
	case <-s.done: // with everything it held
	case <-time.After(stopPatience):
		return &LaunchError{Code: failureStatus(why), Step: "start", Err: fmt.Errorf("%w; %w, see the events", why, ErrProcesses)}
	}
	if n := len(s.Exit().Findings); n > 0 {
		return &LaunchError{Code: failureStatus(why), Step: "start", Err: fmt.Errorf("%w; what was found in the workspace after that is in %d events", why, n)}
	}
	return why
}

// failureStatus is the exit status of a failed launch.
func failureStatus(err error) int {
	if le := (*LaunchError)(nil); errors.As(err, &le) {
		return le.Code
	}
	return 125
}

func (s *Sandbox) event(k event.Kind) *event.Event {
	return &event.Event{Kind: k, Time: time.Now().UTC(), Source: "keeper", Sandbox: s.Record.ID,
		Scope: s.Principal.String(), Object: s.Record.Name, Version: s.m.o.Version, UID: s.Record.UID}
}

func (s *Sandbox) startEvent() *event.Event {
	e := s.event(event.KindSandboxStart)
	e.Verdict, e.Activity = event.Observed, "start"
	e.PID = uint32(s.Record.Init.PID)
	e.Args = joinArgs(s.Record.Argv)
	e.Actor = fmt.Sprintf("uid=%d", s.Record.Owner)
	e.Detail = "profile " + s.Record.Profile
	return e
}

func joinArgs(argv []string) string {
	out := ""
	for i, a := range argv {
		if i > 0 {
			out += " "
		}
		out += a
	}
	return out
}

// statOf identifies a directory descriptor.
func statOf(f *os.File) (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, 0, fmt.Errorf("workspace: %w", err)
	}
	return st.Dev, st.Ino, nil
}
