// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
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
    s.settimeout(300)
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
// moment is open. The edge is a real one, and the next that leaves time to look at
// the open window: where that was not enough, a later one is taken.
func TestAWindowCloses(t *testing.T) {
	w := newWorld(t)
	tt := &windowTest{t: t, python: tool(t, "python3"), literal: w.address()}
	for _, name := range []string{"always.test", "office.test", "night.test", "literal"} {
		addr := tt.literal
		if name != "literal" {
			addr = w.address()
			w.hosts[name] = addr
		}
		e, err := doubles.NewEcho(w.listen(t, fmt.Sprintf("%s:%d", addr, echoPort)))
		need(t, err)
		t.Cleanup(func() { _ = e.Close() })
	}
	tt.n = w.start(t, node.Options{})
	tt.ws = tt.n.Workspace(t)
	put(t, tt.ws, "hold.py", holding)
	put(t, tt.ws, "once.py", once)
	for ahead := 10 * time.Second; !tt.closes(ahead); ahead *= 2 {
		if ahead > time.Minute {
			t.Fatalf("the machine is so slow that a window %s long closed before it was looked at", ahead)
		}
	}
	tt.n.WaitEvent(t, "the end of the connection by name", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.DstName == "office.test" && e.ReasonCode == "revoked" && e.Verdict == event.Denied
	})
	tt.n.WaitEvent(t, "the end of the connection by address", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.DstName == "" && strings.HasPrefix(e.DstAddr, tt.literal+":") && e.ReasonCode == "revoked"
	})
	tt.n.WaitEvent(t, "the refusal behind the window", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.DstName == "office.test" && e.ReasonCode == "no-rule" && e.Source == "gateway"
	})
}

// windowTest is a node with servers behind windows.
type windowTest struct {
	t                   *testing.T
	n                   *node.Node
	ws, python, literal string
}

// apply puts conditions on what is open at one time and what is at another.
func (w *windowTest) apply(office, night string) {
	w.t.Helper()
	put(w.t, w.ws, "house.yaml", fmt.Sprintf(`apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: house}
scope: org:local
egress:
  - {id: always, allow: "always.test:7001"}
  - {id: office, allow: "office.test:7001"%[1]s}
  - {id: address, allow: "%[3]s/32:7001"%[1]s}
  - {id: night, allow: "night.test:7001"%[2]s}
`, office, night, w.literal))
	if r := w.n.CLIIn(w.t, w.ws, "policy", "apply", "house.yaml", "--wait"); r.Code != 0 {
		w.t.Fatal(r.Stderr)
	}
}

// asked is what new sandboxes get.
func (w *windowTest) asked() map[string]string {
	w.t.Helper()
	got := map[string]string{}
	for _, host := range []string{"always.test", "office.test", w.literal, "night.test"} {
		out := w.n.CLIIn(w.t, w.ws, "run", "--workspace", w.ws, "--", w.python, "once.py", host).Stdout
		got[host], _, _ = strings.Cut(strings.TrimSpace(out), " ")
	}
	return got
}

// closes lets a window close, at least that far ahead; false when it had closed
// before it was looked at, and nothing was shown.
func (w *windowTest) closes(ahead time.Duration) bool {
	t := w.t
	t.Helper()
	edge := time.Now().UTC().Add(ahead).Truncate(time.Minute).Add(time.Minute)
	holder := "holder-" + ahead.String()
	w.apply("", "")
	if r := w.n.CLIIn(t, w.ws, "run", "--detach", "--name", holder, "--workspace", w.ws, "--", w.python, "hold.py", "always.test", "office.test", w.literal); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	waitLog(t, w.n, holder, "holds all")
	said := func() string { return w.n.CLI(t, "logs", holder).Stdout }
	window := func(from, to time.Time) string {
		return fmt.Sprintf(`, when: {windows: [{from: %q, to: %q}]}`, from.Format("15:04"), to.Format("15:04"))
	}
	w.apply(window(edge.Add(-3*time.Hour), edge), window(edge, edge.Add(3*time.Hour)))
	in, before := w.asked(), said()
	if !time.Now().Before(edge) {
		t.Logf("the window closed before it was looked at, %s after it was chosen", time.Since(edge.Add(-ahead)))
		w.n.CLI(t, "stop", holder, "--timeout", "0s")
		return false
	}
	if want := map[string]string{"always.test": "open", "office.test": "open", w.literal: "open", "night.test": "refused"}; !maps.Equal(in, want) {
		t.Errorf("in the window: %v, want %v", in, want)
	}
	if strings.Contains(before, "reset") || strings.Contains(before, "ended") {
		t.Errorf("before the edge: %s", before)
	}
	for !strings.Contains(said(), "goes on") {
		if time.Since(edge) > time.Minute {
			t.Fatalf("the window has closed, and the agent says %q", said())
		}
		time.Sleep(500 * time.Millisecond)
	}
	contains(t, "behind the window", said(), "office.test was reset", w.literal+" was reset", "always.test goes on")
	if got, want := w.asked(), (map[string]string{"always.test": "open", "office.test": "refused", w.literal: "refused", "night.test": "open"}); !maps.Equal(got, want) {
		t.Errorf("behind the window: %v, want %v", got, want)
	}
	return true
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
