// SPDX-License-Identifier: Apache-2.0

package policies_test

import (
	"os"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/policy"
	_ "github.com/ringfence/ringfence/pkg/policy/celexpr"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/profiles/policies"
)

// TestPacks runs the tests of every pack: they pass, each rule decides one, and
// one fails without it.
func TestPacks(t *testing.T) {
	all, err := policies.All()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 5 {
		t.Errorf("%d packs", len(all))
	}
	for _, p := range all {
		t.Run(p.Name, func(t *testing.T) {
			if p.Description == "" || p.File != "pack:"+p.Name {
				t.Errorf("file %q, description %q", p.File, p.Description)
			}
			file := "testdata/" + p.Name + ".yaml"
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			suites, problems := policy.ParseSuite(file, text)
			if len(problems) > 0 || len(suites) != 1 {
				t.Fatal(policy.Problems(problems))
			}
			docs, snap := compiled(t, p.Text)
			outcomes := suites[0].Run(snap)
			for _, o := range outcomes {
				if !o.OK {
					t.Errorf("%s:%d: want %s %s, got %s by %q", o.Test.File, o.Test.Line, o.Test.Want, o.Test.Rule, o.Got, o.Rule)
				}
			}
			for _, c := range policy.Cover(docs, outcomes) {
				if c.Hits == 0 {
					t.Errorf("no test is decided by %s", c.Rule)
				}
			}
			if left := policy.Mutate(docs, suites); len(left) > 0 {
				t.Errorf("without one of these every test passes: %v", left)
			}
		})
	}
}

// opened is what somebody might apply beside a pack.
const opened = `
---
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: opened}
scope: org:local
egress:
  - {id: all, allow: "**:443"}
  - {id: four, allow: "8.8.8.8:443"}
tools:
  - {id: search, match: "server:provider/tool:*", action: allow}
`

func TestPacksThatCloseStandAgainstAllows(t *testing.T) {
	for name, lines := range map[string][]string{
		"locked-down":  {"GET example.com:443/", "GET 8.8.8.8:443/", "tool web_search"},
		"data-agent":   {"POST www.pastebin.com:443/", "tool web_search"},
		"coding-agent": {"GET gist.github.com:443/x"},
	} {
		p, ok, err := policies.Find(name)
		if !ok || err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		control := viewOf(t, policies.Scope+"/team:default/agent:x", opened)
		view := viewOf(t, policies.Scope+"/team:default/agent:x", p.Text+opened)
		for _, line := range lines {
			if verdict(t, control, "? "+line) != "allow" {
				t.Errorf("%s is blocked without the pack", line)
			}
			if verdict(t, view, "? "+line) != "block" {
				t.Errorf("%s opens %s", name, line)
			}
		}
	}
}

func TestPackForAnotherScope(t *testing.T) {
	p, ok, err := policies.Find("github-read-only")
	if !ok || err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, s := range []string{"org:acme/team:eng", "org:acme/team:ops/agent:x*"} {
		sel, err := scope.ParseSelector(s)
		if err != nil {
			t.Fatal(err)
		}
		q := p.For(sel)
		if q.Name == p.Name {
			t.Errorf("%s has no name of its own", s)
		}
		text += q.Text + "\n---\n"
	}
	const ask = "? GET github.com:443/x"
	for who, want := range map[string]string{
		"org:acme/team:eng/agent:a": "allow", "org:acme/team:ops/agent:x1": "allow", "org:acme/team:ops/agent:y": "block",
		policies.Scope + "/team:default/agent:x": "block",
	} {
		if got := verdict(t, viewOf(t, who, text), ask); got != want {
			t.Errorf("%s: %s", who, got)
		}
	}
	if _, ok, err := policies.Find("github"); ok || err != nil {
		t.Errorf("a pack named github: %v", err)
	}
}

func compiled(t *testing.T, text string) ([]policy.Document, *policy.Snapshot) {
	t.Helper()
	docs, problems := policy.Parse("packs.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	snap, problems := policy.Compile(1, docs)
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	return docs, snap
}

func viewOf(t *testing.T, who, text string) *policy.View {
	t.Helper()
	p, err := scope.ParsePrincipal(who)
	if err != nil {
		t.Fatal(err)
	}
	_, snap := compiled(t, text)
	return snap.View(p)
}

// verdict answers "? METHOD HOST:443/PATH" and "? tool NAME".
func verdict(t *testing.T, v *policy.View, line string) string {
	t.Helper()
	words := strings.Fields(line)
	var d policy.Decision
	if words[1] == "tool" {
		d = v.ProviderTool(words[2])
	} else {
		host, path, _ := strings.Cut(words[2], ":443/")
		d = v.HTTP(host, 443, words[1], "/"+path)
	}
	if d.Allowed() {
		return "allow"
	}
	return "block"
}
