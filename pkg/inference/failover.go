// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/inference/health"
	"github.com/ringfence/ringfence/pkg/policy"
)

// maxAttempts bounds what is sent for one request, all providers and keys together.
const maxAttempts = 8

// fault is why an attempt gave no answer that the client gets.
type fault uint8

const (
	faultHere    fault = iota // the provider's, or of the way to it: another one may answer
	faultKey                  // of the key: another key may do
	faultLimit                // the provider asks to wait: another key or provider may do
	faultLong                 // the request is too long for the model
	faultContent              // the provider refuses the content
	faultFinal                // nobody else would answer better, or may be asked
)

// failure is an attempt that gave no answer. Its answer is what the client gets when
// nobody answers: the provider's own, or ours.
type failure struct {
	fault fault
	why   string // for people, short: "503", "no answer in time"
	wait  time.Duration
	free  bool // see Spent.Free

	resp *answer  // the provider's error, whole; nil: ref
	ref  *refusal // ours
}

// answer gets an answer, from one of the candidates or the trial provider, and
// passes it on. When nobody answers the client gets the first one's error.
func (x *exchange) answer() {
	var ref *refusal
	if x.paid, x.most, ref = x.pay(nil); ref != nil {
		x.refuse(ref)
		return
	}
	answered := true
	defer func() { x.paid.done(x.spent(answered)) }()
	if x.trial {
		x.answerTrial()
		return
	}
	first := x.ask(x.list, nil)
	if answered = first == nil; answered {
		return
	}
	x.rec.ev.Tried = x.tried()
	if first.resp != nil {
		x.relayFailure(first)
		return
	}
	x.refuse(x.blame(first))
}

// try is one attempt, for the record.
type try struct {
	name string
	why  string
}

// ask asks the candidates one after the other. It returns nil when one has
// answered, else the failure that the client is told of: the first, or that given.
func (x *exchange) ask(list []candidate, first *failure) *failure {
	for i := range list {
		c := &list[i]
		if len(x.tries) >= maxAttempts {
			break
		}
		f := x.askOne(c, first != nil)
		if f == nil {
			return nil
		}
		if first == nil || first.ref != nil && first.ref.reason == reasonAside && f.resp != nil {
			first = f
		}
		switch f.fault {
		case faultFinal:
			return first
		case faultLong, faultContent:
			return x.chain(f, first)
		}
	}
	return first
}

// chain asks those that a route names for requests that were too long for a model,
// or whose content it refused.
func (x *exchange) chain(f, first *failure) *failure {
	if x.way == nil || x.chained {
		return first
	}
	targets := x.way.TooLong
	if f.fault == faultContent {
		targets = x.way.Refused
	}
	x.chained = true
	list := x.chainList(targets)
	if len(list) == 0 {
		return first
	}
	return x.ask(list, first)
}

// chainList is the candidates of a chain that policy lets be asked.
func (x *exchange) chainList(targets []policy.RouteTarget) []candidate {
	before := x.list
	x.list = nil
	x.expand(targets)
	for i := range x.list {
		x.decideAt(&x.list[i])
	}
	v := verdicts{}
	if ref := x.settle(&v); ref != nil {
		x.list = nil
	}
	list := x.list
	x.list = before
	return list
}

// askOne asks one candidate with its keys in turn.
func (x *exchange) askOne(c *candidate, extra bool) (worst *failure) {
	for _, key := range keyOrder(c.prov) {
		if len(x.tries) >= maxAttempts || x.in.Context().Err() != nil {
			break
		}
		pass, until, ok := x.r.health.Begin(c.place(key), x.agent())
		if !ok {
			if worst == nil {
				worst = x.aside(c, key, until)
			}
			continue
		}
		if extra = extra || len(x.tries) > 0; extra && !x.r.retries.Extra(c.prov.Name, x.agent()) {
			pass.Done(health.Unknown, 0, "")
			return keep(worst, &failure{why: "too many calls failed over to it already", ref: x.overloaded(c)})
		}
		if !extra {
			x.r.retries.First(c.prov.Name, x.agent())
		}
		paid, most, ref := x.pay(c)
		if ref != nil {
			pass.Done(health.Unknown, 0, "")
			x.tries = append(x.tries, try{c.name(), ref.message})
			return keep(worst, overToll(ref))
		}
		f := x.attempt(c, key, pass, &paid, least(x.most, most))
		if f == nil {
			return nil
		}
		x.tries = append(x.tries, try{c.name(), f.why})
		worst = keep(worst, f)
		if f.fault != faultKey && f.fault != faultLimit {
			return f
		}
	}
	if worst == nil {
		worst = &failure{fault: faultFinal, why: "the client went away", ref: x.gone()}
	}
	return worst
}

// least is the smaller of two bounds, 0 being none.
func least(a, b uint64) uint64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// agent is who calls, whichever of its sandboxes does: failures of one agent alone
// are no reason to keep others from a provider.
func (x *exchange) agent() string {
	agent, _, _ := strings.Cut(x.c.Scope, "/sandbox:")
	return agent
}

// keep is the failure of a candidate that counts: the first that was an answer.
func keep(old, f *failure) *failure {
	if old == nil || old.ref != nil && old.ref.reason == reasonAside {
		return f
	}
	return old
}

const reasonAside = "set-aside"

// aside is the failure of a candidate, or of a key of it, that is not asked now.
func (x *exchange) aside(c *candidate, key string, until time.Time) *failure {
	look, _ := x.r.health.Look(c.place(key))
	if look.State == health.Closed {
		look, _ = x.r.health.Look(health.Place{Provider: c.prov.Name, Key: key})
	}
	wait := max(until.Sub(x.r.opt.Clock()), time.Second).Round(time.Second)
	why := "set aside for " + wait.String()
	if look.Why != "" {
		why += " after " + look.Why
	}
	x.tries = append(x.tries, try{c.name(), why})
	return &failure{fault: faultKey, why: why, wait: wait, ref: &refusal{status: http.StatusServiceUnavailable, code: codeUpstream, reason: reasonAside, wait: wait,
		message: "the provider " + quote(c.prov.Name) + " failed before and is " + why, remedy: "Try again later"}}
}

func (x *exchange) overloaded(c *candidate) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, code: codeUpstream, reason: "retry-budget", wait: time.Second,
		message: "the provider " + quote(c.prov.Name) + " has got as many calls of others that failed as it may", remedy: "Try again later"}
}

func (x *exchange) gone() *refusal {
	return &refusal{status: statusClientGone, code: codeUpstream, reason: "client-gone", message: "the client went away"}
}

// tried is what was asked and why it did not answer, for records and agents.
func (x *exchange) tried() string {
	var b strings.Builder
	for i, t := range x.tries {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(t.name)
		if t.why != "" {
			b.WriteString(": " + t.why)
		}
	}
	return b.String()
}

// blame is our own error when nobody answered, with what was tried where that was
// more than one thing.
func (x *exchange) blame(f *failure) *refusal {
	ref := *f.ref
	if len(x.tries) > 1 {
		ref.message += "; tried were " + x.tried()
	}
	return &ref
}

// relayFailure passes a provider's error on, as it came.
func (x *exchange) relayFailure(f *failure) {
	a := f.resp
	x.prov, x.served = a.from.prov, a.from.upstream
	x.rec.answeredBy(a.from, a.credential)
	if len(x.tries) > 1 {
		x.w.Header().Set("X-Ringfence-Tried", headerText(x.tried()))
	}
	x.relay(a)
}

// headerText is a text in the bounds of a header's value.
func headerText(s string) string {
	b := []byte(s[:min(len(s), 1024)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

// faultOf sorts a provider's error answer.
func (x *exchange) faultOf(status int, body []byte, injected bool) (f fault, o health.Outcome) {
	switch {
	case (status == http.StatusUnauthorized || status == http.StatusPaymentRequired || status == http.StatusForbidden) && injected:
		if refusedContent(body) {
			return faultContent, health.Unknown
		}
		if status == http.StatusForbidden && x.route.model && holdsWord(body, modelWords) {
			return faultKey, health.Unknown // of the name: agents choose those
		}
		return faultKey, health.KeyRefused
	case status == http.StatusBadRequest && injected && invalidKey(body):
		return faultKey, health.KeyRefused
	case status == http.StatusTooManyRequests && injected:
		return faultLimit, health.Limited
	case status == http.StatusNotFound && x.route.model && injected:
		return faultHere, health.Unknown // likewise
	case status == http.StatusRequestTimeout, status >= 500:
		return faultHere, health.Failed
	case tooLong(status, body):
		return faultLong, health.Unknown
	case refusedContent(body):
		return faultContent, health.Unknown
	}
	return faultFinal, health.Unknown
}

func statusText(code int) string { return strconv.Itoa(code) }
