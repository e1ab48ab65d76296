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
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/bpf"
)

// Subject is what a system call names in one of its arguments.
type Subject uint8

const (
	SubjectNone     = Subject(bpf.FenceRfSubjectRF_SUBJECT_NONE)
	SubjectPath     = Subject(bpf.FenceRfSubjectRF_SUBJECT_PATH)     // a string
	SubjectSockaddr = Subject(bpf.FenceRfSubjectRF_SUBJECT_SOCKADDR) // an address; its length is the next argument
	SubjectClone    = Subject(bpf.FenceRfSubjectRF_SUBJECT_CLONE)    // clone_args: only calls that ask for a namespace count
)

// Call says when the failure of a system call is a refusal worth a record. The
// zero value means never.
type Call struct {
	Errnos  []unix.Errno
	Watched []unix.Errno // only if the path it names is watched
	Subject Subject
	Arg     uint8  // which argument holds the subject, 0..5
	Hooks   []Hook // cgroup hooks that judge the call too: what one has recorded is not recorded again
}

// RefusalTable is what [Options.Refusals] asks to be recorded.
type RefusalTable struct {
	Calls  map[uint32]Call // by system call number of this architecture
	Others Call            // every other number
	// Watch holds path prefixes: true is watched, false an exception. The
	// longest one that fits decides; only the first 63 bytes count. See
	// [Sandbox.Watch] for what one sandbox has of its own.
	Watch map[string]bool
}

// Refusal is a system call of a sandbox that the kernel refused.
type Refusal struct {
	Head
	Origin
	Call    uint32
	Args    [6]uint64 // the registers
	Errno   unix.Errno
	Subject Subject
	What    []byte // the subject as it was in memory after the call, at most 255 bytes
}

func (*Refusal) record() {}

const maxErrno = len(bpf.FenceRfCallRow{}.Errnos) * 64

// errnoSet is a bit per error number.
type errnoSet = [maxErrno / 64]uint64

func setOf(errnos []unix.Errno) (s errnoSet, err error) {
	for _, e := range errnos {
		if e == 0 || int(e) >= maxErrno {
			return s, fmt.Errorf("errno %d is not within 1 and %d", e, maxErrno-1)
		}
		s[e/64] |= 1 << (e % 64)
	}
	return s, nil
}

func (c Call) row() (r bpf.FenceRfCallRow, err error) {
	if r.Errnos, err = setOf(c.Errnos); err != nil {
		return r, err
	}
	if r.Watched, err = setOf(c.Watched); err != nil {
		return r, err
	}
	r.Subject, r.Arg = uint8(c.Subject), c.Arg
	for _, h := range c.Hooks {
		r.Hooks |= 1 << h
	}
	return r, nil
}

// watcher holds the machine-wide tracepoint while a sandbox lives.
type watcher struct {
	prog *ebpf.Program // nil: refusals are not recorded
	pin  string
	err  error // why this kernel cannot
	what map[string]bool

	mu   sync.Mutex      // guards what follows
	by   map[uint32]bool // those that an earlier keeper left included, see countPinned
	link link.Link
}

// Refusals returns nil if refused system calls of sandboxes are recorded, or
// why not: [ErrNotWanted], or what this kernel lacks.
func (f *Fence) Refusals() error {
	if f.watch.prog == nil && f.watch.err == nil {
		return ErrNotWanted
	}
	return f.watch.err
}

// RecordsRefusals says whether refused system calls of this sandbox are
// recorded.
func (s *Sandbox) RecordsRefusals() bool { return s.fence.watch.prog != nil }

// ErrNotWanted says that the operator did not ask for it.
var ErrNotWanted = errors.New("not asked for")

// openRefusals loads the program and its tables, and tries the tracepoint. A
// kernel without it is no error: nothing is enforced here.
func (f *Fence) openRefusals(l *loader, dir string, t *RefusalTable) error {
	f.watch.pin = filepath.Join(f.dir, "links", "refused")
	f.watch.by = make(map[uint32]bool)
	if t == nil {
		return unpinLink(f.watch.pin)
	}
	f.watch.what = t.Watch
	if err := f.writeRefusals(t); err != nil {
		return err
	}
	p, err := l.program(dir, "refused", l.refusal, bpf.RefusalProgRfRefused)
	if err != nil {
		f.watch.err = fmt.Errorf("load: %w", err)
		return nil
	}
	try, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_exit", Program: p})
	if errors.Is(err, unix.EEXIST) { // an earlier keeper left it attached, and this kernel (6.1) takes a program once
		f.watch.prog = p
		return nil
	}
	if err != nil {
		f.watch.err = fmt.Errorf("tracepoint sys_exit (CONFIG_FTRACE_SYSCALLS): %w", err)
		return p.Close()
	}
	f.watch.prog = p
	return try.Close()
}

func unpinLink(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(l.Unpin(), l.Close())
}

func (f *Fence) writeRefusals(t *RefusalTable) error {
	for nr := range f.maps.Calls.MaxEntries() {
		call, ok := t.Calls[nr]
		if !ok {
			call = t.Others
		}
		row, err := call.row()
		if err == nil {
			err = f.maps.Calls.Put(nr, row)
		}
		if err != nil {
			return fmt.Errorf("refusals: system call %d: %w", nr, err)
		}
	}
	if err := f.forgetWatched(0); err != nil {
		return err
	}
	for path, on := range t.Watch {
		if err := f.putWatched(0, path, on); err != nil {
			return err
		}
	}
	return nil
}

// maxWatched is how much of a path counts: the kernel program compares strings
// of RF_WATCH_LEN bytes with their NUL.
const maxWatched = len(bpf.FenceRfWatchKey{}.Path) - 1

func watchKey(sandbox uint32, path string) bpf.FenceRfWatchKey {
	k := bpf.FenceRfWatchKey{Sandbox: sandbox}
	k.Prefixlen = 32 + uint32(8*copy(k.Path[:maxWatched], path))
	return k
}

func (f *Fence) putWatched(sandbox uint32, path string, on bool) error {
	var v uint32
	if on {
		v = 1
	}
	if err := f.maps.Watch.Put(watchKey(sandbox, path), v); err != nil {
		return fmt.Errorf("refusals: watched path %q: %w", path, err)
	}
	return nil
}

func (f *Fence) forgetWatched(sandbox uint32) error {
	keys, err := keysWhere(f.maps.Watch, func(k *bpf.FenceRfWatchKey, _ *uint32) bool { return k.Sandbox == sandbox })
	if err != nil {
		return fmt.Errorf("refusals: %w", err)
	}
	return deleteAll(f.maps.Watch, keys)
}

// Watch says which paths of this sandbox are watched (true) or excepted from
// those that are watched everywhere (false): that something is missing in its
// workspace is nobody's business. Of a path only the first 63 bytes count, and
// of two that are alike in them the watched one. It adds to what was said
// before; after TakeOverSandbox it is to be said again.
func (s *Sandbox) Watch(paths map[string]bool) error {
	if s.fence.watch.prog == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, on := range []bool{false, true} { // the watched ones last: they win
		for p, want := range paths {
			if want != on || !on && !s.fence.watch.covers(p) {
				continue
			}
			s.owned = append(s.owned, watchKey(s.id, p))
			if err := s.fence.putWatched(s.id, p, on); err != nil {
				return err
			}
		}
	}
	return nil
}

// covers says whether something below path is watched.
func (w *watcher) covers(path string) bool {
	for p, on := range w.what {
		if on && (strings.HasPrefix(path, p) || strings.HasPrefix(p, path)) {
			return true
		}
	}
	return false
}

func (s *Sandbox) disown() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := s.owned
	s.owned = nil
	return deleteAll(s.fence.maps.Watch, keys)
}

// join attaches the tracepoint for the first sandbox.
func (w *watcher) join(id uint32) error {
	if w.prog == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.link == nil {
		l, err := takeOverTracepoint(w.pin, "sys_exit", w.prog)
		if err != nil {
			return fmt.Errorf("record refused system calls: %w", err)
		}
		w.link = l
	}
	w.by[id] = true
	return nil
}

// leave detaches it behind the last one.
func (w *watcher) leave(id uint32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.by, id)
	switch {
	case len(w.by) > 0:
		return nil
	case w.link == nil: // perhaps an earlier keeper left it
		return unpinLink(w.pin)
	}
	l := w.link
	w.link = nil
	return errors.Join(l.Unpin(), l.Close())
}

// close leaves the pinned tracepoint in place for the next keeper.
func (w *watcher) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	if w.link != nil {
		errs = append(errs, w.link.Close())
		w.link = nil
	}
	if w.prog != nil {
		errs = append(errs, w.prog.Close())
		w.prog = nil
	}
	return errors.Join(errs...)
}

func decodeRefusal(head Head, b []byte) (Record, error) {
	r, err := load[bpf.FenceRfRefusal](b)
	if err != nil {
		return nil, err
	}
	return &Refusal{
		Head: head, Origin: originOf(&r.Origin), Call: r.Call, Args: r.Args, Errno: unix.Errno(r.Error), Subject: Subject(r.Subject), What: r.What[:min(int(r.SubjectLen), len(r.What))],
	}, nil
}
