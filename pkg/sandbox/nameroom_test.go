// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/policy"
)

func ofNamed(n int) entries { return entries{named: n} }
func ofWild(n int) entries  { return entries{wild: n} }

// Whoever takes all it can, with as many sandboxes as it likes, leaves each other
// sandbox its part, each other owner a share, and half the table.
func TestRoomForNamesIsShared(t *testing.T) {
	r := newNameRoom()
	number, total := uint32(0), 0
	for owner := range uint32(3) {
		got := 0
		for range 24 {
			number++
			for r.more(number, owner, ofNamed(16)) {
				got += 16
			}
			if n := r.of[number].total(); n > namesMost {
				t.Fatalf("sandbox %d has %d entries", number, n)
			}
		}
		left := namesShare >> (2 * owner)
		if got < left*3/4 || got > left*3/4+24*namesEach {
			t.Errorf("owner %d gets %d of the %d that are left", owner, got, left)
		}
		total += got
	}
	if r.more(number+1, 9, ofWild(namesEach/2+1)) != true || r.more(number+1, 9, ofNamed(namesShare>>6*3/4-1)) != true {
		t.Error("nothing is left for another owner")
	}
	r.drop(number + 1)
	for number++; number <= 1024; number++ {
		for range namesEach / 16 {
			if !r.more(number, 0, ofNamed(16)) {
				t.Fatalf("sandbox %d does not get its own", number)
			}
			total += 16
		}
		if r.more(number, 0, ofNamed(1)) {
			t.Fatalf("sandbox %d gets more than its owner's share", number)
		}
	}
	if total > nameTable/2 {
		t.Errorf("%d entries: a policy change does not fit beside them", total)
	}
	if got := r.take(1, 0, ofNamed(100_000)); got != ofNamed(namesMost) {
		t.Errorf("%d entries, want what it had: %d", got, namesMost)
	}
	for number := uint32(1); number <= 1025; number++ {
		r.drop(number)
	}
	if r.shared != 0 || len(r.of) != 0 || len(r.owners) != 0 {
		t.Errorf("%d shared, %d sandboxes and %d owners are left", r.shared, len(r.of), len(r.owners))
	}
}

// Names under wildcards, of all sandboxes of an owner, leave room for those that a
// rule names, and give way to them when policy changes.
func TestWildcardsLeaveRoomForWhatRulesName(t *testing.T) {
	r := newNameRoom()
	for number := range uint32(24) {
		for r.more(number, 1, ofWild(16)) {
		}
		if n := r.of[number].wild; n > namesMost/2 || n < namesEach/2 {
			t.Fatalf("sandbox %d has %d entries under wildcards", number, n)
		}
	}
	for number := range uint32(24) {
		if !r.more(number, 1, ofNamed(namesEach/2)) {
			t.Fatalf("sandbox %d has no room for what a rule names", number)
		}
	}
	if got := r.owners[1].all; got > namesShare*3/8 {
		t.Errorf("wildcards took %d of %d", got, namesShare*3/4)
	}
	if !r.more(0, 1, ofNamed(namesMost/2-namesEach/2)) {
		t.Error("the first sandbox has no room for as much again as is named")
	}
	if r.more(0, 1, ofNamed(1)) {
		t.Error("it has more than a sandbox may")
	}
	if got := r.take(0, 1, entries{named: namesMost - 10, wild: namesMost}); got != (entries{named: namesMost - 10, wild: 10}) {
		t.Errorf("after a change of policy: %+v", got)
	}
}

// What a restarted keeper finds stays, in whatever order it finds it, and though the
// others have more now than when it was given.
func TestRoomForNamesOutlivesTheKeeper(t *testing.T) {
	r := newNameRoom()
	for owner := range uint32(3) {
		for number := owner * 10; number < owner*10+10; number++ {
			r.take(number, owner, ofNamed(namesMost))
		}
	}
	next := newNameRoom()
	for number := uint32(29); number < 30; number-- { // the last come first
		had := r.of[number]
		next.found(number, had.owner, had.total())
		next.again(number, had.owner, had.entries)
		if got := next.take(number, had.owner, had.entries); got != had.entries {
			t.Errorf("sandbox %d has %+v of %+v", number, got, had.entries)
		}
	}
	if next.shared != r.shared {
		t.Errorf("%d are shared, they were %d", next.shared, r.shared)
	}
	next.found(40, 4, 1<<20)
	if next.shared > namesShare {
		t.Errorf("%d of %d are shared", next.shared, namesShare)
	}
	next.drop(40)
	next.found(41, 4, 10)
	if next.again(41, 4, entries{named: 6, wild: 100}); next.of[41].entries != (entries{named: 6, wild: 4}) {
		t.Errorf("of 10 it has %+v", next.of[41])
	}
}

// The counts are those of a model, whatever is taken and given back.
func TestRoomForNamesCounts(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 3))
		r := newNameRoom()
		for range 2000 {
			number := uint32(rng.IntN(40))
			owner := number % 5
			before := r.of[number].entries
			switch rng.IntN(4) {
			case 0:
				want := entries{rng.IntN(10_000), rng.IntN(10_000)}
				got := r.take(number, owner, want)
				if got.named > want.named || got.wild > want.wild || got.total() < min(want.named, before.total()) {
					t.Fatalf("seed %d: %+v of %+v, had %+v", seed, got, want, before)
				}
			case 1:
				r.drop(number)
			default:
				r.more(number, owner, entries{rng.IntN(600), rng.IntN(600)})
			}
			shared, of := 0, map[uint32]shareOf{}
			for _, n := range r.of {
				s := of[n.owner]
				s.add(r.shares(n.entries), 1)
				of[n.owner] = s
				shared += r.shares(n.entries).all
				if n.total() > namesMost || n.wild > namesMost/2 {
					t.Fatalf("seed %d: %+v", seed, n)
				}
			}
			maps.DeleteFunc(of, func(_ uint32, s shareOf) bool { return s == shareOf{} })
			if shared != r.shared || shared > namesShare || !maps.Equal(of, r.owners) {
				t.Fatalf("seed %d: %d shared, counted %d of %d: %v %v", seed, shared, r.shared, namesShare, of, r.owners)
			}
		}
	}
}

// A sandbox opens as many names of many ports as it may: the next name is
// exhausted, what is open stays open, another sandbox resolves, and a policy
// change goes through, with fewer ports and with more.
func TestASandboxCannotFillTheTableOfNames(t *testing.T) {
	docs := func(ports int) string {
		var b strings.Builder
		b.WriteString("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: org:local\negress:\n")
		for p := range ports {
			fmt.Fprintf(&b, "  - {id: p%d, allow: \"**.example:%d\"}\n", p, 10_000+p)
		}
		b.WriteString("  - {id: named, allow: \"named.test:443\"}\n")
		return b.String()
	}
	l := newLive(t, Attestation{}, docs(400))
	greedy, other := l.idle(), l.idle()
	var opened []netip.Addr
	for n := 0; ; n++ {
		r, err := greedy.Resolve(fmt.Sprintf("n%d.example", n))
		if err == ErrNoNameRoom {
			break
		}
		if err != nil || !r.Allowed || n > 30 {
			t.Fatalf("name %d: %+v %v", n, r, err)
		}
		opened = append(opened, r.Addr)
	}
	if len(opened) != namesMost/2/400 {
		t.Errorf("%d names were opened", len(opened))
	}
	if r, err := greedy.Resolve("named.test"); err != nil || !r.Allowed {
		t.Errorf("a name that a rule names: %+v %v", r, err)
	}
	if r, err := greedy.Resolve("n0.example"); err != nil || r.Addr != opened[0] {
		t.Errorf("what is open: %+v %v", r, err)
	}
	if r, err := other.Resolve("n0.example"); err != nil || !r.Allowed {
		t.Errorf("another sandbox: %+v %v", r, err)
	}
	for i, ports := range []int{500, 3} {
		parsed, problems := policy.Parse("test.yaml", []byte(docs(ports)))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		snap, problems := policy.Compile(uint64(10+i), parsed)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		l.must(l.Apply(snap))
		greedy.mu.Lock()
		first, last := len(greedy.open[opened[0]]), len(greedy.open[opened[len(opened)-1]])
		greedy.mu.Unlock()
		if want := ports; first != want || ports == 3 && last != want || ports == 500 && last != 0 {
			t.Errorf("%d ports: %d of the oldest name are open, %d of the newest", ports, first, last)
		}
	}
	if r, err := greedy.Resolve("n21.example"); err != nil || !r.Allowed { // there is room again
		t.Errorf("%+v %v", r, err)
	}
	names := l.table("names")
	if names.MaxEntries() != nameTable {
		t.Errorf("the kernel's table has room for %d, not for %d", names.MaxEntries(), nameTable)
	}
}
