// SPDX-License-Identifier: Apache-2.0

package rates

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/limit"
	"github.com/ringfence/ringfence/pkg/policy"
)

// unknownWait is when to try again where nobody knows: calls end when they end.
const unknownWait = time.Second

// reasons are the reason codes of events, by what there was no room in.
var reasons = map[limit.Kind]string{
	limit.Requests: "rate-requests", limit.Tokens: inference.ReasonTokens, limit.Concurrency: "rate-concurrency",
	limit.Queue: "rate-queue", limit.Buckets: "rate-uncounted", limit.Rules: "rate-uncounted",
}

// refusal says that a rule has no room.
func refusal(u *inference.Use, o *policy.Obligation, l *limit.Refusal) *inference.Refusal {
	no := &inference.Refusal{Status: http.StatusTooManyRequests, Code: inference.CodeLimited, Reason: reasons[l.Kind], Rule: o.Rule, Wait: l.Wait}
	r := o.Rate
	switch l.Kind {
	case limit.Requests:
		no.Message = "rate limit reached on requests: " + amount(r.Requests, r.RequestsWindow) + among(r)
	case limit.Tokens:
		no.Message = "rate limit reached on tokens: " + amount(r.Tokens, r.TokensWindow) + among(r) + ", and this request has about " + strconv.FormatUint(max(1, u.Input), 10)
	case limit.Concurrency:
		no.Message = "as many requests run as may at a time: " + strconv.FormatUint(r.Concurrency, 10) + among(r)
	case limit.Queue:
		no.Message = "others wait already for room under a rate limit"
	default: // limit.Buckets, limit.Rules
		no.Message = "a rate limit counts as much apart as it can at a time, and this request is something new"
	}
	switch {
	case l.Never:
		no.Wait, no.Remedy = 0, "Send less at once: one request is more than the whole limit"
	case no.Wait == 0:
		no.Wait = unknownWait
		fallthrough
	default:
		no.Remedy = "Please try again in " + seconds(no.Wait) // clients look for these words of OpenAI's
	}
	if h := headers[u.Dialect]; h != nil {
		no.Header = h(no.Wait, l, time.Now())
	}
	return no
}

// gone is the end of a call whose client did not wait.
func gone() *inference.Refusal {
	return &inference.Refusal{Status: http.StatusServiceUnavailable, Code: inference.CodeLimited, Reason: "client-gone", Message: "the client went away while its request waited for room under a rate limit"}
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

// seconds is a time as a number of seconds, not less.
func seconds(d time.Duration) string {
	return strconv.FormatFloat(roundUp(d, time.Millisecond).Seconds(), 'f', -1, 64) + "s"
}

// roundUp is d in whole units, not less.
func roundUp(d, unit time.Duration) time.Duration {
	if rest := d % unit; rest > 0 && d < 1<<62 {
		return d - rest + unit
	}
	return d
}

// headers are those of a dialect that tell about rate limits, besides Retry-After.
// Gemini has none; its error's details hold the wait.
var headers = map[string]func(wait time.Duration, l *limit.Refusal, now time.Time) http.Header{
	policy.DialectOpenAI: openAIHeaders, policy.DialectAnthropic: anthropicHeaders,
}

// openAIHeaders are those of OpenAI's guide to rate limits, where a reset is the
// time until the limit is as if unused; and retry-after-ms, which the official SDKs
// read before Retry-After.
func openAIHeaders(wait time.Duration, l *limit.Refusal, _ time.Time) http.Header {
	h := http.Header{}
	if wait > 0 {
		h.Set("Retry-After-Ms", strconv.FormatInt(int64(roundUp(wait, time.Millisecond)/time.Millisecond), 10))
	}
	for name, of := range levelsOf(l) {
		h.Set("X-Ratelimit-Limit-"+name, strconv.FormatUint(of.Limit, 10))
		h.Set("X-Ratelimit-Remaining-"+name, strconv.FormatUint(of.Remaining, 10))
		h.Set("X-Ratelimit-Reset-"+name, roundUp(of.Reset, time.Millisecond).String())
	}
	return h
}

// anthropicHeaders are those of Anthropic's reference, where a reset is a time in
// RFC 3339.
func anthropicHeaders(_ time.Duration, l *limit.Refusal, now time.Time) http.Header {
	h := http.Header{}
	for name, of := range levelsOf(l) {
		h.Set("Anthropic-Ratelimit-"+name+"-Limit", strconv.FormatUint(of.Limit, 10))
		h.Set("Anthropic-Ratelimit-"+name+"-Remaining", strconv.FormatUint(of.Remaining, 10))
		h.Set("Anthropic-Ratelimit-"+name+"-Reset", now.Add(roundUp(of.Reset, time.Second)).UTC().Format(time.RFC3339))
	}
	return h
}

// levelsOf are the tightest rates that the call is under, by what they count.
func levelsOf(l *limit.Refusal) map[string]limit.Level {
	m := map[string]limit.Level{"Requests": l.Requests, "Tokens": l.Tokens}
	for name, of := range m {
		if of.Limit == 0 {
			delete(m, name)
		}
	}
	return m
}
