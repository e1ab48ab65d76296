// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/ringfence/ringfence/pkg/scope"
)

// rounds is how many random rule sets each property is tried on.
const rounds = 450

// gen makes random documents over a small universe, so that rules meet.
type gen struct {
	*rand.Rand
	approvals bool // rules may require an approval
}

func newGen(seed uint64) gen { return gen{rand.New(rand.NewPCG(seed, 42)), false} }

// newGen3 is newGen with all three effects.
func newGen3(seed uint64) gen { return gen{rand.New(rand.NewPCG(seed, 43)), true} }

func pick[T any](g gen, list []T) T { return list[g.IntN(len(list))] }

var (
	someHosts    = []string{"x.org", "a.x.org", "b.x.org", "c.a.x.org", "y.net", "d.c.a.x.org"}
	somePatterns = []string{"x.org", "a.x.org", "*.x.org", "**.x.org", "**.a.x.org", "*.a.x.org", "**", "c.a.x.org", "y.net", "**.org"}
	someModels   = []string{"claude-1", "claude-2", "gpt-4", "gpt-4-mini"}
	someNames    = []string{"*", "claude-*", "claude-1", "gpt-*", "gpt-4*", "gpt-4", "gpt-4-mini"}
	somePrefixes = []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "0.0.0.0/0", "8.0.0.0/5", "8.8.8.0/24", "8.8.8.8/32",
		"198.0.0.0/8", "::/0", "2001:4860::/32", "fd00::/8", "fd00:1::/32", "2001:4860:4860::8888/128", "192.168.0.0/16", "172.16.0.0/12"}
	somePorts  = []uint16{80, 443, 5432}
	someScopes = map[scope.Level][]string{
		scope.LevelOrg:     {"org:*", "org:acme", "org:a*", "org:other"},
		scope.LevelTeam:    {"org:acme/team:eng", "team:e*", "org:acme/team:ops", "team:eng"},
		scope.LevelAgent:   {"org:acme/team:eng/agent:bot", "agent:b*", "agent:bot", "agent:cat"},
		scope.LevelSandbox: {"org:acme/team:eng/agent:bot/sandbox:s1", "sandbox:s1", "sandbox:s2", "sandbox:s*"},
	}
	someFor        = []string{"", "", "", "org:acme", "team:eng", "agent:bot", "agent:b*", "sandbox:s1"}
	somePrincipals = []scope.Principal{
		{Org: "acme", Team: "eng", Agent: "bot", Sandbox: "s1"}, {Org: "acme", Team: "eng", Agent: "bot"},
		{Org: "acme", Team: "ops", Agent: "cat", Sandbox: "s2"}, {Org: "other", Team: "eng", Agent: "bot", Sandbox: "s1"},
	}
)

func sel(s string) scope.Selector {
	v, err := scope.ParseSelector(s)
	if err != nil {
		panic(err)
	}
	return v
}

func (g gen) rule(s Section, id string, addresses bool) Rule {
	r := Rule{ID: id, Section: s, Effect: pick(g, []Effect{Block, Allow}), Line: 1 + g.IntN(99)}
	if g.approvals && g.IntN(3) == 0 {
		r.Effect = RequireApproval
	}
	if g.IntN(4) == 0 {
		r.Delegable = true
	} else if r.Effect != Allow && g.IntN(6) == 0 {
		r.Mandatory = true
	}
	if f := pick(g, someFor); f != "" {
		v := sel(f)
		r.For = &v
	}
	switch {
	case s == SectionInference:
		r.Model, _ = scope.ParsePattern(pick(g, someNames))
		return r
	case s == SectionTools:
		r.Server = scope.Exact(scope.ServerProvider)
		r.Tool, _ = scope.ParsePattern(pick(g, someNames))
		return r
	}
	if r.Effect != Block || g.IntN(2) == 0 {
		r.Port = pick(g, somePorts)
		r.Proto = pick(g, []Proto{0, 0, 0, UDP, TCP})
	}
	if addresses {
		r.Prefix = netip.MustParsePrefix(pick(g, somePrefixes))
		return r
	}
	r.Host, _ = ParseHostPattern(pick(g, somePatterns))
	if r.Port != 0 && r.Proto != UDP && g.IntN(5) == 0 {
		r.HTTP = &HTTPMatch{Methods: [][]string{{"GET"}, {"GET", "POST"}, {"DELETE"}, nil}[g.IntN(4)], Paths: [][]string{{"/v1/**"}, {"/v1/a"}}[g.IntN(2)]}
	}
	return r
}

func (g gen) doc(l scope.Level, i int, addresses bool) Document {
	d := Document{Kind: KindPolicy, Name: fmt.Sprintf("d%d", i), File: fmt.Sprintf("f%d.yaml", i), Line: 1, Scope: sel(pick(g, someScopes[l])), Policy: &Policy{}}
	for j := range 1 + g.IntN(4) {
		switch id := fmt.Sprintf("r%d", j); g.IntN(4) {
		case 0:
			d.Policy.Inference = append(d.Policy.Inference, g.rule(SectionInference, id, false))
		case 1:
			d.Policy.Tools = append(d.Policy.Tools, g.rule(SectionTools, id, false))
		default:
			d.Policy.Egress = append(d.Policy.Egress, g.rule(SectionEgress, id, addresses))
		}
	}
	return d
}

func (g gen) docs(deepest scope.Level, addresses bool) (out []Document) {
	for i := range 1 + g.IntN(6) {
		out = append(out, g.doc(scope.LevelOrg+scope.Level(g.IntN(int(deepest))), i, addresses))
	}
	return out
}

// asks lists every request of the universe.
func asks() (out []ask) {
	for _, h := range someHosts {
		for _, p := range somePorts {
			out = append(out, ask{section: SectionEgress, host: h, port: p, proto: UDP})
			for _, m := range []string{"GET", "DELETE"} {
				for _, path := range []string{"/v1/a", "/v1/b", "/other"} {
					out = append(out, ask{section: SectionEgress, host: h, port: p, http: true, method: m, path: path})
				}
			}
		}
	}
	for _, m := range someModels {
		out = append(out, ask{section: SectionInference, model: m, configured: true}, ask{section: SectionTools, model: m})
	}
	return out
}

func answer(v *View, q ask) Decision {
	switch {
	case q.section == SectionInference:
		return v.Inference(DialectOpenAI, q.model)
	case q.section == SectionTools:
		return v.ProviderTool(q.model)
	case q.addr.IsValid():
		return v.Addr(q.addr, q.port, TCP)
	case q.proto == UDP:
		return v.Datagrams(q.host, q.port)
	}
	return v.HTTP(q.host, q.port, q.method, q.path)
}

func compileAll(t testing.TB, docs []Document) *Snapshot {
	t.Helper()
	s, problems := Compile(7, docs)
	if len(problems) > 0 {
		t.Fatal(Problems(problems))
	}
	return s
}

func TestDecisionsEqualTheOracle(t *testing.T) {
	all := asks()
	allowed, denied := 0, 0
	for seed := range uint64(rounds) {
		docs := newGen(seed).docs(scope.LevelSandbox, false)
		s := compileAll(t, docs)
		for _, p := range somePrincipals {
			v := s.View(p)
			for _, q := range all {
				d, want := answer(v, q), oracle(docs, p, q)
				if d.Allowed() != want.allow || d.Rule.String() != want.rule {
					t.Fatalf("seed %d, %s, %+v: got %v by %q, oracle %+v", seed, p, q, d.Allowed(), d.Rule, want)
				}
				if d.Allowed() {
					allowed++
				} else {
					denied++
				}
				q.learns = true
				if d, want := answer(v.Learning(), q), oracle(docs, p, q); d.Allowed() != want.allow || d.Rule.String() != want.rule {
					t.Fatalf("seed %d, %s, %+v: got %v by %q, oracle %+v", seed, p, q, d.Allowed(), d.Rule, want)
				}
			}
		}
	}
	if allowed*15 < denied || denied*15 < allowed {
		t.Errorf("lopsided universe: %d allowed, %d denied", allowed, denied)
	}
}

func TestAddressesEqualTheOracle(t *testing.T) {
	for seed := range uint64(rounds) {
		g := newGen(seed)
		docs := g.docs(scope.LevelSandbox, true)
		s := compileAll(t, docs)
		for _, p := range somePrincipals[:2] {
			v := s.View(p)
			for range 20 {
				a := g.addr()
				q := ask{section: SectionEgress, addr: JudgedAddr(a), port: pick(g, append(somePorts, 22)), proto: pick(g, []Proto{TCP, UDP})}
				d, want := v.Addr(a, q.port, q.proto), oracle(docs, p, q)
				if virtualRange.Contains(q.addr) {
					want = verdict{}
				}
				if d.Allowed() != want.allow || d.Rule.String() != want.rule {
					t.Fatalf("seed %d, %s, %+v: got %v by %q, oracle %+v", seed, p, q, d.Allowed(), d.Rule, want)
				}
				q.learns = true
				if d, want = v.Learning().Addr(a, q.port, q.proto), oracle(docs, p, q); virtualRange.Contains(q.addr) {
					want = verdict{}
				}
				if d.Allowed() != want.allow || d.Rule.String() != want.rule {
					t.Fatalf("seed %d, %s, %+v: got %v by %q, oracle %+v", seed, p, q, d.Allowed(), d.Rule, want)
				}
			}
		}
	}
}

// addr picks an address in or around the prefixes of the universe.
func (g gen) addr() netip.Addr {
	p := netip.MustParsePrefix(pick(g, append(somePrefixes, "198.18.0.0/15", "::ffff:10.0.0.0/104", "64:ff9b::a00:0/104", "2002:a00::/24", "127.0.0.0/8", "169.254.0.0/16", "200::/7", "4000::/2", "f000::/4")))
	b := p.Addr().AsSlice()
	for i := range b {
		for bit := range 8 {
			if n := i*8 + bit; n >= p.Bits() && g.IntN(2) == 0 {
				b[i] ^= 0x80 >> bit
			}
		}
	}
	a, _ := netip.AddrFromSlice(b)
	if g.IntN(10) == 0 {
		if n := a.Next(); n.IsValid() {
			return n
		}
	}
	return a
}

// lookup decides as the kernel does, by longest prefix, in one tree for IPv4 and
// IPv6.
func lookup(table []CIDREntry, a netip.Addr, port uint16, proto Proto) (CIDREntry, bool) {
	a = netip.AddrFrom16(a.As16())
	for _, group := range []uint16{port, 0} {
		best, bits := -1, -1
		for i, e := range table {
			p := e.Prefix
			if p.Addr().Is4() {
				p = netip.PrefixFrom(netip.AddrFrom16(p.Addr().As16()), p.Bits()+96)
			}
			if e.Port == group && e.Proto == proto && holds16(p, a) && p.Bits() > bits {
				best, bits = i, p.Bits()
			}
		}
		if best >= 0 {
			return table[best], true
		}
	}
	return CIDREntry{}, false
}

// holds16 is Prefix.Contains for addresses of 16 bytes, mapped ones too.
func holds16(p netip.Prefix, a netip.Addr) bool {
	x, y := p.Addr().As16(), a.As16()
	for i := range p.Bits() {
		if (x[i/8]^y[i/8])&(0x80>>(i%8)) != 0 {
			return false
		}
	}
	return true
}

func TestCIDRTableEqualsAddr(t *testing.T) {
	hits := map[Proto]int{}
	for seed := range uint64(4 * rounds) {
		g := newGen(seed)
		if seed >= 2*rounds {
			g = newGen3(seed)
		}
		s := compileAll(t, g.docs(scope.LevelSandbox, true))
		for _, p := range somePrincipals[:2] {
			v := s.View(p)
			if seed%2 == 1 {
				v = v.Learning()
			}
			table := v.CIDRTable()
			for range 60 {
				a, port := g.addr(), pick(g, append(somePorts, 22, 0))
				for _, proto := range []Proto{TCP, UDP} {
					d := v.Addr(a, port, proto)
					e, ok := lookup(table, JudgedAddr(a), port, proto)
					if e.Allow != d.Allowed() || ok && proto == TCP && e.Rule != d.Rule {
						t.Fatalf("seed %d: %s port %d proto %d: Addr %v by %q, table %+v", seed, a, port, proto, d.Allowed(), d.Rule, e)
					}
					if d.Allowed() {
						hits[proto]++
					}
				}
			}
		}
	}
	if hits[TCP] < 1000 || hits[UDP] < 200 {
		t.Errorf("only %v allowed addresses were tried", hits)
	}
}

func TestOrderOfRulesAndFilesNeverMatters(t *testing.T) {
	all := asks()
	for seed := range uint64(rounds / 3) {
		g := newGen(seed)
		docs := g.docs(scope.LevelSandbox, false)
		want := compileAll(t, docs)
		shuffled := slices.Clone(docs)
		g.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for i := range shuffled {
			p := &Policy{Egress: slices.Clone(shuffled[i].Policy.Egress), Inference: slices.Clone(shuffled[i].Policy.Inference), Tools: slices.Clone(shuffled[i].Policy.Tools)}
			for _, r := range [][]Rule{p.Egress, p.Inference, p.Tools} {
				g.Shuffle(len(r), func(i, j int) { r[i], r[j] = r[j], r[i] })
			}
			shuffled[i].Policy = p
		}
		got := compileAll(t, shuffled)
		for _, p := range somePrincipals {
			for _, q := range all {
				if a, b := answer(want.View(p), q), answer(got.View(p), q); a != b {
					t.Fatalf("seed %d, %+v: %+v, shuffled %+v", seed, q, a, b)
				}
			}
		}
	}
}

func TestLowerLayersNeverLoosen(t *testing.T) {
	all := asks()
	held := 0
	for seed := range uint64(rounds) {
		g := newGen(seed)
		deepest := scope.LevelOrg + scope.Level(g.IntN(3))
		upper := g.docs(deepest, false)
		lower := g.doc(deepest+1+scope.Level(g.IntN(int(scope.LevelSandbox-deepest))), 99, false)
		before, after := compileAll(t, upper), compileAll(t, append(slices.Clone(upper), lower))
		for _, p := range somePrincipals {
			for _, q := range all {
				w := oracle(upper, p, q)
				if w.allow || !w.spoken || w.delegable {
					continue // silent, delegated, or already open
				}
				held++
				if answer(before.View(p), q).Allowed() || answer(after.View(p), q).Allowed() {
					t.Fatalf("seed %d, %s, %+v: a lower layer opened what %+v blocks", seed, p, q, w)
				}
			}
		}
	}
	if held < 1000 {
		t.Errorf("only %d blocks were tried", held)
	}
}

func TestMandatoryRulesNeverLoosen(t *testing.T) {
	all := asks()
	for seed := range uint64(rounds / 3) {
		g := newGen(seed)
		docs := g.docs(scope.LevelSandbox, false)
		extra := g.doc(scope.LevelOrg+scope.Level(g.IntN(4)), 99, false)
		for _, rules := range [][]Rule{extra.Policy.Egress, extra.Policy.Inference, extra.Policy.Tools} {
			for i := range rules {
				rules[i].Effect, rules[i].Mandatory, rules[i].Delegable = Block, true, false
			}
		}
		before, after := compileAll(t, docs), compileAll(t, append(slices.Clone(docs), extra))
		for _, p := range somePrincipals {
			for _, q := range all {
				if answer(after.View(p), q).Allowed() && !answer(before.View(p), q).Allowed() {
					t.Fatalf("seed %d, %+v: a mandatory rule opened it", seed, q)
				}
			}
		}
	}
}

// Whatever some request could get, the connection gets; what resolves is what
// some port gets; what an opaque flow gets, every request gets.
func TestConnectionsAgreeWithRequests(t *testing.T) {
	for seed := range uint64(2 * rounds) {
		g := newGen(seed)
		if seed >= rounds {
			g = newGen3(seed)
		}
		s := compileAll(t, g.docs(scope.LevelSandbox, false))
		for _, p := range somePrincipals {
			v := s.View(p)
			for _, host := range someHosts {
				nd := v.Name(host)
				anyPort := false
				for _, port := range somePorts {
					conn, opaque := v.Egress(host, port), v.Opaque(host, port)
					inName := slices.ContainsFunc(nd.Ports, func(d PortDecision) bool { return d.Port == port && d.Proto == TCP })
					if (conn.Effect != Block) != inName {
						t.Fatalf("seed %d %s:%d: Egress %v, Name %+v", seed, host, port, conn.Allowed(), nd)
					}
					datagrams := v.Datagrams(host, port).Effect != Block
					if inName := slices.ContainsFunc(nd.Ports, func(d PortDecision) bool { return d.Port == port && d.Proto == UDP }); datagrams != inName {
						t.Fatalf("seed %d %s:%d: Datagrams %v, Name %+v", seed, host, port, datagrams, nd)
					}
					anyPort = anyPort || conn.Effect != Block || datagrams
					if opaque.Effect > conn.Effect || !conn.HTTP && conn.Effect > opaque.Effect {
						t.Fatalf("seed %d %s:%d: Egress %+v, Opaque %+v", seed, host, port, conn, opaque)
					}
					for _, method := range []string{"GET", "DELETE", "PUT"} {
						for _, path := range []string{"/v1/a", "/v1/b", "/other"} {
							d := v.HTTP(host, port, method, path)
							if d.Effect > conn.Effect || !conn.HTTP && d.Effect != conn.Effect {
								t.Fatalf("seed %d %s:%d %s %s: Egress %+v, HTTP %+v", seed, host, port, method, path, conn, d)
							}
							if bad := v.HTTP(host, port, method, "/v1/../a"); bad.Effect > opaque.Effect && !conn.HTTP {
								t.Fatalf("seed %d: an ambiguous path got in: %+v", seed, bad)
							}
						}
					}
				}
				if anyPort != nd.Resolves || nd.Resolves != (nd.Decision.Effect != Block) {
					t.Fatalf("seed %d %s: resolves %v, some port %v, %+v", seed, host, nd.Resolves, anyPort, nd.Decision)
				}
			}
		}
	}
}

func TestSnapshotSurvivesTheWire(t *testing.T) {
	all := asks()
	for seed := range uint64(200) {
		g := newGen(seed)
		docs := append(g.docs(scope.LevelSandbox, false), g.doc(scope.LevelOrg, 50, true))
		s := compileAll(t, docs)
		b, err := s.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		got, err := UnmarshalSnapshot(b)
		if err != nil {
			t.Fatal(err)
		}
		if got.Revision() != 7 || got.Rules() != s.Rules() {
			t.Fatalf("revision %d, %d rules", got.Revision(), got.Rules())
		}
		for _, p := range somePrincipals {
			for _, q := range all {
				if a, b := answer(s.View(p), q), answer(got.View(p), q); a != b {
					t.Fatalf("seed %d %+v: %+v, after the wire %+v", seed, q, a, b)
				}
			}
			if a, b := s.View(p).CIDRTable(), got.View(p).CIDRTable(); !slices.Equal(a, b) {
				t.Fatalf("seed %d: tables differ", seed)
			}
		}
		if again, err := got.MarshalBinary(); err != nil || string(again) == "" {
			t.Fatal(err)
		}
		for cut := 0; cut < len(b); cut += 1 + len(b)/50 {
			if _, err := UnmarshalSnapshot(b[:cut]); err == nil {
				t.Fatalf("seed %d: %d of %d bytes read as a snapshot", seed, cut, len(b))
			}
		}
	}
}

// The remedy's rule, applied in the principal's own layer, really allows.
func TestRemedyTellsTheTruth(t *testing.T) {
	helped, refused := 0, 0
	for seed := range uint64(rounds / 3) {
		docs := newGen(seed).docs(scope.LevelSandbox, false)
		s := compileAll(t, docs)
		for _, p := range somePrincipals {
			v := s.View(p)
			for i := range 2 * len(someHosts) {
				host, proto, suffix, ask := someHosts[i/2], TCP, "", (*View).Egress
				if i%2 == 1 {
					proto, suffix, ask = UDP, "/udp", (*View).Datagrams
				}
				remedy := v.Remedy(host, 443, proto)
				if ask(v, host, 443).Allowed() {
					if remedy != "" {
						t.Fatalf("seed %d: remedy %q for what is allowed", seed, remedy)
					}
					continue
				}
				r, err := NewEgressRule(Allow, host+":443"+suffix)
				if err != nil {
					t.Fatal(err)
				}
				d, err := WithRule(docs, p.Selector(), r)
				if err != nil {
					t.Fatal(err)
				}
				after := ask(compileAll(t, append(slices.Clone(docs), d)).View(p), host, 443).Allowed()
				if want := remedy == "ringfence allow "+host+":443"+suffix; want != after {
					t.Fatalf("seed %d %s %s: remedy %q, after it %v", seed, p, host, remedy, after)
				}
				if after {
					helped++
				} else {
					refused++
				}
			}
		}
	}
	if helped < 100 || refused < 100 {
		t.Errorf("helped %d, refused %d: too few", helped, refused)
	}
}
