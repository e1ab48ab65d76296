// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/scope"
)

var bot = scope.Principal{Org: "acme", Team: "eng", Agent: "bot", Sandbox: "s1"}

// viewOf compiles documents given as "scope: rules of egress, one per line".
func viewOf(t testing.TB, text string) *View {
	t.Helper()
	docs, problems := Parse("f.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(Problems(problems))
	}
	return compileAll(t, docs).View(bot)
}

func TestHostPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, host string
		want          bool
	}{
		{"x.org", "x.org", true}, {"x.org", "a.x.org", false},
		{"*.x.org", "a.x.org", true}, {"*.x.org", "x.org", false}, {"*.x.org", "b.a.x.org", false}, {"*.x.org", ".x.org", false},
		{"**.x.org", "x.org", true}, {"**.x.org", "a.x.org", true}, {"**.x.org", "b.a.x.org", true}, {"**.x.org", "ax.org", false}, {"**.x.org", "org", false},
		{"**", "x", true}, {"**", "a.b", true}, {"**", "", false},
		{"*.org", "x.org", true}, {"**.org", "org", true},
	} {
		p, err := ParseHostPattern(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if p.Matches(c.host) != c.want || p.String() != c.pattern {
			t.Errorf("%s matches %q: %v", p, c.host, !c.want)
		}
	}
	if (HostPattern{}).Matches("") || (HostPattern{}).Matches("x") {
		t.Error("the zero pattern matches")
	}
}

func TestNamesFromTheWire(t *testing.T) {
	for in, want := range map[string]string{
		"Example.COM.": "example.com", "eXaMpLe.com": "example.com", "_x.a-b.org": "_x.a-b.org", "a": "a",
		"": "", "..": "", "a..b": "", "example.com..": "", "exa mple.com": "", "ex\x00.com": "", "bücher.de": "", "1.2.3.4": "", "::1": "",
		"127.1": "", "0x7f.1": "", "a.0x1": "", "1": "", "a.1": "", "a.1x": "a.1x", "0xg": "0xg", strings.Repeat("a.", 127) + "a": "", strings.Repeat("a", 64): "",
	} {
		if want == "" {
			if got, ok := CanonicalHost(in); ok {
				t.Errorf("%q is taken as %q", in, got)
			}
			continue
		}
		if got, ok := CanonicalHost(in); !ok || got != want {
			t.Errorf("%q: %q %v", in, got, ok)
		}
	}
	if long := strings.Repeat("a.", 126) + "a"; len(long) != 253 {
		t.Fatal(len(long))
	} else if _, ok := CanonicalHost(long); !ok {
		t.Error("a name of 253 characters is refused")
	}
}

func TestPathPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"/", "/", true}, {"/", "/a", false}, {"/**", "/", true}, {"/**", "/a/b/", true},
		{"/a", "/a", true}, {"/a", "/a/", false}, {"/a/**", "/a", true}, {"/a/**", "/a/", true}, {"/a/**", "/a/b/c", true}, {"/a/**", "/ab", false},
		{"/*/b", "/a/b", true}, {"/*/b", "/a/c/b", false}, {"/a*", "/abc", true}, {"/a*", "/abc/d", false}, {"/a*c", "/abbc", true},
		{"/*", "/", true}, {"/*/**", "/x/y/z", true}, {"/v*/x/**", "/v1/x/y", true}, {"/v*/x/**", "/v1/z/x", false}, {"/a", "/A", false},
		{"/a*b*c", "/aXbYbZc", true}, {"/a*b*c", "/aXbYbZ", false},
	} {
		if got := matchPath(c.pattern, c.path); got != c.want {
			t.Errorf("%s matches %s: %v", c.pattern, c.path, got)
		}
	}
	for path, want := range map[string]string{
		"/a?b#c": "/a", "/%41%7e": "/A~", "/%e2%82": "/%E2%82", "/a/": "/a/", "/a;b=c": "/a;b=c", "/...": "/...",
		"": "", "a": "", "*": "", "http://x/": "", "//": "", "/a//b": "", "/.": "", "/a/..": "", "/%2e%2E/a": "", "/a%2fb": "", "/a%5cb": "", "/a\\b": "",
		"/%00": "", "/%": "", "/%2": "", "/%zz": "", "/a b": "", "/..;x/a": "", "/%25": "", "/a\x00": "", "/ü": "",
	} {
		got, ok := canonicalPath(path)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q %v", path, got, ok)
		}
	}
}

func TestHiddenIPv4(t *testing.T) {
	for in, want := range map[string]string{
		"::ffff:10.1.2.3": "10.1.2.3", "64:ff9b::10.1.2.3": "10.1.2.3", "2002:a01:203::9": "10.1.2.3", "fe80::1%eth0": "fe80::1",
		"10.1.2.3": "10.1.2.3", "2001:db8::1": "2001:db8::1", "64:ff9b:1::1": "64:ff9b:1::1",
	} {
		if got := JudgedAddr(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("%s: %s", in, got)
		}
	}
	for in, want := range map[string]bool{"::ffff:127.0.0.1": true, "169.254.169.254": true, "168.63.129.16": true, "8.8.8.8": false, "2606:4700::1": false, "::": true, "fd00:ec2::254": true, "100.100.100.200": true} {
		if _, got := SpecialPurpose(netip.MustParseAddr(in)); got != want {
			t.Errorf("%s special: %v", in, got)
		}
	}
}

func TestResolvesTo(t *testing.T) {
	v := viewOf(t, `
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: org}
scope: org:acme
egress:
  - {id: plain, allow: "db.x:5432"}
  - {id: own, allow: "app.x:443", resolvesTo: [10.1.0.0/16]}
  - {id: own2, allow: "app.x:443", resolvesTo: [10.2.0.0/16, 10.1.0.0/16]}
  - {id: wide, allow: "*.x:443", resolvesTo: [192.168.0.0/16]}
---
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: box}
scope: sandbox:s1
egress:
  - {id: more, allow: "db.x:5432", resolvesTo: [169.254.169.254/32]}
  - {id: new, allow: "cache.x:6379", resolvesTo: [10.9.0.0/16]}
`)
	for _, c := range []struct {
		host string
		port uint16
		want string
	}{
		{"app.x", 443, "[10.1.0.0/16 10.2.0.0/16]"}, // every rule that shares in the word, no wider one
		{"other.x", 443, "[192.168.0.0/16]"},
		{"db.x", 5432, "[]"}, // the upper layer's word stands: a lower one cannot add ranges
		{"cache.x", 6379, "[10.9.0.0/16]"},
		{"cache.x", 443, "[192.168.0.0/16]"},
		{"nowhere.y", 443, "[]"},
	} {
		if got := fmt.Sprint(v.ResolvesTo(c.host, c.port, TCP)); got != c.want {
			t.Errorf("%s:%d: %s, want %s", c.host, c.port, got, c.want)
		}
	}
	var got []string
	for _, p := range v.Snapshot().UpstreamPrefixes() {
		got = append(got, fmt.Sprintf("%s:%d", p.Prefix, p.Port))
	}
	if want := "10.1.0.0/16:443 10.2.0.0/16:443 10.9.0.0/16:6379 169.254.169.254/32:5432 192.168.0.0/16:443"; strings.Join(got, " ") != want {
		t.Errorf("upstream prefixes: %v", got)
	}
	nd := v.Name("cache.x")
	if len(nd.Ports) != 2 || nd.Ports[0].Port != 443 || nd.Ports[1].Port != 6379 || nd.Wildcard {
		t.Errorf("%+v", nd)
	}
	if !v.Name("other.x").Wildcard {
		t.Error("a name that only a pattern allows is not marked")
	}
}

func TestAddrDenied(t *testing.T) {
	v := viewOf(t, egressDoc(`{id: no-10, deny: 10.0.0.0/8}
  - {id: but, allow: "10.1.0.0/16:443"}
  - {id: no-ssh, deny: "9.9.9.9:22"}`))
	for _, c := range []struct {
		addr string
		port []uint16
		want bool
	}{
		{"10.2.0.1", nil, true}, {"10.1.0.1", nil, true}, {"10.1.0.1", []uint16{443}, false}, {"10.1.0.1", []uint16{80}, true},
		{"9.9.9.9", []uint16{443}, false}, {"9.9.9.9", []uint16{22}, true}, {"9.9.9.9", nil, true}, {"::ffff:10.2.0.1", []uint16{1}, true},
		{"8.8.8.8", nil, false}, {"198.18.0.5", nil, true},
	} {
		d, denied := v.AddrDenied(netip.MustParseAddr(c.addr), TCP, c.port...)
		if denied != c.want || d.Allowed() || denied && d.ReasonCode == "" {
			t.Errorf("%s %v: %v %+v", c.addr, c.port, denied, d)
		}
	}
	if _, denied := v.AddrDenied(netip.Addr{}, TCP); !denied {
		t.Error("no address is not denied")
	}
}

func TestProviderScopes(t *testing.T) {
	v := viewOf(t, providerHead+"scope: org:other\ndialect: openai\nbaseURL: https://api.openai.com\nsecret: k\nmodels: [{match: gpt-4}]\n")
	if len(v.Providers()) > 0 || !v.Trial(DialectOpenAI) {
		t.Error("a provider of another organisation is used")
	}
	if !v.Inference(DialectOpenAI, "anything").Allowed() {
		t.Error("without a provider of its own the trial provider answers")
	}
	other := v.Snapshot().View(scope.Principal{Org: "other", Team: "t", Agent: "a"})
	if p := other.ProvidersAt("api.openai.com", DialectOpenAI); len(p) != 1 || p[0].Keys[0].Secret != "k" || other.Trial(DialectOpenAI) || other.Inference(DialectOpenAI, "anything").Allowed() {
		t.Error("the provider's own principal does not get it")
	}
	if nd := other.Name("API.openai.com."); !nd.Resolves || len(nd.Provider.Providers) != 1 || nd.Provider.Host != "api.openai.com" || !nd.Ports[0].HTTP {
		t.Errorf("%+v", nd)
	}
}

func TestExplain(t *testing.T) {
	v := viewOf(t, `
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: org}
scope: org:acme
egress:
  - {id: shut, deny: "**.x.org", reason: "ask the platform team"}
  - {id: web, allow: "a.x.org:80"}
---
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: box}
scope: sandbox:s1
egress:
  - {id: try, allow: "b.x.org:443"}
  - {id: others, for: "team:ops", allow: "b.x.org:443"}
  - {id: soft, deny: "c.y.org"}
`)
	e := v.Explain(Question{Section: SectionEgress, Host: "b.x.org", Port: 443})
	if e.Decision.Allowed() || e.Decision.Reason != "ask the platform team" || e.Decision.Rule.File != "f.yaml" || e.Decision.Rule.Line != 7 {
		t.Errorf("%+v", e.Decision)
	}
	var got []string
	for _, c := range e.Candidates {
		got = append(got, fmt.Sprintf("%s %v: %s", c.Rule, c.Matched, c.Why))
	}
	want := "org/shut true: decides | box/try true: the word of the org layer stands | box/others false: is for"
	if s := strings.Join(got, " | "); !strings.HasPrefix(s, want) {
		t.Errorf("%s", s)
	}
	if e.Nearest == nil || e.Nearest.Rule.ID != "try" || !strings.Contains(e.Remedy, "org/shut (f.yaml:7, scope org:acme) stands above and is not delegable") {
		t.Errorf("%+v %q", e.Nearest, e.Remedy)
	}
	e = v.Explain(Question{Section: SectionEgress, Host: "a.x.org", Port: 80})
	if !e.Decision.Allowed() || e.Candidates[1].Why != "gives way to org/web, which is narrower" || e.Remedy != "" {
		t.Errorf("%+v", e)
	}
	for _, c := range []struct {
		host string
		port uint16
		want string
	}{
		{"new.example", 8443, "ringfence allow new.example:8443"}, {"new.example", 0, "ringfence allow new.example:443"},
		{"NEW.example.", 443, "ringfence allow new.example:443"},
		{"c.y.org", 443, "ringfence allow c.y.org:443"}, // a narrower rule of the same layer helps
		{"10.0.0.1", 5432, "ringfence allow 10.0.0.1:5432"}, {"2606:4700::1", 443, "ringfence allow [2606:4700::1]:443"},
		{"198.18.0.9", 443, "connect by name: the address is reserved for names"},
		{"api.openai.com", 443, ""}, {"bad name", 443, ""},
		{"openrouter.ai", 443, "openrouter.ai is a host of OpenRouter, whose dialect this version does not speak: configure a Provider and use its dialect"},
	} {
		if got := v.Remedy(c.host, c.port, TCP); got != c.want {
			t.Errorf("%s:%d: %q", c.host, c.port, got)
		}
		want := c.want
		if strings.HasPrefix(want, "ringfence allow ") {
			want += "/udp"
		}
		if got := v.Remedy(c.host, c.port, UDP); got != want {
			t.Errorf("%s:%d/udp: %q", c.host, c.port, got)
		}
	}
	if got := v.Remedy("new.example", 53, UDP); got != "" {
		t.Errorf("port 53: %q", got)
	}
	e = v.Explain(Question{Section: SectionEgress, Host: "a.x.org", Port: 80, Proto: UDP})
	if e.Decision.Allowed() || e.Remedy == "" || e.Nearest == nil || e.Nearest.Why != "is for TCP, this is UDP" {
		t.Errorf("%+v", e)
	}
	if got := v.RemedyTool("web_search"); got != `add to a Policy document: tools: [{id: ID, allow: "server:provider/tool:web_search"}]` {
		t.Errorf("%q", got)
	}
	for _, q := range []Question{{}, {Section: SectionInference, Dialect: "openai", Model: "m"}, {Section: SectionTools, Tool: "t"}, {Section: SectionEgress, Host: "1.2.3.4"}, {Section: SectionEgress}} {
		v.Explain(q) // no question crashes
	}
}

func TestMandatoryRemedy(t *testing.T) {
	v := viewOf(t, egressDoc(`{id: never, deny: "**.x.org", mandatory: true}`))
	if got := v.Remedy("a.x.org", 443, TCP); got != "the mandatory rule p/never (f.yaml:6, scope org:acme) refuses it; no other rule can allow it" {
		t.Errorf("%q", got)
	}
}

func TestWithRule(t *testing.T) {
	r, err := NewEgressRule(Allow, "API.example:443")
	if err != nil {
		t.Fatal(err)
	}
	r.Reason = `say "why"`
	d, err := WithRule(nil, bot.Selector(), r)
	if err != nil {
		t.Fatal(err)
	}
	want := `apiVersion: ringfence.dev/v1
kind: Policy
metadata:
  name: "allow-api.example-443"
scope: "org:acme/team:eng/agent:bot/sandbox:s1"
egress:
  - id: "rule"
    allow: "api.example:443"
    reason: "say \"why\""
`
	if string(d.Raw) != want {
		t.Errorf("%s", d.Raw)
	}
	again, err := WithRule([]Document{d}, bot.Selector(), r)
	if err != nil || string(again.Raw) != want {
		t.Errorf("not the same document again: %v %s", err, again.Raw)
	}
	r.Reason = ""
	other, err := WithRule([]Document{d}, bot.Selector(), r)
	if err != nil || other.Name != "allow-api.example-443-2" {
		t.Errorf("%v %s", err, other.Name)
	}
	if !compileAll(t, []Document{d}).View(bot).Egress("api.example", 443).Allowed() {
		t.Error("the authored rule does not allow")
	}
	for _, bad := range []string{"example", "api.openai.com:443", "127.1:80", "a b:1"} {
		if _, err := NewEgressRule(Allow, bad); err == nil {
			t.Errorf("%s is a rule", bad)
		}
	}
	full := Rule{Section: SectionEgress, ID: "x", Effect: Allow, Host: HostPattern{HostDeep, "x.org"}, Port: 443, HTTP: &HTTPMatch{Methods: []string{"GET"}, Paths: []string{"/a/**"}},
		ResolvesTo: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Delegable: true}
	if d, err = WithRule(nil, scope.All(), full); err != nil || d.Policy.Egress[0].HTTP.Paths[0] != "/a/**" {
		t.Errorf("%v %+v", err, d)
	}
	full.Effect = Block
	if _, err = WithRule(nil, scope.All(), full); err == nil {
		t.Error("a wrong rule is authored")
	}
}

func TestViewsAreCachedAndBounded(t *testing.T) {
	s := compileAll(t, nil)
	if first := s.View(bot); first != s.View(bot) {
		t.Error("not cached")
	}
	for i := range maxViews + 10 {
		s.View(scope.Principal{Org: "o", Team: "t", Agent: fmt.Sprint(i)})
	}
	if len(s.views) > maxViews {
		t.Errorf("%d views", len(s.views))
	}
}

// A name with many rules of many agents is found by groups, not by a scan.
func TestLongPostings(t *testing.T) {
	var docs []Document
	for i := range 300 {
		d := Document{Kind: KindPolicy, Name: fmt.Sprint("d", i), Scope: sel(fmt.Sprintf("org:acme/team:eng/agent:a%d", i)), Policy: &Policy{}}
		d.Policy.Egress = []Rule{{ID: "r", Section: SectionEgress, Effect: Allow, Host: HostPattern{HostExact, "x.org"}, Port: uint16(1000 + i)}}
		docs = append(docs, d)
	}
	s := compileAll(t, docs)
	for _, i := range []int{0, 150, 299} {
		v := s.View(scope.Principal{Org: "acme", Team: "eng", Agent: fmt.Sprint("a", i)})
		if !v.Egress("x.org", uint16(1000+i)).Allowed() || v.Egress("x.org", uint16(1001+i)).Allowed() || len(v.Name("x.org").Ports) != 1 {
			t.Errorf("agent %d", i)
		}
	}
}

// Hosts of providers with a region inside are found whatever rules are there,
// and names beside them are not taken for theirs.
func TestProvidersWithARegion(t *testing.T) {
	v := viewOf(t, egressDoc(`{id: a, allow: "**:443"}`+"\n  - {id: b, allow: \"**.amazonaws.com:443\"}"))
	for host, provider := range map[string]bool{
		"bedrock-runtime.eu-west-1.amazonaws.com": true, "bedrock-runtime.cn-north-1.amazonaws.com.cn": true, "europe-west1-aiplatform.googleapis.com": true,
		"aiplatform.eu.rep.googleapis.com": true, "bedrock-mantle.eu-west-1.api.aws": true,
		"s3.eu-west-1.amazonaws.com": false, "amazonaws.com": false, "storage.googleapis.com": false, "bedrock-runtime.amazonaws.com": false, "bedrock-runtime.x.amazonaws.com.x.org": false,
	} {
		d := v.Egress(host, 443)
		if _, is := v.ProviderHost(host); is != provider || d.Allowed() == provider || provider && d.ReasonCode != CodeProviderUnsupported {
			t.Errorf("%s: %+v", host, d)
		}
	}
}
