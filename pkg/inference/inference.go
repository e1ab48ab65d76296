// SPDX-License-Identifier: Apache-2.0

// Package inference answers requests that a sandbox sent to the host name of
// an LLM provider. The gateway terminates TLS and hands each request here; a
// [Redirector] judges it, swaps the credential and forwards it to the
// configured provider in the same dialect, byte for byte except for the
// credential and, where the provider maps it, the model name.
//
// Nothing but the method-and-path table of a dialect is ever forwarded, and a
// request is parsed once, strictly, so that what is forwarded is what was
// judged. Tools that run on the provider's side and URLs that the provider
// would fetch are a way out around the fence: they are refused unless policy
// on server:provider allows them.
//
// A dialect is one file with one table (openai.go, anthropic.go, gemini.go) and one
// line in dialect.go. A platform, another way to a dialect's models than its own API,
// is one file and one line in platform.go.
package inference

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/inference/health"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/price"
)

// Defaults of [Options].
const (
	DefaultMaxBody     = 32 << 20         // one request body
	DefaultMaxBuffered = 256 << 20        // all request bodies held at one time
	DefaultIdle        = 10 * time.Minute // silence of an upstream, as long as the official SDKs wait
	DefaultBodyIdle    = 30 * time.Second // silence of a client in the middle of its body
)

// View is what policy says to one principal. *policy.View is one.
type View interface {
	// Inference decides on a model of a dialect.
	Inference(dialect, model string) policy.Decision
	// ProviderTool decides on something the provider does on its side:
	// "web_search", "mcp", "image_url" ... Denied unless a rule allows it.
	ProviderTool(tool string) policy.Decision
	// InferenceAt decides on a model that a provider would answer.
	InferenceAt(p *policy.Provider, model string) policy.Decision
}

// Providers are who could answer one principal. *policy.View is one.
type Providers interface {
	// Providers are all, by name.
	Providers() []*policy.Provider
	// Trial says whether there is none of a dialect, so that the trial provider
	// answers.
	Trial(dialect string) bool
	// RouteFor is the route of a model, nil if it has none.
	RouteFor(model string) *policy.Route
}

// Options configure a [Redirector]. The zero value is usable.
type Options struct {
	MaxBody     int64         // bytes of one request body; 0 = DefaultMaxBody
	MaxBuffered int64         // bytes of all request bodies held at once; 0 = DefaultMaxBuffered
	Idle        time.Duration // longest silence of an upstream; 0 = DefaultIdle
	BodyIdle    time.Duration // longest silence of a client inside its body; 0 = DefaultBodyIdle
	Version     string        // of the daemon, for events

	// Clock is the wall clock, for what is set aside until a time and for events; nil =
	// time.Now. Durations and deadlines do not depend on it.
	Clock func() time.Time

	// Tolls are asked in this order before a request is sent.
	Tolls []Toll

	// Prices are those in force; nil, or a nil book: none is known.
	Prices func() *price.Book

	// Price is what a request of so many tokens would cost at most, in nano-dollars.
	// upstream is the provider's name of the model; output is 0 where neither the
	// request nor the model's entry says. ok is false when nobody knows. nil: nobody
	// ever does.
	Price func(p *policy.Provider, upstream string, input, output uint64) (nano int64, ok bool)
}

// Redirector answers model calls. It is safe for concurrent use. Between calls it
// keeps what it has seen of providers and who answered which conversation.
type Redirector struct {
	// Immutable after New.
	opt Options

	buffered atomic.Int64 // request body bytes held now
	waiting  room         // those of requests that wait for people

	health  *health.Table
	retries health.Retries
	talks   conversations
	tokens  *googleTokens
}

// New returns a Redirector. Zero fields of o take their defaults.
func New(o Options) *Redirector {
	if o.MaxBody <= 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.MaxBuffered <= 0 {
		o.MaxBuffered = DefaultMaxBuffered
	}
	if o.Idle <= 0 {
		o.Idle = DefaultIdle
	}
	if o.BodyIdle <= 0 {
		o.BodyIdle = DefaultBodyIdle
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Redirector{opt: o, health: health.New(o.Clock), tokens: newGoogleTokens(o.Clock)}
}

// Call is what the gateway knows about one request.
type Call struct {
	View     View      // the sandbox's policy; nil denies everything
	Snapshot Providers // where providers are found; nil denies everything

	// Secrets resolves the secret a provider document names. The value never
	// leaves this package except in the header sent to that provider.
	Secrets func(name string) (string, bool)
	// Transport returns the transport to a provider: it resolves and dials on
	// the host side under the gateway's guards and never follows redirects.
	Transport func(provider *policy.Provider) http.RoundTripper
	// Approve has people decide about a request that policy demands them for.
	// It may wait, and not longer than the client. nil refuses.
	Approve func(ctx context.Context, q Question) Approved
	// Record takes the event of the call, once, when the call is over. May be nil.
	Record func(event.Event)

	Host    string // the provider host the sandbox asked for
	Dialect string // its dialect: one of Dialects
	Sandbox string // sandbox id, for the event
	Scope   string // canonical principal, for the event
}

// ServeHTTP answers one request. It writes exactly one answer, in the
// dialect's own form, also when it refuses; it panics with
// [http.ErrAbortHandler] when an answer that is not an event stream breaks off
// in the middle, so that the client sees the break. The event is recorded
// before it returns or panics.
func (r *Redirector) ServeHTTP(w http.ResponseWriter, req *http.Request, c Call) {
	d := dialectByName(c.Dialect)
	x := &exchange{r: r, c: &c, d: d, w: w, in: req, start: r.opt.Clock(), begun: time.Now()}
	x.rec = newRecord(&c, req, x.start)
	x.trace = traceOf(req.Header)
	x.rec.ev.TraceID, x.rec.ev.SpanID, x.rec.ev.ParentSpanID = x.trace.id, x.trace.span, x.trace.parent
	x.rec.ev.Version = r.opt.Version
	defer x.finish()
	if d == nil {
		x.d = &openAI
		x.refuse(&refusal{status: http.StatusForbidden, code: codeDenied, reason: "dialect",
			message: "this version has no dialect named " + quote(c.Dialect)})
		return
	}
	if ref := x.judge(); ref != nil {
		x.refuse(ref)
		return
	}
	x.answer()
}

// Dialects lists the names of the dialects this build knows.
func Dialects() []string {
	names := make([]string, 0, len(dialects))
	for _, d := range dialects {
		names = append(names, d.name)
	}
	return names
}
