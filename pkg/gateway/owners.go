// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"sync"
)

// owners share out what all sandboxes have together: connections, and the way to the
// keeper. Nobody gets all of it by having many sandboxes.
type owners struct {
	mu   sync.Mutex // guards what follows, and what owners count
	of   map[uint32]*owner
	used int // connections and datagram flows of all
}

// owner is a user with sandboxes.
type owner struct {
	uid       uint32
	sandboxes int
	used      int           // connections and datagram flows
	asks      chan struct{} // a place for each question to the keeper, see ask
}

// ownerAsks is how many questions of one owner are on their way at once: a quarter of
// those that the keeper takes (wire.Inflight), so that a question of another is not
// behind thousands.
const ownerAsks = 16

// join is for a new sandbox.
func (o *owners) join(uid uint32) *owner {
	o.mu.Lock()
	defer o.mu.Unlock()
	who := o.of[uid]
	if who == nil {
		who = &owner{uid: uid, asks: make(chan struct{}, ownerAsks)}
		if o.of == nil {
			o.of = map[uint32]*owner{}
		}
		o.of[uid] = who
	}
	who.sandboxes++
	return who
}

// leave is for the end of one.
func (o *owners) leave(who *owner) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if who.sandboxes--; who.sandboxes == 0 {
		delete(o.of, who.uid)
	}
}

// take lets an owner have one connection or datagram flow more, of so many that there
// are: three quarters at most of what the others leave, so that something is left for
// whoever comes next, however many have come before.
func (o *owners) take(who *owner, all int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	left := all - (o.used - who.used)
	if who.used >= left-left/4 {
		return false
	}
	who.used++
	o.used++
	return true
}

func (o *owners) give(who *owner) {
	o.mu.Lock()
	defer o.mu.Unlock()
	who.used--
	o.used--
}

// ask waits for a place for a question to the keeper; done gives it back.
func (o *owner) ask(ctx context.Context) (done func(), err error) {
	select {
	case o.asks <- struct{}{}:
		return func() { <-o.asks }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
