// SPDX-License-Identifier: Apache-2.0

package bpf

import "crypto/sha256"

// Digest identifies the shared programs by the content of their objects. The
// steering program is not part of it: each sandbox keeps the one it began with.
func Digest() []byte {
	h := sha256.New()
	h.Write(_FenceBytes)
	h.Write(_ProcessBytes)
	h.Write(_RefusalBytes)
	h.Write(_RedirectBytes)
	h.Write(_ListenerBytes)
	h.Write(_GuardBytes)
	return h.Sum(nil)
}
