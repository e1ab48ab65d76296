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

	"github.com/ringfence/ringfence/pkg/ca"
	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/scope"
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
			r = &Record{ID: e.Name(), Cgroup: filepath.Join(m.o.CgroupBase, cgroupPrefix+e.Name())}
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
	if !s.Record.Started || !s.Record.Init.Alive() {
		m.discard(s)
		return false, nil
	}
	if err := s.restore(); err != nil {
		m.discard(s)
		return false, err
	}
	s.listeners = take(s.Record.Number)
	if err := s.reattach(ctx); err != nil {
		m.discard(s)
		return false, err
	}
	m.mu.Lock()
	m.reserved[s.Record.Number] = true
	m.wg.Add(1)
	m.mu.Unlock()
	if err := m.publish(s); err != nil {
		m.unregister(s)
		return false, err // stopping already: the next keeper may have it
	}
	if old, err := s.apply(m.o.Snapshot()); err != nil {
		m.o.Logger.Error("policy of an adopted sandbox", "sandbox", s.Record.ID, "error", err)
	} else if err := m.dropTables(old); err != nil {
		m.o.Logger.Error("policy of an adopted sandbox", "sandbox", s.Record.ID, "error", err)
	}
	go s.live()
	return true, nil
}

// Discard ends and removes a sandbox that is not to be adopted.
func (m *Manager) Discard(lo Leftover) { m.discard(m.leftover(lo)) }

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
	if s.Record.Workspace != "" {
		if s.handback, err = reopenHandback(s.Record, s.dir); err != nil {
			s.problems = append(s.problems, err.Error())
			s.m.o.Logger.Error("the workspace will not be checked when it is handed back", "sandbox", s.Record.ID, "error", err)
		}
	}
	s.view = s.m.o.Snapshot().View(s.Principal)
	for a, name := range s.names.All() {
		if d := s.view.Name(name); d.Resolves {
			s.open[a] = nameEntries(a, d)
		}
	}
	return nil
}

// reattach takes over kernel objects, listeners and init.
func (s *Sandbox) reattach(ctx context.Context) (err error) {
	if s.fence, err = s.m.o.Fence.AdoptSandbox(s.Record.Cgroup, s.Record.Number); err != nil {
		return err
	}
	s.table = s.fence.State().Policy
	s.m.mu.Lock()
	s.m.tables[s.table] = true
	s.m.mu.Unlock()
	if s.listeners != nil && !s.listeners.are(s.Record.Listeners) {
		s.m.o.Logger.Error("the gateway gave back other sockets than it was given; they are opened again", "sandbox", s.Record.ID)
		s.recordForeignListeners()
		s.listeners.Close()
		s.listeners = nil
	}
	if s.listeners == nil {
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", s.Record.Init.PID))
		if err != nil {
			return err
		}
		defer ns.Close()
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
	if conn, err := dialInit(filepath.Join(s.dir, initSocketName)); err == nil {
		s.control = newControl(conn)
	} else {
		s.problems = append(s.problems, "ringfence-init does not answer: exec and signals are not possible")
	}
	return s.attest()
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
	return confine.NewConn(fd)
}

// discard ends and removes what is left of a sandbox that cannot be adopted.
func (m *Manager) discard(s *Sandbox) {
	var errs []error
	if s.Record.Cgroup != "" && exists(s.Record.Cgroup) {
		errs = append(errs, killCgroup(s.Record.Cgroup))
		waitEmpty(s.Record.Cgroup)
		if s.fence == nil {
			f, err := m.o.Fence.AdoptSandbox(s.Record.Cgroup, s.Record.Number)
			if err == nil {
				s.fence = f
			}
		}
		if s.fence != nil {
			errs = append(errs, s.fence.Detach(), m.dropTables(s.fence.State().Policy))
		}
		errs = append(errs, RemoveCgroup(s.Record.Cgroup))
	}
	if s.listeners != nil {
		s.listeners.Close()
	}
	if s.Principal.Org == "" {
		s.Principal, _ = scope.ParsePrincipal(s.Record.Scope) // none in what is left of an unfinished launch
	}
	s.exit = Exit{Code: -1, At: time.Now().UTC()}
	if s.handback == nil && s.Record.Workspace != "" {
		s.handback, _ = reopenHandback(s.Record, s.dir) // nil: the directory is gone or another
	}
	if s.handback != nil {
		findings, err := s.handback.run()
		errs = append(errs, err)
		s.exit.Findings = findings
		s.recordFindings(findings)
	}
	if s.names != nil {
		errs = append(errs, s.names.Close())
	}
	s.uid.Release()
	errs = append(errs, os.RemoveAll(s.dir))
	s.state, s.view = Stopped, m.o.Snapshot().View(s.Principal)
	m.mu.Lock()
	m.past.add(s.Record.ID, s.Principal)
	m.mu.Unlock()
	if s.Record.Started {
		s.recordStop(-1, errors.Join(errs...))
	}
	if m.o.Ended != nil {
		m.o.Ended(s)
	}
	if err := errors.Join(errs...); err != nil {
		m.o.Logger.Error("clean up a leftover sandbox", "sandbox", s.Record.ID, "error", err)
	}
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

// Attest checks every running sandbox; one that no longer holds is stopped and
// reported.
func (m *Manager) Attest(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			for _, s := range m.List() {
				m.attestOne(s)
			}
		}
	}
}
