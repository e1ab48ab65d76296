// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/test/doubles"
)

// askingTools is a policy that demands people for every tool but those named.
type askingTools struct {
	asking
	blocked, allowed string
	all              bool // else
}

func (a askingTools) ProviderTool(tool string) policy.Decision {
	switch {
	case tool == a.allowed:
		return policy.Decision{Effect: policy.Allow}
	case tool == a.blocked:
		return policy.Decision{}
	case a.all:
		return policy.Decision{Effect: policy.Allow}
	}
	return policy.Decision{Effect: policy.RequireApproval, Reason: "needs an approval", ReasonCode: policy.CodeApproval, Rule: policy.RuleRef{Doc: "eng", ID: "tools"}, Revision: 3}
}

func toolFence(t *testing.T, v askingTools, people func(q inference.Question) inference.Approved) (*fence, *[]inference.Question) {
	f, asked := askFence(t, inference.Options{}, people)
	f.call.View = v
	return f, asked
}

// yes lets everything pass.
func yes(f **fence) func(q inference.Question) inference.Approved {
	return func(q inference.Question) inference.Approved {
		a := inference.Approved{Decision: q.Decision, Decisions: append([]policy.Decision(nil), q.Decisions...), View: (*f).call.View, Snapshot: (*f).call.Snapshot, Transport: (*f).call.Transport}
		a.Decision.Effect = policy.Allow
		for i := range a.Decisions {
			a.Decisions[i].Effect, a.Decisions[i].ReasonCode = policy.Allow, "approved"
		}
		return a
	}
}

func responses(model string, tools ...string) string {
	return `{"model":"` + model + `","input":"a secret plan","tools":[` + strings.Join(tools, ",") + `]}`
}

func (f *fence) responses(body string) (status int, text string) {
	resp, text := f.ask("POST", "https://"+openAIHost+"/v1/responses", body, "Content-Type", "application/json")
	return resp.StatusCode, text
}

func settingsOf(t inference.Tool) string {
	var b strings.Builder
	for _, s := range t.Settings {
		fmt.Fprintf(&b, "%s=%s/%v ", s.Path, s.Text, s.Kept)
	}
	return strings.TrimSpace(b.String())
}

func kindsOf(t inference.Tool) string {
	var list []string
	for _, s := range t.Settings {
		list = append(list, s.Path+" "+s.Kind)
	}
	return strings.Join(list, ", ")
}

// TestToolsAreAskedAboutTogether: with the model, in one question; what is asked
// about is what the provider would get.
func TestToolsAreAskedAboutTogether(t *testing.T) {
	var f *fence
	f, asked := toolFence(t, askingTools{allowed: "image_generation"}, func(q inference.Question) inference.Approved { return yes(&f)(q) })
	body := responses("big", `{"type":"web_search","filters":{"allowed_domains":["a.test","b.test"]},"user_location":{"type":"approximate","city":"Bern"},"x.y":1}`,
		`{"type":"mcp","server_label":"s","server_url":"https://mcp.test/sse","authorization":"secret-token","headers":{"X-Key":"secret"},"allowed_tools":[]}`,
		`{"type":"function","name":"mine","parameters":{}}`, `{"type":"image_generation"}`)
	if status, text := f.responses(body); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	if len(*asked) != 1 || len(f.double.Received()) != 1 || string(f.double.Received()[0].Body) != body {
		t.Fatalf("asked %d times, %d at the provider", len(*asked), len(f.double.Received()))
	}
	q := (*asked)[0]
	if q.Decision.Effect != policy.RequireApproval || len(q.Tools) != 2 || len(q.Decisions) != 2 || q.Tools[0].Name != "web_search" || q.Tools[1].Name != "mcp" {
		t.Fatalf("%+v", q)
	}
	for i, want := range []string{
		`filters.allowed_domains.0=a.test/true filters.allowed_domains.1=b.test/true user_location.city=Bern/true user_location.type=approximate/true x%2Ey=1/true`,
		`allowed_tools[]=/false authorization=/false headers.X-Key=/false server_label=s/true server_url=https://mcp.test/sse/true`,
	} {
		if got := settingsOf(q.Tools[i]); got != want {
			t.Errorf("%s\nnot %s", got, want)
		}
		if strings.Contains(q.Tools[i].Shown+q.Shown, "secret") || !strings.Contains(q.Tools[i].Shown, "=") {
			t.Errorf("people read %q", q.Tools[i].Shown)
		}
	}
	if ev := f.event(); ev.ReasonCode != "approved" || ev.Rule != "eng/tools" {
		t.Errorf("%+v", ev)
	}
}

// TestWhatAToolIs: its definition and its settings change with whatever changes what
// the provider does.
func TestWhatAToolIs(t *testing.T) {
	var f *fence
	f, asked := toolFence(t, askingTools{}, func(q inference.Question) inference.Approved { return yes(&f)(q) })
	tool := func(host, body string) inference.Tool {
		t.Helper()
		*asked = nil
		f.ask("POST", "https://"+host, body, "Content-Type", "application/json")
		if len(*asked) != 1 || len((*asked)[0].Tools) != 1 {
			t.Fatalf("%s: asked %+v", body, *asked)
		}
		return (*asked)[0].Tools[0]
	}
	openAI := func(tools ...string) inference.Tool {
		return tool(openAIHost+"/v1/responses", responses("small", tools...))
	}
	plain := openAI(`{"type":"web_search"}`)
	same := openAI(`{"type":"web_search","max":1}`)
	if plain.Definition != same.Definition || len(plain.Settings) != 0 || settingsOf(same) != "max=1/true" {
		t.Errorf("%+v %+v", plain, same)
	}
	for name, other := range map[string]inference.Tool{
		"another type":    openAI(`{"type":"web_search_preview"}`),
		"twice":           openAI(`{"type":"web_search"}`, `{"type":"web_search"}`),
		"with a field":    tool(openAIHost+"/v1/responses", `{"model":"small","input":"x","web_search_options":{},"tools":[{"type":"web_search"}]}`),
		"a named one":     openAI(`{"type":"web_search","name":"n"}`),
		"another dialect": tool(claudeHost+"/v1/messages", `{"model":"small","max_tokens":1,"messages":[],"tools":[{"type":"web_search_20250305","name":"web_search"}]}`),
		"by itself":       tool(openAIHost+"/v1/responses", responses("x-search-preview")),
	} {
		if other.Name != "web_search" || other.Definition == plain.Definition {
			t.Errorf("%s is the same tool: %+v", name, other)
		}
	}
	two := openAI(`{"type":"web_search","max":1}`, `{"type":"web_search","Max":"y","max":2}`)
	if got := settingsOf(two); got != "0.max=1/true 1.Max=/false 1.max=2/true" {
		t.Errorf("%s", got)
	}
	if got := settingsOf(openAI(`{"type":"mcp","server_url":"https://u:p@mcp.test/","url":"https://x.test/?q=said","require_approval":{}}`)); got != "require_approval{}=/false server_url=/false url=/false" {
		t.Errorf("%s", got)
	}
	if got := settingsOf(openAI(`{"type":"mcp","max":1,"headers":{"Region":"sk-secret","pin":1234}}`)); got != "headers.Region=/false headers.pin=/false max=1/true" {
		t.Errorf("%s", got)
	}
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf(`"d%02d.test"`, i))
	}
	if got := settingsOf(openAI(`{"type":"web_search","allowed_domains":[` + strings.Join(many, ",") + `],"max":3}`)); got != "allowed_domains[]=/false max=3/true" {
		t.Errorf("%s", got)
	}
	named, made := openAI(`{"type":"code_interpreter","container":"cntr_1","n":1,"on":true,"off":false,"none":null}`), openAI(`{"type":"code_interpreter","container":{"type":"auto","network_policy":{"allowed_domains":[`+strings.Join(many, ",")+`]}},"n":"1","on":{},"off":[],"none":"null"}`)
	if got := kindsOf(named) + "; " + kindsOf(made); got != "container string, n number, none null, off boolean, on boolean; container{} , n string, none string, off[] , on{} " {
		t.Errorf("%s", got)
	}
	if s := tool(claudeHost+"/v1/messages", `{"model":"small","max_tokens":1,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"https://i.test/a.png"}}]}]}`); s.Name != "image_url" || settingsOf(s) != "url=https://i.test/a.png/true" {
		t.Errorf("%+v", s)
	}
}

// TestNobodyIsAskedInVain: about what is denied anyway, or is more than people read.
func TestNobodyIsAskedInVain(t *testing.T) {
	var f *fence
	f, asked := toolFence(t, askingTools{blocked: "mcp", allowed: "unknown"}, func(q inference.Question) inference.Approved { return yes(&f)(q) })
	kinds := func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprintf(`{"type":"kind%d"}`, i))
		}
		return out
	}
	settings := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"s%03d":%d`, i, i)
		}
		return b.String()
	}
	for name, tools := range map[string][]string{
		"a tool that is denied": {`{"type":"web_search"}`, `{"type":"mcp"}`},
		"nine tools":            kinds(9),
		"33 kinds":              append(kinds(33), `{"type":"mcp"}`),
		"33 settings":           {`{"type":"web_search"` + settings(33) + `}`},
		"a long name":           {`{"type":"web_search","` + strings.Repeat("x", 129) + `":1}`},
		"17 of one":             strings.Split(strings.Repeat(`{"type":"web_search"} `, 17), " ")[:17],
		"settings of all": {`{"type":"a"` + settings(32) + `}`, `{"type":"b"` + settings(32) + `}`, `{"type":"c"` + settings(32) + `}`, `{"type":"d"` + settings(32) + `}`,
			`{"type":"e","x":1}`},
	} {
		if status, text := f.responses(responses("small", tools...)); status != 403 || len(*asked) != 0 {
			t.Errorf("%s: %d %s, asked %d times", name, status, text, len(*asked))
		}
	}
	for name, tools := range map[string][]string{"eight": kinds(8), "32 settings": {`{"type":"web_search"` + settings(32) + `}`}, "16 of one": strings.Split(strings.Repeat(`{"type":"web_search"} `, 16), " ")[:16]} {
		*asked = nil
		if status, text := f.responses(responses("small", tools...)); status != 200 || len(*asked) != 1 {
			t.Errorf("control: %s: %d %s", name, status, text)
		}
	}
}

// TestManyKindsHideNone: what is denied is, behind however many that are allowed.
func TestManyKindsHideNone(t *testing.T) {
	f, _ := toolFence(t, askingTools{blocked: "mcp", all: true}, nil)
	var tools []string
	for i := range 32 {
		tools = append(tools, fmt.Sprintf(`{"type":"kind%d"}`, i))
	}
	if status, text := f.responses(responses("small", tools...)); status != 200 {
		t.Errorf("control: %d %s", status, text)
	}
	if status, text := f.responses(responses("small", append(tools, `{"type":"mcp"}`)...)); status != 403 || !strings.Contains(text, "more than policy is asked about") {
		t.Errorf("%d %s", status, text)
	}
}

// TestToolsThatPeopleDidNotLetPass stay where they are.
func TestToolsThatPeopleDidNotLetPass(t *testing.T) {
	var f *fence
	for name, c := range map[string]struct {
		people func(q inference.Question) inference.Approved
		status int
		says   string
	}{
		"one of two waits": {func(q inference.Question) inference.Approved {
			return inference.Approved{Decision: q.Decision, Waits: []string{"", "", "00aa"}}
		}, 503, "what the provider would do as mcp, and nobody has yet (00aa)"},
		"both and the model wait": {func(q inference.Question) inference.Approved {
			return inference.Approved{Decision: q.Decision, Waits: []string{"0001", "0002", "0003"}}
		}, 503, "approvals approve 0001 && ringfence approvals approve 0002 && ringfence approvals approve 0003"},
		"one decision is missing": {func(q inference.Question) inference.Approved {
			a := yes(&f)(q)
			a.Decisions = a.Decisions[:1]
			return a
		}, 403, "mcp"},
		"one is denied": {func(q inference.Question) inference.Approved {
			a := inference.Approved{Decision: q.Decision, Decisions: q.Decisions}
			a.Decision.Effect, a.Decisions[0].Effect = policy.Allow, policy.Allow
			a.Decisions[1].Reason = "people have denied it (00aa)"
			return a
		}, 403, "people have denied it (00aa)"},
		"nothing is said": {func(inference.Question) inference.Approved { return inference.Approved{} }, 403, ""},
		"the model only": {func(q inference.Question) inference.Approved {
			return inference.Approved{Decision: policy.Decision{Effect: policy.Allow}, View: f.call.View, Snapshot: f.call.Snapshot, Transport: f.call.Transport}
		}, 403, ""},
		"control": {func(q inference.Question) inference.Approved { return yes(&f)(q) }, 200, ""},
	} {
		f, _ = toolFence(t, askingTools{}, c.people)
		status, text := f.responses(responses("big", `{"type":"web_search"}`, `{"type":"mcp"}`))
		if text = strings.ReplaceAll(text, `\u0026`, "&"); status != c.status || !strings.Contains(text, c.says) || (len(f.double.Received()) == 1) != (c.status == 200) {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
}

// TestHeadersAreApprovedToo: those that change what the provider does, and not those
// that are new with each attempt.
func TestHeadersAreApprovedToo(t *testing.T) {
	f, asked := askFence(t, inference.Options{}, func(inference.Question) inference.Approved { return inference.Approved{} })
	hash := func(header ...string) [32]byte {
		f.ask("POST", "https://"+claudeHost+"/v1/messages", `{"model":"big","max_tokens":1,"messages":[]}`, append([]string{"Content-Type", "application/json"}, header...)...)
		return (*asked)[len(*asked)-1].Arguments
	}
	plain := hash()
	for _, h := range [][]string{{"User-Agent", "x"}, {"Idempotency-Key", "x"}, {"X-Request-Id", "x"}, {"X-Stainless-Retry-Count", "2"}, {"X-Not-Forwarded", "x"}, {"X-Api-Key", "another"}} {
		if hash(h...) != plain {
			t.Errorf("%s makes it another request", h)
		}
	}
	seen := map[[32]byte]string{plain: "none"}
	for _, h := range [][]string{{"Anthropic-Beta", "web-fetch"}, {"Anthropic-Beta", "code"}, {"Anthropic-Version", "2023-06-01"}, {"Accept-Language", "de"}, {"X-App", "code"}} {
		sum := hash(h...)
		if seen[sum] != "" {
			t.Errorf("%s is as %s", h, seen[sum])
		}
		seen[sum] = strings.Join(h, "=")
	}
}

// served is a snapshot whose provider serves one model under an alias.
type served struct{ p policy.Provider }

func (s served) Providers() []*policy.Provider { return []*policy.Provider{&s.p} }
func (s served) Trial(string) bool             { return false }
func (s served) RouteFor(string) *policy.Route { return nil }

// TestAnotherModelBehindTheAlias: what a model does by itself was approved for that
// model.
func TestAnotherModelBehindTheAlias(t *testing.T) {
	for then, want := range map[string]int{"a-search-preview": 200, "b-search-preview": 403} {
		var f *fence
		serves := func(model string) served {
			i := slices.IndexFunc(f.call.Snapshot.Providers(), func(p *policy.Provider) bool { return p.Dialect == policy.DialectOpenAI })
			s := served{*f.call.Snapshot.Providers()[i]}
			s.p.Models = []policy.ModelEntry{{Match: scope.Exact("alias"), Upstream: model}}
			return s
		}
		f, _ = toolFence(t, askingTools{}, func(q inference.Question) inference.Approved {
			a := yes(&f)(q)
			a.Snapshot = serves(then)
			return a
		})
		f.call.Snapshot = serves("a-search-preview")
		if status, text := f.responses(responses("alias")); status != want || (len(f.double.Received()) == 1) != (want == 200) {
			t.Errorf("%s: %d %s", then, status, text)
		}
	}
}

// What people let a model do on the provider's side is nothing that another model of a
// chain may do.
func TestAChainLeadsToNoModelThatPeopleWereNotAskedAbout(t *testing.T) {
	p := newPlaces(t, setup{}, "a", "b")
	p.call.View = askingTools{}
	p.call.Approve = func(_ context.Context, q inference.Question) inference.Approved { return yes(&p.fence)(q) }
	r := p.route()
	r.TooLong, r.To = []policy.RouteTarget{{Provider: "b", Model: "another", Weight: 1, Priority: 1}}, r.To[:1]
	p.of["a"].Fail(doubles.Fault{Status: 400, Body: `{"error":{"message":"x","code":"context_length_exceeded"}}`})
	if status, text := p.responses(responses("m", `{"type":"web_search"}`)); status != 400 || len(p.of["b"].Received()) != 0 {
		t.Errorf("%d %s", status, text)
	}
	p.event()
	p.of["a"].Fail(doubles.Fault{Status: 400, Body: `{"error":{"message":"x","code":"context_length_exceeded"}}`})
	if status, text := p.responses(responses("m", `{"type":"function","name":"f"}`)); status != 200 || len(p.of["b"].Received()) != 1 {
		t.Errorf("without such a tool: %d %s", status, text)
	}
}
