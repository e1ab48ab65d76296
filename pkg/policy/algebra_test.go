// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The engine against the golden table, and through the codec.
func TestAlgebra(t *testing.T) {
	for _, c := range algCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			s := algCompile(t, c.Docs)
			for _, s := range []*Snapshot{s, overTheWire(t, s)} {
				for _, q := range c.Ask {
					d := algEngine(t, s, q)
					algCheck(t, q, "", q.algWant, algWords(d))
					if q.Shadow != nil {
						algCheck(t, q, " with shadow", *q.Shadow, algWords(algShadow(d)))
					}
				}
			}
		})
	}
}

func algCompile(t testing.TB, text string) *Snapshot {
	t.Helper()
	docs, problems := ParseWhole("a.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatalf("%v\n%s", Problems(problems), text)
	}
	return compileAll(t, docs)
}

func overTheWire(t testing.TB, s *Snapshot) *Snapshot {
	t.Helper()
	b, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	got, err := UnmarshalSnapshot(b)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// algEngine asks the engine.
func algEngine(t testing.TB, s *Snapshot, q algAsk) Decision {
	t.Helper()
	v := s.View(algPrincipals[q.As]).At(algTime(t, q))
	switch {
	case q.Tool != "":
		var risk Risk
		for _, n := range q.Risk {
			c, err := ParseRisk(n)
			if err != nil {
				t.Fatal(err)
			}
			risk |= c
		}
		server, tool, _ := strings.Cut(q.Tool, "/")
		return v.Tool(&Call{Server: server, Tool: tool, Risk: risk, Args: NewArgs(q.Args)})
	case q.Egress != "":
		host, port, _ := strings.Cut(q.Egress, ":")
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		return v.Egress(host, uint16(n))
	}
	f := facts{principal: &v.p, now: v.now, model: q.Model}
	silent := int32(noRule)
	if q.Builtin {
		silent = builtinRule
	}
	return v.verdict(v.judge(v.s.models.match(nil, v, q.Model), &f), silent)
}

// algShadow is the second decision: the first where no shadow rule matches.
func algShadow(d Decision) Decision {
	if s := d.Shadow(); s != nil {
		return *s
	}
	return d
}

// algWords puts a decision into the words of the table.
func algWords(d Decision) algVerdict {
	v := algVerdict{effect: d.Effect.String(), by: d.Rule.String(), obligations: []string{}}
	for _, o := range d.Obligations() {
		v.obligations = append(v.obligations, o.Kind.String()+" "+o.Rule.String())
	}
	for _, x := range d.Demands() {
		v.demands = append(v.demands, x.Rule.String())
	}
	slices.Sort(v.obligations)
	slices.Sort(v.demands)
	return v
}

// What needs an approval is not open: not to the kernel, not to a resolved
// name's address, and each place says so.
func TestApprovalsOpenNothingByThemselves(t *testing.T) {
	s := algCompile(t, head+`egress:
  - {id: net, to: "203.0.114.0/24:443", action: require-approval, reason: "ask the network team"}
  - {id: any, to: "0.0.0.0/0:443", action: require-approval}
  - {id: db, to: "db.x.org:5432", action: require-approval, resolvesTo: [10.1.0.0/16]}
  - {id: db-web, allow: "db.x.org:443"}
  - {id: other, to: "other.x.org:443", action: require-approval}
  - {id: inside, to: "192.168.0.0/16:443", action: require-approval}
`)
	v := s.View(bot)
	addr := netip.MustParseAddr("203.0.114.7")
	d := v.Addr(addr, 443, TCP)
	if d.Effect != RequireApproval || d.Allowed() || d.ReasonCode != CodeApproval || d.Reason != "needs an approval; ask the network team" {
		t.Errorf("%+v", d)
	}
	for _, e := range v.CIDRTable() {
		if e.Allow {
			t.Errorf("the kernel gets %+v", e)
		}
	}
	if u := s.UpstreamPrefixes(); len(u) != 1 || u[0] != (UpstreamPrefix{netip.MustParsePrefix("10.1.0.0/16"), 5432, TCP}) { // where people may let it go by name
		t.Errorf("the gateway's fence gets %v", u)
	}
	if d, denied := v.AddrDenied(addr, TCP, 443); !denied || d.ReasonCode != CodeApproval {
		t.Errorf("a name that resolves there: %v %+v", denied, d)
	}
	if d, denied := v.AddrDenied(addr, TCP); !denied || d.ReasonCode != CodeApproval {
		t.Errorf("a name that resolves there, any port: %v %+v", denied, d)
	}
	// A wide approval does not reach into private ranges, a narrow one does.
	if d := v.Addr(netip.MustParseAddr("10.1.2.3"), 443, TCP); d.Effect != Block || d.ReasonCode != CodeNoRule {
		t.Errorf("%+v", d)
	}
	if d := v.Addr(netip.MustParseAddr("192.168.1.1"), 443, TCP); d.Effect != RequireApproval {
		t.Errorf("%+v", d)
	}
	nd := v.Name("db.x.org")
	if !nd.Resolves || len(nd.Ports) != 2 || nd.Ports[0].Decision.Effect != Allow || nd.Ports[1].Decision.Effect != RequireApproval || len(nd.Ports[1].ResolvesTo) != 1 {
		t.Errorf("%+v", nd)
	}
	if nd := v.Name("other.x.org"); !nd.Resolves || nd.Decision.Effect != RequireApproval {
		t.Errorf("%+v", nd)
	}
	if d := v.Datagrams("db.x.org", 5432); d.Effect != Block {
		t.Errorf("an approval for TCP opens UDP: %+v", d)
	}
}
