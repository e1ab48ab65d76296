// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strings"
)

// trace is the place of a call in a distributed trace (W3C Trace Context, level 1):
// the client's trace goes on where it sent one, and the provider's part of it hangs
// below this call.
type trace struct {
	id, parent, span string // in hexadecimal; id and span "" until there is a call, parent "" without a client's
	flags            string
}

// traceOf reads the client's header, and begins a trace of its own where there is
// none that can be read.
func traceOf(h http.Header) trace {
	t := trace{span: randomHex(8), flags: "01"}
	if list := h.Values("Traceparent"); len(list) == 1 {
		parts := strings.Split(list[0], "-")
		if len(parts) == 4 && parts[0] == "00" && hexID(parts[1], 32) && hexID(parts[2], 16) && len(parts[3]) == 2 && isHex(parts[3]) {
			t.id, t.parent, t.flags = parts[1], parts[2], parts[3]
			return t
		}
	}
	t.id = randomHex(16)
	return t
}

// header is what the provider gets; "" where the client has no trace: then it is
// nothing to the provider.
func (t *trace) header() string {
	if t.parent == "" {
		return ""
	}
	return "00-" + t.id + "-" + t.span + "-" + t.flags
}

// hexID says whether s is an identifier of n digits that is not all zeros.
func hexID(s string, n int) bool { return len(s) == n && isHex(s) && strings.Trim(s, "0") != "" }

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand, Go 1.24)
	return hex.EncodeToString(b)
}
