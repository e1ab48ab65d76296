// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"net/http"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/price"
)

// Toll takes what a request uses before it is sent: room under a limit, money of a
// budget. All methods may be called from many goroutines.
type Toll interface {
	// Request is asked once for each request, before anybody is asked.
	Request(ctx context.Context, u *Use) (Grant, *Refusal)
	// Attempt is asked before each attempt; u.Provider is who would answer. A refusal
	// leaves that one out, and the next is asked.
	Attempt(ctx context.Context, u *Use) (Grant, *Refusal)
}

// Use is what a request, or an attempt of it, would use. It belongs to the caller
// and holds until the receipt is done.
type Use struct {
	Sandbox, Scope string
	Dialect        string // of the client
	Operation      string
	Asked          string           // model that the agent asked for
	Model          string           // model that rules name, of the candidate; Asked before there is one
	Upstream       string           // its name at the provider
	Provider       *policy.Provider // nil for Request
	Decision       policy.Decision  // with its obligations in Terms; of Attempt: on the candidate
	Also           policy.Decision  // of Attempt: where the candidate is asked for another model, the looser decision of the two
	Verdict        policy.Decision  // that Request had as its Decision
	Trial          bool             // the trial provider answers: there will be no Attempt
	View           View
	Input          uint64 // tokens, estimated
	InputMost      uint64 // more tokens than it can be
	Output         uint64 // tokens that the client lets come out at most, for each choice; 0 = it does not say
	Choices        uint64 // answers that it asks for at once, at least 1
	Bounded        bool   // its output can be bounded
	MaxOutput      uint64 // that the model gives, by its document; 0 = not said

	// Wait makes room for the request to wait with its body; ok is false where there
	// is none. done gives it back. nil: it must not wait.
	Wait func() (done func(), ok bool)
}

// Grant is what a toll gives. The zero value asks nothing further.
type Grant struct {
	Receipt   Receipt // nil: nothing is to be told
	MaxOutput uint64  // tokens that may come out; the request is changed to say so. 0 = as asked
	Shadow    string  // what a rule in shadow mode would have done, as [policy.Decision.WouldBe] says it
	Note      string  // for the event's detail
}

// Receipt is told how it went on. Sent comes at most once and before Done, Done
// exactly once.
type Receipt interface {
	// Sent: the request is about to leave. From now on it may cost.
	Sent()
	Done(s Spent)
}

// Spent is what a request, or an attempt, has used.
type Spent struct {
	Sent     bool // it left
	Answered bool // an answer came: usage says what it was
	Free     bool // it was not reached, or answered with an error: providers bill neither
	Usage    Usage
	Provider *policy.Provider // who answered; nil: nobody, or the trial provider
	Upstream string
}

// Usage is what an answer used.
type Usage struct {
	Input, Output, Cached uint64      // tokens; Cached is a part of Input
	Units                 price.Usage // the same and more, in units that do not overlap
	Estimated             bool        // nobody reported it, or not all of it

	Cost      int64 // nano-dollars
	CostKnown bool  // Cost says something: it is the provider's price, or an estimate where its document says so
}

// Refusal is a toll's no.
type Refusal struct {
	Status  int           // of HTTP
	Code    string        // for the client, such as CodeLimited
	Reason  string        // reason code of the event
	Message string        // one sentence without a full stop
	Remedy  string        // what to do, one sentence without a full stop
	Command string        // the one command of an operator that would let it pass
	Wait    time.Duration // when to try again; 0 = nobody knows
	Header  http.Header   // for the answer, such as the state of a rate limit; may be nil
	Rule    policy.RuleRef
}

// Codes of tolls that clients see.
const (
	CodeLimited = "rate_limit_exceeded"       // as OpenAI has it
	CodeBudget  = "ringfence_budget_exceeded" // a budget has no room
	CodeBusy    = codeBusy                    // nobody knows now; try again
)

// ReasonTokens is the reason code of a limit on tokens: OpenAI's errors tell those
// from limits on requests.
const ReasonTokens = "rate-tokens"

func (r *Refusal) refusal() *refusal {
	ref := &refusal{status: r.Status, code: r.Code, reason: r.Reason, message: r.Message, remedy: r.Remedy, command: r.Command, wait: r.Wait, header: r.Header}
	if r.Rule != (policy.RuleRef{}) {
		ref.decision = &policy.Decision{Rule: r.Rule, ReasonCode: r.Reason}
	}
	return ref
}

// receipts are those of one request or attempt.
type receipts struct {
	list []Receipt
	sent bool
}

// pay asks every toll. What was granted before one of them refuses is given back.
func (x *exchange) pay(c *candidate) (paid receipts, most uint64, ref *refusal) {
	if len(x.r.opt.Tolls) == 0 {
		return paid, 0, nil
	}
	u := x.use(c)
	for _, t := range x.r.opt.Tolls {
		ask := t.Request
		if c != nil {
			ask = t.Attempt
		}
		g, no := ask(x.in.Context(), u)
		if no != nil {
			paid.done(Spent{})
			if x.in.Context().Err() != nil {
				return receipts{}, 0, x.gone()
			}
			return receipts{}, 0, no.refusal()
		}
		if x.rec.ev.Shadow == "" {
			x.rec.ev.Shadow = g.Shadow
		}
		if g.Note != "" {
			x.rec.ev.Detail = g.Note
		}
		if g.Receipt != nil {
			paid.list = append(paid.list, g.Receipt)
		}
		if g.MaxOutput > 0 && (most == 0 || g.MaxOutput < most) {
			most = g.MaxOutput
		}
	}
	return paid, most, nil
}

// use describes the request, or what a candidate would make of it.
func (x *exchange) use(c *candidate) *Use {
	u := &Use{Sandbox: x.c.Sandbox, Scope: x.c.Scope, Dialect: x.d.name, Operation: x.route.op, Asked: x.asked.model, Model: x.asked.model, View: x.c.View,
		Decision: x.verdict, Verdict: x.verdict, Trial: x.trial, Wait: x.waitRoom}
	if x.route.model {
		u.Input, u.InputMost = requestTokens(&x.tape), requestMost(&x.tape)
		u.Output, u.Choices, u.Bounded = x.tape.outputHeld(x.route.output), x.tape.choices(), x.route.output != ""
	}
	if c != nil {
		u.Provider, u.Model, u.Upstream, u.Decision, u.Also = c.prov, c.model, c.upstream, c.decision, c.also
		if e := c.prov.Entry(c.model); e != nil {
			u.MaxOutput = uint64(e.MaxOutput)
			if x.tape.goesOn() { // what the provider has stored goes in, too
				u.InputMost += uint64(e.Context)
			}
		}
	}
	return u
}

// waitRoom makes room for the request to wait with its body, as one that waits for
// people has it.
func (x *exchange) waitRoom() (done func(), ok bool) {
	held := x.held
	if !x.r.waiting.take(x.c.Sandbox, held, x.r.opt.MaxBuffered) {
		return nil, false
	}
	return func() { x.r.waiting.give(x.c.Sandbox, held) }, true
}

// leave tells that the request leaves.
func (p *receipts) leave() {
	if p.sent {
		return
	}
	p.sent = true
	for _, r := range p.list {
		r.Sent()
	}
}

// done tells how it ended, once.
func (p *receipts) done(s Spent) {
	s.Sent = p.sent
	for _, r := range p.list {
		r.Done(s)
	}
	p.list = nil
}

// spent is what the request has used, so far as is known.
func (x *exchange) spent(answered bool) Spent {
	s := Spent{Answered: answered}
	if answered {
		s.Provider, s.Upstream = x.prov, x.served
		u := x.rec.usage
		s.Usage = Usage{Input: u.PromptTokens(), Output: u.AnswerTokens(), Cached: u.Usage[price.CachedInput], Units: u.Usage, Estimated: u.estimated,
			Cost: x.rec.cost, CostKnown: x.rec.costKnown}
	}
	return s
}

// overToll is the failure of an attempt that a toll refused.
func overToll(ref *refusal) *failure {
	return &failure{fault: faultHere, why: ref.message, wait: ref.wait, ref: ref}
}
