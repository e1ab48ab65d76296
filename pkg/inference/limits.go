// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/limit"
	"github.com/ringfence/ringfence/pkg/policy"
)

// limits enforces the rates of policy on calls of models: what [policy.Decision]
// has as obligations of that kind, in force or in shadow mode. They are counted in
// this process. What was counted is forgotten when it ends, and a gateway that
// drains counts apart from its successor.
type limits struct{ table *limit.Table }

func newLimits(o limit.Options) *limits { return &limits{limit.New(o)} }

// rated is what the rates see of a call.
type rated struct {
	scope    string // canonical principal
	sandbox  string
	model    string // the name that the provider is asked for
	provider string // name of its document
	tokens   uint64 // estimate of what goes in; 0: the call uses none
	// hold makes room for the call to wait, false where there is none; give gives
	// that back. nil: it must not wait.
	hold func() bool
	give func()
}

// held is what a call has taken of its rates. nil holds nothing.
type held struct {
	table  *limit.Table
	hold   limit.Hold
	shadow string        // what a rate in shadow mode would have done, as [policy.Decision.WouldBe] says it
	waited time.Duration // for room
}

// settle ends it for a call that was sent and used so much.
func (h *held) settle(u usage) {
	if h != nil {
		h.hold.Settle(h.table, u.in+u.out)
	}
}

// cancel ends it for a call that was not sent: nothing of it counts.
func (h *held) cancel() {
	if h != nil {
		h.hold.Cancel(h.table)
	}
}

// take takes the call's rates, all or none, and waits for them where the rules
// let it. A call that people had to decide comes here after they did, and one
// that is refused later has to be cancelled.
func (l *limits) take(ctx context.Context, dec *policy.Decision, q *rated) (*held, *refusal) {
	call, rules := l.call(dec, q)
	if len(rules) == 0 {
		return nil, nil
	}
	h := &held{table: l.table}
	ref := l.table.Take(call, &h.hold)
	if ref.Kind != limit.None && ref.Patience > 0 && q.hold != nil && q.hold() {
		start := time.Now()
		var err error
		ref, err = l.table.Wait(ctx, call, &h.hold)
		q.give()
		h.waited = time.Since(start)
		if err != nil {
			return nil, &refusal{status: statusClientGone, code: codeRate, reason: "client-gone", message: "the client went away while the call waited for room in a rate"}
		}
	}
	named := func(claim int) *policy.Obligation { return rules[call.Claims[claim].Tag] }
	if ref.Kind != limit.None {
		return nil, limited(dec, named(ref.Claim), &ref, q)
	}
	if k := h.hold.ShadowKind; k != limit.None {
		h.shadow = policy.Block.String() + " by " + named(h.hold.Shadow).Rule.String() + " (rate of " + k.String() + ")"
	}
	return h, nil
}

// call lists the claims of a decision, and which obligation each is for by its
// tag.
func (l *limits) call(dec *policy.Decision, q *rated) (*limit.Call, []*policy.Obligation) {
	var c *limit.Call
	var rules []*policy.Obligation
	add := func(o *policy.Obligation, shadow bool) {
		if o.Kind != policy.KindRate || slices.ContainsFunc(rules, func(k *policy.Obligation) bool { return k.Rule.Num == o.Rule.Num }) {
			return
		}
		if c == nil {
			c = &limit.Call{Owner: ancestor(q.scope, "agent"), Tokens: q.tokens}
		}
		name := limit.Name{Scope: o.Rule.Scope, Doc: o.Rule.Doc, ID: o.Rule.ID}
		c.Claims = append(c.Claims, limit.Claim{Rule: l.table.Rule(name), Spec: specOf(o.Rate), Split: q.split(o.Rate.Per), Shadow: shadow, Tag: len(rules)})
		rules = append(rules, o)
	}
	live := dec.Obligations()
	for i := range live {
		add(&live[i], false)
	}
	if s := dec.Shadow(); s != nil {
		for i, o := 0, s.Obligations(); i < len(o); i++ {
			add(&o[i], true)
		}
	}
	return c, rules
}

func specOf(r *policy.Rate) limit.Spec {
	return limit.Spec{Requests: r.Requests, RequestsWindow: r.RequestsWindow, Tokens: r.Tokens, TokensWindow: r.TokensWindow, Concurrency: r.Concurrency, Queue: r.Queue}
}

// split is what a rate counts apart. Whoever is named means everything above it
// too: an agent is one of its team.
func (q *rated) split(per []string) (s limit.Split) {
	depth := 0
	for _, p := range per {
		switch p {
		case "model":
			s.Model = q.model
		case "provider":
			s.Provider = q.provider
		case "sandbox":
			depth, s.Who = len(levels), q.sandbox
		default:
			if i := slices.Index(levels, p) + 1; i > depth {
				depth, s.Who = i, ancestor(q.scope, p)
			}
		}
	}
	return s
}

// levels are the segments of a principal, from above.
var levels = []string{"org", "team", "agent", "sandbox"}

// ancestor is a canonical principal down to a level.
func ancestor(principal, level string) string {
	end := 0
	for range slices.Index(levels, level) + 1 {
		i := strings.IndexByte(principal[end:], '/')
		if i < 0 {
			return principal
		}
		end += i + 1
	}
	return strings.TrimSuffix(principal[:end], "/")
}

// rateRefusal is what a client is told of a rate, beside the words.
type rateRefusal struct {
	tokens            bool          // of tokens, not of requests
	wait              time.Duration // until it may try again; 0: never
	requestsL, tokenL limit.Level
}

// limited is the refusal of a call for which a rule has no room.
func limited(dec *policy.Decision, o *policy.Obligation, l *limit.Refusal, q *rated) *refusal {
	r := &rateRefusal{tokens: l.Kind == limit.Tokens, wait: max(l.Wait, time.Second), requestsL: l.Requests, tokenL: l.Tokens}
	ref := &refusal{status: http.StatusTooManyRequests, code: codeRate, reason: reasonRate, rate: r,
		decision: &policy.Decision{Rule: o.Rule, ReasonCode: reasonRate, Revision: dec.Revision}}
	switch l.Kind {
	case limit.Requests:
		ref.message = "rate limit reached on requests: " + amount(o.Rate.Requests, o.Rate.RequestsWindow) + among(o.Rate)
	case limit.Tokens:
		ref.message = "rate limit reached on tokens: " + amount(o.Rate.Tokens, o.Rate.TokensWindow) + among(o.Rate) + "; this request needs about " + strconv.FormatUint(q.tokens, 10)
	case limit.Concurrency:
		ref.message = "as many requests run already as may at a time: " + strconv.FormatUint(o.Rate.Concurrency, 10) + among(o.Rate)
	case limit.Queue:
		ref.message = "others wait already for a rate that has no room"
	default: // limit.Buckets, limit.Rules
		ref.message = "a rate counts more apart than it may hold at a time, so this request cannot be counted"
	}
	ref.remedy = "Please try again in " + seconds(r.wait) // in these words some clients look for it
	if l.Never {
		r.wait = 0
		ref.remedy = "Send less at once: this request alone is more than the limit"
	}
	return ref
}

// amount says a limit in words: "60 in 1m0s".
func amount(n uint64, in time.Duration) string {
	return strconv.FormatUint(n, 10) + " in " + in.String()
}

// among says what a rate counts apart.
func among(r *policy.Rate) string {
	if len(r.Per) == 0 {
		return ", all together"
	}
	return " per " + strings.Join(r.Per, " and ")
}

// seconds is a time as a decimal number of seconds, rounded up to a millisecond.
func seconds(d time.Duration) string {
	return strconv.FormatFloat(roundUp(d, time.Millisecond).Seconds(), 'f', -1, 64) + "s"
}

// roundUp is d in whole units, not less.
func roundUp(d, unit time.Duration) time.Duration {
	return max(d.Truncate(unit), (d + unit - 1).Truncate(unit))
}

// setRetry writes when to try again, in the header of RFC 9110, section 10.2.3.
func (r *rateRefusal) setRetry(h http.Header) {
	if r.wait > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(roundUp(r.wait, time.Second)/time.Second), 10))
	}
}

// openAIRateHeaders writes the headers of OpenAI's guide to rate limits, and
// retry-after-ms, which the official SDKs read first.
func openAIRateHeaders(h http.Header, r *rateRefusal, _ time.Time) {
	if r.wait > 0 {
		h.Set("Retry-After-Ms", strconv.FormatInt(int64(roundUp(r.wait, time.Millisecond)/time.Millisecond), 10))
	}
	for _, of := range []struct {
		name string
		l    *limit.Level
	}{{"Requests", &r.requestsL}, {"Tokens", &r.tokenL}} {
		if of.l.Limit > 0 {
			h.Set("X-Ratelimit-Limit-"+of.name, strconv.FormatUint(of.l.Limit, 10))
			h.Set("X-Ratelimit-Remaining-"+of.name, strconv.FormatUint(of.l.Remaining, 10))
			h.Set("X-Ratelimit-Reset-"+of.name, roundUp(of.l.Reset, time.Millisecond).String())
		}
	}
}

// anthropicRateHeaders writes the headers of Anthropic's reference, where resets
// are times in RFC 3339.
func anthropicRateHeaders(h http.Header, r *rateRefusal, now time.Time) {
	for _, of := range []struct {
		name string
		l    *limit.Level
	}{{"Requests", &r.requestsL}, {"Tokens", &r.tokenL}} {
		if of.l.Limit > 0 {
			h.Set("Anthropic-Ratelimit-"+of.name+"-Limit", strconv.FormatUint(of.l.Limit, 10))
			h.Set("Anthropic-Ratelimit-"+of.name+"-Remaining", strconv.FormatUint(of.l.Remaining, 10))
			h.Set("Anthropic-Ratelimit-"+of.name+"-Reset", now.Add(roundUp(of.l.Reset, time.Second)).UTC().Format(time.RFC3339))
		}
	}
}
