// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/scope"
)

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("../../profiles/*.yaml")
	for _, file := range append(files, "testdata/golden.yaml") {
		if b, err := os.ReadFile(file); err == nil {
			f.Add(b)
		}
	}
	f.Add([]byte(egressDoc(`{id: a, allow: "*.x.org:443", http: {methods: [GET], paths: ["/a/**"]}, resolvesTo: [10.0.0.0/8], for: "team:x"}`)))
	f.Add([]byte(head + "inference:\n  - {id: a, allow: 'claude-*', delegable: true}\ntools:\n  - {id: b, match: 'server:provider/tool:x', action: block}\n"))
	f.Add([]byte(providerHead + "dialect: openai\nbaseURL: https://x.org/v1\nsecret: k\nmodels: [{match: a, upstream: b}]\n"))
	f.Add([]byte(accessDoc(`{role: launcher, users: [alice, "uid:7"], groups: ["gid:0", eng]}`)))
	f.Add([]byte(accessHead + "bindings: []\n"))
	f.Add([]byte(aServer + "---\n" + head + "tools:\n  - {id: a, match: 'server:jira', risk: [read], action: allow}\n"))
	f.Add([]byte(serverHead + "http: {url: https://h.example/mcp}\nsecrets: [{name: a, header: X-Key}]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("---\n--- x\n...\n---"))
	f.Fuzz(func(t *testing.T, in []byte) {
		docs, problems := Parse("f", in)
		for _, p := range problems {
			if p.Line < 1 || p.Col < 1 || p.Msg == "" {
				t.Fatalf("problem without place: %+v", p)
			}
		}
		whole, _ := ParseWhole("f", in)
		if len(whole) < len(docs) {
			t.Fatalf("%d documents may come into force, and %d can be asked about", len(docs), len(whole))
		}
		all, _ := Compile(1, whole)
		exercise(t, all)
		s, _ := Compile(1, docs)
		exercise(t, s)
		b, err := s.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := UnmarshalSnapshot(b); err != nil {
			t.Fatalf("what Parse accepts does not travel: %v", err)
		}
	})
}

// exercise asks a snapshot a bit of everything.
func exercise(t *testing.T, s *Snapshot) {
	for _, p := range []scope.Principal{bot, {}} {
		v := s.View(p)
		nd := v.Name("a.x.org")
		v.Name("api.openai.com")
		v.Egress("a.x.org", 443)
		v.Opaque("a.x.org", 443)
		v.HTTP("a.x.org", 443, "GET", "/a/b")
		v.Inference(DialectOpenAI, "gpt-4")
		v.ProviderTool("web_search")
		v.Tool(&Call{Server: "jira", Tool: "read_x"})
		v.AddrDenied(netip.MustParseAddr("10.0.0.1"), UDP)
		v.Datagrams("a.x.org", 443)
		v.CIDRTable()
		v.Explain(Question{Section: SectionEgress, Host: "a.x.org", Port: 443})
		if nd.Resolves != (len(nd.Ports) > 0) {
			t.Fatalf("%+v", nd)
		}
	}
	s.UpstreamPrefixes()
	s.ProviderHosts()
	for _, a := range s.Access() {
		for _, b := range a.Bindings {
			if b.Role == RoleNone || len(b.Users)+len(b.Groups) == 0 {
				t.Fatalf("a binding without role or people: %+v", b)
			}
		}
	}
}

func FuzzUnmarshalSnapshot(f *testing.F) {
	for seed := range uint64(8) {
		g := newGen(seed)
		s, _ := Compile(7, append(g.docs(scope.LevelSandbox, false), g.doc(scope.LevelOrg, 9, true)))
		b, err := s.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, in []byte) {
		if s, err := UnmarshalSnapshot(in); err == nil {
			exercise(t, s)
		}
	})
}

func FuzzHostPattern(f *testing.F) {
	for _, s := range []string{"x.org", "*.x.org", "**.x.org", "**", "127.1", "bücher.de", "xn--bcher-kva.de", "１.２"} {
		f.Add(s, "a.x.org")
	}
	f.Fuzz(func(t *testing.T, pattern, host string) {
		name, ok := CanonicalHost(host)
		if ok {
			if again, ok := CanonicalHost(name); !ok || again != name {
				t.Fatalf("%q: canonical form %q is not canonical", host, name)
			}
			if _, err := netip.ParseAddr(name); err == nil {
				t.Fatalf("an address %q passes as a name", name)
			}
		}
		p, err := ParseHostPattern(pattern)
		if err != nil {
			return
		}
		if q, err := ParseHostPattern(p.String()); err != nil || q != p {
			t.Fatalf("%q -> %q -> %+v, %v", pattern, p, q, err)
		}
		if ok && p.Matches(name) != oracleHost(p.String(), name) {
			t.Fatalf("%s matches %q: %v", p, name, p.Matches(name))
		}
		if ok && p.Matches(name) != p.Contains(HostPattern{HostExact, name}) {
			t.Fatalf("%s: Matches and Contains disagree on %q", p, name)
		}
	})
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{"x.org:443", "10.0.0.0/8:443", "[2001:db8::/32]:443", "2001:db8::1", "::/0", "[::1]", "x.org:123/udp", "[2001:db8::/32]:123/udp", "10.0.0.0/8:1/tcp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		v, err := ParseTarget(in)
		if err != nil {
			return
		}
		if v.Prefix.IsValid() == (v.Host.Kind != HostNone) {
			t.Fatalf("%q: %+v has not one target", in, v)
		}
		if w, err := ParseTarget(v.String()); err != nil || w != v {
			t.Fatalf("%q -> %q -> %+v, %v", in, v, w, err)
		}
	})
}

func FuzzPath(f *testing.F) {
	f.Add("/a/**", "/a/b?c")
	f.Add("/*/x*y", "/%61/xzy")
	f.Fuzz(func(t *testing.T, pattern, path string) {
		c, ok := canonicalPath(path)
		if ok {
			if again, ok := canonicalPath(c); !ok || again != c {
				t.Fatalf("%q: canonical form %q is not canonical", path, c)
			}
		}
		if p, err := parsePath(pattern); err == nil && ok {
			matchPath(p, c)
			if q, err := parsePath(p); err != nil || q != p {
				t.Fatalf("%q -> %q -> %q, %v", pattern, p, q, err)
			}
		}
	})
}

// FuzzWhole reads the whole language: what is accepted travels, answers, and
// answers the same after the wire.
func FuzzWhole(f *testing.F) {
	for seed := range uint64(12) {
		f.Add([]byte(algText(newGen(seed).algDocs(scope.LevelOrg, scope.LevelSandbox, "d"))))
	}
	f.Add([]byte(toolDoc(`{id: a, match: "server:*/tool:*", action: require-approval, approval: {approvers: ["uid:7"], quorum: 1, separate: true, expiresAfter: 1m, validFor: 1d}, rate: {requests: 5/m, tokens: 1k/h, per: [agent], queue: 1s}, pii: {in: mask}, redact: {entities: [a]}, audit: full}`)))
	f.Add([]byte(egressDoc(`{id: a, to: "**:443", action: require-approval, when: {expression: "method == 'GET'", windows: [{days: [mon], from: "22:00", to: "06:00", zone: Asia/Kolkata}]}}`)))
	f.Fuzz(func(t *testing.T, in []byte) {
		docs, problems := ParseWhole("f", in)
		for _, p := range problems {
			if p.Line < 1 || p.Col < 1 || p.Msg == "" {
				t.Fatalf("problem without place: %+v", p)
			}
		}
		force, _ := Parse("f", in)
		if len(force) > len(docs) {
			t.Fatal("what does not parse as a whole comes into force")
		}
		for i := range force {
			if u := Unenforced(&force[i]); len(u) > 0 {
				t.Fatalf("comes into force: %v", Problems(u))
			}
		}
		s, _ := Compile(7, docs)
		exercise(t, s)
		b, err := s.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		got, err := UnmarshalSnapshot(b)
		if err != nil {
			t.Fatalf("what Parse accepts does not travel: %v", err)
		}
		for _, q := range newGen(uint64(len(in))).algAsks(20) {
			if x, y := algWords(algEngine(t, s, q)), algWords(algEngine(t, got, q)); !x.equal(y) {
				t.Fatalf("%+v: %+v, after the wire %+v", q, x, y)
			}
		}
	})
}

// FuzzCondition: whatever an expression is, it is refused with its place or
// decides within its bounds.
func FuzzCondition(f *testing.F) {
	for _, s := range append(algConds, "args.n < 10", "now.getHours('UTC') < 5", "'a' in risk", "args.a.b[0] == 1.5", "[1].all(x, x > 0)", "tool.matches('(a+)+$')", "principal.team + tool == server") {
		f.Add(s)
	}
	call := &Call{Server: "s", Tool: "t", Risk: RiskRead, Args: NewArgs(map[string]any{"n": 1.0, "s": "x", "l": []any{1.0, "a", nil}}), Now: time.Unix(1e9, 0)}
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := compileExpression(SectionTools, text); err != nil {
			if err.Error() == "" {
				t.Fatalf("%q: refused without a word", text)
			}
			return
		}
		s := newSnapshot(1)
		for _, effect := range []Effect{Allow, Block} {
			d := Document{Kind: KindPolicy, Name: effect.String(), Scope: scope.All(), Policy: &Policy{}}
			s.add(&d, &Rule{ID: "a", Section: SectionTools, Effect: effect, Server: scope.Any, Tool: scope.Any, When: &When{Expression: text}})
		}
		s.build()
		// True, false or an error: an allow and a block with one condition never open.
		if d := s.View(bot).Tool(call); d.Effect != Block {
			t.Fatalf("%q: %+v", text, d)
		}
	})
}
