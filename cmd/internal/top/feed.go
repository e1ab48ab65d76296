// SPDX-License-Identifier: Apache-2.0

package top

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
)

// Node is what the view asks of the daemon; [*api.Client] is one.
type Node interface {
	Status(ctx context.Context) (api.Status, error)
	Sandboxes(ctx context.Context) ([]api.Sandbox, error)
	Events(ctx context.Context, q api.EventQuery, yield func(line []byte) error) error
	Explain(ctx context.Context, event string) (api.Explanation, error)
	Policy(ctx context.Context, sandbox string) (api.PolicyView, error)
	Approvals(ctx context.Context, all bool) ([]api.Approval, error)
	WatchApprovals(ctx context.Context, yield func(api.Approval) error) error
	Vote(ctx context.Context, id string, r api.VoteRequest) (api.Approval, error)
	Drafts(ctx context.Context) ([]api.Draft, error)
	LastDraft(ctx context.Context, id string, r api.LastingRequest) (api.LastingRule, error)
	LastApproval(ctx context.Context, id string, r api.LastingRequest) (api.LastingRule, error)
}

const (
	every   = 2 * time.Second  // between two questions about the node
	settled = time.Second      // a stream that lives so long works
	retry   = time.Second      // before a stream is begun again
	audit   = 30 * time.Second // between two lists of the requests
	seldom  = 10 * time.Second // between two questions about drafts
	refused = 30 * time.Second // before what was refused is asked for again: each time is recorded
	overlap = 2 * time.Second  // of two streams of events
)

var errEnded = errors.New("the daemon ended the stream")

// feed keeps a state up to date: the events and the requests by the daemon's
// streams, the rest by asking every two seconds. What breaks is tried again for
// as long as ctx lives.
type feed struct {
	node  Node
	st    *state
	since time.Time // from where events are read
}

// run returns when ctx is over and everything has ended.
func (f *feed) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { repeat(ctx, every, f.poll) })
	wg.Go(func() {
		repeat(ctx, retry, func(ctx context.Context) error { return f.stream(ctx, linkEvents, f.follow) })
	})
	wg.Go(func() {
		repeat(ctx, retry, func(ctx context.Context) error { return f.stream(ctx, linkApprovals, f.watch) })
	})
	wg.Go(func() { repeat(ctx, seldom, f.askDrafts) })
	wg.Go(func() { repeat(ctx, audit, f.list) }) // of its failures the stream tells
	wg.Wait()
}

// repeat calls do, each time after a pause.
func repeat(ctx context.Context, pause time.Duration, do func(ctx context.Context) error) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if api.IsRefusal(do(ctx)) {
			t.Reset(refused)
			continue
		}
		t.Reset(pause)
	}
}

func (f *feed) poll(ctx context.Context) error {
	err := f.ask(ctx)
	if ctx.Err() == nil {
		f.st.link(linkNode, err, time.Now())
	}
	return err
}

func (f *feed) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	st, err := f.node.Status(ctx)
	if err != nil {
		return err
	}
	boxes, err := f.node.Sandboxes(ctx)
	if err != nil {
		return err
	}
	f.st.setNode(st, boxes)
	return nil
}

// askDrafts asks for what was denied by default.
func (f *feed) askDrafts(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	list, err := f.node.Drafts(within)
	if ctx.Err() != nil {
		return err
	}
	if err == nil {
		f.st.setDrafts(list)
	}
	f.st.link(linkDrafts, err, time.Now())
	return err
}

// stream runs one stream to its end, which is always a failure: either ctx is
// over or it has to be begun again.
func (f *feed) stream(ctx context.Context, which int, run func(ctx context.Context, works func()) error) error {
	var once sync.Once
	works := func() { once.Do(func() { f.st.link(which, nil, time.Now()) }) }
	t := time.AfterFunc(settled, works)
	err := run(ctx, works)
	t.Stop()
	once.Do(func() {}) // a timer that fires now says nothing any more
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		err = errEnded
	}
	f.st.link(which, err, time.Now())
	return err
}

func (f *feed) follow(ctx context.Context, works func()) error {
	since := f.since
	if last := f.st.newest(); last.After(since) {
		since = last.Add(-overlap)
	}
	return f.node.Events(ctx, api.EventQuery{Since: since, Follow: true}, func(line []byte) error {
		works()
		f.st.addEvent(line, time.Now())
		return ctx.Err()
	})
}

func (f *feed) watch(ctx context.Context, works func()) error {
	if err := f.list(ctx); err != nil {
		return err
	}
	return f.node.WatchApprovals(ctx, func(a api.Approval) error {
		works()
		f.st.setAsk(a)
		return ctx.Err()
	})
}

func (f *feed) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	mark := f.st.mark()
	list, err := f.node.Approvals(ctx, false)
	if err == nil {
		f.st.setAsks(mark, list)
	}
	return err
}

// newest is the time of the newest record that was read.
func (s *state) newest() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastAt
}
