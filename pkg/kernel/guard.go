// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/bpf"
)

// guardInfo is one hook of the security modules that the guard takes.
type guardInfo struct {
	hook   Hook
	lsm    string // the kernel's name of it, and that of the pin behind "lsm_"
	prog   string // in the object
	kernel string // first kernel with it; BPF LSM is of 5.7
	// optional: the others are there without it.
	optional bool
}

// guardHooks in the order of the kernel program. One that the kernel lacks is
// left out: nothing depends on the guard.
var guardHooks = [...]guardInfo{
	{HookLSMSocket, "socket_create", bpf.GuardProgRfLsmSocket, "5.7", false},
	{HookLSMConnect, "socket_connect", bpf.GuardProgRfLsmConnect, "5.7", false},
	{HookLSMSendmsg, "socket_sendmsg", bpf.GuardProgRfLsmSendmsg, "5.7", false},
	{HookLSMEntry, "inode_create", bpf.GuardProgRfLsmCreate, "5.7", false},
	{HookLSMEntry, "inode_mknod", bpf.GuardProgRfLsmMknod, "5.7", false},
	{HookLSMEntry, "inode_mkdir", bpf.GuardProgRfLsmMkdir, "5.7", false},
	{HookLSMEntry, "inode_symlink", bpf.GuardProgRfLsmSymlink, "5.7", false},
	{HookLSMEntry, "inode_link", bpf.GuardProgRfLsmLink, "5.7", false},
	{HookLSMEntry, "inode_rename", bpf.GuardProgRfLsmRename, "5.7", false},
	{HookLSMExec, "bprm_check_security", bpf.GuardProgRfLsmExec, "5.7", false},
	{HookLSMUserns, "userns_create", bpf.GuardProgRfLsmUserns, "6.1", true},
	{HookLSMURing, "uring_allowed", bpf.GuardProgRfLsmUring, "6.15", true},
}

// Way is how a directory entry comes to be.
type Way uint32

// The ways to make an entry.
const (
	WayCreate  = Way(bpf.FenceRfEntryWayRF_WAY_CREATE) // a file, device, FIFO or socket
	WayMkdir   = Way(bpf.FenceRfEntryWayRF_WAY_MKDIR)
	WaySymlink = Way(bpf.FenceRfEntryWayRF_WAY_SYMLINK)
	WayLink    = Way(bpf.FenceRfEntryWayRF_WAY_LINK)
	WayRename  = Way(bpf.FenceRfEntryWayRF_WAY_RENAME)
	WayAny     = WayCreate | WayMkdir | WaySymlink | WayLink | WayRename
)

// String names the first of the ways.
func (w Way) String() string {
	for _, n := range []struct {
		way  Way
		name string
	}{{WayCreate, "create"}, {WayMkdir, "mkdir"}, {WaySymlink, "symlink"}, {WayLink, "link"}, {WayRename, "rename"}} {
		if w&n.way != 0 {
			return n.name
		}
	}
	return fmt.Sprintf("way-%d", uint32(w))
}

// GuardEntry is a name that the guard refuses to new entries, at any depth.
type GuardEntry struct {
	Parent string // name of the directory; "" is any
	Name   string
	Ways   Way
}

// maxEntry is how long a name of a row may be: with its NUL.
const maxEntry = len(bpf.FenceRfEntryKey{}.Name) - 1

// GuardRules are what the guard holds a sandbox to besides its [State].
type GuardRules struct {
	// Device is the file system in which new entries are judged, as
	// unix.Mkdev makes it; 0 is none.
	Device  uint64
	Entries []GuardEntry
}

// Guarded is something that the guard refused, other than a socket call.
type Guarded struct {
	Head
	Origin
	Hook         Hook
	Reason       Reason
	Errno        unix.Errno
	Way          Way    // of an entry
	Parent, Name string // of an entry, or Name of the program's file
}

func (*Guarded) record() {}

// guard is the third lock: programs at the hooks of the security modules,
// attached while a sandbox lives that is guarded.
type guard struct {
	// Immutable after Open.
	dir    string // of the pins
	err    error  // why this kernel does without
	progs  []guardProgram
	absent []string // hooks that this kernel lacks

	mu    sync.Mutex      // guards what follows
	by    map[uint32]bool // those that an earlier keeper left included, see countPinned
	links []link.Link
}

type guardProgram struct {
	guardInfo
	prog *ebpf.Program
}

// Guard says what of the third lock is used: the hooks that it takes, or why it
// is not there at all. Hooks that are absent this kernel lacks.
func (f *Fence) Guard() (hooks, absent []string, err error) {
	for _, p := range f.guard.progs {
		hooks = append(hooks, p.lsm)
	}
	return hooks, f.guard.absent, f.guard.err
}

// openGuard loads the programs and looks whether the kernel runs such ones. One
// that does not is no error.
func (f *Fence) openGuard(l *loader, dir string) error {
	g := &f.guard
	g.dir, g.by = filepath.Join(f.dir, "links"), make(map[uint32]bool)
	if g.err = tryLSM(); g.err != nil {
		return g.unpin()
	}
	for _, h := range guardHooks {
		p, err := l.program(dir, "lsm_"+h.lsm, l.guard, h.prog)
		if err != nil && h.optional {
			g.absent = append(g.absent, h.lsm)
			continue
		}
		if err != nil {
			g.err = fmt.Errorf("load %s: %w", h.lsm, err)
			return errors.Join(g.drop(), g.unpin())
		}
		g.progs = append(g.progs, guardProgram{h, p})
	}
	return nil
}

// The canary's socket is one that nobody makes: a family that Linux no longer
// has (AF_ECONET), and a protocol of no meaning.
const (
	canaryFamily   = 19
	canaryProtocol = 0x5246
	canaryErrno    = unix.EBADE
)

// tryLSM sees a program refuse something. That one can be attached says too
// little: without bpf in the kernel's list of modules nothing calls it.
func tryLSM() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "rf_canary", Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "socket_create", License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
			asm.LoadMem(asm.R3, asm.R1, 16, asm.DWord),
			asm.Mov.Imm(asm.R0, 0),
			asm.JNE.Imm(asm.R2, canaryFamily, "out"),
			asm.JNE.Imm(asm.R3, canaryProtocol, "out"),
			asm.Mov.Imm(asm.R0, -int32(canaryErrno)),
			asm.Return().WithSymbol("out"),
		},
	})
	if err != nil {
		return fmt.Errorf("this kernel or host lets nobody load such a program (%s)", plain(err))
	}
	defer prog.Close()
	l, err := link.AttachLSM(link.LSMOptions{Program: prog})
	if err != nil {
		return fmt.Errorf("this kernel or host lets nobody attach such a program (%s)", plain(err))
	}
	defer l.Close()
	fd, err := unix.Socket(canaryFamily, unix.SOCK_RAW, canaryProtocol)
	if errors.Is(err, canaryErrno) {
		return nil
	}
	if err == nil {
		err = unix.Close(fd)
	}
	return fmt.Errorf("a program was attached and not asked (%v): bpf is not in the kernel's lsm= list", err)
}

// Guard arms the third lock for the sandbox, if the kernel has it. Before, the
// guard lets its processes pass: whoever builds the walls of a sandbox is one
// of them. A later SetState reaches the guard too.
func (s *Sandbox) Guard(r GuardRules) error {
	g := &s.fence.guard
	if g.err != nil {
		return nil
	}
	rows, err := entryRows(s.id, r.Entries)
	if err == nil {
		err = s.arm(rows, r.Device)
	}
	if err == nil {
		err = g.join(s.id)
	}
	if err != nil {
		return fmt.Errorf("guard sandbox %d: %w", s.id, err)
	}
	return nil
}

func (s *Sandbox) arm(rows map[bpf.FenceRfEntryKey]Way, device uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.guarded, s.rows = true, make([]bpf.FenceRfEntryKey, 0, len(rows))
	for k, ways := range rows {
		s.rows = append(s.rows, k)
		if err := s.fence.maps.Entries.Put(k, uint32(ways)); err != nil {
			return err
		}
	}
	s.device = unix.Major(device)<<20 | unix.Minor(device)
	return s.putGuardLocked(s.state)
}

// putGuardLocked writes what the guard judges on. It comes behind the hooks'
// state: what the new policy closes they refuse already, what it opens the
// guard refuses for a moment more.
func (s *Sandbox) putGuardLocked(st State) error {
	if !s.guarded {
		return nil
	}
	v := bpf.FenceRfGuard{Policy: st.Policy, Generation: st.Generation, Flags: uint32(st.Flags), Dev: s.device}
	return s.fence.maps.Guards.Put(s.id, v)
}

// takeOverGuard goes on with what an earlier keeper armed.
func (s *Sandbox) takeOverGuard() error {
	var v bpf.FenceRfGuard
	err := s.fence.maps.Guards.Lookup(s.id, &v)
	if errors.Is(err, ebpf.ErrKeyNotExist) || s.fence.guard.err != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	s.mu.Lock()
	s.guarded, s.rows, s.device = true, nil, v.Dev
	err = s.putGuardLocked(s.state)
	s.mu.Unlock()
	if err == nil {
		err = s.fence.guard.join(s.id)
	}
	return err
}

// unguard removes all that was kept of the sandbox for the guard.
func (s *Sandbox) unguard() error {
	s.mu.Lock()
	guarded, rows := s.guarded, s.rows
	s.guarded = false
	s.mu.Unlock()
	switch {
	case !guarded:
		return nil
	case rows == nil: // an earlier keeper wrote them
		return s.fence.unguard(s.id)
	}
	return errors.Join(deleteAll(s.fence.maps.Entries, rows), ignoreMissing(s.fence.maps.Guards.Delete(s.id)), s.fence.guard.leave(s.id))
}

// unguard is for a sandbox of which nothing is known but its id.
func (f *Fence) unguard(id uint32) error {
	rows, err := keysWhere(f.maps.Entries, func(k *bpf.FenceRfEntryKey, _ *uint32) bool { return k.Sandbox == id })
	return errors.Join(err, deleteAll(f.maps.Entries, rows), ignoreMissing(f.maps.Guards.Delete(id)), f.guard.leave(id))
}

// entryRows puts entries into the form of the table. Two of one name refuse
// what either does.
func entryRows(sandbox uint32, entries []GuardEntry) (map[bpf.FenceRfEntryKey]Way, error) {
	out := make(map[bpf.FenceRfEntryKey]Way, len(entries))
	for _, e := range entries {
		if e.Name == "" || len(e.Name) > maxEntry || len(e.Parent) > maxEntry || strings.ContainsAny(e.Parent+e.Name, "/\x00") {
			return nil, fmt.Errorf("entry %q below %q is no name of at most %d bytes", e.Name, e.Parent, maxEntry)
		}
		k := bpf.FenceRfEntryKey{Sandbox: sandbox}
		copy(k.Parent[:], e.Parent)
		copy(k.Name[:], e.Name)
		out[k] |= e.Ways
	}
	return out, nil
}

// join attaches the programs for the first sandbox.
func (g *guard) join(id uint32) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.links) == 0 {
		if err := g.attachLocked(); err != nil {
			return err
		}
	}
	g.by[id] = true
	return nil
}

func (g *guard) attachLocked() error {
	for _, p := range g.progs {
		l, err := g.takeOver(p)
		if err != nil { // all or none: some would be taken for all
			return errors.Join(fmt.Errorf("attach %s: %w", p.lsm, err), g.detachLocked())
		}
		g.links = append(g.links, l)
	}
	return nil
}

func (g *guard) detachLocked() error {
	var errs []error
	for _, l := range g.links {
		errs = append(errs, l.Unpin(), l.Close())
	}
	g.links = nil
	return errors.Join(errs...)
}

// takeOver returns the pinned link if it runs this program, else replaces it: the
// new one judges before the old one goes.
func (g *guard) takeOver(p guardProgram) (link.Link, error) {
	pin := filepath.Join(g.dir, "lsm_"+p.lsm)
	want, err := programID(p.prog)
	if err != nil {
		return nil, err
	}
	old, err := link.LoadPinnedLink(pin, nil)
	switch {
	case err == nil:
		if info, err := old.Info(); err == nil && info.Program == want {
			return old, nil
		}
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	l, err := link.AttachLSM(link.LSMOptions{Program: p.prog})
	if err == nil && old != nil {
		err = errors.Join(old.Unpin(), old.Close())
	}
	if err == nil {
		err = l.Pin(pin)
	}
	if err != nil {
		if l != nil {
			l.Close()
		}
		return nil, err
	}
	return l, nil
}

// leave detaches them behind the last one.
func (g *guard) leave(id uint32) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.by, id)
	if len(g.by) > 0 {
		return nil
	}
	if len(g.links) == 0 { // perhaps an earlier keeper left some
		return g.unpin()
	}
	return g.detachLocked()
}

// unpin removes what an earlier keeper may have left.
func (g *guard) unpin() error {
	var errs []error
	for _, h := range guardHooks {
		errs = append(errs, unpinLink(filepath.Join(g.dir, "lsm_"+h.lsm)))
	}
	return errors.Join(errs...)
}

// drop closes the programs; pinned links hold them.
func (g *guard) drop() error {
	var errs []error
	for _, p := range g.progs {
		errs = append(errs, p.prog.Close())
	}
	g.progs = nil
	return errors.Join(errs...)
}

// close leaves pinned links in place for the next keeper.
func (g *guard) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for _, l := range g.links {
		errs = append(errs, l.Close())
	}
	g.links = nil
	return errors.Join(append(errs, g.drop())...)
}

func decodeGuarded(head Head, b []byte) (Record, error) {
	r, err := load[bpf.FenceRfGuarded](b)
	if err != nil {
		return nil, err
	}
	return &Guarded{
		Head: head, Origin: originOf(&r.Origin), Hook: Hook(r.Head.Hook), Reason: Reason(r.Head.Reason), Errno: unix.Errno(r.Error),
		Way: Way(r.Way), Parent: text(r.Parent[:]), Name: text(r.Name[:]),
	}, nil
}
