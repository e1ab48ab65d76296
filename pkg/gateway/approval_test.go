// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
)

// A destination that needs an approval resolves, and the gateway refuses it with
// its own code. The control beside it is open.
func TestWhatNeedsAnApprovalIsRefused(t *testing.T) {
	r := newRig(t, docHead+"egress:\n  - {id: ok, allow: \"db.test:5432\"}\n", rigOptions{})
	docs, problems := policy.ParseWhole("test.yaml", []byte(docHead+`egress:
  - {id: ok, allow: "db.test:5432"}
  - {id: ask, to: "web.test:443", action: require-approval, reason: "ask ops"}
  - {id: post, to: "api.test:443", action: require-approval, http: {methods: [POST]}}
  - {id: get, allow: "api.test:443", http: {methods: [GET]}, resolvesTo: [127.0.0.0/8]}
  - {id: net, to: "203.0.113.7:443", action: require-approval}
`))
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	s, problems := policy.Compile(2, docs)
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	r.keeper.mu.Lock()
	r.keeper.view = s.View(r.p)
	r.keeper.mu.Unlock()
	r.g.SetSnapshot(s)
	r.host("web.test")
	r.web("api.test", 443, func(http.ResponseWriter, *http.Request) {})
	a, err := r.lookup("web.test")
	if err != nil {
		t.Fatalf("the name does not resolve: %v", err)
	}
	r.wantReset(netip.AddrPortFrom(a, 443).String())
	r.event("the refusal", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.Verdict == event.Denied && e.ReasonCode == policy.CodeApproval && e.Rule == "test/ask" && e.Reason == "needs an approval; ask ops"
	})
	r.wantReset("203.0.113.7:443")
	r.event("the address", func(e *event.Event) bool { return e.ReasonCode == policy.CodeApproval && e.Rule == "test/net" })
	c := r.client(r.keeper.ca.pool(), false)
	if res, err := c.Get("https://api.test/"); err != nil || res.StatusCode != 200 {
		t.Errorf("the request that is allowed: %v %v", res, err)
	}
	if res, err := c.Post("https://api.test/", "text/plain", strings.NewReader("x")); err != nil || res.StatusCode != 403 {
		t.Errorf("the request that needs an approval: %v %v", res, err)
	}
	r.event("the request", func(e *event.Event) bool {
		return e.Kind == event.KindHTTP && e.Method == "POST" && e.Verdict == event.Denied && e.ReasonCode == policy.CodeApproval && e.Rule == "test/post"
	})
}
