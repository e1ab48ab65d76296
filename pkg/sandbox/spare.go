// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"time"
)

// A spare is a launch that has no request yet: a number, a directory with a
// certificate authority, a cgroup behind programs that deny everything, a waiting
// ringfence-init in namespaces of its own, and the gateway's listeners in them.
// It has no uid, no policy, no record and no name, is known to nobody, and nothing
// of an agent has been near it. Its init ends by itself when the keeper does; what
// then is left of it the next keeper removes as it does with any launch that was
// cut short.

// spareAge is after how long a spare gives way to a new one. Its mount namespace
// is a copy of the host's: where that one's mounts are private (no systemd) what
// the host unmounts would stay mounted in it.
const spareAge = time.Minute

// sparePause is how long after a launch the next spare is made: the agent that
// was just started goes first.
const sparePause = 10 * time.Millisecond

// Spare makes a spare if there is none and the options want one.
func (m *Manager) Spare() {
	m.sparing.Lock()
	defer m.sparing.Unlock()
	m.mu.Lock()
	want := m.o.Spare && !m.closed && m.spare == nil
	m.mu.Unlock()
	if want {
		m.makeSpare()
	}
}

// spareSoon makes one a while after a launch, once for however many launches.
func (m *Manager) spareSoon() {
	if m.o.Spare && m.spareDue.CompareAndSwap(false, true) {
		time.AfterFunc(sparePause, func() {
			m.spareDue.Store(false)
			m.Spare()
		})
	}
}

// renewSpare replaces a spare that has waited long.
func (m *Manager) renewSpare(old *launch) {
	m.mu.Lock()
	still := m.spare == old
	if still {
		m.spare = nil
	}
	m.mu.Unlock()
	if still {
		old.drop()
		m.Spare()
	}
}

func (m *Manager) makeSpare() {
	l := m.newLaunch()
	err := l.prepare(context.Background())
	m.mu.Lock()
	keep := err == nil && !m.closed
	if keep {
		m.spare = l
	}
	m.mu.Unlock()
	if keep {
		time.AfterFunc(spareAge, func() { m.renewSpare(l) })
		return
	}
	l.drop()
	if err != nil {
		m.o.Logger.Warn("no sandbox could be prepared ahead; the next launch takes longer, or says why it cannot be", "error", err)
	}
}

// prepare runs the steps that need no request.
func (l *launch) prepare(ctx context.Context) error {
	for _, lanes := range phases {
		for _, steps := range lanes {
			for _, st := range steps {
				if !st.ahead {
					continue
				}
				if err := st.run(l, ctx); err != nil {
					return launchError(st.name, err)
				}
			}
		}
	}
	l.ahead = true
	return nil
}

// drop gives up a launch that no request came for.
func (l *launch) drop() {
	l.takeBack()
	l.close()
}

// takeSpare returns the spare if it serves this request, or nil.
func (m *Manager) takeSpare(r *Request) *launch {
	if r.RootInside { // its user namespace must own the others
		return nil
	}
	m.mu.Lock()
	l := m.spare
	m.spare = nil
	m.mu.Unlock()
	if l == nil || l.s.Record.Init.Alive() {
		return l
	}
	m.o.Logger.Warn("the sandbox that was prepared ahead has ended; another is made", "sandbox", l.s.Record.ID)
	l.drop()
	return nil
}

// Close lets no more sandboxes be launched and gives up the spare. Those that
// live go on.
func (m *Manager) Close() {
	m.sparing.Lock()
	defer m.sparing.Unlock()
	m.mu.Lock()
	m.closed = true
	l := m.spare
	m.spare = nil
	m.mu.Unlock()
	if l != nil {
		l.drop()
	}
}
