// SPDX-License-Identifier: Apache-2.0

//go:build !ringfence_next

package kernel

// formerLayouts is empty: no release had a layout before this one, from which
// sandboxes were to be taken over.
func formerLayouts() []formerLayout { return nil }
