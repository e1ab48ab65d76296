// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/policy"
)

// Address rules, times sandboxes, of one owner do not fill the tree: another's fit, and
// a change of all of them beside the former ones.
func TestAddressRulesAreSharedByOwner(t *testing.T) {
	r := newAddrRoom()
	total := 0
	for owner := range uint32(2) {
		for number := owner * 100; number < owner*100+100; number++ {
			if got := r.take(number, owner, entries{named: 70_000}).named; got == 70_000 {
				total += got
			} else {
				r.take(number, owner, entries{})
			}
		}
	}
	if total < addrTree/4 || total > addrTree/2 {
		t.Errorf("two owners have %d of %d", total, addrTree)
	}
	if got := r.take(300, 2, entries{named: 10_000}).named; got != 10_000 {
		t.Errorf("the third has %d", got)
	}
}

// A sandbox has all of its address rules in the kernel or none, is attested with that,
// and gets them when there is room; a launch without room for them is refused.
func TestAddressRulesAreThereWholeOrNotAtAll(t *testing.T) {
	docs := func(n int) string {
		var b strings.Builder
		b.WriteString("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: org:local\negress:\n  - {id: name, allow: \"a.example:443\"}\n")
		for i := range n {
			fmt.Fprintf(&b, "  - {id: r%d, allow: \"203.0.113.%d/32:443\"}\n", i, i)
		}
		return b.String()
	}
	l := newLive(t, Attestation{}, docs(3))
	s := l.idle()
	if _, err := s.Resolve("a.example"); err != nil {
		t.Fatal(err)
	}
	l.addrs.share, l.addrs.most = 0, 1<<18
	l.addrs.each = 100
	snapshot := func(revision uint64, n int) *policy.Snapshot {
		t.Helper()
		parsed, problems := policy.Parse("test.yaml", []byte(docs(n)))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		snap, problems := policy.Compile(revision, parsed)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return snap
	}
	count := func() (addrs int) {
		t.Helper()
		u, err := l.fence.Usage()
		if err != nil {
			t.Fatal(err)
		}
		return u.CIDRs
	}
	few := count()
	if few == 0 {
		t.Fatal("no address rule is in the kernel")
	}
	l.must(l.Apply(snapshot(10, 150)))
	if n := count(); n != 0 {
		t.Errorf("%d of too many address rules are in the kernel", n)
	}
	s.mu.Lock()
	open := len(s.open)
	want, err := s.entriesLocked()
	s.mu.Unlock()
	if err != nil || open != 1 || len(want) != 1 {
		t.Errorf("%d names are open, %d entries are attested, %v", open, len(want), err)
	}
	f := founding{m: l.Manager, s: &Sandbox{m: l.Manager, Record: Record{Number: 1 << 20}}}
	f.s.view.Store(snapshot(11, 150).View(s.Principal))
	if err := f.tables(); !errors.Is(err, ErrNoAddrRoom) {
		t.Errorf("a launch: %v", err)
	}
	l.must(l.Apply(snapshot(12, 3)))
	if n := count(); n != few {
		t.Errorf("%d address rules are in the kernel, want %d again", n, few)
	}
}
