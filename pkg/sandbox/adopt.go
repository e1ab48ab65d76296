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
	"time"

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
			m.o.Logger.Warn("an unfinished launch is removed", "sandbox", e.Name(), "error", err)
			left := m.unfinished(e.Name())
			r = &left
		}
		out = append(out, Leftover{Record: *r, dir: dir})
	}
	return out, nil
}

// Adopt takes over a sandbox that a former keeper left. take returns the
// listeners that the gateway still holds, nil if it holds none: then they are
// opened again in the namespace that init holds. A sandbox whose init is gone,
// or whose agent was never let go, is cleaned up instead (ok is false).
func (m *Manager) Adopt(ctx context.Context, lo Leftover, take func(number uint32) *Listeners) (ok bool, err error) {
	s := m.leftover(lo)
	if s.Record.Foreign != nil {
		return m.adoptForeign(ctx, s, take)
	}
	if !s.Record.Started || !s.Record.Init.Alive() {
		return false, m.discard(s)
	}
	if err := s.restore(); err != nil {
		return false, errors.Join(err, m.discard(s))
	}
	s.listeners = take(s.Record.Number)
	if err := s.reattach(ctx); err != nil {
		return false, errors.Join(err, m.discard(s))
	}
	m.mu.Lock()
	m.reserved[s.Record.Number] = s.Record.Name
	m.wg.Add(1)
	m.mu.Unlock()
	if err := m.publish(s); err != nil {
		m.unregister(s)
		return false, err // stopping already: the next keeper may have it
	}
	if err := s.enforce(m.o.Snapshot()); err != nil {
		m.o.Logger.Error("policy of an adopted sandbox", "sandbox", s.Record.ID, "error", err)
	}
	go s.live()
	return true, nil
}

// Discard ends and removes a sandbox that is not to be adopted.
// Adopted processes are not ended: they stay behind their fence.
func (m *Manager) Discard(lo Leftover) error {
	s := m.leftover(lo)
	if s.Record.Foreign != nil {
		return m.keepForeign(s, errors.New("it is not to be taken over"))
	}
	return m.discard(s)
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
	view := s.m.o.Snapshot().View(s.Principal)
	s.view.Store(view)
	for a, name := range s.names.All() {
		d := view.Name(name)
		if d.Resolves {
			s.open[a] = nameEntries(a, d)
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
	s.unchecked = true
	s.problems = append(s.problems, err.Error())
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
	if s.fence, err = s.m.o.Fence.AdoptSandbox(s.Record.Cgroup, s.Record.Number); err != nil {
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
		s.recordForeignListeners()
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
		return err
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

// discard ends and removes what is left of a sandbox that cannot be adopted.
// When its processes do not end everything stays as it is for the next keeper,
// and its number and uid are nobody else's; the error says so.
func (m *Manager) discard(s *Sandbox) error {
	if s.Principal.Org == "" {
		s.Principal, _ = scope.ParsePrincipal(s.Record.Scope) // none in what is left of an unfinished launch
	}
	if s.control != nil {
		s.control.end()
	}
	if s.listeners != nil {
		s.listeners.Close()
	}
	if s.names != nil {
		if err := s.names.Close(); err != nil {
			m.o.Logger.Error("names of a leftover sandbox", "sandbox", s.Record.ID, "error", err)
		}
	}
	if err := m.endLeftover(s); err != nil {
		m.keep(s)
		s.stuck(err)
		return err
	}
	errs := []error{m.unfence(s)}
	s.exit = Exit{Code: -1, At: time.Now().UTC()}
	s.reopenWorkspace()
	if s.handback != nil {
		findings, err := s.handback.run()
		errs = append(errs, err)
		s.exit.Findings = findings
		s.recordFindings(findings)
	}
	s.uid.Release()
	errs = append(errs, os.RemoveAll(s.dir))
	s.state = Stopped
	s.view.Store(m.o.Snapshot().View(s.Principal))
	m.mu.Lock()
	m.past.add(s.Record.ID, s.Principal)
	m.mu.Unlock()
	err := errors.Join(errs...)
	switch {
	case s.Record.Started:
		s.recordStop(-1, nil, err)
	case s.Record.Scope != "": // its start is in the log, or may be
		s.recordStop(-1, errors.New("the launch was cut short: the daemon ended during it"), err)
	}
	if m.o.Ended != nil {
		m.o.Ended(s)
	}
	if err != nil {
		m.o.Logger.Error("clean up a leftover sandbox", "sandbox", s.Record.ID, "error", err)
	}
	return nil
}

// endLeftover ends the processes of a leftover.
func (m *Manager) endLeftover(s *Sandbox) error {
	if s.Record.Cgroup == "" || gone(s.Record.Cgroup) {
		return nil
	}
	return endProcesses(s.Record.Cgroup, m.patience)
}

// unfence removes the cgroup of a leftover that has no process, and what the
// kernel keeps for it. The pins of a launch that was cut short cannot be
// adopted; they are forgotten once the cgroup is gone.
func (m *Manager) unfence(s *Sandbox) error {
	var errs []error
	if s.Record.Cgroup != "" && !gone(s.Record.Cgroup) {
		if s.fence == nil {
			// An error means that it was never whole: see Forget below.
			s.fence, _ = m.o.Fence.AdoptSandbox(s.Record.Cgroup, s.Record.Number)
		}
		if s.fence != nil {
			errs = append(errs, s.fence.Detach(), m.dropTables(s.fence.State().Policy))
		}
		errs = append(errs, RemoveCgroup(s.Record.Cgroup))
	}
	if s.Record.Number != 0 {
		errs = append(errs, m.o.Fence.Forget(s.Record.Number))
	}
	return errors.Join(errs...)
}

// keep sees to it that nobody else gets what a sandbox has whose processes do
// not end.
func (m *Manager) keep(s *Sandbox) {
	if s.Record.OwnUID && s.uid == nil {
		uid, err := m.o.UIDs.Take(s.Record.UID)
		if err != nil {
			m.o.Logger.Error("uid of a sandbox that cannot be ended", "sandbox", s.Record.ID, "error", err)
		}
		s.uid = uid
	}
	if s.fence == nil {
		s.fence, _ = m.o.Fence.AdoptSandbox(s.Record.Cgroup, s.Record.Number)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reserved[s.Record.Number] = s.Record.Name
	if s.fence != nil {
		m.tables[s.fence.State().Policy] = true
	}
	m.stuck = append(m.stuck, s)
}

// recordForeignListeners reports a gateway that gave back sockets which are
// not this sandbox's: with them the next gateway would have served somebody
// else under this sandbox's policy.
func (s *Sandbox) recordForeignListeners() {
	e := s.event(event.KindTamper)
	e.Severity, e.Activity, e.Layer = event.SeverityCritical, "refuse", "keeper"
	e.Reason, e.ReasonCode = "the gateway gave back sockets that are not this sandbox's listeners; they were opened again", "listeners"
	s.append(e)
}
