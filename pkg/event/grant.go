// SPDX-License-Identifier: Apache-2.0

package event

// Activities of network events about a rule for one connection: the connection
// that has it begins, and ends.
const (
	ActivityClaim   = "claim"
	ActivityRelease = "release"
)
