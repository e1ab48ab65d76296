// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"net/netip"
	"testing"
)

// A walk in small steps comes by every entry, and begins again.
func TestWalkComesByEveryEntry(t *testing.T) {
	f := newFence(t)
	names := make([]NameEntry, 3*walkBatch+7)
	want := map[Entry]bool{}
	for i := range names {
		names[i] = NameEntry{Addr: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), Port: 443, Proto: ProtoTCP, Rule: uint32(i)}
		e, err := names[i].Entry(testPolicy)
		if err != nil {
			t.Fatal(err)
		}
		want[e] = true
	}
	var cidrs []CIDREntry
	for i := range 100 {
		c := CIDREntry{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16), Proto: ProtoTCP, Allow: i%2 == 0, Rule: uint32(i)}
		cidrs = append(cidrs, c, CIDREntry{Prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, byte(i)}), 24), Port: 22, Proto: ProtoUDP})
	}
	for _, c := range cidrs {
		e, err := c.Entry(testPolicy + 1)
		if err != nil {
			t.Fatal(err)
		}
		want[e] = true
	}
	if err := f.PutNames(testPolicy, names); err != nil {
		t.Fatal(err)
	}
	if err := f.PutCIDRs(testPolicy+1, cidrs); err != nil {
		t.Fatal(err)
	}
	w := f.NewWalker()
	for turn := range 2 {
		got, steps := map[Entry]bool{}, 0
		for through := false; !through; steps++ {
			n := 0
			var err error
			if through, err = w.Next(100, func(e Entry) {
				got[e] = true
				n++
			}); err != nil {
				t.Fatal(err)
			}
			if n > 100+walkBatch {
				t.Fatalf("%d entries in one step", n)
			}
		}
		if len(got) != len(want) || steps < 3 {
			t.Errorf("turn %d: %d entries of %d in %d steps", turn, len(got), len(want), steps)
		}
		for e := range want {
			if !got[e] {
				t.Fatalf("turn %d: %v was not met", turn, e)
			}
		}
	}
}

func TestWhatTheTablesHold(t *testing.T) {
	f := newFence(t)
	entry := func(c CIDREntry) Entry {
		t.Helper()
		e, err := c.Entry(testPolicy)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	wide := CIDREntry{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Proto: ProtoTCP, Allow: true, Rule: 1}
	narrow := CIDREntry{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Proto: ProtoTCP, Rule: 2}
	holds := func(e Entry, want bool) {
		t.Helper()
		if ok, err := f.Holds(e); err != nil || ok != want {
			t.Errorf("%v: %v, %v", e, ok, err)
		}
	}
	holds(entry(wide), false)
	if err := f.PutCIDRs(testPolicy, []CIDREntry{wide}); err != nil {
		t.Fatal(err)
	}
	holds(entry(wide), true)
	holds(entry(narrow), false) // the wide one decides there
	if err := f.PutCIDRs(testPolicy, []CIDREntry{narrow}); err != nil {
		t.Fatal(err)
	}
	holds(entry(narrow), true)
	holds(entry(wide), true)
	other := narrow
	other.Allow = true
	holds(entry(other), false)
	mapped := CIDREntry{Prefix: netip.MustParsePrefix("::ffff:10.1.0.0/112"), Proto: ProtoTCP, Allow: true, Rule: 9} // narrow again
	if err := f.PutCIDRs(testPolicy, []CIDREntry{narrow, mapped}); err != nil {
		t.Fatal(err)
	}
	all, err := Entries(testPolicy, nil, []CIDREntry{narrow, wide, mapped})
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	for _, e := range all {
		holds(e, true)
	}
	holds(entry(narrow), false) // the later one counts
	name := NameEntry{Addr: netip.MustParseAddr("198.18.0.9"), Port: 443, Proto: ProtoTCP, Rule: 5}
	e, err := name.Entry(testPolicy)
	if err != nil {
		t.Fatal(err)
	}
	holds(e, false)
	if err := f.PutNames(testPolicy, []NameEntry{name}); err != nil {
		t.Fatal(err)
	}
	holds(e, true)
	for e, want := range map[Entry]string{entry(narrow): "deny 10.1.0.0/16 port 0 protocol 6", e: "allow 198.18.0.9 port 443 protocol 6",
		entry(CIDREntry{Prefix: netip.MustParsePrefix("2001:db8::/32"), Port: 53, Proto: ProtoUDP, Allow: true}): "allow 2001:db8::/32 port 53 protocol 17"} {
		if got := e.String(); got != want || e.Policy() != testPolicy {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
