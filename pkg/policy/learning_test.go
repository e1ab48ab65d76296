// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"testing"
)

// What a sandbox that learns is told, beside what it is told otherwise.
func TestLearning(t *testing.T) {
	s := algCompile(t, `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: org}
scope: "org:acme"
egress:
  - {id: no-paste, deny: "paste.example", delegable: true}
  - {id: no-mail, deny: "**:25", mandatory: true}
  - {id: asked, action: require-approval, to: "asked.example:443", mandatory: true}
  - {id: no-net, deny: "8.8.4.0/24"}
  - {id: read, allow: "api.example:443", http: {methods: [GET], paths: ["/**"]}}
  - {id: no-write, deny: "half.example:443", http: {methods: [POST], paths: ["/**"]}}
  - {id: lan, allow: "lan.example:80", resolvesTo: [10.0.0.0/8]}
  - {id: status, allow: "inside.example:443", http: {methods: [GET]}, resolvesTo: [10.0.0.0/8]}
---
apiVersion: ringfence.dev/v1
kind: Provider
metadata: {name: openai}
scope: "org:acme"
dialect: openai
baseURL: https://api.openai.com/v1
secret: key
`)
	plain := s.View(algPrincipals["bot"])
	v := plain.Learning()
	for _, c := range []struct {
		what            string
		plain, learning Effect
		learningRule    string
		decide          func(v *View) Decision
	}{
		{"a name that no rule speaks of", Block, Allow, "builtin/learn", func(v *View) Decision { return v.Egress("new.example", 443) }},
		{"any port of it", Block, Allow, "builtin/learn", func(v *View) Decision { return v.Egress("new.example", 5432) }},
		{"its datagrams", Block, Block, "", func(v *View) Decision { return v.Datagrams("new.example", 443) }},
		{"a delegable deny", Block, Block, "org/no-paste", func(v *View) Decision { return v.Egress("paste.example", 443) }},
		{"a mandatory deny", Block, Block, "org/no-mail", func(v *View) Decision { return v.Egress("new.example", 25) }},
		{"a mandatory approval", Block, RequireApproval, "org/asked", func(v *View) Decision { return v.Egress("asked.example", 443) }},
		{"a request that a rule allows", Allow, Allow, "org/read", func(v *View) Decision { return v.HTTP("api.example", 443, "GET", "/") }},
		{"another request there", Block, Allow, "builtin/learn", func(v *View) Decision { return v.HTTP("api.example", 443, "POST", "/") }},
		{"a request that a rule refuses", Block, Block, "org/no-write", func(v *View) Decision { return v.HTTP("half.example", 443, "POST", "/") }},
		{"another request there, learned", Block, Allow, "builtin/learn", func(v *View) Decision { return v.HTTP("half.example", 443, "GET", "/") }},
		{"a request that a rule allows at a private address", Allow, Allow, "org/status", func(v *View) Decision { return v.HTTP("inside.example", 443, "GET", "/") }},
		{"another request there, not learned", Block, Block, "", func(v *View) Decision { return v.HTTP("inside.example", 443, "POST", "/") }},
		{"a WebSocket there", Block, Block, "", func(v *View) Decision { return v.HTTP("inside.example", 443, "WEBSOCKET", "/") }},
		{"a public address", Block, Allow, "builtin/learn", func(v *View) Decision { return v.Addr(netip.MustParseAddr("8.8.8.8"), 53, TCP) }},
		{"one of IPv6", Block, Allow, "builtin/learn", func(v *View) Decision { return v.Addr(netip.MustParseAddr("2600::1"), 443, TCP) }},
		{"an address that a rule refuses", Block, Block, "org/no-net", func(v *View) Decision { return v.Addr(netip.MustParseAddr("8.8.4.4"), 53, TCP) }},
		{"datagrams to an address", Block, Block, "", func(v *View) Decision { return v.Addr(netip.MustParseAddr("8.8.8.8"), 53, UDP) }},
		{"a private address", Block, Block, "", func(v *View) Decision { return v.Addr(netip.MustParseAddr("10.0.0.1"), 443, TCP) }},
		{"IPv6 that nobody was given", Block, Block, "", func(v *View) Decision { return v.Addr(netip.MustParseAddr("200:1234::1"), 443, TCP) }},
		{"a prefix for discarding", Block, Block, "", func(v *View) Decision { return v.Addr(netip.MustParseAddr("100:0:0:1::1"), 443, TCP) }},
		{"cloud metadata", Block, Block, "", func(v *View) Decision { return v.Addr(netip.MustParseAddr("169.254.169.254"), 80, TCP) }},
		{"one hidden in IPv6", Block, Block, "", func(v *View) Decision { return v.Addr(netip.MustParseAddr("64:ff9b::a9fe:a9fe"), 80, TCP) }},
		{"a provider's host", Block, Block, "", func(v *View) Decision { return v.Egress("api.openai.com", 443) }},
		{"no host name", Block, Block, "", func(v *View) Decision { return v.Egress("a b", 443) }},
	} {
		if got := c.decide(plain).Effect; got != c.plain {
			t.Errorf("%s: %s, want %s", c.what, got, c.plain)
		}
		if d := c.decide(v); d.Effect != c.learning || d.Rule.String() != c.learningRule {
			t.Errorf("%s, learning: %s by %q, want %s by %q", c.what, d.Effect, d.Rule, c.learning, c.learningRule)
		}
	}
	if got := v.ResolvesTo("new.example", 80, TCP); got != nil {
		t.Errorf("what is learned may resolve to %v", got)
	}
	if got := v.ResolvesTo("lan.example", 80, TCP); len(got) != 1 {
		t.Errorf("a rule's own private range: %v", got)
	}
}

// The kernel sends every port of a name that may be learned to the gateway; what
// rules open is under its own port besides.
func TestLearningNames(t *testing.T) {
	s := algCompile(t, head+`egress:
  - {id: a, allow: "a.example:443"}
  - {id: u, allow: "a.example:123/udp"}
  - {id: no, deny: "no.example"}
`)
	v := s.View(algPrincipals["bot"])
	for _, c := range []struct {
		host            string
		plain, learning []PortDecision
		wildcard        bool
	}{
		{"a.example", []PortDecision{{Port: 123, Proto: UDP}, {Port: 443, Proto: TCP}}, []PortDecision{{Port: 0, Proto: TCP}, {Port: 123, Proto: UDP}, {Port: 443, Proto: TCP}}, false},
		{"new.example", nil, []PortDecision{{Port: 0, Proto: TCP}}, true},
		{"no.example", nil, nil, false},
	} {
		for i, want := range [][]PortDecision{c.plain, c.learning} {
			nd := []*View{v, v.Learning()}[i].Name(c.host)
			ok := len(nd.Ports) == len(want) && nd.Resolves == (len(want) > 0) && (i == 0 || nd.Wildcard == c.wildcard)
			for j := range min(len(want), len(nd.Ports)) {
				ok = ok && nd.Ports[j].Port == want[j].Port && nd.Ports[j].Proto == want[j].Proto && nd.Ports[j].Decision.Allowed()
			}
			if !ok {
				t.Errorf("%s, learning %v: %+v", c.host, i == 1, nd)
			}
		}
	}
}
