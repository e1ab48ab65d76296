// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/tidwall/gjson"

	"github.com/ringfence/ringfence/pkg/inference/health"
)

// How far an answer is looked into before any of it is passed on. So long another
// provider can still answer in its place.
const (
	holdWhole  = 4 << 20          // bytes of an answer that is one JSON document
	holdBytes  = 256 << 10        // of a stream, until it says something
	holdEvents = 64               // of it
	holdTime   = 20 * time.Second // since its head; judged when a piece comes
)

// lookAhead reads the beginning of an answer: a JSON document whole, a stream up to
// the first event that says something. It fails for what is no answer.
func (x *exchange) lookAhead(a *answer) (*failure, health.Outcome) {
	mt, _, _ := mime.ParseMediaType(a.resp.Header.Get("Content-Type"))
	a.sse = mt == "text/event-stream"
	switch {
	case a.sse:
		return x.lookIntoStream(a)
	case x.route.binary || a.resp.StatusCode == http.StatusNoContent:
		return nil, health.Succeeded
	case jsonType(a.resp.Header):
		return x.lookIntoDocument(a)
	}
	return x.notAnAnswer(a, "an answer of the type "+quote(mt)), health.Failed
}

// notAnAnswer is the failure of a 200 that is none.
func (x *exchange) notAnAnswer(a *answer, what string) *failure {
	return &failure{fault: faultHere, why: "answered with " + what, ref: &refusal{status: http.StatusBadGateway, code: codeUpstream, reason: "upstream-answer",
		message: "the provider " + quote(a.from.prov.Name) + " answered with " + what, remedy: "Try again later"}}
}

// lookIntoDocument holds a JSON document until it is whole, as far as there is room.
func (x *exchange) lookIntoDocument(a *answer) (*failure, health.Outcome) {
	var held bytes.Buffer
	if n := a.resp.ContentLength; n > 0 && n <= holdWhole {
		held.Grow(int(n) + bytes.MinRead)
	}
	r := &watched{r: a.body, w: a.watch}
	for held.Len() < holdWhole {
		room := int64(32 << 10)
		if !x.hold(room) {
			a.body = io.MultiReader(&held, a.body)
			return nil, health.Succeeded // no room to hold more: it goes on as it comes
		}
		n, err := io.CopyN(&held, r, room)
		if errors.Is(err, io.EOF) {
			return x.judgeDocument(a, held.Bytes())
		}
		if err != nil || n < room {
			return x.unreachable(a, err)
		}
	}
	a.body = io.MultiReader(&held, a.body)
	return nil, health.Succeeded
}

// judgeDocument fails for a document that is broken, or an error under a good
// status. a.body is the document after it.
func (x *exchange) judgeDocument(a *answer, doc []byte) (*failure, health.Outcome) {
	if !validJSON(doc) {
		return x.notAnAnswer(a, "half a document or something else that is no JSON"), health.Failed
	}
	if f, o := x.inBand(a, doc); f != nil {
		return f, o
	}
	a.body, a.whole = bytes.NewReader(doc), doc
	a.resp.ContentLength = int64(len(doc))
	return nil, health.Succeeded
}

func validJSON(b []byte) bool { return json.Valid(b) }

// inBand finds an error that a provider tells under a good status.
func (x *exchange) inBand(a *answer, doc []byte) (*failure, health.Outcome) {
	if !bytes.Contains(doc, []byte("error")) && !bytes.Contains(doc, []byte(`\u`)) {
		return nil, health.Succeeded // by no spelling
	}
	e := gjson.GetBytes(doc, "error")
	if !e.IsObject() && gjson.GetBytes(doc, "type").Str != "error" || gjson.GetBytes(doc, "object").Str == "response" {
		return nil, health.Succeeded
	}
	f := x.notAnAnswer(a, "an error: "+quote(scrubText(e.Get("message").String(), a.secrets)))
	f.free = true
	switch body := []byte(e.Raw); {
	case tooLong(http.StatusBadRequest, body):
		f.fault = faultLong
		return f, health.Unknown
	case refusedContent(body):
		f.fault = faultContent
		return f, health.Unknown
	}
	return f, health.Failed
}

// lookIntoStream holds a stream until its first event that says something.
func (x *exchange) lookIntoStream(a *answer) (*failure, health.Outcome) {
	var p peek
	s := sseEvents{event: func(name, data []byte) bool { return p.event(name, data) }}
	buf := make([]byte, 0, 1<<10)
	began := time.Now()
	for {
		if len(buf) == cap(buf) {
			if len(buf) >= holdBytes || !x.hold(int64(cap(buf))) {
				break
			}
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
		n, err := a.body.Read(buf[len(buf):cap(buf)])
		a.watch.seen()
		fresh := buf[len(buf) : len(buf)+n]
		buf = buf[:len(buf)+n]
		s.feed(fresh)
		switch {
		case p.failed != nil:
			return x.streamFailed(a, p.failed)
		case p.says || p.events >= holdEvents || time.Since(began) > holdTime:
			a.body = io.MultiReader(bytes.NewReader(buf), &rest{a.body, err})
			return nil, health.Succeeded
		case errors.Is(err, io.EOF):
			return x.notAnAnswer(a, "a stream that ended before it said anything"), health.Failed
		case err != nil:
			return x.unreachable(a, err)
		}
	}
	a.body = io.MultiReader(bytes.NewReader(buf), a.body)
	return nil, health.Succeeded
}

func (x *exchange) streamFailed(a *answer, doc []byte) (*failure, health.Outcome) {
	if f, o := x.inBand(a, doc); f != nil {
		return f, o
	}
	return x.notAnAnswer(a, "an error in its stream"), health.Failed
}

// rest is what is left of a body after a read that may have ended it.
type rest struct {
	r   io.Reader
	err error
}

func (r *rest) Read(b []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	return r.r.Read(b)
}

// watched notes each sign of life.
type watched struct {
	r io.Reader
	w *watch
}

func (r *watched) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.w.seen()
	return n, err
}

// peek judges the first events of a stream, of whichever dialect.
type peek struct {
	events int
	says   bool   // something of the answer has come
	failed []byte // the document of an error
}

// silent are the events that only announce an answer.
var silent = map[string]bool{
	"ping": true, "message_start": true,
	"response.created": true, "response.queued": true, "response.in_progress": true,
}

// event takes the next one, and reports whether more are wanted.
func (p *peek) event(name, data []byte) bool {
	p.events++
	if len(bytes.TrimSpace(data)) == 0 {
		return true
	}
	if !json.Valid(data) {
		p.says = true // "[DONE]", and what only the client can make something of
		return false
	}
	kind := gjson.GetBytes(data, "type").Str
	switch {
	case string(name) == "error" || kind == "error" || kind == "response.failed" || gjson.GetBytes(data, "error").IsObject():
		p.failed = bytes.Clone(data)
		if r := gjson.GetBytes(data, "response.error"); r.IsObject() {
			p.failed = []byte(`{"error":` + r.Raw + `}`)
		}
		return false
	case silent[kind], announces(data):
		return true
	}
	p.says = true
	return false
}

// announces says whether a chunk of chat completions says only whose turn it is.
func announces(data []byte) bool {
	c := gjson.GetBytes(data, "choices")
	if !c.IsArray() {
		return false
	}
	list := c.Array()
	if len(list) != 1 {
		return len(list) == 0 && !gjson.GetBytes(data, "usage").IsObject()
	}
	if list[0].Get("finish_reason").Str != "" || list[0].Get("text").Str != "" { // text: of completions
		return false
	}
	only := true
	list[0].Get("delta").ForEach(func(k, v gjson.Result) bool {
		if k.Str != "role" && v.Type != gjson.Null && v.Raw != `""` {
			only = false
		}
		return only
	})
	return only
}
