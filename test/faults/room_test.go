// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/test/node"
)

// Documentation and the limit below count on what each sandbox takes; a
// detached one takes the most. The images of views that the keeper holds on to
// are among them here, and are 64 at most.
func TestSandboxesTakeFewDescriptors(t *testing.T) {
	n := node.Start(t, node.Options{Config: "spare: false"})
	ws := n.Workspace(t)
	detach := func(name string) {
		if r := n.CLIIn(t, ws, "run", "--detach", "--name", name, "--", "sleep", "600"); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
	}
	detach("first") // what is made once
	gw, ok := n.Gateway(t)
	if !ok {
		t.Fatal("no gateway runs")
	}
	count := func(pid int) (sum int) {
		for _, c := range kindsOfFiles(pid) {
			sum += c
		}
		return sum
	}
	keeper, gateway := count(n.PID()), count(gw.PID)
	const sandboxes = 5
	for i := range sandboxes {
		detach(fmt.Sprint("more", i))
	}
	eventually(t, "each takes its share in keeper and gateway", func() bool {
		k, g := count(n.PID())-keeper, count(gw.PID)-gateway
		t.Logf("%d sandboxes: %d descriptors in the keeper, %d in the gateway", sandboxes, k, g)
		return k <= sandboxes*sandbox.DescriptorsEach && k > sandboxes*10 && g == sandboxes*10
	})
}

// Where the daemon's limit ends, launches do, and nothing else.
func TestLimitOfOpenFiles(t *testing.T) {
	n := node.Start(t, node.Options{})
	ws := n.Workspace(t)
	run := func(name string) node.Result {
		return n.CLIIn(t, ws, "run", "--detach", "--name", name, "--", "sleep", "600")
	}
	if r := run("one"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	var was unix.Rlimit
	if err := unix.Prlimit(n.PID(), unix.RLIMIT_NOFILE, nil, &was); err != nil {
		t.Fatal(err)
	}
	low := unix.Rlimit{Cur: sandbox.DescriptorsOwn + 2*sandbox.DescriptorsEach, Max: was.Max}
	if err := unix.Prlimit(n.PID(), unix.RLIMIT_NOFILE, &low, nil); err != nil {
		t.Fatal(err)
	}
	if r := run("two"); r.Code != 0 {
		t.Errorf("there is room for two: %s", r.Stderr)
	}
	refused := func() {
		t.Helper()
		r := run("three")
		if r.Code != 125 {
			t.Errorf("exit %d", r.Code)
		}
		for _, part := range []string{"limit of open files is reached", "not enough for one more than 2 sandboxes", "LimitNOFILE=", "stop sandboxes"} {
			if !strings.Contains(r.Stderr, part) {
				t.Errorf("%q is not in %s", part, r.Stderr)
			}
		}
	}
	refused()
	if r := n.CLI(t, "doctor"); !strings.Contains(r.Stdout, "open files") || !strings.Contains(r.Stdout, "for 2 sandboxes") {
		t.Errorf("doctor: %s%s", r.Stdout, r.Stderr)
	}
	if r := n.CLI(t, "exec", "two", "--", "true"); r.Code != 0 {
		t.Errorf("what runs is hindered: %s", r.Stderr)
	}
	if r := n.CLI(t, "stop", "one"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	eventually(t, "there is room again", func() bool { return run("four").Code == 0 })
	refused()
	if err := unix.Prlimit(n.PID(), unix.RLIMIT_NOFILE, &was, nil); err != nil {
		t.Fatal(err)
	}
	if r := run("five"); r.Code != 0 {
		t.Errorf("with the former limit: %s", r.Stderr)
	}
}
