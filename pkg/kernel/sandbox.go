// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/ringfence/ringfence/bpf"
)

// Flags open classes of destinations for a cgroup. None is the strictest.
type Flags uint32

const (
	FlagUnix     = Flags(bpf.FenceRfFlagRF_FLAG_UNIX)     // unix sockets, all of them
	FlagLoopback = Flags(bpf.FenceRfFlagRF_FLAG_LOOPBACK) // 127/8, ::1, 198.18.0.1
	FlagDNS      = Flags(bpf.FenceRfFlagRF_FLAG_DNS)      // port 53 at any address
	FlagGateway  = Flags(bpf.FenceRfFlagRF_FLAG_GATEWAY)  // the node's gateway: no virtual addresses, accepts connections
	FlagInbound  = Flags(bpf.FenceRfFlagRF_FLAG_INBOUND)  // adopted: TCP connections that others begin are answered
	FlagDirect   = Flags(bpf.FenceRfFlagRF_FLAG_DIRECT)   // adopted: what an address rule allows does not go through the gateway
)

// State is who a cgroup is and what it may do. The zero value denies all.
type State struct {
	Sandbox    uint32 // node-wide id, never 0
	Policy     uint32 // which table entries count, never 0
	Generation uint32 // stamped into records
	Flags      Flags
}

// Sandbox is one attached cgroup. It is safe for concurrent use.
type Sandbox struct {
	// Immutable once attached or taken over.
	fence *Fence
	id    uint32
	place uint64 // on the shelf
	dir   string
	cg    *cgroupDir
	set   []hookInfo // what it is attached to, as far as the kernel has it
	progs programs
	judge func(State, dest) (allow bool, err error)
	// running says that the processes are not the keeper's: they were there
	// before the fence and may have cgroups below theirs.
	running bool

	held atomic.Bool // ending a flow has not come back from the kernel

	mu    sync.Mutex // guards what follows
	state State
	steer *steering // nil until Steer
	owned []bpf.FenceRfWatchKey

	guarded bool                  // by the third lock
	rows    []bpf.FenceRfEntryKey // nil if an earlier keeper wrote them
	device  uint32                // in which it judges new entries, as the kernel writes it
}

// ErrExists says that a sandbox of this id is already pinned.
var ErrExists = errors.New("sandbox is already attached")

// AttachSandbox fences an empty cgroup: every hook is linked and pinned, then
// the state is written; until then the programs deny everything. A cgroup that
// holds a process is refused, because sockets made before the attachment would
// stay outside. On error nothing is left behind. The caller owns the Sandbox
// and ends it with Detach, or with Close to leave the fence in place.
func (f *Fence) AttachSandbox(cgroupPath string, st State) (*Sandbox, error) {
	s, err := f.newSandbox(cgroupPath, st.Sandbox)
	if err != nil {
		return nil, err
	}
	if err := s.make(func() error { return s.attachWith(st) }); err != nil {
		return nil, err
	}
	return s, nil
}

// AttachEmpty is AttachSandbox without a state: the programs deny everything
// until [Sandbox.Begin].
func (f *Fence) AttachEmpty(cgroupPath string, id uint32) (*Sandbox, error) {
	s, err := f.newSandbox(cgroupPath, id)
	if err != nil {
		return nil, err
	}
	if err := s.make(s.attach); err != nil {
		return nil, err
	}
	return s, nil
}

func (f *Fence) newSandbox(cgroupPath string, id uint32) (*Sandbox, error) {
	if id == 0 {
		return nil, errors.New("sandbox id 0 is no sandbox")
	}
	cg, err := openCgroup(cgroupPath)
	if err != nil {
		return nil, err
	}
	return &Sandbox{
		fence: f,
		id:    id,
		place: f.shelf.places.Add(1),
		dir:   filepath.Join(f.dir, "sandbox", strconv.FormatUint(uint64(id), 10)),
		cg:    cg,
		set:   hooks[:],
		progs: programs{f.progs, f.ids, f.tags},
		judge: f.judge,
	}, nil
}

// make makes the directory of the pins and attaches; on error nothing is left.
func (s *Sandbox) make(attach func() error) error {
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		s.cg.close()
		if errors.Is(err, os.ErrExist) {
			err = ErrExists
		}
		return fmt.Errorf("attach sandbox %d: %w", s.id, err)
	}
	if err := attach(); err != nil {
		return errors.Join(fmt.Errorf("attach sandbox %d: %w", s.id, err), s.release())
	}
	return nil
}

func (s *Sandbox) attachWith(st State) error {
	if err := s.attach(); err != nil {
		return err
	}
	return s.Begin(st)
}

func (s *Sandbox) attach() error {
	if busy, err := s.cg.populated(); err != nil {
		return err
	} else if busy {
		return ErrPopulated
	}
	return s.linkTo(s.set)
}

// Begin makes the sandbox's processes and records known and writes its first
// state, after [Fence.AttachEmpty].
func (s *Sandbox) Begin(st State) error {
	if err := s.register(st); err != nil {
		return err
	}
	return s.SetState(st)
}

// linkTo links and pins the programs of the given hooks that this kernel has.
func (s *Sandbox) linkTo(set []hookInfo) error {
	for _, h := range set {
		p := s.progs.by[h.hook]
		if p == nil {
			continue
		}
		if err := s.linkOne(h, p); err != nil {
			return fmt.Errorf("%s: %w", h.name, err)
		}
	}
	return nil
}

func (s *Sandbox) linkOne(h hookInfo, p *ebpf.Program) error {
	l, err := link.AttachCgroup(link.CgroupOptions{Path: s.cg.path(), Attach: h.attach, Program: p})
	if err != nil {
		return err
	}
	defer l.Close() // the pins hold it
	if err := l.Pin(filepath.Join(s.dir, h.name)); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	return s.fence.shelf.put(s.kept(h.name), l)
}

// kept is the name under which this Sandbox's link or map of that name is on
// the shelf: another one of the same id has its own.
func (s *Sandbox) kept(name string) string { return fmt.Sprintf("%d-%d-%s", s.id, s.place, name) }

// register makes the sandbox's records and processes known.
func (s *Sandbox) register(st State) error {
	if err := s.fence.ensureRate(s.id); err != nil {
		return err
	}
	if err := s.fence.maps.Members.Put(s.cg.id, s.id); err != nil {
		return fmt.Errorf("register cgroup: %w", err)
	}
	if st.Flags&FlagGateway != 0 || s.running { // no system call is refused to it by us
		return s.fence.watch.leave(s.id) // counted in by Open, which did not know what it is
	}
	return s.fence.watch.join(s.id)
}

// ensureRate makes a sandbox's shares of the rings; those it has stay.
func (f *Fence) ensureRate(id uint32) error {
	errs := []error{f.maps.Rates.Update(id, bpf.FenceRfRate{}, ebpf.UpdateNoExist)}
	for _, r := range Rings {
		errs = append(errs, f.maps.Reads.Update(bpf.FenceRfReadKey{Sandbox: id, Ring: uint32(r)}, uint64(0), ebpf.UpdateNoExist))
	}
	for _, err := range errs {
		if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("make record budget: %w", err)
		}
	}
	return nil
}

func (f *Fence) dropRate(id uint32) error {
	errs := []error{ignoreMissing(f.maps.Rates.Delete(id))}
	for _, r := range Rings {
		errs = append(errs, ignoreMissing(f.maps.Reads.Delete(bpf.FenceRfReadKey{Sandbox: id, Ring: uint32(r)})))
	}
	return errors.Join(errs...)
}

// TakeOverSandbox takes over a sandbox that an earlier keeper attached. The links
// must belong to the very cgroup at cgroupPath: one recreated at the same path
// is not fenced and is refused. Links that run an older object are switched to
// this keeper's programs, atomically and without a gap; a sandbox behind the
// layout before this one gets links of its own before it loses the former ones.
func (f *Fence) TakeOverSandbox(cgroupPath string, id uint32) (*Sandbox, error) {
	s, err := f.newSandbox(cgroupPath, id)
	if err != nil {
		return nil, err
	}
	how := s.takeOverPins
	if f.former.has(id) {
		how = s.takeOver
	}
	return s.takenOver(how)
}

// takenOver takes over, or gives up what it opened.
func (s *Sandbox) takenOver(how func() error) (*Sandbox, error) {
	if err := how(); err != nil {
		s.Close()
		return nil, fmt.Errorf("take over sandbox %d: %w", s.id, err)
	}
	return s, nil
}

func (s *Sandbox) takeOverPins() error {
	for _, h := range s.set {
		p := s.progs.by[h.hook]
		if p == nil {
			continue
		}
		if err := s.adoptLink(h, p); err != nil {
			return fmt.Errorf("%s: %w", h.name, err)
		}
	}
	st, err := s.Enforced()
	if err != nil {
		return err
	}
	if st.Sandbox != s.id {
		return fmt.Errorf("cgroup belongs to sandbox %d", st.Sandbox)
	}
	s.state = st
	s.fence.written.inherited(st.Policy)
	if err := s.register(s.state); err != nil {
		return err
	}
	if err := s.takeOverGuard(); err != nil {
		return err
	}
	return s.takeOverSteering()
}

// adoptLink takes over one pinned link, and switches it to p if it runs
// another program.
func (s *Sandbox) adoptLink(h hookInfo, p *ebpf.Program) error {
	l, err := link.LoadPinnedLink(filepath.Join(s.dir, h.name), nil)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := s.fence.shelf.put(s.kept(h.name), l); err != nil {
		return err
	}
	if st := s.checkLink(h); !st.OK && !st.stale {
		return errors.New(st.Detail)
	} else if st.stale {
		if err := l.Update(p); err != nil {
			return fmt.Errorf("update: %w", err)
		}
	}
	return nil
}

// ID returns the sandbox's id.
func (s *Sandbox) ID() uint32 { return s.id }

// CgroupID returns the kernel's id of the cgroup.
func (s *Sandbox) CgroupID() uint64 { return s.cg.id }

// State returns what was last written.
func (s *Sandbox) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Enforced reads what the programs judge on at this moment.
func (s *Sandbox) Enforced() (State, error) {
	var st bpf.FenceRfState
	if err := s.fence.maps.State.Lookup(s.cg.id, &st); err != nil {
		return State{}, fmt.Errorf("read state: %w", err)
	}
	return State{st.Sandbox, st.Policy, st.Generation, Flags(st.Flags)}, nil
}

// SetState replaces the state in one atomic step: no call is judged on a mix
// of old and new.
func (s *Sandbox) SetState(st State) error {
	if st.Sandbox != s.id {
		return fmt.Errorf("state is of sandbox %d, not %d", st.Sandbox, s.id)
	}
	if st.Policy == 0 {
		return errors.New("policy 0 is no policy")
	}
	v := bpf.FenceRfState{Sandbox: st.Sandbox, Policy: st.Policy, Generation: st.Generation, Flags: uint32(st.Flags)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fence.maps.State.Update(s.cg.id, v, ebpf.UpdateExist); err != nil {
		return fmt.Errorf("set state of sandbox %d: %w", s.id, err)
	}
	s.state = st
	if err := s.putGuardLocked(st); err != nil {
		return fmt.Errorf("set state of sandbox %d: guard: %w", s.id, err)
	}
	return nil
}

// Close gives up what this process holds; the fence stays in place.
func (s *Sandbox) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := s.letGoLocked()
	s.steer = nil
	return errors.Join(append(errs, s.cg.close())...)
}

// letGoLocked takes everything of the sandbox off the shelf.
func (s *Sandbox) letGoLocked() []error {
	errs := []error{s.fence.shelf.drop(s.kept(pinSteer)), s.fence.shelf.drop(s.kept(pinListeners))}
	for _, h := range s.set {
		errs = append(errs, s.fence.shelf.drop(s.kept(h.name)))
	}
	return errs
}

// Detach removes the fence and everything kept for the sandbox except its
// policy entries (see [Fence.DropPolicy]). While the cgroup holds a process it
// fails with [ErrPopulated] and changes nothing.
func (s *Sandbox) Detach() error {
	if busy, err := s.cg.populated(); err != nil {
		return err
	} else if busy {
		return fmt.Errorf("detach sandbox %d: %w", s.id, ErrPopulated)
	}
	if err := s.release(); err != nil {
		return fmt.Errorf("detach sandbox %d: %w", s.id, err)
	}
	return nil
}

func (s *Sandbox) release() error {
	errs := []error{
		ignoreMissing(s.fence.maps.Members.Delete(s.cg.id)),
		s.fence.dropRate(s.id),
		s.disown(),
		s.fence.unredirect(s.id),
		s.fence.watch.leave(s.id),
		s.unguard(),
		os.RemoveAll(s.dir), // unpins
		s.Close(),
	}
	return errors.Join(errs...)
}

// Abandon removes what is pinned for a sandbox, whether or not its cgroup is
// there: what runs in it is not fenced any more.
func (f *Fence) Abandon(id uint32) error {
	members, err := keysWhere(f.maps.Members, func(_ *uint64, v *uint32) bool { return *v == id })
	if err != nil {
		return fmt.Errorf("abandon sandbox %d: %w", id, err)
	}
	errs := []error{deleteAll(f.maps.Members, members), f.dropRate(id), f.forgetWatched(id), f.unredirect(id), f.watch.leave(id), f.unguard(id)}
	for _, dir := range f.sandboxDirs(id) {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// sandboxDirs are where pins of a sandbox may be, of this layout or of the one
// before.
func (f *Fence) sandboxDirs(id uint32) []string {
	dirs := []string{filepath.Join(f.dir, "sandbox", strconv.FormatUint(uint64(id), 10))}
	if f.former != nil {
		dirs = append(dirs, f.former.sandboxDir(id), f.former.leftDir(id))
	}
	return dirs
}

// Forget removes what is pinned for a sandbox whose cgroup is gone, so that it
// cannot be adopted. While the cgroup exists it fails with ErrPopulated.
func (f *Fence) Forget(id uint32) error {
	for _, dir := range f.sandboxDirs(id) {
		if err := gone(dir); err != nil {
			return fmt.Errorf("forget sandbox %d: %w", id, err)
		}
	}
	return f.Abandon(id)
}

// gone demands that no pinned link leads to a cgroup that exists.
func gone(dir string) error {
	for _, h := range hooks {
		l, err := link.LoadPinnedLink(filepath.Join(dir, h.name), nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		cg := linkCgroup(l)
		l.Close()
		if cg == 0 {
			continue
		}
		if there, err := cgroupExists(cg); err != nil {
			return err
		} else if there {
			return fmt.Errorf("cgroup %d still exists: %w", cg, ErrPopulated)
		}
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}
