// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPolicyProve(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{
		"eng.yaml": testedPolicy, "less.yaml": strings.Replace(testedPolicy, "  - {id: web", "  - {id: no, deny: \"web.example:443\"}\n  - {id: web", 1),
		"when.yaml": strings.Replace(testedPolicy, `"web.example:443"}`, `"web.example:443", when: {expression: "port == 1"}}`, 1), "bad.yaml": "x: 1",
	})
	for _, c := range []offline{
		{"less.yaml --no-more-permissive-than eng.yaml", exitOK, []string{"proved: whatever is asked, the answer is no more permissive"}},
		{"eng.yaml --no-more-permissive-than less.yaml", exitGeneric, []string{"not so", "scope     org:acme/", "asks for  web.example:443", "new       allow by eng/web eng.yaml:7", "old       block by eng/no less.yaml:7"}},
		{"when.yaml --no-more-permissive-than eng.yaml", exitOK, []string{"whatever 1 condition of rules say"}},
		{"eng.yaml --no-more-permissive-than when.yaml", exitGeneric, []string{`assuming  "port == 1": false`, "it is no counterexample"}},
		{"-o json eng.yaml --no-more-permissive-than less.yaml", exitGeneric, []string{`"holds": false`, `"question": "web.example:443"`, `"verdict": "block"`}},
		{"eng.yaml --no-more-permissive-than pack:coding-agent --no-more-permissive-than eng.yaml", exitOK, []string{"proved"}},
		{"eng.yaml", exitUsage, []string{"say what to compare with, for example: ringfence policy prove eng.yaml --no-more-permissive-than live"}},
		{"pack:coding-agent --no-more-permissive-than locked-down", exitGeneric, []string{"new       allow by coding-agent/", " pack:coding-agent:"}},
		{"codingagent --no-more-permissive-than eng.yaml", exitGeneric, []string{`"codingagent" is no file, directory or pack`}},
		{"--no-more-permissive-than eng.yaml", exitUsage, nil},
		{"eng.yaml --no-more-permissive-than bad.yaml", exitGeneric, []string{"bad.yaml:1:1"}},
		{"live --no-more-permissive-than eng.yaml", exitUnreachable, nil},
	} {
		c.try(t, dir, "prove")
	}
}

// What cannot be written is no answer.
func TestAnswersThatCannotBeWrittenFail(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	dir := t.TempDir()
	for name, text := range map[string]string{"eng.yaml": testedPolicy, "events.jsonl": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range []string{"prove eng.yaml --no-more-permissive-than eng.yaml", "lint eng.yaml", "diff eng.yaml eng.yaml --replay events.jsonl", "learn --policy eng.yaml --events events.jsonl"} {
		for _, more := range []string{"", " -o json"} {
			if more != "" && strings.HasPrefix(args, "learn") {
				continue
			}
			cmd := tool(t, "/nonexistent", append([]string{"policy"}, strings.Fields(args+more)...)...)
			cmd.Dir, cmd.Stdout = dir, full
			if r := finish(t, cmd); r.code != exitGeneric || !strings.Contains(r.errOut, "no space left on device") {
				t.Errorf("%s%s: exit %d, %s", args, more, r.code, r.errOut)
			}
		}
	}
}
