// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"regexp"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// TestAllowedButFailed: what policy allows and the destination does not give is
// listed at the end of run with its reason, apart from what was refused.
func TestAllowedButFailed(t *testing.T) {
	w := newWorld(t)
	w.site(t, "fine.test", doubles.Page("fine"))
	w.hosts["down.test"] = w.address() // nothing listens
	w.hosts["hole.test"] = publicBase + "200"
	stranger, err := doubles.NewCA()
	need(t, err)
	badcert := w.address()
	w.hosts["badcert.test"] = badcert
	s, err := stranger.Serve(w.listen(t, badcert+":443"), doubles.Page("bad"), "badcert.test")
	need(t, err)
	t.Cleanup(func() { _ = s.Close() })
	n := w.start(t, node.Options{Policies: map[string]string{"p.yaml": `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: p}
scope: org:local
egress:
  - {id: fine, allow: "fine.test:443"}
  - {id: down, allow: "down.test:443"}
  - {id: hole, allow: "hole.test:443"}
  - {id: cert, allow: "badcert.test:443", http: {methods: [GET]}}
`}})
	ws := n.Workspace(t)
	put(t, ws, "server-ca.pem", string(w.ca.PEM()))
	r := sandboxed(t, n, ws, "default", `
curl -s https://down.test/; curl -s https://down.test/; curl -s https://badcert.test/ >/dev/null
curl -s https://nothing.test/ >/dev/null; curl -s --cacert server-ca.pem https://fine.test/
curl -s -m 2 https://hole.test/; exit 0`)
	if r.Code != 0 || !strings.Contains(r.Stdout, "fine") {
		t.Errorf("exit %d %s", r.Code, r.Stdout)
	}
	refused, failed, ok := strings.Cut(r.Stderr, "ringfence: 3 things were allowed but failed:\n")
	if !ok {
		t.Fatalf("no list of failures in:\n%s", r.Stderr)
	}
	contains(t, "refused", refused, "ringfence: 1 thing was refused:\n", "https://nothing.test/")
	contains(t, "failed", failed, "  tcp down.test:443 x2  the destination refused the connection\n",
		"  GET https://badcert.test/ 502  the certificate of badcert.test did not verify: ")
	if !regexp.MustCompile(`  tcp hole\.test:443  (the destination had not answered when the sandbox ended|this host has no route to the destination)\n`).MatchString(failed) {
		t.Errorf("the hole is not in:\n%s", failed) // the second on a machine that is slow to end a sandbox
	}
	if strings.Contains(r.Stderr, "fine.test") || strings.Contains(failed, "to allow") {
		t.Errorf("%s", r.Stderr)
	}
	for _, e := range n.Events(t, "--failed") {
		if !e.IsFailure() || e.Kind != event.KindNetwork && e.Kind != event.KindHTTP || e.Scope == "" {
			t.Errorf("events --failed: %s", e.Compact(false))
		}
	}
	if got := len(n.Events(t, "--failed")); got < 3 {
		t.Errorf("events --failed: %d", got)
	}
	either := n.Events(t, "--failed", "--denied")
	if len(either) != len(n.Events(t, "--failed"))+len(n.Events(t, "--denied")) {
		t.Errorf("events --failed --denied: %d", len(either))
	}
	r = sandboxed(t, n, ws, "default", "curl -s https://down.test/; exit 0")
	if want := "ringfence: 1 thing was allowed but failed:\n  tcp down.test:443  the destination refused the connection\n"; r.Stderr != want {
		t.Errorf("a failure and no refusal: %s", r.Stderr)
	}
	if r := sandboxed(t, n, ws, "default", "true"); r.Stderr != "" {
		t.Errorf("nothing failed, and: %s", r.Stderr)
	}
}
