// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/bpf"
)

func TestEntriesAreValidated(t *testing.T) {
	name := NameEntry{Addr: netip.MustParseAddr("198.18.0.9"), Port: 1, Proto: ProtoTCP}
	cidr := CIDREntry{Prefix: netip.MustParsePrefix("10.1.2.3/8"), Port: 1, Proto: ProtoUDP}
	if _, err := nameKey(1, name); err != nil {
		t.Error(err)
	}
	k, err := cidrKey(1, cidr)
	if err != nil || k.Prefixlen != 64+96+8 || k.Addr != [16]byte{10: 0xff, 11: 0xff, 12: 10} {
		t.Errorf("%+v, %v", k, err)
	}
	if _, err := nameKey(0, name); err == nil {
		t.Error("policy 0")
	}
	for _, addr := range []string{"198.20.0.1", "10.0.0.1", "::1"} {
		if _, err := nameKey(1, NameEntry{Addr: netip.MustParseAddr(addr), Proto: ProtoTCP}); err == nil {
			t.Errorf("took %s as virtual", addr)
		}
	}
	if _, err := nameKey(1, NameEntry{Addr: name.Addr, Proto: 1}); err == nil {
		t.Error("took ICMP")
	}
	for _, bad := range []CIDREntry{{}, {Prefix: cidr.Prefix}, {Prefix: cidr.Prefix, Proto: 132}} {
		if _, err := cidrKey(1, bad); err == nil {
			t.Errorf("took %+v", bad)
		}
	}
}

func TestPoliciesDoNotMix(t *testing.T) {
	r := newRig(t, 0)
	if err := r.fence.PutCIDRs(8, []CIDREntry{{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Proto: ProtoTCP, Allow: true, Rule: 1}}); err != nil {
		t.Fatal(err)
	}
	try := attempt{Op: "tcp", Addr: "203.0.113.5:443"}
	if got := r.in.try(try); got.Errno != errnoFor(unix.EACCES) {
		t.Fatalf("policy 7 took rules of policy 8: %+v", got)
	}
	st := r.box.State()
	st.Policy, st.Generation = 8, 4
	if err := r.box.SetState(st); err != nil {
		t.Fatal(err)
	}
	if got := r.in.try(try); got.Reply != "gateway 203.0.113.5:443" {
		t.Fatalf("policy 8: %+v", got)
	}
	find(t, r.recs, "flow of generation 4", func(v *Verdict) bool { return v.Allowed && v.Policy == 8 && v.Generation == 4 })
	if err := r.fence.DropPolicy(8); err != nil {
		t.Fatal(err)
	}
	if got := r.in.try(try); got.Errno != errnoFor(unix.EACCES) {
		t.Fatalf("dropped policy: %+v", got)
	}
}

func TestNamesInBatches(t *testing.T) {
	f := newFence(t)
	var entries []NameEntry
	for a := virtualRange.Addr(); len(entries) < 5000; a = a.Next() {
		entries = append(entries, NameEntry{Addr: a, Port: 443, Proto: ProtoTCP, Rule: 1})
	}
	var cidrs []CIDREntry
	for i := range 5000 {
		p := netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))
		cidrs = append(cidrs, CIDREntry{Prefix: p, Port: 443, Proto: ProtoTCP, Allow: true, Rule: 1})
	}
	for _, policy := range []uint32{1, 2, 3} {
		if err := f.PutNames(policy, entries); err != nil {
			t.Fatal(err)
		}
		if err := f.PutCIDRs(policy, cidrs); err != nil {
			t.Fatal(err)
		}
	}
	if u := usage(t, f); u.Names != 15000 || u.CIDRs != 15000 {
		t.Errorf("%+v", u)
	}
	if err := f.DeleteNames(1, entries[:10]); err != nil {
		t.Fatal(err)
	}
	if err := f.DeleteNames(1, entries[:20]); err != nil {
		t.Fatalf("deleting twice: %v", err)
	}
	if err := f.DropPolicy(2, 3); err != nil {
		t.Fatal(err)
	}
	if u := usage(t, f); u.Names != 4980 || u.CIDRs != 5000 {
		t.Errorf("%+v", u)
	}
}

// Walking by batches and one by one finds the same.
func TestKeysWhere(t *testing.T) {
	f := newFence(t)
	var cidrs []CIDREntry
	for i := range 1000 {
		cidrs = append(cidrs, CIDREntry{Prefix: netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)), Proto: ProtoTCP, Allow: i%2 == 0})
	}
	if err := f.PutCIDRs(9, cidrs); err != nil {
		t.Fatal(err)
	}
	odd := func(_ *bpf.FenceRfCidrKey, v *bpf.FenceRfCidrValue) bool { return v.Allow == 0 }
	a, err := keysWhere(f.maps.Cidrs, odd)
	if err != nil {
		t.Fatal(err)
	}
	b, err := keysByOne(f.maps.Cidrs, odd)
	if err != nil {
		t.Fatal(err)
	}
	if len(a) != 500 || len(b) != 500 {
		t.Errorf("%d by batches, %d one by one", len(a), len(b))
	}
}

// The Go types are what the object's BTF says, member by member.
func TestLayout(t *testing.T) {
	spec, err := bpf.LoadFence()
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{
		"rf_state": bpf.FenceRfState{}, "rf_name_key": bpf.FenceRfNameKey{}, "rf_name_value": bpf.FenceRfNameValue{},
		"rf_cidr_key": bpf.FenceRfCidrKey{}, "rf_cidr_value": bpf.FenceRfCidrValue{}, "rf_rate": bpf.FenceRfRate{},
		"rf_head": bpf.FenceRfHead{}, "rf_verdict": bpf.FenceRfVerdict{}, "rf_parent": bpf.FenceRfParent{},
		"rf_exec": bpf.FenceRfExec{}, "rf_exit": bpf.FenceRfExit{}, "rf_call_row": bpf.FenceRfCallRow{}, "rf_watch_key": bpf.FenceRfWatchKey{}, "rf_refusal": bpf.FenceRfRefusal{},
		"rf_guard": bpf.FenceRfGuard{}, "rf_entry_key": bpf.FenceRfEntryKey{}, "rf_guarded": bpf.FenceRfGuarded{}, "rf_hit_key": bpf.FenceRfHitKey{},
	} {
		var s *btf.Struct
		if err := spec.Types.TypeByName(name, &s); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		typ := reflect.TypeOf(v)
		if uintptr(s.Size) != typ.Size() {
			t.Errorf("%s: %d bytes in C, %d in Go", name, s.Size, typ.Size())
		}
		end := uint32(0)
		for _, m := range s.Members {
			f, ok := typ.FieldByNameFunc(func(g string) bool { return strings.EqualFold(g, strings.ReplaceAll(m.Name, "_", "")) })
			if !ok || f.Offset != uintptr(m.Offset.Bytes()) {
				t.Errorf("%s.%s: at %d in C, %+v in Go", name, m.Name, m.Offset.Bytes(), f)
			}
			if m.Offset.Bytes() != end {
				t.Errorf("%s: hidden padding before %s", name, m.Name)
			}
			n, err := btf.Sizeof(m.Type)
			if err != nil {
				t.Fatal(err)
			}
			end = m.Offset.Bytes() + uint32(n)
		}
		if end != s.Size {
			t.Errorf("%s: hidden padding at the end", name)
		}
	}
}

func TestEveryReasonHasWords(t *testing.T) {
	if n := int(bpf.FenceRfReasonRF_REASON_MAX); len(reasonNames[:]) != n || len(reasonTexts[:]) != n {
		t.Fatalf("%d reasons in C, %d names, %d texts", n, len(reasonNames), len(reasonTexts))
	}
	if slices.Contains(reasonNames[:], "") || slices.Contains(reasonTexts[:], "") {
		t.Error("a reason has no words")
	}
	if len(hooks)+len(guardNames) != int(bpf.FenceRfHookRF_HOOK_MAX)-1 || bpf.FenceRfHookRF_HOOK_MAX > 16 {
		t.Errorf("%d hooks in Go, %d in C", len(hooks)+len(guardNames), bpf.FenceRfHookRF_HOOK_MAX-1)
	}
}
