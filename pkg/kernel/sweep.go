// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"maps"
	"slices"

	"github.com/ringfence/ringfence/bpf"
)

// Tables lists the policies under which there are entries, whoever wrote them:
// a keeper that was killed leaves some that no state names. It walks both
// tables.
func (f *Fence) Tables() ([]uint32, error) {
	found := map[uint32]bool{}
	if _, err := keysWhere(f.maps.Names, func(k *bpf.FenceRfNameKey, _ *bpf.FenceRfNameValue) bool {
		found[k.Policy] = true
		return false
	}); err != nil {
		return nil, fmt.Errorf("walk names: %w", err)
	}
	if _, err := keysWhere(f.maps.Cidrs, func(k *bpf.FenceRfCidrKey, _ *bpf.FenceRfCidrValue) bool {
		found[k.Policy] = true
		return false
	}); err != nil {
		return nil, fmt.Errorf("walk CIDRs: %w", err)
	}
	return slices.Sorted(maps.Keys(found)), nil
}
