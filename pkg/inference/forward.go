// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
)

// credentialPassthrough forwards the agent's own credential.
const credentialPassthrough = policy.CredentialPassthrough

// answer gets the answer, from the provider or the trial provider, and passes
// it on.
func (x *exchange) answer() {
	ctx, cancel := context.WithCancelCause(x.in.Context())
	defer cancel(nil)
	watch := newWatch(x.r.opt.Idle, func() { cancel(errIdle) })
	defer watch.stop()

	var resp *http.Response
	var secrets []string
	var ref *refusal
	if x.prov == nil {
		resp, ref = x.trialResponse()
	} else {
		resp, secrets, ref = x.roundTrip(ctx)
	}
	if ref != nil {
		x.refuse(ref)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	x.relay(ctx, resp, secrets, watch)
}

var errIdle = errors.New("the provider was silent for too long")

// watch calls a function after a time of silence.
type watch struct {
	d    time.Duration
	t    *time.Timer
	last atomic.Int64
	base time.Time
}

func newWatch(d time.Duration, f func()) *watch {
	w := &watch{d: d, base: time.Now()}
	w.t = time.AfterFunc(d, func() {
		idle := time.Since(w.base) - time.Duration(w.last.Load())
		if idle < w.d {
			w.t.Reset(w.d - idle)
			return
		}
		f()
	})
	return w
}

// seen notes a sign of life: one atomic store, no timer work per chunk.
func (w *watch) seen() { w.last.Store(int64(time.Since(w.base))) }
func (w *watch) stop() { w.t.Stop() }

// roundTrip sends the judged request to the provider.
func (x *exchange) roundTrip(ctx context.Context) (*http.Response, []string, *refusal) {
	p := x.prov
	u, err := upstreamURL(x.d, p.BaseURL, x.path, x.query)
	if err != nil {
		return nil, nil, x.unusable(err)
	}
	body := x.body
	if x.served != x.asked.model {
		if x.asked.modelNode == 0 {
			return nil, nil, invalid(http.StatusBadRequest, "model", "the provider maps the default model and the request names none", "Name the model")
		}
		if body, err = x.tape.patch(x.asked.modelNode, x.served); err != nil {
			return nil, nil, x.unusable(err)
		}
	}
	header := outboundHeaders(x.d, x.in.Header)
	secrets, ref := x.addCredential(header, p)
	if ref != nil {
		return nil, nil, ref
	}
	var rd io.Reader
	if x.route.body {
		rd = bytes.NewReader(body)
	}
	out, err := http.NewRequestWithContext(ctx, x.route.method, u.String(), rd)
	if err != nil {
		return nil, nil, x.unusable(errBadBase)
	}
	out.Header = header
	if x.c.Transport == nil {
		return nil, nil, x.unusable(errors.New("no transport"))
	}
	resp, err := x.c.Transport(p).RoundTrip(out)
	if err != nil {
		return nil, nil, x.unreachable(ctx, err, secrets)
	}
	return x.admit(resp, secrets)
}

// admit checks an answer's head: no redirects, no upgrades, no encoding that
// was not asked for.
func (x *exchange) admit(resp *http.Response, secrets []string) (*http.Response, []string, *refusal) {
	for _, name := range []string{"X-Request-Id", "Request-Id"} {
		if v := resp.Header.Get(name); v != "" && x.rec.ev.RequestID == "" && !holdsAny([]string{v}, secrets) {
			x.rec.ev.RequestID = v
		}
	}
	var why string
	switch enc := strings.ToLower(resp.Header.Get("Content-Encoding")); {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		why = "the provider answered with a redirect, and the key is sent nowhere but to the configured address"
	case resp.StatusCode < 200:
		why = "the provider answered with an upgrade"
	case enc == "gzip" || enc == "x-gzip":
		resp.Header.Del("Content-Encoding")
		resp.Header.Del("Content-Length")
		resp.Body, resp.ContentLength = &gunzip{src: resp.Body}, -1
	case enc != "" && enc != "identity":
		why = "the provider answered in an encoding that was not asked for"
	}
	if why != "" {
		_ = resp.Body.Close()
		return nil, nil, &refusal{status: http.StatusBadGateway, code: codeUpstream, reason: "upstream-answer", message: why,
			remedy: "The operator should check the base URL of provider " + quote(x.prov.Name)}
	}
	return resp, secrets, nil
}

// gunzip opens its stream at the first read, so that a slow stream does not
// hold back the head of the answer.
type gunzip struct {
	src io.ReadCloser
	z   *gzip.Reader
}

func (g *gunzip) Read(b []byte) (int, error) {
	if g.z == nil {
		z, err := gzip.NewReader(g.src)
		if err != nil {
			return 0, err
		}
		g.z = z
	}
	return g.z.Read(b)
}

func (g *gunzip) Close() error { return g.src.Close() }

func (x *exchange) unusable(err error) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, code: codeConfig, reason: "provider",
		message: "provider " + quote(x.prov.Name) + " cannot be used: " + err.Error(), remedy: "The operator should check its document"}
}

// unreachable words a failed round trip. The error's text may name internal
// addresses: the agent gets its class, the record the text.
func (x *exchange) unreachable(ctx context.Context, err error, secrets []string) *refusal {
	e := &refusal{status: http.StatusBadGateway, code: codeUpstream, reason: "upstream",
		message: "the provider " + quote(x.prov.Name) + " could not be reached", remedy: "Try again later"}
	var timeout interface{ Timeout() bool }
	switch {
	case x.in.Context().Err() != nil:
		e.status, e.reason, e.message = statusClientGone, "client-gone", "the client went away"
	case errors.Is(context.Cause(ctx), errIdle), errors.As(err, &timeout) && timeout.Timeout():
		e.status, e.reason, e.message = http.StatusGatewayTimeout, "upstream-timeout", "the provider "+quote(x.prov.Name)+" did not answer in time"
	}
	x.rec.ev.Detail = scrubText(err.Error(), secrets)
	return e
}

// statusClientGone is nginx's code for a client that closed the request; it
// is seen in events only.
const statusClientGone = 499

// relay passes an answer on, chunk by chunk as it comes, and reads usage on
// the side.
func (x *exchange) relay(ctx context.Context, resp *http.Response, secrets []string, wt *watch) {
	mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	sse := mt == "text/event-stream"
	x.rec.ev.Status, x.rec.ev.Stream = uint32(resp.StatusCode), x.asked.stream || sse
	h := x.w.Header()
	copyAnswerHeaders(h, resp.Header, secrets)
	var src io.Reader = resp.Body
	if resp.StatusCode >= 400 && len(secrets) > 0 && !sse {
		src = errorScrubber(resp.Body)
	}
	sc := scrubber{secrets: secrets}
	var m *meter
	if x.route.metered && resp.StatusCode < 300 {
		m = newMeter(sse)
	}
	x.w.WriteHeader(resp.StatusCode)
	err := x.copyBody(src, &sc, m, wt, sse || resp.ContentLength < 0)
	if m != nil {
		x.rec.usage = m.total(&x.tape, err != nil)
		x.rec.usage.estimated = x.rec.usage.estimated || x.prov == nil
	}
	if err != nil {
		x.broken(ctx, err, sse, secrets)
	}
}

// copyBody moves the answer without holding any complete part of it back.
func (x *exchange) copyBody(src io.Reader, sc *scrubber, m *meter, wt *watch, flush bool) error {
	bp := bufPool.Get().(*[]byte)
	defer bufPool.Put(bp)
	buf := *bp
	flusher, _ := x.w.(http.Flusher)
	flush = flush && flusher != nil
	if flush {
		flusher.Flush()
	}
	for {
		n, err := src.Read(buf)
		wt.seen()
		out := sc.next(buf[:n], err != nil)
		if m != nil {
			m.feed(out)
		}
		if len(out) > 0 {
			k, werr := x.w.Write(out)
			x.rec.ev.BytesIn += uint64(k)
			if werr != nil {
				return clientGone{werr}
			}
			if flush {
				flusher.Flush()
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// clientGone is a failed write towards the sandbox.
type clientGone struct{ err error }

func (e clientGone) Error() string { return e.err.Error() }
func (e clientGone) Unwrap() error { return e.err }

// broken ends an answer that broke off. An event stream gets one more event
// in the dialect's form; anything else is cut, so that the client sees it.
func (x *exchange) broken(ctx context.Context, err error, sse bool, secrets []string) {
	var gone clientGone
	if errors.As(err, &gone) || x.in.Context().Err() != nil {
		x.rec.ev.ReasonCode, x.rec.ev.Detail = "client-gone", "the client went away; the answer is partial"
		return
	}
	x.rec.ev.Failed, x.rec.ev.Reason = true, "the provider's answer broke off"
	x.rec.ev.ReasonCode, x.rec.ev.Detail = "upstream-broke-off", "the answer broke off: "+scrubText(err.Error(), secrets)
	if !sse {
		panic(http.ErrAbortHandler)
	}
	text := "the provider's answer broke off"
	if errors.Is(context.Cause(ctx), errIdle) {
		text = errIdle.Error()
	}
	e := &refusal{status: http.StatusBadGateway, code: codeUpstream, message: text, remedy: "Try again"}
	_, _ = x.w.Write([]byte("\n\nevent: error\ndata: " + string(x.d.errorBody(e, e.status, e.text())) + "\n\n"))
}
