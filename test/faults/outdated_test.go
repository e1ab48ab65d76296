// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// The keeper is restarted with another configuration of the gateway while a
// sandbox lives: from then on it holds for that sandbox, too. Then the gateway
// hangs instead of ending.
func TestAGatewayThatMustBeReplaced(t *testing.T) {
	w := newWorld(t)
	o := w.options()
	o.Config = strings.Replace(o.Config, "echo.example: [127.0.0.1]", "echo.example: [127.0.0.9]", 1) // which no rule admits
	n := node.Start(t, o)
	l := startLoad(t, n, "agent", w.allowed()...)
	l.more(t, nil, 3, "web", "llm")
	if c := l.counts(t)["echo"]; c.OK != 0 {
		t.Fatalf("control: the name leads elsewhere: %+v", c)
	}
	before, gateway := n.Sandbox(t, "agent"), must(n.Gateway(t))

	n.KillDaemon(t)
	path := filepath.Join(n.Dir, "config.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(b), "127.0.0.9", "127.0.0.1", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	n.StartDaemon(t)
	l.more(t, l.counts(t), 5, "echo", "web", "llm")
	checkAdopted(t, n, "agent", before.ID, before.PID)
	second := must(n.Gateway(t))
	if second == gateway || gateway.Alive() {
		t.Errorf("the gateway was not replaced: %v", second)
	}
	n.WaitEvent(t, "the replacement", func(e *event.Event) bool { return e.Activity == "gateway-outdated" })

	if err := syscall.Kill(second.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a gateway that hangs is replaced", func() bool {
		p, ok := n.Gateway(t)
		return ok && p != second && !second.Alive()
	})
	n.WaitEvent(t, "the hang", func(e *event.Event) bool { return e.Activity == "gateway-hung" })
	l.more(t, l.counts(t), 5, "echo", "web", "llm")
	w.nothingPassed(t, l)
}
