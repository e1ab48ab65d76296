// SPDX-License-Identifier: Apache-2.0

package event

import "testing"

func TestLastingRemedy(t *testing.T) {
	const scope = "org:local/team:default/agent:sh/sandbox:b0a1c2d3"
	for _, c := range []struct{ name, remedy, scope, want string }{
		{"a rule for the running sandbox", "ringfence allow x.test:443", scope, "ringfence allow x.test:443 --scope org:local/team:default/agent:sh --always"},
		{"an address", "ringfence allow [2001:db8::1]:443", scope, "ringfence allow [2001:db8::1]:443 --scope org:local/team:default/agent:sh --always"},
		{"a target of its own", "ringfence allow x.test:443 --scope org:acme --always", scope, "ringfence allow x.test:443 --scope org:acme --always"},
		{"no scope", "ringfence allow x.test:443", "", "ringfence allow x.test:443"},
		{"another command", "ringfence provider add openai", scope, "ringfence provider add openai"},
		{"a sentence", `add to a Policy document: inference: [{id: ID, allow: "gpt-x"}]`, scope, `add to a Policy document: inference: [{id: ID, allow: "gpt-x"}]`},
		{"nothing", "", scope, ""},
		{"a host that a shell runs", "ringfence allow x$(reboot).test:443", scope, ""},
		{"a scope that a shell runs", "ringfence allow x.test:443", "org:local/team:default/agent:`id`", ""},
		{"a second line", "ringfence allow x.test:443\nreboot", scope, ""},
	} {
		if got := LastingRemedy(c.remedy, c.scope); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
