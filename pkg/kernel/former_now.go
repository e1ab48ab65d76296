// SPDX-License-Identifier: Apache-2.0

//go:build !ringfence_next

package kernel

// formerLayouts: layout 2 had other records and counters, and one ring less.
func formerLayouts() []formerLayout {
	return []formerLayout{{number: 2, state: state2, name: name2, cidr: cidr2}}
}
