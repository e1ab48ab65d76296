// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"
)

const testedPolicy = `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: eng}
scope: org:acme
egress:
  - {id: db, allow: "db.example:5432"}
  - {id: web, allow: "web.example:443"}
`

const policyTests = `apiVersion: ringfence.dev/v1
kind: PolicyTest
metadata: {name: eng}
policies: [../eng.yaml]
as: org:acme/team:t/agent:a
tests:
  - {egress: "db.example:5432", want: allow, rule: eng/db}
  - {name: "the web is open", egress: "web.example:80", want: allow}
`

func TestPolicyTest(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{
		"eng.yaml": testedPolicy, "tests/bad.yaml": policyTests, "tests/good.yaml": strings.Replace(policyTests, `web.example:80", want: allow`, `web.example:80", want: block, rule: none`, 1),
		"more.yaml": testedPolicy + "  - {id: more, deny: \"more.example\"}\n", "broken.yaml": strings.Replace(policyTests, "want: allow}", "want: alow}", 1),
	})
	for _, c := range []offline{
		{"tests/good.yaml", exitOK, []string{"2 tests passed, 0 failed"}},
		{"tests/bad.yaml", exitGeneric, []string{"tests/bad.yaml:8: the web is open: want allow, got block by none: no rule of the policy allows it", "1 test passed, 1 failed"}},
		{"tests", exitGeneric, []string{"3 tests passed, 1 failed"}},
		{"--coverage tests/good.yaml", exitGeneric, []string{"eng.yaml:7: no test is decided by eng/web"}},
		{"--mutate tests/good.yaml", exitGeneric, []string{"eng.yaml:7: without eng/web every test still passes"}},
		{"--mutate tests/bad.yaml", exitGeneric, []string{"1 test passed, 1 failed"}},
		{"--policy more.yaml --coverage tests/good.yaml", exitGeneric, []string{"more.yaml:8: no test is decided by eng/more"}},
		{"--policy coding-agent tests/good.yaml", exitGeneric, []string{"got block by none"}},
		{"-o json --mutate tests/good.yaml", exitGeneric, []string{`"deletable": [`, `"rule": "eng/web"`, `"passed": 2`}},
		{"eng.yaml", exitGeneric, []string{"eng.yaml:1:1: this is no document of tests"}},
		{"broken.yaml", exitGeneric, []string{`unknown want "alow" (did you mean "allow"?)`}},
		{"--policy nosuch.yaml tests/good.yaml", exitGeneric, []string{"nosuch.yaml"}},
	} {
		c.try(t, dir, "test")
	}
}
