// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/ringfence/ringfence/pkg/event"
)

// delegated makes a cgroup with two below it that belong to the adoptee's user,
// as a service manager delegates one.
func delegated(t *testing.T) (service, beside string) {
	t.Helper()
	base := newCgroup(t)
	for _, dir := range []string{"service", "beside"} {
		dir = filepath.Join(base, dir)
		need(t, os.Mkdir(dir, 0o755))
		t.Cleanup(func() { eventually(t, "the cgroup can be removed", func() bool { return os.Remove(dir) == nil }) })
	}
	for _, dir := range []string{base, filepath.Join(base, "beside")} {
		need(t, os.Chown(filepath.Join(dir, "cgroup.procs"), 65534, 65534))
	}
	return filepath.Join(base, "service"), filepath.Join(base, "beside")
}

// A process that may leave its cgroup is shown, one that has left is an event.
func TestAdoptAProcessThatLeaves(t *testing.T) {
	for _, c := range []struct {
		config string
		goesOn bool
	}{{"attest: {interval: 1s, onDifference: report}", true}, {"attest: {interval: 1s}", false}} {
		t.Run(c.config, func(t *testing.T) {
			service, beside := delegated(t)
			r := newAdoptedIn(t, service, c.config)
			if res := r.adopt(t); res.Code != 0 || !strings.Contains(res.Stderr, "it can leave its cgroup") {
				t.Fatalf("adopt: %d %s", res.Code, res.Stderr)
			}
			r.n.WaitEvent(t, "that it may", func(e *event.Event) bool { return e.ReasonCode == "cgroup-writable" })
			r.denied(t, "tcp", r.other)
			r.a.must("leave", beside)
			want := event.Denied
			if c.goesOn {
				want = event.Observed
				r.gives(t, "tcp", r.other, "from "+podAddr) // nothing of ours judges it there
			}
			r.n.WaitEvent(t, "that it has", func(e *event.Event) bool {
				return e.ReasonCode == "left-cgroup" && e.Severity == event.SeverityCritical && e.Verdict == want &&
					int(e.PID) == r.a.cmd.Process.Pid && strings.Contains(e.Detail, beside)
			})
			if !c.goesOn {
				r.a.end() // it was killed: this returns
				return
			}
			eventually(t, "ps shows it", func() bool {
				s := r.n.Sandbox(t, "shop")
				return s.Enforcement == "unenforced" && strings.Contains(r.n.CLI(t, "ps", "-o", "json").Stdout, "it has left the cgroup")
			})
		})
	}
}

// Programs of others on the cgroup, or above it, are told once and shown.
func TestAdoptBesideProgramsOfOthers(t *testing.T) {
	base := newCgroup(t)
	service := filepath.Join(base, "service")
	need(t, os.Mkdir(service, 0o755))
	t.Cleanup(func() { eventually(t, "the cgroup can be removed", func() bool { return os.Remove(service) == nil }) })
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "of_another", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect,
		License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}})
	need(t, err)
	defer p.Close()
	attach := func(path string) {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: path, Attach: ebpf.AttachCGroupInet4Connect, Program: p})
		need(t, err)
		t.Cleanup(func() { l.Close() })
	}
	attach(base)
	r := newAdoptedIn(t, service, "attest: {interval: 1s}")
	if res := r.adopt(t); res.Code != 0 || !strings.Contains(res.Stderr, `("of_another"`) || !strings.Contains(res.Stderr, "of a cgroup above runs too") {
		t.Fatalf("adopt: %d %s", res.Code, res.Stderr)
	}
	told := func(where string) int {
		n := 0
		for _, e := range r.n.Events(t) {
			if e.ReasonCode == "programs-beside" && strings.Contains(e.Detail, where) {
				n++
			}
		}
		return n
	}
	eventually(t, "the program above is told", func() bool { return told("of a cgroup above") == 1 })
	p, err = p.Clone()
	need(t, err)
	attach(service)
	eventually(t, "that of the cgroup itself is told", func() bool { return told("is on the cgroup") == 1 })
	before := r.n.Sandbox(t, "shop").Attested
	eventually(t, "two more looks", func() bool { return r.n.Sandbox(t, "shop").Attested.Sub(*before).Seconds() > 2 })
	for _, where := range []string{"of a cgroup above", "is on the cgroup"} {
		if n := told(where); n != 1 {
			t.Errorf("%s: told %d times", where, n)
		}
	}
	if s := r.n.Sandbox(t, "shop"); s.Enforcement != "degraded" {
		t.Errorf("ps: %+v", s)
	}
	r.denied(t, "tcp", r.other)
}
