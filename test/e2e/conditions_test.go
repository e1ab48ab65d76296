// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

const echoPort = 7001

// holding is an agent that connects to what it is told, says what becomes of the
// connections, and tries again.
const holding = `import socket, sys
def connect(host):
    s = socket.create_connection((host, 7001), 10)
    s.settimeout(150)
    s.sendall(b"x")
    if s.recv(1) != b"x":
        raise OSError("closed")
    return s
held = {}
for host in sys.argv[1:]:
    held[host] = connect(host)
print("holds all", flush=True)
for host in sys.argv[2:]:
    try:
        print(host, "ended", held[host].recv(1), flush=True)
    except ConnectionResetError:
        print(host, "was reset", flush=True)
first = sys.argv[1]
held[first].sendall(b"y")
print(first, "goes on" if held[first].recv(1) == b"y" else "ended", flush=True)
`

// once says "open" or why not.
const once = `import socket, sys
try:
    s = socket.create_connection((sys.argv[1], 7001), 10)
    s.sendall(b"x")
    print("open" if s.recv(1) == b"x" else "closed")
except OSError as e:
    print("refused", e)
`

// A window closes while connections are open: those that it let in end, by name
// and by address, and no other; new ones are refused, and what opens at that
// moment is open. The edge is a real one: a window is a matter of minutes.
func TestAWindowCloses(t *testing.T) {
	w := newWorld(t)
	python := tool(t, "python3")
	literal := w.address()
	for _, name := range []string{"always.test", "office.test", "night.test", "literal"} {
		addr := literal
		if name != "literal" {
			addr = w.address()
			w.hosts[name] = addr
		}
		e, err := doubles.NewEcho(w.listen(t, fmt.Sprintf("%s:%d", addr, echoPort)))
		need(t, err)
		t.Cleanup(func() { _ = e.Close() })
	}
	n := w.start(t, node.Options{})
	ws := n.Workspace(t)
	put(t, ws, "hold.py", holding)
	put(t, ws, "once.py", once)
	apply := func(office, night string) {
		t.Helper()
		put(t, ws, "house.yaml", fmt.Sprintf(`apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: house}
scope: org:local
egress:
  - {id: always, allow: "always.test:7001"}
  - {id: office, allow: "office.test:7001"%[1]s}
  - {id: address, allow: "%[3]s/32:7001"%[1]s}
  - {id: night, allow: "night.test:7001"%[2]s}
`, office, night, literal))
		if r := n.CLIIn(t, ws, "policy", "apply", "house.yaml", "--wait"); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
	}
	apply("", "")
	if r := n.CLIIn(t, ws, "run", "--detach", "--name", "holder", "--workspace", ws, "--", python, "hold.py", "always.test", "office.test", literal); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	waitLog(t, n, "holder", "holds all")
	ask := func(host string) string {
		t.Helper()
		return strings.TrimSpace(n.CLIIn(t, ws, "run", "--workspace", ws, "--", python, "once.py", host).Stdout)
	}

	now := time.Now().UTC()
	edge := now.Add(40 * time.Second).Truncate(time.Minute).Add(time.Minute) // 40 to 100 s from now
	clock := func(at time.Time) string { return at.Format("15:04") }
	window := func(from, to time.Time) string {
		return fmt.Sprintf(`, when: {windows: [{from: %q, to: %q}]}`, clock(from), clock(to))
	}
	apply(window(edge.Add(-3*time.Hour), edge), window(edge, edge.Add(3*time.Hour)))
	for host, want := range map[string]string{"always.test": "open", "office.test": "open", literal: "open", "night.test": "refused"} {
		if got := ask(host); !strings.HasPrefix(got, want) {
			t.Errorf("in the window: %s: %q, want %s", host, got, want)
		}
	}
	if log := n.CLI(t, "logs", "holder").Stdout; strings.Contains(log, "reset") || strings.Contains(log, "ended") {
		t.Errorf("before the edge: %s", log)
	}
	if !time.Now().Before(edge) {
		t.Log("the machine is so slow that the window closed before it was looked at")
	}
	for !strings.Contains(n.CLI(t, "logs", "holder").Stdout, "goes on") {
		if time.Since(edge) > time.Minute {
			t.Fatalf("the window has closed, and the agent says %q", n.CLI(t, "logs", "holder").Stdout)
		}
		time.Sleep(500 * time.Millisecond)
	}
	log := n.CLI(t, "logs", "holder").Stdout
	for _, want := range []string{"office.test was reset", literal + " was reset", "always.test goes on"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in %q", want, log)
		}
	}
	for host, want := range map[string]string{"always.test": "open", "office.test": "refused", literal: "refused", "night.test": "open"} {
		if got := ask(host); !strings.HasPrefix(got, want) {
			t.Errorf("behind the window: %s: %q, want %s", host, got, want)
		}
	}
	n.WaitEvent(t, "the end of the connection by name", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.DstName == "office.test" && e.ReasonCode == "revoked" && e.Verdict == event.Denied
	})
	n.WaitEvent(t, "the end of the connection by address", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.DstName == "" && strings.HasPrefix(e.DstAddr, literal+":") && e.ReasonCode == "revoked"
	})
	n.WaitEvent(t, "the refusal behind the window", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.DstName == "office.test" && e.ReasonCode == "no-rule" && e.Source == "gateway"
	})
}

const own = `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: own}
scope: org:local
egress:
  - {id: own, allow: "own.test:443", when: {expression: "principal.org OP 'local' && port == 443"}}
`

// Expressions on requests and rules in shadow mode, from documents to events.
func TestExpressionsAndShadowRules(t *testing.T) {
	w := newWorld(t)
	curl := tool(t, "curl")
	for _, name := range []string{"reads.test", "watched.test", "other.test", "own.test"} {
		w.site(t, name, doubles.Page(name))
	}
	n := w.start(t, node.Options{})
	ws := n.Workspace(t)
	put(t, ws, "server-ca.pem", string(w.ca.PEM()))
	put(t, ws, "house.yaml", `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: house}
scope: org:local
egress:
  - {id: reads, allow: "reads.test:443", when: {expression: "host == 'reads.test' && (method == 'GET' || path.startsWith('/open/')) && principal.team == 'default'"}}
  - {id: other, allow: "other.test:443", when: {expression: "host == 'reads.test' || principal.org != 'local'"}}
  - {id: watched, allow: "watched.test:443"}
  - {id: no-watched, deny: "watched.test:443", mode: shadow}
  - {id: soon, allow: "soon.example:443", mode: shadow}
`)
	for _, verb := range []string{"check", "apply"} {
		if r := n.CLIIn(t, ws, "policy", verb, "house.yaml"); r.Code != 0 {
			t.Fatalf("policy %s: %s%s", verb, r.Stdout, r.Stderr)
		}
	}
	ask := func(url string, args ...string) string {
		t.Helper()
		argv := append([]string{"run", "--profile", "coding", "--workspace", ws, "--", curl, "-sS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}"}, append(args, url)...)
		return n.CLIIn(t, ws, argv...).Stdout
	}
	for _, c := range []struct{ method, url, want string }{
		{"GET", "https://reads.test/a", "200"}, {"PUT", "https://reads.test/open/a", "200"}, {"PUT", "https://reads.test/a", "403"},
		{"PUT", "https://reads.test/open/../a", "403"}, {"GET", "https://other.test/a", "403"},
	} {
		if got := ask(c.url, "--path-as-is", "-X", c.method); got != c.want {
			t.Errorf("%s %s: %q, want %s", c.method, c.url, got, c.want)
		}
	}
	if got := ask("https://watched.test/", "--cacert", "server-ca.pem"); got != "200" {
		t.Errorf("a rule in shadow mode refuses: %q", got)
	}
	ask("https://soon.example/")
	n.WaitEvent(t, "the refusal of the PUT", func(e *event.Event) bool {
		return e.Kind == event.KindHTTP && e.Method == "PUT" && e.URL == "https://reads.test/a" && e.Verdict == event.Denied
	})
	n.WaitEvent(t, "what the rule in shadow mode would refuse", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.DstName == "watched.test" && e.Verdict == event.Allowed && e.Rule == "house/watched" && e.Shadow == "block by house/no-watched"
	})
	n.WaitEvent(t, "what the rule in shadow mode would allow", func(e *event.Event) bool {
		return e.Kind == event.KindDNS && e.DstName == "soon.example" && e.Verdict == event.Denied && e.Shadow == "allow by house/soon"
	})
	if r := n.CLI(t, "events"); !strings.Contains(r.Stdout, "(shadow: block by house/no-watched)") {
		t.Errorf("events do not show it:\n%s", r.Stdout)
	}
	// The launching program does not evaluate expressions; documents of a launch have them all the same.
	for op, want := range map[string]string{"==": "200", "!=": "403"} {
		put(t, ws, "own.yaml", strings.Replace(own, "OP", op, 1))
		r := n.CLIIn(t, ws, "run", "--profile", "coding", "--policy", "own.yaml", "--", curl, "-sSk", "-o", "/dev/null", "-w", "%{http_code}", "https://own.test/")
		if r.Stdout != want {
			t.Errorf("a condition of a launch's own document, %s: %q, want %s: %s", op, r.Stdout, want, r.Stderr)
		}
	}
	m := n.Metrics(t)
	if m[`ringfence_shadow_decisions_total{effect="block",kind="network",verdict="allowed"}`] != 1 {
		t.Errorf("not counted: %v", m)
	}
}
