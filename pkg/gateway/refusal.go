// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/ringfence/ringfence/pkg/policy"
)

// refusal is why a request is not forwarded.
type refusal struct {
	code, reason string
	status       int
	remedy       string
	byPolicy     bool // a rule could open it
	upstream     bool // policy allowed it; the other side failed
	decision     policy.Decision
}

// refusalOf is a refusal that no rule can change.
func refusalOf(code, reason string, status int) *refusal {
	return &refusal{code: code, reason: reason, status: status}
}

// refusalByPolicy is a refusal by a decision.
func refusalByPolicy(d policy.Decision) *refusal {
	ref := &refusal{code: d.ReasonCode, reason: d.Reason, status: http.StatusForbidden, byPolicy: true, decision: d}
	if ref.code == "" {
		ref.code = policy.CodeNoRule
	}
	if ref.reason == "" {
		ref.reason = "no rule of the policy allows this"
	}
	return ref
}

// denialBody is the JSON that a refused program reads. The field names are
// stable.
type denialBody struct {
	Error         string   `json:"error"`
	Detail        string   `json:"detail"`
	Reason        string   `json:"reason"`
	Rule          string   `json:"rule,omitempty"`
	NextSteps     []string `json:"next_steps"`
	AgentGuidance string   `json:"agent_guidance"`
	DecisionID    string   `json:"decision_id,omitempty"`
}

// answer writes the refusal. Answers to requests with a body close the
// connection (HTTP/1.1), so that what is left of the body is not read as a
// request.
func (x *exchange) answer(ref *refusal) {
	body, err := json.MarshalIndent(x.body(ref), "", "  ")
	if err != nil {
		http.Error(x.w, ref.reason, ref.status)
		return
	}
	body = append(body, '\n')
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Ringfence-Reason", ref.code)
	if x.id != "" {
		h.Set("X-Ringfence-Decision", x.id)
	}
	if x.r.ContentLength != 0 && x.r.ProtoMajor == 1 {
		h.Set("Connection", "close")
	}
	x.w.WriteHeader(ref.status)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write(body)
	}
}

func (x *exchange) body(ref *refusal) denialBody {
	b := denialBody{Error: ref.code, Reason: ref.reason, Rule: ref.decision.Rule.String(), DecisionID: x.id}
	where := x.r.Method + " " + x.name + portSuffix("https", x.f.dst.Port())
	switch {
	case ref.upstream:
		b.Error, b.Detail = ref.code, where+" was allowed but could not be completed."
		b.NextSteps = []string{"Check the host name and try again later."}
		b.AgentGuidance = "This is a failure of the destination or its network, not a refusal. Retrying later is fine."
	case ref.code == codeApprovalWaits:
		b.Detail = where + " waits for people to approve it."
		b.NextSteps = []string{"Ask the operator to run: " + ref.remedy, "Then try again."}
		b.AgentGuidance = "A person has to approve this connection. Tell the user what you need it for and the command above. Retry after a while, not at once, and do not look for another way to reach it."
	case ref.code == codeApprovalDenied:
		b.Detail = "People were asked about " + where + " and said no."
		b.NextSteps = []string{"Go on without it, or tell the user what you need it for."}
		b.AgentGuidance = "A person has refused this connection. Do not retry: nobody is asked about it again for a while. Do not look for another way to reach it."
	case ref.byPolicy:
		b.Detail = "Ringfence refused " + where + "."
		b.NextSteps = []string{"If this is needed, ask the operator to run: " + ref.remedy}
		if !isCommand(ref.remedy) {
			b.NextSteps = []string{"A rule of the policy forbids this; only the people who wrote it can change that."}
		}
		b.AgentGuidance = "The network policy of this sandbox closes this destination. Do not retry and do not look for another way to reach it. " +
			"Go on without it, or tell the user what you need and the command above."
	default:
		b.Detail = "Ringfence refused " + where + " because of how the request was made."
		b.NextSteps = []string{"Send a plain request whose Host is the name you connected to."}
		b.AgentGuidance = "The request itself was refused, not its destination. Repeating it unchanged will fail again."
	}
	return b
}

// whyRefused is the reason on the refusal address, where the name is known
// only now, or of a destination that explains its refusal.
func (x *exchange) whyRefused(d policy.Decision) *refusal {
	if d.ReasonCode != "" || x.e == nil {
		return refusalByPolicy(d)
	}
	n := x.e.view.Name(x.name)
	if n.Resolves {
		ref := refusalByPolicy(policy.Decision{ReasonCode: codeUnknownAddr, Revision: x.e.snap.Revision(),
			Reason: "the policy has changed since this name was looked up; look it up again and retry"})
		return ref
	}
	return refusalByPolicy(n.Decision)
}

// newDecisionID ties the answer to the event.
func newDecisionID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return hex.EncodeToString(b[:])
}
