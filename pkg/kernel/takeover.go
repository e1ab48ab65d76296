// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// takeOver moves a sandbox from behind the programs of a former layout to
// behind ours. Ours are attached beside them: the programs of a cgroup combine
// by AND, so at no moment is anything let through that the former ones deny,
// and there is no moment without programs. They judge on tables of the same
// content, so nothing is refused either that was allowed.
//
// The former links are not updated in place: BPF_LINK_UPDATE leaves a link with
// the cgroup storage of the program it began with (as of Linux 6.18; storage is
// made by attaching only), so our programs would read the former state as if
// it were ours, beyond its end if ours is longer.
func (s *Sandbox) takeOver() error {
	o := s.fence.former
	st, err := o.state(s.cg.id)
	if err != nil {
		return err
	}
	if st.Sandbox != s.id {
		return fmt.Errorf("cgroup belongs to sandbox %d", st.Sandbox)
	}
	if err := s.formerLinks(o.sandboxDir(s.id)); err != nil {
		return err
	}
	// What an attempt left that was interrupted denies what the former one does.
	if err := errors.Join(os.RemoveAll(s.dir), os.Mkdir(s.dir, 0o700)); err != nil {
		return err
	}
	if err := s.join(st); err != nil {
		return errors.Join(err, s.undoTakeOver())
	}
	if err := s.takeOverGuard(); err != nil { // the former one still stands
		return errors.Join(err, s.undoTakeOver())
	}
	if err := o.leave(s.id); err != nil {
		return err
	}
	return s.takeOverSteering()
}

// join puts the sandbox behind our programs, beside the former ones.
func (s *Sandbox) join(st State) error {
	first, err := s.prime()
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	defer first.Close()
	if err := s.SetState(st); err != nil {
		return err
	}
	if err := s.linkTo(s.set); err != nil {
		return err
	}
	if err := s.register(st); err != nil {
		return err
	}
	for _, pin := range []string{pinListeners, pinSteer} { // the sandbox keeps the steering it began with
		err := os.Link(filepath.Join(s.fence.former.sandboxDir(s.id), pin), filepath.Join(s.dir, pin))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("steering: %w", err)
		}
	}
	return nil
}

// prime makes the cgroup's storage of our map, so that the state is written
// before the first program judges on it: storage comes with the first program
// that is attached and uses it, is shared by all of them (since 5.9) and stays
// until the cgroup goes. This one lets everything pass, to the former programs.
func (s *Sandbox) prime() (link.Link, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "rf_prime", Type: ebpf.CGroupSock, AttachType: ebpf.AttachCGroupInetSockCreate, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMapPtr(asm.R1, s.fence.maps.State.FD()),
			asm.Mov.Imm(asm.R2, 0),
			asm.FnGetLocalStorage.Call(),
			asm.Mov.Imm(asm.R0, 1), // ALLOW: the former program beside it judges
			asm.Return(),
		},
	})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return link.AttachCgroup(link.CgroupOptions{Path: s.cg.path(), Attach: ebpf.AttachCGroupInetSockCreate, Program: p})
}

// formerLinks demands that the sandbox really is behind the former programs:
// each hook that this kernel has, on this very cgroup.
func (s *Sandbox) formerLinks(dir string) error {
	for _, h := range hooks {
		if s.fence.progs[h.hook] == nil {
			continue
		}
		l, err := link.LoadPinnedLink(filepath.Join(dir, h.name), nil)
		if err != nil {
			return fmt.Errorf("%s: %w", h.name, err)
		}
		cg := linkCgroup(l)
		l.Close()
		if cg != s.cg.id {
			return fmt.Errorf("%s: attached to cgroup %d instead of %d", h.name, cg, s.cg.id)
		}
	}
	return nil
}

// undoTakeOver leaves the sandbox to the former programs alone.
func (s *Sandbox) undoTakeOver() error {
	s.mu.Lock()
	errs := s.letGoLocked()
	s.mu.Unlock()
	return errors.Join(append(errs, os.RemoveAll(s.dir), ignoreMissing(s.fence.maps.Members.Delete(s.cg.id)))...)
}
