// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/ringfence/ringfence/bpf"
)

// TableRule is a rule as the entries of one policy's tables name it.
type TableRule struct{ Policy, Rule uint32 }

// RuleUse is what a rule has in the kernel's tables, and how many calls of the
// address hooks it decided there.
type RuleUse struct {
	Names, CIDRs int
	Hits         uint64
}

// RuleUses walks all tables. Hits are those since the table was written; of a
// rule that found no room in the counters there are none.
func (f *Fence) RuleUses() (map[TableRule]RuleUse, error) {
	// By key first: a walk that has to begin again counts nothing twice.
	names, cidrs := map[bpf.FenceRfNameKey]uint32{}, map[bpf.FenceRfCidrKey]uint32{}
	if _, err := keysWhere(f.maps.Names, func(k *bpf.FenceRfNameKey, v *bpf.FenceRfNameValue) bool {
		names[*k] = v.Rule
		return false
	}); err != nil {
		return nil, fmt.Errorf("walk names: %w", err)
	}
	if _, err := keysWhere(f.maps.Cidrs, func(k *bpf.FenceRfCidrKey, v *bpf.FenceRfCidrValue) bool {
		cidrs[*k] = v.Rule
		return false
	}); err != nil {
		return nil, fmt.Errorf("walk CIDRs: %w", err)
	}
	hits, err := f.hitsWhere(func(uint32) bool { return true })
	if err != nil {
		return nil, err
	}
	out := map[TableRule]RuleUse{}
	for k, rule := range names {
		u := out[TableRule{k.Policy, rule}]
		u.Names++
		out[TableRule{k.Policy, rule}] = u
	}
	for k, rule := range cidrs {
		u := out[TableRule{k.Policy, rule}]
		u.CIDRs++
		out[TableRule{k.Policy, rule}] = u
	}
	for k, n := range hits {
		u := out[k]
		u.Hits = n
		out[k] = u
	}
	return out, nil
}

func (f *Fence) hitsWhere(of func(policy uint32) bool) (map[TableRule]uint64, error) {
	out := map[TableRule]uint64{}
	if _, err := keysWhere(f.maps.Hits, func(k *bpf.FenceRfHitKey, n *uint64) bool {
		if of(k.Policy) {
			out[TableRule{k.Policy, k.Rule}] = *n
		}
		return false
	}); err != nil {
		return nil, fmt.Errorf("walk hits: %w", err)
	}
	return out, nil
}

// TakeHits removes the counts of policies and returns them. A call that was
// judged on one of them before the switch may count once more afterwards: of is
// asked about every policy that has counts.
func (f *Fence) TakeHits(of func(policy uint32) bool) (map[TableRule]uint64, error) {
	out, err := f.hitsWhere(of)
	if err != nil {
		return nil, err
	}
	for k := range out {
		key := bpf.FenceRfHitKey{Policy: k.Policy, Rule: k.Rule}
		if err := f.maps.Hits.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return out, fmt.Errorf("remove hits: %w", err)
		}
	}
	return out, nil
}

// MapMemory is the kernel memory of one map.
type MapMemory struct {
	Name  string
	Bytes uint64
}

// Memory is what the kernel says that the maps take (memlock of their fdinfo).
// Since Linux 6.4 that is what is in use; before, it is by their largest size.
func (f *Fence) Memory() ([]MapMemory, error) {
	var out []MapMemory
	all := f.sharedMaps()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		n, err := memlock(all[name])
		if err != nil {
			return nil, fmt.Errorf("memory of map %s: %w", name, err)
		}
		out = append(out, MapMemory{name, n})
	}
	return out, nil
}

func memlock(m *ebpf.Map) (uint64, error) {
	info, err := m.Info()
	if err != nil {
		return 0, err
	}
	n, _ := info.Memlock() // an empty trie takes nothing
	return n, nil
}

// EntryBytes measures what one name and one address entry take, on small tables
// of the same form. 0: this kernel does not count entries (before 6.4).
func (f *Fence) EntryBytes() (name, cidr uint64, err error) {
	const entries = 64
	measure := func(from *ebpf.Map, put func(m *ebpf.Map, i int) error) (uint64, error) {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: from.Type(), KeySize: from.KeySize(), ValueSize: from.ValueSize(), MaxEntries: entries, Flags: from.Flags()})
		if err != nil {
			return 0, err
		}
		defer m.Close()
		before, err := memlock(m)
		if err != nil {
			return 0, err
		}
		for i := range entries {
			if err := put(m, i); err != nil {
				return 0, err
			}
		}
		after, err := memlock(m)
		return (after - before) / entries, err
	}
	name, err = measure(f.maps.Names, func(m *ebpf.Map, i int) error {
		return m.Put(&bpf.FenceRfNameKey{Policy: 1, Port: uint16(i)}, &bpf.FenceRfNameValue{})
	})
	if err != nil {
		return 0, 0, fmt.Errorf("memory of a name: %w", err)
	}
	cidr, err = measure(f.maps.Cidrs, func(m *ebpf.Map, i int) error {
		return m.Put(&bpf.FenceRfCidrKey{Prefixlen: cidrHeadBits + 128, Policy: 1, Port: uint16(i)}, &bpf.FenceRfCidrValue{})
	})
	if err != nil {
		return 0, 0, fmt.Errorf("memory of an address rule: %w", err)
	}
	return name, cidr, nil
}
