// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

// Options says how to open a log. Only Dir (or FS) is required.
type Options struct {
	Dir          string        // created with mode 0700 if absent
	SegmentBytes int64         // size at which a segment is closed; default 16 MiB
	MaxBytes     int64         // bound of all segments together; default 1 GiB, at least two segments
	Queue        int           // events that each of the two best-effort queues holds; default 8192
	Pending      int           // strict events waiting at once before Append answers ErrBusy; default 65536
	PostDelay    time.Duration // how long best-effort events wait for company; default 4 ms
	RetryDelay   time.Duration // how often a pending loss record is retried on a full disk; default 1 s
	Node         event.Node
	Now          func() time.Time // default time.Now
	FS           FS               // default DirFS(Dir)
	Logger       *slog.Logger     // default: discard
}

// Errors that callers act on.
var (
	ErrFull     = errors.New("audit: no space left for the log")
	ErrBusy     = errors.New("audit: too many records are waiting to be written")
	ErrClosed   = errors.New("audit: the log is closed")
	ErrNotFound = errors.New("audit: no such record")
)

// Log is an open log. All methods may be called concurrently.
type Log struct {
	// Immutable after Open.
	opt   Options
	fs    FS
	lock  io.Closer
	chain string
	log   *slog.Logger
	kick  chan struct{} // wakes the writer; capacity 1
	done  chan struct{} // closed when the writer has ended

	w writer // owned by the writer goroutine after Open

	mu       sync.Mutex // guards what follows
	strict   []*request
	waiting  int           // events in strict
	denials  []event.Event // best effort, refused
	flows    []event.Event // best effort, the rest
	oldest   time.Time     // when the first of denials and flows came
	own      []event.Event // records of the log about itself
	closing  bool
	closeErr error
	segs     []segment // committed state, for readers; the last one is active
	head     Head
	changed  chan struct{}       // closed and replaced when something was committed
	loss     [lossReasons]uint64 // lost and not yet said in a record
	stats    Stats
}

// Open recovers the log of a directory, or starts a new one, and holds the
// single-writer lock until Close.
func Open(o Options) (*Log, error) {
	o.setDefaults()
	if o.FS == nil {
		if err := os.MkdirAll(o.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
		fs, err := DirFS(o.Dir)
		if err != nil {
			return nil, err
		}
		o.FS = fs
	}
	lock, err := o.FS.Lock()
	if err != nil {
		return nil, errors.Join(err, o.FS.Close())
	}
	l := &Log{
		opt: o, fs: o.FS, lock: lock, log: o.Logger,
		kick: make(chan struct{}, 1), done: make(chan struct{}), changed: make(chan struct{}),
	}
	if err := l.recover(); err != nil {
		return nil, errors.Join(err, lock.Close(), o.FS.Close())
	}
	if l.chain == "" {
		var id [chainLen / 2]byte
		rand.Read(id[:])
		l.chain = hex.EncodeToString(id[:])
		l.w.prev, l.w.next = genesis(l.chain), 1
	}
	l.head = Head{Chain: l.chain, Sequence: l.w.next - 1, Hash: l.w.prev}
	l.segs = append([]segment(nil), l.w.segs...)
	go l.run()
	l.wake()
	return l, nil
}

func (o *Options) setDefaults() {
	def := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.SegmentBytes, 16<<20)
	def(&o.MaxBytes, 1<<30)
	o.MaxBytes = max(o.MaxBytes, 2*o.SegmentBytes)
	if o.Queue <= 0 {
		o.Queue = 8192
	}
	if o.Pending <= 0 {
		o.Pending = 65536
	}
	if o.PostDelay <= 0 {
		o.PostDelay = 4 * time.Millisecond
	}
	if o.RetryDelay <= 0 {
		o.RetryDelay = time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// request is one call of Append.
type request struct {
	evs   []event.Event
	first uint64
	err   error
	done  chan struct{}
}

// Append writes the events, in order and without others between them, and
// returns the sequence of the first when all of them are durable. It sets ID,
// Sequence and Logged of the events. The events are normalised on the way;
// what the caller holds keeps its length.
//
// Errors: ErrFull when there is no space (the records are counted and a later
// loss record says how many), ErrBusy when the writer is too far behind,
// ErrClosed, or what the file system said; after any of these nothing was
// recorded. When ctx ends first, Append returns its error and the records are
// still going to be written if they can be.
func (l *Log) Append(ctx context.Context, evs ...*event.Event) (uint64, error) {
	if len(evs) == 0 {
		return 0, nil
	}
	r := &request{evs: make([]event.Event, len(evs)), done: make(chan struct{})}
	for i, e := range evs {
		if !e.Kind.Valid() {
			return 0, fmt.Errorf("audit: %w: %d", event.ErrKind, e.Kind)
		}
		r.evs[i] = *e
		r.evs[i].Normalise()
	}
	if err := l.submit(r); err != nil {
		return 0, err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		return 0, fmt.Errorf("audit: append: %w", ctx.Err())
	}
	if r.err != nil {
		return 0, r.err
	}
	for i, e := range evs {
		e.ID, e.Sequence, e.Logged = r.evs[i].ID, r.evs[i].Sequence, r.evs[i].Logged
	}
	return r.first, nil
}

func (l *Log) submit(r *request) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := uint64(len(r.evs))
	l.stats.Produced += n
	if l.closing {
		l.dropLocked(lossClosed, n)
		return ErrClosed
	}
	if l.waiting > 0 && l.waiting+len(r.evs) > l.opt.Pending {
		l.dropLocked(lossBusy, n)
		return ErrBusy
	}
	l.strict = append(l.strict, r)
	l.waiting += len(r.evs)
	l.wake()
	return nil
}

// Post hands over an event of the best-effort class and never blocks. Refusals
// and the rest have a bounded queue each, so that a flood of flows cannot push
// out a denial. What does not fit is counted, and a loss record says so.
func (l *Log) Post(ev *event.Event) {
	e := *ev
	e.Normalise()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Produced++
	switch {
	case !e.Kind.Valid():
		l.dropLocked(lossInvalid, 1)
		return
	case l.closing:
		l.dropLocked(lossClosed, 1)
		return
	}
	q := &l.flows
	if e.IsDenial() {
		q = &l.denials
	}
	if len(*q) >= l.opt.Queue {
		l.dropLocked(lossQueue, 1)
		return
	}
	if len(l.flows)+len(l.denials) == 0 {
		l.oldest = time.Now()
	}
	*q = append(*q, e)
	l.wake()
}

func (l *Log) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Head is the last durable record: keep it off the host and give it to
// VerifyAgainst later.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Chain is the name of this log, the first part of every record id.
func (l *Log) Chain() string { return l.chain }

// Close writes what is queued, ends readers that follow, and gives up the
// lock. It returns what could not be written at the end, if anything.
func (l *Log) Close() error {
	l.mu.Lock()
	first := !l.closing
	l.closing = true
	l.mu.Unlock()
	l.wake()
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	if first {
		l.closeErr = errors.Join(l.closeErr, l.lock.Close(), l.fs.Close())
	}
	return l.closeErr
}
