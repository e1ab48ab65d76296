// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/ringfence/ringfence/pkg/policy"
)

// Question is one request that policy has people decide: its model, tools that the
// provider would run for it, or several of these together.
type Question struct {
	Dialect, Model string
	Arguments      [32]byte        // SHA-256 over method, target, headers and body, each with its length
	Shown          string          // what it is, for people: nothing of what was said
	Hold           bool            // there is room for it to wait
	Decision       policy.Decision // of the model; it demands people, or allows it

	Tools     []Tool            // those that people are demanded for
	Decisions []policy.Decision // of each tool
}

// Approved is what became of a question, and what is in force after that. The
// zero value refuses.
type Approved struct {
	Decision  policy.Decision   // of the model
	Decisions []policy.Decision // of each tool that was asked about
	Waits     []string          // the ids of what nobody has decided yet: the model's, then each tool's; "" where people have let it pass

	View      View // nil where it may not go on
	Snapshot  Providers
	Transport func(provider *policy.Provider) http.RoundTripper
}

// A request that waits for people holds its body. All of them together hold no
// more than this part of what bodies may have, those of one sandbox that part of it,
// and one request no more than the last: where there is no room it is asked for, and
// answered at once.
const (
	waitingPart    = 4
	waitingBoxPart = 16
	waitingOnePart = 64

	codeWaits     = "approval-waits"
	codeChanged   = "approval-superseded"
	codeApproved  = "approved" // of a decision that people made, as the gateway has it
	retryApproval = "10"       // seconds; the official SDKs wait so long before they try again
)

// approve asks people about everything that policy has them decide, in one
// question, and goes on with what is in force when they have decided. What they let
// pass replaces its verdict.
func (x *exchange) approve(v *verdicts) *refusal {
	q := Question{Dialect: x.d.name, Model: x.asked.model, Arguments: x.fingerprint(), Shown: x.route.op + ", " + strconv.Itoa(len(x.body)) + " bytes", Decision: v.model}
	all := 0
	for i := range v.found {
		if v.tools[i].Effect != policy.RequireApproval {
			continue
		}
		t, ok := x.tool(&v.found[i])
		if all += len(t.Settings); !ok || len(q.Tools) == MaxTools || all > MaxAllSettings {
			return x.tooMuchForPeople(&v.found[i], &v.tools[i])
		}
		q.Tools, q.Decisions = append(q.Tools, t), append(q.Decisions, v.tools[i])
	}
	if held := x.held; x.r.waiting.take(x.c.Sandbox, held, x.r.opt.MaxBuffered) {
		q.Hold = true
		defer x.r.waiting.give(x.c.Sandbox, held)
	}
	a := x.c.Approve(x.in.Context(), q)
	if slices.ContainsFunc(a.Waits, func(id string) bool { return id != "" }) {
		return x.waitsForPeople(v, a.Waits, &q)
	}
	if a.View != nil {
		x.c.View, x.c.Snapshot, x.c.Transport = a.View, a.Snapshot, a.Transport
		x.plan(v)
		x.pick()
		x.inspect(v)
	}
	v.model = a.Decision
	for i := range v.found {
		at := slices.IndexFunc(q.Tools, func(t Tool) bool { return t.Name == v.found[i].tool })
		if at < 0 || at >= len(a.Decisions) {
			continue // nobody was asked, or nobody has answered: what policy says stands
		}
		if t, ok := x.tool(&v.found[i]); ok && t.Definition == q.Tools[at].Definition {
			v.tools[i] = a.Decisions[at]
		} else if v.tools[i].Effect == policy.RequireApproval {
			v.tools[i].Reason, v.tools[i].ReasonCode = "what people were asked about is another tool by now: try again", codeChanged
		}
	}
	return nil
}

// room counts the bytes of what waits, of all sandboxes and of each.
type room struct {
	mu  sync.Mutex
	all int64
	of  map[string]int64 // those above zero
}

// take takes n bytes for a sandbox, if there are so many for it.
func (r *room) take(sandbox string, n, bodies int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > bodies/waitingOnePart || r.of[sandbox]+n > bodies/waitingBoxPart || r.all+n > bodies/waitingPart {
		return false
	}
	if r.of == nil {
		r.of = map[string]int64{}
	}
	r.all += n
	r.of[sandbox] += n
	return true
}

// give gives back what was taken.
func (r *room) give(sandbox string, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all -= n
	if r.of[sandbox] -= n; r.of[sandbox] <= 0 {
		delete(r.of, sandbox)
	}
}

// fingerprint is of method, path, query, headers and body, as they are sent on: an
// approval for one use is for this very request. What says who sends it, or which
// attempt it is, is not in it: a request that is sent again is the same one.
func (x *exchange) fingerprint() (sum [32]byte) {
	h := sha256.New()
	put := func(part []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	put([]byte(x.route.method))
	put([]byte(x.path))
	put([]byte(x.query))
	headers := boundHeaders(outboundHeaders(x.d, x.in.Header))
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		for _, v := range headers[name] {
			put([]byte(name))
			put([]byte(v))
		}
	}
	put(nil)
	put(x.body)
	h.Sum(sum[:0])
	return sum
}

// waitsForPeople is the answer while nobody has decided.
func (x *exchange) waitsForPeople(v *verdicts, ids []string, q *Question) *refusal {
	dec, param, what := &v.model, "model", []string{}
	var waits, commands []string
	for i, id := range ids {
		switch {
		case id == "":
			continue
		case i == 0:
			what = append(what, "this use of the model "+quote(x.asked.model))
		case i <= len(q.Tools):
			if what = append(what, "what the provider would do as "+q.Tools[i-1].Name); len(what) == 1 {
				dec, param = &q.Decisions[i-1], "tools"
			}
		}
		waits, commands = append(waits, id), append(commands, "ringfence approvals approve "+id)
	}
	dec.ReasonCode = codeWaits
	return &refusal{status: http.StatusServiceUnavailable, code: codeApproval, reason: dec.ReasonCode, param: param, decision: dec, command: strings.Join(commands, " && "),
		message: "a person has to approve " + strings.Join(what, " and ") + ", and nobody has yet (" + strings.Join(waits, ", ") + ")",
		remedy:  "Tell the user what it is for and that this lets it pass: " + strings.Join(commands, " && ") + "; then send the same request again"}
}

// tooMuchForPeople is the answer where a question would be larger than anybody
// reads.
func (x *exchange) tooMuchForPeople(f *finding, dec *policy.Decision) *refusal {
	return &refusal{status: http.StatusForbidden, code: codeDenied, reason: "provider-tool", param: f.param, decision: dec,
		message: f.what + " needs a person's approval, and this request asks for more than people can be asked about at once: " + strconv.Itoa(MaxTools) + " tools, " +
			strconv.Itoa(MaxSettings) + " settings of one and " + strconv.Itoa(MaxAllSettings) + " of all",
		remedy: "Ask for fewer tools in one request, with fewer settings"}
}
