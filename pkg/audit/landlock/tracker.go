// SPDX-License-Identifier: Apache-2.0

package landlock

import (
	"strings"

	"github.com/ringfence/ringfence/pkg/event"
)

// Domain is what is known of a Landlock domain: who created it. In a sandbox
// that is ringfence-init, or a program inside that confined itself further.
type Domain struct {
	ID   uint64
	PID  uint32 // in the host's pid namespace
	UID  uint32
	Exe  string
	Comm string
}

// Denial is a denied access with the domain that denied it, if known.
type Denial struct {
	Record
	By    Domain
	Known bool // By was reported by the kernel
}

const (
	maxDomains = 8192
	maxHeld    = 64
)

// Tracker joins accesses with domains. The kernel describes a domain once,
// right behind its first denial; a domain that was described before the reader
// started stays unknown. The zero value is ready; not for concurrent use.
type Tracker struct {
	domains map[uint64]Domain
	order   []uint64 // oldest first, to bound the map
	held    []Record // accesses whose domain may be described by the next record
}

// Add takes one record and returns the denials that are complete now, in order.
func (t *Tracker) Add(r Record) []Denial {
	var out []Denial
	if len(t.held) > 0 && (r.Serial != t.held[0].Serial || len(t.held) >= maxHeld) {
		out = t.Flush()
	}
	switch {
	case r.Type == TypeAccess:
		if d, ok := t.domains[r.Domain]; ok {
			out = append(out, Denial{Record: r, By: d, Known: true})
		} else {
			t.held = append(t.held, r)
		}
	case r.Status == "allocated":
		t.remember(Domain{ID: r.Domain, PID: r.PID, UID: r.UID, Exe: r.Exe, Comm: r.Comm})
		out = append(out, t.Flush()...)
	default:
		delete(t.domains, r.Domain)
	}
	return out
}

// Flush returns the denials that wait for their domain, as unknown if it has
// not come. Call it when nothing came for a moment.
func (t *Tracker) Flush() []Denial {
	var out []Denial
	for _, r := range t.held {
		d, ok := t.domains[r.Domain]
		out = append(out, Denial{Record: r, By: d, Known: ok})
	}
	t.held = nil
	return out
}

// Waiting says whether Flush would return something.
func (t *Tracker) Waiting() bool { return len(t.held) > 0 }

func (t *Tracker) remember(d Domain) {
	if t.domains == nil {
		t.domains = map[uint64]Domain{}
	}
	if _, ok := t.domains[d.ID]; !ok {
		t.order = append(t.order, d.ID)
	}
	t.domains[d.ID] = d
	for len(t.order) > maxDomains {
		delete(t.domains, t.order[0])
		t.order = t.order[1:]
	}
}

// Event turns the denial into an event without a sandbox: the caller finds that
// by the PID of the domain (see [Denial.By]) and sets Sandbox and Scope. PID,
// Exe and Comm of the event are those of the domain's creator: the kernel does
// not say which process under the domain it was.
func (d *Denial) Event() event.Event {
	e := event.Event{
		Kind: event.KindFile, Verdict: event.Denied, Time: d.Time, Source: "kernel", Layer: "landlock",
		Activity: strings.Join(d.Blockers, ","), Path: d.Path, PID: d.By.PID, UID: d.By.UID, Exe: d.By.Exe, Comm: d.By.Comm,
		ReasonCode: "landlock", Reason: "the file rules of the profile do not allow it",
	}
	first, _, _ := strings.Cut(d.Blockers[0], ".")
	switch first {
	case "net":
		e.Kind, e.Proto, e.DstAddr = event.KindKernelDenial, "tcp", d.Addr
		e.DstPort = d.Port
		e.Reason = "the network rules of the profile do not allow it"
	case "scope", "ptrace":
		e.Kind, e.Object, e.Detail = event.KindSyscall, d.Blockers[0], d.TargetComm
		e.Reason = "it would reach a process or socket outside the sandbox"
	}
	e.Normalise()
	return e
}
