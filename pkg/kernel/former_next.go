// SPDX-License-Identifier: Apache-2.0

//go:build ringfence_next

package kernel

// formerLayouts of the layout that tests upgrade to: the present one.
func formerLayouts() []formerLayout {
	return []formerLayout{{number: 3, state: state2, name: name2, cidr: cidr2, record: record3, guard: true}}
}

// record3: this layout's records have eight bytes more in front.
func record3(b []byte, clock *bootClock) (Record, error) {
	return decode(append(make([]byte, 8), b...), clock)
}
