// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"strconv"

	"github.com/ringfence/ringfence/pkg/policy"
)

// Question is one request that policy has people decide.
type Question struct {
	Dialect, Model string
	Arguments      [32]byte        // SHA-256 over method, target and body, each with its length
	Shown          string          // what it is, for people: nothing of what was said
	Hold           bool            // there is room for it to wait
	Decision       policy.Decision // that demands it
}

// Approved is what became of a question, and what is in force after that. The
// zero value refuses.
type Approved struct {
	Decision policy.Decision
	Waits    string // the id of the request for approval that nobody has decided yet

	View      View
	Snapshot  Providers
	Transport func(provider *policy.Provider) http.RoundTripper
}

// A request that waits for people holds its body. All of them together hold no
// more than this part of what bodies may have, and one no more than that: larger
// ones are asked for, and answered at once.
const (
	waitingPart    = 4
	waitingOnePart = 64

	retryApproval = "10" // seconds; the official SDKs wait so long before they try again
)

// approve asks people, and goes on with what is in force when they have decided.
func (x *exchange) approve(dec *policy.Decision) {
	if x.c.Approve == nil {
		return
	}
	held := x.held
	room := held <= x.r.opt.MaxBuffered/waitingOnePart && x.r.waiting.Add(held) <= x.r.opt.MaxBuffered/waitingPart
	if held <= x.r.opt.MaxBuffered/waitingOnePart {
		defer x.r.waiting.Add(-held)
	}
	shown := x.route.op + ", " + strconv.Itoa(len(x.body)) + " bytes"
	a := x.c.Approve(x.in.Context(), Question{Dialect: x.d.name, Model: x.asked.model, Arguments: x.fingerprint(), Shown: shown, Hold: room, Decision: *dec})
	*dec, x.waits = a.Decision, a.Waits
	if dec.Allowed() {
		x.c.View, x.c.Snapshot, x.c.Transport = a.View, a.Snapshot, a.Transport
	}
}

// fingerprint is of method, path, query and body, as they are sent on: an approval
// for one use is for this very request. Headers are not in it.
func (x *exchange) fingerprint() (sum [32]byte) {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(x.route.method), []byte(x.path), []byte(x.query), x.body} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	h.Sum(sum[:0])
	return sum
}

// waitsForPeople is the answer while nobody has decided.
func (x *exchange) waitsForPeople(dec *policy.Decision) *refusal {
	command := "ringfence approvals approve " + x.waits
	return &refusal{status: http.StatusServiceUnavailable, code: codeApproval, reason: dec.ReasonCode, param: "model", decision: dec, command: command,
		message: "a person has to approve this use of the model " + quote(x.asked.model) + ", and nobody has yet (" + x.waits + ")",
		remedy:  "Tell the user what it is for and that this lets it pass: " + command + "; then send the same request again"}
}
