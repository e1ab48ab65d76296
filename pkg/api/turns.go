// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"sync"
)

// turns bound what costs the daemon time for a question that changes nothing: so
// many at once, and one of each user, so that one who asks a lot waits for itself.
// Root waits for nobody. Who waits holds a connection, and those are bounded.
type turns struct {
	slots chan struct{}

	mu sync.Mutex // guards of
	of map[uint32]*turn
}

// turn is one user's.
type turn struct {
	slot  chan struct{} // of one
	users int           // who hold it or wait for it
}

func newTurns(atOnce int) *turns {
	return &turns{slots: make(chan struct{}, atOnce), of: map[uint32]*turn{}}
}

// take waits for a turn; done gives it back.
func (t *turns) take(ctx context.Context, uid uint32) (done func(), err error) {
	if uid == 0 {
		return func() {}, nil
	}
	own := t.join(uid)
	select {
	case own.slot <- struct{}{}:
	case <-ctx.Done():
		t.leave(uid)
		return nil, ctx.Err()
	}
	select {
	case t.slots <- struct{}{}:
	case <-ctx.Done():
		<-own.slot
		t.leave(uid)
		return nil, ctx.Err()
	}
	return func() {
		<-t.slots
		<-own.slot
		t.leave(uid)
	}, nil
}

func (t *turns) join(uid uint32) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of[uid] == nil {
		t.of[uid] = &turn{slot: make(chan struct{}, 1)}
	}
	t.of[uid].users++
	return t.of[uid]
}

func (t *turns) leave(uid uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of[uid].users--; t.of[uid].users == 0 {
		delete(t.of, uid)
	}
}
