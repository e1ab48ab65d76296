// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
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

const hookSecret = "a-secret-that-only-two-know-of"

// sender finds the process that sends webhooks.
func sender(t *testing.T, n *node.Node) (pid int, status string) {
	t.Helper()
	eventually(t, "a sender of webhooks", func() bool {
		files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range files {
			b, _ := os.ReadFile(f)
			s, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "status"))
			if !strings.HasSuffix(string(b), "\x00send-webhooks\x00") || !strings.Contains(string(s), fmt.Sprintf("\nPPid:\t%d\n", n.PID())) {
				continue
			}
			if _, err := fmt.Sscanf(f, "/proc/%d/cmdline", &pid); err == nil {
				status = string(s)
				return true
			}
		}
		return false
	})
	return pid, status
}

// arrivals counts the attempts of a delivery that were answered with a status.
func arrivals(rec *doubles.Receiver, id string, status int) (n int) {
	for _, g := range rec.Got() {
		if g.ID == id && g.Status == status && g.Err == nil {
			n++
		}
	}
	return n
}

// TestWebhook: what waits and what becomes of it is told, signed, by a process
// without power; a receiver that fails or sleeps holds nobody up, and neither its
// failures nor kill -9 of the daemon nor of the sender loses anything.
func TestWebhook(t *testing.T) {
	rec := doubles.NewReceiver([]byte(hookSecret))
	authority, err := doubles.NewCA()
	need(t, err)
	srv, err := authority.Serve(nil, rec, "localhost") // a name: the confined process resolves it
	need(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	dir := t.TempDir()
	ca, secret := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "secret")
	need(t, os.WriteFile(ca, authority.PEM(), 0o644))
	need(t, os.WriteFile(secret, []byte(hookSecret+"\n"), 0o600))
	_, port, err := net.SplitHostPort(srv.Addr.String())
	need(t, err)
	n := node.Start(t, node.Options{Config: fmt.Sprintf("webhook: {url: %q, secretFile: %q, rootCAs: %q, timeout: 2s}\n", "https://localhost:"+port+"/approvals", secret, ca),
		Policies: map[string]string{"ask.yaml": "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: eng}\nscope: org:local\negress:\n" +
			"  - {id: ask, to: \"**.asked.test:443\", action: require-approval}\n"}})
	asks := func(name string) (id string) { // an agent that wants to go there, and waits
		if r := n.CLIIn(t, n.Workspace(t), "run", "--detach", "--profile", "coding", "--name", name, "--", "sh", "-c", "curl -sk https://"+name+".asked.test/; sleep 100000"); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
		return pendingID(t, n, name+".asked.test:443/tcp")
	}
	delivered := func(id string, times int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s, %d times", id, times), func() bool { return arrivals(rec, id, 204) >= times })
	}

	_, status := sender(t, n)
	for _, want := range []string{"\nUid:\t64998\t64998\t64998\t64998\n", "\nCapEff:\t0000000000000000\n", "\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n"} {
		if !strings.Contains(status, want) {
			t.Errorf("the sender has not %q: %s", want, status)
		}
	}

	rec.Fail(500, 429)
	one := asks("one")
	delivered(one+"-pending", 1)
	if arrivals(rec, one+"-pending", 500) != 1 || arrivals(rec, one+"-pending", 429) != 1 {
		t.Errorf("it was not tried again as the same: %+v", rec.Got())
	}
	var body struct {
		ID, Type, Node, Approve string
		Approval                struct {
			ID, State, Kind, Target, Sandbox, Needs string
			Rules                                   []string
		}
	}
	last := rec.Last()
	if err := json.Unmarshal(last.Body, &body); err != nil || body.ID != one+"-pending" || body.Type != "approval" || body.Node == "" || body.Approve != "ringfence approvals approve "+one || body.Approval.ID != one ||
		body.Approval.State != "pending" || body.Approval.Kind != "egress" || body.Approval.Target != "one.asked.test:443/tcp" || body.Approval.Sandbox != n.Sandbox(t, "one").ID || body.Approval.Rules[0] != "eng/ask" {
		t.Errorf("%v %s", err, last.Body)
	}
	if rec.Check(last.Header, last.Body, time.Now().Add(time.Hour)) == nil {
		t.Error("what was recorded is taken an hour later")
	}
	for _, what := range []string{"degraded", "webhook"} {
		n.WaitEvent(t, "the record that it failed and works again", func(e *event.Event) bool {
			return e.Kind == event.KindDaemon && e.Activity == what && strings.Contains(e.Reason, "webhook")
		})
	}

	// A receiver that sleeps: decisions do not wait for it.
	release := rec.Hang()
	if r := n.CLI(t, "approvals", "deny", one); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	eventually(t, "an attempt that hangs", func() bool { return arrivals(rec, one+"-denied", 204) > 0 })
	eventually(t, "that the node says so", func() bool { return strings.Contains(n.CLI(t, "doctor").Stdout, "webhook") })
	two := asks("two")
	if r := n.CLI(t, "approvals", "approve", two); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	three := asks("three")
	if arrivals(rec, three+"-pending", 204) != 0 {
		t.Error("the attempt before is not over")
	}

	// kill -9 before any of that has arrived.
	n.KillDaemon(t)
	release()
	n.StartDaemon(t)
	for _, id := range []string{one + "-denied", three + "-pending"} {
		delivered(id, 1)
	}
	eventually(t, "what was approved", func() bool {
		return arrivals(rec, two+"-approved", 204)+arrivals(rec, two+"-consumed", 204) > 0
	})
	before := arrivals(rec, three+"-pending", 204)
	n.KillDaemon(t) // what waits is told again by its id
	n.StartDaemon(t)
	delivered(three+"-pending", before+1)

	// And of the sender.
	pid, _ := sender(t, n)
	need(t, syscall.Kill(pid, syscall.SIGKILL))
	if r := n.CLI(t, "approvals", "deny", three); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	delivered(three+"-denied", 1)
	for _, g := range rec.Got() {
		if g.Err != nil {
			t.Errorf("%s: %v", g.ID, g.Err)
		}
	}
}

// TestWebhookSecret: a daemon does not start with a secret that others can read.
func TestWebhookSecret(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	need(t, os.WriteFile(secret, []byte(hookSecret), 0o644))
	need(t, os.Chmod(secret, 0o644))
	n := node.Start(t, node.Options{NoStart: true, Config: fmt.Sprintf("webhook: {url: \"http://127.0.0.1:1/\", secretFile: %q}\n", secret)})
	if code, said := n.Refused(t); code == 0 || !strings.Contains(said, "chmod 600") {
		t.Errorf("exit %d %s", code, said)
	}
	need(t, os.Chmod(secret, 0o600))
	n.StartDaemon(t) // the control
}
