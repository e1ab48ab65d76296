// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
)

// Sighting is what the last look at adopted processes found.
type Sighting struct {
	At     time.Time     // zero: none has ended yet
	Loose  []LooseSocket // descriptors outside of the fence
	More   int           // further ones that are not listed
	Cut    string        // why it has not seen everything, "" if it has
	Powers []string      // with what they could get around their fence
	Ways   []string      // how they could leave their cgroup
	Gains  string        // how they could get more rights than they have, "" if they cannot
	Left   []LeftProcess // those that have left it and run still
}

// LeftProcess was adopted and is in another cgroup now.
type LeftProcess struct {
	Process
	Comm   string
	Cgroup string
}

func (l LeftProcess) String() string {
	return fmt.Sprintf("process %d (%s) is in %s", l.PID, l.Comm, l.Cgroup)
}

// bounds of one look: whatever adopted processes hold, a look ends.
type bounds struct {
	left  int       // descriptors or threads
	until time.Time // and the time
	cut   bool
}

// What a look may cost. Reading half a million descriptors takes seconds.
const (
	lookDescriptors    = 1 << 17
	outsideDescriptors = 1 << 20 // of the machine's other processes: only their names are read
	lookTime           = 5 * time.Second
	looksAtOnce        = 2 // of the node
)

func newBounds() bounds { return bounds{left: lookDescriptors, until: time.Now().Add(lookTime)} }

// take takes one descriptor, or one thread.
func (b *bounds) take() bool {
	if b.left--; b.left < 0 {
		b.cut = true
	}
	return !b.late()
}

// late says that there is no time left, or nothing else.
func (b *bounds) late() bool {
	b.cut = b.cut || time.Now().After(b.until)
	return b.cut
}

func (b *bounds) reached() bool { return b.cut }

// Sighting returns what the last look at adopted processes found.
func (s *Sandbox) Sighting() Sighting {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.sighting
	out.Loose, out.Left = slices.Clone(out.Loose), slices.Clone(out.Left)
	return out
}

// lookAtForeign looks at what adopted processes hold, within bounds. Where one
// look ends before it has seen all, the next one begins.
func (s *Sandbox) lookAtForeign(b bounds) (Sighting, error) {
	pids, err := treePIDs(s.Record.Cgroup)
	if err != nil {
		return Sighting{}, err
	}
	at := Sighting{At: time.Now()}
	h, err := s.newHand()
	if err != nil {
		return Sighting{}, err
	}
	defer h.close()
	l := looseLook{number: s.Record.Number, unix: s.Record.Unix, pids: pids, hand: h, held: &s.m.unlisted, bounds: b, seen: map[uint64]bool{}}
	s.mu.Lock()
	before, first := s.sighting, s.lookFrom
	s.mu.Unlock()
	order := beginAt(pids, first)
	done, err := l.all(order)
	if err != nil {
		return Sighting{}, err
	}
	if err := l.settleIn(s.networks()); err != nil {
		return Sighting{}, err
	}
	at.Loose, at.More = l.found, l.more
	s.mu.Lock()
	s.lookFrom = 0
	if l.hung {
		s.hung = h
	}
	if l.bounds.reached() {
		if done < len(order) {
			s.lookFrom = order[min(max(done, 1), len(order)-1)] // one process alone may be too much
		}
		at.Cut = l.why(done)
		at.keep(before, order[done:])
	}
	s.mu.Unlock()
	err = s.lookAtPowers(&at, before, pids)
	return at, err
}

// lookAtPowers looks at what the processes may do, within bounds of its own.
func (s *Sandbox) lookAtPowers(at *Sighting, before Sighting, pids []int) error {
	m, err := newMayDo(s.Record.Cgroup, newBounds())
	if err != nil {
		return err
	}
	s.mu.Lock()
	order := beginAt(pids, s.powersFrom)
	s.mu.Unlock()
	done, err := m.all(order)
	if err != nil {
		return err
	}
	m.into(at, before)
	from := 0
	if m.bounds.reached() {
		from = order[min(max(done, 1), len(order)-1)]
		at.Cut = strings.TrimPrefix(at.Cut+fmt.Sprintf("; what they may do is asked of %d threads or for %s: it was of %d of %d processes", lookDescriptors, lookTime, done, len(pids)), "; ")
	}
	s.mu.Lock()
	s.powersFrom = from
	s.mu.Unlock()
	return nil
}

// why says why a look was cut that has been through so many processes.
func (l *looseLook) why(done int) string {
	switch {
	case l.hung:
		return "a thread of the keeper waits in the kernel at a descriptor, so that the look ended there"
	case done == len(l.pids):
		return fmt.Sprintf("the machine's other processes have more than %d descriptors, or reading them takes more than %s: who else holds the other ends of unix sockets is not known", outsideDescriptors, lookTime)
	}
	return fmt.Sprintf("a look ends after %d descriptors or %s: %d of %d processes were looked through to their end", lookDescriptors, lookTime, done, len(l.pids))
}

// newHand starts a thread for a look, unless the one of an earlier look hangs
// yet: each look would lose one more.
func (s *Sandbox) newHand() (*hand, error) {
	s.mu.Lock()
	hung := s.hung
	s.mu.Unlock()
	if hung != nil && hung.hangs() {
		return nil, errors.New("the thread of an earlier look waits in the kernel at a descriptor of these processes: end them, or release them")
	}
	return newHand(s.m.hands)
}

// beginAt turns the list so that it begins with the first pid that is not less.
func beginAt(pids []int, first int) []int {
	i, _ := slices.BinarySearch(pids, first)
	return slices.Concat(pids[i:], pids[:i])
}

// keep keeps what was found before in processes that were not looked through
// this time.
func (at *Sighting) keep(before Sighting, unseen []int) {
	for _, l := range before.Loose {
		if slices.Contains(unseen, l.PID) && !slices.ContainsFunc(at.Loose, l.same) {
			at.Loose = append(at.Loose, l)
		}
	}
}

// networks opens the network namespaces in which unix sockets of adopted
// processes are looked for: the machine's and their own.
func (s *Sandbox) networks() (out []*os.File) {
	if own := findNetwork(s.Record.Cgroup, s.Record.Foreign.Netns); own != nil {
		out = append(out, own)
	}
	if host, err := os.Open("/proc/self/ns/net"); err == nil {
		out = append(out, host)
	}
	return out
}

// lookSoon looks at the adopted processes in a goroutine of its own, unless one
// does already: what they hold must not take attestation's turn of the node.
func (s *Sandbox) lookSoon() {
	s.mu.Lock()
	busy, late := s.looking, s.lookLate()
	if !busy {
		s.looking, s.lookSince, s.lateSaid = true, time.Now(), false
	}
	s.mu.Unlock()
	if late {
		s.recordLate()
	}
	if busy {
		return
	}
	go func() {
		s.m.looks <- struct{}{}
		defer func() {
			<-s.m.looks
			s.mu.Lock()
			s.looking = false
			s.mu.Unlock()
		}()
		select {
		case <-s.ended:
		default:
			s.lookOnce()
		}
	}()
}

// lookLate says, once, that a look that is under way or waits for its turn is
// older than two intervals.
func (s *Sandbox) lookLate() bool {
	every := cmp.Or(s.m.o.Attestation.Every, DefaultAttestation)
	if !s.looking || s.lateSaid || time.Since(s.lookSince) <= 2*every {
		return false
	}
	s.lateSaid = true
	return true
}

func (s *Sandbox) recordLate() {
	e := s.event(event.KindTamper)
	e.Verdict, e.Severity, e.Activity, e.Layer = event.Observed, event.SeverityHigh, "unenforced", "keeper"
	e.Reason, e.ReasonCode = "the look at adopted processes that is due has not ended: what they opened or who left meanwhile is not known", "look-late"
	e.Detail = fmt.Sprintf("it has been under way, or waited for its turn among %d at once, for more than two intervals of attestation", looksAtOnce)
	e.Remedy = "adopt fewer processes, or attest less often; one of this sandbox or of another that holds up looks is to be ended"
	s.append(e)
}

// lookOnce looks and tells what is new.
func (s *Sandbox) lookOnce() {
	left := s.leavers()
	now, err := s.lookAtForeign(newBounds())
	s.mu.Lock()
	before, over := s.sighting, s.torn
	s.mu.Unlock()
	if over {
		return
	}
	if err != nil { // what was seen last is all that is known
		now = before
		now.At, now.Cut = time.Now(), "the last look failed: "+err.Error()
	}
	now.Left = s.tellLeft(before.Left, left)
	s.mu.Lock()
	s.sighting = now
	s.mu.Unlock()
	s.tellSighting(before, now)
}

// tellLeft records those that have left since the look before, and returns the
// ones that go on.
func (s *Sandbox) tellLeft(before, left []LeftProcess) (on []LeftProcess) {
	for _, l := range left {
		told := slices.ContainsFunc(before, func(o LeftProcess) bool { return o.Process == l.Process })
		if told || !s.recordLeft(l) {
			on = append(on, l)
		}
	}
	return on
}

// tellSighting records what an earlier look had not found.
func (s *Sandbox) tellSighting(before, now Sighting) {
	fresh := slices.DeleteFunc(slices.Clone(now.Loose), func(l LooseSocket) bool { return slices.ContainsFunc(before.Loose, l.same) })
	s.recordLoose(fresh, now.More-before.More)
	if now.Cut != "" && before.Cut == "" {
		e := s.event(event.KindTamper)
		e.Verdict, e.Severity, e.Activity, e.Layer = event.Observed, event.SeverityHigh, "unenforced", "keeper"
		e.Reason, e.ReasonCode, e.Detail = "not every descriptor of the adopted processes was looked at", "look-cut", now.Cut
		e.Remedy = "adopt fewer processes together; what was not looked at may be outside of the fence"
		s.often(e)
	}
	for _, w := range now.Ways {
		if !slices.Contains(before.Ways, w) {
			s.recordWeak("cgroup-writable", "an adopted process may leave its cgroup, and the fence with it", w, wayRemedy)
		}
	}
}

// recordWeak records something beside the fence that may weaken it.
func (s *Sandbox) recordWeak(code, reason, detail, remedy string) {
	e := s.event(event.KindTamper)
	e.Verdict, e.Severity, e.Activity, e.Layer = event.Observed, event.SeverityHigh, "attest", "keeper"
	e.ReasonCode, e.Reason, e.Detail, e.Remedy = code, reason, detail, remedy
	s.often(e)
}

// recordLoose says which descriptors of adopted processes nobody watches, and
// how many more there are.
func (s *Sandbox) recordLoose(list []LooseSocket, more int) {
	for _, l := range list {
		e := s.event(event.KindTamper)
		e.Verdict, e.Severity, e.Activity, e.Layer = event.Observed, event.SeverityHigh, "unenforced", "keeper"
		e.Reason, e.ReasonCode = "an open descriptor of an adopted process is outside of the fence", "loose-socket"
		e.PID, e.Comm, e.SocketInfo, e.Detail = uint32(l.PID), l.Comm, l.What, l.String()
		e.Remedy = "restart the program inside its cgroup: what it opens then is fenced"
		s.often(e)
	}
	if more > 0 {
		e := s.event(event.KindTamper)
		e.Verdict, e.Severity, e.Activity, e.Layer, e.Count = event.Observed, event.SeverityHigh, "unenforced", "keeper", uint64(more)
		e.Reason, e.ReasonCode = "more open descriptors of adopted processes are outside of the fence than are listed one by one", "loose-socket"
		e.Detail = fmt.Sprintf("%d beyond the first %d", more, maxLoose)
		s.often(e)
	}
}

// often records what an adopted process can cause at will: within its share of
// the log.
func (s *Sandbox) often(e *event.Event) {
	if s.m.o.Often == nil {
		s.append(e)
		return
	}
	s.m.o.Often(e)
}

// leavers finds the processes that earlier looks saw in the cgroup and that run
// outside of it now, and remembers those that are in it. What they open there
// meets no program of ours.
func (s *Sandbox) leavers() (out []LeftProcess) {
	root, err := kernel.CgroupRoot()
	if err != nil {
		return nil
	}
	pids, unknown := treePIDs(s.Record.Cgroup) // the look itself says what is wrong with the cgroup
	b := newBounds()
	known := make(map[int]Process, len(pids))
	for _, pid := range pids {
		p, err := ProcessOf(pid)
		if err != nil {
			continue
		}
		known[pid] = p
		if tid, _ := livingThread(pid, &b); tid == pid { // all its threads are where the first one is
			continue
		}
		if l, left := hasLeft(root, s.Record.Cgroup, p, &b); left {
			out = append(out, l)
		}
	}
	for pid, p := range s.members { // only one look at a time is under way
		if _, is := known[pid]; is {
			continue
		}
		l, left := hasLeft(root, s.Record.Cgroup, p, &b)
		if left {
			out = append(out, l)
		}
		if left || unknown != nil && p.Alive() {
			known[pid] = p // until it ends, or comes back
		}
	}
	s.members = known
	return out
}

// hasLeft asks where the threads of a process are that live: the first one
// stays where it ended. One that is ending is nowhere.
func hasLeft(root, cgroup string, p Process, b *bounds) (l LeftProcess, left bool) {
	_ = eachThread(p.PID, b, func(tid int) (bool, error) {
		if _, err := statusOf(p.PID, tid); err != nil {
			return false, nil
		}
		path, err := cgroupOfThread(root, p.PID, tid)
		path = strings.TrimSuffix(path, " (deleted)")
		if err == nil && !within(path, cgroup) && p.Alive() {
			l, left = LeftProcess{p, commOf(p.PID), path}, true
		}
		return left, nil
	}) // what cannot be read has ended
	return l, left
}

// recordLeft records a process that has left, and ends it unless only reports
// are wanted: nothing of ours judges what it does there.
func (s *Sandbox) recordLeft(l LeftProcess) (ended bool) {
	e := s.event(event.KindTamper)
	e.Verdict, e.Severity, e.Activity, e.Layer = event.Observed, event.SeverityCritical, "escape", "keeper"
	e.ReasonCode, e.Reason = "left-cgroup", "a process that was adopted has left its cgroup: what it opens now is not fenced; it goes on, as configured"
	e.PID, e.Comm, e.Detail = uint32(l.PID), l.Comm, l.String()
	e.Remedy = "find out who moved it: it needs write access to cgroup.procs of the cgroups above, or root"
	var err error
	if !s.m.o.Attestation.ReportOnly {
		if err = l.kill(); err == nil {
			ended = true
			e.Verdict, e.Reason = event.Denied, "a process that was adopted had left its cgroup, where what it opens is not fenced: it was ended"
		} else {
			e.Detail = errors.Join(errors.New(e.Detail), err).Error()
		}
	}
	s.append(e)
	s.m.o.Logger.Error("an adopted process has left its cgroup", "sandbox", s.Record.ID, "process", l.String(), "ended", ended, "error", err)
	return ended
}

// commOf is what a process says it is.
func commOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(b))
}
