// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/ringfence/ringfence/pkg/policy"
)

// Question is one request that policy has people decide: its model, tools that the
// provider would run for it, or several of these together.
type Question struct {
	Dialect, Model string
	Arguments      [32]byte        // SHA-256 over method, target and body, each with its length
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
// more than this part of what bodies may have, and one no more than that: larger
// ones are asked for, and answered at once.
const (
	waitingPart    = 4
	waitingOnePart = 64

	codeWaits     = "approval-waits"
	retryApproval = "10" // seconds; the official SDKs wait so long before they try again
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
	held := x.held
	q.Hold = held <= x.r.opt.MaxBuffered/waitingOnePart && x.r.waiting.Add(held) <= x.r.opt.MaxBuffered/waitingPart
	if held <= x.r.opt.MaxBuffered/waitingOnePart {
		defer x.r.waiting.Add(-held)
	}
	a := x.c.Approve(x.in.Context(), q)
	if slices.ContainsFunc(a.Waits, func(id string) bool { return id != "" }) {
		return x.waitsForPeople(v, a.Waits, &q)
	}
	if a.View != nil {
		x.c.View, x.c.Snapshot, x.c.Transport = a.View, a.Snapshot, a.Transport
		x.pick()
		x.inspect(v)
	}
	v.model = a.Decision
	for i := range v.found {
		at := slices.IndexFunc(q.Tools, func(t Tool) bool { return t.Name == v.found[i].tool })
		switch {
		case at < 0:
		case at < len(a.Decisions):
			v.tools[i] = a.Decisions[at]
		default:
			v.tools[i] = policy.Decision{}
		}
	}
	return nil
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
