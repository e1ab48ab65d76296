// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/ca"
	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/workspace"
)

// Leftover is a sandbox that a former keeper left behind.
type Leftover struct {
	Record Record
	dir    string
}

// Leftovers lists what a former keeper left behind. Directories without a
// readable record belong to launches that never finished.
func (m *Manager) Leftovers() ([]Leftover, error) {
	entries, err := os.ReadDir(m.o.Dir)
	if err != nil {
		return nil, err
	}
	var out []Leftover
	for _, e := range entries {
		dir := filepath.Join(m.o.Dir, e.Name())
		r, err := loadRecord(dir)
		if err != nil {
			m.o.Logger.Info("a launch that did not come to its end, or the spare of a daemon that was killed, is removed", "sandbox", e.Name(), "error", err)
			left := m.unfinished(e.Name())
			r = &left
		}
		out = append(out, Leftover{Record: *r, dir: dir})
		// The gateway may tell of it before it is taken over, or put away.
		if who, err := scope.ParsePrincipal(r.Scope); err == nil {
			m.mu.Lock()
			m.past.add(r.ID, who)
			m.mu.Unlock()
		}
	}
	if err := m.findRoom(out); err != nil {
		m.o.Logger.Error("what sandboxes of a former daemon have in the kernel's tables is not known; they may get less of it, or more", "error", err)
	}
	return out, nil
}

// Lives says whether there is something to take over: processes that were let
// go and whose init is there, or a fence around processes of others.
func (lo Leftover) Lives() bool {
	return lo.Record.Foreign != nil || lo.Record.Started && lo.Record.Init.Alive()
}

// Take asks the gateway for the listeners of a sandbox; nil says that it
// answered that it holds none. An error says that it gave no answer.
type Take func(number uint32) (*Listeners, error)

// ErrLater says that a sandbox was not taken over, nor anything done to it:
// the same Leftover can be taken over again.
var ErrLater = errors.New("it goes on behind its fence and is taken over later")

// TakeOver takes over a sandbox that a former keeper left. Listeners that the
// gateway does not hold are opened again in the namespace that init holds. ok
// is false without an error when nothing lives there any more: see PutAway. One
// whose take-over fails is ended and put away, unless the error is ErrLater.
func (m *Manager) TakeOver(ctx context.Context, lo Leftover, take Take) (ok bool, err error) {
	if !lo.Lives() {
		return false, nil
	}
	listeners, err := take(lo.Record.Number)
	if err != nil {
		return false, fmt.Errorf("%w: its listeners: %w", ErrLater, err)
	}
	s := m.leftover(lo)
	s.listeners = listeners
	if s.Record.Foreign != nil {
		return m.takeOverForeign(ctx, s)
	}
	if err = s.restore(); err == nil {
		err = s.reattach(ctx)
	}
	if err != nil && ctx.Err() != nil {
		s.letGo()
		return false, fmt.Errorf("%w: %w", ErrLater, err)
	}
	if err != nil {
		m.putAway(s)
		return false, err
	}
	if err := m.readmit(s); err != nil {
		return false, err // stopping already: the next keeper may have it
	}
	go s.live()
	return true, nil
}

// readmit makes a sandbox of a former keeper one of this one's, with the policy of now. Of
// what it wants now, what the kernel has of it counts as had.
func (m *Manager) readmit(s *Sandbox) error {
	m.mu.Lock()
	m.reserved[s.Record.Number] = nameOf(&s.Record)
	m.wg.Add(1)
	m.mu.Unlock()
	if err := m.publish(s); err != nil {
		m.unregister(s)
		return err
	}
	s.takeRoomAgain()
	if err := s.enforce(m.o.Snapshot()); err != nil {
		m.o.Logger.Error("policy of a sandbox that was taken over", "sandbox", s.Record.ID, "error", err)
	}
	return nil
}

// letGo gives up what this keeper opened of a sandbox and leaves it as it is.
func (s *Sandbox) letGo() {
	if s.control != nil {
		s.control.end()
	}
	if s.listeners != nil {
		s.listeners.Close()
	}
	s.handback.close()
	if s.uid != nil {
		s.uid.leave()
	}
	if s.netns != nil {
		s.netns.Close()
	}
	var errs []error
	if s.names != nil {
		errs = append(errs, s.names.Close())
	}
	if s.fence != nil {
		errs = append(errs, s.fence.Close())
	}
	if err := errors.Join(errs...); err != nil {
		s.m.o.Logger.Error("a sandbox that is taken over later", "sandbox", s.Record.ID, "error", err)
	}
}

func (m *Manager) leftover(lo Leftover) *Sandbox {
	return &Sandbox{m: m, Record: lo.Record, dir: lo.dir, state: Running, ended: make(chan struct{}), done: make(chan struct{}), open: map[netip.Addr][]kernel.NameEntry{}}
}

// restore reads back what lives in files.
func (s *Sandbox) restore() (err error) {
	if s.Principal, err = scope.ParsePrincipal(s.Record.Scope); err != nil {
		return err
	}
	if s.names, err = OpenNames(filepath.Join(s.dir, "names")); err != nil {
		return err
	}
	if s.authority, err = ca.Load(s.dir); err != nil {
		return err
	}
	if s.Record.OwnUID {
		if s.uid, err = s.m.o.UIDs.Take(s.Record.UID); err != nil {
			return err
		}
	}
	s.reopenWorkspace()
	view := s.viewOf(s.m.o.Snapshot())
	s.view.Store(view)
	for a, name := range s.names.All() {
		d := view.Name(name)
		if d.Resolves {
			s.open[a] = NameEntries(a, d)
		}
		if d.Wildcard {
			s.wildcards.total++ // what it has spent does not come back with a new keeper
		}
	}
	return nil
}

// reopenWorkspace finds the workspace again. One that cannot be found is
// reported, once: nobody will check what the run left there.
func (s *Sandbox) reopenWorkspace() {
	if s.handback != nil || s.unchecked || s.Record.Workspace == "" {
		return
	}
	var err error
	if s.handback, err = reopenHandback(s.Record, s.dir); err == nil {
		return
	}
	s.mu.Lock()
	s.unchecked = true
	s.problems = append(s.problems, err.Error())
	s.mu.Unlock()
	s.m.o.Logger.Error("the workspace will not be checked when it is handed back", "sandbox", s.Record.ID, "error", err)
	e := s.event(event.KindWorkspace)
	e.Verdict, e.Activity, e.Severity = event.Observed, "reported", event.SeverityHigh
	e.Path, e.ReasonCode = s.Record.Workspace, string(workspace.KindUnseen)
	e.Reason = "the workspace was not found again after a restart of the daemon: what the run leaves in it is not checked"
	e.Detail = err.Error()
	e.Remedy = "look at its git hooks and settings before using them"
	s.append(e)
}

// reattach takes over kernel objects, listeners and init.
func (s *Sandbox) reattach(ctx context.Context) (err error) {
	if s.fence, err = s.m.o.Fence.TakeOverSandbox(s.Record.Cgroup, s.Record.Number); err != nil {
		s.tellUnfenced(err)
		return err
	}
	if err := s.fence.Watch(s.Record.Watch); err != nil {
		return err
	}
	s.table = s.fence.State().Policy
	s.m.mu.Lock()
	s.m.tables[s.table] = true
	s.m.mu.Unlock()
	if s.listeners != nil && s.listeners.UDP4 == nil { // of a version that relayed no datagrams
		s.listeners.Close()
		s.listeners = nil
	}
	if s.listeners != nil && !s.listeners.are(s.Record.Listeners) {
		s.m.o.Logger.Error("the gateway gave back other sockets than it was given; they are opened again", "sandbox", s.Record.ID)
		s.recordWrongListeners()
		s.listeners.Close()
		s.listeners = nil
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", s.Record.Init.PID))
	if err != nil {
		return err
	}
	defer ns.Close()
	if s.listeners == nil {
		if s.listeners, err = openListeners(ctx, ns); err != nil {
			return err
		}
		if err := s.steer(ns); err != nil {
			return err
		}
		if s.Record.Listeners, err = s.listeners.cookies(); err != nil {
			return err
		}
		if err := s.Record.save(s.dir); err != nil {
			return err
		}
	}
	if err := s.listeners.tellClients(ns); err != nil { // a former version did not
		s.m.o.Logger.Warn("records of a sandbox that was taken over", "sandbox", s.Record.ID, "error", err)
		s.problems = append(s.problems, err.Error())
	}
	if conn, err := dialInit(filepath.Join(s.dir, initSocketName)); err == nil {
		s.control = newControl(conn)
	} else {
		s.problems = append(s.problems, "ringfence-init does not answer: exec and signals are not possible")
	}
	found := s.look(suspicions{})
	if s.note(found, suspicions{}) && s.tell(found) {
		return fmt.Errorf("its walls no longer stand: %s", found.broken())
	}
	return nil
}

func dialInit(path string) (*confine.Conn, error) {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	f, err := c.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd, err := dup(f)
	if err != nil {
		return nil, err
	}
	conn, err := confine.NewConn(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := conn.RefuseDescriptors(); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// recordWrongListeners reports a gateway that gave back sockets which are
// not this sandbox's: with them the next gateway would have served somebody
// else under this sandbox's policy.
func (s *Sandbox) recordWrongListeners() {
	e := s.event(event.KindTamper)
	e.Verdict, e.Severity, e.Activity, e.Layer = event.Denied, event.SeverityCritical, "refuse", "keeper" // the sockets were
	e.Reason, e.ReasonCode = "the gateway gave back sockets that are not this sandbox's listeners; they were opened again", "listeners"
	s.append(e)
}
