// SPDX-License-Identifier: Apache-2.0

// Package kernel owns everything of Ringfence that lives in the kernel: the
// program set of package bpf, its maps, the links to cgroups and namespaces,
// and the records that come back.
//
// # Pinned layout
//
//	<PinDir>/                      a bpffs; Open mounts one if needed
//	  ringfence-v<layout>/         others are of another layout
//	    maps/<name>                state names cidrs members rates denials flows refusals processes
//	                               calls watch reported programs scratch reads outcomes verdicts guards entries;
//	                               asked redirects flying once something was adopted
//	    progs/<object digest>/     one pin per hook program, exec, exit, refused and lsm_<hook>
//	    links/exec, links/exit     node-wide tracepoints
//	    links/refused              the same, while a sandbox lives
//	    links/lsm_<hook>           the guard, while a sandbox lives that it guards
//	    sandbox/<id>/
//	      <hook>                   one cgroup link per hook
//	      listeners                SOCKMAP of this sandbox
//	      steer                    sk_lookup link to the sandbox's namespace
//
// What was running before it was fenced has its own set of links and no
// steering: see redirect.go.
//
// Of a sandbox's links and of its SOCKMAP the keeper has no descriptors: a
// second pin of each is in a bpffs that only this process can reach.
//
// Pins outlive the keeper: denials hold while it is away. A keeper of the same
// layout takes over maps, and programs too if they are of the same object;
// otherwise it loads its own programs over the same maps and swaps them into
// the links as it takes over each sandbox.
//
// A keeper of the layout after it copies the tables into maps of its own, and as
// it takes each sandbox over attaches its programs beside the former ones before
// those go; [Fence.LeaveFormer] ends that. Any other tree goes on denying, and
// Open refuses with a [LayoutError].
package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/ringfence/ringfence/bpf"
)

const layoutPrefix = "ringfence-v"

// Options say where and how large.
type Options struct {
	// PinDir holds the pins; Open makes it and mounts a bpffs on it unless it
	// already is within one. One keeper per PinDir.
	PinDir string
	// Logger receives what is degraded or cleaned up. Required.
	Logger *slog.Logger
	// MaxNames bounds the live virtual addresses times ports of the node.
	// 0 means 262144. Maps that are taken over keep their size.
	MaxNames uint32
	// MaxCIDRs bounds the CIDR entries of the node. 0 means 4194304.
	MaxCIDRs uint32
	// DenialRing, FlowRing, RefusalRing and ProcessRing are ring sizes in
	// bytes, powers of two and multiples of the page size. 0 means 4, 4, 4 and
	// 2 MiB.
	DenialRing, FlowRing, RefusalRing, ProcessRing uint32
	// Refusals says which refused system calls of sandboxes are recorded; nil
	// means none. See [Fence.Refusals].
	Refusals *RefusalTable
}

// Fence is the node's program set. It is safe for concurrent use.
type Fence struct {
	// Immutable after Open.
	log   *slog.Logger
	pin   string // Options.PinDir
	dir   string // the layout's directory
	maps  bpf.FenceMaps
	progs map[Hook]*ebpf.Program // without hooks the kernel lacks
	ids   map[Hook]ebpf.ProgramID
	tags  map[Hook]string // digests of the programs' instructions, by the kernel
	trace []link.Link
	steer *ebpf.CollectionSpec
	shelf *shelf
	o     Options

	redirect redirection

	former *former // nil without one; until LeaveFormer

	watch   watcher
	guard   guard
	ended   endedFlows
	written ledger
	reading readers
}

// Open loads the programs and pins them, or takes over what an earlier keeper
// pinned. Without the required hooks it fails; optional ones that are missing
// are logged and absent from [Fence.Hooks]. The caller owns the Fence and must
// Close it.
func Open(o Options) (*Fence, error) {
	if o.PinDir == "" || o.Logger == nil {
		return nil, errors.New("kernel: PinDir and Logger are required")
	}
	if err := ensureBPFFS(o.PinDir); err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	f := &Fence{
		log:   o.Logger,
		pin:   o.PinDir,
		dir:   filepath.Join(o.PinDir, layoutPrefix+strconv.Itoa(int(bpf.FenceRfLayoutRF_LAYOUT))),
		o:     o,
		progs: make(map[Hook]*ebpf.Program),
		ids:   make(map[Hook]ebpf.ProgramID),
		tags:  make(map[Hook]string),
	}
	if err := errors.Join(f.openShelf(), f.openFormer()); err != nil {
		f.Close()
		return nil, fmt.Errorf("kernel: %w", err)
	}
	for _, d := range []string{"", "maps", "progs", "links", "sandbox"} {
		if err := os.MkdirAll(filepath.Join(f.dir, d), 0o700); err != nil {
			f.Close()
			return nil, fmt.Errorf("kernel: %w", err)
		}
	}
	if err := f.load(o); err != nil {
		f.Close()
		return nil, fmt.Errorf("kernel: %w", err)
	}
	return f, nil
}

func (f *Fence) openShelf() (err error) {
	f.shelf, err = newShelf()
	return err
}

func (f *Fence) load(o Options) error {
	l, err := newLoader(o, filepath.Join(f.dir, "maps"))
	if err != nil {
		return err
	}
	if err := l.loadMaps(&f.maps); err != nil {
		return err
	}
	if f.former != nil {
		if err := f.copyTables(); err != nil {
			return err
		}
	}
	// Records of cgroups without state share bucket 0.
	if err := f.ensureRate(0); err != nil {
		return err
	}
	dir := filepath.Join(f.dir, "progs", l.digest)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, h := range hooks {
		p, err := l.program(dir, h.name, l.fence, h.prog)
		if err != nil && h.optional && errors.Is(err, ebpf.ErrNotSupported) {
			f.log.Warn("kernel hook missing", "hook", h.name, "since", h.kernel)
			continue
		}
		if err != nil {
			return fmt.Errorf("load %s: %w", h.name, err)
		}
		f.progs[h.hook] = p
		if f.ids[h.hook], f.tags[h.hook], err = programIdentity(p); err != nil {
			return fmt.Errorf("load %s: %w", h.name, err)
		}
	}
	if f.steer, err = bpf.LoadSteer(); err != nil {
		return err
	}
	if err := f.attachTracepoints(l, dir); err != nil {
		return err
	}
	if err := f.openRefusals(l, dir, o.Refusals); err != nil {
		return err
	}
	if err := f.openGuard(l, dir); err != nil {
		return err
	}
	if err := f.countPinned(); err != nil {
		return err
	}
	return f.dropOtherPrograms(l.digest)
}

// countPinned counts what an earlier keeper left among those for whom the
// machine-wide programs stay attached: the end of one that this keeper puts
// away must not take them from those that it has not adopted yet.
func (f *Fence) countPinned() error {
	ids, err := f.Pinned()
	if err != nil {
		return err
	}
	for _, id := range ids {
		f.watch.by[id] = true
		var v bpf.FenceRfGuard
		switch err := f.maps.Guards.Lookup(id, &v); {
		case err == nil:
			f.guard.by[id] = true
		case !errors.Is(err, ebpf.ErrKeyNotExist):
			return fmt.Errorf("guard: %w", err)
		}
	}
	return nil
}

// tracepoints are node-wide: one link each, whatever the number of sandboxes.
var tracepoints = [...]struct{ name, prog, point string }{
	{"exec", bpf.ProcessProgRfExec, "sched_process_exec"},
	{"exit", bpf.ProcessProgRfExit, "sched_process_exit"},
}

func (f *Fence) attachTracepoints(l *loader, dir string) error {
	for _, t := range tracepoints {
		p, err := l.program(dir, t.name, l.process, t.prog)
		if err != nil {
			return fmt.Errorf("load %s: %w", t.name, err)
		}
		lnk, err := takeOverTracepoint(filepath.Join(f.dir, "links", t.name), t.point, p)
		p.Close() // the link holds it
		if err != nil {
			return fmt.Errorf("attach %s: %w", t.name, err)
		}
		f.trace = append(f.trace, lnk)
	}
	return nil
}

// takeOverTracepoint returns the pinned link if it runs p, else replaces it; raw
// tracepoint links cannot be updated in place.
func takeOverTracepoint(pin, point string, p *ebpf.Program) (link.Link, error) {
	want, err := programID(p)
	if err != nil {
		return nil, err
	}
	if old, err := link.LoadPinnedLink(pin, nil); err == nil {
		if info, err := old.Info(); err == nil && info.Program == want {
			return old, nil
		}
		if err := errors.Join(old.Unpin(), old.Close()); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: point, Program: p})
	if err != nil {
		return nil, err
	}
	if err := l.Pin(pin); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// dropOtherPrograms removes pins of other objects; links that still run them
// keep them alive.
func (f *Fence) dropOtherPrograms(digest string) error {
	root := filepath.Join(f.dir, "progs")
	dirs, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if d.Name() != digest {
			if err := os.RemoveAll(filepath.Join(root, d.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Hooks lists the hooks that sandboxes are attached to on this kernel.
func (f *Fence) Hooks() []Hook {
	var out []Hook
	for _, h := range hooks {
		if f.progs[h.hook] != nil {
			out = append(out, h.hook)
		}
	}
	return out
}

// Pinned lists the ids of sandboxes that have pins, adopted or not, of this
// layout or of the one before.
func (f *Fence) Pinned() ([]uint32, error) {
	roots := []string{f.dir}
	if f.former != nil {
		roots = append(roots, f.former.dir)
	}
	var ids []uint32
	for _, root := range roots {
		dirs, err := os.ReadDir(filepath.Join(root, "sandbox"))
		if err != nil && (root == f.dir || !errors.Is(err, os.ErrNotExist)) {
			return nil, err
		}
		for _, d := range dirs {
			id, err := strconv.ParseUint(d.Name(), 10, 32)
			if err != nil {
				return nil, fmt.Errorf("unexpected pin %q", d.Name())
			}
			ids = append(ids, uint32(id))
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// Stale lists pinned trees of other layouts. They keep denying for the
// sandboxes that were attached to them.
func (f *Fence) Stale() ([]string, error) {
	dirs, err := os.ReadDir(f.pin)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, d := range dirs {
		if strings.HasPrefix(d.Name(), layoutPrefix) && d.Name() != filepath.Base(f.dir) {
			out = append(out, d.Name())
		}
	}
	return out, nil
}

// RemoveStale removes a tree that Stale named, and with it the fence of
// whatever still ran behind it.
func (f *Fence) RemoveStale(name string) error {
	if !strings.HasPrefix(name, layoutPrefix) || strings.ContainsRune(name, '/') || name == filepath.Base(f.dir) {
		return fmt.Errorf("%q is no stale layout", name)
	}
	return os.RemoveAll(filepath.Join(f.pin, name))
}

// Close gives up this process's descriptors. Pins stay and go on denying.
func (f *Fence) Close() error {
	f.reading.close()
	errs := []error{f.watch.close(), f.guard.close(), f.former.close(), f.shelf.close()}
	for _, l := range f.trace {
		errs = append(errs, l.Close())
	}
	for _, p := range f.progs {
		errs = append(errs, p.Close())
	}
	errs = append(errs, f.redirect.close())
	for _, m := range f.allMaps() {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

func (f *Fence) allMaps() []*ebpf.Map {
	m := &f.maps
	return []*ebpf.Map{m.State, m.Names, m.Cidrs, m.Members, m.Rates, m.Denials, m.Flows, m.Outcomes, m.Verdicts,
		m.Refusals, m.Calls, m.Watch, m.Reported, m.Processes, m.Programs, m.Scratch, m.Reads, m.Guards, m.Entries}
}

// Remove closes the Fence, removes every pin of its layout and unmounts the
// bpffs if it was ours and is empty. Sandboxes that are still attached are no
// longer fenced: stop them first. With it goes what was adopted behind the
// layout before and could not be taken over.
func (f *Fence) Remove() error {
	errs := []error{f.Close(), os.RemoveAll(f.dir)}
	if o := f.former; o != nil {
		if left, err := os.ReadDir(filepath.Join(o.dir, "sandbox")); err == nil && o.foreign(left) {
			errs = append(errs, os.RemoveAll(o.dir))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return releaseBPFFS(f.pin)
}

func programID(p *ebpf.Program) (ebpf.ProgramID, error) {
	id, _, err := programIdentity(p)
	return id, err
}

// programIdentity is which loaded program it is, and what its instructions are.
func programIdentity(p *ebpf.Program) (ebpf.ProgramID, string, error) {
	info, err := p.Info()
	if err != nil {
		return 0, "", err
	}
	id, ok := info.ID()
	if !ok {
		return 0, "", errors.New("program has no id")
	}
	return id, info.Tag, nil
}

// digestOf names a set of objects by content.
func digestOf(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}
