// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

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
	Learns      bool   // see policy.View.Learning; who launches it may let it
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
	founding
	r *Request

	ahead bool // the steps that do not depend on a request were run before it came

	cgroup  *os.File
	missing []string // controllers that are not there and may be missing
	ns      *os.File
	init    *confine.Init
	prep    *confine.Prepared
	probes  []confine.ProbeResult // what init said of them

	released bool // the agent may run: the launch can only end like a running sandbox
}

// Launch establishes a sandbox and starts its agent. On error nothing runs
// and nothing is left behind; the error is a *LaunchError. Only processes that
// do not end although they were killed stay, behind their fence, and are
// reported as those of any other sandbox.
func (m *Manager) Launch(ctx context.Context, r *Request) (*Sandbox, error) {
	l := m.takeSpare(r)
	defer m.spareSoon()
	if l == nil {
		l = m.newLaunch()
	}
	l.r = r
	defer l.close()
	for _, p := range phases {
		if err := l.together(ctx, p); err != nil {
			if l.released {
				return nil, l.abort(err)
			}
			l.takeBack()
			return nil, l.failed(err)
		}
	}
	go l.s.live()
	return l.s, nil
}

func (m *Manager) newLaunch() *launch {
	return &launch{founding: founding{m: m, s: &Sandbox{m: m, state: Starting, ended: make(chan struct{}), done: make(chan struct{}), open: map[netip.Addr][]kernel.NameEntry{}}}}
}

// close releases what only the launch itself needed.
func (l *launch) close() {
	files := []*os.File{l.cgroup, l.ns}
	if l.r != nil {
		files = append(append(files, l.r.Status), l.r.Stdio[:]...)
	}
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
	if l.prep != nil {
		l.prep.Close()
	}
	if l.init != nil {
		_ = l.init.Process.Release() // its pidfd; live has one of its own
	}
}

// register says who the sandbox is.
func (l *launch) register(context.Context) error {
	r, rec := l.r, &l.s.Record
	if err := l.m.name(rec.Number, r.Principal, r.Name); err != nil {
		return err
	}
	rec.Name, rec.Profile, rec.Explain, rec.Unix, rec.Loopback, rec.Learns = r.Name, r.Profile.Name, r.Profile.Explain, r.Profile.UnixSockets, true, r.Learns
	rec.Owner, rec.Argv, rec.Detached, rec.TTY, rec.Created = r.Owner, r.Argv, r.Detached, r.TTY, time.Now().UTC()
	return l.actsFor(r.Principal)
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
	l.frees(func() { l.m.releaseUID(uid) })
	return nil
}

func (l *launch) policy(context.Context) error { return l.view(l.r.Prepare) }

func (l *launch) clone(context.Context) (err error) {
	s := l.s
	o := confine.StartOptions{Init: l.m.o.Init, CgroupFD: int(l.cgroup.Fd())}
	if l.r != nil && l.r.RootInside {
		o.UserNS, o.HostUID, o.HostGID = true, s.Record.UID, l.hostGID()
	}
	if l.init, err = confine.Start(o); err != nil {
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
	s.Record.Namespaces, err = namespacesOf(strconv.Itoa(l.init.Process.Pid))
	return err
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
	if err := s.listeners.tellClients(l.ns); err != nil { // what the records lack, no wall does
		l.m.o.Logger.Warn("records of a new sandbox", "sandbox", s.Record.ID, "error", err)
		l.missing = append(l.missing, err.Error())
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
	if l.s.uid != nil {
		if err := l.s.uid.Bind(l.s.Record.Init); err != nil {
			return err
		}
	}
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
	return s.started()
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
	e.Args = strings.Join(s.Record.Argv, " ")
	e.Actor = scope.Operator(s.Record.Owner, "")
	e.Detail = "profile " + s.Record.Profile
	if s.Record.Learns {
		e.Detail += "; LEARNING: TCP that no rule speaks of is let through and recorded"
	}
	return e
}

// statOf identifies a directory descriptor.
func statOf(f *os.File) (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, 0, fmt.Errorf("workspace: %w", err)
	}
	return st.Dev, st.Ino, nil
}
