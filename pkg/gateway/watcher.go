// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"sync"
	"time"
)

// watch is how often a connection that waits for an upstream is looked at.
const watch = 250 * time.Millisecond

// watcher interrupts the waits for upstreams now and then, so that who waits
// can see whether the client is still there. A deadline for each read would do
// the same, and costs a fifth of a download: each of them wakes the thread that
// polls.
type watcher struct {
	mu    sync.Mutex
	all   map[*straight]struct{}
	timer *time.Timer // runs while there are some
}

func (w *watcher) add(s *straight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[*straight]struct{}{}
	}
	if w.all[s] = struct{}{}; len(w.all) > 1 {
		return
	}
	if w.timer == nil {
		w.timer = time.AfterFunc(watch, w.look)
	} else {
		w.timer.Reset(watch)
	}
}

func (w *watcher) remove(s *straight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, s)
}

func (w *watcher) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.all {
		s.interrupt()
	}
	if len(w.all) > 0 {
		w.timer.Reset(watch)
	}
}

// past is a deadline that ends a wait at once.
var past = time.Unix(1, 0)

// interrupt ends a wait for the upstream that has lasted since the last look.
func (s *straight) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up == nil {
		return
	}
	if s.waited {
		s.interrupted = true
		_ = s.up.SetReadDeadline(past)
	}
	s.waited = true
}

// goesOn takes an interruption back: the wait begins anew.
func (s *straight) goesOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waited = false
	if s.interrupted && s.up != nil {
		s.interrupted = false
		_ = s.up.SetReadDeadline(time.Time{})
	}
}
