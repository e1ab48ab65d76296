// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
)

// The kernel's tables are keyed by a table number that the state of a sandbox
// names. A new policy is written whole under a new number, then the state is
// switched in one atomic step, then the old number is dropped: no call is ever
// judged on a mix.

// newTable returns a table number that no sandbox uses, for the rules of a snapshot. The upper half of the
// range belongs to the node itself.
func (m *Manager) newTable(of *policy.Snapshot) (uint32, error) {
	for range 100 {
		var b [4]byte
		if _, err := rand.Read(b[:]); err != nil {
			return 0, err
		}
		n := binary.BigEndian.Uint32(b[:]) >> 1
		m.mu.Lock()
		taken := n == 0 || m.tables[n]
		if !taken {
			m.tables[n], m.compiled[n] = true, of
		}
		m.mu.Unlock()
		if !taken {
			return n, nil
		}
	}
	return 0, errors.New("no free table number")
}

// dropTables removes the entries of tables that no state names any more.
func (m *Manager) dropTables(tables ...uint32) error {
	if len(tables) == 0 {
		return nil
	}
	if err := m.o.Fence.DropPolicy(tables...); err != nil {
		return fmt.Errorf("drop old policy tables: %w", err)
	}
	m.mu.Lock()
	for _, t := range tables {
		delete(m.tables, t)
	}
	m.mu.Unlock()
	return m.keepHits()
}

// Apply puts a policy into force in every sandbox, several at a time;
// [Manager.EndDenied] then ends what it closed. Errors of single sandboxes are
// joined; the others still change.
func (m *Manager) Apply(snap *policy.Snapshot) error {
	all := inTurns(m.List())
	errs, old := make([]error, len(all)), make([]uint32, len(all))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, s := range all {
		g.Go(func() error {
			if old[i], errs[i] = s.apply(snap); errs[i] != nil {
				errs[i] = fmt.Errorf("sandbox %s: %w", s.Record.ID, errs[i])
			}
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	old = slices.DeleteFunc(old, func(t uint32) bool { return t == 0 })
	return errors.Join(append(errs, m.dropTables(old...))...)
}

// inTurns orders sandboxes so that nobody's second comes before another owner's first:
// who has many does not keep those waiting who have few.
func inTurns(list []*Sandbox) []*Sandbox {
	of, nth := map[uint32]int{}, make(map[*Sandbox]int, len(list))
	for _, s := range list {
		nth[s] = of[s.Record.Owner]
		of[s.Record.Owner]++
	}
	slices.SortStableFunc(list, func(a, b *Sandbox) int { return cmp.Compare(nth[a], nth[b]) })
	return list
}

// apply puts a new policy into force and returns the table that is no longer
// used, 0 if there is none. A launch that catches up may come with an older
// policy than the one that came into force meanwhile: that one stays.
func (s *Sandbox) apply(snap *policy.Snapshot) (old uint32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == Stopped || s.torn || s.fence == nil { // one that is stopping still runs
		return 0, nil
	}
	if s.View().Snapshot().Revision() > snap.Revision() {
		return 0, nil
	}
	view := s.viewOf(snap)
	table, err := s.m.newTable(snap)
	if err != nil {
		return 0, err
	}
	open, wild := map[netip.Addr][]kernel.NameEntry{}, map[netip.Addr]bool{}
	for addr, name := range s.names.All() {
		if d := view.Name(name); d.Resolves {
			open[addr], wild[addr] = NameEntries(addr, d), d.Wildcard
		}
	}
	if left := s.fit(open, wild); left > 0 {
		s.m.o.Logger.Warn("the policy opens more ports of names than a sandbox may have in the kernel's table; its newest names are closed", "sandbox", s.Record.ID, "names", left)
	}
	put := s.refusal()
	for _, ports := range open {
		put = append(put, ports...)
	}
	addrs, noAddrs := CIDREntries(view), false
	if !s.fitAddrs(len(addrs)) {
		s.m.o.Logger.Warn("the policy has more address rules than a sandbox may have in the kernel's tree; it reaches no literal address", "sandbox", s.Record.ID, "entries", len(addrs), "error", ErrNoAddrRoom)
		addrs, noAddrs = nil, true
	}
	if err := s.fill(table, put, addrs); err != nil {
		return 0, errors.Join(err, s.m.dropTables(table))
	}
	st := s.fence.State()
	old, st.Policy, st.Generation = st.Policy, table, uint32(snap.Revision())
	if s.Record.Foreign != nil {
		st.Flags = s.kernelState().Flags // a keeper that could not take it over has closed all of them
	}
	if err := s.fence.SetState(st); err != nil {
		return 0, errors.Join(err, s.m.dropTables(table))
	}
	s.view.Store(view)
	if sum := s.m.digest(addrs); closes(s.open, open, s.addrs, sum) {
		s.closed, s.addrs = time.Now(), sum
	}
	s.table, s.open, s.noAddrs, s.written, s.lookAt = table, open, noAddrs, true, 0
	return old, nil
}

// Generation is the policy revision that the kernel judges this sandbox on.
func (s *Sandbox) Generation() (uint64, error) {
	st, err := s.fence.Enforced()
	return uint64(st.Generation), err
}

// enforce puts a policy into force in one sandbox that came to it by itself.
func (s *Sandbox) enforce(snap *policy.Snapshot) error {
	old, err := s.apply(snap)
	if err != nil || old == 0 {
		return err
	}
	if s.m.o.Closed != nil {
		s.m.o.Closed()
	}
	return s.m.dropTables(old)
}

// fill writes one whole table.
func (s *Sandbox) fill(table uint32, names []kernel.NameEntry, addrs []kernel.CIDREntry) error {
	if err := s.m.o.Fence.PutNames(table, names); err != nil {
		return fmt.Errorf("names: %w", err)
	}
	if err := s.m.o.Fence.PutCIDRs(table, addrs); err != nil {
		return fmt.Errorf("address rules: %w", err)
	}
	return nil
}

// CIDREntries are what the kernel gets of a view's rules for literal addresses.
func CIDREntries(v *policy.View) []kernel.CIDREntry {
	table := v.CIDRTable()
	out := make([]kernel.CIDREntry, 0, len(table))
	for _, e := range table {
		out = append(out, kernel.CIDREntry{Prefix: e.Prefix, Port: e.Port, Proto: uint8(e.Proto), Allow: e.Allow, Rule: e.Rule.Num})
	}
	return out
}

// refusal opens the refusal address for profiles that explain.
func (s *Sandbox) refusal() []kernel.NameEntry {
	if !s.Record.Explain {
		return nil
	}
	return []kernel.NameEntry{
		{Addr: RefusalAddr, Port: 80, Proto: uint8(policy.TCP)},
		{Addr: RefusalAddr, Port: 443, Proto: uint8(policy.TCP)},
	}
}
