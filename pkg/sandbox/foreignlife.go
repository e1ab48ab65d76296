// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

// How an adoption of running processes ends.
const (
	endCgroup  = "its cgroup was removed"
	endRelease = "it was released: its processes go on without a fence"
	endFailed  = "the adoption failed and was taken back: its processes go on without a fence"
	endHalf    = "the adoption was cut short: the daemon ended during it; its processes go on without a fence"
)

// lookForCgroup is how often it is asked whether a cgroup is still there.
const lookForCgroup = 200 * time.Millisecond

// liveForeign follows adopted processes until their cgroup is gone or they are
// released. An empty cgroup keeps its fence: what starts in it is fenced.
func (s *Sandbox) liveForeign() {
	t := time.NewTicker(lookForCgroup)
	defer t.Stop()
	for {
		select {
		case <-s.released:
			s.endForeign(endRelease)
			return
		case <-t.C:
			if s.fence.Gone() {
				s.endForeign(endCgroup)
				return
			}
		}
	}
}

// Release takes the fence from adopted processes, which go on without it, and
// waits until it is gone. Other sandboxes cannot be released.
func (s *Sandbox) Release(ctx context.Context) error {
	if s.Record.Foreign == nil {
		return errors.New("its processes were started behind the fence and never run without it")
	}
	s.releasing.Do(func() { close(s.released) })
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// endForeign removes everything but the processes.
func (s *Sandbox) endForeign(why string) {
	s.mu.Lock()
	s.state = Stopping
	s.mu.Unlock()
	s.forget()
	if s.m.o.Drain != nil {
		s.m.o.Drain(s)
	}
	s.mu.Lock()
	s.exit = Exit{Code: -1, At: time.Now().UTC(), Why: why, Released: why != endCgroup}
	s.torn = true
	table := s.table
	s.mu.Unlock()
	close(s.ended)
	s.listeners.Close()
	if s.netns != nil {
		s.netns.Close()
	}
	err := errors.Join(s.fence.Release(), s.m.dropTables(table), s.names.Close(), os.RemoveAll(s.dir))
	if err != nil {
		s.m.o.Logger.Error("clean up", "sandbox", s.Record.ID, "error", err)
	}
	s.recordForeignEnd(why, err)
	s.gone()
}

func (s *Sandbox) recordForeignEnd(why string, problems error) {
	e := s.event(event.KindSandboxStop)
	e.Verdict, e.Activity, e.Reason, e.Count = event.Observed, "release", why, 1
	if why != endCgroup {
		e.Severity = event.SeverityMedium
	}
	e.Duration = time.Since(s.Record.Created)
	if problems != nil {
		e.Detail = problems.Error()
	}
	s.append(e)
}

// attestAdopted compares the programs on the cgroup, and what they judge on,
// with what was intended. Processes of others are what they are: nothing is
// expected of them. Programs of others, on the cgroup or on one above, cannot
// undo a verdict, but one that runs after ours may change what was judged.
func (s *Sandbox) attestAdopted(sus suspicions) (d differences) {
	for _, l := range s.fence.Check() {
		if !l.OK {
			d.add(LayerNetwork, "%s: %s", l.Name, l.Detail)
		}
		for _, o := range l.Others {
			d = append(d, Difference{Layer: LayerNetwork, Tolerated: true, Text: fmt.Sprintf("%s: %s of somebody else is on the cgroup", l.Name, o)})
		}
		for _, o := range l.Above {
			d = append(d, Difference{Layer: LayerNetwork, Tolerated: true, Text: fmt.Sprintf("%s: %s of a cgroup above runs too", l.Name, o)})
		}
	}
	s.attestTables(&d)
	s.attestUnwritten(sus.unwritten, &d)
	return d
}

// Beside lists programs of others that run beside those of the fence, as the
// last comparison found them.
func (s *Sandbox) Beside() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return tolerated(s.found)
}

func tolerated(d differences) (out []string) {
	for _, one := range d {
		if one.Tolerated {
			out = append(out, one.Text)
		}
	}
	return out
}

// attestForeignOnce reports what no longer holds, and has the descriptors
// looked at. It ends no adoption: the processes are not Ringfence's.
func (s *Sandbox) attestForeignOnce(sus suspicions) {
	found := twice(s.attestAdopted, sus)
	if s.fence.Gone() {
		return
	}
	s.mu.Lock()
	before := s.found
	s.mu.Unlock()
	s.note(found, sus)
	s.tellBeside(tolerated(before), tolerated(found))
	s.tellBroken(before.broken(), found.broken())
	s.lookSoon()
}

// tellBeside records programs of others that were not there before.
func (s *Sandbox) tellBeside(before, now []string) {
	fresh := slices.DeleteFunc(now, func(p string) bool { return slices.Contains(before, p) })
	if len(fresh) > 0 {
		s.recordWeak("programs-beside", "programs of others run beside those of the fence: they cannot undo a verdict, but may change the address that was judged",
			strings.Join(fresh, "; "), besideRemedy)
	}
}

const besideRemedy = "find out whose they are (bpftool cgroup tree effective); a service manager's filters of addresses only deny"

// tellBroken records what differs from what was intended, or that nothing does
// any more, when that is something else than before. Nothing is refused or
// ended for it.
func (s *Sandbox) tellBroken(before, now differences) {
	if slices.Equal(before, now) {
		return
	}
	e := s.event(event.KindTamper)
	e.Verdict, e.Activity, e.Layer = event.Observed, "attest", LayerNetwork
	log := s.m.o.Logger.With("sandbox", s.Record.ID, "found", now.String())
	if len(now) == 0 {
		e.Severity, e.ReasonCode, e.Reason = event.SeverityMedium, "attestation-restored", "the network fence of adopted processes stands again"
		log.Warn(e.Reason)
	} else {
		e.Severity, e.ReasonCode, e.Reason = event.SeverityCritical, "attestation", "the network fence of adopted processes no longer stands; they are not Ringfence's to stop"
		e.Detail = now.String()
		e.Remedy = "ringfence release " + s.Record.ID + ", then adopt again; or stop the processes"
		log.Error(e.Reason)
	}
	s.append(e)
}

// takeOverForeign takes over adopted processes that a former keeper left.
func (m *Manager) takeOverForeign(ctx context.Context, s *Sandbox) (ok bool, err error) {
	s.released = make(chan struct{})
	if id, err := cgroupID(s.Record.Cgroup); err != nil || id != s.Record.CgroupID {
		return false, m.discardForeign(s, endCgroup)
	}
	if !s.Record.Started {
		return false, m.discardForeign(s, endHalf)
	}
	if err := s.restore(); err != nil {
		return false, m.keepForeign(s, err)
	}
	if s.fence, err = m.o.Fence.TakeOverRunning(s.Record.Cgroup, s.Record.Number); err != nil {
		return false, m.keepForeign(s, err)
	}
	s.table = s.fence.State().Policy
	if s.table != 0 { // or a keeper has shut it
		m.mu.Lock()
		m.tables[s.table] = true
		m.mu.Unlock()
	}
	s.netns = findNetwork(s.Record.Cgroup, s.Record.Foreign.Netns)
	if err := s.listenAgain(ctx); err != nil {
		if ctx.Err() != nil {
			s.letGo()
			return false, fmt.Errorf("%w: %w", ErrLater, err)
		}
		return false, m.keepForeign(s, err)
	}
	if err := m.readmit(s); err != nil {
		return false, err
	}
	s.attestForeignOnce(suspicions{})
	go s.liveForeign()
	return true, nil
}

// listenAgain sees to it that the gateway has listeners: those it held, or new
// ones while a process shows the namespace.
func (s *Sandbox) listenAgain(ctx context.Context) error {
	if s.listeners != nil && !s.listeners.are(s.Record.Listeners) {
		s.recordWrongListeners()
		s.listeners.Close()
		s.listeners = nil
	}
	if s.listeners != nil {
		if _, err := s.m.o.Foreign.Ready(); err != nil { // the programs on their cgroup are what tells who is served
			return err
		}
		where, err := s.listeners.listening()
		if err != nil {
			return err
		}
		s.Record.Foreign.Listening = where
		return s.fence.Redirect(where) // a keeper that could not serve may have taken it away
	}
	if s.netns == nil {
		return errors.New("no process shows the network namespace any more, so that the gateway cannot listen in it")
	}
	l, where, err := s.m.openForeign(ctx, s.netns)
	if err != nil {
		return err
	}
	s.listeners, s.Record.Foreign.Listening = l, where
	if s.Record.Listeners, err = l.cookies(); err != nil {
		return err
	}
	if err := s.Record.save(s.dir); err != nil {
		return err
	}
	return s.fence.Redirect(where)
}

// keepForeign leaves adopted processes behind their fence when a keeper cannot
// take it over. Nobody revokes what its table allows, and the ports it sends to
// may be a stranger's by now: from here on everything is denied to them.
func (m *Manager) keepForeign(s *Sandbox, why error) error {
	denied := "everything is denied to them"
	if err := m.o.Fence.Shut(s.Record.Number, s.Record.CgroupID); err != nil {
		denied = "what it let through may go on"
		why = errors.Join(why, fmt.Errorf("and it could not be shut: %w", err))
	}
	if s.names != nil {
		why = errors.Join(why, s.names.Close())
	}
	if s.fence != nil {
		why = errors.Join(why, s.fence.Close())
	}
	if s.listeners != nil {
		s.listeners.Close()
	}
	if s.netns != nil {
		s.netns.Close()
	}
	m.mu.Lock()
	m.reserved[s.Record.Number] = nameOf(&s.Record)
	m.kept = append(m.kept, place{s.Record.ID, s.Record.Cgroup})
	m.mu.Unlock()
	return fmt.Errorf("adopted processes in %s stay behind their fence, and %s until a daemon can take it over: %w", s.Record.Cgroup, denied, why)
}

// discardForeign forgets adopted processes whose cgroup is gone, or whose
// adoption was never complete.
func (m *Manager) discardForeign(s *Sandbox, why string) error {
	var errs []error
	if s.listeners != nil {
		s.listeners.Close()
	}
	if why == endCgroup {
		errs = append(errs, m.o.Fence.Forget(s.Record.Number))
	} else if fence, err := m.o.Fence.TakeOverRunning(s.Record.Cgroup, s.Record.Number); err == nil {
		errs = append(errs, fence.Release(), m.dropTables(fence.State().Policy))
	} else {
		errs = append(errs, m.o.Fence.Abandon(s.Record.Number))
	}
	errs = append(errs, os.RemoveAll(s.dir))
	m.dropRoom(s.Record.Number)
	s.state = Stopped
	s.identify()
	m.mu.Lock()
	m.past.add(s.Record.ID, s.Principal)
	m.mu.Unlock()
	err := errors.Join(errs...)
	s.recordForeignEnd(why, err)
	if m.o.Ended != nil {
		m.o.Ended(s)
	}
	return err
}

// findNetwork opens a namespace that a process of the cgroup is in; nil when
// none shows it any more.
func findNetwork(cgroup string, inode uint64) *os.File {
	pids, err := treePIDs(cgroup)
	if err != nil {
		return nil
	}
	for _, pid := range pids {
		if ns, err := openNetwork(pid, inode); err == nil {
			return ns
		}
	}
	return nil
}

// ForeignNetworks opens the gateway's listeners in network namespaces that are
// not ours, in a cgroup that stays while the keeper does not.
type ForeignNetworks interface {
	// Ready fences that cgroup, or takes its fence over.
	Ready() (cgroup *os.File, err error)
	// Open opens the listeners of wire.SandboxAdd.
	Open(ctx context.Context, netns *os.File) (*Listeners, error)
}
