// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/policy"
)

// Whoever takes all it can leaves each other sandbox its part, and half the table.
func TestRoomForNamesIsShared(t *testing.T) {
	var r nameRoom
	greedy := 0
	for number := uint32(1); number <= 24; number++ {
		for r.more(number, 16) {
			greedy += 16
		}
		if r.of[number] > namesMost {
			t.Fatalf("sandbox %d has %d entries", number, r.of[number])
		}
	}
	total := greedy
	for number := uint32(25); number <= 1024; number++ {
		for range namesEach / 16 {
			if !r.more(number, 16) {
				t.Fatalf("sandbox %d does not get its own", number)
			}
			total += 16
		}
		if r.more(number, 1) {
			t.Fatalf("sandbox %d gets more than there is", number)
		}
	}
	if total > nameTable/2 {
		t.Errorf("%d entries: a policy change does not fit beside them", total)
	}
	if got := r.take(1, 100_000); got != namesMost {
		t.Errorf("%d entries, want %d", got, namesMost)
	}
	for number := uint32(1); number <= 1024; number++ {
		r.drop(number)
	}
	if r.shared != 0 || len(r.of) != 0 {
		t.Errorf("%d shared and %d sandboxes are left", r.shared, len(r.of))
	}
}

// The counts are those of a model, whatever is taken and given back.
func TestRoomForNamesCounts(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var r nameRoom
		for range 2000 {
			number := uint32(rng.IntN(40))
			switch rng.IntN(4) {
			case 0:
				r.take(number, rng.IntN(10_000))
			case 1:
				r.drop(number)
			default:
				r.more(number, rng.IntN(600))
			}
			shared := 0
			for _, n := range r.of {
				shared += max(0, n-namesEach)
				if n > namesMost {
					t.Fatalf("seed %d: %d entries", seed, n)
				}
			}
			if shared != r.shared || shared > namesShare {
				t.Fatalf("seed %d: %d shared, counted %d of %d", seed, shared, r.shared, namesShare)
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
	if len(opened) != namesMost/400 {
		t.Errorf("%d names were opened", len(opened))
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
