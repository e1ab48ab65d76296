// SPDX-License-Identifier: Apache-2.0

package budget

// Reservation is the money of one call. Exactly one of Settle and Release ends it;
// what comes after that does nothing. It is safe for concurrent use, and a nil one is
// that of a call that nothing counts.
type Reservation struct {
	t      *Till
	life   uint64
	slot   *slot
	n      int
	of     [MaxLeases]*held
	amount int64

	// Guarded by t.mu.
	sent      bool
	over      bool
	actual    int64
	estimated bool
}

// Amount is what was reserved: what the call may cost at most.
func (r *Reservation) Amount() int64 {
	if r == nil {
		return 0
	}
	return r.amount
}

// Sent marks the call as sent: from now on it costs what was reserved, unless
// something else is settled. It is to be called before a byte goes to a provider.
func (r *Reservation) Sent() {
	if r == nil {
		return
	}
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	if r.over || r.life != r.t.life {
		return
	}
	r.sent = true
	r.slot.state.Store(slotSent)
}

// Settle ends the reservation with what the call cost; estimated: no provider said
// so. More than was reserved is taken all the same.
func (r *Reservation) Settle(actual int64, estimated bool) {
	if r == nil {
		return
	}
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	r.settle(min(max(actual, 0), MaxAmount), estimated)
}

func (r *Reservation) settle(actual int64, estimated bool) {
	t := r.t
	if r.over || r.life != t.life {
		return
	}
	r.over, r.actual, r.estimated = true, actual, estimated
	t.queue = append(t.queue, r)
	s := r.slot
	s.actual, s.sequence = actual, t.applied+uint64(len(t.queue))
	if estimated {
		s.estimated = 1
	}
	s.state.Store(slotSettled)
	for _, h := range r.of[:r.n] {
		h.reserved -= r.amount
		h.used = plus(h.used, actual)
		h.unconfirmed++
		if h.ended {
			h.granted = h.used + h.reserved
		}
	}
	nudge(t.settled)
}

// Release ends the reservation of a call that was not sent. One that was settles at
// what was reserved: nobody knows what it cost.
func (r *Reservation) Release() {
	if r == nil {
		return
	}
	t := r.t
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case r.over || r.life != t.life:
	case r.sent:
		r.settle(r.amount, true)
	default:
		r.over = true
		t.slots.give(r.slot)
		for _, h := range r.of[:r.n] {
			h.reserved -= r.amount
			if h.ended {
				h.granted = h.used + h.reserved
				nudge(t.settled)
			}
		}
	}
}
