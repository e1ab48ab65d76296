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

// steering is the sk_lookup instance of one sandbox.
type steering struct {
	listeners *ebpf.Map
	link      link.Link
	prog      ebpf.ProgramID // what the link ran when it was attached or adopted
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
	if s.steer != nil && s.steer.listeners.MaxEntries() == s.fence.steer.Maps["listeners"].MaxEntries {
		return s.steer.set(l)
	}
	if s.steer != nil {
		if err := s.renewSteeringLocked(l); err != nil {
			return fmt.Errorf("steer sandbox %d anew: %w", s.id, err)
		}
		return nil
	}
	st, err := s.newSteeringLocked(netnsFD, l)
	if err != nil {
		return fmt.Errorf("steer sandbox %d: %w", s.id, err)
	}
	s.steer = st
	return nil
}

func (s *Sandbox) newSteeringLocked(netnsFD int, l SteerListeners) (_ *steering, err error) {
	listeners, prog, err := loadSteer(s.fence.steer)
	if err != nil {
		return nil, err
	}
	defer prog.Close() // the link holds it
	st := &steering{listeners: listeners}
	defer func() {
		if err != nil {
			os.Remove(filepath.Join(s.dir, pinListeners))
			st.close()
		}
	}()
	if err := st.set(l); err != nil {
		return nil, err
	}
	if err := st.listeners.Pin(filepath.Join(s.dir, pinListeners)); err != nil {
		return nil, err
	}
	lnk, err := link.AttachNetNs(netnsFD, prog)
	if err != nil {
		return nil, fmt.Errorf("attach to namespace: %w", err)
	}
	st.link = lnk
	if st.prog, err = programID(prog); err != nil {
		return nil, err
	}
	if err := lnk.Pin(filepath.Join(s.dir, pinSteer)); err != nil {
		return nil, err
	}
	return st, nil
}

// renewSteeringLocked puts this keeper's program and SOCKMAP in place of those
// of a keeper whose SOCKMAP had other slots. The link changes over in one step.
func (s *Sandbox) renewSteeringLocked(l SteerListeners) error {
	listeners, prog, err := loadSteer(s.fence.steer)
	if err != nil {
		return err
	}
	defer prog.Close() // the link holds it
	st := &steering{listeners: listeners, link: s.steer.link}
	if st.prog, err = programID(prog); err == nil {
		err = st.set(l)
	}
	pin := filepath.Join(s.dir, pinListeners)
	if err == nil {
		err = listeners.Pin(pin + "-new")
	}
	if err == nil {
		err = st.link.Update(prog)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(pin+"-new"), listeners.Close())
	}
	old := s.steer.listeners
	s.steer = st
	return errors.Join(os.Rename(pin+"-new", pin), old.Close())
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

// set stores the listeners by their slots in steer.bpf.c.
func (st *steering) set(l SteerListeners) error {
	for slot, fd := range []int{l.TCP4, l.TCP6, l.UDP4, l.UDP6} {
		var err error
		if fd > 0 {
			err = st.listeners.Put(uint32(slot), uint64(fd))
		} else if err = st.listeners.Delete(uint32(slot)); errors.Is(err, unix.EINVAL) {
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

func (st *steering) check() LinkStatus {
	out := LinkStatus{Name: pinSteer}
	info, err := st.link.Info()
	if err != nil {
		out.Detail = err.Error()
		return out
	}
	ns := info.NetNs()
	if ns == nil || ns.NetnsInode == 0 {
		out.Detail = "the network namespace is gone"
		return out
	}
	if info.Program != st.prog {
		out.Detail = fmt.Sprintf("runs %s instead of program %d", describeProgram(info.Program), st.prog)
		return out
	}
	out.OK, out.NetNS = true, ns.NetnsInode
	out.Detail = fmt.Sprintf("program %d on namespace %d", info.Program, ns.NetnsInode)
	return out
}

func (st *steering) close() error {
	err := st.listeners.Close()
	if st.link != nil {
		err = errors.Join(err, st.link.Close())
	}
	return err
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
	l, err := link.LoadPinnedLink(filepath.Join(s.dir, pinSteer), nil)
	if errors.Is(err, os.ErrNotExist) {
		// The keeper died between two pins: begin anew.
		m.Close()
		return os.Remove(filepath.Join(s.dir, pinListeners))
	}
	if err != nil {
		m.Close()
		return fmt.Errorf("take over steering: %w", err)
	}
	info, err := l.Info()
	if err != nil {
		return errors.Join(fmt.Errorf("take over steering: %w", err), l.Close(), m.Close())
	}
	s.steer = &steering{listeners: m, link: l, prog: info.Program}
	return nil
}
