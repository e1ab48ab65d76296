// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// client is a program inside a sandbox that is told what to do; see
// testdata/flows.
type client struct {
	*node.Talk
	t     *testing.T
	later []string // said, and not asked for yet
}

func startClient(t *testing.T, n *node.Node, name string) *client {
	t.Helper()
	ws := n.Workspace(t)
	node.BuildInto(t, ws, "test/faults/testdata/flows")
	return &client{Talk: n.Talk(t, ws, "--profile", "coding", "--name", name, "--", "./flows"), t: t}
}

// tell gives a command and waits for a line that begins with one of want.
func (c *client) tell(command string, want ...string) string {
	c.t.Helper()
	c.Tell(command)
	return c.hear(want...)
}

func (c *client) hear(want ...string) string {
	c.t.Helper()
	match := func(line string) bool {
		for _, w := range want {
			if strings.HasPrefix(line, w) {
				return true
			}
		}
		return false
	}
	for i, line := range c.later {
		if match(line) {
			c.later = append(c.later[:i], c.later[i+1:]...)
			return line
		}
	}
	for end := time.After(soon); ; {
		select {
		case line, ok := <-c.Lines:
			if !ok {
				c.t.Fatalf("the client ended; wanted %q, had %q", want, c.later)
			}
			if match(line) {
				return line
			}
			c.later = append(c.later, line)
		case <-end:
			c.t.Fatalf("the client never said %q, but %q", want, c.later)
		}
	}
}

// silent fails the test if the client says or has said such a line.
func (c *client) silent(prefix string) {
	c.t.Helper()
	for {
		select {
		case line, ok := <-c.Lines:
			if ok {
				c.later = append(c.later, line)
				continue
			}
		default:
		}
		break
	}
	for _, line := range c.later {
		if strings.HasPrefix(line, prefix) {
			c.t.Errorf("the client said %q", line)
		}
	}
}

// revocable is a world with a name whose rule comes and goes and one that
// stays.
type revocable struct {
	n      *node.Node
	port   int
	allow  string // files
	deny   string
	closed chan struct{} // the request of slow.example was cancelled
}

func newRevocable(t *testing.T) *revocable {
	t.Helper()
	echo, err := doubles.NewEcho(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = echo.Close() })
	v := &revocable{port: port(echo.Addr()), closed: make(chan struct{}, 1)}
	slow, err := doubles.Serve(nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		v.closed <- struct{}{}
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slow.Close() })
	v.n = node.Start(t, node.Options{
		Config: "gateway:\n  hosts:\n    gone.example: [127.0.0.1]\n    stays.example: [127.0.0.1]\n    slow.example: [127.0.0.1]\n",
		Policies: map[string]string{"base.yaml": fmt.Sprintf("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: base}\nscope: org:local\negress:\n"+
			"  - {id: stays, allow: \"stays.example:%d\", resolvesTo: [127.0.0.1/32]}\n", v.port)},
	})
	v.allow = v.write(t, "allow.yaml", fmt.Sprintf("  - {id: gone, allow: \"gone.example:%d\", resolvesTo: [127.0.0.1/32]}\n"+
		"  - {id: slow, allow: \"slow.example:%d\", resolvesTo: [127.0.0.1/32], http: {methods: [GET]}}\n", v.port, port(slow.Addr)))
	v.deny = v.write(t, "deny.yaml", "  - {id: gone, deny: \"gone.example\"}\n")
	return v
}

func (v *revocable) write(t *testing.T, name, rules string) string {
	t.Helper()
	path := filepath.Join(v.n.Dir, name)
	text := "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: revocable}\nscope: org:local\negress:\n" + rules
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func (v *revocable) apply(t *testing.T, file string) node.Result {
	t.Helper()
	r := v.n.CLI(t, "policy", "apply", "--wait", "--timeout", "60s", file)
	if r.Code != 0 {
		t.Fatalf("apply: %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	return r
}

func (v *revocable) at(name string) string { return fmt.Sprintf("%s.example:%d", name, v.port) }

// ended are the ways in which a client sees that its flow was ended: the kernel
// and the gateway do it at the same time. Silence and an orderly end are not
// among them.
func ended(id string) []string { return []string{id + " ended ECONNABORTED", id + " ended ECONNRESET"} }

func TestRevokedFlowsEnd(t *testing.T) {
	v := newRevocable(t)
	out := v.apply(t, v.allow).Stdout
	if !strings.Contains(out, "applied Policy revocable (allow.yaml), revision ") || !strings.Contains(out, "is in force in 0 running sandboxes") {
		t.Error(out)
	}
	c := startClient(t, v.n, "client")
	c.tell("open gone "+v.at("gone"), "gone open")
	c.tell("open stays "+v.at("stays"), "stays open")
	c.tell(fmt.Sprintf("get slow http://slow.example:%d/", v.slowPort(t)), "slow status 200")
	for _, id := range []string{"gone", "stays"} {
		c.tell("send "+id+" 300000", id+" echoed 300000")
	}
	if out := v.apply(t, v.deny).Stdout; !strings.Contains(out, "is in force in 1 running sandbox\n") {
		t.Error(out)
	}
	c.hear(ended("gone")...)
	select {
	case <-v.closed:
	case <-time.After(soon):
		t.Error("the upstream request in flight goes on")
	}
	c.hear("slow ended")
	for range 5 {
		c.tell("send stays 300000", "stays echoed 300000")
	}
	c.silent("stays ended")
	if line := c.tell("try "+v.at("gone"), "try"); line == "try ok" {
		t.Error("it is reached")
	}
	v.n.WaitEvent(t, "the end of the flow", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.DstName == "gone.example" && e.ReasonCode == "revoked"
	})
	v.n.WaitEvent(t, "who changed the policy", func(e *event.Event) bool {
		return e.Kind == event.KindPolicy && e.Activity == "apply" && strings.Contains(e.Object, "applied-policy-revocable.yaml") && strings.HasPrefix(e.Actor, "uid=0")
	})
}

func (v *revocable) slowPort(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(v.allow)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "slow.example:")
	var p int
	if _, err := fmt.Sscanf(rest, "%d", &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// The kernel ends flows whatever the gateway does; that the gateway does not
// follow is what --wait is there to say.
func TestRevocationWithoutTheGateway(t *testing.T) {
	v := newRevocable(t)
	v.apply(t, v.allow)
	c := startClient(t, v.n, "client")
	c.tell("open gone "+v.at("gone"), "gone open")
	c.tell("open stays "+v.at("stays"), "stays open")
	gw, ok := v.n.Gateway(t)
	if !ok {
		t.Fatal("no gateway")
	}
	if err := syscall.Kill(gw.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r := v.n.CLI(t, "policy", "apply", "--wait", "--timeout", "1s", v.deny)
	c.hear("gone ended ECONNABORTED")
	if err := syscall.Kill(gw.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if r.Code != 7 || !strings.Contains(r.Stderr, "is not in force everywhere after 1s") || !strings.Contains(r.Stderr, "(client): revision ") {
		t.Errorf("exit %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	c.tell("send stays 300000", "stays echoed 300000")
	v.apply(t, v.deny)
	if out := v.n.CLI(t, "policy", "delete", "revocable", "--wait").Stdout; !strings.Contains(out, "removed Policy revocable") || !strings.Contains(out, "1 running sandbox\n") {
		t.Error(out)
	}
}

// TestApplyWaitIsExact alternates: what the command has returned from is what
// the very next connection meets.
func TestApplyWaitIsExact(t *testing.T) {
	v := newRevocable(t)
	v.apply(t, v.allow)
	c := startClient(t, v.n, "client")
	addr := strings.TrimPrefix(c.tell("open first "+v.at("gone"), "first open"), "first open ")
	for i := range 100 {
		file, want := v.deny, "try refused"
		if i%2 == 1 {
			file, want = v.allow, "try ok"
		}
		v.apply(t, file)
		for _, dst := range []string{addr, v.at("gone")} { // the address first: nothing has asked for the name since
			if line := c.tell("try "+dst, "try"); !strings.HasPrefix(line, want) {
				t.Fatalf("round %d, %s: %s, want %s", i, dst, line, want)
			} else if dst == addr && i%2 == 0 && line != "try refused EACCES" {
				t.Fatalf("round %d: not the kernel's word: %s", i, line)
			}
		}
	}
}
