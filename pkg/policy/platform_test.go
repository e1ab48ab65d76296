// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestPlatformDocuments(t *testing.T) {
	for _, c := range []struct{ dialect, platform, base, rest string }{
		{"openai", "azure", "https://x.openai.azure.com", ""},
		{"openai", "azure", "https://x.openai.azure.com/openai", ""},
		{"openai", "azure", "https://x.openai.azure.com/openai/v1", ""},
		{"openai", "azure", "https://gw.internal/team/openai/v1", ""},
		{"anthropic", "bedrock", "https://bedrock-runtime.eu-west-1.amazonaws.com", ""},
		{"anthropic", "bedrock", "https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", ""},
		{"anthropic", "bedrock", "https://vpce-1-a.bedrock-runtime.eu-west-1.vpce.amazonaws.com", ""},
		{"anthropic", "bedrock", "https://bedrock.internal", "region: eu-west-1\n"},
		{"anthropic", "vertex", "https://aiplatform.eu.rep.googleapis.com/v1/projects/p-1/locations/eu", ""},
		{"gemini", "vertex", "https://aiplatform.googleapis.com/v1beta1/projects/example.com:p/locations/global", ""},
	} {
		docs, problems := Parse("f", []byte(providerHead+"dialect: "+c.dialect+"\nplatform: "+c.platform+"\nbaseURL: "+c.base+"\nsecret: k\n"+c.rest))
		if len(problems) > 0 || len(docs) != 1 || docs[0].Provider.Platform != c.platform {
			t.Errorf("%+v: %v", c, problems)
			continue
		}
		v := viewOf(t, providerHead+"dialect: "+c.dialect+"\nplatform: "+c.platform+"\nbaseURL: "+c.base+"\nsecret: k\n"+c.rest)
		if !slices.ContainsFunc(v.Providers(), func(p *Provider) bool { return p.Platform == c.platform }) {
			t.Errorf("%+v: not in the snapshot", c)
		}
	}
	ref := Reference(KindProvider)
	for _, p := range Platforms() {
		if !strings.Contains(ref, "| `"+p+"` |") {
			t.Errorf("the reference has no row for %s", p)
		}
	}
}
