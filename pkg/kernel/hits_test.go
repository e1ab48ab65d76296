// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/test/env"
)

// Every call that a rule decided counts for it, whether it was let through or
// not and whatever became of its record; others count for none.
func TestHits(t *testing.T) {
	r := newRig(t, FlagLoopback|FlagDNS)
	err := errors.Join(
		r.fence.PutNames(testPolicy, []NameEntry{{Addr: netip.MustParseAddr("198.18.0.9"), Port: 123, Proto: ProtoUDP, Rule: 1}}),
		r.fence.PutCIDRs(testPolicy, []CIDREntry{
			{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Port: 123, Proto: ProtoUDP, Allow: true, Rule: 2},
			{Prefix: netip.MustParsePrefix("203.0.113.7/32"), Port: 123, Proto: ProtoUDP, Rule: 3}}))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.fence.maps.Rates.Delete(uint32(testSandbox)); err != nil { // no record is kept
		t.Fatal(err)
	}
	for _, a := range []struct {
		addr  string
		errno unix.Errno
	}{
		{"198.18.0.9:123", 0}, {"198.18.0.9:123", 0}, {"203.0.113.5:123", 0}, {"203.0.113.7:123", unix.EACCES}, {"203.0.113.7:123", unix.EACCES},
		{"203.0.113.7:123", unix.EACCES}, {"192.0.2.1:123", unix.EACCES}, {"127.0.0.1:123", 0}, {"192.0.2.1:53", 0},
	} {
		want := a.errno
		if want == unix.EACCES {
			want = errnoFor(want)
		}
		if got := r.in.try(attempt{Op: "udp-sendto", Addr: a.addr}); got.Errno != want {
			t.Fatalf("%s: %v at %q, want %v", a.addr, got.Errno, got.Step, want)
		}
	}
	uses, err := r.fence.RuleUses()
	if err != nil {
		t.Fatal(err)
	}
	for rule, want := range map[uint32]RuleUse{1: {Names: 1, Hits: 2}, 2: {CIDRs: 1, Hits: 1}, 3: {CIDRs: 1, Hits: 3}} {
		if got := uses[TableRule{testPolicy, rule}]; got != want {
			t.Errorf("rule %d: %+v, want %+v", rule, got, want)
		}
	}
	if len(uses) != 3 {
		t.Errorf("%+v", uses)
	}
	none, err := r.fence.TakeHits(func(p uint32) bool { return p != testPolicy })
	if err != nil || len(none) > 0 {
		t.Errorf("%+v %v", none, err)
	}
	taken, err := r.fence.TakeHits(func(p uint32) bool { return p == testPolicy })
	if err != nil || len(taken) != 3 || taken[TableRule{testPolicy, 3}] != 3 {
		t.Errorf("%+v %v", taken, err)
	}
	if again, err := r.fence.TakeHits(func(uint32) bool { return true }); err != nil || len(again) > 0 {
		t.Errorf("%+v %v", again, err)
	}
}

func TestMemoryOfTables(t *testing.T) {
	f := newFence(t)
	name, cidr, err := f.EntryBytes()
	if err != nil {
		t.Fatal(err)
	}
	total := func() (n uint64) {
		maps, err := f.Memory()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range maps {
			n += m.Bytes
		}
		return n
	}
	before := total()
	if before == 0 {
		t.Fatal("the maps take nothing")
	}
	if name == 0 || cidr == 0 {
		env.Lack(t, env.Linux(6, 4), "the memory in use of maps (Linux 6.4)")
	}
	const n = 1000
	fillUnused(t, f, n)
	if got, want := total()-before, n*(name+cidr); got != want {
		t.Errorf("%d bytes for %d names and addresses, want %d", got, n, want)
	}
}

func fillUnused(t *testing.T, f *Fence, n int) {
	t.Helper()
	var names []NameEntry
	var cidrs []CIDREntry
	for i, a := 0, virtualRange.Addr(); i < n; i, a = i+1, a.Next() {
		names = append(names, NameEntry{Addr: a, Port: 443, Proto: ProtoTCP, Rule: 1})
		cidrs = append(cidrs, CIDREntry{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32), Proto: ProtoTCP, Rule: 1})
	}
	if err := errors.Join(f.PutNames(testPolicy, names), f.PutCIDRs(testPolicy, cidrs)); err != nil {
		t.Fatal(err)
	}
}
