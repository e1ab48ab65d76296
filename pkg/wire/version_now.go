// SPDX-License-Identifier: Apache-2.0

//go:build !ringfence_next

package wire

// Version of the messages between keeper and gateway.
const Version = 5
