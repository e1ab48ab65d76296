// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/ringfence/ringfence/bpf"
)

// TableSize is how many entries a policy has.
type TableSize struct{ Names, CIDRs int }

// TableSizes walks both tables and counts the entries of every policy, whoever wrote
// them. It is exact while nobody writes.
func (f *Fence) TableSizes() (map[uint32]TableSize, error) {
	out := map[uint32]TableSize{}
	if _, err := keysWhere(f.maps.Names, func(k *bpf.FenceRfNameKey, _ *bpf.FenceRfNameValue) bool {
		n := out[k.Policy]
		n.Names++
		out[k.Policy] = n
		return false
	}); err != nil {
		return nil, fmt.Errorf("walk names: %w", err)
	}
	if _, err := keysWhere(f.maps.Cidrs, func(k *bpf.FenceRfCidrKey, _ *bpf.FenceRfCidrValue) bool {
		n := out[k.Policy]
		n.CIDRs++
		out[k.Policy] = n
		return false
	}); err != nil {
		return nil, fmt.Errorf("walk CIDRs: %w", err)
	}
	return out, nil
}

// TableOf is the policy that a sandbox is judged on which nobody has taken over yet,
// behind the programs of this layout or of the one before: 0 if its cgroup has no
// state, or another's.
func (f *Fence) TableOf(id uint32, cgroup uint64) (uint32, error) {
	if f.former.has(id) {
		st, err := f.former.state(cgroup)
		if err != nil || st.Sandbox != id {
			return 0, err
		}
		return st.Policy, nil
	}
	var st bpf.FenceRfState
	err := f.maps.State.Lookup(cgroup, &st)
	if errors.Is(err, ebpf.ErrKeyNotExist) || err == nil && st.Sandbox != id {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("state of sandbox %d: %w", id, err)
	}
	return st.Policy, nil
}
