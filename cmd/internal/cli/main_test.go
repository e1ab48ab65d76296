// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/cmd/internal/top"
	_ "github.com/ringfence/ringfence/pkg/policy/celexpr"
)

const cliEnv = "RINGFENCE_CLI_TEST"

// TestMain lets the test binary be the tool itself, instrumented as the test
// is.
func TestMain(m *testing.M) {
	if os.Getenv(cliEnv) == "1" {
		os.Exit(execute(context.Background(), "", top.Run, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	flag.Parse()
	os.Exit(m.Run())
}

var update = flag.Bool("update", false, "write the golden files")

// tool prepares a run of the tool in a fresh directory.
func tool(t *testing.T, socket string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), cliEnv+"=1", "RINGFENCE_SOCKET="+socket, "TZ=UTC", "GORACE=atexit_sleep_ms=0")
	cmd.Dir = t.TempDir()
	return cmd
}

// put writes files below a directory.
func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// offline is a command that needs no daemon.
type offline struct {
	args string // words
	code int
	want []string // in what is printed
}

// try runs a command of policy in a directory, where no daemon is.
func (c *offline) try(t *testing.T, dir string, command ...string) {
	t.Helper()
	cmd := tool(t, "/nonexistent", append(append([]string{"policy"}, command...), strings.Fields(c.args)...)...)
	cmd.Dir = dir
	r := finish(t, cmd)
	r.check(t, c.args, c.code, c.want)
}

// result is what a run left.
type result struct {
	code        int
	out, errOut string
}

// check expects an exit code, and texts in what is printed.
func (r *result) check(t *testing.T, what string, code int, want []string) {
	t.Helper()
	if r.code != code {
		t.Errorf("%s: exit %d\n%s%s", what, r.code, r.out, r.errOut)
	}
	for _, w := range want {
		if !strings.Contains(r.out+r.errOut, w) {
			t.Errorf("%s: no %q in\n%s%s", what, w, r.out, r.errOut)
		}
	}
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errOut bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &errOut
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil { //nolint:gosec // part of the source tree
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil { //nolint:gosec // likewise
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n%s\nwant:\n%s", name, got, want)
	}
}

func TestExitCodes(t *testing.T) {
	n := startNode(t)
	bad, empty := filepath.Join(t.TempDir(), "bad.yaml"), t.TempDir()
	good, typo := filepath.Join(empty, ".good"), filepath.Join(empty, ".typo")
	for name, text := range map[string]string{good: "kind: Policy\n", typo: "alow: 1\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(bad, []byte("apiVersion: ringfence.dev/v1\nkind: Policy\nnonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		socket string
		args   []string
		code   int
		errOut string // must be part of standard error
	}{
		{"run: success", n.socket, []string{"run", "--", "true"}, 0, ""},
		{"run: the program's own", n.socket, []string{"run", "--", "sh", "-c", "exit 7"}, 7, ""},
		{"run: one that looks like usage", n.socket, []string{"run", "--", "sh", "-c", "exit 2"}, 2, ""},
		{"run: one that looks like nothing ran", n.socket, []string{"run", "--", "sh", "-c", "exit 125"}, 125, ""},
		{"run: a signal", n.socket, []string{"run", "--", "sh", "-c", "kill -9 $$"}, 137, ""},
		{"run: flags of the program", n.socket, []string{"run", "sh", "-c", "exit 3"}, 3, ""},
		{"run: not found", n.socket, []string{"run", "--", "nowhere"}, 127, "not found"},
		{"run: not executable", n.socket, []string{"run", "--", "noexec"}, 126, "not executable"},
		{"run: not established", n.socket, []string{"run", "--", "missing-feature"}, 125, "missing: Landlock ABI 6\n  upgrade the kernel"},
		{"run: another error, escaped", n.socket, []string{"run", "--", "plain-error"}, 125, `disk \x1b[2J on fire`},
		{"run: no daemon", "/nonexistent", []string{"run", "--", "true"}, 125, "start ringfenced"},
		{"run: unknown flag", n.socket, []string{"run", "--frob", "--", "true"}, 125, "unknown flag: --frob (see `ringfence run --help`)"},
		{"run: no command", n.socket, []string{"run"}, 125, "see `ringfence run --help`"},
		{"run: no such workspace", n.socket, []string{"run", "--workspace", "/nonexistent", "--", "true"}, 125, "/nonexistent: no such file"},
		{"run: no such profile file", n.socket, []string{"run", "--profile", "./p.yaml", "--", "true"}, 125, "p.yaml"},
		{"run: no such policy file", n.socket, []string{"run", "--policy", "p.yaml", "--", "true"}, 125, "p.yaml"},
		{"run: variable that is not set", n.socket, []string{"run", "--env", "NOT_SET_HERE", "--", "true"}, 125, "NOT_SET_HERE"},
		{"run: bad scope", n.socket, []string{"run", "--as", "root", "--", "true"}, 125, "--as"},
		{"run: no such user", n.socket, []string{"run", "--user", "no-such-user", "--", "true"}, 125, "no-such-user"},
		{"exec: the program's own", n.socket, []string{"exec", "web", "--", "sh", "-c", "exit 5"}, 5, ""},
		{"exec: no such sandbox", n.socket, []string{"exec", "nosuch", "--", "true"}, 125, "no sandbox"},
		{"exec: one that has ended", n.socket, []string{"exec", "c1d2e3f4", "true"}, 125, "stopped"},
		{"ps: ok", n.socket, []string{"ps"}, 0, ""},
		{"ps: no daemon", "/nonexistent", []string{"ps"}, 6, "cannot be reached"},
		{"ps: unknown flag", n.socket, []string{"ps", "--frob"}, 2, "unknown flag"},
		{"ps: argument", n.socket, []string{"ps", "x"}, 2, "`ringfence ps` takes no arguments, and \"x\" is one (see `ringfence ps --help`)"},
		{"unknown command", n.socket, []string{"stpo"}, 2, "did you mean stop"},
		{"stop: not found", n.socket, []string{"stop", "nosuch"}, 3, "no sandbox"},
		{"adopt: nothing named", n.socket, []string{"adopt"}, 2, "name one of --pid, --cgroup, --container, for example: ringfence adopt --pid"},
		{"explain: denied", n.socket, []string{"explain", "secret"}, 4, "not yours"},
		{"doctor: degraded", n.socket, []string{"doctor"}, 7, ""},
		{"audit: tampered", n.socket, []string{"audit", "verify"}, 1, ""},
		{"audit: no such directory", n.socket, []string{"audit", "verify", "/nonexistent"}, 1, "nonexistent"},
		{"policy check: mistakes", n.socket, []string{"policy", "check", bad}, 1, ""},
		{"policy check: no file", n.socket, []string{"policy", "check", "/nonexistent"}, 1, "no such file"},
		{"policy check: a device", n.socket, []string{"policy", "check", "/dev/zero"}, 1, "not a regular file"},
		{"allow: no effect", n.socket, []string{"allow", "pastebin.com:443", "--sandbox", "web"}, 4, "org rule no-paste"},
		{"allow: no port", n.socket, []string{"allow", "pastebin.com", "--sandbox", "web"}, 2, "HOST:PORT"},
		{"allow: no port, and no sandbox either", "/nonexistent", []string{"allow", "pastebin.com"}, 2, `the destination "pastebin.com" is not HOST:PORT, for example pastebin.com:443`},
		{"allow: a URL", n.socket, []string{"allow", "https://pastebin.com/x"}, 2, "is not HOST:PORT, for example pastebin.com:443"},
		{"allow: a protocol without port", n.socket, []string{"allow", "pastebin.com/udp"}, 2, "for example pastebin.com:443"},
		{"allow: another protocol", n.socket, []string{"allow", "pastebin.com:53/sctp"}, 2, "is not HOST:PORT"},
		{"allow: a port by name", n.socket, []string{"allow", "pastebin.com:https"}, 2, "for example pastebin.com:443"},
		{"allow: three lengths", n.socket, []string{"allow", "a:1", "--once", "--always"}, 2, "choose one of --once, --for and --always: --always and --once do not go together"},
		{"allow: no scope", n.socket, []string{"allow", "a:1", "--scope", "curl", "--always"}, 2, `the scope "curl": segment "curl" is not key:value; one is for example org:local/team:default/agent:curl` + "\n"},
		{"allow: nothing", n.socket, []string{"allow"}, 2, "write it as `ringfence allow HOST:PORT [flags]`, for example: ringfence allow api.github.com:443 (see"},
		{"allow: two", n.socket, []string{"allow", "a:1", "b:1"}, 2, "write it as `ringfence allow HOST:PORT [flags]`"},
		{"policy check: nothing", n.socket, []string{"policy", "check"}, 2, "write it as `ringfence policy check FILE|DIR... [flags]`, for example: "},
		{"policy apply: in force", n.socket, []string{"policy", "apply", "--wait", good}, 0, ""},
		{"policy apply: a mistake", n.socket, []string{"policy", "apply", typo}, 2, ":6:12: unknown field\n  nothing was applied"},
		{"policy apply: no file", n.socket, []string{"policy", "apply", "/nonexistent"}, 1, "no such file"},
		{"policy apply: nothing", n.socket, []string{"policy", "apply"}, 2, "write it as `ringfence policy apply FILE|DIR|PACK... [flags]`, for example: "},
		{"policy delete: not in force yet, named", n.socket, []string{"policy", "delete", "eng", "--wait"}, 7, "revision 9 is not in force everywhere after 10s\n  sandbox b0a1c2d3 (we\\x1bb): revision 8 in the kernel, not served by the gateway\n"},
		{"policy delete: not waited for", n.socket, []string{"policy", "delete", "eng"}, 0, ""},
		{"policy wait: in force", n.socket, []string{"policy", "wait", "8"}, 0, ""},
		{"policy wait: not in force", n.socket, []string{"policy", "wait", "9", "-o", "json"}, 7, "revision 9 is not in force everywhere"},
		{"policy wait: no number", n.socket, []string{"policy", "wait", "x"}, 2, `the revision "x" is no number above 0, for example 12`},
		{"policy get: not there", n.socket, []string{"policy", "get", "nosuch"}, 3, `no document "nosuch"`},
		{"policy get: of that kind", n.socket, []string{"policy", "get", "Policy/eng"}, 0, ""},
		{"policy get: of another kind", n.socket, []string{"policy", "get", "Access/eng"}, 3, `there are documents "eng", and none of kind "Access"` + "\n  `ringfence policy get eng` prints them"},
		{"policy diff: no number", n.socket, []string{"policy", "diff", "7", "now"}, 2, `the revision "now" is no number above 0`},
		{"policy diff: the same", n.socket, []string{"policy", "diff", "7", "8"}, 0, "revisions 7 and 8 have the same documents"},
		{"policy rollback: the directory differs", n.socket, []string{"policy", "rollback", "3"}, 1, "the policy directory has changed"},
		{"policy rollback: and is meant to", n.socket, []string{"policy", "rollback", "3", "--api-only"}, 0, ""},
		{"policy history: too long", n.socket, []string{"policy", "history", "--limit", "0"}, 2, "between 1 and 1000"},
		{"policy check: an empty directory", n.socket, []string{"policy", "check", empty}, 1, "holds no *.yaml"},
		{"run: no scope", n.socket, []string{"run", "--as", "curl", "--", "true"}, 125, `--as: the scope "curl": segment`},
		{"version flag", "/nonexistent", []string{"--version"}, 0, ""},
		{"allow: scope without an end", n.socket, []string{"allow", "a:1", "--scope", "org:local"}, 2, "--always"},
		{"allow --remove: nothing there", n.socket, []string{"allow", "--remove", "nosuch.example:443", "--sandbox", "web"}, 3, "it has a.example:443 (once)"},
		{"allow --remove: still allowed", n.socket, []string{"allow", "--remove", "pastebin.com:443", "--sandbox", "web"}, 4, `it is still allowed: the rule eng/paste\x1b`},
		{"allow --remove: what lasts, of a sandbox", n.socket, []string{"allow", "--remove", "a:1", "--sandbox", "web", "--always"}, 2, "--scope"},
		{"allow --remove: once", n.socket, []string{"allow", "--remove", "a:1", "--once"}, 2, "choose one of --remove and --once: --once and --remove do not go together, for example: ringfence allow"},
		{"allow --remove: for a time", n.socket, []string{"allow", "--remove", "a:1", "--for", "1h"}, 2, "choose one of --remove and --for: "},
		{"provider remove: of the policy directory", n.socket, []string{"provider", "remove", "house"}, 1, "/etc/house.yaml:3"},
		{"budgets increase: no amount", n.socket, []string{"budgets", "increase", "eng/month", "--by", "50", "--for", "1h"}, 2, `--by: "50" is not an amount`},
		{"budgets increase: no budget", n.socket, []string{"budgets", "increase", "eng/none", "--by", "50USD", "--for", "1h"}, 3, `no budget "eng/none"`},
		{"budgets increase: no document", n.socket, []string{"budgets", "increase", "month", "--by", "50USD", "--for", "1h"}, 2, "DOCUMENT/ID"},
		{"provider remove: no name", n.socket, []string{"provider", "remove"}, 2, "provider remove --help"},
		{"cost: nothing to show", n.socket, []string{"cost"}, 2, "cost top|report|export"},
		{"cost: no day", n.socket, []string{"cost", "top", "--since", "soon"}, 2, "--since"},
		{"cost: by what nobody knows", n.socket, []string{"cost", "top", "--by", "sandbox"}, 2, "summed up by each once of"},
		{"prices: nothing to do", n.socket, []string{"prices"}, 2, "prices import|list|remove"},
		{"prices: no such file", n.socket, []string{"prices", "import", "/nonexistent"}, 1, "/nonexistent"},
		{"prices: an unknown form", n.socket, []string{"prices", "import", "/dev/null", "--format", "csv"}, 2, "ringfence, litellm, models.dev"},
		{"prices: no table", n.socket, []string{"prices", "import", "/dev/null"}, 1, "/dev/null:1:1"},
		{"prices: a flag for lists of others", n.socket, []string{"prices", "import", "/dev/null", "--version", "x"}, 2, "--version is for lists of others"},
		{"prices: of no version", n.socket, []string{"prices", "remove", "x"}, 3, "no price table"},
		{"events: bad time", n.socket, []string{"events", "--since", "then"}, 2, "--since"},
		{"provider add: empty variable", n.socket, []string{"provider", "add", "x", "--key-env", "NOT_SET_HERE"}, 2, "NOT_SET_HERE"},
		{"version: no daemon", "/nonexistent", []string{"version"}, 0, ""},
		{"help", n.socket, []string{"run", "--help"}, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := finish(t, tool(t, tt.socket, tt.args...))
			if r.code != tt.code || !strings.Contains(r.errOut, tt.errOut) {
				t.Errorf("exit %d, stderr %q; want %d, %q", r.code, r.errOut, tt.code, tt.errOut)
			}
			if strings.Count(r.errOut, "\n") > 4 {
				t.Errorf("more than a hint:\n%s", r.errOut)
			}
			if strings.Contains(r.out+r.errOut, "\x1b") {
				t.Errorf("an escape reached the output: %q %q", r.out, r.errOut)
			}
		})
	}
}

func TestOutputs(t *testing.T) {
	n := startNode(t)
	pol := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(pol, []byte("apiVersion: ringfence.dev/v1\nkind: Polic\nmetadata: {name: x}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.set(func() { n.events = [][]byte{deniedEventForGolden} })
	tests := []struct {
		name string
		args []string
		in   string
	}{
		{"ps.json", []string{"ps", "-o", "json"}, ""},
		{"ps-all.json", []string{"ps", "--all", "-o", "json"}, ""},
		{"stop.json", []string{"stop", "web", "-o", "json"}, ""},
		{"stop.txt", []string{"stop", "web"}, ""},
		{"allow.json", []string{"allow", "a.example:443", "-o", "json"}, ""},
		{"allow.txt", []string{"allow", "a.example:443", "--for", "1h", "--scope", "org:local/team:default"}, ""},
		{"allow-remove.json", []string{"allow", "--remove", "a.example:443", "-o", "json"}, ""},
		{"allow-remove.txt", []string{"allow", "--remove", "a.example:443", "--always", "--scope", "org:local/team:default"}, ""},
		{"explain.json", []string{"explain", "x-1", "-o", "json"}, ""},
		{"explain.txt", []string{"explain", "x-1"}, ""},
		{"explain-found.txt", []string{"explain", "found"}, ""},
		{"budgets.json", []string{"budgets", "-o", "json"}, ""},
		{"budgets.txt", []string{"budgets"}, ""},
		{"budgets-increase.txt", []string{"budgets", "increase", "eng/month", "--by", "50USD", "--for", "24h"}, ""},
		{"provider-list.json", []string{"provider", "list", "-o", "json"}, ""},
		{"provider-list.txt", []string{"provider", "list"}, ""},
		{"inference-status.txt", []string{"inference", "status"}, ""},
		{"inference-status.json", []string{"inference", "status", "-o", "json"}, ""},
		{"provider-add.json", []string{"provider", "add", "openai", "--key-stdin", "-o", "json"}, "sk-very-secret\n"},
		{"provider-remove.json", []string{"provider", "remove", "openai", "-o", "json"}, ""},
		{"provider-remove.txt", []string{"provider", "remove", "openai"}, ""},
		{"doctor.json", []string{"doctor", "-o", "json"}, ""},
		{"doctor.txt", []string{"doctor"}, ""},
		{"policy-show.json", []string{"policy", "show", "-o", "json"}, ""},
		{"policy-show.txt", []string{"policy", "show"}, ""},
		{"policy-list.json", []string{"policy", "list", "--documents", "-o", "json"}, ""},
		{"policy-list.txt", []string{"policy", "list", "--hits"}, ""},
		{"policy-packs.json", []string{"policy", "packs", "-o", "json"}, ""},
		{"policy-packs.txt", []string{"policy", "packs"}, ""},
		{"policy-history.txt", []string{"policy", "history"}, ""},
		{"policy-history.json", []string{"policy", "history", "eng", "--limit", "1", "-o", "json"}, ""},
		{"policy-get.txt", []string{"policy", "get", "eng"}, ""},
		{"policy-diff.txt", []string{"policy", "diff", "7"}, ""},
		{"policy-diff.json", []string{"policy", "diff", "7", "-o", "json"}, ""},
		{"policy-rollback.txt", []string{"policy", "rollback", "7", "--comment", "bad day"}, ""},
		{"policy-rollback.json", []string{"policy", "rollback", "7", "-o", "json"}, ""},
		{"policy-export.txt", []string{"policy", "export"}, ""},
		{"cost-top.txt", []string{"cost", "top", "--by", "team,model"}, ""},
		{"cost-top.json", []string{"cost", "top", "-n", "1", "-o", "json"}, ""},
		{"cost-report.txt", []string{"cost", "report", "--by", "day,team"}, ""},
		{"cost-export.csv", []string{"cost", "export"}, ""},
		{"prices-list.txt", []string{"prices", "list"}, ""},
		{"prices-list.json", []string{"prices", "list", "-o", "json"}, ""},
		{"prices-remove.txt", []string{"prices", "remove", "2026-11"}, ""},
		{"prices-import.txt", []string{"prices", "import", "-"}, "{version: v1, effective: 2026-11-01, source: ours, models: [{provider: openai, model: gpt-x, rates: {input: 1.25}}]}"},
		{"prices-import-litellm.txt", []string{"prices", "import", "-", "--format", "litellm", "--version", "l1", "--effective", "2026-11-01", "--dry-run"},
			`{"gpt-x":{"litellm_provider":"openai","input_cost_per_token":1.25e-06,"output_cost_per_token":1e-05},"free":{"litellm_provider":"ollama","input_cost_per_token":0.0}}`},
		{"audit.json", []string{"audit", "verify", "-o", "json"}, ""},
		{"events.txt", []string{"events"}, ""},
		{"events.json", []string{"events", "-o", "json"}, ""},
		{"logs.txt", []string{"logs", "web"}, ""},
		{"error.json", []string{"stop", "nosuch", "-o", "json"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := tool(t, n.socket, tt.args...)
			cmd.Stdin = strings.NewReader(tt.in)
			r := finish(t, cmd)
			if strings.Contains(r.out+r.errOut, "sk-very-secret") {
				t.Error("the key was shown")
			}
			golden(t, tt.name, r.out+r.errOut)
		})
	}
	n.set(func() {
		if len(n.keys) != 1 || n.keys[0] != "sk-very-secret" {
			t.Errorf("keys: %q", n.keys)
		}
	})
	n.set(func() {
		if len(n.backs) != 2 || n.backs[0].Sandbox != "b0a1c2d3" || n.backs[0].Mode != "" || n.backs[1].Mode != "always" || n.backs[1].Scope != "org:local/team:default" {
			t.Errorf("taken back: %+v", n.backs)
		}
	})
	t.Run("policy check", func(t *testing.T) {
		r := finish(t, tool(t, n.socket, "policy", "check", pol))
		if !strings.Contains(r.out, pol+":2:") {
			t.Errorf("no line and column: %q", r.out)
		}
		r = finish(t, tool(t, n.socket, "policy", "check", "-o", "json", pol))
		if !strings.Contains(r.out, `"line": 2`) || !strings.Contains(r.out, `"ok": false`) {
			t.Errorf("%q", r.out)
		}
	})
	t.Run("policy check of a directory", func(t *testing.T) {
		dir := t.TempDir()
		for name, text := range map[string]string{
			"a.yaml": "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: a}\nscope: org:local\negress:\n  - {id: x, allow: \"x.test:443\"}\n", "b.yml": "# nothing\n", ".c.yaml": "nonsense", "d.txt": "nonsense",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r := finish(t, tool(t, n.socket, "policy", "check", dir))
		if want := filepath.Join(dir, "b.yml") + ":1:1: no document\n"; r.code != 1 || r.out != want {
			t.Errorf("%d %q, want %q", r.code, r.out, want)
		}
		r = finish(t, tool(t, n.socket, "policy", "check", filepath.Join(dir, "a.yaml")))
		if r.code != 0 || r.out != "1 document, no mistakes\n" {
			t.Errorf("%d %q", r.code, r.out)
		}
	})
	t.Run("version flag", func(t *testing.T) {
		if r := finish(t, tool(t, "/nonexistent", "--version")); !strings.HasPrefix(r.out, "ringfence ") || strings.Count(r.out, "\n") != 1 {
			t.Errorf("%q", r.out)
		}
	})
	t.Run("ps table", func(t *testing.T) {
		r := finish(t, tool(t, n.socket, "ps", "--all"))
		for _, want := range []string{"ID ", "b0a1c2d3", "degraded (1)\n", "\nNot up (see `ringfence doctor`):\n  memory\n", `evil\x1b[2J`, "unenforced"} {
			if !strings.Contains(r.out, want) {
				t.Errorf("%q is not in\n%s", want, r.out)
			}
		}
	})
}

func TestCompletion(t *testing.T) {
	n := startNode(t)
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := finish(t, tool(t, n.socket, "completion", shell)); r.code != 0 || len(r.out) < 500 {
			t.Errorf("%s: %d, %d bytes", shell, r.code, len(r.out))
		}
	}
	if r := finish(t, tool(t, n.socket, "__complete", "stop", "")); !strings.Contains(r.out, "web") {
		t.Errorf("no sandbox offered: %q", r.out)
	}
	if r := finish(t, tool(t, "/nonexistent", "__complete", "stop", "")); r.code != 0 {
		t.Errorf("completion without a daemon: %d", r.code)
	}
}
