// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// One sandbox sends the gateway nonsense by the megabyte and holds every
// connection it can get. Another is served meanwhile, nothing gets past policy,
// nothing crashes, and what the first one took is given back.
func TestHostileBytesFromASandbox(t *testing.T) {
	w := newWorld(t)
	n := node.Start(t, w.options())
	l := startLoad(t, n, "honest", append(w.allowed(), w.denied()...)...)
	l.more(t, nil, 3, "echo", "web", "llm")
	gw := must(n.Gateway(t))
	fds, rss := node.FDs(t, gw.PID), statusField(gw.PID, "VmRSS")

	ws := n.Workspace(t)
	node.BuildInto(t, ws, "test/faults/testdata/hostile")
	type outcome struct{ r node.Result }
	done := make(chan outcome, 1)
	go func() {
		done <- outcome{n.CLIIn(t, ws, "run", "-q", "--profile", "coding", "--name", "hostile", "--", "./hostile", fmt.Sprintf("web.example:%d", port(w.web.Addr)))}
	}()
	var served int64
	since, most, r := l.counts(t), rss, node.Result{}
	for running := true; running; {
		select {
		case o := <-done:
			r, running = o.r, false
		case <-time.After(50 * time.Millisecond):
			most = max(most, statusField(gw.PID, "VmRSS"))
		}
	}
	c := l.counts(t)
	served = c["llm"].OK - since["llm"].OK
	if r.Code != 0 || !strings.HasPrefix(r.Stdout, "sent ") {
		t.Errorf("the hostile program: exit %d %q %s", r.Code, r.Stdout, r.Stderr)
	}
	if served == 0 || c["web"].OK == since["web"].OK {
		t.Errorf("the other sandbox was not served meanwhile: %+v", c)
	}
	l.more(t, l.counts(t), 5, "echo", "web", "llm")
	l.tried(t, l.counts(t), 3, deniedKinds...)
	w.nothingPassed(t, l)
	if now := must(n.Gateway(t)); now != gw {
		t.Error("the gateway was replaced: it crashed")
	}
	for _, crash := range []string{"panic", "goroutine ", "DATA RACE"} {
		if strings.Contains(n.Log(), crash) {
			t.Errorf("%q in the log", crash)
		}
	}
	eventually(t, "the gateway gives descriptors back", func() bool { return node.FDs(t, gw.PID) <= fds+40 })
	if most > 600<<10 {
		t.Errorf("the gateway took %d kB", most)
	}
	t.Logf("%s attempts; the other sandbox: llm %d ok, %d failed, longest gap %s; gateway %d kB before, %d kB at most", strings.TrimSpace(r.Stdout),
		served, c["llm"].Fail-since["llm"].Fail, c["llm"].MaxGap.Round(time.Millisecond), rss, most)
	n.WaitEvent(t, "a connection over the limit", func(e *event.Event) bool { return e.Verdict == event.Denied && e.Object == "" && e.Sandbox != "" })
}

// Many kinds of broken documents lie in the policy directory at the start and
// are put there while sandboxes run.
func TestMalformedPolicyNeverOpensOrCloses(t *testing.T) {
	w := newWorld(t)
	o := w.options()
	bad := map[string]string{
		"01-binary.yaml":  "\x00\xff\xfe\x01",
		"02-tabs.yaml":    "\tkind: Policy",
		"03-field.yaml":   "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: x}\nscope: org:local\negress:\n  - {id: a, alow: \"evil.example:443\"}\n",
		"04-kind.yaml":    "apiVersion: ringfence.dev/v1\nkind: Nothing\nmetadata: {name: x}\n",
		"05-empty.yaml":   "",
		"06-list.yaml":    "[]",
		"07-version.yaml": "apiVersion: ringfence.dev/v2\nkind: Policy\nmetadata: {name: x}\nscope: org:local\negress: []\n",
		"08-huge.yaml":    "# " + strings.Repeat("x", 2<<20),
		"09-deep.yaml":    strings.Repeat("[", 50_000),
		"10-alias.yaml":   "a: &a [1,2]\nb: *c\n",
		"11-half.yaml":    w.policy()[:len(w.policy())/2],
		"12-second.yaml":  strings.Replace(w.policy(), "name: world", "name: second", 1) + "---\nkind: Policy\negress: 5\n",
		"13-later.yaml":   "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: x}\nscope: org:local\nguardrails: [{id: b}]\n",
	}
	for name, text := range bad {
		o.Policies[name] = text
	}
	n := node.Start(t, o)
	l := startLoad(t, n, "agent", append(w.allowed(), w.denied()...)...)
	l.more(t, nil, 3, "echo", "web", "llm")
	for name, text := range bad { // the good one becomes each of them in turn
		n.WritePolicy(t, "world.yaml", text)
		if name == "05-empty.yaml" { // a good one without documents: it closes
			n.WritePolicy(t, "world.yaml", w.policy())
			l.more(t, l.counts(t), 2, "web")
		}
		l.more(t, l.counts(t), 2, "echo")
	}
	l.more(t, l.counts(t), 2, "echo", "web", "llm")
	l.tried(t, l.counts(t), 3, deniedKinds...)
	w.nothingPassed(t, l)
	r := n.CLI(t, "doctor")
	if !strings.Contains(r.Stdout+r.Stderr, "mistake") {
		t.Errorf("doctor says nothing about the broken documents: %s%s", r.Stdout, r.Stderr)
	}
	for _, name := range []string{"03-field.yaml", "04-kind.yaml", "08-huge.yaml", "12-second.yaml"} {
		n.WaitEvent(t, "the log names "+name, func(e *event.Event) bool {
			return e.Kind == event.KindPolicy && e.Verdict == event.Denied && strings.Contains(e.Detail, name)
		})
		c := n.CLI(t, "policy", "check", filepath.Join(n.PolicyDir, name))
		if c.Code == 0 || !strings.Contains(c.Stdout+c.Stderr, name) {
			t.Errorf("policy check %s: %d %s%s", name, c.Code, c.Stdout, c.Stderr)
		}
	}
	if bytes.Contains([]byte(n.Log()), []byte("panic")) {
		t.Error("the daemon panicked")
	}
}
