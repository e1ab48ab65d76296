// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
)

// ruled is what an agent is allowed: so many addresses, and whatever is under a wildcard.
func ruled(of map[string]int) string {
	var b strings.Builder
	for agent, n := range of {
		fmt.Fprintf(&b, "---\napiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: %s}\nscope: org:local/team:default/agent:%s\negress:\n  - {id: w, allow: \"*.example:443\"}\n", agent, agent)
		for i := range n {
			fmt.Fprintf(&b, "  - {id: r%d, allow: \"203.0.113.%d/32:443\"}\n", i, i)
		}
	}
	return strings.TrimPrefix(b.String(), "---\n")
}

func compiledAt(t *testing.T, revision uint64, text string) *policy.Snapshot {
	t.Helper()
	docs, problems := policy.Parse("test.yaml", []byte(text))
	snap, more := policy.Compile(revision, docs)
	if problems = append(problems, more...); len(problems) > 0 {
		t.Fatal(problems)
	}
	return snap
}

// adopt puts one more process behind a fence, for an owner, by a manager that does not look
// after it.
func (a *adoptees) adopt(t *testing.T, m *Manager, agent string, owner uint32) *Sandbox {
	t.Helper()
	root, err := kernel.CgroupRoot()
	a.must(err)
	cgroup, err := os.MkdirTemp(root, "ringfence-adoptee-")
	a.must(err)
	t.Cleanup(func() {
		if err := errors.Join(killCgroup(cgroup), RemoveCgroup(cgroup)); err != nil {
			t.Error(err)
		}
	})
	a.move(a.sleeper(), cgroup)
	req := *a.req
	req.Cgroup, req.Owner, req.Principal.Agent = cgroup, owner, agent
	f := m.newFencing(&req)
	for _, st := range f.steps() {
		if err := st.run(t.Context()); err != nil {
			t.Fatal(st.name, err)
		}
	}
	return f.s
}

// has is what the kernel has for a sandbox.
func (a *adoptees) has(s *Sandbox) kernel.TableSize {
	a.tb.Helper()
	sizes, err := a.fence.TableSizes()
	a.must(err)
	table, err := a.fence.TableOf(s.Record.Number, s.Record.CgroupID)
	a.must(err)
	if table == 0 {
		a.tb.Fatalf("sandbox %s is judged on nothing", s.Record.ID)
	}
	return sizes[table]
}

// A restart shares nothing out anew: who was refused its address rules is refused them by
// the next keeper too, whichever sandbox it comes to first, and who had them has them.
func TestARestartLeavesTheSharesAsTheyAre(t *testing.T) {
	a := newAdoptees(t)
	died, next := a.another(), a.another()
	for _, m := range []*Manager{died, next} {
		m.addrs = room{each: 100, most: 1 << 18, share: 100}
	}
	want := compiledAt(t, 10, ruled(map[string]int{"a1": 175, "a2": 120, "b1": 118}))
	a1, a2, b1 := a.adopt(t, died, "a1", 1), a.adopt(t, died, "a2", 1), a.adopt(t, died, "b1", 2)
	for _, c := range []struct {
		s   *Sandbox
		has int
	}{{a1, 175}, {b1, 118}, {a2, 0}} {
		a.must(c.s.enforce(want))
		if n := a.has(c.s).CIDRs; n != c.has {
			t.Fatalf("before: %s has %d, want %d", c.s.Principal, n, c.has)
		}
		if n := died.addrs.of[c.s.Record.Number].total(); n != c.has {
			t.Errorf("before: %s is counted with %d, has %d", c.s.Principal, n, c.has)
		}
	}
	for _, s := range []*Sandbox{a1, a2, b1} {
		s.letGo()
	}
	next.o.Snapshot = func() *policy.Snapshot { return want }
	left, err := next.Leftovers()
	a.must(err)
	byAgent := map[string]Leftover{}
	for _, lo := range left {
		byAgent[strings.Split(strings.SplitAfter(lo.Record.Scope, "agent:")[1], "/")[0]] = lo
	}
	for _, agent := range []string{"a2", "a1", "b1"} { // who was refused comes first
		if ok, err := next.TakeOver(t.Context(), byAgent[agent], func(uint32) (*Listeners, error) { return nil, nil }); !ok || err != nil {
			t.Fatal(agent, ok, err)
		}
	}
	for agent, n := range map[string]int{"a1": 175, "a2": 0, "b1": 118} {
		s, _ := next.ByID(byAgent[agent].Record.ID)
		if got := a.has(s).CIDRs; got != n {
			t.Errorf("after: %s has %d, want %d", agent, got, n)
		}
	}
	s, _ := next.ByID(byAgent["a1"].Record.ID)
	a.must(s.Release(t.Context()))
	s, _ = next.ByID(byAgent["a2"].Record.ID)
	a.must(s.enforce(compiledAt(t, 11, ruled(map[string]int{"a2": 120}))))
	if got := a.has(s).CIDRs; got != 120 {
		t.Errorf("when its owner's other sandbox has ended, it has %d", got)
	}
	for _, s := range next.List() {
		a.must(s.Release(t.Context()))
	}
	a.nothing(t, next)
	if r := &next.addrs; len(r.of)+len(r.owners)+r.shared != 0 {
		t.Errorf("of address rules is counted: %+v, %+v, %d", r.of, r.owners, r.shared)
	}
}

// Names under a wildcard that a sandbox had are not closed by a restart because others have
// more by now; nor are more opened than it had.
func TestARestartLeavesTheNamesOpen(t *testing.T) {
	a := newAdoptees(t)
	died, next := a.another(), a.another()
	snap := compiledAt(t, 10, ruled(map[string]int{"a1": 1}))
	died.o.Snapshot = func() *policy.Snapshot { return snap }
	next.o.Snapshot = died.o.Snapshot
	died.names = room{each: 6, most: 64, share: 64}
	next.names = room{each: 6, most: 64} // the rest is others'
	s := a.adopt(t, died, "a1", 1)
	for i := range 6 {
		if _, err := s.Resolve(fmt.Sprintf("n%d.example", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := a.has(s).Names; n != 6 {
		t.Fatalf("before: %d names", n)
	}
	s.letGo()
	a.inherit(t, next, true)
	now := next.List()
	if len(now) != 1 {
		t.Fatalf("sandboxes: %v", now)
	}
	if n := a.has(now[0]).Names; n != 6 {
		t.Errorf("after: %d names", n)
	}
	if got := next.names.of[now[0].Record.Number].entries; got != ofWild(6) {
		t.Errorf("it is counted with %+v", got)
	}
	if _, err := now[0].Resolve("more.example"); !errors.Is(err, ErrNoNameRoom) {
		t.Errorf("one more: %v", err)
	}
	a.must(now[0].Release(t.Context()))
	a.nothing(t, next)
}

// What was counted for a sandbox that is put away is free again.
func TestWhatIsPutAwayHasNoRoom(t *testing.T) {
	b := newBench(t, "")
	lo := Leftover{dir: b.directory(t, "00000007"), Record: Record{ID: "00000007", Number: 7, Owner: 3}}
	b.names.found(7, 3, 1000)
	b.addrs.found(7, 3, 1000)
	b.away(t, lo)
	if n := len(b.names.of) + len(b.addrs.of) + b.names.shared + b.addrs.shared; n != 0 {
		t.Errorf("%+v and %+v are counted", b.names.of, b.addrs.of)
	}
}
