// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// TestPolicyLearn: what is learned from a run that was refused makes the same
// run pass, and nothing is learned from what a rule or the guard of private
// addresses refuses.
func TestPolicyLearn(t *testing.T) {
	w := newWorld(t)
	w.site(t, "open.test", doubles.Page("fine"))
	w.site(t, "blocked.test", doubles.Page("fine"))
	w.site(t, "part.test", doubles.Page("fine"))
	public := w.site(t, "addr.test", doubles.Page("fine"))
	n := w.start(t, node.Options{Policies: map[string]string{"p.yaml": `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: p}
scope: org:local
egress:
  - {id: no, deny: "blocked.test"}
  - {id: read, allow: "part.test:443", http: {methods: [GET]}}
`}})
	ws := n.Workspace(t)
	script := `ask() { curl -sk -m 5 -o /dev/null -w '%{http_code}' "$@"; echo " $*"; }
ask https://open.test/a; ask https://blocked.test/; ask -X POST https://part.test/write; ask -X POST https://part.test/other
ask https://` + public + `/; ask https://` + privateAddr + `/; exit 0`
	run := func() string {
		t.Helper()
		r := n.CLIIn(t, ws, "run", "-q", "--name", "learner", "--as", "org:local/team:default/agent:learner", "--profile", "coding", "--", "sh", "-c", script)
		if r.Code != 0 {
			t.Fatal(r.Stdout, r.Stderr)
		}
		return r.Stdout
	}
	before := run()
	if strings.Contains(before, "200 ") {
		t.Fatalf("something passed before anything was learned:\n%s", before)
	}
	r := n.CLI(t, "policy", "learn", "--port", "443")
	if r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	contains(t, "learned", r.Stdout, `scope: "org:local/team:default/agent:learner"`, `allow: "open.test:443"}`, `allow: "part.test:443", http: {methods: ["POST"], paths: ["/other", "/write"]}`,
		`allow: "`+public+`:443"}`, "refused by a rule, or for good: p/no", "to an address that is not public: "+privateAddr)
	if strings.Contains(r.Stdout, `allow: "blocked`) || strings.Contains(r.Stdout, `allow: "`+privateAddr) {
		t.Fatalf("learned from what a rule or the guard refused:\n%s", r.Stdout)
	}
	file := put(t, ws, "learned.yaml", r.Stdout)
	log := filepath.Join(n.StateDir, "events")
	d := n.CLI(t, "policy", "diff", filepath.Join(n.PolicyDir, "p.yaml"), "live", "--replay", "live")
	contains(t, "no change", d.Stdout, "0 of ")
	if r := n.CLI(t, "policy", "apply", "--wait", file); r.Code != 0 {
		t.Fatal(r.Stdout, r.Stderr)
	}
	for _, from := range []string{"live", log} {
		d = n.CLI(t, "policy", "diff", filepath.Join(n.PolicyDir, "p.yaml"), "live", "--replay", from)
		contains(t, "changes by "+from, d.Stdout, "POST /write on part.test:443", "block", "allow by learned-learner/part.test-443", "allow by learned-learner/open.test-443", public+":443", "past decisions would change")
	}
	after := run()
	for _, line := range strings.Split(strings.TrimSpace(after), "\n") {
		want := !strings.Contains(line, "blocked.test") && !strings.Contains(line, privateAddr)
		if strings.HasPrefix(line, "200 ") != want {
			t.Errorf("after: %s", line)
		}
	}
	if netip.MustParseAddr(public).IsPrivate() {
		t.Error("the world's public address is private")
	}
	r = n.CLI(t, "policy", "learn", "--port", "443")
	contains(t, "learned again", r.Stdout, "allowed by now")
	if strings.Contains(r.Stdout, "kind: Policy") {
		t.Errorf("something is learned again:\n%s", r.Stdout)
	}
}
