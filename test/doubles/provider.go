// SPDX-License-Identifier: Apache-2.0

package doubles

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Received is one request exactly as it came in.
type Received struct {
	Method string
	Target string // raw request target
	Host   string
	Proto  string
	Header http.Header
	Body   []byte
}

// Fault changes the answer to one request. Zero fields change nothing.
type Fault struct {
	Status   int           // answer with this status and Body
	Header   http.Header   // added to the answer
	Body     string        // with Status: the body instead of a dialect error
	Delay    time.Duration // before the head
	Gap      time.Duration // between the events of a stream
	CutAfter int           // break the connection after this many events (or in the middle of a JSON body)
	Hang     bool          // never answer until the client goes away
	Gzip     bool          // compress the answer although nobody asked
	Reflect  bool          // put the received credential into the answer text
	NoUsage  bool          // leave usage out
}

// Provider is an LLM provider with the shapes of OpenAI, Anthropic and Gemini. It is
// an http.Handler; serve it with [Serve] or [CA.Serve].
type Provider struct {
	Text  string               // what it answers; set before serving
	Check func(Received) error // of each request, where it is set: an error is answered with status 401

	mu       sync.Mutex
	received []Received
	faults   []Fault
	gone     int
}

// NewProvider returns a provider that answers "Hello from the double."
func NewProvider() *Provider { return &Provider{Text: "Hello from the double."} }

// Fail scripts the next answers, one fault each.
func (p *Provider) Fail(f ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, f...)
}

// Received returns the requests so far.
func (p *Provider) Received() []Received {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Received(nil), p.received...)
}

// Last returns the newest request, the zero value if there is none.
func (p *Provider) Last() Received {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.received) == 0 {
		return Received{}
	}
	return p.received[len(p.received)-1]
}

// Gone returns how many clients went away before their answer was complete.
func (p *Provider) Gone() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone
}

// Reset forgets requests and faults.
func (p *Provider) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.received, p.faults, p.gone = nil, nil, 0
}

func (p *Provider) take(req *http.Request) (Received, Fault, error) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 64<<20))
	if err != nil {
		return Received{}, Fault{}, err
	}
	rec := Received{Method: req.Method, Target: req.RequestURI, Host: req.Host, Proto: req.Proto, Header: req.Header.Clone(), Body: body}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.received = append(p.received, rec)
	var f Fault
	if len(p.faults) > 0 {
		f, p.faults = p.faults[0], p.faults[1:]
	}
	return rec, f, nil
}

// ServeHTTP records the request and answers it.
func (p *Provider) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	rec, f, err := p.take(req)
	if err != nil {
		return
	}
	if f.Hang {
		<-req.Context().Done()
		p.mu.Lock()
		p.gone++
		p.mu.Unlock()
		return
	}
	time.Sleep(f.Delay)
	for k, v := range f.Header {
		w.Header()[k] = v
	}
	w.Header().Set("X-Request-Id", "req_double")
	w.Header().Set("Request-Id", "req_double")
	if p.Check != nil && f.Status == 0 {
		if err := p.Check(rec); err != nil {
			f.Status, f.Body = http.StatusUnauthorized, js(obj{"error": obj{"message": err.Error()}})
		}
	}
	if f.Status != 0 {
		if w.Header().Get("Content-Type") == "" {
			w.Header().Set("Content-Type", "application/json")
		}
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body)
		return
	}
	p.answer(w, req, rec, f)
}

// answer is one answer being written.
type answer struct {
	text, model   string
	stream, usage bool
	reqUsage      bool // the client asked for usage in the stream
}

func (p *Provider) answer(w http.ResponseWriter, req *http.Request, rec Received, f Fault) {
	var in struct {
		Model         string `json:"model"`
		Stream        bool   `json:"stream"`
		StreamOptions struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
	}
	if len(rec.Body) > 0 {
		if err := json.Unmarshal(rec.Body, &in); err != nil {
			http.Error(w, `{"error":{"message":"not JSON","type":"invalid_request_error"}}`, http.StatusBadRequest)
			return
		}
	}
	path, query, _ := strings.Cut(rec.Target, "?")
	model, verb := geminiCall(path)
	if verb != "" {
		in.Model, in.Stream = model, verb == "streamGenerateContent" && strings.Contains("&"+query+"&", "&alt=sse&")
	}
	a := answer{text: p.Text, model: in.Model, stream: in.Stream, usage: !f.NoUsage, reqUsage: in.StreamOptions.IncludeUsage}
	if f.Reflect {
		a.text += " key=" + rec.Header.Get("Authorization") + rec.Header.Get("X-Api-Key") + rec.Header.Get("X-Goog-Api-Key")
	}
	shape, ok := shapes[rec.Method+" "+path]
	on, platform := platformCall(rec.Method, path)
	switch {
	case platform:
		shape, ok = on.shape, true
		if on.model != "" {
			a.model = on.model
		}
		if on.asked {
			a.stream = on.stream
		}
	case verb != "":
		shape, ok = geminiShapes[rec.Method+" "+verb]
	}
	if !ok {
		shape = modelShape
		if !strings.HasPrefix(path, "/v1/models/") && !strings.HasPrefix(path, "/v1/responses/") {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"error":{"message":"no such path","type":"invalid_request_error"}}`)
			return
		}
	}
	pieces := shape(a)
	if on.frames {
		w.Header().Set("Content-Type", "application/vnd.amazon.eventstream")
		pieces = framed(pieces)
	}
	p.write(w, req, pieces, a.stream, f)
}

// write sends the pieces: the events of a stream, or one document.
func (p *Provider) write(w http.ResponseWriter, req *http.Request, pieces []string, stream bool, f Fault) {
	ct := "application/json"
	if stream {
		ct = "text/event-stream; charset=utf-8"
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", ct)
	}
	var out io.Writer = w
	if f.Gzip {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer func() { _ = z.Close() }()
		out = z
	}
	for i, s := range pieces {
		if f.CutAfter > 0 && !stream {
			w.Header().Set("Content-Length", fmt.Sprint(len(s)))
			s = s[:len(s)/2]
		}
		if _, err := io.WriteString(out, s); err != nil {
			p.mu.Lock()
			p.gone++
			p.mu.Unlock()
			return
		}
		if fl, ok := w.(http.Flusher); ok && (stream || f.CutAfter > 0) {
			fl.Flush()
		}
		if f.CutAfter > 0 && i+1 >= f.CutAfter {
			panic(http.ErrAbortHandler)
		}
		select {
		case <-req.Context().Done():
			p.mu.Lock()
			p.gone++
			p.mu.Unlock()
			return
		case <-time.After(f.Gap):
		}
	}
}
