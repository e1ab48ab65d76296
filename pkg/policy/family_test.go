// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"testing"
)

// TestFamilyHosts: each is in the table of providers, closed there, and opened by a
// document that names it or is on it.
func TestFamilyHosts(t *testing.T) {
	if !slices.IsSortedFunc(openAIFamily, func(a, b familyHost) int { return strings.Compare(a.host, b.host) }) {
		t.Error("not sorted")
	}
	const rule = "---\napiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: q}\nscope: org:acme\ninference: [{id: a, allow: '*'}]\n"
	none := viewOf(t, strings.TrimPrefix(rule, "---\n"))
	for _, f := range openAIFamily {
		if !slices.ContainsFunc(knownProviders, func(k [3]string) bool { return k[0] == f.host && k[1] == "" }) {
			t.Errorf("%s is not in the table, or has a dialect there", f.host)
		}
		if !slices.IsSortedFunc(f.prefixes, func(a, b string) int { return len(b) - len(a) }) {
			t.Errorf("%s: prefixes %q", f.host, f.prefixes)
		}
		nd := none.Name(f.host)
		if nd.Resolves || nd.Decision.ReasonCode != CodeProviderUnsupported || !strings.Contains(nd.Decision.Reason, "hosts: ["+f.host+"]") {
			t.Errorf("%s without a document: %+v", f.host, nd)
		}
		for _, doc := range []string{"baseURL: https://elsewhere.example/v1\nhosts: [" + f.host + "]\n", "baseURL: https://" + f.host + f.prefixes[0] + "\n"} {
			v := viewOf(t, providerHead+"dialect: openai\nsecret: k\n"+doc+rule)
			if nd := v.Name(f.host); !nd.Resolves || nd.Provider == nil || nd.Provider.Dialect != DialectOpenAI || len(nd.Provider.Providers) != 1 {
				t.Errorf("%s with %q: %+v", f.host, doc, nd)
			}
			if d := v.Egress(f.host, 443); d.Allowed() {
				t.Errorf("%s is plain egress", f.host)
			}
		}
	}
	if _, problems := Parse("f", []byte(providerHead+"dialect: anthropic\nsecret: k\nbaseURL: https://x.example\nhosts: [api.groq.com]\n")); len(problems) != 1 ||
		!strings.Contains(problems[0].Error(), "agents speak the dialect openai at api.groq.com") {
		t.Errorf("%v", problems)
	}
	if !strings.Contains(Reference(KindProvider), "| `api.groq.com` | Groq | openai at `/openai/v1/...`, with a Provider that names the host |") {
		t.Error("the reference does not say it")
	}
}
