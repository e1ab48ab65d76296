// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

func TestPolicyReplayAndLearn(t *testing.T) {
	dir := t.TempDir()
	var log []byte
	for _, e := range []event.Event{
		{Kind: event.KindNetwork, Verdict: event.Allowed, DstName: "db.example", DstPort: 5432},
		{Kind: event.KindNetwork, ReasonCode: "no-rule", DstName: "new.example", DstPort: 443, Count: 4},
		{Kind: event.KindNetwork, ReasonCode: "sni-mismatch", DstName: "db.example", DstPort: 5432},
	} {
		e.Time, e.Scope, e.Sandbox, e.Proto = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC), "org:acme/team:t/agent:a/sandbox:s", "s", "tcp"
		line, err := e.AppendOCSF(nil, event.Node{})
		if err != nil {
			t.Fatal(err)
		}
		log = append(append(log, line...), '\n')
	}
	put(t, dir, map[string]string{
		"old.yaml": testedPolicy, "new.yaml": strings.Replace(testedPolicy, "db.example", "dc.example", 1), "events.jsonl": string(log), "log/1.jsonl": string(log), "bad.jsonl": "{}\n", "cut.jsonl": string(log[:len(log)-20]), "cut/1.jsonl": string(log[:len(log)-20]), "cut/2.jsonl": string(log[:len(log)-1]),
		"within.jsonl": string(log[:100]) + "\n" + string(log), "other.jsonl": "x: 1", "none/x": "",
	})
	for _, c := range []offline{
		{"diff old.yaml new.yaml --replay events.jsonl", exitOK, []string{"db.example:5432", "allow by eng/db", "1 of 5 past decisions would change", "not asked again: 1, decided by something else than policy: sni-mismatch"}},
		{"diff old.yaml new.yaml --replay log -o json", exitOK, []string{`"changed": 1`, `"decided": 5`, `"verdict": "block"`}},
		{"diff old.yaml new.yaml --replay events.jsonl --since 2026-03-03", exitOK, []string{"0 of 0 past"}},
		{"diff old.yaml --replay events.jsonl", exitUsage, []string{"--replay compares two"}},
		{"diff old.yaml new.yaml", exitUsage, []string{`the revision "old.yaml" is no number above 0, for example 12; what files would decide otherwise is shown with --replay EVENTLOG`}},
		{"diff 1 --since 1h", exitUsage, []string{"--since goes with --replay"}},
		{"diff old.yaml new.yaml --replay bad.jsonl", exitGeneric, []string{"bad.jsonl: record 1"}},
		{"diff old.yaml new.yaml --replay cut.jsonl", exitOK, []string{"1 of 5 past decisions would change", "not asked again: 1, the log ends within the record"}},
		{"diff old.yaml new.yaml --replay cut -o json", exitOK, []string{`"decided": 10`, `"the log ends within the record": 1`, `sni-mismatch": 1`}},
		{"diff old.yaml new.yaml --replay within.jsonl", exitGeneric, []string{"within.jsonl: record 1"}},
		{"diff old.yaml new.yaml --replay other.jsonl", exitGeneric, []string{"other.jsonl: record 1"}},
		{"learn --policy old.yaml --events cut.jsonl", exitOK, []string{`allow: "new.example:443"`, "# once the log ends within the record"}},
		{"diff old.yaml new.yaml --replay none", exitGeneric, []string{"holds no *.jsonl"}},
		{"diff old.yaml live --replay events.jsonl", exitUnreachable, nil},
		{"diff old.yaml ./4 --replay events.jsonl", exitGeneric, []string{"./4: no such file"}},
		{"diff 0 old.yaml --replay events.jsonl", exitGeneric, []string{`"0" is no file, directory or pack`}},
		{"diff 3 4 --replay events.jsonl", exitUnreachable, nil},
		{"learn --policy old.yaml --events events.jsonl", exitOK, []string{"# refused 4 times, last 2026-03-02 12:00:00", `allow: "new.example:443"}`, "# once decided by something else than policy: sni-mismatch"}},
		{"learn s --policy old.yaml --events events.jsonl", exitOK, []string{`allow: "new.example:443"}`}},
		{"learn other --policy old.yaml --events events.jsonl", exitOK, []string{"nothing that could be learned"}},
		{"learn --policy nosuch.yaml --events events.jsonl", exitGeneric, nil},
		{"learn --events events.jsonl", exitUnreachable, nil},
	} {
		c.try(t, dir)
	}
}

// A number is a revision wherever documents are named: what the node kept, with
// what stood aside then left out.
func TestRevisionsAreDocuments(t *testing.T) {
	n := startNode(t)
	dir := t.TempDir()
	e := event.Event{Kind: event.KindNetwork, Verdict: event.Allowed, DstName: "db.example", DstPort: 5432, Scope: "org:acme/team:t/agent:a/sandbox:s", Sandbox: "s", Proto: "tcp"}
	line, err := e.AppendOCSF(nil, event.Node{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, map[string]string{"log.jsonl": string(line) + "\n", "old.yaml": testedPolicy})
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"diff 3 4 --replay log.jsonl", exitOK, "1 of 1 past decisions would change"},
		{"diff 3 old.yaml --replay log.jsonl", exitOK, "0 of 1 past decisions would change"},
		{"diff 9 4 --replay log.jsonl", exitGeneric, "a document of revision 9 is not understood by this version of ringfence: Policy/eng@9:1:"},
		{"prove 3 --no-more-permissive-than 3", exitOK, "proved"},
		{"prove 4 --no-more-permissive-than 3", exitGeneric, "new       allow by eng/db Policy/eng@4:6"},
		{"lint 3", exitOK, "0 findings"},
	} {
		cmd := tool(t, n.socket, append([]string{"policy"}, strings.Fields(c.args)...)...)
		cmd.Dir = dir
		if r := finish(t, cmd); r.code != c.code || !strings.Contains(r.out+r.errOut, c.want) {
			t.Errorf("%s: exit %d, no %q in\n%s%s", c.args, r.code, c.want, r.out, r.errOut)
		}
	}
}
