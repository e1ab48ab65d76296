// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
	_ "github.com/ringfence/ringfence/pkg/policy/celexpr"
)

const bot = "org:acme/team:eng/agent:bot/sandbox:s1"

func docs(t *testing.T, rules string) []policy.Document {
	t.Helper()
	out, problems := policy.ParseWhole("p.yaml", []byte("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: org:acme\n"+rules))
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	return out
}

func snapshot(t *testing.T, rules string) *policy.Snapshot {
	t.Helper()
	s, problems := policy.Compile(1, docs(t, rules))
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	return s
}

// record is a decision that went through the log.
func record(t *testing.T, e event.Event) *event.Event {
	t.Helper()
	if e.Scope == "" {
		e.Scope = bot
	}
	e.Sandbox = "s1"
	if e.Time.IsZero() {
		e.Time = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	}
	line, err := e.AppendOCSF(nil, event.Node{})
	if err != nil {
		t.Fatal(err)
	}
	back, err := event.ParseOCSF(line)
	if err != nil {
		t.Fatal(err)
	}
	return &back
}

func denied(kind event.Kind, host string, port uint16) event.Event {
	return event.Event{Kind: kind, Verdict: event.Denied, ReasonCode: policy.CodeNoRule, DstName: host, DstPort: port, DstAddr: "198.18.0.9:" + fmt.Sprint(port), Proto: "tcp"}
}

func with(e event.Event, change func(*event.Event)) event.Event {
	change(&e)
	return e
}

func TestCompare(t *testing.T) {
	const before = `egress: [{id: a, allow: "x.test:443"}, {id: b, allow: "r.test:443", http: {methods: [GET]}}, {id: u, allow: "u.test:99/udp"}, {id: w, allow: "w.test:443"}]` + "\n"
	const after = `egress: [{id: b, allow: "r.test:443", http: {methods: [POST]}}, {id: n, deny: "203.0.112.0/24"}, {id: w, allow: "w.test:443"}, {id: s, allow: "8.8.8.8:443"}]
inference: [{id: m, deny: "gpt-*"}]
`
	request := func(method string) event.Event {
		return with(denied(event.KindHTTP, "r.test", 443), func(e *event.Event) { e.Method, e.URL = method, "https://r.test/a/b" })
	}
	for name, c := range map[string]struct {
		e    event.Event
		want string // question, before, after; or why nothing was asked
	}{
		"connection":    {with(denied(event.KindNetwork, "x.test", 443), func(e *event.Event) { e.Verdict, e.Count = event.Allowed, 3 }), "3 x.test:443: allow p/a, block "},
		"name":          {denied(event.KindDNS, "x.test", 53), "1 name x.test: allow p/a, block "},
		"request":       {request(http.MethodPost), "1 POST /a/b on r.test:443: block , allow p/b"},
		"the other one": {request(http.MethodGet), "1 GET /a/b on r.test:443: allow p/b, block "},
		"datagrams":     {with(denied(event.KindNetwork, "u.test", 99), func(e *event.Event) { e.Proto = "udp" }), "1 u.test:99/udp: allow p/u, block "},
		"address":       {with(denied(event.KindNetwork, "", 0), func(e *event.Event) { e.DstAddr = "8.8.8.8:443" }), "1 8.8.8.8:443: block , allow p/s"},
		"peer":          {with(denied(event.KindNetwork, "w.test", 443), func(e *event.Event) { e.Verdict, e.PeerAddr = event.Allowed, "203.0.112.7:443" }), "1 w.test:443: allow p/w, block p/w"},
		"no change":     {denied(event.KindNetwork, "w.test", 443), "1 decided"},
		"model": {event.Event{Kind: event.KindInference, Verdict: event.Allowed, DstName: "api.openai.com", DstPort: 443, Model: "gpt-4", Provider: "trial", Method: "POST", URL: "https://api.openai.com/v1/responses"},
			"1 model gpt-4 at api.openai.com: allow builtin/models, block p/m"},
		"no model":     {event.Event{Kind: event.KindInference, Verdict: event.Denied, ReasonCode: policy.CodeNoRule, DstName: "api.openai.com"}, "the record names no model"},
		"not policy":   {with(denied(event.KindNetwork, "x.test", 443), func(e *event.Event) { e.ReasonCode = "sni-mismatch" }), "decided by something else than policy: sni-mismatch"},
		"cut":          {with(request("GET"), func(e *event.Event) { e.Truncated = true }), "the record was cut"},
		"icmp":         {with(denied(event.KindNetwork, "", 1), func(e *event.Event) { e.Proto = "icmp" }), "the record is about protocol icmp"},
		"no principal": {with(denied(event.KindNetwork, "x.test", 443), func(e *event.Event) { e.Scope = "org:acme" }), "the record names no principal"},
		"no name":      {denied(event.KindDNS, "a..b", 53), "the record holds no name that can be decided on"},
		"no request":   {with(request(""), func(e *event.Event) { e.URL = "" }), "the record holds no request"},
		"no decision":  {event.Event{Kind: event.KindExec, Verdict: event.Observed}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cmp := Comparison{From: snapshot(t, before), To: snapshot(t, after)}
			cmp.Add(record(t, c.e))
			got := ""
			for why := range cmp.Undecidable {
				got = why
			}
			if cmp.Decided > 0 {
				got = fmt.Sprintf("%d decided", cmp.Decided)
			}
			for _, x := range cmp.Changes() {
				got = fmt.Sprintf("%d %s: %s %s, %s %s", x.Count, x.Question, x.From.Verdict, x.From.Rule, x.To.Verdict, x.To.Rule)
				if x.Scope != "org:acme/team:eng/agent:bot" {
					t.Error(x.Scope)
				}
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Changes are folded by agent, and asked at the time of the record.
func TestCompareFoldsAndKeepsTime(t *testing.T) {
	cmp := Comparison{From: snapshot(t, `egress: [{id: a, allow: "x.test:443"}]`), To: snapshot(t, `egress: [{id: a, allow: "x.test:443", when: {windows: [{from: "08:00", to: "18:00"}]}}]`)}
	for i, at := range []int{12, 20, 21} {
		e := denied(event.KindNetwork, "x.test", 443)
		e.Time, e.Scope = time.Date(2026, 3, 2, at, 0, 0, 0, time.UTC), fmt.Sprintf("org:acme/team:eng/agent:bot/sandbox:s%d", i)
		cmp.Add(record(t, e))
	}
	if got := cmp.Changes(); len(got) != 1 || got[0].Count != 2 || cmp.Decided != 3 || cmp.Changed != 2 {
		t.Errorf("%+v %+v", cmp, got)
	}
}

func learned(t *testing.T, l *Lesson, events ...event.Event) string {
	t.Helper()
	for _, e := range events {
		l.Add(record(t, e))
	}
	rules, left, err := l.Rules()
	if err != nil {
		t.Fatal(err)
	}
	text, err := Document(rules, left, l.Beyond)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestLearn(t *testing.T) {
	inForce := docs(t, `egress: [{id: r, allow: "r.test:443", http: {methods: [GET]}}, {id: no, deny: "no.test"}, {id: ok, allow: "ok.test:443"}]`)
	post := func(path string) event.Event {
		return with(denied(event.KindHTTP, "r.test", 443), func(e *event.Event) { e.Method, e.URL = "POST", "https://r.test"+path })
	}
	for name, c := range map[string]struct {
		l      Lesson
		events []event.Event
		want   []string // all in the text
		never  []string
	}{
		"exact": {Lesson{}, []event.Event{denied(event.KindNetwork, "a.x.test", 443), denied(event.KindNetwork, "a.x.test", 443), denied(event.KindNetwork, "b.x.test", 8443)},
			[]string{`scope: "org:acme/team:eng/agent:bot"`, "# refused 2 times, last 2026-03-02 12:00:00\n  - {id: \"a.x.test-443\", allow: \"a.x.test:443\"}", `allow: "b.x.test:8443"`}, []string{"*."}},
		"wildcard": {Lesson{Wildcard: true}, []event.Event{denied(event.KindNetwork, "a.x.test", 443), denied(event.KindNetwork, "b.x.test", 443), denied(event.KindNetwork, "a.test", 443), denied(event.KindNetwork, "b.test", 443), denied(event.KindNetwork, "c.y.test", 443)},
			[]string{"# for a.x.test:443\n", "# for b.x.test:443\n", `allow: "*.x.test:443"`, `allow: "a.test:443"`, `allow: "b.test:443"`, `allow: "c.y.test:443"`}, []string{`"*.test`}},
		"a name alone":          {Lesson{}, []event.Event{denied(event.KindDNS, "n.test", 53)}, []string{"# once names that were asked for, and nothing says at which port (--port N takes one): n.test"}, []string{"kind"}},
		"a name with a port":    {Lesson{Port: 443}, []event.Event{denied(event.KindDNS, "n.test", 53)}, []string{`allow: "n.test:443"`}, nil},
		"a name and its port":   {Lesson{Port: 443}, []event.Event{denied(event.KindDNS, "n.test", 53), denied(event.KindNetwork, "n.test", 22)}, []string{`allow: "n.test:22"`}, []string{":443"}},
		"requests":              {Lesson{}, []event.Event{post("/a"), post("/b"), post("/a%41")}, []string{`allow: "r.test:443", http: {methods: ["POST"], paths: ["/a", "/aA", "/b"]}}`}, nil},
		"a path that is a risk": {Lesson{}, []event.Event{post("/a//b"), post("/*")}, []string{"once requests whose path no rule can name exactly: POST /a//b"}, []string{"kind"}},
		"datagrams":             {Lesson{}, []event.Event{with(denied(event.KindNetwork, "u.test", 99), func(e *event.Event) { e.Proto = "udp" })}, []string{`allow: "u.test:99/udp"`}, nil},
		"by a rule": {Lesson{}, []event.Event{with(denied(event.KindNetwork, "no.test", 443), func(e *event.Event) { e.ReasonCode, e.Rule = policy.CodeRule, "p/no" }), denied(event.KindNetwork, "no.test", 443)},
			[]string{"refused by a rule, or for good: p/no", "refused by a rule by now: p/no"}, []string{"kind"}},
		"private": {Lesson{}, []event.Event{with(denied(event.KindNetwork, "", 0), func(e *event.Event) { e.DstAddr = "169.254.169.254:80" }), with(denied(event.KindNetwork, "", 0), func(e *event.Event) { e.DstAddr = "[::ffff:10.0.0.1]:80" }),
			with(denied(event.KindNetwork, "in.test", 443), func(e *event.Event) { e.ReasonCode = "private-address" })},
			[]string{"not public: 169.254.169.254", "not public: 10.0.0.1", "something else than policy: private-address"}, []string{"kind"}},
		"allowed by now":   {Lesson{}, []event.Event{denied(event.KindNetwork, "ok.test", 443)}, []string{"once allowed by now"}, []string{"kind"}},
		"what was allowed": {Lesson{}, []event.Event{with(denied(event.KindNetwork, "y.test", 443), func(e *event.Event) { e.Verdict = event.Allowed })}, nil, []string{"y.test"}},
		"a model":          {Lesson{}, []event.Event{{Kind: event.KindInference, Verdict: event.Denied, ReasonCode: policy.CodeNoRule, Model: "m", DstName: "api.openai.com"}}, []string{"about models"}, []string{"kind"}},
		"an address":       {Lesson{}, []event.Event{with(denied(event.KindNetwork, "", 0), func(e *event.Event) { e.DstAddr = "[2606:4700::1]:443" })}, []string{`allow: "[2606:4700::1]:443"`}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c.l.Docs = inForce
			text := learned(t, &c.l, c.events...)
			for _, w := range c.want {
				if !strings.Contains(text, w) {
					t.Errorf("no %q in\n%s", w, text)
				}
			}
			for _, w := range c.never {
				if strings.Contains(text, w) {
					t.Errorf("%q in\n%s", w, text)
				}
			}
		})
	}
}

// What was learned allows everything that it was learned from, and what a
// sandbox chose never leaves its comment.
func TestLearnedAllowsWhatWasRefused(t *testing.T) {
	events := []event.Event{denied(event.KindNetwork, "a.x.test", 443), denied(event.KindNetwork, "b.x.test", 443), denied(event.KindDNS, "c.test", 53),
		with(denied(event.KindNetwork, "a.x.test", 443), func(e *event.Event) { e.Scope = "org:acme/team:eng/agent:it's \"me\"\n/sandbox:s2" }),
		with(denied(event.KindNetwork, "a.x.test", 443), func(e *event.Event) { e.Scope = "org:acme/team:eng/agent:o%0Ax%3A/sandbox:s2" }),
		with(denied(event.KindNetwork, "u.test", 99), func(e *event.Event) { e.Proto = "udp" }),
		with(denied(event.KindHTTP, "r.test", 443), func(e *event.Event) { e.Method, e.URL = "POST", "https://r.test/%0Aegress:%20\"x\"" }),
	}
	inForce := docs(t, `egress: [{id: r, allow: "r.test:443", http: {methods: [GET]}}]`)
	for _, wildcard := range []bool{false, true} {
		text := learned(t, &Lesson{Docs: inForce, Port: 443, Wildcard: wildcard}, events...)
		more, problems := policy.Parse("l.yaml", []byte(text))
		if len(problems) > 0 {
			t.Fatal(policy.Problems(problems), text)
		}
		s, problems := policy.Compile(2, append(more, inForce...))
		if len(problems) > 0 {
			t.Fatal(policy.Problems(problems))
		}
		asked := 0
		for _, e := range events {
			p, why := Read(record(t, e))
			if why != "" {
				continue
			}
			asked++
			d := p.Decide(s)
			if _, exact := policy.ExactPath(p.Question.Path); !d.Allowed() && (p.Question.Method == "" || exact) {
				t.Errorf("%s: %s\n%s", p.Text(), d.Reason, text)
			}
		}
		if asked < 5 {
			t.Errorf("%d asked", asked)
		}
	}
}

// alike are refusals whose ids and names are each other's with a number behind.
func alike() (out []event.Event) {
	for _, agent := range []string{"org:acme/team:eng/agent:a", "org:other/team:eng/agent:a", "org:acme/team:eng/agent:a-2", "org:other/team:eng/agent:a-2"} {
		for _, e := range []event.Event{denied(event.KindNetwork, "a.b-443", 2), denied(event.KindHTTP, "a.b", 443), denied(event.KindHTTP, "a.b", 443)} {
			if e.Scope = agent; e.Kind == event.KindHTTP {
				e.Method, e.URL = []string{"GET", "POST"}[len(out)%2], "https://a.b/x"
			}
			out = append(out, e)
		}
	}
	return out
}

func TestLearnedIDsAreUnique(t *testing.T) {
	inForce := docs(t, `egress: [{id: r, allow: "a.b:443", http: {methods: [PUT]}}]`)
	inForce = append(inForce, inForce[0])
	inForce[1].Scope.Org.Text = "other"
	text := learned(t, &Lesson{Docs: inForce}, alike()...)
	got, problems := policy.Parse("l.yaml", []byte(text))
	if len(problems) > 0 || len(got) != 4 {
		t.Fatal(policy.Problems(problems), text)
	}
	names := map[string]bool{}
	for _, d := range got {
		if names[d.Name] || len(d.Policy.Egress) != 3 {
			t.Errorf("%s: a name twice, or not three rules:\n%s", d.Name, text)
		}
		names[d.Name] = true
	}
}

// Whatever a log holds, what is written is documents, or comments.
func FuzzLearn(f *testing.F) {
	inForce, problems := policy.Parse("p.yaml", []byte("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: org:acme\negress: [{id: r, allow: \"r.test:443\", http: {methods: [GET]}}]\n"))
	if len(problems) > 0 {
		f.Fatal(problems)
	}
	for _, e := range []event.Event{denied(event.KindNetwork, "a.x.test", 443), denied(event.KindDNS, "n.test", 53), with(denied(event.KindHTTP, "r.test", 443), func(e *event.Event) { e.Method, e.URL = "POST", "https://r.test/a" })} {
		e.Scope, e.Time = bot, time.Unix(1, 0)
		line, err := e.AppendOCSF(nil, event.Node{})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(line), e.Scope, e.DstName, e.Method, e.URL, e.DstAddr, "", "", uint16(0))
		f.Add(string(line), e.Scope, "r.test", "DELETE", "https://r.test/a", "", e.Scope, "r.test-443", uint16(2))
		f.Add(string(line), "org:acme/team:eng/agent:bot-2", "r.test", "DELETE", "https://r.test/a", "", "org:other/team:eng/agent:bot", "r.test", uint16(443))
	}
	f.Fuzz(func(t *testing.T, line, scope, name, method, url, addr, scope2, name2 string, port uint16) {
		l := &Lesson{Docs: inForce, Port: 443, Wildcard: true}
		if ev, err := event.ParseOCSF([]byte(line)); err == nil {
			l.Add(&ev)
		}
		for _, kind := range []event.Kind{event.KindNetwork, event.KindDNS, event.KindHTTP} {
			e := denied(kind, name, 443)
			e.Scope, e.Method, e.URL, e.DstAddr = scope, method, url, addr
			l.Add(&e)
			e = denied(kind, name2, port)
			e.Scope, e.Method, e.URL = scope2, "PUT", url
			l.Add(&e)
		}
		rules, left, err := l.Rules()
		if err != nil {
			t.Fatal(err)
		}
		text, err := Document(rules, left, l.Beyond)
		if err != nil {
			t.Fatal(err)
		}
		written, _ := policy.Parse("l.yaml", []byte(text))
		for i, d := range written {
			if slices.ContainsFunc(written[:i], func(o policy.Document) bool { return o.Name == d.Name }) {
				t.Fatalf("two documents are named %s:\n%s", d.Name, text)
			}
		}
		for i := range len(text) {
			if c := text[i]; c >= 0x7f || c < 0x20 && c != '\n' {
				t.Fatalf("%q", text)
			}
		}
	})
}

// A rule holds so many paths; more of them make more rules.
func TestManyPathsAreLearned(t *testing.T) {
	l := &Lesson{Docs: docs(t, `egress: [{id: r, allow: "r.test:443", http: {methods: [PUT]}}]`)}
	for i := range 2*policy.MaxList + 1 {
		e := denied(event.KindHTTP, "r.test", 443)
		e.Scope, e.Method, e.URL = bot, "GET", fmt.Sprintf("https://r.test/%d", i)
		l.Add(&e)
	}
	got, problems := policy.Parse("l.yaml", []byte(learned(t, l)))
	if len(problems) > 0 || len(got) != 1 || len(got[0].Policy.Egress) != 3 {
		t.Errorf("%d documents, %v", len(got), policy.Problems(problems))
	}
}

func TestLessonsAreBounded(t *testing.T) {
	l := &Lesson{Docs: docs(t, `egress: [{id: a, allow: "x.test:443"}]`)}
	for i := range MaxLearned + 50 {
		e := denied(event.KindNetwork, fmt.Sprintf("h%d.test", i), 443)
		e.Scope = bot
		l.Add(&e)
	}
	if rules, _, err := l.Rules(); err != nil || len(rules) != MaxLearned || l.Beyond != 50 {
		t.Errorf("%d rules, %d beyond, %v", len(rules), l.Beyond, err)
	}
}
