// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/test/doubles"
)

// several are providers and a route, in front of doubles by the provider's name.
type several struct {
	list  []*policy.Provider
	route *policy.Route
}

func (s several) Providers() []*policy.Provider { return s.list }
func (s several) Trial(string) bool             { return len(s.list) == 0 }
func (s several) RouteFor(string) *policy.Route { return s.route }

// places is a fence in front of several doubles.
type places struct {
	*fence
	of map[string]*doubles.Provider
}

// newPlaces makes one provider for each name: "a" has the key "key-a", "b=k1,k2"
// has two keys. They are asked in the order given.
func newPlaces(t *testing.T, s setup, names ...string) *places {
	p := &places{fence: newFence(t, s), of: map[string]*doubles.Provider{}}
	route := &policy.Route{ID: "r", Doc: "d"}
	world := several{route: route}
	transports := map[string]http.RoundTripper{}
	for i, n := range names {
		name, keys, _ := strings.Cut(n, "=")
		if keys == "" {
			keys = "key-" + name
		}
		prov := &policy.Provider{Name: name, Dialect: "openai", BaseURL: "https://" + name + ".example/v1", Hosts: []string{openAIHost}, Weight: 1, Credential: policy.CredentialInject}
		for _, k := range strings.Split(keys, ",") {
			prov.Keys = append(prov.Keys, policy.Key{Secret: k, Weight: 1})
		}
		if s.change != nil {
			s.change(prov)
		}
		world.list = append(world.list, prov)
		route.To = append(route.To, policy.RouteTarget{Provider: name, Weight: 1, Priority: uint32(i) + 1})
		d := doubles.NewProvider()
		d.Text = "from " + name
		p.of[name] = d
		transports[name] = serveDouble(t, d, name+".example")
	}
	p.call.Snapshot = world
	p.call.Secrets = func(name string) (string, bool) { return "sk-secret-of-" + name, true }
	p.call.Transport = func(prov *policy.Provider) http.RoundTripper { return transports[prov.Name] }
	return p
}

func (p *places) route() *policy.Route { return p.call.Snapshot.(several).route }

func (p *places) answeredBy(body string) string {
	for name := range p.of {
		if strings.Contains(body, "from "+name) {
			return name
		}
	}
	return "nobody"
}

// What each fault of the first provider does to the client, with and without a
// second one, streaming and not.
func TestFailover(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault doubles.Fault
		alone int // the client's status with one provider
		next  bool
	}{
		{"server error", doubles.Fault{Status: 500, Body: `{"error":{"message":"x"}}`}, 500, true},
		{"overloaded", doubles.Fault{Status: 529, Body: `{"error":{"message":"x"}}`}, 529, true},
		{"rate limit", doubles.Fault{Status: 429, Body: `{"error":{"message":"x"}}`}, 429, true},
		{"key refused", doubles.Fault{Status: 401, Body: `{"error":{"message":"x"}}`}, 401, true},
		{"no such model", doubles.Fault{Status: 404, Body: `{"error":{"message":"x"}}`}, 404, true},
		{"an error that is no JSON", doubles.Fault{Status: 503, Body: `<html>`}, 503, true},
		{"redirect", doubles.Fault{Status: 307, Header: http.Header{"Location": {"https://evil.example"}}}, 502, true},
		{"another content type", doubles.Fault{Status: 200, Header: http.Header{"Content-Type": {"text/html"}}, Body: "<html>login</html>"}, 502, true},
		{"no JSON", doubles.Fault{Status: 200, Body: `{"choices":[`}, 502, true},
		{"an error under a 200", doubles.Fault{Status: 200, Body: `{"error":{"message":"overloaded","code":"x"}}`}, 502, true},
		{"an error as the first event", sse("data: {\"error\":{\"message\":\"overloaded\"}}\n\n"), 502, true},
		{"an error after the announcement", sse(announcement + "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n"), 502, true},
		{"a stream that only announces", sse(": hello\n\n" + announcement), 502, true},
		{"an empty stream", sse(""), 502, true},
		{"the request's own fault", doubles.Fault{Status: 400, Body: `{"error":{"message":"bad"}}`}, 400, false},
		{"unprocessable", doubles.Fault{Status: 422, Body: `{"error":{"message":"bad"}}`}, 422, false},
	} {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, stream=%v", c.name, stream), func(t *testing.T) {
				body := fmt.Sprintf(`{"model":"m","stream":%v,"messages":[]}`, stream)
				one := newPlaces(t, setup{}, "a")
				one.of["a"].Fail(c.fault)
				resp, text := one.chat(body)
				if resp.StatusCode != c.alone || !strings.Contains(text, `"error"`) || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
					t.Errorf("alone: %d %s %s", resp.StatusCode, resp.Header.Get("Content-Type"), text)
				}
				one.event()

				two := newPlaces(t, setup{}, "a", "b")
				two.of["a"].Fail(c.fault)
				resp, text = two.chat(body)
				if got, want := two.answeredBy(joined(text)), map[bool]string{true: "b", false: "nobody"}[c.next]; got != want {
					t.Errorf("with another: answered by %s: %d %s", got, resp.StatusCode, text)
				}
				ev := two.event()
				if c.next && (ev.Provider != "b" || ev.Verdict != event.Allowed || !strings.HasPrefix(ev.Tried, "a/m: ") || ev.Status != 200 || ev.TokensOut == 0) {
					t.Errorf("%+v", ev)
				}
				if n := len(two.of["b"].Received()); (n == 1) != c.next {
					t.Errorf("%d requests at the other", n)
				}
			})
		}
	}
}

const announcement = `data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n"

func sse(body string) doubles.Fault {
	return doubles.Fault{Status: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: body}
}

// joined is a streamed text without what is between its pieces.
func joined(body string) string {
	if !strings.Contains(body, "data: ") {
		return body
	}
	var b strings.Builder
	for _, part := range strings.Split(body, `"content":"`)[1:] {
		text, _, _ := strings.Cut(part, `"`)
		b.WriteString(text)
	}
	return b.String()
}

func TestASilentProviderIsLeft(t *testing.T) {
	p := newPlaces(t, setup{change: func(p *policy.Provider) { p.Timeouts.FirstByte = 50 * time.Millisecond }}, "a", "b")
	p.of["a"].Fail(doubles.Fault{Hang: true})
	if resp, body := p.chat(simple); resp.StatusCode != 200 || p.answeredBy(body) != "b" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if ev := p.event(); !strings.Contains(ev.Tried, "a/m: no answer in time") {
		t.Errorf("%+v", ev)
	}
}

func TestNothingIsAskedAgainOnceAStreamHasSaidSomething(t *testing.T) {
	p := newPlaces(t, setup{}, "a", "b")
	p.of["a"].Fail(doubles.Fault{CutAfter: 3})
	resp, body := p.chat(`{"model":"m","stream":true,"messages":[]}`)
	if resp.StatusCode != 200 || !strings.Contains(body, "event: error") || len(p.of["b"].Received()) != 0 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if ev := p.event(); ev.ReasonCode != "upstream-broke-off" || ev.Provider != "a" {
		t.Errorf("%+v", ev)
	}
}

func TestKeysAreRotated(t *testing.T) {
	for _, status := range []int{401, 403, 429, 402} {
		p := newPlaces(t, setup{}, "a=k1,k2")
		p.of["a"].Fail(doubles.Fault{Status: status, Body: `{"error":{"message":"x"}}`})
		resp, body := p.chat(simple)
		got := p.of["a"].Received()
		if resp.StatusCode != 200 || len(got) != 2 || got[0].Header.Get("Authorization") == got[1].Header.Get("Authorization") {
			t.Fatalf("%d: %d %s, %d requests", status, resp.StatusCode, body, len(got))
		}
		bad := got[0].Header.Get("Authorization")
		p.event()
		for range 5 {
			p.chat(simple)
			p.event()
			if p.of["a"].Last().Header.Get("Authorization") == bad {
				t.Fatalf("%d: the key that was refused is used again", status)
			}
		}
	}
}

func TestWhenEverythingIsDownTheFirstErrorIsTold(t *testing.T) {
	p := newPlaces(t, setup{}, "a", "b")
	p.of["a"].Fail(doubles.Fault{Status: 503, Body: `{"error":{"message":"the first one's"}}`, Header: http.Header{"Retry-After": {"7"}}})
	p.of["b"].Fail(doubles.Fault{Status: 500, Body: `{"error":{"message":"the second one's"}}`})
	resp, body := p.chat(simple)
	if resp.StatusCode != 503 || body != `{"error":{"message":"the first one's"}}` || resp.Header.Get("Retry-After") != "7" {
		t.Errorf("%d %s %v", resp.StatusCode, body, resp.Header)
	}
	if tried := resp.Header.Get("X-Ringfence-Tried"); tried != "a/m: 503, b/m: 500" {
		t.Errorf("tried %q", tried)
	}
	if ev := p.event(); ev.Tried != "a/m: 503, b/m: 500" || ev.Status != 503 || ev.Provider != "a" {
		t.Errorf("%+v", ev)
	}
}

func TestABreakerOpensAndSaysUntilWhen(t *testing.T) {
	p := newPlaces(t, setup{}, "a")
	for range 5 {
		p.of["a"].Fail(doubles.Fault{Status: 500, Body: `{"error":{"message":"x"}}`})
		p.chat(simple)
		p.event()
	}
	resp, body := p.chat(simple)
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "set aside") || len(p.of["a"].Received()) != 5 {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
	}
	p.event()
	if resp, body := p.chat(`{"model":"other","messages":[]}`); resp.StatusCode != 200 {
		t.Errorf("another model of the provider: %d %s", resp.StatusCode, body)
	}
	p.event()
}

func TestChains(t *testing.T) {
	long := doubles.Fault{Status: 400, Body: `{"error":{"message":"x","code":"context_length_exceeded"}}`}
	content := doubles.Fault{Status: 400, Body: `{"error":{"message":"x","code":"content_filter"}}`}
	for name, c := range map[string]struct {
		fault doubles.Fault
		want  string
	}{"too long": {long, "b"}, "content": {content, "c"}} {
		p := newPlaces(t, setup{}, "a", "b", "c")
		r := p.route()
		r.TooLong, r.Refused, r.To = []policy.RouteTarget{{Provider: "b", Weight: 1, Priority: 1}}, []policy.RouteTarget{{Provider: "c", Weight: 1, Priority: 1}}, r.To[:1]
		p.of["a"].Fail(c.fault)
		if resp, body := p.chat(simple); resp.StatusCode != 200 || p.answeredBy(body) != c.want {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
		p.event()
		r.TooLong, r.Refused = nil, nil
		p.of["a"].Fail(c.fault)
		if resp, body := p.chat(simple); resp.StatusCode != 400 || body != c.fault.Body {
			t.Errorf("%s, without a chain: %d %s", name, resp.StatusCode, body)
		}
		p.event()
	}
}

// regional allows what the provider's region makes it.
type regional struct {
	view
	region string
}

func (r regional) InferenceAt(p *policy.Provider, model string) policy.Decision {
	if p.Region != r.region {
		return policy.Decision{Reason: "only in " + r.region, ReasonCode: policy.CodeRule, Rule: policy.RuleRef{Doc: "d", ID: "region"}}
	}
	return r.view.Inference(p.Dialect, model)
}

func TestEveryTargetIsDecidedOn(t *testing.T) {
	p := newPlaces(t, setup{change: func(p *policy.Provider) { p.Region = map[string]string{"a": "eu", "b": "us", "c": "eu"}[p.Name] }}, "a", "b", "c")
	p.call.View = regional{region: "eu"}
	p.of["a"].Fail(doubles.Fault{Status: 500, Body: `{"error":{}}`})
	if resp, body := p.chat(simple); resp.StatusCode != 200 || p.answeredBy(body) != "c" || len(p.of["b"].Received()) != 0 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	p.event()
	p.call.View = regional{region: "mars"}
	if resp, body := p.chat(simple); resp.StatusCode != 403 || !strings.Contains(body, "only in mars") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	p.event()
}

func TestWhatAModelCannotDoGoesElsewhere(t *testing.T) {
	p := newPlaces(t, setup{change: func(p *policy.Provider) {
		e := policy.ModelEntry{Match: scope.Pattern{Wild: true}}
		if p.Name == "a" {
			e.Context, e.MaxOutput, e.Declared = 1000, 100, true
		}
		p.Models = []policy.ModelEntry{e}
	}}, "a", "b")
	for body, want := range map[string]string{
		simple: "a",
		`{"model":"m","messages":[],"max_tokens":100}`:                                                                                         "a",
		`{"model":"m","messages":[],"max_completion_tokens":101}`:                                                                              "b",
		`{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("x", 8000) + `"}]}`:                                             "b",
		`{"model":"m","messages":[],"tools":[{"type":"function","function":{"name":"f"}}]}`:                                                    "b",
		`{"model":"m","messages":[],"tools":[]}`:                                                                                               "a",
		`{"model":"m","messages":[],"response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{}}}}`:                          "b",
		`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}]}`: "b",
	} {
		if resp, text := p.chat(body); resp.StatusCode != 200 || p.answeredBy(text) != want {
			t.Errorf("%.80s: %d %s", body, resp.StatusCode, text)
		}
		p.event()
	}
	p.call.Snapshot = several{list: p.call.Snapshot.(several).list[:1], route: &policy.Route{ID: "r", Doc: "d", To: []policy.RouteTarget{{Provider: "a", Weight: 1, Priority: 1}}}}
	if resp, text := p.chat(`{"model":"m","messages":[],"max_tokens":101}`); resp.StatusCode != 400 || !strings.Contains(text, "at most 100") {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	p.event()
}

func TestTiersAndStickiness(t *testing.T) {
	p := newPlaces(t, setup{}, "low", "high", "low2", "high2")
	r := p.route()
	target := func(names ...string) (out []policy.RouteTarget) {
		for _, n := range names {
			out = append(out, policy.RouteTarget{Provider: n, Weight: 1, Priority: 1})
		}
		return out
	}
	r.To, r.Sticky = nil, true
	r.Tiers = []policy.Tier{{Name: "small", Below: 200, To: target("low", "low2")}, {Name: "large", To: target("high", "high2")}}
	easy := `{"model":"m","messages":[{"role":"user","content":"hello"}]}`
	first := ""
	for range 12 {
		_, body := p.chat(easy)
		ev := p.event()
		if first == "" {
			first = ev.Provider
		}
		if ev.Provider != first || !strings.HasPrefix(ev.Provider, "low") || !strings.HasPrefix(ev.Route, "d/r tier small, score 0") {
			t.Fatalf("%+v %s", ev, body)
		}
	}
	hard := `{"model":"m","max_tokens":16000,"messages":[{"role":"user","content":"hello"},{"role":"assistant","content":"x"},{"role":"user","content":"Explain step by step why this proof is wrong: ` + strings.Repeat("lemma ", 400) + `"}]}`
	p.chat(hard)
	if ev := p.event(); !strings.HasPrefix(ev.Provider, "high") || !strings.Contains(ev.Route, "tier large") || !strings.Contains(ev.Route, "reasoning") {
		t.Fatalf("%+v", ev)
	}
	p.chat(easy) // the same conversation, for it began alike
	if ev := p.event(); !strings.HasPrefix(ev.Provider, "high") || !strings.Contains(ev.Route, "where the conversation is") {
		t.Errorf("the conversation went down a tier: %+v", ev)
	}
	p.chat(strings.Replace(easy, "hello", "good day", 1))
	if ev := p.event(); !strings.HasPrefix(ev.Provider, "low") {
		t.Errorf("another conversation is in the tier of the first: %+v", ev)
	}
}

func TestWeights(t *testing.T) {
	p := newPlaces(t, setup{}, "a", "b")
	r := p.route()
	r.To[0].Weight, r.To[0].Priority, r.To[1].Priority = 3, 1, 1
	count := map[string]int{}
	for range 400 {
		p.chat(simple)
		count[p.event().Provider]++
	}
	if count["a"] < 250 || count["a"] > 350 { // 300 on average, deviation 8.7
		t.Errorf("%v", count)
	}
}

// TestTheCheapestIsAskedFirst: for this request, by the provider's name of the model
// and by what the entry of the agent's name says of its output; one whose price nobody
// knows is asked last.
func TestTheCheapestIsAskedFirst(t *testing.T) {
	perToken := map[string]int64{"up-a": 3, "up-b": 1}
	price := func(_ *policy.Provider, upstream string, _, output uint64) (int64, bool) {
		n, ok := perToken[upstream]
		return n * int64(output), ok
	}
	p := newPlaces(t, setup{opt: inference.Options{Price: price}, change: func(p *policy.Provider) {
		p.Models = []policy.ModelEntry{{Match: scope.Exact("gpt-4.1"), Upstream: "up-" + p.Name, MaxOutput: map[string]uint32{"a": 10, "b": 100, "c": 1}[p.Name]}}
	}}, "a", "b", "c")
	r := p.route()
	r.Balance, r.To[1].Priority, r.To[2].Priority = policy.BalancePrice, 1, 1
	for body, want := range map[string]string{
		`{"model":"gpt-4.1","messages":[]}`:                "a", // 3 times 10, not 1 times 100
		`{"model":"gpt-4.1","max_tokens":7,"messages":[]}`: "b",
	} {
		for range 20 {
			if resp, text := p.chat(body); resp.StatusCode != 200 || p.answeredBy(text) != want {
				t.Fatalf("%s: %d %s", body, resp.StatusCode, text)
			}
			p.event()
		}
	}
}

// fakeToll is a toll that notes what it is told.
type fakeToll struct {
	mu      sync.Mutex
	log     []string
	refuse  string // this provider, or "all"
	atMost  uint64
	request bool // refuse the request as a whole
}

func (f *fakeToll) note(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, s)
}

type fakeReceipt struct {
	f    *fakeToll
	what string
}

func (r fakeReceipt) Sent() { r.f.note(r.what + " sent") }
func (r fakeReceipt) Done(s inference.Spent) {
	r.f.note(fmt.Sprintf("%s done sent=%v answered=%v out=%v", r.what, s.Sent, s.Answered, s.Usage.Output > 0))
}

func (f *fakeToll) Request(context.Context, *inference.Use) (inference.Grant, *inference.Refusal) {
	if f.request {
		return inference.Grant{}, &inference.Refusal{Status: 429, Code: inference.CodeLimited, Reason: "limit", Message: "too many", Wait: 1500 * time.Millisecond, Header: http.Header{"X-Ratelimit-Limit-Requests": {"2"}}}
	}
	return inference.Grant{Receipt: fakeReceipt{f, "request"}}, nil
}

func (f *fakeToll) Attempt(_ context.Context, u *inference.Use) (inference.Grant, *inference.Refusal) {
	if f.refuse == u.Provider.Name {
		return inference.Grant{}, &inference.Refusal{Status: 402, Code: inference.CodeBudget, Reason: "budget", Message: "no money for " + u.Provider.Name}
	}
	return inference.Grant{Receipt: fakeReceipt{f, u.Provider.Name}, MaxOutput: f.atMost}, nil
}

func TestTolls(t *testing.T) {
	for name, c := range map[string]struct {
		refuse string
		over   bool // the request as a whole
		fault  *doubles.Fault
		status int
		want   string
	}{
		"paid": {"", false, nil, 200, "request sent; a sent; a done sent=true answered=true out=true; request done sent=true answered=true out=true"},
		"one has no room": {"a", false, nil, 200,
			"request sent; b sent; b done sent=true answered=true out=true; request done sent=true answered=true out=true"},
		"one fails": {"", false, &doubles.Fault{Status: 500, Body: `{}`}, 200,
			"request sent; a sent; a done sent=true answered=false out=false; b sent; b done sent=true answered=true out=true; request done sent=true answered=true out=true"},
		"the request has no room": {"", true, nil, 429, ""},
	} {
		t.Run(name, func(t *testing.T) {
			toll := &fakeToll{refuse: c.refuse, request: c.over}
			p := newPlaces(t, setup{opt: inference.Options{Tolls: []inference.Toll{toll}}}, "a", "b")
			if c.fault != nil {
				p.of["a"].Fail(*c.fault)
			}
			resp, body := p.chat(simple)
			if got := strings.Join(toll.log, "; "); resp.StatusCode != c.status || got != c.want {
				t.Errorf("%d %s\n%s\n%s", resp.StatusCode, body, got, c.want)
			}
			p.event()
			if c.over && (resp.Header.Get("Retry-After") != "2" || resp.Header.Get("X-Ratelimit-Limit-Requests") != "2" || !strings.Contains(body, "rate_limit_exceeded")) {
				t.Errorf("%v %s", resp.Header, body)
			}
		})
	}
}

func TestATollBoundsTheOutput(t *testing.T) {
	p := newPlaces(t, setup{opt: inference.Options{Tolls: []inference.Toll{&fakeToll{atMost: 50}}}}, "a")
	for body, want := range map[string]string{
		`{"model":"m","messages":[]}`:                  `{"max_completion_tokens":50,"model":"m","messages":[]}`,
		`{"model":"m","max_tokens":70,"messages":[]}`:  `{"model":"m","max_tokens":50,"messages":[]}`,
		`{"model":"m", "max_tokens":7, "messages":[]}`: `{"model":"m", "max_tokens":7, "messages":[]}`,
	} {
		p.chat(body)
		p.event()
		if got := string(p.of["a"].Last().Body); got != want {
			t.Errorf("%s", got)
		}
	}
}

// TestPricesAreLookedUpOnce: for each target, however many comparisons they take.
func TestPricesAreLookedUpOnce(t *testing.T) {
	asked := 0
	names := strings.Split("a b c d e f g h i j", " ")
	p := newPlaces(t, setup{opt: inference.Options{Price: func(p *policy.Provider, _ string, _, _ uint64) (int64, bool) {
		asked++
		return -int64(p.Name[0]), true
	}}}, names...)
	r := p.route()
	r.Balance = policy.BalancePrice
	for i := range r.To {
		r.To[i].Priority = 1
	}
	if _, body := p.chat(simple); p.answeredBy(body) != "j" || asked != len(names) {
		t.Errorf("answered by %s, asked %d times", p.answeredBy(body), asked)
	}
	p.event()
}

// inputToll notes what it is told of the input.
type inputToll struct {
	fakeToll
	most []uint64
}

func (f *inputToll) Attempt(_ context.Context, u *inference.Use) (inference.Grant, *inference.Refusal) {
	f.most = append(f.most, u.InputMost)
	return inference.Grant{}, nil
}

// The input is at most its bytes, and the model's context where it goes on from an
// answer that the provider stored.
func TestTheInputIsBounded(t *testing.T) {
	toll := &inputToll{}
	p := newPlaces(t, setup{opt: inference.Options{Tolls: []inference.Toll{toll}}, change: func(p *policy.Provider) {
		p.Models = []policy.ModelEntry{{Match: scope.Pattern{Wild: true}, Context: 100_000}}
	}}, "a")
	for _, body := range []string{`{"model":"m","input":"hello"}`, `{"model":"m","input":"hello","previous_response_id":null}`, `{"model":"m","input":"hello","previous_response_id":"r"}`} {
		p.ask("POST", "https://"+openAIHost+"/v1/responses", body)
		p.event()
	}
	if len(toll.most) != 3 || toll.most[0] != 16 || toll.most[1] != 16+24 || toll.most[2] != 16+21+100_000 {
		t.Errorf("%v", toll.most)
	}
}

// One agent's calls that fail over use up what others may.
func TestOneAgentDoesNotUseUpTheRetriesOfOthers(t *testing.T) {
	p := newPlaces(t, setup{}, "a", "b")
	for range 12 {
		p.of["a"].Fail(doubles.Fault{Status: 404, Body: `{"error":{"message":"x"}}`})
		p.chat(`{"model":"none","messages":[]}`, "Test-Agent", "hostile")
		p.event()
	}
	p.of["a"].Reset()
	p.of["a"].Fail(doubles.Fault{Status: 500, Body: `{"error":{"message":"x"}}`})
	if resp, body := p.chat(simple, "Test-Agent", "other"); resp.StatusCode != 200 {
		t.Errorf("%d %s %s", resp.StatusCode, body, resp.Header.Get("X-Ringfence-Tried"))
	}
}

// Five long questions of one agent set a model aside for all.
func TestLongQuestionsOfOneAgentSetNobodyAside(t *testing.T) {
	p := newPlaces(t, setup{change: func(p *policy.Provider) { p.Timeouts.FirstByte = 30 * time.Millisecond }}, "a")
	for range 5 {
		p.of["a"].Fail(doubles.Fault{Delay: 200 * time.Millisecond})
		p.chat(`{"model":"m","messages":[{"role":"user","content":"think for long"}]}`, "Test-Agent", "hostile")
		p.event()
	}
	if resp, body := p.chat(simple, "Test-Agent", "other"); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}
