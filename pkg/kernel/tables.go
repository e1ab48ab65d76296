// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/bpf"
)

// Protocols of table entries.
const (
	ProtoTCP uint8 = 6
	ProtoUDP uint8 = 17
)

// virtualRange holds the addresses that stand for names. The programs carry
// the same constant.
var virtualRange = netip.MustParsePrefix("198.18.0.0/15")

// NameEntry opens one port of one virtual address.
type NameEntry struct {
	Addr  netip.Addr // IPv4 within 198.18.0.0/15
	Port  uint16     // 0 means every port
	Proto uint8      // ProtoTCP or ProtoUDP
	Rule  uint32     // returned in records
}

// CIDREntry is the verdict on a prefix. Within one Port the longest prefix
// wins; entries of Port 0 speak only where no entry of the asked port matches.
// IPv4 is within ::ffff:0:0/96 of one tree: an IPv6 prefix that holds that range
// speaks for IPv4 too, unless 0.0.0.0/0 stands beside it.
type CIDREntry struct {
	Prefix netip.Prefix // IPv6 prefixes within ::ffff:0:0/96 are taken as IPv4
	Port   uint16       // 0 means every port that no other entry names
	Proto  uint8
	Allow  bool
	Rule   uint32
}

// cidrHeadBits is RF_CIDR_HEAD_BITS.
const cidrHeadBits = 64

// batchSize bounds one system call and the kernel memory it pins.
const batchSize = 4096

// PutNames adds or replaces entries of a policy. Policy 0 is invalid. It takes
// effect entry by entry; entries only open, so any order is safe.
func (f *Fence) PutNames(policy uint32, entries []NameEntry) error {
	keys := make([]bpf.FenceRfNameKey, len(entries))
	vals := make([]bpf.FenceRfNameValue, len(entries))
	for i, e := range entries {
		k, err := nameKey(policy, e)
		if err != nil {
			return err
		}
		keys[i], vals[i].Rule = k, e.Rule
	}
	f.written.note(policy, keys, nil)
	if err := updateAll(f.maps.Names, keys, vals); err != nil {
		return fmt.Errorf("put names of policy %d: %w", policy, err)
	}
	return nil
}

// DeleteNames removes entries of a policy; those that are not there are
// skipped. Rule is ignored.
func (f *Fence) DeleteNames(policy uint32, entries []NameEntry) error {
	for _, e := range entries {
		k, err := nameKey(policy, e)
		if err != nil {
			return err
		}
		if err := f.maps.Names.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete name of policy %d: %w", policy, err)
		}
	}
	return nil
}

// PutCIDRs writes the table of a policy id that no sandbox uses yet: write the
// new id, then switch with [Sandbox.SetState], then [Fence.DropPolicy] the old.
// So a switch is one atomic step however long the table is.
func (f *Fence) PutCIDRs(policy uint32, entries []CIDREntry) error {
	keys := make([]bpf.FenceRfCidrKey, len(entries))
	vals := make([]bpf.FenceRfCidrValue, len(entries))
	for i, e := range entries {
		k, err := cidrKey(policy, e)
		if err != nil {
			return err
		}
		keys[i], vals[i].Rule = k, e.Rule
		if e.Allow {
			vals[i].Allow = uint8(bpf.FenceRfVerdictKindRF_ALLOW)
		}
	}
	f.written.note(policy, nil, keys)
	if err := updateAll(f.maps.Cidrs, keys, vals); err != nil {
		return fmt.Errorf("put CIDRs of policy %d: %w", policy, err)
	}
	return nil
}

// DropPolicy removes every entry of the given policies. What this keeper wrote
// it remembers; for policies of an earlier one it walks both tables once.
func (f *Fence) DropPolicy(policies ...uint32) error {
	drop := make(map[uint32]bool, len(policies))
	for _, p := range policies {
		names, cidrs, all := f.written.forget(p)
		if err := errors.Join(deleteAll(f.maps.Names, names), deleteAll(f.maps.Cidrs, cidrs)); err != nil {
			return fmt.Errorf("drop policy %d: %w", p, err)
		}
		if !all {
			drop[p] = true
		}
	}
	if len(drop) == 0 {
		return nil
	}
	names, err := keysWhere(f.maps.Names, func(k *bpf.FenceRfNameKey, _ *bpf.FenceRfNameValue) bool { return drop[k.Policy] })
	if err != nil {
		return fmt.Errorf("walk names: %w", err)
	}
	cidrs, err := keysWhere(f.maps.Cidrs, func(k *bpf.FenceRfCidrKey, _ *bpf.FenceRfCidrValue) bool { return drop[k.Policy] })
	if err != nil {
		return fmt.Errorf("walk CIDRs: %w", err)
	}
	return errors.Join(deleteAll(f.maps.Names, names), deleteAll(f.maps.Cidrs, cidrs))
}

// Usage counts the entries of the tables, for leak tests and metrics; of the
// watched paths only those of sandboxes.
type Usage struct{ Names, CIDRs, Members, Rates, Watched int }

// Usage walks the tables.
func (f *Fence) Usage() (Usage, error) {
	names, err := keysWhere(f.maps.Names, func(*bpf.FenceRfNameKey, *bpf.FenceRfNameValue) bool { return true })
	if err != nil {
		return Usage{}, err
	}
	cidrs, err := keysWhere(f.maps.Cidrs, func(*bpf.FenceRfCidrKey, *bpf.FenceRfCidrValue) bool { return true })
	if err != nil {
		return Usage{}, err
	}
	members, err := keysWhere(f.maps.Members, func(*uint64, *uint32) bool { return true })
	if err != nil {
		return Usage{}, err
	}
	rates, err := keysWhere(f.maps.Rates, func(*uint32, *bpf.FenceRfRate) bool { return true })
	if err != nil {
		return Usage{}, err
	}
	watched, err := keysWhere(f.maps.Watch, func(k *bpf.FenceRfWatchKey, _ *uint32) bool { return k.Sandbox != 0 })
	if err != nil {
		return Usage{}, err
	}
	return Usage{len(names), len(cidrs), len(members), len(rates), len(watched)}, nil
}

func nameKey(policy uint32, e NameEntry) (bpf.FenceRfNameKey, error) {
	addr := e.Addr.Unmap()
	switch {
	case policy == 0:
		return bpf.FenceRfNameKey{}, errors.New("policy 0 is no policy")
	case !addr.Is4() || !virtualRange.Contains(addr):
		return bpf.FenceRfNameKey{}, fmt.Errorf("address %v is not in %v", e.Addr, virtualRange)
	case e.Proto != ProtoTCP && e.Proto != ProtoUDP:
		return bpf.FenceRfNameKey{}, fmt.Errorf("protocol %d is neither TCP nor UDP", e.Proto)
	}
	return bpf.FenceRfNameKey{Policy: policy, Addr: addr.As4(), Port: e.Port, Proto: e.Proto}, nil
}

func cidrKey(policy uint32, e CIDREntry) (bpf.FenceRfCidrKey, error) {
	switch {
	case policy == 0:
		return bpf.FenceRfCidrKey{}, errors.New("policy 0 is no policy")
	case !e.Prefix.IsValid():
		return bpf.FenceRfCidrKey{}, errors.New("invalid prefix")
	case e.Proto != ProtoTCP && e.Proto != ProtoUDP:
		return bpf.FenceRfCidrKey{}, fmt.Errorf("protocol %d is neither TCP nor UDP", e.Proto)
	}
	p := e.Prefix.Masked()
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return bpf.FenceRfCidrKey{
		Prefixlen: uint32(cidrHeadBits + bits),
		Policy:    policy,
		Proto:     e.Proto,
		Port:      e.Port,
		Addr:      p.Addr().As16(),
	}, nil
}

// updateAll writes in batches (hash since 5.6, LPM trie since 5.14), or one by
// one where the kernel has no batches for the map type.
func updateAll[K, V any](m *ebpf.Map, keys []K, vals []V) error {
	for start := 0; start < len(keys); start += batchSize {
		end := min(start+batchSize, len(keys))
		_, err := m.BatchUpdate(keys[start:end], vals[start:end], nil)
		if errors.Is(err, ebpf.ErrNotSupported) {
			err = updateEach(m, keys[start:end], vals[start:end])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func updateEach[K, V any](m *ebpf.Map, keys []K, vals []V) error {
	for i := range keys {
		if err := m.Put(&keys[i], &vals[i]); err != nil {
			return err
		}
	}
	return nil
}

// deleteAll goes one by one: batches stop at the first key that is gone.
func deleteAll[K any](m *ebpf.Map, keys []K) error {
	for i := range keys {
		if err := m.Delete(&keys[i]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

// keysWhere collects keys first: deleting while walking restarts the walk.
// Entries that come and go meanwhile may be missed.
func keysWhere[K, V any](m *ebpf.Map, want func(*K, *V) bool) ([]K, error) {
	out, err := keysByBatch(m, want)
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.ENOSPC) {
		// No batches for this map type, or a hash bucket larger than ours.
		return keysByOne(m, want)
	}
	return out, err
}

func keysByBatch[K, V any](m *ebpf.Map, want func(*K, *V) bool) ([]K, error) {
	var (
		out    []K
		cursor ebpf.MapBatchCursor
		keys   = make([]K, batchSize)
		vals   = make([]V, batchSize)
	)
	for {
		n, err := m.BatchLookup(&cursor, keys, vals, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, err
		}
		for i := range n {
			if want(&keys[i], &vals[i]) {
				out = append(out, keys[i])
			}
		}
		if err != nil {
			return out, nil // the end
		}
	}
}

func keysByOne[K, V any](m *ebpf.Map, want func(*K, *V) bool) ([]K, error) {
	var (
		out []K
		k   K
		v   V
	)
	it := m.Iterate()
	for it.Next(&k, &v) {
		if want(&k, &v) {
			out = append(out, k)
		}
	}
	return out, it.Err()
}
