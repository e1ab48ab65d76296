// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/ringfence/ringfence/bpf"
)

// Entry is one entry of the tables as the kernel holds it. Two are equal if
// they decide the same.
type Entry struct {
	name  bpf.FenceRfNameKey // zero for an address rule
	cidr  bpf.FenceRfCidrKey // zero for a name
	rule  uint32
	allow bool
}

// Policy is which table the entry counts in.
func (e Entry) Policy() uint32 { return max(e.name.Policy, e.cidr.Policy) }

// Virtual returns the virtual address that an entry is about, the zero address
// for an address rule.
func (e Entry) Virtual() netip.Addr {
	if e.name.Policy == 0 {
		return netip.Addr{}
	}
	return netip.AddrFrom4(e.name.Addr)
}

// String is for people.
func (e Entry) String() string {
	if e.name.Policy != 0 {
		return fmt.Sprintf("allow %v port %d protocol %d", netip.AddrFrom4(e.name.Addr), e.name.Port, e.name.Proto)
	}
	verb := "deny"
	if e.allow {
		verb = "allow"
	}
	bits := max(int(e.cidr.Prefixlen)-cidrHeadBits, 0)
	addr := netip.AddrFrom16(e.cidr.Addr)
	if addr.Is4In6() && bits >= 96 {
		addr, bits = addr.Unmap(), bits-96
	}
	return fmt.Sprintf("%s %v/%d port %d protocol %d", verb, addr, bits, e.cidr.Port, e.cidr.Proto)
}

// Entry is what PutNames writes for e.
func (e NameEntry) Entry(policy uint32) (Entry, error) {
	k, err := nameKey(policy, e)
	return Entry{name: k, rule: e.Rule, allow: true}, err
}

// Entry is what PutCIDRs writes for e.
func (e CIDREntry) Entry(policy uint32) (Entry, error) {
	k, err := cidrKey(policy, e)
	return Entry{cidr: k, rule: e.Rule, allow: e.Allow}, err
}

// Entries are those that a table holds after PutNames and PutCIDRs: of two that
// are about the same the later one.
func Entries(policy uint32, names []NameEntry, cidrs []CIDREntry) ([]Entry, error) {
	out := make([]Entry, 0, len(names)+len(cidrs))
	at := make(map[Entry]int, cap(out)) // by what an entry is about
	add := func(e Entry, err error) error {
		about := Entry{name: e.name, cidr: e.cidr}
		if i, again := at[about]; again {
			out[i] = e
			return err
		}
		at[about] = len(out)
		out = append(out, e)
		return err
	}
	for _, n := range names {
		if err := add(n.Entry(policy)); err != nil {
			return nil, err
		}
	}
	for _, c := range cidrs {
		if err := add(c.Entry(policy)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Holds says whether the tables decide as e says. Of an address rule that is
// what the programs find for its whole prefix, which may come from a shorter
// one that says the same.
func (f *Fence) Holds(e Entry) (bool, error) {
	if e.name.Policy != 0 {
		var v bpf.FenceRfNameValue
		found, err := lookup(f.maps.Names, &e.name, &v)
		return found && v.Rule == e.rule, err
	}
	var v bpf.FenceRfCidrValue
	found, err := lookup(f.maps.Cidrs, &e.cidr, &v)
	return found && v.Rule == e.rule && allows(v) == e.allow, err
}

func allows(v bpf.FenceRfCidrValue) bool { return v.Allow == uint8(bpf.FenceRfVerdictKindRF_ALLOW) }

// Walker goes through the entries of both tables again and again, a bounded
// number at a time. Entries that come and go meanwhile may be missed, or come
// twice. It is not safe for concurrent use.
type Walker struct {
	f      *Fence
	names  walk[bpf.FenceRfNameKey, bpf.FenceRfNameValue]
	cidrs  walk[bpf.FenceRfCidrKey, bpf.FenceRfCidrValue]
	second bool // it is in the second table
}

// NewWalker begins at the first entry.
func (f *Fence) NewWalker() *Walker {
	w := &Walker{f: f}
	w.names.m, w.cidrs.m = f.maps.Names, f.maps.Cidrs
	return w
}

// Next calls fn for about n more entries at most, and says whether it was
// through both tables.
func (w *Walker) Next(n int, fn func(Entry)) (through bool, err error) {
	for n > 0 && err == nil {
		var got int
		var end bool
		if !w.second {
			got, end, err = w.names.next(func(k bpf.FenceRfNameKey, v bpf.FenceRfNameValue) { fn(Entry{name: k, rule: v.Rule, allow: true}) })
			w.second = end
		} else {
			got, end, err = w.cidrs.next(func(k bpf.FenceRfCidrKey, v bpf.FenceRfCidrValue) {
				fn(Entry{cidr: k, rule: v.Rule, allow: allows(v)})
			})
			if end && err == nil {
				w.second = false
				return true, nil
			}
		}
		n -= max(got, 1)
	}
	if err != nil {
		return false, fmt.Errorf("walk the tables: %w", err)
	}
	return false, nil
}

// walk is where in one table it is.
type walk[K, V any] struct {
	m      *ebpf.Map
	cursor *ebpf.MapBatchCursor
	keys   []K
	vals   []V
}

// walkBatch is how many entries one system call returns at most.
const walkBatch = 1024

// next takes one batch (hash since Linux 5.6, LPM trie since 5.14).
func (w *walk[K, V]) next(fn func(K, V)) (n int, end bool, err error) {
	if w.cursor == nil {
		w.cursor, w.keys, w.vals = &ebpf.MapBatchCursor{}, make([]K, walkBatch), make([]V, walkBatch)
	}
	n, err = w.m.BatchLookup(w.cursor, w.keys, w.vals, nil)
	end = errors.Is(err, ebpf.ErrKeyNotExist)
	if end {
		err = nil
	}
	if err != nil || end {
		w.cursor = nil
	}
	for i := range n {
		fn(w.keys[i], w.vals[i])
	}
	return n, end, err
}
