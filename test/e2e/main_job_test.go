// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the main job of Ringfence on a real kernel, with a real
// daemon and the command line tool as its users have it.
package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

func TestExitStatusIsTheCommands(t *testing.T) {
	n := node.Start(t, node.Options{})
	ws := n.Workspace(t)
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"success", []string{"true"}, 0, ""},
		{"own code", []string{"sh", "-c", "exit 7"}, 7, ""},
		{"signal", []string{"sh", "-c", "kill -9 $$"}, 137, ""},
		{"not found", []string{"no-such-command"}, 127, "not found"},
		{"not executable", []string{"/etc/hostname-not"}, 127, ""},
		{"directory", []string{"/usr"}, 126, "not a regular file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := n.CLIIn(t, ws, append([]string{"run", "--"}, c.args...)...)
			if r.Code != c.code || !strings.Contains(r.Stderr, c.says) {
				t.Errorf("exit %d, want %d; stderr %q", r.Code, c.code, r.Stderr)
			}
		})
	}
	for _, c := range []struct {
		name string
		args []string
		says string
	}{
		{"unknown profile", []string{"run", "--profile", "no-such", "--", "true"}, "no-such"},
		{"bad scope", []string{"run", "--as", "org:a/nonsense", "--", "true"}, "nonsense"},
		{"missing workspace", []string{"run", "--workspace", "/no/such/dir", "--", "true"}, "/no/such/dir"},
	} {
		t.Run(c.name+" is 125 and nothing ran", func(t *testing.T) {
			before := len(n.Events(t))
			r := n.CLIIn(t, ws, c.args...)
			if r.Code != 125 || !strings.Contains(r.Stderr, c.says) {
				t.Errorf("exit %d; stderr %q", r.Code, r.Stderr)
			}
			for _, e := range n.Events(t)[before:] {
				if e.Kind == event.KindSandboxStart {
					t.Error("a sandbox started")
				}
			}
		})
	}
}

func TestWhatAnAgentReaches(t *testing.T) {
	n := node.Start(t, node.Options{})
	ws := n.Workspace(t)
	secret := filepath.Join(n.Dir, "secret")
	if err := os.WriteFile(secret, []byte("host only"), 0o644); err != nil {
		t.Fatal(err)
	}
	// Control: outside, the same shell reads the file and writes beside it.
	if b, err := os.ReadFile(secret); err != nil || string(b) != "host only" {
		t.Fatal(err)
	}
	r := n.CLIIn(t, ws, "run", "--profile", "coding", "--", "sh", "-c", `
		echo mine > made-inside; cat made-inside
		cat '`+secret+`' || echo no-secret
		echo x > '`+secret+`.new' || echo no-write
		cat /etc/shadow || echo no-shadow
		echo key=$OPENAI_API_KEY`)
	if r.Code != 0 {
		t.Fatalf("exit %d: %s", r.Code, r.Stderr)
	}
	for _, want := range []string{"mine\n", "no-secret\n", "no-write\n", "no-shadow\n", "key=ringfence-placeholder\n"} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("missing %q in %q", want, r.Stdout)
		}
	}
	if strings.Contains(r.Stdout, "host only") {
		t.Error("the agent read a file of the host")
	}
	if _, err := os.Stat(secret + ".new"); err == nil {
		t.Error("the agent wrote outside its workspace")
	}
	if b, err := os.ReadFile(filepath.Join(ws, "made-inside")); err != nil || string(b) != "mine\n" {
		t.Errorf("work in the workspace is not on the host: %q, %v", b, err)
	}
}

func TestModelCallsAreAnsweredWithoutAProvider(t *testing.T) {
	n := node.Start(t, node.Options{})
	ws := n.Workspace(t)
	r := n.CLIIn(t, ws, "run", "--profile", "coding", "--", "sh", "-c", `
		curl -sS https://api.openai.com/v1/chat/completions -H 'content-type: application/json' -d '{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
		curl -sS https://api.anthropic.com/v1/messages -H 'anthropic-version: 2023-06-01' -H 'content-type: application/json' -d '{"model":"claude-x","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
		curl -sS -o /dev/null -w 'example=%{http_code}\n' https://example.com/
		curl -sS -m 5 http://192.0.2.1/ || echo ip=$?
		getent ahosts api.openai.com | head -1`)
	if strings.Count(r.Stdout, "built-in trial provider") != 2 {
		t.Errorf("model calls were not answered by the trial provider: %s %s", r.Stdout, r.Stderr)
	}
	for _, want := range []string{"example=403", "ip=7"} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("missing %q in %s\n%s", want, r.Stdout, r.Stderr)
		}
	}
	if !strings.Contains(r.Stderr, "ringfence allow example.com:443") {
		t.Errorf("the end of the run does not say what would allow it: %s", r.Stderr)
	}
	for what, want := range map[string]func(*event.Event) bool{
		"an openai call": func(e *event.Event) bool {
			return e.Kind == event.KindInference && e.Model == "gpt-4o" && e.TokensIn > 0
		},
		"an anthropic call":        func(e *event.Event) bool { return e.Kind == event.KindInference && e.Model == "claude-x" },
		"the refused name":         func(e *event.Event) bool { return e.Verdict == event.Denied && e.DstName == "example.com" },
		"the refused address":      func(e *event.Event) bool { return e.Verdict == event.Denied && e.DstAddr == "192.0.2.1:80" },
		"the start of the sandbox": func(e *event.Event) bool { return e.Kind == event.KindSandboxStart },
		"the end of the sandbox":   func(e *event.Event) bool { return e.Kind == event.KindSandboxStop },
		"an exec with its parents": func(e *event.Event) bool { return e.Kind == event.KindExec && e.Comm == "curl" && e.Parents != "" },
	} {
		n.WaitEvent(t, what, want)
	}
	if v := n.CLI(t, "audit", "verify"); v.Code != 0 {
		t.Errorf("audit verify: %d %s %s", v.Code, v.Stdout, v.Stderr)
	}
}

func TestAllowAndReload(t *testing.T) {
	n := node.Start(t, node.Options{})
	ws := n.Workspace(t)
	r := n.CLIIn(t, ws, "run", "--detach", "--name", "agent", "--", "sh", "-c", "while ! getent hosts allowed.example; do sleep 0.05; done; echo resolved; while ! getent hosts second.example; do sleep 0.05; done; echo second")
	if r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	a := n.CLI(t, "allow", "allowed.example:443", "--sandbox", "agent")
	if a.Code != 0 {
		t.Fatalf("allow: %s", a.Stderr)
	}
	n.WritePolicy(t, "more.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: more}\nscope: org:local\negress:\n  - {id: second, allow: \"second.example:443\"}\n")
	out := waitLog(t, n, "agent", "second\n")
	if !strings.Contains(out, "resolved\n") {
		t.Errorf("log %q", out)
	}
	n.WritePolicy(t, "broken.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: broken}\negress:\n  - {id: x, alow: \"a:1\"}\n")
	n.WaitEvent(t, "a refused document", func(e *event.Event) bool {
		return e.Kind == event.KindPolicy && e.Verdict == event.Denied && strings.Contains(e.Detail, "broken.yaml:5:")
	})
	if p := n.CLI(t, "policy", "check", filepath.Join(n.PolicyDir, "broken.yaml")); p.Code == 0 || !strings.Contains(p.Stdout+p.Stderr, ":5:") || !strings.Contains(p.Stdout+p.Stderr, "allow") {
		t.Errorf("policy check: %d %s%s", p.Code, p.Stdout, p.Stderr)
	}
}
