// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/inference/health"
	"github.com/ringfence/ringfence/pkg/inference/translate"
)

// crossings are the operations that are translated into each other.
var crossings = []struct {
	dialect *dialect
	op      string
	as      translate.Dialect
}{
	{&openAI, "chat", translate.OpenAIChat},
	{&anthropic, "messages", translate.AnthropicMessages},
}

// crossing is how one request goes to a provider of another dialect.
type crossing struct {
	from, to translate.Dialect
	dialect  *dialect // the provider's
	route    *route   // of the operation there
	call     *translate.Translated
}

// anthropicTokens is how many tokens of output a message asks for where the client
// did not say and the model's entry does not either: Anthropic demands a number.
const anthropicTokens = 8192

// cross translates the request for a candidate of another dialect. It says why that
// cannot be.
func (x *exchange) cross(c *candidate) string {
	way := &crossing{}
	for i := range crossings {
		row := &crossings[i]
		switch {
		case row.dialect == x.d && row.op == x.route.op:
			way.from = row.as
		case row.dialect.name == c.prov.Dialect:
			way.to, way.dialect, way.route = row.as, row.dialect, row.dialect.operation(row.op)
		}
	}
	switch {
	case way.from == 0 || way.to == 0:
		return "it speaks the dialect " + c.prov.Dialect + ", into which " + x.route.op + " of " + x.d.name + " is not translated"
	case c.prov.Credential == credentialPassthrough:
		return "it wants the agent's own credential, which is for another API"
	}
	o := translate.RequestOptions{Model: c.upstream, DefaultMaxTokens: anthropicTokens, Created: time.Now().Unix(), Reasoning: translate.ReasoningDropped}
	if e := c.prov.Entry(c.model); e != nil && e.MaxOutput > 0 {
		o.DefaultMaxTokens = min(int64(e.MaxOutput), anthropicTokens)
	}
	call, err := translate.Request(way.from, way.to, x.body, o)
	var no *translate.Refusal
	switch {
	case errors.As(err, &no):
		return "for it the request would have to be translated, and that cannot be done: " + strings.TrimRight(no.Error(), ".")
	case err != nil:
		return err.Error()
	}
	if !x.hold(int64(len(call.Body))) { // a route may have many targets, each with a body of its own
		return "there is no room for its translation now"
	}
	way.call, c.cross = call, way
	return ""
}

// operation is the route of an operation.
func (d *dialect) operation(op string) *route {
	for i := range d.routes {
		if d.routes[i].op == op {
			return &d.routes[i]
		}
	}
	return nil
}

// body is the translated request, with a bound of the output where there is one.
func (w *crossing) body(most uint64) ([]byte, error) {
	if most == 0 || w.route.output == "" {
		return w.call.Body, nil
	}
	t, err := parse(w.call.Body, nil, nil)
	if err != nil {
		return nil, err
	}
	return t.edited(t.bound(w.route.output, most)), nil
}

// header is what the provider gets of the client's: nothing of the client's dialect.
func (w *crossing) header(in http.Header) http.Header {
	out := outboundHeaders(&dialect{}, in)
	for name, v := range w.dialect.version {
		out.Set(name, v)
	}
	return out
}

// notes is what was not carried as it was, for the record.
func (w *crossing) notes() string {
	var parts []string
	for _, n := range w.call.Notes() {
		parts = append(parts, n.Field+" "+n.Why)
	}
	return "translated from " + w.from.String() + " to " + w.to.String() + ": " + cmp.Or(strings.Join(parts, "; "), "everything was carried")
}

// back makes the provider's good answer one of the client's dialect.
func (x *exchange) back(a *answer) (*failure, health.Outcome) {
	w := a.from.cross
	a.resp.Header.Del("Content-Length")
	switch {
	case a.sse != w.call.Streaming:
		return x.notAnAnswer(a, map[bool]string{true: "a stream that was not asked for", false: "no stream"}[a.sse]), health.Failed
	case a.sse:
		a.resp.ContentLength = -1
		a.back = &translating{src: a.body, s: w.call.Stream()}
		a.body = a.back
		return nil, health.Succeeded
	case a.whole == nil:
		return x.notAnAnswer(a, "more than can be translated"), health.Failed
	}
	doc, err := w.call.Response(a.whole)
	if err != nil {
		f := x.notAnAnswer(a, "something that cannot be translated")
		x.rec.ev.Detail = scrubText(err.Error(), a.secrets)
		return f, health.Failed
	}
	a.resp.ContentLength, a.tapped = int64(len(doc)), a.whole
	a.body = bytes.NewReader(doc)
	a.resp.Header.Set("Content-Type", "application/json")
	return nil, health.Succeeded
}

// translating is a stream in the client's dialect, of one in the provider's.
type translating struct {
	src  io.Reader
	s    *translate.Stream
	tap  func([]byte) // sees what the provider sent; may be nil
	in   [4 << 10]byte
	out  []byte // not read yet
	room []byte
	err  error // after out
	// failed is why the answer did not come to its end; the client has been told in
	// its own dialect.
	failed error
}

func (t *translating) Read(b []byte) (int, error) {
	for len(t.out) == 0 {
		if t.err != nil {
			return 0, t.err
		}
		n, err := t.src.Read(t.in[:])
		if t.tap != nil {
			t.tap(t.in[:n])
		}
		var terr error
		t.room, terr = t.s.Write(t.room[:0], t.in[:n])
		if err != nil && terr == nil {
			t.room, terr = t.s.End(t.room)
		}
		if terr != nil {
			t.failed, err = terr, io.EOF
		}
		if err != nil && t.s.Complete() {
			err = io.EOF // what becomes of the connection after the answer's end does not matter
		}
		t.out, t.err = t.room, err
	}
	n := copy(b, t.out)
	t.out = t.out[n:]
	return n, nil
}
