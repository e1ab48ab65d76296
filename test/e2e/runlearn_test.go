// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// TestRunLearn: a sandbox that learns reaches what no rule speaks of, and only
// that; it is loud about it; what is learned makes the same run pass without.
func TestRunLearn(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"open.test", "blocked.test", "must.test", "part.test"} {
		w.site(t, name, doubles.Page("fine"))
	}
	public := w.site(t, "addr.test", doubles.Page("fine"))
	w.hosts["inside.test"] = privateAddr
	inner, err := w.ca.Serve(w.listen(t, privateAddr+":443"), doubles.Page("fine"), "inside.test")
	need(t, err)
	t.Cleanup(func() { _ = inner.Close() })
	n := w.start(t, node.Options{Policies: map[string]string{"p.yaml": `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: p}
scope: org:local
egress:
  - {id: no, deny: "blocked.test", delegable: true}
  - {id: never, deny: "must.test:443", mandatory: true}
  - {id: read, allow: "part.test:443", http: {methods: [GET]}}
  - {id: no-delete, deny: "part.test:443", http: {methods: [DELETE]}}
`}})
	ws := n.Workspace(t)
	script := `ask() { curl -sk -m 5 -o /dev/null -w '%{http_code}' "$@"; echo " $*"; }
ask https://open.test/a; ask http://open.test/a; ask https://blocked.test/; ask https://must.test/; ask -X POST https://part.test/write; ask -X DELETE https://part.test/
ask https://` + public + `/; ask https://` + privateAddr + `/; ask https://inside.test/; exit 0`
	passes := []string{"https://open.test/a", "http://open.test/a", "-X POST https://part.test/write", "https://" + public + "/"}
	run := func(passing []string, flags ...string) node.Result {
		t.Helper()
		args := append([]string{"run", "--name", "learner", "--as", "org:local/team:default/agent:learner", "--profile", "coding"}, flags...)
		r := n.CLIIn(t, ws, append(args, "--", "sh", "-c", script)...)
		if r.Code != 0 {
			t.Fatal(r.Stdout, r.Stderr)
		}
		for _, line := range strings.Split(strings.TrimSpace(r.Stdout), "\n") {
			code, what, _ := strings.Cut(line, " ")
			want := false
			for _, p := range passing {
				want = want || what == p
			}
			if (code == "200") != want {
				t.Errorf("%v: %s; to pass: %v", flags, line, want)
			}
		}
		return r
	}
	run(nil)
	r := run(passes, "--learn")
	contains(t, "what learning says", r.Stderr, "LEARNING:", "ringfence events --learned", "ringfence policy learn")
	e := n.CLI(t, "events", "--learned", "-o", "json")
	for _, line := range strings.Split(strings.TrimSpace(e.Stdout), "\n") {
		if !strings.Contains(line, `"uid":"builtin/learn"`) || !strings.Contains(line, `"verdict":"allowed"`) {
			t.Errorf("events --learned: %s", line)
		}
	}
	contains(t, "events --learned", e.Stdout, "open.test", "part.test", public)

	l := n.CLI(t, "policy", "learn")
	contains(t, "learned", l.Stdout, "# used ", `allow: "open.test:443"}`, `allow: "open.test:80"}`, `allow: "part.test:443", http: {methods: ["POST"], paths: ["/write"]}`, `allow: "`+public+`:443"}`)
	if strings.Contains(l.Stdout, "for good: rule\n") {
		t.Errorf("an address that no rule speaks of counts as refused by one:\n%s", l.Stdout)
	}
	if strings.Contains(l.Stdout, `allow: "blocked`) || strings.Contains(l.Stdout, `allow: "must`) || strings.Contains(l.Stdout, `allow: "`+privateAddr) {
		t.Errorf("learned what rules or the guard refuse:\n%s", l.Stdout)
	}
	if r := n.CLI(t, "policy", "apply", "--wait", put(t, ws, "learned.yaml", l.Stdout)); r.Code != 0 {
		t.Fatal(r.Stdout, r.Stderr)
	}
	run(passes)
}

// TestLearningEndsWithARule: who runs a sandbox that learns sees so wherever
// sandboxes are looked at, a policy that speaks of what it uses ends that at once,
// and the next daemon knows that it learns.
func TestLearningEndsWithARule(t *testing.T) {
	w := newWorld(t)
	addr := w.address()
	w.hosts["pour.test"], w.hosts["more.test"] = addr, addr
	w.answer(t, addr+":9000", func(c net.Conn) {
		for {
			if _, err := c.Write([]byte("x\n")); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	n := w.start(t, node.Options{})
	ws := n.Workspace(t)
	python := tool(t, "python3")
	script := `
import socket, time
def go():
    s = socket.create_connection(("pour.test", 9000), 5)
    while s.recv(100):
        print("got", flush=True)
while True:
    try:
        go()
        print("ended", flush=True)
    except OSError as e:
        print("refused", type(e).__name__, flush=True)
    time.sleep(0.1)
`
	r := n.CLIIn(t, ws, "run", "-d", "--name", "pour", "--learn", "--", python, "-c", script)
	if r.Code != 0 {
		t.Fatal(r.Stdout, r.Stderr)
	}
	id := strings.TrimSpace(r.Stdout)
	said := func(text string) bool { return strings.Contains(n.CLI(t, "logs", "pour").Stdout, text) }
	eventually(t, "something is received", func() bool { return said("got") })
	loud := func() {
		t.Helper()
		ps := n.CLI(t, "ps")
		contains(t, "ps", ps.Stdout, "LEARNING", "ringfence policy learn "+id)
		contains(t, "doctor", n.CLI(t, "doctor").Stdout, "sandboxes that learn", id)
		var list []api.Sandbox
		need(t, json.Unmarshal([]byte(n.CLI(t, "ps", "-o", "json").Stdout), &list))
		if len(list) != 1 || !list[0].Learns || list[0].Enforcement != api.Degraded {
			t.Errorf("ps -o json: %+v", list)
		}
		x := n.CLI(t, "explain", "--as", list[0].Scope, "egress", "pour.test:9000")
		contains(t, "explain", x.Stdout, "builtin/learn")
	}
	loud()
	n.KillDaemon(t)
	w.near.do(func() { n.StartDaemon(t) })
	loud()
	if r := n.CLI(t, "exec", "pour", "--", python, "-c", `import socket; print(socket.create_connection(("more.test", 9000), 5).recv(1))`); r.Code != 0 {
		t.Errorf("another name after the restart: %s%s", r.Stdout, r.Stderr)
	}
	contains(t, "the event of its start", n.CLI(t, "events", "-o", "json").Stdout, "LEARNING: TCP that no rule speaks of")
	if r := n.CLI(t, "policy", "apply", "--wait", put(t, ws, "no.yaml", policyText("no", `deny: "pour.test:9000"`))); r.Code != 0 {
		t.Fatal(r.Stdout, r.Stderr)
	}
	eventually(t, "the stream ends", func() bool { return said("ended") || said("refused") })
	eventually(t, "and none follows it", func() bool {
		log := n.CLI(t, "logs", "pour").Stdout
		after := log[strings.LastIndex(log, "got")+len("got"):]
		return strings.Count(after, "\n") > 5
	})
	if r := n.CLI(t, "stop", "pour"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	if out := n.CLI(t, "doctor").Stdout; strings.Contains(out, "sandboxes that learn") {
		t.Errorf("doctor after the end:\n%s", out)
	}
}

// TestWhoMayLearn: launching is not enough.
func TestWhoMayLearn(t *testing.T) {
	w := newWorld(t)
	gid := memberGID(t)
	n := w.start(t, node.Options{Config: "group: " + memberGroup + "\n"})
	member := newPerson(t, n, 64050, gid)
	if r := member.run(t, "run", "--", "true"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	member.refused(t, "needs root, or the role admin", "run", "--learn", "--", "true")
	access(t, n, n.Workspace(t), "admin", "org:local")
	r := member.run(t, "run", "--learn", "--", "true")
	if r.Code != 0 || !strings.Contains(r.Stderr, "LEARNING") {
		t.Errorf("an admin: exit %d, %s", r.Code, r.Stderr)
	}
	member.refused(t, "needs root, or the role", "run", "--learn", "--as", "org:other/team:x", "--", "true")
	if r := member.run(t, "run", "-d", "--learn", "--name", "student", "--", "sleep", "1000"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	if r := member.run(t, "exec", "student", "--", "true"); r.Code != 0 {
		t.Errorf("an admin's further program: %s", r.Stderr)
	}
	access(t, n, n.Workspace(t), "launcher", "org:local")
	member.refused(t, "needs root, or the role admin", "exec", "student", "--", "true")
	if r := member.run(t, "stop", "student"); r.Code != 0 {
		t.Error(r.Stderr)
	}
}
