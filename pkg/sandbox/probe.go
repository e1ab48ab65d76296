// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/seccomp"
)

// judgeProbes refuses a launch whose walls let one of init's probes through,
// naming the layer.
func judgeProbes(results []confine.ProbeResult) error {
	for _, r := range results {
		if r.Denied() {
			continue
		}
		answer := "let it through"
		if r.Errno != 0 {
			answer = fmt.Sprintf("answered %s, which is not that layer's refusal", unix.ErrnoName(r.Errno))
		}
		return &LaunchError{Code: 125, Step: "attestation", Missing: r.Probe.Layer(),
			Err:    fmt.Errorf("the %s is not in force: tried from inside, before the agent, was %s, and the kernel %s", r.Probe.Layer(), r.Probe.Act(), answer),
			Remedy: r.Probe.Remedy()}
	}
	return nil
}

// judgeNoted refuses a launch whose probes init says were refused and the
// kernel has no record of: then it does not attribute to this sandbox what the
// sandbox does. recorded says that refused system calls are recorded at all.
func judgeNoted(n kernel.Noted, recorded bool) error {
	what := ""
	switch {
	case n.Denials == 0:
		what = "the refused connect"
	case recorded && n.Refusals < 2: // an open and a call
		what = "the refused system calls"
	default:
		return nil
	}
	return &LaunchError{Code: 125, Step: "attestation", Missing: "records of the kernel",
		Err:    fmt.Errorf("init was refused what it tried, and the kernel did not count %s for this sandbox", what),
		Remedy: "its refusals would be missing from the events: stop all sandboxes with SIGINT to the daemon and start it again, which loads everything anew"}
}

// probing are the probes of one launch whose kernel records are still to come.
type probing struct {
	init int // pid
	left map[confine.Probe]bool
}

// expectProbes says that init is about to make its probes.
func (m *Manager) expectProbes(number uint32, init int) {
	p := &probing{init: init, left: map[confine.Probe]bool{}}
	for _, one := range confine.Probes() {
		p.left[one] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.probing[number] = p
}

// Probed says whether a record is of a probe that init made at the launch of
// its sandbox: of each one, exactly as it is made and by init itself. Those are
// no refusals of an agent.
func (m *Manager) Probed(r kernel.Record) bool {
	var head kernel.Head
	var probe confine.Probe
	switch r := r.(type) {
	case *kernel.Verdict:
		head, probe = r.Head, probeOfVerdict(r)
	case *kernel.Refusal:
		head, probe = r.Head, probeOfRefusal(r)
	}
	if probe == 0 {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.probing[head.Sandbox]
	if p == nil || uint32(p.init) != head.PID || !p.left[probe] {
		return false
	}
	delete(p.left, probe)
	return true
}

func probeOfVerdict(v *kernel.Verdict) confine.Probe {
	if v.Hook == kernel.HookConnect4 && !v.Allowed && v.Dst == confine.ProbeAddr && v.Proto == uint16(kernel.ProtoUDP) {
		return confine.ProbeConnect
	}
	return 0
}

func probeOfRefusal(r *kernel.Refusal) confine.Probe {
	switch {
	case seccomp.Name(r.Call) == "openat" && r.Errno == unix.EACCES && string(r.What) == confine.ProbeFile:
		return confine.ProbeOpen
	case seccomp.Name(r.Call) == "setns" && r.Errno == unix.EPERM && int32(r.Args[0]) == -1:
		return confine.ProbeCall
	}
	return 0
}

// checkProbes judges what init said of its probes, and what the kernel counted
// of them.
func (l *launch) checkProbes() error {
	if err := judgeProbes(l.probes); err != nil {
		return err
	}
	n, err := l.s.fence.Noted()
	if err != nil {
		return err
	}
	return judgeNoted(n, l.s.fence.RecordsRefusals())
}

// attest lets nothing of the agent run unless every wall was seen: from inside
// by init's probes, and from outside by what the kernel shows.
func (l *launch) attest(context.Context) error {
	if err := l.checkProbes(); err != nil {
		return err
	}
	found := l.s.look(suspicions{})
	l.s.note(found, suspicions{})
	broken := found.broken()
	if len(broken) == 0 {
		return nil
	}
	return &LaunchError{Code: 125, Step: "attestation", Missing: broken[0].Layer, Err: errors.New(broken.String()),
		Remedy: "the walls were not as this daemon had just built them: look for another program that changes cgroups or BPF programs"}
}
