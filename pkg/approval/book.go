// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/store"
)

// Change is one durable step of a request.
type Change struct {
	Verb    Verb
	Request Request
	By      *Person // who voted, or wrote a rule; nil: a sandbox or time
}

// Verb says what a change was.
type Verb string

// The verbs.
const (
	VerbAsk       Verb = "ask"
	VerbVote      Verb = "vote" // an approval that is not enough alone
	VerbApprove   Verb = "approve"
	VerbDeny      Verb = "deny"
	VerbExpire    Verb = "expire"
	VerbCancel    Verb = "cancel"
	VerbSupersede Verb = "supersede"
	VerbConsume   Verb = "consume"
)

var verbOf = map[State]Verb{Pending: VerbAsk, Approved: VerbApprove, Denied: VerbDeny, Expired: VerbExpire, Cancelled: VerbCancel, Superseded: VerbSupersede, Consumed: VerbConsume}

// approves says whether the change is somebody's approval, enough alone or not.
func (v Verb) approves() bool { return v == VerbVote || v == VerbApprove }

// ErrNotFound: there is no request of that id.
var ErrNotFound = errors.New("no such approval")

const (
	// Keep is how long requests that have ended are kept: the event log tells of
	// them for longer.
	Keep = 7 * 24 * time.Hour

	// countEvery is how often the count of a request is written at most: a
	// sandbox that asks without end must not keep the disk busy.
	countEvery = time.Second
)

// Options of a Book.
type Options struct {
	Store  store.Approvals
	Limits Limits
	Now    func() time.Time
	NewID  func() string // nil: random
	// Lives says whether a sandbox lives. What others have open is ended by Sweep.
	Lives func(sandbox string) bool
	// Record is told every change, one at a time: what somebody approves before it
	// is durable, all others after. An approval, and the use of one for one time, do
	// not take effect when it fails: nothing that the log does not know of goes out.
	Record func(Change) error
	// Announce is told every change after it is durable, whatever Record said; nil:
	// nobody is.
	Announce func(*Request)
}

// Book keeps requests, durably, and tells who watches what becomes of them.
// It is safe for concurrent use; there is one for a store.
type Book struct {
	o Options

	mu       sync.Mutex       // one change at a time; guards what follows
	open     map[string]*live // every request that is open
	watchers map[chan Request]struct{}
	pruned   time.Time
	earlier  chan struct{} // tells Run that a deadline came before those that it knew
}

// live is what a Book knows of an open request beside the store.
type live struct {
	deadline time.Time // when time will change it; zero: never
	written  time.Time // when the store got it
	more     uint64    // how often it was asked for since
}

// NewBook opens the book on a store. Nothing in it changes before [Book.Sweep].
func NewBook(ctx context.Context, o Options) (*Book, error) {
	if o.NewID == nil {
		o.NewID = newID
	}
	if o.Announce == nil {
		o.Announce = func(*Request) {}
	}
	b := &Book{o: o, open: map[string]*live{}, watchers: map[chan Request]struct{}{}, earlier: make(chan struct{}, 1)}
	open, err := b.load(ctx, store.ApprovalQuery{EndedSince: math.MaxInt64})
	if err != nil {
		return nil, err
	}
	for i := range open {
		b.note(&open[i].Request)
	}
	return b, nil
}

// entry is a request and the version of it in the store.
type entry struct {
	Request
	version uint64
}

func (b *Book) load(ctx context.Context, q store.ApprovalQuery) ([]entry, error) {
	list, err := b.o.Store.Approvals(ctx, q)
	if err != nil {
		return nil, err
	}
	out := make([]entry, len(list))
	for i := range list {
		if out[i], err = b.decode(&list[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (b *Book) decode(a *store.Approval) (entry, error) {
	e := entry{version: a.Version}
	if err := json.Unmarshal(a.Body, &e.Request); err != nil {
		return e, fmt.Errorf("approval %s: %w", a.ID, err)
	}
	if e.ID != a.ID || e.Sandbox != a.Sandbox || e.Binding != a.Binding || e.State.String() != a.State {
		return e, fmt.Errorf("approval %s: the store's columns and its body are not of the same request", a.ID)
	}
	if l := b.open[e.ID]; l != nil {
		e.Count += l.more
	}
	return e, nil
}

func encode(r *Request, version uint64) (store.Approval, error) {
	body, err := json.Marshal(r)
	a := store.Approval{ID: r.ID, Sandbox: r.Sandbox, Binding: r.Binding, State: r.State.String(), Version: version, Created: r.Created.UnixNano(), Body: body}
	if !r.State.Open() {
		a.Ended = r.Decided.UnixNano()
		if !r.Ended.IsZero() {
			a.Ended = r.Ended.UnixNano()
		}
	}
	return a, err
}

// put makes changes durable, all or none, and then tells of them; an approval is
// recorded first, since it holds as soon as the store has it. was are the requests
// as they were loaded. With err nothing has changed, as far as is known. told is
// what Record said of a change that holds.
func (b *Book) put(ctx context.Context, was []entry, changed []Request, by *Person) (told, err error) {
	records := make([]store.Approval, 0, len(changed))
	steps := make([]Change, 0, len(changed))
	for _, r := range changed {
		before, version := Denied, uint64(1)
		if i := slices.IndexFunc(was, func(e entry) bool { return e.ID == r.ID }); i >= 0 {
			before, version = was[i].State, was[i].version+1
		}
		rec, err := encode(&r, version)
		if err != nil {
			return nil, err
		}
		records = append(records, rec)
		switch {
		case r.State != before:
			steps = append(steps, Change{verbOf[r.State], r, by})
		case by != nil:
			steps = append(steps, Change{VerbVote, r, by})
		} // else it was asked for once more, which is no news
	}
	if len(records) == 0 {
		return nil, nil
	}
	for _, s := range steps {
		if s.Verb.approves() {
			if err := b.o.Record(s); err != nil {
				return nil, err
			}
		}
	}
	if err := b.o.Store.PutApprovals(ctx, records...); err != nil {
		return nil, err
	}
	for i := range changed {
		b.note(&changed[i])
		b.tell(&changed[i])
	}
	for i := range steps {
		if !steps[i].Verb.approves() {
			told = errors.Join(told, b.o.Record(steps[i]))
		}
		b.o.Announce(&steps[i].Request)
	}
	return told, nil
}

// note keeps what there is to know of a request that is open.
func (b *Book) note(r *Request) {
	if !r.State.Open() {
		delete(b.open, r.ID)
		return
	}
	l := &live{written: b.now()}
	l.deadline, _ = r.Deadline()
	b.open[r.ID] = l
	select {
	case b.earlier <- struct{}{}:
	default:
	}
}

// tell shows a change to who watches all.
func (b *Book) tell(r *Request) {
	for w := range b.watchers {
		select {
		case w <- *r:
		default: // too slow: it learns so, and begins again
			delete(b.watchers, w)
			close(w)
		}
	}
}

// newID is 64 random bits: no id tells how many requests there are. (Since Go
// 1.24 crypto/rand.Read does not fail.)
func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// now is without the monotonic clock, which no store keeps.
func (b *Book) now() time.Time { return b.o.Now().UTC().Round(0) }

// AskAll asks for calls of one sandbox that were decided a moment ago, all
// together; see the function [AskAll]. An error is a refusal.
func (b *Book) AskAll(ctx context.Context, calls []*Call) (Answers, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(calls) > 0 && !b.o.Lives(calls[0].Sandbox) {
		return Answers{IDs: make([]string, len(calls)), Reason: "the sandbox has ended", Code: "approval-cancelled"}, nil
	}
	now := b.now()
	var was []entry
	var err error
	if len(calls) > 0 {
		if was, err = b.load(ctx, store.ApprovalQuery{Sandbox: calls[0].Sandbox, EndedSince: now.Add(-DenialStands).UnixNano()}); err != nil {
			return Answers{}, err
		}
	}
	mine := make([]Request, len(was))
	for i := range was {
		mine[i] = was[i].Request
	}
	a, changed, err := AskAll(mine, calls, b.o.NewID, b.o.Limits, now)
	if err != nil {
		return Answers{}, err
	}
	if b.onlyCounted(was, changed, now) {
		return a, nil
	}
	told, err := b.put(ctx, was, changed, nil)
	if err == nil && a.Outcome == Released {
		err = told
	}
	if err != nil {
		return Answers{}, err
	}
	return a, nil
}

// onlyCounted keeps counts in memory for a moment where all that would be written
// is counts.
func (b *Book) onlyCounted(was []entry, changed []Request, now time.Time) bool {
	for i := range changed {
		r := &changed[i]
		l := b.open[r.ID]
		if l == nil || now.Sub(l.written) >= countEvery || !slices.ContainsFunc(was, func(e entry) bool { return e.ID == r.ID && e.State == r.State }) {
			return false
		}
	}
	for i := range changed {
		b.open[changed[i].ID].more++
	}
	return len(changed) > 0
}

// Vote is one person's word on a request; see [Request.Vote].
func (b *Book) Vote(ctx context.Context, id string, p Person, approve bool, t Terms, comment string) (Request, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	was, err := b.get(ctx, id)
	if err != nil {
		return Request{}, err
	}
	if !b.o.Lives(was.Sandbox) {
		return was.Request, ErrDecided // Sweep ends it
	}
	r, refused := was.Vote(p, approve, t, comment, b.now())
	if refused != nil && r.State == was.State {
		return r, refused
	}
	by := &p
	if refused != nil {
		by = nil // its time was over
	}
	told, err := b.put(ctx, []entry{was}, []Request{r}, by)
	if err != nil {
		return was.Request, err
	}
	return r, errors.Join(refused, told)
}

// Supersede ends a request that is open because other rules decide now: those
// that by wrote, nil where it was just found so. One that is over stays as it is.
func (b *Book) Supersede(ctx context.Context, id, why string, by *Person) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	was, err := b.get(ctx, id)
	if err != nil {
		return err
	}
	r := was.At(b.now())
	if r.State.Open() {
		r = r.next(Superseded, why, b.now())
	}
	if r.State == was.State {
		return nil
	}
	told, err := b.put(ctx, []entry{was}, []Request{r}, by)
	return errors.Join(told, err)
}

func (b *Book) get(ctx context.Context, id string) (entry, error) {
	a, err := b.o.Store.Approval(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return entry{}, ErrNotFound
	}
	if err != nil {
		return entry{}, err
	}
	return b.decode(&a)
}

// Get returns a request as it is now.
func (b *Book) Get(ctx context.Context, id string) (Request, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, err := b.get(ctx, id)
	return e.At(b.now()), err
}

// Changed lists what is open, and what ended at a time or later: the oldest first.
func (b *Book) Changed(ctx context.Context, since time.Time) ([]Request, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list, err := b.load(ctx, store.ApprovalQuery{EndedSince: since.UnixNano()})
	out := make([]Request, 0, len(list))
	for _, e := range slices.Backward(list) {
		out = append(out, e.Request)
	}
	return out, err
}

// listPage is how many requests are read at one time.
const listPage = 200

// List yields requests as they are now, newest first: those that are open, or
// all that are kept. What comes meanwhile is not among them. Stop when there are
// enough: what is kept of a node has no small bound.
func (b *Book) List(ctx context.Context, all bool) iter.Seq2[Request, error] {
	return func(yield func(Request, error) bool) {
		var last *store.ApprovalPlace
		for {
			page, err := b.page(ctx, all, last)
			if err != nil {
				yield(Request{}, err)
				return
			}
			for i := range page {
				if (all || page[i].State.Open()) && !yield(page[i], nil) {
					return
				}
			}
			if len(page) < listPage {
				return
			}
			end := &page[len(page)-1]
			last = &store.ApprovalPlace{Created: end.Created.UnixNano(), ID: end.ID}
		}
	}
}

func (b *Book) page(ctx context.Context, all bool, after *store.ApprovalPlace) ([]Request, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := store.ApprovalQuery{Limit: listPage, Before: after}
	if !all {
		q.EndedSince = math.MaxInt64
	}
	list, err := b.load(ctx, q)
	out := make([]Request, len(list))
	for i := range list {
		out[i] = list[i].At(b.now())
	}
	return out, err
}
