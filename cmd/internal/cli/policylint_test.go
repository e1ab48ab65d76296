// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/policy"
)

func TestPolicyLint(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{
		"eng.yaml": testedPolicy, "twice.yaml": testedPolicy + "  - {id: no-db, deny: \"db.example:5432\"}\n  - {id: guard, deny: \"**.paste.example\"}\n", "bad.yaml": "x: 1",
	})
	for _, c := range []offline{
		{"eng.yaml", exitOK, []string{"0 findings, 0 notes"}},
		{"twice.yaml", exitGeneric, []string{"twice.yaml:6:5: contradiction: eng/db: eng/no-db (twice.yaml:8) says block", "twice.yaml:9:5: note, default: eng/guard", "1 finding, 1 note"}},
		{"-o json twice.yaml", exitGeneric, []string{`"ok": false`, `"kind": "contradiction"`, `"note": true`, `"rule": "eng/guard"`}},
		{"--known org:other/team:t/agent:a eng.yaml", exitGeneric, []string{"eng.yaml:1:1: nobody: eng: its scope org:acme holds nobody"}},
		{"--known org:acme/team:t/agent:a eng.yaml", exitOK, nil},
		{"--known org:acme eng.yaml", exitUsage, []string{"--known"}},
		{"--hits eng.yaml", exitUsage, []string{"name live"}},
		{"pack:coding-agent", exitOK, []string{"0 findings"}},
		{"bad.yaml", exitGeneric, []string{"bad.yaml:1:1"}},
		{"live", exitUnreachable, nil},
	} {
		c.try(t, dir, "lint")
	}
}

func TestNeverHit(t *testing.T) {
	docs, problems := policy.Parse("eng.yaml", []byte(testedPolicy))
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	use := api.PolicyUse{Since: time.Now(), Rules: []api.RuleUse{
		{Rule: "eng/db", Scope: "org:acme", GatewayHits: 1}, {Rule: "eng/web", Scope: "org:acme"}, {Rule: "eng/db", Scope: "org:other"},
	}}
	if got := neverHit(docs, use); len(got) != 1 || got[0].Rule.ID != "web" || got[0].Line != 7 {
		t.Errorf("%+v", got)
	}
}
