// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// detach takes one program off a sandbox's cgroup, as root can.
func detach(t *testing.T, n *node.Node, id, hook string) {
	t.Helper()
	number, err := strconv.ParseUint(id, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	detachFrom(t, n, fmt.Sprint(number), hook)
}

func detachFrom(t *testing.T, n *node.Node, number, hook string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(n.RunDir, "bpf", "ringfence-v*", "sandbox", number, hook))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	l, err := link.LoadPinnedLink(found[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Detach(); err != nil {
		t.Fatal(err)
	}
}

func idle(t *testing.T, n *node.Node, name string) api.Sandbox {
	t.Helper()
	if r := n.CLI(t, "run", "--workspace", "none", "--detach", "--name", name, "--", "sleep", "100000"); r.Code != 0 {
		t.Fatalf("run: %d %s", r.Code, r.Stderr)
	}
	return n.Sandbox(t, name)
}

func part(s api.Sandbox, name string) api.Part {
	if i := slices.IndexFunc(s.Parts, func(p api.Part) bool { return p.Name == name }); i >= 0 {
		return s.Parts[i]
	}
	return api.Part{}
}

func attestation(id string) func(*event.Event) bool {
	return func(e *event.Event) bool {
		return e.Kind == event.KindTamper && e.Activity == "attest" && e.Sandbox == id && e.Severity == event.SeverityCritical
	}
}

// Somebody takes a program off a sandbox's cgroup. With onDifference: report
// operators see it, layer by layer, and the sandbox goes on.
func TestABrokenWallIsShown(t *testing.T) {
	n := node.Start(t, node.Options{Config: "attest: {interval: 1s, onDifference: report}"})
	a, beside := idle(t, n, "a"), idle(t, n, "beside")
	for _, layer := range []string{"network", "namespaces", "files", "system calls", "identity", "processes"} {
		if p := part(a, layer); p.State != api.Enforced || p.Detail == "" {
			t.Errorf("layer %s: %+v", layer, p)
		}
	}
	if a.Attested == nil || a.Attested.Before(a.Created) {
		t.Errorf("it was attested at %v", a.Attested)
	}
	detach(t, n, a.ID, "sendmsg6")
	eventually(t, "ps says broken", func() bool { return n.Sandbox(t, "a").Enforcement == api.Broken })
	if p := part(n.Sandbox(t, "a"), "network"); p.State != api.Broken || !strings.Contains(p.Detail, "sendmsg6: the link was detached") || p.Remedy == "" {
		t.Errorf("the layer: %+v", p)
	}
	e := n.WaitEvent(t, "the difference", attestation(a.ID))
	if e.IsDenial() || e.Layer != "network" || !strings.Contains(e.Detail, "sendmsg6") {
		t.Errorf("event: %+v", e)
	}
	if r := n.CLI(t, "ps"); !strings.Contains(r.Stdout, "broken (") || !strings.Contains(r.Stdout, "Broken: "+a.ID+" network: sendmsg6: the link was detached") {
		t.Errorf("ps:\n%s", r.Stdout)
	}
	if r := n.CLI(t, "exec", "a", "--", "echo", "goes on"); r.Code != 0 || r.Stdout != "goes on\n" {
		t.Errorf("exec: %d %q %s", r.Code, r.Stdout, r.Stderr)
	}
	if s := n.Sandbox(t, "beside"); s.Enforcement == api.Broken || s.ID != beside.ID {
		t.Errorf("the sandbox beside it: %+v", s)
	}
	count := 0
	for _, e := range n.Events(t) {
		if e.Kind == event.KindTamper {
			count++
		}
	}
	if count != 1 {
		t.Errorf("it was told %d times", count)
	}
}

// By default the sandbox is stopped, also when the program was taken while no
// keeper was there to see it; and a launch never fails for it.
func TestASandboxWithABrokenWallIsStopped(t *testing.T) {
	n := node.Start(t, node.Options{Config: "attest: {interval: 1s}"})
	a := idle(t, n, "a")
	detach(t, n, a.ID, "egress")
	e := n.WaitEvent(t, "the difference", attestation(a.ID))
	if !e.IsDenial() || !strings.Contains(e.Detail, "egress") || !strings.Contains(e.Reason, "stopped") {
		t.Errorf("event: %+v", e)
	}
	eventually(t, "it is stopped", func() bool {
		return !slices.ContainsFunc(n.Sandboxes(t), func(s api.Sandbox) bool { return s.ID == a.ID && s.State != api.StateStopped })
	})

	b := idle(t, n, "b")
	n.KillDaemon(t)
	detach(t, n, b.ID, "connect4")
	n.StartDaemon(t)
	n.WaitEvent(t, "the difference after a restart", attestation(b.ID))
	eventually(t, "it is stopped too", func() bool {
		return !slices.ContainsFunc(n.Sandboxes(t), func(s api.Sandbox) bool { return s.ID == b.ID && s.State != api.StateStopped })
	})
	if r := n.CLI(t, "run", "--workspace", "none", "--", "echo", "fine"); r.Code != 0 || r.Stdout != "fine\n" {
		t.Errorf("the next run: %d %q %s", r.Code, r.Stdout, r.Stderr)
	}
}

// What init tries at the start is nobody's denial: not in the events, not in
// the list at the end of a run, not in ps. The same by the agent is.
func TestTheProbesOfALaunchAreNoDenials(t *testing.T) {
	n := node.Start(t, node.Options{})
	if r := n.CLI(t, "run", "--workspace", "none", "--", "true"); r.Code != 0 || r.Stderr != "" {
		t.Errorf("run: %d %s", r.Code, r.Stderr)
	}
	if evs := n.Events(t, "--denied"); len(evs) > 0 {
		t.Errorf("denials of an agent that did nothing: %+v", evs)
	}
	r := n.CLI(t, "run", "--workspace", "none", "--", "cat", "/guarded/.probe")
	if r.Code != 1 || !strings.Contains(r.Stderr, ".probe") {
		t.Errorf("the same by the agent: %d %s", r.Code, r.Stderr)
	}
	if evs := n.Events(t, "--denied"); len(evs) != 1 {
		t.Errorf("denials of an agent that tried: %+v", evs)
	}
}

// The gateway's own cgroup is looked at too.
func TestTheGatewaysFenceIsAttested(t *testing.T) {
	n := node.Start(t, node.Options{Config: "spare: false\nattest: {interval: 1s}"})
	detachFrom(t, n, "*", "connect4") // there is no sandbox
	e := n.WaitEvent(t, "the difference", func(e *event.Event) bool {
		return e.Kind == event.KindTamper && e.Object == "gateway" && e.Severity == event.SeverityCritical
	})
	if !strings.Contains(e.Detail, "connect4: the link was detached") {
		t.Errorf("event: %+v", e)
	}
}
