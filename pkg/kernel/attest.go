// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf/link"

	"github.com/ringfence/ringfence/bpf"
)

// LinkStatus is what the kernel says about one attachment.
type LinkStatus struct {
	Name   string // hook name, "state" or "steer"
	OK     bool
	Detail string // what is wrong, or what was found

	stale bool // only the program is another
}

// Check asks the kernel about every layer of the sandbox: each link must be
// attached to this cgroup and run this keeper's program, the state must be the
// one last written, and, once Steer was called, steering must be attached.
func (s *Sandbox) Check() []LinkStatus {
	var out []LinkStatus
	for _, h := range s.set {
		if s.progs.by[h.hook] != nil {
			out = append(out, s.checkLink(h))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out = append(out, s.checkStateLocked())
	if s.steer != nil {
		out = append(out, s.steer.check())
	}
	return out
}

// Attested returns nil if every layer that Check lists is in place.
func (s *Sandbox) Attested() error {
	var errs []error
	for _, st := range s.Check() {
		if !st.OK {
			errs = append(errs, fmt.Errorf("sandbox %d: %s: %s", s.id, st.Name, st.Detail))
		}
	}
	return errors.Join(errs...)
}

func (s *Sandbox) checkLink(h hookInfo) LinkStatus {
	st := LinkStatus{Name: h.name}
	l := s.links[h.hook]
	if l == nil {
		st.Detail = "not attached"
		return st
	}
	info, err := l.Info()
	if err != nil {
		st.Detail = err.Error()
		return st
	}
	want := s.progs.ids[h.hook]
	switch id := cgroupOf(info); {
	case id == 0, !s.cg.alive():
		st.Detail = "the cgroup was removed"
	case id != s.cg.id:
		st.Detail = fmt.Sprintf("attached to cgroup %d instead of %d", id, s.cg.id)
	case info.Program != want:
		st.Detail = fmt.Sprintf("runs program %d instead of %d", info.Program, want)
		st.stale = true
	default:
		st.OK = true
		st.Detail = fmt.Sprintf("program %d on cgroup %d", info.Program, id)
	}
	return st
}

// linkCgroup returns the cgroup a link is attached to: 0 if it was removed.
func linkCgroup(l link.Link) uint64 {
	info, err := l.Info()
	if err != nil {
		return 0
	}
	return cgroupOf(info)
}

func cgroupOf(info *link.Info) uint64 {
	cg := info.Cgroup()
	if cg == nil {
		return 0
	}
	return cg.CgroupId
}

func (s *Sandbox) checkStateLocked() LinkStatus {
	st := LinkStatus{Name: "state"}
	var v bpf.FenceRfState
	if err := s.fence.maps.State.Lookup(s.cg.id, &v); err != nil {
		st.Detail = err.Error()
		return st
	}
	got := State{v.Sandbox, v.Policy, v.Generation, Flags(v.Flags)}
	st.OK = got == s.state
	st.Detail = fmt.Sprintf("policy %d generation %d flags %#x", got.Policy, got.Generation, got.Flags)
	return st
}
