// SPDX-License-Identifier: Apache-2.0

//go:build ringfence_next

package wire

// Version that tests upgrade to: messages are those of version 5.
const Version = 6
