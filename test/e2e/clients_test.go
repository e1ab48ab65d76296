// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// startedAs finds the start of the program with a word in its command line.
func startedAs(t *testing.T, n *node.Node, word string) event.Event {
	t.Helper()
	return n.WaitEvent(t, "the start of the program with "+word, func(e *event.Event) bool {
		return e.Kind == event.KindExec && strings.Contains(e.Args, word) && e.Comm != "sh" && e.Comm != "ringfence-init"
	})
}

// names checks that a record tells of the process that was started with that
// word in its command line, as the record of its start does.
func names(t *testing.T, n *node.Node, what, word string, want func(*event.Event) bool) {
	t.Helper()
	e := n.WaitEvent(t, what, func(e *event.Event) bool { return e.Source == "gateway" && want(e) })
	x := startedAs(t, n, word)
	if e.PID != x.PID || e.Exe != x.Exe || e.Args != x.Args || e.Comm != x.Comm || e.UID != x.UID || e.PPID != x.PPID || e.Parents != x.Parents || !strings.Contains(e.Parents, ":sh") {
		t.Errorf("%s names process %d %s (%s) %q below %q,\nthe program was %d %s (%s) %q below %q", what,
			e.PID, e.Comm, e.Exe, e.Args, e.Parents, x.PID, x.Comm, x.Exe, x.Args, x.Parents)
	}
}

// named is a node with a site, an address inside, and policy for both.
func named(t *testing.T) (n *node.Node, workspace string) {
	t.Helper()
	w := newWorld(t)
	w.site(t, "web.test", doubles.Page("fine"))
	w.hosts["inside.test"] = "10.20.0.9"
	n = w.start(t, node.Options{Policies: map[string]string{"p.yaml": `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: p}
scope: org:local
egress:
  - {id: read, allow: "web.test:443", http: {methods: [GET]}}
  - {id: inside, allow: "inside.test:443"}
  - {id: datagrams, allow: "inside.test:7007/udp"}
`}})
	workspace = n.Workspace(t)
	put(t, workspace, "server-ca.pem", string(w.ca.PEM()))
	return n, workspace
}

// TestGatewayRecordsNameTheProcess: what the gateway decides is told of the
// process that asked for it, like what the kernel decides.
func TestGatewayRecordsNameTheProcess(t *testing.T) {
	n, ws := named(t)
	r := sandboxed(t, n, ws, "default", `
curl -s https://web.test/w-get
curl -s -X POST https://web.test/w-post >/dev/null
curl -s https://refused.test/w-name >/dev/null
curl -sk --connect-to other.test:443:inside.test:443 https://other.test/w-sni
curl -sS -o /dev/null https://api.openai.com/v1/chat/completions -H 'content-type: application/json' -d '{"model":"w-model","messages":[{"role":"user","content":"hi"}]}'
bash -c 'exec 3<>/dev/udp/inside.test/7007; echo w-udp >&3; sleep 0.2; :'
exit 0`)
	if r.Code != 0 || !strings.Contains(r.Stdout, "fine") {
		t.Fatalf("exit %d %s %s", r.Code, r.Stdout, r.Stderr)
	}
	for _, c := range []struct {
		what, word string
		want       func(*event.Event) bool
	}{
		{"an allowed request", "w-get", func(e *event.Event) bool {
			return e.Kind == event.KindHTTP && e.Verdict == event.Allowed && strings.HasSuffix(e.URL, "/w-get")
		}},
		{"a request that an http rule refuses", "w-post", func(e *event.Event) bool {
			return e.Kind == event.KindHTTP && e.Verdict == event.Denied && e.Method == "POST"
		}},
		{"a refused name", "w-name", func(e *event.Event) bool { return e.Kind == event.KindDNS && e.DstName == "refused.test" }},
		{"a refused name's answer", "w-name", func(e *event.Event) bool { return e.Kind == event.KindHTTP && e.DstName == "refused.test" }},
		{"a server name that is another one", "w-sni", func(e *event.Event) bool { return e.ReasonCode == "sni-mismatch" }},
		{"a model call", "w-model", func(e *event.Event) bool { return e.Kind == event.KindInference && e.Model == "w-model" }},
		{"a refused datagram", "w-udp", func(e *event.Event) bool {
			return e.Kind == event.KindNetwork && e.Proto == "udp" && e.Verdict == event.Denied && e.DstName == "inside.test"
		}},
	} {
		t.Run(c.what, func(t *testing.T) { names(t, n, c.what, c.word, c.want) })
	}
}

// TestGatewayRecordsAndReusedPorts: two processes that use one port of the
// sandbox one after the other are told apart.
func TestGatewayRecordsAndReusedPorts(t *testing.T) {
	w := newWorld(t)
	w.hosts["inside.test"] = "10.20.0.9"
	n := w.start(t, node.Options{Policies: map[string]string{"p.yaml": `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: p}
scope: org:local
egress:
  - {id: inside, allow: "inside.test:443"}
`}})
	// The gateway resets each of them: the address behind the name is private.
	r := sandboxed(t, n, n.Workspace(t), "default", `for i in 1 2 3 4; do curl -s --local-port 41000 https://inside.test/w-$i; done; exit 0`)
	if r.Code != 0 {
		t.Fatalf("exit %d %s", r.Code, r.Stderr)
	}
	pids := map[uint32]bool{}
	for i := range 4 {
		x := startedAs(t, n, fmt.Sprintf("w-%d", i+1))
		pids[x.PID] = true
		names(t, n, "connection "+fmt.Sprint(i+1), fmt.Sprintf("w-%d", i+1), func(e *event.Event) bool {
			return e.ReasonCode == "private-address" && e.PID == x.PID && strings.HasSuffix(e.SrcAddr, ":41000")
		})
	}
	if len(pids) != 4 {
		t.Errorf("%d processes", len(pids))
	}
}

// TestGatewayRecordsDuringAFlood: sandboxes that make more flows than is read
// lose no name but their own.
func TestGatewayRecordsDuringAFlood(t *testing.T) {
	n, ws := named(t)
	put(t, ws, "flood.py", `import socket
to = (socket.gethostbyname("inside.test"), 7007)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    s.connect(to)
`)
	for i := range 3 {
		if r := n.CLI(t, "run", "--detach", "--name", fmt.Sprint("flood-", i), "--workspace", ws, "--", "python3", "flood.py"); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
	}
	eventually(t, "the flows are throttled", func() bool {
		for name, v := range n.Metrics(t) {
			if strings.HasPrefix(name, "ringfence_bpf_records_lost_total") && strings.Contains(name, "flows") && v > 0 {
				return true
			}
		}
		return false
	})
	const requests = 20
	r := sandboxed(t, n, ws, "default", fmt.Sprintf(`for i in $(seq 1 %d); do curl -s https://web.test/w-$i-; done; exit 0`, requests))
	if r.Code != 0 {
		t.Fatalf("exit %d %s %s", r.Code, r.Stdout, r.Stderr)
	}
	named := 0
	for i := range requests {
		word := fmt.Sprintf("w-%d-", i+1)
		e := n.WaitEvent(t, "request "+word, func(e *event.Event) bool { return e.Kind == event.KindHTTP && strings.HasSuffix(e.URL, word) })
		switch x := startedAs(t, n, word); {
		case e.PID == x.PID && e.Exe == x.Exe && e.Args == x.Args:
			named++
		case e.PID != 0:
			t.Errorf("%s names another process: %d %q", word, e.PID, e.Args)
		}
	}
	if named < requests*3/4 { // a machine that is too busy may cost some
		t.Errorf("of %d requests %d name their process", requests, named)
	}
}
