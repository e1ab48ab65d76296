// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"runtime"
	"sync"
	"time"
)

// What is open is decided again when policy changes, or the time at which rules
// hold. A new epoch counts for new connections and requests from the moment it is
// put in force, before anything is decided again. How long that takes is up to who
// wrote the conditions and opened the connections, so no lock of the gateway is held
// meanwhile, and it goes in turns: each owner of sandboxes takes one turn after the
// other, together with the other owners, and its sandboxes take its turns one after the other.

// judgeTurn is how long one turn lasts, and what is being decided when it is over.
const judgeTurn = time.Millisecond

// judged is what policy is asked about again: a connection or a datagram flow.
type judged interface {
	// judgeAgain ends what e does not allow.
	judgeAgain(e *epoch)
}

// round is one look at everything that a sandbox has open. Each is decided on the
// epoch in force at its turn: an older one never has the last word.
type round struct {
	epoch *epoch // in force when the round began; what was opened since began on it or a later one
	left  []judged
}

// judges are those who decide again what is open.
type judges struct {
	turns chan struct{} // a place for each turn; who waits gets one in the order of asking

	mu     sync.Mutex            // guards what follows, and judging and round of each sandbox between turns
	queues map[uint32][]*sandbox // by owner; one that has an entry has a goroutine
}

// newJudges leaves half of the processors to what the gateway does for others. There
// are two places at least, for two owners.
func newJudges() *judges {
	return &judges{turns: make(chan struct{}, max(2, runtime.GOMAXPROCS(0)/2)), queues: map[uint32][]*sandbox{}}
}

// want has everything that is open in a sandbox decided on the epoch in force. It
// does not wait.
func (j *judges) want(sb *sandbox) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if sb.judging {
		return // who is at it looks at the end whether there is a newer epoch
	}
	sb.judging = true
	queue, working := j.queues[sb.cfg.Owner]
	j.queues[sb.cfg.Owner] = append(queue, sb)
	if !working {
		go j.work(sb.cfg.Owner)
	}
}

// work takes an owner's turns as long as there is something to decide.
func (j *judges) work(owner uint32) {
	for sb := j.next(owner); sb != nil; sb = j.next(owner) {
		j.turns <- struct{}{}
		sb.judgeSome()
		<-j.turns
		j.done(sb)
	}
}

// next is the sandbox whose turn it is, nil when the owner has none.
func (j *judges) next(owner uint32) *sandbox {
	j.mu.Lock()
	defer j.mu.Unlock()
	queue := j.queues[owner]
	if len(queue) == 0 {
		delete(j.queues, owner)
		return nil
	}
	j.queues[owner] = queue[1:]
	return queue[0]
}

// done is for a sandbox that has had a turn: it waits for the next one, if there is
// something left.
func (j *judges) done(sb *sandbox) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(sb.round.left) == 0 && sb.round.epoch == sb.epoch.Load() {
		sb.judging = false
		return
	}
	j.queues[sb.cfg.Owner] = append(j.queues[sb.cfg.Owner], sb)
}

// judgeSome goes on with a sandbox's round for a turn, or begins the next round.
func (sb *sandbox) judgeSome() {
	r := &sb.round
	if len(r.left) == 0 {
		r.epoch = sb.epoch.Load() // first, see round
		r.left = sb.open()
	}
	for began := time.Now(); len(r.left) > 0; {
		if sb.ctx.Err() != nil {
			r.left = nil // its end has ended all of them
			return
		}
		next := r.left[0]
		r.left = r.left[1:]
		next.judgeAgain(sb.epoch.Load())
		if time.Since(began) >= judgeTurn {
			break
		}
	}
	if len(r.left) == 0 {
		sb.settled.Store(r.epoch.snap.Revision())
	}
}

// open lists what is open.
func (sb *sandbox) open() (out []judged) {
	sb.mu.Lock()
	for f := range sb.flows {
		out = append(out, f)
	}
	sb.mu.Unlock()
	for _, a := range sb.associations.all() {
		out = append(out, a)
	}
	return out
}
