// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/bpf"
)

// Record is one fixed-size message from the kernel: *Verdict, *Exec, *Exit,
// *Refusal or *Guarded.
type Record interface {
	// When it happened, by this machine's clock.
	When() time.Time
	record()
	head() *Head
}

// Head is common to all records.
type Head struct {
	Time       time.Time // when it happened, UTC
	Sandbox    uint32    // 0: the cgroup had no state
	PID        uint32    // thread group in the host's pid namespace; 0 for packets
	Generation uint32    // of the sandbox's state; 0 in Exec and Exit

	nth uint64 // of the sandbox's records in its ring
}

// When is Time.
func (h *Head) When() time.Time { return h.Time }

func (h *Head) head() *Head { return h }

// Verdict is one judged call or dropped packet.
type Verdict struct {
	Head
	Origin
	Hook     Hook
	Allowed  bool
	Reason   Reason
	Errno    unix.Errno // what the caller got; 0 when allowed
	Policy   uint32
	Rule     uint32         // as given in the entry that decided; 0 if none did
	Cookie   uint64         // socket cookie; 0 in sock_create and the unix hooks
	Family   uint16         // AF_INET, AF_INET6, AF_UNIX, or what was asked for
	SockType uint8          // SOCK_STREAM ...
	Proto    uint16         // IPPROTO_TCP ...; MPTCP is 262
	Dst      netip.AddrPort // as asked for; IPv4-mapped stays mapped
	Judged   netip.Addr     // the IPv4 address that Dst is or hides, else Dst
	Ended    bool           // a dropped packet of a flow that EndDenied ended: the last the kernel sends for it
}

// Exec is a program that started.
type Exec struct {
	Head
	Origin
	Program
	GID uint32
}

// Exit is a process whose last thread ended.
type Exit struct {
	Head
	PPID    uint32
	UID     uint32
	Comm    string
	Status  unix.WaitStatus
	Started time.Time
}

func (*Verdict) record() {}
func (*Exec) record()    {}
func (*Exit) record()    {}

// Reader ticks: the kernel wakes the reader for the first denials of a burst
// only, so the rings are also looked at on a tick, quicker while they flow.
const (
	tickBusy = 5 * time.Millisecond
	tickIdle = 50 * time.Millisecond
)

// Records reads the rings and calls fn for each record, one at a time, until
// ctx ends or the Fence is closed; then it returns nil. Each ring keeps its own order. One reader per
// Fence. A record that cannot be decoded ends the reading with an error: it
// means that kernel and keeper disagree about the layout.
func (f *Fence) Records(ctx context.Context, fn func(Record)) error {
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	for ring, m := range map[Ring]*ebpf.Map{
		RingDenials: f.maps.Denials, RingFlows: f.maps.Flows, RingRefusals: f.maps.Refusals, RingProcesses: f.maps.Processes,
	} {
		r, err := f.reading.open(ring, m)
		if err != nil {
			g.Go(func() error { return fmt.Errorf("read records: %w", err) }) // ends the others
			break
		}
		g.Go(func() error {
			<-ctx.Done()
			return f.reading.end(ring, r)
		})
		g.Go(func() error {
			return drain(r, &acks{of: &f.reading, reads: f.maps.Reads, ring: ring}, func(rec Record) {
				if v, ok := rec.(*Verdict); ok && v.Hook == HookEgress {
					v.Ended = f.ended.has(v.Cookie)
				}
				mu.Lock()
				defer mu.Unlock()
				fn(rec)
			})
		})
	}
	err := g.Wait()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Hurry makes Records look at the rings now instead of at its next tick.
func (f *Fence) Hurry() {
	f.reading.mu.Lock()
	defer f.reading.mu.Unlock()
	for _, r := range f.reading.all {
		r.hurry()
	}
}

// CatchUp waits until Records has handed over what was in some rings when it was
// called, however much comes meanwhile; false when that took longer than ctx
// allows, or nobody reads.
func (f *Fence) CatchUp(ctx context.Context, rings ...Ring) bool {
	for _, read := range f.reading.hurry(rings) {
		select {
		case <-read:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// readers are the rings that Records reads. The zero value is ready.
type readers struct {
	mu      sync.Mutex
	all     map[Ring]*ringReader
	waiting map[Ring]*catching
	closed  bool // so are the rings' maps, or soon
}

// catching are calls of CatchUp for one ring, of which each ends with the first
// of two: so many bytes were handed over, or the ring was read to its end. Who
// comes while it is being read may have missed what stands before: it waits for
// the next reading.
type catching struct {
	next, now []chan struct{}
	points    []catchPoint
}

// catchPoint is what lay in the ring at a call.
type catchPoint struct {
	begun bool // the record that was in hand then, which counts for nothing, is handed over
	left  int  // bytes
	done  chan struct{}
}

// hurry has rings read and returns what is closed when each was. Of a ring that
// nobody reads it never is.
func (r *readers) hurry(rings []Ring) (read []<-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ring := range rings {
		done := make(chan struct{})
		read = append(read, done)
		if c := r.waiting[ring]; c != nil && !r.closed {
			c.forget()
			c.next = append(c.next, done)
			c.points = append(c.points, catchPoint{left: r.all[ring].AvailableBytes(), done: done})
			r.all[ring].hurry()
		}
	}
	return read
}

// handed is called for each record that was handed over. Our programs discard
// none; one would only make the wait longer.
func (r *readers) handed(ring Ring, raw []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.waiting[ring]
	if c == nil || len(c.points) == 0 {
		return
	}
	c.forget()
	for i := range c.points {
		p := &c.points[i]
		if p.begun {
			p.left -= unix.BPF_RINGBUF_HDR_SZ + (len(raw)+7)&^7
		}
		if p.begun = true; p.left <= 0 {
			close(p.done)
		}
	}
}

// flushed is called when a ring was read to its end because somebody waits.
func (r *readers) flushed(ring Ring) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.waiting[ring]
	if c == nil {
		return // it has ended
	}
	for _, done := range c.now {
		if !isClosed(done) {
			close(done)
		}
	}
	c.now, c.next = c.next, nil
	if len(c.now) > 0 {
		r.all[ring].hurry()
	}
}

// forget drops the points of calls that have ended.
func (c *catching) forget() {
	c.points = slices.DeleteFunc(c.points, func(p catchPoint) bool { return isClosed(p.done) })
}

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// ringReader is a reader with where it waits: its own waiting is never entered.
type ringReader struct {
	*ringbuf.Reader
	bell *bell

	mu     sync.Mutex // ends looks into the ring before it is gone
	closed bool
}

// filled says whether there is something to read.
func (r *ringReader) filled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.closed && r.AvailableBytes() > 0
}

// close ends the reading, and a wait under way.
func (r *ringReader) close() error {
	err := r.bell.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return errors.Join(err, r.Close())
}

func newRingReader(m *ebpf.Map) (*ringReader, error) {
	b, err := newBell(m.FD())
	if err != nil {
		return nil, err
	}
	r, err := ringbuf.NewReader(m)
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	r.SetDeadline(time.Unix(1, 0))
	return &ringReader{Reader: r, bell: b}, nil
}

// hurry has the ring read now.
func (r *ringReader) hurry() {
	_ = r.Flush() // of a closed reader it fails: nobody reads any more
	r.bell.ring()
}

func (r *readers) open(ring Ring, m *ebpf.Map) (*ringReader, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, os.ErrClosed
	}
	one, err := newRingReader(m)
	if err == nil {
		if r.all == nil {
			r.all, r.waiting = map[Ring]*ringReader{}, map[Ring]*catching{}
		}
		r.all[ring], r.waiting[ring] = one, &catching{}
	}
	return one, err
}

// end closes a reader; nobody waits for it any more.
func (r *readers) end(ring Ring, one *ringReader) error {
	r.mu.Lock()
	if r.all[ring] == one {
		delete(r.all, ring)
		delete(r.waiting, ring)
	}
	r.mu.Unlock()
	return one.close()
}

func (r *readers) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
}

// ackEvery is after how many records the kernel is told.
const ackEvery = 64

// acks tell the kernel how far each sandbox's records of a ring were read: on
// it depends who may still write when the ring fills up.
type acks struct {
	of    *readers
	reads *ebpf.Map
	ring  Ring
	n     int
	last  map[uint32]uint64
}

func (a *acks) read(h *Head) error {
	if a.last == nil {
		a.last = make(map[uint32]uint64)
	}
	a.last[h.Sandbox] = h.nth
	if a.n++; a.n < ackEvery {
		return nil
	}
	return a.tell()
}

// tell leaves out sandboxes that have been detached meanwhile. When the Fence
// is closed there is nobody to tell.
func (a *acks) tell() error {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	if a.of.closed {
		return os.ErrClosed
	}
	for sandbox, nth := range a.last {
		err := a.reads.Update(bpf.FenceRfReadKey{Sandbox: sandbox, Ring: uint32(a.ring)}, nth, ebpf.UpdateExist)
		if ignoreMissing(err) != nil {
			return fmt.Errorf("tell what was read: %w", err)
		}
	}
	clear(a.last)
	a.n = 0
	return nil
}

func drain(r *ringReader, a *acks, fn func(Record)) error {
	var (
		raw   ringbuf.Record
		clock bootClock
		tick  = tickIdle
		seen  int
	)
	for {
		err := r.ReadInto(&raw)
		if errors.Is(err, ringbuf.ErrFlushed) {
			a.of.flushed(a.ring)
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if err := a.tell(); err != nil {
				return err
			}
			tick = min(tick*2, tickIdle)
			if seen > 0 {
				tick = tickBusy
			}
			seen = 0
			r.bell.wait(tick, r.filled)
			continue
		}
		if err != nil {
			return err
		}
		seen++
		rec, err := decode(raw.RawSample, &clock)
		if err != nil {
			return err
		}
		fn(rec)
		a.of.handed(a.ring, raw.RawSample)
		if err := a.read(rec.head()); err != nil {
			return err
		}
	}
}

// bootClock turns CLOCK_BOOTTIME into wall time. The offset is read anew every
// second, because the wall clock may be set.
type bootClock struct {
	offset int64
	until  int64
}

func (c *bootClock) wall(boot uint64) time.Time {
	if int64(boot) >= c.until {
		var b unix.Timespec
		if unix.ClockGettime(unix.CLOCK_BOOTTIME, &b) == nil {
			c.offset = time.Now().UnixNano() - b.Nano()
			c.until = b.Nano() + int64(time.Second)
		}
	}
	return time.Unix(0, int64(boot)+c.offset).UTC()
}

// load copies a sample into a value of the kernel's layout.
func load[T any](b []byte) (*T, error) {
	v := new(T)
	if len(b) < int(unsafe.Sizeof(*v)) {
		return nil, fmt.Errorf("record of %d bytes is too short for %T", len(b), v)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)), b)
	return v, nil
}

func decode(b []byte, clock *bootClock) (Record, error) {
	h, err := load[bpf.FenceRfHead](b)
	if err != nil {
		return nil, err
	}
	head := Head{clock.wall(h.TimeNs), h.Sandbox, h.Pid, h.Generation, h.Nth}
	switch bpf.FenceRfRecordType(h.Type) {
	case bpf.FenceRfRecordTypeRF_RECORD_VERDICT:
		return decodeVerdict(head, b)
	case bpf.FenceRfRecordTypeRF_RECORD_EXEC:
		return decodeExec(head, b)
	case bpf.FenceRfRecordTypeRF_RECORD_REFUSAL:
		return decodeRefusal(head, b)
	case bpf.FenceRfRecordTypeRF_RECORD_GUARD:
		return decodeGuarded(head, b)
	case bpf.FenceRfRecordTypeRF_RECORD_EXIT:
		r, err := load[bpf.FenceRfExit](b)
		if err != nil {
			return nil, err
		}
		return &Exit{
			Head: head, PPID: r.Ppid, UID: r.Uid, Comm: text(r.Comm[:]),
			Status: unix.WaitStatus(r.Code), Started: clock.wall(r.StartNs),
		}, nil
	}
	return nil, fmt.Errorf("record of unknown type %d", h.Type)
}

func decodeVerdict(head Head, b []byte) (Record, error) {
	r, err := load[bpf.FenceRfVerdict](b)
	if err != nil {
		return nil, err
	}
	v := &Verdict{
		Head:     head,
		Origin:   originOf(&r.Origin),
		Hook:     Hook(r.Head.Hook),
		Allowed:  r.Head.Verdict == uint8(bpf.FenceRfVerdictKindRF_ALLOW),
		Reason:   Reason(r.Head.Reason),
		Errno:    unix.Errno(r.Error),
		Policy:   r.Policy,
		Rule:     r.Rule,
		Cookie:   r.Cookie,
		Family:   r.Family,
		SockType: r.SockType,
		Proto:    r.Proto,
	}
	if v.Hook == HookSockCreate || v.Hook == HookLSMSocket || v.Family != unix.AF_INET && v.Family != unix.AF_INET6 {
		return v, nil
	}
	addr := netip.AddrFrom16(r.Addr)
	v.Judged = Embedded(addr)
	if r.Family == unix.AF_INET {
		addr = addr.Unmap()
	}
	v.Dst = netip.AddrPortFrom(addr, r.Port)
	return v, nil
}

func decodeExec(head Head, b []byte) (Record, error) {
	r, err := load[bpf.FenceRfExec](b)
	if err != nil {
		return nil, err
	}
	return &Exec{Head: head, Origin: originOf(&r.Origin), Program: programOf(&r.Program), GID: r.Gid}, nil
}

// text cuts at the first NUL.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
