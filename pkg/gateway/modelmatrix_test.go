// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/env"
)

// faultMatrix is a gateway with one sandbox and a provider for each fault and
// dialect. Each cell has a Redirector of its own, for what one has seen of a
// provider changes what it does.
type faultMatrix struct {
	tb     testing.TB
	r      *rig
	now    atomic.Pointer[inference.Redirector]
	tolls  atomic.Pointer[tollbook]
	offset atomic.Int64 // of the gateway's clock
	stream atomic.Bool  // what the cell asks for
	seen   atomic.Pointer[chan struct{}]
	cells  int
	client map[bool]*http.Client
}

// cell is one call.
type cell struct {
	f               *modelFault
	dialect         string
	stream, two, h2 bool
}

func (c cell) name() string {
	word := map[bool][2]string{false: {"document", "alone"}, true: {"stream", "with-another"}}
	return fmt.Sprintf("%s/%s/%s/h2=%v", c.dialect, word[c.stream][0], word[c.two][1], c.h2)
}

func (c cell) model() string {
	return fmt.Sprintf("%s-%s-%d", c.f.name, c.dialect, map[bool]int{false: 1, true: 2}[c.two])
}

func (c cell) provider() string { return c.f.name + "-" + c.dialect }

func pathOf(dialect string) string {
	return map[string]string{"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}[dialect]
}

func hostOf(dialect string) string { return "api." + dialect + ".com" }

func bodyFor(dialect, model string, stream bool) string {
	extra := ""
	if dialect == "anthropic" {
		extra = `"max_tokens":64,`
	}
	return fmt.Sprintf(`{"model":%q,%s"stream":%v,"messages":[{"role":"user","content":"hi"}]}`, model, extra, stream)
}

// ServeHTTP implements InferenceHandler.
func (m *faultMatrix) ServeHTTP(w http.ResponseWriter, r *http.Request, c inference.Call) {
	m.now.Load().ServeHTTP(w, r, c)
}

func newFaultMatrix(tb testing.TB) *faultMatrix {
	tb.Helper()
	m := &faultMatrix{tb: tb, client: map[bool]*http.Client{}}
	m.r = newRig(tb, m.documents(), rigOptions{inference: m})
	m.r.g.SetSecrets(map[string]string{"key": "sk-real"})
	for _, dialect := range []string{"openai", "anthropic"} {
		good := doubles.NewProvider()
		good.Text = "other of them speaks here"
		p := &failing{m: m, host: "good-" + dialect + ".test", f: &modelFault{}}
		m.serve(p, &http.Server{Handler: good}, true)
		for i := range modelFaults {
			f := &modelFaults[i]
			m.start(&failing{f: f, m: m, dialect: dialect, host: hostOfFault(f, dialect)})
		}
	}
	for _, h2 := range []bool{false, true} {
		c := m.r.client(m.r.keeper.ca.pool(), h2)
		c.Timeout = env.Wait(30 * time.Second)
		m.client[h2] = c
	}
	return m
}

func hostOfFault(f *modelFault, dialect string) string {
	if f.name == "mute-name" {
		return dialect + ".mute"
	}
	return f.name + "-" + dialect + ".test"
}

// documents are the providers, and a route for each with and without another.
func (m *faultMatrix) documents() string {
	var b, routes strings.Builder
	provider := func(name, dialect, host, timeouts string) {
		base := "https://" + host
		if dialect == "openai" {
			base += "/v1"
		}
		fmt.Fprintf(&b, "---\napiVersion: ringfence.dev/v1\nkind: Provider\nmetadata: {name: %s}\nscope: org:local\ndialect: %s\nbaseURL: %s\nsecret: key\ncredential: inject\nresolvesTo: [127.0.0.0/8]\n", name, dialect, base)
		if timeouts != "" {
			fmt.Fprintf(&b, "timeouts: %s\n", timeouts)
		}
	}
	for _, d := range []string{"openai", "anthropic"} {
		provider("good-"+d, d, "good-"+d+".test", "")
		for i := range modelFaults {
			f := &modelFaults[i]
			c := cell{f: f, dialect: d}
			provider(c.provider(), d, hostOfFault(f, d), f.timeouts)
			fmt.Fprintf(&routes, "  - {id: %[1]s-1, models: [%[1]s-1], to: [{provider: %[1]s}]}\n", c.provider())
			fmt.Fprintf(&routes, "  - {id: %[1]s-2, models: [%[1]s-2], to: [{provider: %[1]s}, {provider: good-%[2]s, priority: 2}]}\n", c.provider(), d)
		}
	}
	return docHead + "routes:\n" + routes.String() + b.String()
}

// start runs a provider with its fault.
func (m *faultMatrix) start(p *failing) {
	f := p.f
	switch {
	case f.serve != nil:
		f.serve(p)
	case f.frame != nil:
		s := doubles.ServeFrames(m.r.listen(p.host, 443), m.certificates(p.host), func(c *doubles.FrameConn) { f.frame(p, c) })
		m.tb.Cleanup(func() { _ = s.Close() })
	default:
		m.serve(p, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.do(p, w, r) })}, true)
	}
}

func (m *faultMatrix) serve(p *failing, srv *http.Server, secure bool) {
	l := m.r.listen(p.host, 443)
	srv.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLSConfig = m.certificates(p.host)
	srv.TLSConfig.NextProtos = []string{"h2", "http/1.1"}
	if p.f.h1 {
		srv.TLSConfig.NextProtos = []string{"http/1.1"}
		srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}
	if p.f.with != nil {
		p.f.with(srv.TLSConfig)
	}
	go func() {
		if secure {
			_ = srv.ServeTLS(l, "", "")
			return
		}
		_ = srv.Serve(l)
	}()
	m.tb.Cleanup(func() { _ = srv.Close() })
}

// listenOnly takes connections and never says anything.
func (m *faultMatrix) listenOnly(p *failing) {
	l := m.r.listen(p.host, 443)
	var mu sync.Mutex
	var held []net.Conn
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			held = append(held, c)
			mu.Unlock()
		}
	}()
	m.tb.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range held {
			c.Close()
		}
	})
}

// certificates are a good one, one for another name, and one that has expired.
func (m *faultMatrix) certificates(host string) *tls.Config {
	cfg := m.r.world.server(m.tb, host, "another.test")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		m.tb.Fatal(err)
	}
	old := &x509.Certificate{SerialNumber: big.NewInt(7), DNSNames: []string{host}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, old, m.r.world.cert, &key.PublicKey, m.r.world.key)
	if err != nil {
		m.tb.Fatal(err)
	}
	cfg.Certificates = append(cfg.Certificates, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
	return cfg
}

// arrived waits until the client has what was sent so far, or has given up.
func (m *faultMatrix) arrived(r *http.Request) { m.wait(r.Context()) }

func (m *faultMatrix) arrivedBy(*failing) { m.wait(context.Background()) }

func (m *faultMatrix) wait(ctx context.Context) {
	if !m.stream.Load() {
		return
	}
	select {
	case <-*m.seen.Load():
	case <-ctx.Done():
	case <-time.After(env.Wait(10 * time.Second)):
	}
}

// tollbook notes what tolls are told.
type tollbook struct {
	mu   sync.Mutex
	list []*tollNote
}

type tollNote struct {
	book  *tollbook
	what  string // "request", or the provider
	sent  int
	done  int
	late  bool // Sent after Done
	spent inference.Spent
}

func (b *tollbook) grant(what string) inference.Grant {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := &tollNote{book: b, what: what}
	b.list = append(b.list, n)
	return inference.Grant{Receipt: n}
}

func (b *tollbook) Request(context.Context, *inference.Use) (inference.Grant, *inference.Refusal) {
	return b.grant("request"), nil
}

func (b *tollbook) Attempt(_ context.Context, u *inference.Use) (inference.Grant, *inference.Refusal) {
	return b.grant(u.Provider.Name), nil
}

func (n *tollNote) Sent() {
	n.book.mu.Lock()
	defer n.book.mu.Unlock()
	n.sent++
	n.late = n.late || n.done > 0
}

func (n *tollNote) Done(s inference.Spent) {
	n.book.mu.Lock()
	defer n.book.mu.Unlock()
	n.done++
	n.spent = s
}

// expected is how the cell ends, and who answers.
func (c cell) expected() (e end, other bool) {
	e = c.f.document
	if c.stream {
		e = c.f.stream
	}
	if c.two && e.how == "failed" {
		return endsWhole, true
	}
	return e, false
}

// run makes the call of one cell and looks at all of it.
func (m *faultMatrix) run(t *testing.T, c cell) {
	want, other := c.expected()
	book, seen := &tollbook{}, make(chan struct{})
	m.tolls.Store(book)
	m.seen.Store(&seen)
	m.stream.Store(c.stream)
	m.offset.Store(0)
	m.now.Store(inference.New(inference.Options{Tolls: []inference.Toll{book}, Clock: func() time.Time {
		return time.Now().Round(0).Add(time.Duration(m.offset.Load()))
	}}))
	m.cells++
	req, err := http.NewRequest("POST", "https://"+hostOf(c.dialect)+pathOf(c.dialect), strings.NewReader(bodyFor(c.dialect, c.model(), c.stream)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := m.client[c.h2].Do(req)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer resp.Body.Close()
	text, err := readSeeing(resp.Body, seen)
	if err != nil {
		t.Errorf("the answer breaks off after %q: %v", text, err)
	}
	c.checkAnswer(t, resp, text, want, other)
	ev := m.event(t, c)
	c.checkEvent(t, &ev, want, other)
	c.checkTolls(t, book, want, other)
}

// readSeeing reads an answer, and says when the first pieces of a stream that say
// something are there.
func readSeeing(r io.Reader, seen chan struct{}) (string, error) {
	var b strings.Builder
	buf := make([]byte, 4<<10)
	told := false
	for {
		n, err := r.Read(buf)
		b.Write(buf[:n])
		if !told && strings.Contains(b.String(), "first") {
			close(seen)
			told = true
		}
		if err == io.EOF {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
	}
}

// event is the one event of the cell.
func (m *faultMatrix) event(t *testing.T, c cell) event.Event {
	t.Helper()
	ev := m.r.event("of the model "+c.model(), func(e *event.Event) bool { return e.Kind == event.KindInference && e.Model == c.model() })
	m.r.keeper.mu.Lock()
	defer m.r.keeper.mu.Unlock()
	for i := range m.r.keeper.events {
		if e := &m.r.keeper.events[i]; e.Kind == event.KindInference && e.Model == c.model() {
			e.Model = "" // counted in nothingLeft
			break
		}
	}
	return ev
}

// forget drops what a cell that failed may have left.
func (m *faultMatrix) forget() {
	m.r.keeper.mu.Lock()
	defer m.r.keeper.mu.Unlock()
	m.r.keeper.events, m.cells = nil, 0
}

// nothingLeft counts the events: one for each call.
func (m *faultMatrix) nothingLeft(t *testing.T) {
	m.r.keeper.mu.Lock()
	defer m.r.keeper.mu.Unlock()
	n := 0
	for i := range m.r.keeper.events {
		if m.r.keeper.events[i].Kind == event.KindInference {
			n++
		}
	}
	if n != m.cells {
		t.Errorf("%d events of %d calls", n, m.cells)
	}
}

// isError says what is wrong with an error in the dialect's form; "" when nothing is.
func isError(dialect string, body []byte) string {
	var e struct {
		Type  string
		Error struct{ Type, Message string }
	}
	switch err := json.Unmarshal(body, &e); {
	case err != nil:
		return err.Error()
	case e.Error.Message == "" || e.Error.Type == "":
		return "no message or no type"
	case dialect == "anthropic" && e.Type != "error":
		return "its type is not error"
	}
	return ""
}
