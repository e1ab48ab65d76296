// SPDX-License-Identifier: Apache-2.0

package gatewayd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/ringfence/ringfence/pkg/budget"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/store"
	"github.com/ringfence/ringfence/pkg/wire"
)

// paper is a store that keeps nothing: the ledger has it in memory.
type paper struct{}

func (paper) BudgetState(context.Context) (st store.BudgetState, err error) { return st, nil }
func (paper) PutBudgets(context.Context, *store.BudgetChange) error         { return nil }

// shop is a redirector with a toll, a ledger behind it and a provider in front.
type shop struct {
	t       *testing.T
	ledger  *budget.Ledger
	snap    *policy.Snapshot
	red     *inference.Redirector
	till    *budget.Till
	answer  func(req *http.Request) (*http.Response, error)
	sent    []string // bodies
	events  []event.Event
	notices []budget.Notice
}

var ann = scope.Principal{Org: "acme", Team: "a", Agent: "ann"}

// Prices of the tests: a nano-dollar for a token in, ten for one out; "dear" nobody
// knows.
func testPrice(_ *policy.Provider, model string, in, out uint64) (int64, bool) {
	return int64(in + 10*out), model != "dear"
}

// testCost is the price of what was used.
func testCost(s *inference.Spent) (int64, bool, bool) {
	n, ok := testPrice(s.Provider, s.Upstream, s.Usage.Input, s.Usage.Output)
	return n, s.Usage.Estimated, ok
}

func newShop(t *testing.T, budgets ...string) *shop {
	t.Helper()
	docs := "apiVersion: ringfence.dev/v1\nkind: Provider\nmetadata: {name: p}\ndialect: openai\nbaseURL: https://p.example/v1\nsecret: k\n---\n" +
		"apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: d}\nscope: org:acme\nbudgets:\n"
	for _, b := range budgets {
		docs += "  - " + b + "\n"
	}
	list, problems := policy.ParseWhole("f", []byte(docs))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	s := &shop{t: t}
	if s.snap, problems = policy.Compile(1, list); len(problems) > 0 {
		t.Fatal(problems)
	}
	var err error
	if s.ledger, err = budget.NewLedger(context.Background(), budget.Options{Store: paper{}, Policy: s, Now: time.Now, Record: func(_ context.Context, n []budget.Notice) error {
		s.notices = append(s.notices, n...)
		return nil
	}}); err != nil {
		t.Fatal(err)
	}
	m := &money{boxes: map[string]uint32{}}
	m.till = budget.NewTill(s, time.Now)
	m.toll = &toll{till: m.till, number: m.number, bound: testPrice, cost: testCost, now: time.Now, counts: map[uint32]counts{}}
	m.add("box", 7)
	s.till = m.till
	id, err := s.ledger.NewHolder(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	mem := make([]uint64, budget.SlotsSize/8)
	slots, err := budget.NewSlots(unsafe.Slice((*byte)(unsafe.Pointer(&mem[0])), budget.SlotsSize), id)
	if err != nil {
		t.Fatal(err)
	}
	m.till.Open(id, slots)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); m.till.Run(ctx, func(err error) { t.Error(err) }) }()
	t.Cleanup(func() { stop(); <-done })
	s.red = inference.New(inference.Options{Tolls: []inference.Toll{m.toll}})
	return s
}

func (s *shop) Exchange(ctx context.Context, q *wire.BudgetExchange) (wire.BudgetReply, error) {
	return s.ledger.Exchange(ctx, q)
}

func (s *shop) Budget(k policy.BudgetKey) (*policy.Budget, bool) {
	for _, b := range s.snap.AllBudgets() {
		if b.Key() == k {
			return b, true
		}
	}
	return nil, false
}

func (s *shop) Principal(context.Context, uint32) (scope.Principal, error) { return ann, nil }

func (s *shop) RoundTrip(req *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	s.sent = append(s.sent, string(b))
	return s.answer(req)
}

// says is a whole answer that used so many tokens.
func says(in, out int) func(*http.Request) (*http.Response, error) {
	return answers(200, `{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":`+strconv.Itoa(in)+`,"completion_tokens":`+strconv.Itoa(out)+`}}`)
}

func answers(status int, body string) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req}, nil
	}
}

// breaksOff is a stream that says something and then no more.
func breaksOff(text string) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: io.NopCloser(io.MultiReader(strings.NewReader(text), broken{})), ContentLength: -1, Request: req}, nil
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// ask sends one request as a sandbox would.
func (s *shop) ask(path, body string) (int, http.Header, string) {
	s.t.Helper()
	req := httptest.NewRequest("POST", "https://api.openai.com"+path, bytes.NewReader([]byte(body)))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	v := s.snap.View(ann)
	s.red.ServeHTTP(w, req, inference.Call{View: v, Snapshot: v, Secrets: func(string) (string, bool) { return "key", true }, Transport: func(*policy.Provider) http.RoundTripper { return s },
		Record: func(e event.Event) { s.events = append(s.events, e) }, Host: "api.openai.com", Dialect: "openai", Sandbox: "box", Scope: ann.String()})
	return w.Code, w.Header(), w.Body.String()
}

// spent is what the budget has spent when everything was told.
func (s *shop) spent() (amount, estimated int64) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.till.Finish(ctx); err != nil {
		s.t.Fatal(err)
	}
	st := s.ledger.Standings(s.snap.AllBudgets())[0]
	if st.Leased != 0 {
		s.t.Errorf("%d is leased still", st.Leased)
	}
	return st.Spent, st.Estimated
}

const chatPath = "/v1/chat/completions"

// hello is 31 bytes of names and texts: what is reserved is for as many tokens and
// what dialects put around them.
const hello = `{"model":"m","messages":[{"role":"user","content":"hi"}]`

func TestAnAttemptCostsWhatItsAnswerUsed(t *testing.T) {
	const in = 31 + 12 + inputExtra // with max_tokens and its number
	for name, c := range map[string]struct {
		answer           func(*http.Request) (*http.Response, error)
		body             string
		status           int
		spent, estimated int64
		excess           int
	}{
		"an answer":       {says(100, 20), hello + `,"max_tokens":50}`, 200, 300, 0, 0},
		"more than asked": {says(100, 900), hello + `,"max_tokens":50}`, 200, 9100, 0, 1},
		"an error":        {answers(500, `{"error":{"message":"no"}}`), hello + `,"max_tokens":50}`, 500, 0, 0, 0},
		"not reached": {func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
		}, hello + `,"max_tokens":50}`, 502, 0, 0, 0},
		"broke off":              {func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, hello + `,"max_tokens":50}`, 502, in + 500, in + 500, 0},
		"half a document":        {answers(200, `{"id":`), hello + `,"max_tokens":50}`, 502, in + 500, in + 500, 0},
		"three choices":          {answers(200, `{"id":`), hello + `,"max_tokens":50,"n":3}`, 502, in + 2 + 1500, in + 2 + 1500, 0},
		"broke off after a word": {breaksOff("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n"), hello + `,"stream":true,"max_tokens":50}`, 200, in + 10 + 500, in + 10 + 500, 0},
		"does not say":           {answers(200, `{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"}}]}`), hello + `,"max_tokens":50}`, 200, in + 500, in + 500, 0},
		"an error under 200":     {answers(200, `{"error":{"message":"no"}}`), hello + `,"max_tokens":50}`, 502, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, "{id: b, limit: 1 USD, window: year}")
			s.answer = c.answer
			if status, _, body := s.ask(chatPath, c.body); status != c.status {
				t.Errorf("%d %s", status, body)
			}
			if amount, estimated := s.spent(); amount != c.spent || estimated != c.estimated || len(s.notices) != c.excess {
				t.Errorf("spent %d, %d of it estimated, told %v; want %d, %d", amount, estimated, s.notices, c.spent, c.estimated)
			}
		})
	}
}

func TestAClientWithoutACapGetsOne(t *testing.T) {
	for name, c := range map[string]struct{ budget, body, want string }{
		"as much as nobody limits":    {"{id: b, limit: 1 USD, window: year}", hello + `}`, `{"max_completion_tokens":32768,` + hello[1:] + `}`},
		"as the budget says":          {"{id: b, limit: 1 USD, window: year, maxOutput: 77}", hello + `}`, `{"max_completion_tokens":77,` + hello[1:] + `}`},
		"as much as remains":          {"{id: b, limit: 0.000011055 USD, window: year}", hello + `}`, `{"max_completion_tokens":1000,` + hello[1:] + `}`},
		"for each choice":             {"{id: b, limit: 0.000011057 USD, window: year}", hello + `,"n":4}`, `{"max_completion_tokens":250,` + hello[1:] + `,"n":4}`},
		"its own stays":               {"{id: b, limit: 1 USD, window: year, maxOutput: 77}", hello + `,"max_tokens":90}`, hello + `,"max_tokens":90}`},
		"another operation's is none": {"{id: b, limit: 1 USD, window: year, maxOutput: 77}", hello + `,"max_output_tokens":1}`, `{"max_completion_tokens":77,` + hello[1:] + `,"max_output_tokens":1}`},
		"text is no number":           {"{id: b, limit: 1 USD, window: year, maxOutput: 77}", hello + `,"max_tokens":1,"max_completion_tokens":"90000"}`, hello + `,"max_tokens":1,"max_completion_tokens":77}`},
		"soft does not":               {"{id: b, limit: 0.000000001 USD, window: year, hard: false, maxOutput: 90}", hello + `}`, `{"max_completion_tokens":90,` + hello[1:] + `}`},
		"another model's budget":      {"{id: b, limit: 0.000000001 USD, window: year, models: [x]}", hello + `}`, hello + `}`},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, c.budget)
			s.answer = says(1, 1)
			if status, _, body := s.ask(chatPath, c.body); status != 200 || len(s.sent) != 1 || s.sent[0] != c.want {
				t.Errorf("%d %s: sent %s", status, body, s.sent)
			}
		})
	}
}

func TestACallThatDoesNotFitIsNotSent(t *testing.T) {
	for name, c := range map[string]struct {
		budget, path, body, want string
		status                   int
	}{
		"its cap costs more":     {"{id: b, limit: 0.000001 USD, window: year}", chatPath, hello + `,"max_tokens":50}`, "the budget d/b of org:acme has 0.000001 USD left of 0.000001 USD, and the call may cost 0.000001567 USD", 429},
		"nothing remains":        {"{id: b, limit: 0.000001 USD, window: year}", chatPath, hello + `}`, "the budget d/b", 429},
		"no price":               {"{id: b, limit: 1 USD, window: year}", chatPath, strings.Replace(hello, `"m"`, `"dear"`, 1) + `}`, "is not known", 403},
		"out of range":           {"{id: b, limit: 1 USD, window: year}", chatPath, hello + `,"max_tokens":900000000000,"n":900000000000}`, "out of range", 403},
		"embeddings":             {"{id: b, limit: 0.000001 USD, window: year}", "/v1/embeddings", `{"model":"m","input":"hi"}`, "the call may cost", 429},
		"counting costs nothing": {"{id: b, limit: 0.000000001 USD, window: year}", "/v1/responses/input_tokens", `{"model":"m","input":"hi"}`, "", 200},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, c.budget)
			s.answer = answers(200, `{"object":"response.input_tokens","input_tokens":3}`)
			status, h, body := s.ask(c.path, c.body)
			if status != c.status || !strings.Contains(body, c.want) || (len(s.sent) == 0) != (c.status != 200) {
				t.Errorf("%d %s, sent %v", status, body, s.sent)
			}
			if e := s.events[0]; c.status == 429 {
				if wait, err := strconv.Atoi(h.Get("Retry-After")); err != nil || wait < 1 || h.Get("X-Should-Retry") != "false" || !strings.Contains(body, inference.CodeBudget) {
					t.Errorf("%v %s", h, body)
				}
				if e.Verdict != event.Denied || e.ReasonCode != "budget" || !strings.HasPrefix(e.Remedy, "ringfence budgets increase d/b") {
					t.Errorf("%+v", e)
				}
			}
			if amount, _ := s.spent(); amount != 0 && c.status != 200 {
				t.Errorf("spent %d", amount)
			}
		})
	}
}

// TestWhatIsOutOfRangeIsNotUnknown: where the document lets calls of unknown prices
// through, one of a known price does not become such by asking for too much.
func TestWhatIsOutOfRangeIsNotUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		body   string
		status int
		says   string
	}{
		"too much":          {hello + `,"max_tokens":549755813888,"n":3}`, 403, "out of range"},
		"nobody knows":      {strings.Replace(hello, `"m"`, `"dear"`, 1) + `,"max_tokens":50}`, 200, ""},
		"control: a little": {hello + `,"max_tokens":50,"n":3}`, 200, ""},
	} {
		s := newShop(t, "{id: b, limit: 1 USD, window: year}")
		s.snap.View(ann).Providers()[0].UnknownPrice = policy.UnknownPriceFlag
		s.answer = says(100, 20)
		if status, _, body := s.ask(chatPath, c.body); status != c.status || !strings.Contains(body, c.says) || (len(s.sent) == 1) != (c.status == 200) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}
