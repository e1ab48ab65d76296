// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/approval"
	"github.com/ringfence/ringfence/test/node"
)

// exitRow is one line of the table of exit codes in docs/OPERATIONS.md.
type exitRow struct{ command, exit, when string }

func exitRows(t *testing.T) (rows []exitRow) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "OPERATIONS.md"))
	need(t, err)
	_, table, found := strings.Cut(string(text), "| command | exit | when |\n|---|---|---|\n")
	if !found {
		t.Fatal("there is no table of exit codes")
	}
	command := ""
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 5 {
			break
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if cells[1] != "" {
			command = cells[1]
		}
		rows = append(rows, exitRow{command, cells[2], cells[3]})
	}
	return rows
}

// TestExitCodes does what each row of the table says.
func TestExitCodes(t *testing.T) {
	w := newWorld(t)
	gid := memberGID(t)
	n := w.start(t, node.Options{Config: "group: " + memberGroup + "\n"})
	ws := n.Workspace(t)
	good := put(t, ws, "good.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: good}\nscope: org:local\negress:\n  - {id: a, allow: \"own.example:443\"}\n")
	bad := put(t, ws, "bad.yaml", "no document\n")
	run := func(args ...string) int { return n.CLIIn(t, ws, args...).Code }
	elsewhere := func(args ...string) int { return run(append([]string{"--socket", "/nowhere"}, args...)...) }
	nobody := func(args ...string) int {
		cmd := n.Command(t.Context(), args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return node.Finish(t, cmd).Code
	}
	if c := run("run", "--detach", "--name", "lives", "--", "sleep", "100000"); c != 0 {
		t.Fatal("exit", c)
	}
	inside := []string{"exec", "lives", "--"}
	asked := askedFor(t, n, "lives", 2)
	guest := newPerson(t, n, 64050, gid)
	table := put(t, ws, "table.yaml", policyTests("allow"))
	wrong := put(t, ws, "wrong.yaml", policyTests("block"))
	put(t, n.PolicyDir, "house.yaml", policyText("house", `allow: "house.test:443"`))
	var before string // the revision with that file
	s := newSpace(t)
	a := startAdoptee(t, w, s, newCgroup(t))
	pid := strconv.Itoa(a.cmd.Process.Pid)

	cases := map[string][]func() int{
		"`run`, `exec` the program's own": {
			func() int { return run("run", "--", "sh", "-c", "exit 7") - 7 },
			func() int { return run(append(inside, "sh", "-c", "exit 7")...) - 7 },
		},
		"`run`, `exec` 128+N": {
			func() int { return run("run", "--", "sh", "-c", "kill -15 $$") - 128 - 15 },
			func() int { return run(append(inside, "sh", "-c", "kill -15 $$")...) - 128 - 15 },
		},
		"`run`, `exec` 125": {
			func() int { return run("run", "--frob", "--", "true") }, func() int { return run("run", "--profile", "nope", "--", "true") },
			func() int { return run("run", "--policy", bad, "--", "true") }, func() int { return elsewhere("run", "--", "true") },
			func() int { return nobody("run", "--workspace", "none", "--", "true") },
			func() int { return run("exec", "nobody", "--", "true") }, func() int { return elsewhere(append(inside, "true")...) },
		},
		"`run`, `exec` 126": {func() int { return run("run", "--", "/etc/passwd") }, func() int { return run(append(inside, "/etc/passwd")...) }},
		"`run`, `exec` 127": {func() int { return run("run", "--", "no-such-program") }, func() int { return run(append(inside, "no-such-program")...) }},
		"`run --detach` 0":  {func() int { return run("run", "--detach", "--", "false") }},
		"`adopt` 4":         {func() int { return nobody("adopt", "--pid", pid) }},
		"`adopt` 6":         {func() int { return elsewhere("adopt", "--pid", pid) }},
		"`adopt` 2":         {func() int { return run("adopt") }, func() int { return run("adopt", "--pid", "999999999") }, func() int { return run("adopt", "--cgroup", "/no-such") }},
		"`adopt` 0":         {func() int { return run("adopt", "--pid", pid, "--name", "adopted") }},
		"`adopt` 1":         {func() int { return run("adopt", "--pid", pid, "--name", "again") }, func() int { return run("adopt", "--cgroup", "/") }},
		"`policy apply` 0":  {func() int { return run("policy", "apply", good) }, func() int { return run("policy", "apply", "--wait", good) }},
		"`policy apply` 1":  {func() int { return run("policy", "apply", "no-such.yaml") }},
		"`policy apply` 2":  {func() int { return run("policy", "apply", bad) }, func() int { return run("policy", "apply") }},
		"`policy apply` 4":  {func() int { return nobody("policy", "apply", good) }},
		"`policy apply` 6":  {func() int { return elsewhere("policy", "apply", good) }},
		"`policy apply` 7":  {func() int { return applyBehindAGateway(t, n, ws) }},
		"`policy get`, `diff`, `rollback` 0": {
			func() int {
				eventually(t, "the file of the policy directory in the history", func() bool { return len(history(t, n, "house")) == 1 })
				before = strconv.FormatUint(history(t, n)[0].Number, 10)
				return run("policy", "get", "good")
			},
			func() int { return run("policy", "diff", before) }, func() int { return run("policy", "rollback", "--wait", before) },
		},
		"`policy get`, `diff`, `rollback` 1": {func() int {
			put(t, n.PolicyDir, "house.yaml", policyText("house", `allow: "other.test:443"`))
			eventually(t, "the changed file in the history", func() bool { return len(history(t, n, "house")) == 2 })
			return run("policy", "rollback", before)
		}},
		"`policy get`, `diff`, `rollback` 3": {
			func() int { return run("policy", "get", "nothing") }, func() int { return run("policy", "get", "good", "--revision", "999999") },
			func() int { return run("policy", "diff", "999999") }, func() int { return run("policy", "rollback", "999999") },
		},
		"`policy test` 0":  {func() int { return run("policy", "test", "--coverage", "--mutate", "--policy", good, table) }},
		"`policy test` 1":  {func() int { return run("policy", "test", "--policy", good, wrong) }},
		"`policy prove` 0": {func() int { return run("policy", "prove", good, "--no-more-permissive-than", good) }},
		"`policy learn` 0": {func() int { return run("policy", "learn") }},
		"`policy learn` 1": {func() int { return run("policy", "learn", "--events", "no-such.jsonl") }},
		"`policy lint` 0":  {func() int { return run("policy", "lint", "pack:coding-agent") }, func() int { return run("policy", "lint", good) }},
		"`policy lint` 1":  {func() int { return run("policy", "lint", "--known", "org:nobody/team:n/agent:n", good) }, func() int { return run("policy", "lint", "--hits", "live") }},
		"`policy prove` 1": {func() int { return run("policy", "prove", "live", "--no-more-permissive-than", "pack:locked-down") }},
		"`approvals` 0":    {func() int { return run("approvals", "list") }, func() int { return run("approvals", "approve", asked[0]) }},
		"`approvals` 1":    {func() int { return run("approvals", "approve", asked[0]) }, func() int { return run("approvals", "deny", asked[0]) }},
		"`approvals` 2": {
			func() int { return run("approvals", "approve", asked[1], "--for", "9999h") }, func() int { return run("approvals", "approve", asked[1], "--for", "1h", "--args", "x=*") },
			func() int { return run("approvals", "approve", asked[1], "--args", "x=*") },
		},
		"`approvals` 3": {
			func() int { return run("approvals", "show", "no-such") }, func() int { return run("approvals", "approve", "no-such") },
			func() int {
				access(t, n, ws, "approver", "org:elsewhere")
				return guest.run(t, "approvals", "approve", asked[1]).Code
			},
		},
		"`approvals` 4": {func() int {
			access(t, n, ws, "viewer", "org:local")
			return guest.run(t, "approvals", "approve", asked[1]).Code
		}},
	}
	cases["`top` 0"] = []func() int{func() int { return quitTop(t, n) }}
	cases["`top` 2"] = []func() int{func() int { return run("top") }, func() int { return run("top", "--frob") }}
	for _, row := range exitRows(t) {
		key := row.command + " " + row.exit
		tries := cases[key]
		if len(tries) == 0 {
			t.Errorf("nobody tries %q: %s", key, row.when)
		}
		delete(cases, key)
		want, _ := strconv.Atoi(row.exit) // of a program's own the difference
		for i, try := range tries {
			if got := try(); got != want {
				t.Errorf("%s, try %d: exit %d", key, i+1, got)
			}
		}
	}
	for key := range cases {
		t.Errorf("the table does not have %q", key)
	}
}

// applyBehindAGateway applies a document while the gateway does not answer.
func applyBehindAGateway(t *testing.T, n *node.Node, ws string) int {
	t.Helper()
	gw, ok := n.Gateway(t)
	if !ok {
		t.Fatal("no gateway")
	}
	need(t, syscall.Kill(gw.PID, syscall.SIGSTOP))
	defer syscall.Kill(gw.PID, syscall.SIGCONT) //nolint:errcheck // it may have been replaced
	doc := put(t, ws, "late.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: late}\nscope: org:local\negress:\n  - {id: a, allow: \"late.example:443\"}\n")
	return n.CLIIn(t, ws, "policy", "apply", "--wait", "--timeout", "500ms", doc).Code
}

// policyTests asks one question of the document "good".
func policyTests(want string) string {
	return "apiVersion: ringfence.dev/v1\nkind: PolicyTest\nmetadata: {name: good}\nas: org:local/team:default/agent:x\ntests:\n  - {egress: \"own.example:443\", want: " + want + "}\n"
}

// askedFor has a sandbox ask for approvals, while no daemon runs.
func askedFor(t *testing.T, n *node.Node, name string, count int) (ids []string) {
	t.Helper()
	box := n.Sandbox(t, name)
	n.KillDaemon(t)
	book(t, n, func(b *approval.Book) {
		for i := range count {
			a, err := b.AskAll(t.Context(), []*approval.Call{{Sandbox: box.ID, Scope: box.Scope, Launcher: box.Owner, Kind: approval.Egress, Target: strconv.Itoa(i) + ".test:443/tcp",
				Fingerprint: strings.Repeat("f", 64), Demands: []approval.Demand{{Rule: "test/ask", Quorum: 1, ExpiresAfter: time.Hour}}}})
			need(t, err)
			ids = append(ids, a.IDs...)
		}
	})
	n.StartDaemon(t)
	return ids
}

// access gives the guest one role in a scope, in place of another one.
func access(t *testing.T, n *node.Node, ws, role, scope string) {
	t.Helper()
	doc := put(t, ws, "access.yaml", "apiVersion: ringfence.dev/v1\nkind: Access\nmetadata: {name: guest}\nscope: "+scope+"\nbindings:\n  - {role: "+role+", users: [\"uid:64050\"]}\n")
	if r := n.CLIIn(t, ws, "policy", "apply", doc); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
}
