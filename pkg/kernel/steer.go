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
	"golang.org/x/sys/unix"
)

// SteerListeners are descriptors of listening TCP sockets and of bound UDP
// sockets in the sandbox's namespace, one per IP version; 0 or below means
// none, and what would go there is refused. They must not be MPTCP sockets,
// which Go makes unless net.ListenConfig.SetMultipathTCP(false). Take them by
// SyscallConn: File().Fd() would make the listener blocking. The caller keeps
// its descriptors.
type SteerListeners struct{ TCP4, TCP6, UDP4, UDP6 int }

// steering is the sk_lookup instance of one sandbox. Its SOCKMAP and its link
// are on the shelf.
type steering struct {
	slots uint32         // of the SOCKMAP
	prog  ebpf.ProgramID // what the link ran when it was attached or adopted
}

const (
	pinListeners = "listeners"
	pinSteer     = "steer"
)

// Steer hands the sandbox's TCP flows and datagrams to the listeners: those to
// any address except loopback and 198.18.0.1, and to any port except 53. The
// first call attaches to the namespace; later ones replace the listeners
// (netnsFD is then not used). A listener leaves by itself when its last
// descriptor closes; flows are then refused with a reset, datagrams as by a
// closed port, until Steer is called again.
func (s *Sandbox) Steer(netnsFD int, l SteerListeners) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	how := s.listenLocked
	switch {
	case s.steer == nil:
		how = func(l SteerListeners) error { return s.newSteeringLocked(netnsFD, l) }
	case s.steer.slots != s.fence.steer.Maps["listeners"].MaxEntries:
		how = s.renewSteeringLocked
	}
	if err := how(l); err != nil {
		return fmt.Errorf("steer sandbox %d: %w", s.id, err)
	}
	return nil
}

// listenLocked replaces the listeners.
func (s *Sandbox) listenLocked(l SteerListeners) error {
	m, err := s.fence.shelf.sockets(s.kept(pinListeners))
	if err != nil {
		return err
	}
	defer m.Close()
	return setListeners(m, l)
}

func (s *Sandbox) newSteeringLocked(netnsFD int, l SteerListeners) (err error) {
	listeners, prog, err := loadSteer(s.fence.steer)
	if err != nil {
		return err
	}
	defer prog.Close() // the link holds it
	defer listeners.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, s.dropSteering())
		}
	}()
	if err := setListeners(listeners, l); err != nil {
		return err
	}
	if err := s.pinAndKeep(pinListeners, listeners); err != nil {
		return err
	}
	lnk, err := link.AttachNetNs(netnsFD, prog)
	if err != nil {
		return fmt.Errorf("attach to namespace: %w", err)
	}
	defer lnk.Close()
	id, err := programID(prog)
	if err != nil {
		return err
	}
	if err := s.pinAndKeep(pinSteer, lnk); err != nil {
		return err
	}
	s.steer = &steering{slots: listeners.MaxEntries(), prog: id}
	return nil
}

// pinAndKeep pins what steering consists of for the next keeper and for this.
func (s *Sandbox) pinAndKeep(name string, o interface{ Pin(string) error }) error {
	if err := o.Pin(filepath.Join(s.dir, name)); err != nil {
		return err
	}
	return s.fence.shelf.put(s.kept(name), o)
}

// dropSteering undoes an attempt at steering.
func (s *Sandbox) dropSteering() error {
	var errs []error
	for _, name := range []string{pinSteer, pinListeners} {
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		errs = append(errs, s.fence.shelf.drop(s.kept(name)))
	}
	return errors.Join(errs...)
}

// renewSteeringLocked puts this keeper's program and SOCKMAP in place of those
// of a keeper whose SOCKMAP had other slots. The link changes over in one step.
func (s *Sandbox) renewSteeringLocked(l SteerListeners) error {
	lnk, err := s.fence.shelf.link(s.kept(pinSteer))
	if err != nil {
		return err
	}
	defer lnk.Close()
	listeners, prog, err := loadSteer(s.fence.steer)
	if err != nil {
		return err
	}
	defer prog.Close() // the link holds it
	defer listeners.Close()
	st := &steering{slots: listeners.MaxEntries()}
	if st.prog, err = programID(prog); err == nil {
		err = setListeners(listeners, l)
	}
	pin := filepath.Join(s.dir, pinListeners)
	if err == nil {
		err = listeners.Pin(pin + "-new")
	}
	if err == nil {
		err = lnk.Update(prog)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("anew: %w", err), os.RemoveAll(pin+"-new"))
	}
	s.steer = st
	return errors.Join(os.Rename(pin+"-new", pin), s.fence.shelf.drop(s.kept(pinListeners)), s.fence.shelf.put(s.kept(pinListeners), listeners))
}

// loadSteer makes one instance: its SOCKMAP and the program over it. It loads
// the bare instructions without their type information, which the program does
// not need and which costs 20 ms per load.
func loadSteer(spec *ebpf.CollectionSpec) (*ebpf.Map, *ebpf.Program, error) {
	const mapName, progName = "listeners", "rf_steer"
	ms, ps := spec.Maps[mapName].Copy(), spec.Programs[progName].Copy()
	ms.Key, ms.Value = nil, nil
	m, err := ebpf.NewMap(ms)
	if err != nil {
		return nil, nil, fmt.Errorf("listeners: %w", err)
	}
	for i := range ps.Instructions {
		ins := &ps.Instructions[i]
		ref := ins.Reference()
		ins.Metadata = asm.Metadata{}
		if ref != mapName {
			continue
		}
		if err := ins.AssociateMap(m); err != nil {
			m.Close()
			return nil, nil, fmt.Errorf("listeners: %w", err)
		}
	}
	prog, err := ebpf.NewProgram(ps)
	if err != nil {
		m.Close()
		return nil, nil, err
	}
	return m, prog, nil
}

// setListeners stores the listeners by their slots in steer.bpf.c.
func setListeners(m *ebpf.Map, l SteerListeners) error {
	for slot, fd := range []int{l.TCP4, l.TCP6, l.UDP4, l.UDP6} {
		var err error
		if fd > 0 {
			err = m.Put(uint32(slot), uint64(fd))
		} else if err = m.Delete(uint32(slot)); errors.Is(err, unix.EINVAL) {
			err = nil // sockmap: the slot was empty
		} else {
			err = ignoreMissing(err)
		}
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("listener is not a plain TCP or UDP socket (MPTCP?): %w", err)
		}
		if err != nil {
			return fmt.Errorf("listener %d: %w", slot, err)
		}
	}
	return nil
}

func (s *Sandbox) checkSteeringLocked() LinkStatus {
	out := LinkStatus{Name: pinSteer}
	a, err := s.fence.shelf.attachment(s.kept(pinSteer))
	switch {
	case err != nil:
		out.Detail = err.Error()
	case a.netns == 0:
		out.Detail = "the network namespace is gone"
	case a.program != s.steer.prog:
		out.Detail = fmt.Sprintf("runs %s instead of program %d", describeProgram(a.program), s.steer.prog)
	default:
		out.OK, out.NetNS = true, a.netns
		out.Detail = fmt.Sprintf("program %d on namespace %d", a.program, a.netns)
	}
	return out
}

// takeOverSteering takes over pinned steering; a sandbox that was never steered
// has none.
func (s *Sandbox) takeOverSteering() error {
	m, err := ebpf.LoadPinnedMap(filepath.Join(s.dir, pinListeners), nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("take over listeners: %w", err)
	}
	defer m.Close()
	l, err := link.LoadPinnedLink(filepath.Join(s.dir, pinSteer), nil)
	if errors.Is(err, os.ErrNotExist) {
		// The keeper died between two pins: begin anew.
		return os.Remove(filepath.Join(s.dir, pinListeners))
	}
	if err != nil {
		return fmt.Errorf("take over steering: %w", err)
	}
	defer l.Close()
	info, err := l.Info()
	if err == nil {
		err = errors.Join(s.fence.shelf.put(s.kept(pinListeners), m), s.fence.shelf.put(s.kept(pinSteer), l))
	}
	if err != nil {
		return fmt.Errorf("take over steering: %w", err)
	}
	s.steer = &steering{slots: m.MaxEntries(), prog: info.Program}
	return nil
}
