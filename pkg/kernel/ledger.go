// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"sync"

	"github.com/ringfence/ringfence/bpf"
)

// ledger remembers which entries this keeper wrote under which policy, so that
// dropping one costs what it holds and not a walk over everybody's. The zero
// value is ready.
type ledger struct {
	mu sync.Mutex
	of map[uint32]*page
}

// page is one policy. Deleted entries may still be listed.
type page struct {
	names   []bpf.FenceRfNameKey
	cidrs   []bpf.FenceRfCidrKey
	partial bool // an earlier keeper wrote too
}

func (l *ledger) pageLocked(policy uint32) *page {
	p := l.of[policy]
	if p == nil {
		if l.of == nil {
			l.of = make(map[uint32]*page)
		}
		p = &page{}
		l.of[policy] = p
	}
	return p
}

// note is called before entries are written.
func (l *ledger) note(policy uint32, names []bpf.FenceRfNameKey, cidrs []bpf.FenceRfCidrKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pageLocked(policy)
	p.names = append(p.names, names...)
	p.cidrs = append(p.cidrs, cidrs...)
}

// inherited says that a policy holds entries of an earlier keeper.
func (l *ledger) inherited(policy uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pageLocked(policy).partial = true
}

// forget returns what was noted, and whether that is all there can be: for a
// policy that this keeper never wrote it is not.
func (l *ledger) forget(policy uint32) (names []bpf.FenceRfNameKey, cidrs []bpf.FenceRfCidrKey, all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.of[policy]
	if p == nil {
		return nil, nil, false
	}
	delete(l.of, policy)
	return p.names, p.cidrs, !p.partial
}
