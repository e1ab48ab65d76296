// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

// Attestation says how often kernel truth is compared with intent, and what a
// difference does.
type Attestation struct {
	Every time.Duration // 0: DefaultAttestation
	// ReportOnly leaves a sandbox running whose walls no longer stand. Without
	// it the sandbox is stopped.
	ReportOnly bool
}

// DefaultAttestation is how often sandboxes are attested if nobody says.
const DefaultAttestation = time.Minute

// LayerState is how much of a layer is there.
type LayerState string

// The states of a layer, best first.
const (
	LayerEnforced LayerState = "enforced"
	LayerDegraded LayerState = "degraded" // it stands; what may weaken it is named
	LayerBroken   LayerState = "broken"
)

// Layer is one wall of a sandbox as the last attestation found it.
type Layer struct {
	Name   string
	State  LayerState
	Detail string
}

// Layers returns every wall, and when the kernel was last asked about them.
func (s *Sandbox) Layers() ([]Layer, time.Time) {
	s.mu.Lock()
	found, at := s.found, s.attested
	s.mu.Unlock()
	out := make([]Layer, 0, len(layers))
	for _, l := range layers {
		one := Layer{Name: l.name, State: LayerEnforced, Detail: l.stands}
		var texts []string
		for _, d := range found {
			if d.Layer != l.name {
				continue
			}
			texts = append(texts, d.Text)
			switch {
			case !d.Tolerated:
				one.State = LayerBroken
			case one.State == LayerEnforced:
				one.State = LayerDegraded
			}
		}
		if len(texts) > 0 {
			one.Detail = strings.Join(texts[:min(len(texts), maxTold)], "; ")
		}
		out = append(out, one)
	}
	return out, at
}

// Attested says when the kernel was last asked about the walls.
func (s *Sandbox) Attested() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attested
}

// rounds is into how many parts the interval is divided, so that the work is
// spread over it.
const rounds = 60

// Attest compares kernel truth with intent for every sandbox, each once in an
// interval, until ctx ends.
func (m *Manager) Attest(ctx context.Context) {
	every := cmp.Or(m.o.Attestation.Every, DefaultAttestation)
	t := time.NewTicker(every / rounds)
	defer t.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		list := m.List()
		if n%rounds == 0 {
			m.attestMachine(list)
		}
		m.attestKernelTables()
		for _, s := range due(list, time.Now(), every) {
			m.attestOne(s, suspicions{})
		}
	}
}

// due are the sandboxes whose turn it is, those that waited longest first: at
// most twice the average of a part, so that many that are due at once (a keeper
// that has just taken them over) spread.
func due(list []*Sandbox, now time.Time, every time.Duration) []*Sandbox {
	type waiting struct {
		s     *Sandbox
		since time.Time
	}
	var all []waiting
	for _, s := range list {
		s.mu.Lock()
		at := s.attested
		s.mu.Unlock()
		if now.Sub(at) >= every-every/(2*rounds) {
			all = append(all, waiting{s, at})
		}
	}
	slices.SortFunc(all, func(a, b waiting) int { return a.since.Compare(b.since) })
	out := make([]*Sandbox, 0, len(all))
	for _, w := range all[:min(len(all), 2*len(list)/rounds+1)] {
		out = append(out, w.s)
	}
	return out
}

// attestMachine looks for processes that are in a sandbox and not behind its
// fence. A look that fails is told: nothing else would find them.
func (m *Manager) attestMachine(list []*Sandbox) {
	if len(list) == 0 {
		return
	}
	found, err := m.strays(list)
	if err != nil {
		m.o.Logger.Error("the processes of the machine cannot be looked through; what is in a sandbox's namespaces and not in its cgroup is not found", "error", err)
		return
	}
	for s, pids := range found {
		m.attestOne(s, suspicions{strays: pids})
	}
}

// entriesPerPart bounds how many entries of the kernel's tables are read in one
// part of the interval: with an interval of a minute 262,144 of the node's in
// each.
const entriesPerPart = 1<<18/rounds + 1

// attestKernelTables looks for entries that nobody wrote.
func (m *Manager) attestKernelTables() {
	found, err := m.attestEntries(entriesPerPart)
	if err != nil {
		m.o.Logger.Error("the kernel's tables cannot be looked through; what somebody else wrote there is not found", "error", err)
	}
	for s, entries := range found {
		m.attestOne(s, suspicions{unwritten: entries})
	}
}

// attestOne looks at one sandbox and acts on what it finds.
func (m *Manager) attestOne(s *Sandbox, sus suspicions) {
	s.mu.Lock()
	running, sus := s.state == Running, s.sus.and(sus)
	s.mu.Unlock()
	if !running {
		return
	}
	if s.Record.Foreign != nil {
		s.attestForeignOnce(sus)
		return
	}
	found := s.look(sus)
	if len(found) > 0 && (s.State() != Running || !s.Record.Init.Alive()) {
		return // it is ending, and its walls with it
	}
	if !s.note(found, sus) || !s.tell(found) {
		return
	}
	s.mu.Lock()
	if s.state == Running {
		s.state = Stopping // not to be looked at again
	}
	s.mu.Unlock()
	go s.Stop(0)
	if err := s.Record.Init.kill(); err != nil { // it may have been moved out of the cgroup
		m.o.Logger.Error("kill the first process of a sandbox", "sandbox", s.Record.ID, "error", err)
	}
}

// note keeps what was found, and what was suspected as long as something is. It
// says whether that is something else than before.
func (s *Sandbox) note(found differences, sus suspicions) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed = !slices.Equal(s.found, found)
	s.found, s.attested, s.sus = found, time.Now(), suspicions{}
	if len(found) > 0 {
		s.sus = sus
	}
	return changed
}

// tell records what was found, or that nothing is any more. It says whether
// the sandbox is to be stopped for it.
func (s *Sandbox) tell(found differences) (stop bool) {
	log := s.m.o.Logger.With("sandbox", s.Record.ID, "found", found.String())
	e := s.event(event.KindTamper)
	e.Verdict, e.Activity, e.Layer = event.Observed, "attest", "keeper"
	broken := found.broken()
	switch {
	case len(found) == 0:
		e.Severity, e.ReasonCode, e.Reason = event.SeverityMedium, "attestation-restored", "the walls of the sandbox stand again"
		log.Warn(e.Reason)
	case len(broken) == 0:
		e.Severity, e.ReasonCode, e.Reason = event.SeverityHigh, "attestation-degraded", "something beside the walls of the sandbox may weaken them"
		log.Warn(e.Reason)
	case s.m.o.Attestation.ReportOnly:
		e.Severity, e.ReasonCode, e.Reason = event.SeverityCritical, "attestation", "the walls of the sandbox no longer stand; it goes on, as configured"
		log.Error(e.Reason)
	default:
		stop = true
		e.Verdict = event.Denied
		e.Severity, e.ReasonCode, e.Reason = event.SeverityCritical, "attestation", "the walls of the sandbox no longer stand; it is stopped"
		log.Error(e.Reason)
		s.mu.Lock()
		s.why = "its walls no longer stood"
		s.mu.Unlock()
	}
	if len(found) > 0 {
		e.Layer, e.Detail = found[0].Layer, found.String()
		e.Remedy = "nothing inside a sandbox can do this: find out who changed it as root on this machine"
	}
	s.append(e)
	return stop
}

// tellUnfenced records a sandbox whose programs were not found as a former
// keeper left them. It cannot go on, whatever is configured.
func (s *Sandbox) tellUnfenced(why error) {
	e := s.event(event.KindTamper)
	e.Verdict, e.Severity, e.Activity, e.Layer = event.Denied, event.SeverityCritical, "attest", LayerNetwork // it is stopped
	e.Reason, e.ReasonCode = "the network programs of the sandbox were not there when the daemon came back; it is stopped", "attestation"
	e.Detail = why.Error()
	s.append(e)
}
