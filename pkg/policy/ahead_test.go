// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/scope"
)

func window(days uint8, from, to int, zone string) Window {
	w := Window{Days: days, From: from * 60, To: to * 60, Zone: zone}
	if err := w.load(); err != nil {
		panic(err)
	}
	return w
}

var (
	someWindows = []Window{window(0, 8, 18, "UTC"), window(0, 22, 6, "Europe/Berlin"), window(1<<5, 2, 3, "Europe/Berlin"), window(1<<0|1<<6, 0, 24, "Australia/Lord_Howe"), window(0, 2, 4, "America/St_Johns")}
	someConds   = []When{{Expression: "host.endsWith('x.org')"}, {Expression: "port == 443"}, {Expression: "principal.team == 'eng' && now.getHours() < 12", Clock: true}, {Expression: "nothing.of(this)"}}
	onRequests  = []When{{Expression: "method == 'GET'", Request: true}, {Expression: "path.startsWith('/v1/')", Request: true}}
)

// timed gives egress rules of documents conditions, and puts some in shadow.
func (g gen) timed(docs []Document) []Document {
	for i := range docs {
		for j := range docs[i].Policy.Egress {
			r := &docs[i].Policy.Egress[j]
			if g.IntN(2) == 0 {
				r.When = g.condition(r)
			}
			r.Shadow = g.IntN(9) == 0
		}
	}
	return docs
}

func (g gen) condition(r *Rule) *When {
	w := When{}
	switch {
	case g.IntN(3) == 0:
		w = pick(g, someConds)
	case g.IntN(3) == 0 && r.Port != 0 && r.Proto != UDP && !r.Prefix.IsValid():
		w = pick(g, onRequests)
	}
	if w.Expression == "" || g.IntN(3) == 0 {
		w.Windows = append(w.Windows, pick(g, someWindows), pick(g, someWindows))[:1+g.IntN(2)]
	}
	return &w
}

// moments are some of a week, and around the changes of clocks.
func (g gen) moments(n int) (out []time.Time) {
	leaps := []time.Time{time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC), time.Date(2026, 10, 25, 1, 0, 0, 0, time.UTC), time.Date(2026, 4, 4, 15, 0, 0, 0, time.UTC), time.Date(2026, 3, 8, 5, 30, 0, 0, time.UTC)}
	for range n {
		t := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC).Add(time.Duration(g.Int64N(int64(7 * 24 * time.Hour))))
		if g.IntN(2) == 0 {
			t = pick(g, leaps).Add(time.Duration(g.Int64N(int64(6*time.Hour))) - 3*time.Hour)
		}
		out = append(out, t)
	}
	return out
}

// What a rule could open at some time resolves and is in the kernel's table;
// who decides a connection or a request at a time never finds more.
func TestAheadIsTheMostThatAnyTimeGives(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(4 * rounds) {
		g := newGen3(seed)
		addresses := seed%4 == 0
		s := compileAll(t, g.timed(g.docs(scope.LevelSandbox, addresses)))
		for _, p := range somePrincipals[:2] {
			v := s.View(p)
			for _, at := range g.moments(4) {
				if addresses {
					aheadOfAddr(t, g, v, at, seen)
				} else {
					aheadOfName(t, g, v, at, seen)
				}
			}
		}
	}
	for what, least := range map[string]int{"allowed": 1000, "approval": 300, "denied later": 500, "address": 500, "address denied": 50} {
		if seen[what] < least {
			t.Errorf("%s: %d cases, too few to mean anything", what, seen[what])
		}
	}
	t.Log(seen)
}

func aheadOfName(t *testing.T, g gen, v *View, at time.Time, seen map[string]int) {
	t.Helper()
	live, host := v.At(at), pick(g, someHosts)
	nd := v.Name(host)
	for _, port := range somePorts {
		for _, proto := range []Proto{TCP, UDP} {
			could := Block
			if i := slices.IndexFunc(nd.Ports, func(d PortDecision) bool { return d.Port == port && d.Proto == proto }); i >= 0 {
				could = nd.Ports[i].Decision.Effect
			}
			now := live.Egress(host, port)
			if proto == UDP {
				now = live.Datagrams(host, port)
			}
			if now.Effect > could {
				t.Fatalf("%s:%d/%s at %s: %s by %s, ahead %s", host, port, proto, at, now.Effect, now.Rule, could)
			}
			switch {
			case now.Effect == Allow:
				seen["allowed"]++
			case now.Effect == RequireApproval:
				seen["approval"]++
			case could != Block:
				seen["denied later"]++
			}
			if proto == UDP {
				continue
			}
			for _, method := range []string{"GET", "PUT"} {
				d := live.HTTP(host, port, method, "/v1/a")
				if d.Effect > now.Effect || !now.HTTP && d.Effect != now.Effect {
					t.Fatalf("%s:%d at %s: %s %s by %s, the connection %s, HTTP %v", host, port, at, method, d.Effect, d.Rule, now.Effect, now.HTTP)
				}
			}
		}
	}
}

func aheadOfAddr(t *testing.T, g gen, v *View, at time.Time, seen map[string]int) {
	t.Helper()
	table, live := v.CIDRTable(), v.At(at)
	for range 20 {
		a, port := g.addr(), pick(g, somePorts)
		for _, proto := range []Proto{TCP, UDP} {
			e, _ := lookup(table, JudgedAddr(a), port, proto)
			d := live.Addr(a, port, proto)
			if d.Allowed() && !e.Allow {
				t.Fatalf("%s port %d %s at %s: allowed by %s, the table says %+v", a, port, proto, at, d.Rule, e)
			}
			if ahead := v.Ahead().Addr(a, port, proto); ahead.Allowed() != e.Allow {
				t.Fatalf("%s port %d %s: ahead %+v, the table says %+v", a, port, proto, ahead, e)
			}
			switch {
			case d.Allowed():
				seen["address"]++
			case e.Allow:
				seen["address denied"]++
			}
		}
	}
}

// Between a moment and the next change no decision changes.
func TestNothingChangesBeforeTheNextChange(t *testing.T) {
	changes := 0
	for seed := range uint64(2 * rounds) {
		g := newGen3(seed)
		s := compileAll(t, g.timed(g.docs(scope.LevelSandbox, seed%4 == 0)))
		for _, at := range g.moments(4) {
			next := s.NextChange(at)
			if !next.IsZero() && !next.After(at) {
				t.Fatalf("the next change after %s is %s", at, next)
			}
			last := at.Add(20 * time.Hour)
			if !next.IsZero() {
				last = next.Add(-1)
			}
			v := s.View(somePrincipals[0])
			for _, host := range someHosts {
				a, b := v.At(at).Egress(host, 443), v.At(last).Egress(host, 443)
				if a.Effect != b.Effect || a.Rule != b.Rule || a.HTTP != b.HTTP {
					t.Fatalf("seed %d %s: %s by %s at %s, %s by %s at %s, next change %s", seed, host, a.Effect, a.Rule, at, b.Effect, b.Rule, last, next)
				}
				if v.At(next).Egress(host, 443).Effect != a.Effect {
					changes++
				}
			}
			addr := g.addr()
			if a, b := v.At(at).Addr(addr, 443, TCP), v.At(last).Addr(addr, 443, TCP); a.Effect != b.Effect || a.Rule != b.Rule {
				t.Fatalf("seed %d %s: %s by %s at %s, %s by %s at %s, next change %s", seed, addr, a.Effect, a.Rule, at, b.Effect, b.Rule, last, next)
			}
		}
	}
	if changes < 100 {
		t.Errorf("%d changes: too few to mean anything", changes)
	}
}

func TestNextChange(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	of := func(when string) *Snapshot {
		return algCompile(t, egressDoc(`{id: a, allow: "x.org:443", when: `+when+`}`))
	}
	office := of(`{windows: [{days: [mon], from: "08:00", to: "18:00", zone: Europe/Berlin}]}`)
	for _, c := range []struct {
		s        *Snapshot
		at, want string
	}{
		{office, "2026-03-02T06:59:59.5Z", "2026-03-02T07:00:00Z"},
		{office, "2026-03-02T07:00:00Z", "2026-03-02T17:00:00Z"},
		{office, "2026-03-02T17:00:00.1Z", "2026-03-03T07:00:00Z"},                                                             // another day: nothing changes, and that is allowed
		{of(`{windows: [{from: "02:30", to: "04:00", zone: Europe/Berlin}]}`), "2026-03-29T00:59:00Z", "2026-03-29T01:00:00Z"}, // 02:30 does not exist
		{of(`{windows: [{from: "00:00", to: "24:00"}]}`), "2026-03-02T10:00:00Z", "2026-03-03T00:00:00Z"},
		{of(`{expression: "now.getHours() < 8"}`), "2026-03-02T10:00:07Z", "2026-03-02T10:01:00Z"},
		{of(`{expression: "port == 443"}`), "2026-03-02T10:00:07Z", ""},
	} {
		for _, s := range []*Snapshot{c.s, overTheWire(t, c.s)} {
			got := s.NextChange(at(c.at))
			if c.want == "" && !got.IsZero() || c.want != "" && !got.Equal(at(c.want)) {
				t.Errorf("after %s: %s, want %s", c.at, got, c.want)
			}
		}
	}
}

// The view asks the clock for each decision, and only where a condition wants it.
func TestALiveViewFollowsTheClock(t *testing.T) {
	v := algCompile(t, egressDoc(`{id: a, allow: "x.org:443", when: {windows: [{from: "08:00", to: "18:00"}]}}
  - {id: b, allow: "y.org:443"}
  - {id: c, allow: "203.0.114.0/24:443", when: {windows: [{from: "08:00", to: "18:00"}], expression: "host == '203.0.114.7'"}}`)).View(bot)
	now, asked := time.Time{}, 0
	live := v.Live(func() time.Time { asked++; return now })
	addr, other := netip.MustParseAddr("203.0.114.7"), netip.MustParseAddr("203.0.114.8")
	for hour, open := range map[int]bool{7: false, 8: true, 17: true, 18: false} {
		now = time.Date(2026, 3, 2, hour, 0, 0, 0, time.UTC)
		if live.Egress("x.org", 443).Allowed() != open || live.Addr(addr, 443, TCP).Allowed() != open || live.Addr(other, 443, TCP).Allowed() {
			t.Errorf("at %s: %+v, %+v", now, live.Egress("x.org", 443), live.Addr(addr, 443, TCP))
		}
		if nd := live.Name("x.org"); !nd.Resolves {
			t.Errorf("at %s: %+v", now, nd)
		}
	}
	asked = 0
	if !live.Egress("y.org", 443).Allowed() || live.Egress("z.org", 443).Allowed() || asked != 0 {
		t.Errorf("the clock was asked %d times", asked)
	}
	if d := v.Egress("x.org", 443); d.Allowed() {
		t.Errorf("without a time: %+v", d)
	}
	if table := v.CIDRTable(); len(table) != 1 || !table[0].Allow {
		t.Errorf("%+v", table)
	}
}

// Shadow rules on requests do not have a connection looked into, and one that
// would open a name is told of where it does not resolve.
func TestShadowRulesChangeNothing(t *testing.T) {
	v := algCompile(t, egressDoc(`{id: a, allow: "x.org:443"}
  - {id: read, deny: "x.org:443", http: {methods: [PUT]}, mode: shadow}
  - {id: no-b, deny: "b.x.org:443", mode: shadow}
  - {id: b, allow: "b.x.org:443"}
  - {id: new, allow: "new.x.org:8443", mode: shadow}`)).View(bot)
	if d := v.Egress("x.org", 443); !d.Allowed() || d.HTTP || d.WouldBe() != "" {
		t.Errorf("%+v", d)
	}
	if d := v.HTTP("x.org", 443, "PUT", "/"); !d.Allowed() || d.WouldBe() != "block by p/read" {
		t.Errorf("%+v: %q", d, d.WouldBe())
	}
	if d := v.Egress("b.x.org", 443); !d.Allowed() || d.WouldBe() != "block by p/no-b" {
		t.Errorf("%+v: %q", d, d.WouldBe())
	}
	if nd := v.Name("new.x.org"); nd.Resolves || len(nd.Ports) != 0 || nd.Decision.WouldBe() != "allow by p/new" {
		t.Errorf("%+v: %q", nd, nd.Decision.WouldBe())
	}
	if nd := v.Name("b.x.org"); !nd.Resolves || nd.Ports[0].Decision.WouldBe() != "block by p/no-b" {
		t.Errorf("%+v", nd)
	}
	if table := v.CIDRTable(); len(table) != 0 {
		t.Errorf("%+v", table)
	}
	why := map[string]string{}
	for _, c := range v.Explain(Question{Section: SectionEgress, Host: "b.x.org", Port: 443}).Candidates {
		why[c.Rule.ID] = c.Why
	}
	if why["b"] != "decides" || why["no-b"] != "is in shadow mode: it is left out of what is enforced, and would decide" {
		t.Errorf("%v", why)
	}
}
