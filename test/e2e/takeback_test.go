// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// takenBack runs `allow --remove` and returns how many rules that removed.
func takenBack(t *testing.T, n *node.Node, args ...string) int {
	t.Helper()
	r := n.CLI(t, append([]string{"allow", "--remove", "-o", "json"}, args...)...)
	var res api.TakenBack
	if err := json.Unmarshal([]byte(r.Stdout), &res); r.Code != 0 || err != nil || !res.Effective {
		t.Fatalf("allow --remove %v: exit %d %v %s%s", args, r.Code, err, r.Stdout, r.Stderr)
	}
	return len(res.Rules)
}

// TestTakeBack gives rules in every way and takes them back.
func TestTakeBack(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"one.test", "two.test", "three.test", "four.test"} {
		w.site(t, name, doubles.Page(name))
	}
	n := w.start(t, node.Options{Policies: map[string]string{
		"three.yaml": "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: standing}\nscope: org:local\negress:\n  - {id: three, allow: \"three.test:443\"}\n"}})
	first := w.waitingAgent(t, n, "first")
	second := w.waitingAgent(t, n, "second", "--as", "org:local/team:other")
	t.Run("of a sandbox", func(t *testing.T) { takeBackOfSandbox(t, n, first) })
	t.Run("of a scope", func(t *testing.T) { takeBackOfScope(t, n, first, second) })
	t.Run("nothing there", func(t *testing.T) { takeBackNothing(t, n, first) })
	t.Run("not after a restart", func(t *testing.T) {
		allow(t, n, "one.test:443", "--sandbox", "first")
		allow(t, n, "two.test:443", "--sandbox", "first")
		takenBack(t, n, "one.test:443", "--sandbox", "first")
		n.StopDaemon(t, syscall.SIGTERM)
		w.near.do(func() { n.StartDaemon(t) })
		first.expect(t, "https://two.test/", "200") // the control: that one was adopted
		first.expect(t, "https://one.test/", "000")
	})
	for _, a := range []*agent{first, second} {
		if r := n.CLI(t, "stop", a.name, "--timeout", "0s"); r.Code != 0 {
			t.Errorf("stop: %s", r.Stderr)
		}
	}
	if r := n.CLI(t, "allow", "--remove", "one.test:443"); r.Code != 2 || !strings.Contains(r.Stderr, "no sandbox is running") {
		t.Errorf("without a sandbox: exit %d %s", r.Code, r.Stderr)
	}
	if r := n.CLI(t, "allow", "--remove", "one.test:443", "--sandbox", "first"); r.Code == 0 || !strings.Contains(r.Stderr, "has ended") {
		t.Errorf("of an ended sandbox: exit %d %s", r.Code, r.Stderr)
	}
}

func takeBackOfSandbox(t *testing.T, n *node.Node, first *agent) {
	allow(t, n, "one.test:443", "--sandbox", "first")
	allow(t, n, "two.test:443", "--sandbox", "first")
	first.expect(t, "https://one.test/", "200")
	if got := takenBack(t, n, "one.test:443", "--sandbox", "first"); got != 1 {
		t.Errorf("%d rules", got)
	}
	first.expect(t, "https://one.test/", "000")
	first.expect(t, "https://two.test/", "200") // the other one stays
	n.WaitEvent(t, "the removal in the log", func(e *event.Event) bool {
		return e.Kind == event.KindPolicy && strings.Contains(e.Object, "/allow-one.test-443") && e.Source == "keeper"
	})
	n.WaitEvent(t, "who did it", func(e *event.Event) bool {
		return e.Kind == event.KindOperator && e.Activity == "DELETE" && e.Object == "/v1/allow" && strings.HasPrefix(e.Actor, "uid=0") && e.Verdict == event.Allowed
	})

	// However long it was to last.
	allow(t, n, "two.test:443", "--sandbox", "first", "--once")
	allow(t, n, "two.test:443", "--sandbox", "first", "--for", "1h")
	if got := takenBack(t, n, "two.test:443", "--sandbox", "first"); got != 3 {
		t.Errorf("%d rules, want the lasting one, the one for an hour and the one for a connection", got)
	}
	first.expect(t, "https://two.test/", "000")

	// What policy allows besides is said, not touched.
	allow(t, n, "three.test:443", "--sandbox", "first")
	r := n.CLI(t, "allow", "--remove", "three.test:443", "--sandbox", "first")
	if r.Code != 4 || !strings.Contains(r.Stdout, "removed allow-three.test-443") || !strings.Contains(r.Stderr, "the rule standing/three ("+filepath.Join(n.PolicyDir, "three.yaml")+":6) allows it") {
		t.Errorf("still allowed: exit %d %s%s", r.Code, r.Stdout, r.Stderr)
	}

	// A pattern.
	allow(t, n, "*.one.test:443", "--sandbox", "first")
	if got := takenBack(t, n, "*.one.test:443", "--sandbox", "first"); got != 1 {
		t.Errorf("%d rules", got)
	}
}

func takeBackOfScope(t *testing.T, n *node.Node, first, second *agent) {
	const other = "org:local/team:other"
	kept := func() []string {
		return regexp.MustCompile(`Policy/allow-four\.test-443`).FindAllString(n.CLI(t, "policy", "show").Stdout, -1)
	}
	allow(t, n, "four.test:443", "--scope", other, "--always")
	allow(t, n, "four.test:443", "--scope", "org:local/team:default", "--always")
	second.expect(t, "https://four.test/", "200")
	if len(kept()) != 2 {
		t.Fatalf("documents: %v", kept())
	}
	takenBack(t, n, "four.test:443", "--scope", other, "--always")
	second.expect(t, "https://four.test/", "000")
	first.expect(t, "https://four.test/", "200") // the one for the other scope stays
	if len(kept()) != 1 {
		t.Errorf("documents: %v", kept())
	}
	// Without --always also what was given for a time.
	allow(t, n, "four.test:443", "--scope", "org:local/team:default", "--for", "1h")
	if got := takenBack(t, n, "four.test:443", "--scope", "org:local/team:default"); got != 2 {
		t.Errorf("%d rules", got)
	}
	first.expect(t, "https://four.test/", "000")
	if len(kept()) != 0 {
		t.Errorf("documents: %v", kept())
	}
}

func takeBackNothing(t *testing.T, n *node.Node, first *agent) {
	refused := func(says []string, args ...string) {
		t.Helper()
		r := n.CLI(t, append([]string{"allow", "--remove"}, args...)...)
		if r.Code != 3 || r.Stdout != "" {
			t.Errorf("%v: exit %d %s", args, r.Code, r.Stdout)
		}
		contains(t, strings.Join(args, " "), r.Stderr, says...)
	}
	refused([]string{"has no rule for one.test:443 that `ringfence allow` gave: it has none at all"}, "one.test:443", "--sandbox", "first")
	// What policy allows is no rule of ours; which one it is is said.
	refused([]string{"has no rule for three.test:443", "the rule standing/three ("}, "three.test:443", "--sandbox", "first")
	allow(t, n, "two.test:443", "--sandbox", "first", "--once")
	allow(t, n, "one.test:443", "--scope", "org:local/team:other/agent:x", "--always")
	refused([]string{"it has two.test:443 (once)", "ringfence allow --remove one.test:443 --scope org:local/team:other/agent:x --always"}, "one.test:443", "--sandbox", "first")
	refused([]string{"ringfence allow --remove two.test:443 --sandbox "}, "two.test:443", "--scope", "org:local/team:other", "--always")
	refused([]string{"with --always", "it has one.test:443 (for a time)"}, withGrant(t, n, "one.test:443", "org:local/team:third", "1h")...)
	// Its words are a command that works.
	takenBack(t, n, "one.test:443", "--scope", "org:local/team:other/agent:x", "--always")
	takenBack(t, n, "two.test:443", "--sandbox", "first")
	if strings.Contains(documents(t, n), "two.test") {
		t.Error("the rule for one connection is still there")
	}
}

// withGrant gives a scope something for a time and returns what asks for the
// rule that is kept.
func withGrant(t *testing.T, n *node.Node, dest, sel, life string) []string {
	t.Helper()
	allow(t, n, dest, "--scope", sel, "--for", life)
	return []string{dest, "--scope", sel, "--always"}
}

// TestProviderRemove configures providers in both places and removes them.
func TestProviderRemove(t *testing.T) {
	a := newAgents(t)
	if r := a.n.CLIIn(t, a.ws, "run", "--profile", "coding", "--detach", "--name", "asks", "--", "sleep", "1000"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	ask := func() string { // one sandbox through it all
		r := a.n.CLI(t, "exec", "asks", "--", "curl", "-sS", "https://api.openai.com/v1/chat/completions",
			"-H", "content-type: application/json", "-d", `{"model":"m","messages":[{"role":"user","content":"x"}]}`)
		return r.Stdout + r.Stderr
	}
	secret := filepath.Join(a.n.StateDir, "secrets", "openai")
	contains(t, "with the provider", ask(), a.double.Text)
	if _, err := os.Stat(secret); err != nil {
		t.Fatal(err)
	}
	r := a.n.CLI(t, "provider", "remove", "openai")
	if r.Code != 0 {
		t.Fatalf("exit %d %s", r.Code, r.Stderr)
	}
	contains(t, "remove", r.Stdout, "removed provider openai, its key too", "trial provider")
	contains(t, "without it", ask(), "built-in trial provider")
	if _, err := os.Stat(secret); !os.IsNotExist(err) {
		t.Errorf("the key: %v", err)
	}
	if r := a.n.CLI(t, "provider", "list"); strings.Contains(r.Stdout, "openai") || !strings.Contains(r.Stdout, "anthropic") {
		t.Errorf("list: %s", r.Stdout)
	}
	a.n.WaitEvent(t, "the removal in the log", func(e *event.Event) bool {
		return e.Kind == event.KindPolicy && strings.HasSuffix(e.Object, "/provider-openai.yaml") && strings.Contains(e.Reason, "in force")
	})
	a.n.WaitEvent(t, "who did it", func(e *event.Event) bool {
		return e.Kind == event.KindOperator && e.Activity == "DELETE" && e.Object == "/v1/providers/openai" && e.Verdict == event.Allowed
	})
	if r := a.n.CLI(t, "provider", "remove", "openai"); r.Code != 3 || !strings.Contains(r.Stderr, `no provider "openai": there is anthropic`) {
		t.Errorf("again: exit %d %s", r.Code, r.Stderr)
	}

	// One of the policy directory is not ours to remove, and needs the key.
	file := filepath.Join(a.n.PolicyDir, "house.yaml")
	a.n.WritePolicy(t, "house.yaml", "apiVersion: ringfence.dev/v1\nkind: Provider\nmetadata: {name: house}\nscope: org:local/team:other\ndialect: openai\nbaseURL: https://llm.test\nsecret: anthropic\n")
	eventually(t, "the document is in force", func() bool { return strings.Contains(documents(t, a.n), "house") })
	if r := a.n.CLI(t, "provider", "remove", "house"); r.Code == 0 || !strings.Contains(r.Stderr, file+":1") {
		t.Errorf("of the policy directory: exit %d %s", r.Code, r.Stderr)
	}
	if !strings.Contains(documents(t, a.n), "house") {
		t.Error("it is gone")
	}
	r = a.n.CLI(t, "provider", "remove", "anthropic")
	if r.Code != 0 || !strings.Contains(r.Stdout, "its key stays: "+file+" names it") {
		t.Errorf("with a shared key: exit %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if _, err := os.Stat(filepath.Join(a.n.StateDir, "secrets", "anthropic")); err != nil {
		t.Error(err)
	}
}
