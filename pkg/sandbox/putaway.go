// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/scope"
)

// PutAway ends and removes what is left of a sandbox that is not to be taken over:
// one that ended while no keeper ran, or that must not go on. It returns at
// once. Severed waits for the part that the kernel and other sandboxes depend
// on; handing back the workspace may take as long as its files are many, and
// Ending lists the sandbox until then.
//
// Adopted processes are not ended: they stay behind their fence.
func (m *Manager) PutAway(lo Leftover) error {
	s := m.leftover(lo)
	if s.Record.Foreign != nil {
		return m.keepForeign(s, errors.New("it is not to be taken over"))
	}
	m.putAway(s)
	return nil
}

func (m *Manager) putAway(s *Sandbox) {
	s.state = Stopping
	s.identify()
	m.mu.Lock()
	if s.Record.Number != 0 {
		m.reserved[s.Record.Number] = nameOf(&s.Record)
	}
	m.ending[s.Record.ID] = s
	m.past.add(s.Record.ID, s.Principal)
	m.mu.Unlock()
	m.wg.Add(1)
	m.severing.Add(1)
	go func() {
		defer m.wg.Done()
		problems, err := m.sever(s)
		m.severing.Done()
		if err != nil {
			return // it stays in Ending, and all that it has
		}
		m.clearAway(s, problems)
		m.mu.Lock()
		delete(m.ending, s.Record.ID)
		delete(m.reserved, s.Record.Number)
		m.mu.Unlock()
	}()
}

// Severed waits until of all that were put away no process is left, nor
// anything in the kernel, but of those whose processes do not end.
func (m *Manager) Severed() { m.severing.Wait() }

// Ending lists the sandboxes that were put away and are not gone yet, oldest
// first.
func (m *Manager) Ending() []*Sandbox {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*Sandbox, 0, len(m.ending))
	for _, s := range m.ending {
		out = append(out, s)
	}
	slices.SortFunc(out, byAge)
	return out
}

// identify finds out for whom a leftover acted: nobody, in what is left of an
// unfinished launch.
func (s *Sandbox) identify() {
	if s.Principal.Org == "" {
		s.Principal, _ = scope.ParsePrincipal(s.Record.Scope)
	}
	s.view.Store(s.viewOf(s.m.o.Snapshot()))
}

// discard puts a sandbox away and waits for it. When its processes do not end
// everything stays as it is for the next keeper, and its number and uid are
// nobody else's; the error says so.
func (m *Manager) discard(s *Sandbox) error {
	s.identify()
	problems, err := m.sever(s)
	if err != nil {
		return err
	}
	m.clearAway(s, problems)
	return nil
}

// sever ends the processes of a leftover and removes its fence. Its uid stays
// its own: files of its workspace are that one's.
func (m *Manager) sever(s *Sandbox) (problems, err error) {
	if s.control != nil {
		s.control.end()
	}
	if s.listeners != nil {
		s.listeners.Close()
	}
	if s.names != nil {
		problems = s.names.Close()
	}
	problems = errors.Join(problems, m.holdUID(s))
	if err := m.endLeftover(s); err != nil {
		m.keep(s)
		s.stuck(err)
		return problems, err
	}
	return errors.Join(problems, m.unfence(s)), nil
}

// holdUID sees to it that nobody else gets the uid of a leftover. One that
// somebody has by now was free.
func (m *Manager) holdUID(s *Sandbox) error {
	if !s.Record.OwnUID || s.uid != nil {
		return nil
	}
	uid, err := m.o.UIDs.Take(s.Record.UID)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	s.uid = uid
	return err
}

// clearAway hands the workspace of a leftover back, of which nothing runs any
// more, and removes the rest.
func (m *Manager) clearAway(s *Sandbox, problems error) {
	errs := []error{problems}
	x := Exit{Code: -1, At: time.Now().UTC()}
	s.reopenWorkspace()
	if s.handback != nil {
		findings, err := s.handback.run()
		errs = append(errs, err)
		x.Findings = findings
		s.recordFindings(findings)
	}
	s.uid.Release()
	m.dropRoom(s.Record.Number)
	err := errors.Join(append(errs, os.RemoveAll(s.dir))...)
	s.mu.Lock()
	s.exit, s.state = x, Stopped
	s.mu.Unlock()
	m.mu.Lock()
	m.past.add(s.Record.ID, s.Principal)
	m.mu.Unlock()
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
// taken over; they are forgotten once the cgroup is gone.
func (m *Manager) unfence(s *Sandbox) error {
	var errs []error
	if s.Record.Cgroup != "" && !gone(s.Record.Cgroup) {
		if s.fence == nil {
			// An error means that it was never whole: see Forget below.
			s.fence, _ = m.o.Fence.TakeOverSandbox(s.Record.Cgroup, s.Record.Number)
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
// not end; its uid is held already.
func (m *Manager) keep(s *Sandbox) {
	if s.fence == nil {
		s.fence, _ = m.o.Fence.TakeOverSandbox(s.Record.Cgroup, s.Record.Number)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reserved[s.Record.Number] = nameOf(&s.Record)
	if s.fence != nil {
		m.tables[s.fence.State().Policy] = true
	}
	m.stuck = append(m.stuck, s)
}
