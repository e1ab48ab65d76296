// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/ringfence/ringfence/bpf"
)

// formerLayout reads what a keeper of an earlier layout pinned. Whoever raises
// RF_LAYOUT adds a row to formerLayouts for the layout before.
type formerLayout struct {
	number int
	state  func(value []byte) (State, error)
	name   func(key, value []byte) (policy uint32, e NameEntry, err error)
	cidr   func(key, value []byte) (policy uint32, e CIDREntry, err error)
	record func(sample []byte, clock *bootClock) (Record, error) // nil: its records are only counted
	guard  bool                                                  // its tables of the guard are as ours
}

// former is the tree of an earlier layout whose sandboxes this keeper takes
// over, one by one. Until then they stay behind the programs of that tree.
type former struct {
	layout formerLayout
	dir    string
	maps   map[string]*ebpf.Map // those that are read
}

// LayoutError says that what is pinned belongs to a layout that this version
// cannot take over. Nothing was changed: it goes on denying.
type LayoutError struct {
	Found, Known int
}

func (e *LayoutError) Error() string {
	if e.Found > e.Known {
		return fmt.Sprintf("sandboxes run behind kernel programs of a newer Ringfence (layout %d; this one has %d) and stay fenced by them: "+
			"start the newer version again; to go back to this one, stop all sandboxes under it first", e.Found, e.Known)
	}
	return fmt.Sprintf("sandboxes run behind kernel programs of a Ringfence that is too old to be taken over from (layout %d; this one has %d) and stay fenced by them: "+
		"start a version in between first, or start the old one and stop its sandboxes", e.Found, e.Known)
}

// openFormer finds the tree of an earlier layout, if there is one. Any other
// tree is a LayoutError.
func (f *Fence) openFormer() error {
	trees, err := f.Stale()
	if err != nil {
		return err
	}
	for _, name := range trees {
		number, err := strconv.Atoi(strings.TrimPrefix(name, layoutPrefix))
		if err != nil {
			return fmt.Errorf("%s: not a layout of Ringfence", filepath.Join(f.pin, name))
		}
		for _, l := range formerLayouts() {
			if l.number == number && f.former == nil {
				f.former = &former{layout: l, dir: filepath.Join(f.pin, name), maps: map[string]*ebpf.Map{}}
			}
		}
		if f.former == nil || f.former.layout.number != number {
			return &LayoutError{Found: number, Known: int(bpf.FenceRfLayoutRF_LAYOUT)}
		}
	}
	if f.former == nil {
		return nil
	}
	return f.former.open()
}

func (o *former) open() error {
	for _, name := range []string{
		bpf.FenceMapState, bpf.FenceMapNames, bpf.FenceMapCidrs, bpf.FenceMapOutcomes, bpf.FenceMapDenials, bpf.FenceMapFlows, bpf.FenceMapRefusals,
		bpf.FenceMapProcesses, bpf.FenceMapGuards, bpf.FenceMapEntries,
	} {
		m, err := ebpf.LoadPinnedMap(filepath.Join(o.dir, "maps", name), nil)
		if errors.Is(err, os.ErrNotExist) {
			continue // the keeper that made the tree was killed meanwhile: no sandbox was behind it yet
		}
		if err != nil {
			return fmt.Errorf("layout %d: map %s: %w", o.layout.number, name, err)
		}
		o.maps[name] = m
	}
	return nil
}

// copyTables fills the tables of this layout with those of the former one. Its
// programs are not attached anywhere then, so the order does not matter; no
// keeper changes the former tables any more.
func (f *Fence) copyTables() error {
	o := f.former
	if _, err := os.Stat(filepath.Join(o.dir, keptDir)); err == nil {
		return nil
	}
	names, err := entriesByPolicy(o.maps[bpf.FenceMapNames], o.layout.name)
	if err != nil {
		return fmt.Errorf("layout %d: names: %w", o.layout.number, err)
	}
	for policy, list := range names {
		if err := f.PutNames(policy, list); err != nil {
			return err
		}
	}
	cidrs, err := entriesByPolicy(o.maps[bpf.FenceMapCidrs], o.layout.cidr)
	if err != nil {
		return fmt.Errorf("layout %d: CIDRs: %w", o.layout.number, err)
	}
	for policy, list := range cidrs {
		if err := f.PutCIDRs(policy, list); err != nil {
			return err
		}
	}
	if !o.layout.guard {
		return nil
	}
	return errors.Join(copyMap(f.maps.Guards, o.maps[bpf.FenceMapGuards]), copyMap(f.maps.Entries, o.maps[bpf.FenceMapEntries]))
}

// copyMap copies a table of the same form, if there is one.
func copyMap(dst, src *ebpf.Map) error {
	if src == nil {
		return nil
	}
	var k, v []byte
	it := src.Iterate()
	for it.Next(&k, &v) {
		if err := dst.Put(k, v); err != nil {
			return fmt.Errorf("table of the guard: %w", err)
		}
	}
	return it.Err()
}

func entriesByPolicy[E any](m *ebpf.Map, read func(key, value []byte) (uint32, E, error)) (map[uint32][]E, error) {
	out := map[uint32][]E{}
	if m == nil {
		return out, nil
	}
	var k, v []byte
	it := m.Iterate()
	for it.Next(&k, &v) {
		policy, e, err := read(k, v)
		if err != nil {
			return nil, err
		}
		out[policy] = append(out[policy], e)
	}
	return out, it.Err()
}

func (o *former) state(cgroup uint64) (State, error) {
	m := o.maps[bpf.FenceMapState]
	if m == nil {
		return State{}, errors.New("no state")
	}
	b, err := m.LookupBytes(cgroup)
	if err != nil {
		return State{}, fmt.Errorf("read state: %w", err)
	}
	if b == nil {
		return State{}, errors.New("read state: the cgroup has none")
	}
	return o.layout.state(b)
}

// sandboxDir is where the former layout has its pins of a sandbox.
func (o *former) sandboxDir(id uint32) string {
	return filepath.Join(o.dir, "sandbox", strconv.FormatUint(uint64(id), 10))
}

// leftDir is where these go once the sandbox is behind our programs: what lies
// there is only to be removed.
func (o *former) leftDir(id uint32) string {
	return filepath.Join(o.dir, "left", strconv.FormatUint(uint64(id), 10))
}

// has says whether a sandbox is still to be taken over.
func (o *former) has(id uint32) bool {
	if o == nil {
		return false
	}
	_, err := os.Stat(o.sandboxDir(id))
	return err == nil
}

// leave gives up the former pins of a sandbox. One that dies in the middle
// leaves either all of them or none that count.
func (o *former) leave(id uint32) error {
	if err := os.MkdirAll(filepath.Join(o.dir, "left"), 0o700); err != nil {
		return err
	}
	if err := os.RemoveAll(o.leftDir(id)); err != nil {
		return err
	}
	if err := os.Rename(o.sandboxDir(id), o.leftDir(id)); err != nil {
		return err
	}
	return os.RemoveAll(o.leftDir(id))
}

// keptDir says of a former tree that nothing is in it any more that can be taken
// over: its tables are not to be copied again, over what is in force by now.
const keptDir = "kept"

// ErrForeignKept says that processes which were running before they were fenced
// are still behind the layout before this one, and stay there.
var ErrForeignKept = errors.New("redirection is not taken over from one layout to the next")

// foreign says that all of these sandboxes' pins are of redirection.
func (o *former) foreign(pins []os.DirEntry) bool {
	for _, d := range pins {
		if _, err := os.Stat(filepath.Join(o.dir, "sandbox", d.Name(), marks[0].name)); err != nil {
			return false
		}
	}
	return true
}

// unredirect removes every listener that was noted there. Their keys are not
// read: the layout may be another.
func (o *former) unredirect() error {
	if o == nil {
		return nil
	}
	m, err := ebpf.LoadPinnedMap(filepath.Join(o.dir, "maps", bpf.RedirectMapRedirects), nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil // nothing was ever adopted
	}
	if err != nil {
		return fmt.Errorf("listeners of layout %d: %w", o.layout.number, err)
	}
	defer m.Close()
	for {
		key, err := m.NextKeyBytes(nil)
		if err != nil || key == nil {
			return err
		}
		if err := ignoreMissing(m.Delete(key)); err != nil {
			return fmt.Errorf("listeners of layout %d: %w", o.layout.number, err)
		}
	}
}

// shut takes away what the state of a sandbox opens there. Its number comes
// first in the state of every layout.
func (o *former) shut(id uint32, cgroup uint64) error {
	if o == nil || o.maps[bpf.FenceMapState] == nil {
		return nil
	}
	m := o.maps[bpf.FenceMapState]
	b, err := m.LookupBytes(cgroup)
	if err == nil && (len(b) < 4 || native.Uint32(b) != id) { // also without a state
		return nil
	}
	if err == nil {
		clear(b[4:])
		err = m.Update(cgroup, b, ebpf.UpdateExist)
	}
	if err != nil {
		return fmt.Errorf("state of sandbox %d in layout %d: %w", id, o.layout.number, err)
	}
	return nil
}

// FormerEnd is the last word of a former layout.
type FormerEnd struct {
	Layout   int            // 0: there was none
	Counters []RingCounters // of the rings that it had
	Unread   uint64         // records that were in its rings and that nobody can read any more
}

// LeaveFormer ends a change of the layout when every sandbox is behind the
// programs of this one: fn gets the records that lie in the former rings, and
// the former tree is removed. There is nothing to do without such a change, and
// it is an error while a sandbox is still there.
func (f *Fence) LeaveFormer(fn func(Record)) (end FormerEnd, err error) {
	o := f.former
	if o == nil {
		return end, nil
	}
	left, err := os.ReadDir(filepath.Join(o.dir, "sandbox"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return end, err
	}
	if len(left) > 0 && o.foreign(left) {
		err := os.Mkdir(filepath.Join(o.dir, keptDir), 0o700)
		if errors.Is(err, os.ErrExist) {
			err = nil
		}
		return end, errors.Join(fmt.Errorf("what was adopted stays behind layout %d: %w", o.layout.number, ErrForeignKept), err)
	}
	if len(left) > 0 {
		return end, fmt.Errorf("%d sandboxes are still behind layout %d", len(left), o.layout.number)
	}
	if err := os.RemoveAll(filepath.Join(o.dir, "links")); err != nil { // nobody writes into the rings from here on
		return end, err
	}
	for _, ring := range []string{bpf.FenceMapDenials, bpf.FenceMapFlows, bpf.FenceMapRefusals, bpf.FenceMapProcesses} {
		unread, err := o.drain(ring, fn)
		if end.Unread += unread; err != nil {
			return end, fmt.Errorf("records of layout %d: %w", o.layout.number, err)
		}
	}
	if m := o.maps[bpf.FenceMapOutcomes]; m != nil {
		if end.Counters, err = ringCounters(m); err != nil {
			return end, err
		}
	}
	f.former, end.Layout = nil, o.layout.number
	return end, errors.Join(o.close(), os.RemoveAll(o.dir))
}

// drainWait is how long an empty ring is waited for: a program that runs at
// this moment still writes.
const drainWait = 20 * time.Millisecond

func (o *former) drain(ring string, fn func(Record)) (unread uint64, err error) {
	if o.maps[ring] == nil {
		return 0, nil
	}
	r, err := ringbuf.NewReader(o.maps[ring])
	if err != nil {
		return 0, err
	}
	defer r.Close()
	var raw ringbuf.Record
	var clock bootClock
	for {
		r.SetDeadline(time.Now().Add(drainWait))
		err := r.ReadInto(&raw)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return unread, nil
		}
		if err != nil {
			return unread, err
		}
		if o.layout.record == nil {
			unread++
			continue
		}
		rec, err := o.layout.record(raw.RawSample, &clock)
		if err != nil {
			return unread, err
		}
		fn(rec)
	}
}

func (o *former) close() error {
	if o == nil {
		return nil
	}
	var errs []error
	for _, m := range o.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// Layout is the number of this keeper's layout.
func Layout() int { return int(bpf.FenceRfLayoutRF_LAYOUT) }
