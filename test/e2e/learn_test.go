// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
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
	after := revisionOf(t, n, "policy", "apply", "--wait", file)
	d = n.CLI(t, "policy", "diff", fmt.Sprint(after-1), fmt.Sprint(after), "--replay", "live")
	contains(t, "changes between revisions", d.Stdout, "allow by learned-learner/open.test-443", "past decisions would change")
	for _, from := range []string{"live", log} {
		d = n.CLI(t, "policy", "diff", filepath.Join(n.PolicyDir, "p.yaml"), "live", "--replay", from)
		contains(t, "changes by "+from, d.Stdout, "POST /write on part.test:443", "block", "allow by learned-learner/part.test-443", "allow by learned-learner/open.test-443", public+":443", "past decisions would change")
	}
	then := run()
	for _, line := range strings.Split(strings.TrimSpace(then), "\n") {
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

// TestProofsOfWhatIsInForce: live stands for all documents, and who sees only
// some of them is told so instead of being given an answer about those.
func TestProofsOfWhatIsInForce(t *testing.T) {
	w := newWorld(t)
	gid := memberGID(t)
	n := w.start(t, node.Options{Config: "group: " + memberGroup + "\n", Policies: map[string]string{"p.yaml": policyText("p", `allow: "a.test:443"`)}})
	ws := n.Workspace(t)
	wider := put(t, ws, "wider.yaml", policyText("wider", `allow: "**.test:443"`))
	if r := n.CLIIn(t, ws, "policy", "prove", "live", "--no-more-permissive-than", wider); r.Code != 0 {
		t.Errorf("exit %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	r := n.CLIIn(t, ws, "policy", "prove", wider, "--no-more-permissive-than", "live")
	if r.Code != 1 {
		t.Errorf("exit %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	contains(t, "counterexample", r.Stdout, "allow by wider/a /", "/wider.yaml:6\n")
	if r := n.CLIIn(t, ws, "policy", "lint", "live", "--hits"); r.Code != 1 || !strings.Contains(r.Stdout, "never-hit: p/a: it decided nothing since") {
		t.Errorf("exit %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if r := n.CLIIn(t, ws, "policy", "lint", "live", "--running"); r.Code != 2 || !strings.Contains(r.Stderr, "no sandbox runs") {
		t.Errorf("exit %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	guest := newPerson(t, n, 64050, gid)
	access(t, n, ws, "viewer", "org:local/team:x")
	const says = "you see the documents in force for org:local/team:x only"
	for _, args := range [][]string{{"lint", "live"}, {"prove", "live", "--no-more-permissive-than", "pack:locked-down"}, {"diff", "live", "pack:locked-down", "--replay", "live"}} {
		guest.refused(t, says, append([]string{"policy"}, args...)...)
	}
	access(t, n, ws, "viewer", "org:*") // the control
	if r := guest.run(t, "policy", "prove", "live", "--no-more-permissive-than", "live"); r.Code != 0 {
		t.Errorf("a viewer of all: exit %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
}
