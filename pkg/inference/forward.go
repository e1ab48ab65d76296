// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/ringfence/ringfence/pkg/inference/health"
)

// answerTrial passes on what the trial provider answers.
func (x *exchange) answerTrial() {
	resp, ref := x.trialResponse()
	if ref != nil {
		x.refuse(ref)
		return
	}
	x.relay(&answer{resp: resp, body: resp.Body, sse: x.asked.stream, ctx: x.in.Context(), watch: noWatch, end: func() {}})
}

// watch calls a function after a time of silence.
type watch struct {
	d    atomic.Int64
	t    *time.Timer
	last atomic.Int64
	base time.Time
}

func newWatch(d time.Duration, f func()) *watch {
	w := &watch{base: time.Now()}
	w.d.Store(int64(d))
	w.t = time.AfterFunc(d, func() {
		idle, d := time.Since(w.base)-time.Duration(w.last.Load()), time.Duration(w.d.Load())
		if idle < d {
			w.t.Reset(d - idle)
			return
		}
		f()
	})
	return w
}

// noWatch is for answers that are there already.
var noWatch = &watch{t: time.NewTimer(0)}

// during changes how long a silence may be, from now on.
func (w *watch) during(d time.Duration) {
	w.seen()
	if was := w.d.Swap(int64(d)); time.Duration(was) != d {
		w.t.Reset(d)
	}
}

// seen notes a sign of life: one atomic store, no timer work per chunk.
func (w *watch) seen() { w.last.Store(int64(time.Since(w.base))) }
func (w *watch) stop() { w.t.Stop() }

// over says whether so long a silence is more than may be.
func (w *watch) over(d time.Duration) bool { return w != noWatch && d >= time.Duration(w.d.Load()) }

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

// statusClientGone is nginx's code for a client that closed the request; it
// is seen in events only.
const statusClientGone = 499

// relay passes an answer on, chunk by chunk as it comes, and reads usage on
// the side.
func (x *exchange) relay(a *answer) {
	resp := a.resp
	x.rec.ev.Status, x.rec.ev.Stream = uint32(resp.StatusCode), x.asked.stream || a.sse
	h := x.w.Header()
	copyAnswerHeaders(h, resp.Header, a.secrets)
	src := a.body
	if resp.StatusCode >= 400 && len(a.secrets) > 0 && !a.sse {
		src = errorScrubber(src)
	}
	sc := scrubber{secrets: a.secrets}
	var m *meter
	if x.route.metered && resp.StatusCode < 300 {
		m = newMeter(a.sse, x.route.op)
	}
	var hide *usageHider
	if a.hide && a.sse {
		hide = &usageHider{}
	}
	var events *wholeEvents
	if a.sse && a.back == nil { // a translation is made of whole events
		events = &wholeEvents{ends: x.route.ends}
		h.Del("Content-Length") // an error may have to follow
	}
	x.w.WriteHeader(resp.StatusCode)
	err := x.copyBody(src, &sc, a.tap(m), hide, a.watch, events, a.sse || resp.ContentLength < 0)
	bad := x.endedBadly(a, events, err)
	if resp.StatusCode < 300 {
		x.settled(a, m, bad != "")
	}
	if a.pass != nil {
		outcome := health.Succeeded
		if bad != "" {
			outcome = x.outcomeOf(err)
		}
		if errors.Is(context.Cause(a.ctx), errTotal) && outcome == health.Failed {
			outcome = health.Unknown // how long an answer is, and takes to be read, is the client's
		}
		a.pass.Done(outcome, 0, bad)
	}
	if err != nil {
		x.broken(a, err, events != nil && events.open)
	}
}

// endedBadly says why an answer is not a whole one, and notes it where the client has
// been told already; "" when it is.
func (x *exchange) endedBadly(a *answer, events *wholeEvents, err error) string {
	ev := &x.rec.ev
	switch {
	case err != nil:
		return "an answer that broke off"
	case a.back != nil && a.back.failed != nil:
		ev.Failed, ev.Reason, ev.ReasonCode = true, "the provider's answer broke off", "upstream-broke-off"
		ev.Detail = scrubText(a.back.failed.Error(), a.secrets)
		return "a stream that broke off"
	case events != nil && events.failed:
		ev.Failed, ev.Reason, ev.ReasonCode = true, "the provider ended the stream with an error", "upstream-error"
		return "an error in its stream"
	}
	return ""
}

// tap has the meter read what the provider sent where the client gets a
// translation, and gives the meter for what the client gets.
func (a *answer) tap(m *meter) *meter {
	switch {
	case m == nil:
	case a.back != nil:
		a.back.tap = m.feed
		return nil
	case a.tapped != nil:
		m.feed(a.tapped)
		return nil
	}
	return m
}

// outcomeOf says whether the provider is to blame for an answer that broke off.
func (x *exchange) outcomeOf(err error) health.Outcome {
	var gone clientGone
	if errors.As(err, &gone) || x.in.Context().Err() != nil || x.stalled {
		return health.Unknown
	}
	return health.Failed
}

// copyBody moves the answer without holding any complete part of it back. events is
// nil where it is no event stream.
func (x *exchange) copyBody(src io.Reader, sc *scrubber, m *meter, hide *usageHider, wt *watch, events *wholeEvents, flush bool) error {
	pool := &bufPool
	if events != nil {
		pool = &eventPool
	}
	bp := pool.Get().(*[]byte)
	defer pool.Put(bp)
	buf := *bp
	flusher, _ := x.w.(http.Flusher)
	flush = flush && flusher != nil
	if flush {
		flusher.Flush()
	}
	var kept []byte
	for {
		n, err := src.Read(buf)
		wt.seen()
		out := sc.next(buf[:n], err != nil)
		if m != nil {
			m.feed(out)
		}
		if events != nil {
			out, err = events.pass(out, err)
		}
		if hide != nil && !hide.idleFor(out) {
			kept = hide.next(kept[:0], out, err != nil)
			out = kept
		}
		if len(out) > 0 {
			began := time.Now()
			k, werr := x.w.Write(out)
			x.rec.ev.BytesIn += uint64(k)
			if werr != nil {
				return clientGone{werr}
			}
			if flush {
				flusher.Flush()
			}
			x.stalled = x.stalled || wt.over(time.Since(began)) // then the watch has ended the call
			wt.seen()
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

// broken ends an answer that broke off. An event stream gets one more event in the
// dialect's form; anything else is cut, so that the client sees it. inside: part of
// an event has been passed on.
func (x *exchange) broken(a *answer, err error, inside bool) {
	if x.outcomeOf(err) == health.Unknown {
		x.rec.ev.ReasonCode, x.rec.ev.Detail = "client-gone", "the client went away; the answer is partial"
		if x.stalled {
			x.rec.ev.Detail = "the client did not read for too long; the answer is partial"
			panic(http.ErrAbortHandler)
		}
		return
	}
	x.rec.ev.Failed, x.rec.ev.Reason = true, "the provider's answer broke off"
	x.rec.ev.ReasonCode, x.rec.ev.Detail = "upstream-broke-off", "the answer broke off: "+scrubText(err.Error(), a.secrets)
	if !a.sse {
		panic(http.ErrAbortHandler)
	}
	text := "the provider's answer broke off"
	if cause := context.Cause(a.ctx); errors.Is(cause, errIdle) || errors.Is(cause, errTotal) {
		text = cause.Error()
	}
	e := &refusal{status: http.StatusBadGateway, code: codeUpstream, message: text, remedy: "Try again"}
	body := x.d.errorBody(e, e.status, e.text())
	begin := ""
	if inside {
		begin = "\n\n"
	}
	if x.d.streamError != nil {
		_, _ = x.w.Write(append([]byte(begin), x.d.streamError(body)...))
		return
	}
	_, _ = x.w.Write([]byte(begin + "event: error\ndata: " + string(body) + "\n\n"))
}
