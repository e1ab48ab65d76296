// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// sheet is the nth policy of the test: each name is allowed or refused by its bit
// of n, an address is always refused, and each rule has n in its id.
func sheet(n int) string {
	var b strings.Builder
	b.WriteString("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: sheet}\nscope: org:local\negress:\n")
	for i := range 4 {
		if n>>i&1 == 1 {
			fmt.Fprintf(&b, "  - {id: a%d-%d, allow: \"h%d.test:80\"}\n", i, n, i)
		} else {
			fmt.Fprintf(&b, "  - {id: d%d-%d, deny: \"h%d.test\"}\n", i, n, i)
		}
	}
	fmt.Fprintf(&b, "  - {id: d4-%d, deny: \"203.0.114.7\"}\n", n)
	return b.String()
}

// TestReloadWhileAnAgentConnects: policy changes ten times a second while two
// loops resolve and connect. Every record of a decision, the kernel's and the
// gateway's, names a rule of the revision that it names, and says what that rule
// says.
func TestReloadWhileAnAgentConnects(t *testing.T) {
	w := newWorld(t)
	for i := range 4 {
		name := fmt.Sprintf("h%d.test", i)
		w.site(t, name, doubles.Page(name))
	}
	n := w.start(t, node.Options{})
	client := api.NewClient(n.Socket)
	apply := func(i int) uint64 {
		t.Helper()
		res, err := client.ApplyPolicy(context.Background(), api.ApplyRequest{Documents: []api.Document{{File: "sheet.yaml", Text: sheet(i)}}})
		if err != nil {
			t.Fatal(err)
		}
		return res.Revision
	}
	const loop = `loop() { while :; do for i in 0 1 2 3; do curl -s -m 5 -o /dev/null "http://h$i.test/"; done; curl -s -m 5 -o /dev/null http://203.0.114.7/; done; }; loop & loop`
	of := map[uint64]int{apply(0): 0}
	if r := n.CLIIn(t, n.Workspace(t), "run", "--profile", "coding", "--detach", "--name", "busy", "--", "sh", "-c", loop); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	box := n.Sandbox(t, "busy")
	n.WaitEvent(t, "the first refusal", func(e *event.Event) bool { return e.Sandbox == box.ID && e.Rule == "sheet/d4-0" })
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	begun := time.Now()
	const changes = 60
	for i := 1; i <= changes; i++ {
		of[apply(i)] = i
		<-tick.C
	}
	took := time.Since(begun)
	n.WaitEvent(t, "a refusal by the last", func(e *event.Event) bool {
		return e.Sandbox == box.ID && e.Rule == fmt.Sprintf("sheet/d4-%d", changes)
	})
	if r := n.CLI(t, "stop", "busy", "--timeout", "0s"); r.Code != 0 {
		t.Error(r.Stderr)
	}
	seen, sources := map[uint64]bool{}, map[string]int{}
	events := n.Events(t)
	for i := range events {
		e := &events[i]
		id, ours := strings.CutPrefix(e.Rule, "sheet/")
		if e.Sandbox != box.ID || !ours {
			continue
		}
		if msg := judged(e, id, of); msg != "" {
			t.Errorf("%s: %s %s of %s by %s in revision %d (%s)", msg, e.Kind, e.Verdict, e.DstName, e.Rule, e.Revision, e.ReasonCode)
		}
		seen[e.Revision] = true
		sources[fmt.Sprint(e.Layer, " ", e.Kind, " ", e.Verdict)]++
	}
	t.Logf("%.1f changes a second; decisions of %d revisions were recorded: %v", changes/took.Seconds(), len(seen), sources)
	if len(seen) < changes/4 {
		t.Error("too few to mean anything")
	}
}

// judged compares a record with the sheet of its revision.
func judged(e *event.Event, id string, of map[uint64]int) string {
	n, ok := of[e.Revision]
	rule, number, _ := strings.Cut(id, "-")
	switch {
	case !ok:
		return "a revision that nobody made"
	case number != strconv.Itoa(n):
		return fmt.Sprintf("a rule of another revision, this one's is number %d", n)
	case len(rule) != 2:
		return "no rule of the sheet"
	}
	at, err := strconv.Atoi(rule[1:])
	if err != nil {
		return err.Error()
	}
	allows := rule[0] == 'a'
	switch {
	case allows != (at < 4 && n>>at&1 == 1):
		return "the sheet has no such rule"
	case e.ReasonCode == "revoked" && allows: // it was open by this rule, and a later revision ended it
	case allows != (e.Verdict != event.Denied):
		return "the rule says otherwise"
	}
	return ""
}
