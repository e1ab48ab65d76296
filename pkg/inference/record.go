// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
)

// record builds the one event of a call.
type record struct {
	ev    event.Event
	usage usage

	cost      int64 // nano-dollars
	costKnown bool
}

func newRecord(c *Call, req *http.Request, start time.Time) *record {
	path, _, _ := strings.Cut(target(req), "?")
	return &record{ev: event.Event{
		Kind: event.KindInference, Time: start.UTC(), Source: "gateway", Layer: "inference",
		Verdict: event.Denied, Sandbox: c.Sandbox, Scope: c.Scope, Direction: "outbound",
		DstName: c.Host, DstPort: 443, Proto: "tcp", Method: req.Method, URL: "https://" + c.Host + path,
		Provider: c.Dialect, Operation: "unknown", Activity: "unknown",
	}}
}

// decided notes the decision that counts: the last one asked, or the denial.
func (r *record) decided(d *policy.Decision) {
	r.ev.Reason, r.ev.ReasonCode, r.ev.Revision = d.Reason, d.ReasonCode, d.Revision
	r.ev.Rule, r.ev.RuleAt = "", ""
	if w := d.WouldBe(); w != "" { // of the model, also when tools are decided after it
		r.ev.Shadow = w
	}
	if d.Rule.ID != "" || d.Rule.Doc != "" {
		r.ev.Rule = strings.Trim(d.Rule.Doc+"/"+d.Rule.ID, "/")
	}
	if d.Rule.File != "" {
		r.ev.RuleAt = d.Rule.File + ":" + strconv.Itoa(d.Rule.Line)
	}
}

// answeredBy notes who answers.
func (r *record) answeredBy(c *candidate, credential string) {
	r.ev.Provider, r.ev.ModelServed, r.ev.Credential = c.prov.Name, c.upstream, credential
}

// refused notes an answer that Ringfence made itself.
func (r *record) refused(e *refusal) {
	if e.decision != nil {
		r.decided(e.decision)
	} else {
		r.ev.ReasonCode = e.reason
	}
	switch {
	case e.decision == nil, e.decision.Rule == (policy.RuleRef{}):
		r.ev.Reason = e.message // it names what was asked for, which "no rule" does not
	case r.ev.Reason == "":
		r.ev.Reason = e.message
	default:
		r.ev.Detail = e.message
	}
	r.ev.Remedy = e.command
	if e.code != codeUpstream {
		r.ev.Verdict = event.Denied
	}
	r.ev.Failed = e.code == codeUpstream && e.status != statusClientGone
}

// finish completes the event and hands it over, once.
func (x *exchange) finish() {
	ev := &x.rec.ev
	ev.Duration = time.Since(x.begun)
	ev.End = ev.Time.Add(ev.Duration) // also where the clock has been set
	x.rec.usage.fill(ev)
	x.releaseBody()
	if x.c.Record != nil {
		x.c.Record(*ev)
	}
}
