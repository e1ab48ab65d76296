// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

func TestAskFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "eng.yaml"), []byte(testedPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	const pay = "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: pay}\nscope: org:acme\ntools:\n" +
		"  - {id: small, match: \"server:bank\", action: allow, when: {expression: \"args.amount < 100\"}}\n  - {id: any, match: \"server:bank\", action: require-approval}\n"
	if err := os.WriteFile(filepath.Join(dir, "pay.yaml"), []byte(pay), 0o600); err != nil {
		t.Fatal(err)
	}
	const routes = "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: routes}\nscope: org:acme\nroutes:\n" +
		"  - {id: fast, models: [fast], to: [{provider: eu, model: gpt-5-mini, weight: 3}, {provider: us, model: gpt-5-mini, priority: 2}]}\n" +
		"inference:\n  - {id: eu, deny: \"*\", mandatory: true, reason: \"no model calls in the US\", when: {expression: 'region == \"us\"'}}\n" +
		"---\napiVersion: ringfence.dev/v1\nkind: Provider\nmetadata: {name: eu}\ndialect: openai\nbaseURL: https://eu.example\nsecret: k\nregion: eu\n" +
		"---\napiVersion: ringfence.dev/v1\nkind: Provider\nmetadata: {name: us}\ndialect: openai\nbaseURL: https://us.example\nsecret: k\nregion: us\n"
	if err := os.WriteFile(filepath.Join(dir, "routes.yaml"), []byte(routes), 0o600); err != nil {
		t.Fatal(err)
	}
	const elsewhere = "apiVersion: ringfence.dev/v1\nkind: Provider\nmetadata: {name: own}\ndialect: openai\nbaseURL: https://own.example\nhosts: [own.example]\nsecret: k\n"
	if err := os.WriteFile(filepath.Join(dir, "elsewhere.yaml"), []byte(elsewhere), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"policy", "who-can", "--policy", "eng.yaml", "egress", "db.example:5432"}, exitOK, []string{"org:*     block", "org:acme  allow    eng/db eng.yaml:6"}},
		{[]string{"policy", "who-can", "--policy", "eng.yaml", "-o", "json", "model", "gpt-5"}, exitOK, []string{`"scope": "org:*"`, `"rule": "builtin/models"`}},
		{[]string{"policy", "who-can", "--policy", "eng.yaml", "egress", "db.example"}, exitUsage, []string{"a question names its port"}},
		{[]string{"policy", "who-can", "--policy", "eng.yaml", "file", "x"}, exitUsage, []string{`"file" cannot be asked about`}},
		{[]string{"policy", "who-can", "--policy", "eng.yaml", "model", "x", "--request", "GET /"}, exitUsage, []string{"--request goes with egress"}},
		{[]string{"policy", "who-can", "egress", "a.example:443"}, exitUnreachable, nil},
		{[]string{"explain", "--policy", "eng.yaml", "--as", "org:acme/team:t/agent:a", "egress", "db.example:443"}, exitOK,
			[]string{"verdict   block", "nearest   eng/db: is for port 5432", `to allow  add to a Policy document: egress: [{id: ID, allow: "db.example:443"}]`, "eng/db  eng.yaml:6  org    allow   db.example:5432  is for port 5432"}},
		{[]string{"explain", "--policy", "eng.yaml", "--as", "org:acme/team:t/agent:a", "-o", "json", "egress", "db.example:5432"}, exitOK, []string{`"verdict": "allow"`, `"ruleAt": "eng.yaml:6"`, `"matched": true`}},
		{[]string{"explain", "--policy", "pay.yaml", "--as", "org:acme/team:t/agent:a", "tool", "bank/pay", "--risk", "money", "--args", `{"amount": 5}`}, exitOK, []string{"verdict   allow", "rule      pay/small pay.yaml:6"}},
		{[]string{"explain", "--policy", "pay.yaml", "--as", "org:acme/team:t/agent:a", "tool", "bank/pay", "--args", `{"amount": 500}`}, exitOK, []string{"verdict   require-approval", "note: policy apply refuses this: pay.yaml:6:"}},
		{[]string{"explain", "--policy", "pay.yaml", "--as", "org:acme/team:t/agent:a", "tool", "bank/pay", "--risk", "mony"}, exitUsage, []string{`did you mean "money"?`}},
		{[]string{"explain", "--policy", "pay.yaml", "--as", "org:acme/team:t/agent:a", "tool", "bank/pay", "--args", "5"}, exitUsage, []string{"--args is not a JSON object"}},
		{[]string{"explain", "--policy", "pay.yaml", "--as", "org:acme/team:t/agent:a", "tool", "bank/pay", "--at", "noon"}, exitUsage, []string{"is no time"}},
		{[]string{"explain", "--policy", "routes.yaml", "--as", "org:acme/team:t/agent:a", "model", "fast"}, exitOK,
			[]string{"verdict   allow", "route     routes/fast (routes.yaml:6)", "eu           gpt-5-mini  eu      -     1         3       allow", "us           gpt-5-mini  us      -     2         1       block    no model calls in the US"}},
		{[]string{"explain", "--policy", "routes.yaml", "--as", "org:acme/team:t/agent:a", "-o", "json", "model", "fast"}, exitOK,
			[]string{`"route": "routes/fast (routes.yaml:6)"`, `"provider": "eu"`, `"model": "gpt-5-mini"`}},
		{[]string{"explain", "--policy", "eng.yaml", "--as", "org:acme/team:t/agent:a", "model", "gpt-5"}, exitOK, []string{"by the built-in trial provider"}},
		{[]string{"explain", "--policy", "elsewhere.yaml", "--as", "org:acme/team:t/agent:a", "model", "gpt-5"}, exitOK, []string{"by nobody: agents of this scope reach no provider of the dialect at its own host"}},
		{[]string{"explain", "--as", "org:acme", "egress", "db.example:443"}, exitUsage, []string{"--as: "}},
		{[]string{"explain", "--policy", "eng.yaml", "1042"}, exitUsage, []string{"--policy goes with --as"}},
		{[]string{"explain", "--as", "org:acme/team:t/agent:a", "1042"}, exitUsage, nil},
	} {
		cmd := tool(t, "/nonexistent", c.args...)
		cmd.Dir = dir
		r := finish(t, cmd)
		r.check(t, fmt.Sprintf("%q", c.args), c.code, c.want)
	}
}

// What is in force is read back as it is: two documents of one file once each,
// one of a sandbox for that sandbox only.
func TestInForce(t *testing.T) {
	two := testedPolicy + "---\n" + strings.NewReplacer("name: eng", "name: two", "org:acme", "org:two").Replace(testedPolicy)
	const only = "org:acme/team:t/agent:a/sandbox:s1"
	docs, err := inForce(api.PolicyView{Documents: []api.PolicyDocument{
		{Kind: "Policy", Name: "eng", Scope: "org:acme", File: "two.yaml", Text: two}, {Kind: "Policy", Name: "two", Scope: "org:two", File: "two.yaml", Text: two},
		{Kind: "Policy", Name: "own", Scope: only, File: "s1/own.yaml", Text: strings.Replace(testedPolicy, "name: eng", "name: own", 1)},
	}})
	if err != nil || len(docs) != 3 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	snap, err := compile(3, docs)
	if err != nil {
		t.Fatal(err)
	}
	for as, rule := range map[string]string{only: "eng/db", "org:two/team:t/agent:a": "two/db"} {
		p, err := scope.ParsePrincipal(as)
		if err != nil {
			t.Fatal(err)
		}
		if d := snap.View(p).Egress("db.example", 5432); !d.Allowed() || d.Rule.String() != rule {
			t.Errorf("%s: %+v", as, d)
		}
	}
	if docs[2].Scope.Level() != scope.LevelSandbox || docs[2].Kind != policy.KindPolicy {
		t.Errorf("%+v", docs[2])
	}
	if _, err := inForce(api.PolicyView{Documents: []api.PolicyDocument{{File: "new.yaml", Text: "kind: Newer\n"}}}); err == nil {
		t.Error("a document that is not understood was left out")
	}
}

// Of a node's policy a viewer of one scope is told what is so there.
func TestAnswersAreOfTheScopesThatOneSees(t *testing.T) {
	sel := func(text string) scope.Selector {
		s, err := scope.ParseSelector(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	row := func(text, why string) policy.Who {
		return policy.Who{Scope: sel(text), Decision: policy.Decision{Reason: why}}
	}
	rows := []policy.Who{row("org:*", "node"), row("org:acme", "acme"), row("org:other", "other"), row("org:acme/team:pay/agent:a", "a"), row("org:acme/team:hr", "hr")}
	for _, c := range []struct{ in, want string }{
		{"", "org:* node, org:acme acme, org:other other, org:acme/team:pay/agent:a a, org:acme/team:hr hr"},
		{"org:acme/team:pay", "org:acme/team:pay acme, org:acme/team:pay/agent:a a"},
		{"org:acme/team:hr", "org:acme/team:hr hr"},
		{"org:new/team:x", "org:new/team:x node"},
		{"org:acme", "org:acme acme, org:acme/team:pay/agent:a a, org:acme/team:hr hr"},
	} {
		var in scopes
		if c.in != "" {
			in = scopes{sel(c.in)}
		}
		var got []string
		for _, r := range in.narrow(rows) {
			got = append(got, r.Scope.String()+" "+r.Decision.Reason)
		}
		if g := strings.Join(got, ", "); g != c.want {
			t.Errorf("%s: got %s, want %s", c.in, g, c.want)
		}
	}
}
