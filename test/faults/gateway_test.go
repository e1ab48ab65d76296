// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// Connections wait or fail while the gateway is gone; none gets past policy.
func TestKillTheGatewayUnderLoad(t *testing.T) {
	w := newWorld(t)
	n := node.Start(t, w.options())
	l := startLoad(t, n, "agent", append(append(w.allowed(), w.allowed()...), w.denied()...)...)
	l.more(t, nil, 3, "echo", "web", "llm")
	l.tried(t, nil, 3, deniedKinds...)
	before := n.Sandbox(t, "agent")
	addr := resolved(t, n, "agent", "echo.example")

	const kills = 3
	var worst time.Duration
	for range kills {
		since := l.counts(t)
		killed := time.Now()
		old := n.KillGateway(t)
		back := map[string]time.Duration{}
		eventually(t, "each kind of service is back", func() bool {
			c := l.counts(t)
			for _, k := range []string{"echo", "web", "llm"} {
				if _, known := back[k]; !known && c[k].LastOK.After(killed.Add(5*time.Millisecond)) && c[k].OK > since[k].OK {
					back[k] = c[k].LastOK.Sub(killed)
				}
			}
			return len(back) == 3
		})
		now, ok := n.Gateway(t)
		if !ok || now.PID == old.PID {
			t.Errorf("the gateway is still process %d", now.PID)
		}
		for _, d := range back {
			worst = max(worst, d)
		}
		t.Logf("service returned after echo %s, web %s, llm %s", back["echo"].Round(time.Millisecond), back["web"].Round(time.Millisecond), back["llm"].Round(time.Millisecond))
		l.more(t, l.counts(t), 3, "echo", "web", "llm")
	}
	if worst > 30*time.Second {
		t.Errorf("service took %s to return", worst)
	}
	l.tried(t, l.counts(t), 3, deniedKinds...)
	w.nothingPassed(t, l)
	after := n.Sandbox(t, "agent")
	if after.ID != before.ID || after.PID != before.PID || after.State != before.State {
		t.Errorf("the sandbox changed: %+v, was %+v", after, before)
	}
	if now := resolved(t, n, "agent", "echo.example"); now != addr {
		t.Errorf("echo.example has the address %s now, had %s", now, addr)
	}
	n.WaitEvent(t, "the gateway was lost", func(e *event.Event) bool { return e.Kind == event.KindDaemon && e.Activity == "gateway-lost" })
	c := l.counts(t)
	t.Logf("%d kills, worst return %s; attempts: echo %d/%d web %d/%d llm %d/%d (ok/failed); refused: literal %d port %d post %d name %d", kills,
		worst.Round(time.Millisecond), c["echo"].OK, c["echo"].Fail, c["web"].OK, c["web"].Fail, c["llm"].OK, c["llm"].Fail, c["literal"].Fail, c["port"].Fail, c["post"].Fail, c["name"].Fail)
	if v := n.CLI(t, "audit", "verify"); v.Code != 0 {
		t.Errorf("audit verify: %s%s", v.Stdout, v.Stderr)
	}
}

// resolved is the virtual address of a name in a running sandbox.
func resolved(t *testing.T, n *node.Node, sandbox, name string) string {
	t.Helper()
	r := n.CLI(t, "exec", sandbox, "--", "getent", "ahostsv4", name)
	if r.Code != 0 || r.Stdout == "" {
		t.Fatalf("resolve %s: %d %s%s", name, r.Code, r.Stdout, r.Stderr)
	}
	var addr string
	for i, c := range r.Stdout {
		if c == ' ' {
			addr = r.Stdout[:i]
			break
		}
	}
	return addr
}
