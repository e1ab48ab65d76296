// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// LinkStatus is what the kernel says about one part of a fence.
type LinkStatus struct {
	Name   string // hook name, "state", "records" or "steer"
	OK     bool
	Detail string // what is wrong, or what was found
	// Others are programs of somebody else on this very cgroup. Each verdict
	// must be "allow" for a call to go on, but one that runs after ours can
	// change the address that was judged, or the error (bpf_set_retval).
	Others []string
	// Above are programs on cgroups above, which run after ours.
	Above []string
	NetNS uint32 // steer: inode of the namespace

	stale bool // only the program is another
}

// Check asks the kernel about every layer of the sandbox: each link must be
// attached to this cgroup and run this keeper's program, the cgroup itself must
// list it, the state must be the one last written, its records must be admitted,
// and, once Steer was called, steering must be attached.
func (s *Sandbox) Check() []LinkStatus {
	var out []LinkStatus
	for _, h := range s.set {
		if s.progs.by[h.hook] != nil {
			out = append(out, s.checkHook(h))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out = append(out, s.checkStateLocked(), s.checkRecords())
	if s.steer != nil {
		out = append(out, s.checkSteeringLocked())
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

// checkHook compares a link with intent, and what the link says with what the
// cgroup says.
func (s *Sandbox) checkHook(h hookInfo) LinkStatus {
	st := s.checkLink(h)
	if !st.OK {
		return st
	}
	own, err := s.programs(h.attach, 0)
	if err != nil {
		return LinkStatus{Name: h.name, Detail: err.Error()}
	}
	want, there := s.progs.ids[h.hook], false
	for _, id := range own {
		if id == want {
			there = true
			continue
		}
		st.Others = append(st.Others, describeProgram(id))
	}
	if !there {
		return LinkStatus{Name: h.name, Detail: fmt.Sprintf("cgroup %d does not list program %d, though its link is attached", s.cg.id, want)}
	}
	all, err := s.programs(h.attach, unix.BPF_F_QUERY_EFFECTIVE)
	if err != nil {
		return LinkStatus{Name: h.name, Detail: err.Error()}
	}
	for _, id := range all {
		if !slices.Contains(own, id) {
			st.Above = append(st.Above, describeProgram(id))
		}
	}
	if n := len(st.Above); n > 0 {
		st.Detail += fmt.Sprintf("; %d of cgroups above run too", n)
	}
	if len(st.Others) > 0 {
		st.Detail += "; beside it " + strings.Join(st.Others, ", ")
	}
	return st
}

// programs lists what runs on the cgroup for a hook; with BPF_F_QUERY_EFFECTIVE
// also what cgroups above add.
func (s *Sandbox) programs(attach ebpf.AttachType, flags uint32) ([]ebpf.ProgramID, error) {
	r, err := link.QueryPrograms(link.QueryOptions{Target: int(s.cg.file.Fd()), Attach: attach, QueryFlags: flags})
	if err != nil {
		return nil, err
	}
	out := make([]ebpf.ProgramID, len(r.Programs))
	for i, p := range r.Programs {
		out[i] = p.ID
	}
	return out, nil
}

// describeProgram names a program of somebody else.
func describeProgram(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return fmt.Sprintf("program %d", id) // gone meanwhile
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return fmt.Sprintf("program %d", id)
	}
	return fmt.Sprintf("program %d (%q, tag %s)", id, info.Name, info.Tag)
}

func (s *Sandbox) checkLink(h hookInfo) LinkStatus {
	a, err := s.fence.shelf.attachment(s.kept(h.name))
	if errors.Is(err, os.ErrNotExist) {
		return LinkStatus{Name: h.name, Detail: "not attached"}
	}
	if err != nil {
		return LinkStatus{Name: h.name, Detail: err.Error()}
	}
	return s.judgeLink(h, a)
}

// judgeLink says whether a link is what is to be at the hook.
func (s *Sandbox) judgeLink(h hookInfo, a attachment) LinkStatus {
	st := LinkStatus{Name: h.name}
	want := s.progs.ids[h.hook]
	switch id := a.cgroup; {
	case id == 0 && s.cg.alive():
		st.Detail = "the link was detached from the cgroup"
	case id == 0, !s.cg.alive():
		st.Detail = "the cgroup was removed"
	case id != s.cg.id:
		st.Detail = fmt.Sprintf("attached to cgroup %d instead of %d", id, s.cg.id)
	case a.program != want:
		st.Detail = fmt.Sprintf("runs %s instead of program %d (tag %s)", describeProgram(a.program), want, s.progs.tags[h.hook])
		st.stale = true
	default:
		st.OK = true
		st.Detail = fmt.Sprintf("program %d (tag %s) on cgroup %d", a.program, s.progs.tags[h.hook], id)
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
	got, err := s.Enforced()
	if err != nil {
		st.Detail = err.Error()
		return st
	}
	st.OK = got == s.state
	st.Detail = fmt.Sprintf("table %d generation %d flags %#x", got.Policy, got.Generation, got.Flags)
	if !st.OK {
		st.Detail += fmt.Sprintf(" of sandbox %d, written was table %d generation %d flags %#x of sandbox %d", got.Sandbox, s.state.Policy, s.state.Generation, s.state.Flags, s.state.Sandbox)
	}
	return st
}

// checkRecords looks at what the programs need to record anything: denials
// stand without it, and nobody would see them.
func (s *Sandbox) checkRecords() LinkStatus {
	st := LinkStatus{Name: "records"}
	var member uint32
	if err := s.fence.maps.Members.Lookup(s.cg.id, &member); err != nil {
		st.Detail = fmt.Sprintf("the cgroup is not registered: %v", err)
		return st
	}
	if _, err := s.Noted(); err != nil {
		st.Detail = err.Error()
		return st
	}
	st.OK = member == s.id
	st.Detail = fmt.Sprintf("the cgroup is registered as sandbox %d", member)
	return st
}

// Noted is how many denials and refused system calls of one sandbox the kernel
// has counted since the sandbox was attached, recorded or not.
type Noted struct{ Denials, Refusals uint64 }

// Noted reads the kernel's own count. Only what the kernel attributes to this
// sandbox is in it.
func (s *Sandbox) Noted() (Noted, error) {
	c, err := s.fence.LossesOf(s.id)
	if err != nil {
		return Noted{}, err
	}
	return Noted{Denials: c[RingDenials].Produced(), Refusals: c[RingRefusals].Produced()}, nil
}
