// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// TestPolicyList: each rule in force is listed with what it has in the kernel,
// and with every decision it made there and in the gateway, also for sandboxes
// that have ended and on policies that were replaced.
func TestPolicyList(t *testing.T) {
	w := newWorld(t)
	w.site(t, "web.test", doubles.Page("fine"))
	n := w.start(t, node.Options{Policies: map[string]string{"p.yaml": `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: p}
scope: org:local
egress:
  - {id: read, allow: "web.test:443", http: {methods: [GET]}}
  - {id: post, deny: "web.test:443", http: {methods: [POST]}}
  - {id: no, deny: "192.0.2.0/24"}
  - {id: unused, allow: "other.test:443"}
`}})
	ws := n.Workspace(t)
	list := func() map[string]api.RuleUse {
		t.Helper()
		r := n.CLI(t, "policy", "list", "-o", "json")
		var u api.PolicyUse
		if err := json.Unmarshal([]byte(r.Stdout), &u); r.Code != 0 || err != nil {
			t.Fatalf("exit %d %v %s %s", r.Code, err, r.Stdout, r.Stderr)
		}
		if u.KernelBytes == 0 || len(u.Maps) == 0 {
			t.Errorf("no kernel memory in %s", r.Stdout)
		}
		out := map[string]api.RuleUse{}
		for _, r := range u.Rules {
			out[r.Rule] = r
		}
		return out
	}
	const script = `
curl -sk https://web.test/a; curl -sk https://web.test/b; curl -sk -X POST https://web.test/c >/dev/null
for i in 1 2 3 4 5; do curl -s -m 5 http://192.0.2.$i/; done; exit 0`
	sandboxed(t, n, ws, "default", script)
	sandboxed(t, n, ws, "default", `curl -sS -o /dev/null https://api.openai.com/v1/chat/completions -H 'content-type: application/json' -d '{"model":"m","messages":[{"role":"user","content":"hi"}]}'`)
	// Questions for its name count, too.
	eventually(t, "a hit of the built-in rule", func() bool { return list()["builtin/models"].GatewayHits >= 2 })
	if r := n.CLIIn(t, ws, "run", "--detach", "--name", "lives", "--profile", "coding", "--", "sh", "-c", "curl -sk https://web.test/; sleep 1000"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	check := func(what string, hits map[string][2]uint64) {
		t.Helper()
		var got map[string]api.RuleUse
		eventually(t, what, func() bool {
			got = list()
			for rule, h := range hits {
				if got[rule].KernelHits < h[0] || got[rule].GatewayHits < h[1] {
					return false
				}
			}
			return true
		})
		for rule, h := range hits {
			if got[rule].KernelHits != h[0] || got[rule].GatewayHits != h[1] {
				t.Errorf("%s: %s: %d hits in the kernel and %d in the gateway, want %v", what, rule, got[rule].KernelHits, got[rule].GatewayHits, h)
			}
		}
		if r := got["p/read"]; r.Sandboxes != 1 || r.Entries == 0 || r.Effect != "allow" || r.Scope != "org:local" {
			t.Errorf("%s: %+v", what, r)
		}
		if r := got["p/no"]; r.Entries == 0 {
			t.Errorf("%s: %+v", what, r)
		}
	}
	// In the kernel the three connections of the ended sandbox and one of the
	// living one; in the gateway three requests and the questions for the name,
	// which curl asks for IPv4 and IPv6.
	want := map[string][2]uint64{"p/read": {4, 3 + 2*4}, "p/post": {0, 1}, "p/no": {5, 0}, "p/unused": {0, 0}}
	check("one policy", want)
	n.WritePolicy(t, "q.yaml", `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: q}
scope: org:local
egress:
  - {id: new, allow: "new.test:443"}
`)
	eventually(t, "the next policy", func() bool { _, ok := list()["q/new"]; return ok })
	check("another policy", want)
	r := n.CLI(t, "policy", "list", "--documents")
	contains(t, "table", r.Stdout, "RULE", "KERNEL HITS", "counted since", "/policy/p.yaml", "documents: 2 Policy", "builtin/models")
	if r := n.CLI(t, "stop", "lives"); r.Code != 0 {
		t.Error(r.Stderr)
	}
}
