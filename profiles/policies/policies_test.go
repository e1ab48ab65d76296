// SPDX-License-Identifier: Apache-2.0

package policies_test

import (
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/profiles/policies"
)

// TestPacks asks every pack what it is made for and what it must refuse.
// A line is VERDICT HTTP-METHOD HOST:PORT/PATH, or VERDICT tool NAME, or VERDICT model NAME.
func TestPacks(t *testing.T) {
	tests := map[string][]string{
		"github-read-only": {
			"allow GET github.com:443/o/r/info/refs?service=git-upload-pack", "allow POST github.com:443/o/r/git-upload-pack",
			"allow POST github.com:443/o/r.git/git-upload-pack", "allow GET api.github.com:443/repos/o/r/issues",
			"allow GET codeload.github.com:443/o/r/tar.gz/main", "allow GET raw.githubusercontent.com:443/o/r/main/x",
			"block POST github.com:443/o/r.git/git-receive-pack", "block POST github.com:443/o/r/x/../git-upload-pack",
			"block POST github.com:443/login", "block POST api.github.com:443/repos/o/r/issues", "block POST api.github.com:443/graphql",
			"block PUT raw.githubusercontent.com:443/x", "block DELETE api.github.com:443/repos/o/r", "block GET uploads.github.com:443/x",
			"block GET gist.github.com:443/x", "block GET github.com:80/o/r", "block GET a.b.githubusercontent.com:443/x", "block GET example.com:443/",
		},
		"package-registries": {
			"allow GET registry.npmjs.org:443/left-pad", "allow POST registry.npmjs.org:443/-/npm/v1/security/advisories/bulk",
			"allow GET pypi.org:443/simple/requests/", "allow GET files.pythonhosted.org:443/packages/x.whl", "allow GET proxy.golang.org:443/x/@v/list",
			"allow GET sum.golang.org:443/lookup/x@v1", "allow GET index.crates.io:443/se/rd/serde", "allow GET static.crates.io:443/crates/x",
			"allow GET repo.maven.apache.org:443/maven2/x", "allow GET rubygems.org:443/gems/x.gem", "allow GET deb.debian.org:80/debian/dists/x",
			"allow GET archive.ubuntu.com:80/ubuntu/dists/x",
			"block PUT registry.npmjs.org:443/left-pad", "block POST registry.npmjs.org:443/-/v1/login", "block POST upload.pypi.org:443/legacy/",
			"block POST pypi.org:443/legacy/", "block PUT crates.io:443/api/v1/crates/new", "block POST rubygems.org:443/api/v1/gems",
			"block GET github.com:443/x", "block GET pypi.org:80/simple/",
		},
		"coding-agent": {
			"allow GET github.com:443/o/r/info/refs?service=git-receive-pack", "allow POST github.com:443/o/r.git/git-receive-pack",
			"allow POST api.github.com:443/repos/o/r/pulls", "allow PATCH api.github.com:443/repos/o/r/pulls/7", "allow GET pkg.go.dev:443/x",
			"block POST api.github.com:443/repos/o/r/issues", "block POST api.github.com:443/gists", "block DELETE api.github.com:443/repos/o/r",
			"block PUT api.github.com:443/repos/o/r/pulls/7/merge", "block GET gist.github.com:443/x", "block GET example.com:443/",
			"block POST pastebin.com:443/api", "block GET x.webhook.site:443/",
		},
		"data-agent": {
			"block GET github.com:443/", "block GET example.com:443/", "block tool web_search", "allow model gpt-5",
			"block POST pastebin.com:443/api",
		},
		"locked-down": {
			"block GET github.com:443/", "block GET localhost:80/", "block GET 8.8.8.8:443/", "block GET [2606:4700::1111]:443/",
			"block tool web_search", "allow model gpt-5",
		},
	}
	all, err := policies.All()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != len(tests) {
		t.Errorf("%d packs, %d are tested", len(all), len(tests))
	}
	for _, p := range all {
		t.Run(p.Name, func(t *testing.T) {
			if p.Description == "" || !strings.HasSuffix(p.File, "/"+p.Name+".yaml") {
				t.Errorf("file %q, description %q", p.File, p.Description)
			}
			view := viewOf(t, policies.Scope+"/team:default/agent:x", p.Text)
			for _, line := range tests[p.Name] {
				if got := verdict(t, view, line); !strings.HasPrefix(line, got+" ") {
					t.Errorf("%s: %s", line, got)
				}
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

func viewOf(t *testing.T, who, text string) *policy.View {
	t.Helper()
	docs, problems := policy.Parse("packs.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	snap, problems := policy.Compile(1, docs)
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	p, err := scope.ParsePrincipal(who)
	if err != nil {
		t.Fatal(err)
	}
	return snap.View(p)
}

func verdict(t *testing.T, v *policy.View, line string) string {
	t.Helper()
	words := strings.Fields(line)
	var d policy.Decision
	switch words[1] {
	case "tool":
		d = v.ProviderTool(words[2])
	case "model":
		d = v.Inference("openai", words[2])
	default:
		host, path, _ := strings.Cut(words[2], "/")
		port := uint16(443)
		host, plain := strings.CutSuffix(host, ":80")
		if plain {
			port = 80
		}
		host = strings.Trim(strings.TrimSuffix(host, ":443"), "[]")
		d = v.HTTP(host, port, words[1], "/"+path)
	}
	if d.Allowed {
		return "allow"
	}
	return "block"
}
