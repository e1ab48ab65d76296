// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/inference/health"
	"github.com/ringfence/ringfence/pkg/inference/translate"
	"github.com/ringfence/ringfence/pkg/policy"
)

// answer is one that a candidate gave, with what ends it.
type answer struct {
	from       *candidate // nil: the trial provider
	credential string
	resp       *http.Response
	body       io.Reader // all of it, what was read ahead included
	sse        bool
	whole      []byte       // the document, where it is held whole
	tapped     []byte       // what the provider sent, where body is a translation of it
	back       *translating // likewise, of a stream
	hide       bool         // its chunk with usage was not asked for by the client
	secrets    []string     // that it must not hold
	ctx        context.Context
	watch      *watch
	pass       *health.Pass         // nil where nobody's health is counted
	end        func()               // lets go of everything; to be called once
	turn       func(*http.Response) // makes a platform's answer the dialect's own; nil: it is
}

// attempt sends the request to one candidate with one of its keys, and passes its
// answer on. It returns a failure when nothing has been passed on.
func (x *exchange) attempt(c *candidate, key string, pass *health.Pass, paid *receipts, most uint64) *failure {
	answered, free := false, false
	defer func() {
		s := x.spent(answered)
		s.Free = free
		paid.done(s)
	}()
	a, f, o := x.open(c, key, pass, paid, most)
	if f != nil {
		free = f.free
		pass.Done(o, f.wait, f.why)
		return f
	}
	answered = true
	defer a.end()
	x.prov, x.served = c.prov, c.upstream
	x.rec.answeredBy(c, a.credential)
	if len(x.tries) > 0 {
		x.rec.ev.Tried = x.tried()
	}
	x.stayed(c)
	if c.cross != nil {
		x.rec.ev.Detail = c.cross.notes()
	}
	x.relay(a)
	return nil
}

// open sends the request and looks as far into the answer as has to be seen before
// any of it is passed on. What it returns with a failure is closed.
func (x *exchange) open(c *candidate, key string, pass *health.Pass, paid *receipts, most uint64) (a *answer, f *failure, o health.Outcome) {
	a = x.begin(c, pass)
	end, held := a.end, x.held
	defer func() {
		if f != nil {
			x.unhold(x.held - held) // what was held of the answer
			end()
		}
	}()
	out, ref := x.outbound(a, key, most)
	if ref != nil {
		return nil, &failure{fault: faultHere, why: ref.reason, ref: ref}, health.Unknown
	}
	x.paid.leave()
	paid.leave()
	resp, err := x.c.Transport(c.prov).RoundTrip(out)
	if err != nil {
		f, o = x.unreachable(a, err)
		return nil, f, o
	}
	a.resp, a.body = resp, resp.Body
	pass.Head()
	a.watch.during(x.bounds(c.prov).Idle)
	why := admit(resp)
	if why == "" && a.turn != nil {
		a.turn(resp)
	}
	x.requestID(a)
	switch {
	case why != "":
		return nil, &failure{fault: faultHere, why: why, free: resp.StatusCode < 200 || resp.StatusCode >= 300, ref: &refusal{status: http.StatusBadGateway, code: codeUpstream, reason: "upstream-answer",
			message: "the provider " + quote(c.prov.Name) + " answered with " + why,
			remedy:  "The operator should check the base URL of provider " + quote(c.prov.Name)}}, health.Failed
	case resp.StatusCode >= 300:
		f, o = x.errorAnswer(a)
		return nil, f, o
	}
	a.body = resp.Body // admit may have put a reader around it
	if f, o = x.lookAhead(a); f != nil {
		return nil, f, o
	}
	if c.cross != nil {
		if f, o = x.back(a); f != nil {
			return nil, f, o
		}
	}
	return a, nil, health.Succeeded
}

// begin makes what bounds one attempt in time.
func (x *exchange) begin(c *candidate, pass *health.Pass) *answer {
	b := x.bounds(c.prov)
	ctx, cancel := context.WithCancelCause(x.in.Context())
	a := &answer{from: c, pass: pass, ctx: ctx, watch: newWatch(b.FirstByte, func() { cancel(errIdle) })}
	var total *time.Timer
	if b.Total > 0 {
		total = time.AfterFunc(b.Total, func() { cancel(errTotal) })
	}
	a.end = func() {
		a.watch.stop()
		if total != nil {
			total.Stop()
		}
		cancel(nil)
		if a.resp != nil {
			_ = a.resp.Body.Close()
		}
	}
	return a
}

var (
	errIdle  = errors.New("the provider was silent for too long")
	errTotal = errors.New("the provider's answer took too long")
)

// bounds are a provider's, or the gateway's own where its document says nothing.
func (x *exchange) bounds(p *policy.Provider) policy.Timeouts {
	b := p.Timeouts
	b.FirstByte, b.Idle = cmp.Or(b.FirstByte, x.r.opt.Idle), cmp.Or(b.Idle, x.r.opt.Idle)
	return b
}

// outbound makes the request to a provider.
func (x *exchange) outbound(a *answer, key string, most uint64) (*http.Request, *refusal) {
	c := a.from
	d, route, path, query := x.d, x.route, x.path, x.query
	if c.cross != nil {
		d, route, path, query = c.cross.dialect, c.cross.route, c.cross.route.path, ""
	}
	body, ref := x.changed(a, most)
	if ref != nil {
		return nil, ref
	}
	header := outboundHeaders(x.d, x.in.Header)
	if c.cross != nil {
		header = c.cross.header(x.in.Header)
	}
	if h := x.trace.header(); h != "" {
		header.Set("Traceparent", h)
	}
	if c.prov.Platform != "" {
		return x.onPlatform(a, key, &outbound{d: d, route: route, path: path, query: query, body: body, head: header})
	}
	if c.cross == nil {
		var err error
		if path, err = x.pathTo(c); err != nil {
			return nil, x.unusable(c.prov, err)
		}
	}
	u, err := upstreamURL(d, c.prov.BaseURL, path, query)
	if err != nil {
		return nil, x.unusable(c.prov, err)
	}
	if a.credential, a.secrets, ref = x.addCredential(d, header, c.prov, key); ref != nil {
		return nil, ref
	}
	return x.request(a, u, body, header)
}

// request is the one to send, without what a platform adds to it.
func (x *exchange) request(a *answer, u *url.URL, body []byte, header http.Header) (*http.Request, *refusal) {
	if x.c.Transport == nil {
		return nil, x.unusable(a.from.prov, errors.New("no transport"))
	}
	out := &http.Request{Method: x.route.method, URL: u, Host: strings.TrimSuffix(u.Host, ":"), Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	if x.route.body {
		out.ContentLength = int64(len(body))
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		out.Body, _ = out.GetBody()
		boundReplays(out)
	}
	return out.WithContext(a.ctx), nil
}

// boundReplays lets the transport send a request again, on another connection, at
// most twice. It does so where a connection was closed before the request was taken:
// one that had been idle, or one that the provider says to go away from. A provider
// that says so on each connection would hold the call for a minute otherwise.
func boundReplays(req *http.Request) {
	again, left := req.GetBody, 2
	req.GetBody = func() (io.ReadCloser, error) {
		if left--; left < 0 {
			return nil, errReplays
		}
		return again()
	}
}

var errReplays = errors.New("the provider closes each connection before it takes the request")

// changed is the body as it is sent: the model's name where the provider has
// another, the bound of the output where a toll says so, and the wish for usage. All
// other bytes stay.
func (x *exchange) changed(a *answer, most uint64) ([]byte, *refusal) {
	if !x.route.model {
		return x.body, nil
	}
	c := a.from
	if c.cross != nil {
		body, err := c.cross.body(most)
		if err != nil {
			return nil, x.unusable(c.prov, err)
		}
		return body, nil
	}
	var edits []edit
	if c.upstream != x.asked.model && x.route.pathModel {
		edits = x.modelEdits(c.upstream)
	} else if c.upstream != x.asked.model {
		if x.asked.modelNode == 0 {
			return nil, invalid(http.StatusBadRequest, "model", "the provider maps the default model and the request names none", "Name the model")
		}
		edits = append(edits, x.tape.replace(x.asked.modelNode, mustJSON(c.upstream)))
	}
	switch {
	case most == 0 || x.route.output == "":
	case x.route.output == geminiOutput:
		edits = append(edits, x.tape.boundGemini(most)...)
	default:
		edits = append(edits, x.tape.bound(x.route.output, most)...)
	}
	var ask edit
	if ask, a.hide = x.asksForUsage(c); a.hide {
		edits = append(edits, ask)
	}
	return x.tape.edited(edits), nil
}

// requestID notes the upstream's own.
func (x *exchange) requestID(a *answer) {
	x.rec.ev.RequestID = ""
	for _, name := range []string{"X-Request-Id", "Request-Id"} {
		if v := a.resp.Header.Get(name); v != "" && !holdsAny([]string{v}, a.secrets) {
			x.rec.ev.RequestID = v
			return
		}
	}
}

// admit checks an answer's head: no redirects, no upgrades, no encoding that was
// not asked for. It says what is wrong.
func admit(resp *http.Response) string {
	switch enc := strings.ToLower(resp.Header.Get("Content-Encoding")); {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return "a redirect, and the key is sent nowhere but to the configured address"
	case resp.StatusCode < 200:
		return "an upgrade"
	case enc == "gzip" || enc == "x-gzip":
		resp.Header.Del("Content-Encoding")
		resp.Header.Del("Content-Length")
		resp.Body, resp.ContentLength = &gunzip{src: resp.Body}, -1
	case enc != "" && enc != "identity":
		return "an encoding that was not asked for"
	}
	return ""
}

func (x *exchange) unusable(p *policy.Provider, err error) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, code: codeConfig, reason: "provider",
		message: "provider " + quote(p.Name) + " cannot be used: " + err.Error(), remedy: "The operator should check its document"}
}

// unreachable words a failed round trip, or an answer that broke off before any of
// it was passed on. The error's text may name internal addresses: the agent gets
// its class, the record the text.
func (x *exchange) unreachable(a *answer, err error) (*failure, health.Outcome) {
	name := quote(a.from.prov.Name)
	e := &refusal{status: http.StatusBadGateway, code: codeUpstream, reason: "upstream",
		message: "the provider " + name + " could not be reached", remedy: "Try again later"}
	f := &failure{fault: faultHere, why: "not reached", ref: e, free: a.resp == nil && neverSent(err)}
	var timeout interface{ Timeout() bool }
	cause := context.Cause(a.ctx)
	switch {
	case x.in.Context().Err() != nil:
		return &failure{fault: faultFinal, why: "the client went away", ref: x.gone()}, health.Unknown
	case errors.Is(cause, errIdle), errors.Is(cause, errTotal), errors.As(err, &timeout) && timeout.Timeout():
		f.why = "no answer in time"
		e.status, e.reason, e.message = http.StatusGatewayTimeout, "upstream-timeout", "the provider "+name+" did not answer in time"
	case a.resp != nil:
		f.why = "its answer broke off"
		e.message = "the answer of the provider " + name + " broke off"
	}
	x.rec.ev.Detail = scrubText(err.Error(), a.secrets)
	return f, health.Failed
}

// neverSent says whether a round trip failed before a connection stood that a request
// goes over. What is not known for sure may have been sent.
func neverSent(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &dns) || errors.As(err, &cert) || errors.As(err, &record)
}

// errorAnswer keeps a provider's error whole: the client gets it if nobody else
// answers. What is no JSON, or broke off, is told in words of our own.
func (x *exchange) errorAnswer(a *answer) (*failure, health.Outcome) {
	status := a.resp.StatusCode
	body, err := io.ReadAll(io.LimitReader(a.resp.Body, maxError+1))
	if x.in.Context().Err() != nil {
		return x.unreachable(a, x.in.Context().Err())
	}
	f := &failure{why: statusText(status), free: true, wait: health.RetryAfter(a.resp.Header, x.r.opt.Clock())}
	var o health.Outcome
	f.fault, o = x.faultOf(status, body, a.credential == credentialInjected)
	if w := a.from.cross; w != nil {
		status, body = translate.Error(w.to, w.from, status, body)
		a.resp.StatusCode, err = status, nil
		a.resp.Header.Set("Content-Type", "application/json")
	}
	if err != nil || len(body) > maxError || !jsonType(a.resp.Header) || !validJSON(body) {
		f.ref = &refusal{status: status, code: codeUpstream, reason: "upstream-answer", wait: f.wait,
			message: "the provider " + quote(a.from.prov.Name) + " answered " + statusText(status) + " " + http.StatusText(status), remedy: "Try again later"}
		return f, o
	}
	resp := *a.resp
	resp.Body, resp.ContentLength = http.NoBody, int64(len(body))
	resp.Header = a.resp.Header.Clone()
	resp.Header.Del("Content-Length")
	f.resp = &answer{from: a.from, credential: a.credential, resp: &resp, body: bytes.NewReader(body), secrets: a.secrets, ctx: x.in.Context(), watch: noWatch, end: func() {}}
	return f, o
}

func jsonType(h http.Header) bool {
	mt, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return mt == "application/json" || strings.HasSuffix(mt, "+json") || h.Get("Content-Type") == ""
}
