// SPDX-License-Identifier: Apache-2.0

package gatewayd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/budget"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/wire"
)

// money is the till of this process, with the memory that the keeper gave it.
type money struct {
	till *budget.Till
	toll *toll

	mu      sync.Mutex        // guards what follows
	journal *os.File          // the memory of the till's present life; nil before the first
	boxes   map[string]uint32 // sandboxes by their ids
}

// newMoney makes it. price says what calls cost at most; nil: nobody knows any price.
func newMoney(l *link, price bound, did cost) *money {
	m := &money{boxes: map[string]uint32{}}
	m.till = budget.NewTill(l, time.Now)
	m.toll = &toll{till: m.till, number: m.number, bound: price, cost: did, now: time.Now, counts: map[uint32]counts{}}
	return m
}

// reported is what an answer cost by the usage that is in it.
func reported(s *inference.Spent) (nano int64, estimated, ok bool) {
	return s.Usage.Cost, s.Usage.Estimated, s.Usage.CostKnown
}

func (m *money) number(sandbox string) (uint32, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, ok := m.boxes[sandbox]
	return n, ok
}

func (m *money) add(name string, number uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.boxes[name] = number
}

func (m *money) remove(number uint32) {
	m.mu.Lock()
	for name, n := range m.boxes {
		if n == number {
			delete(m.boxes, name)
		}
	}
	m.mu.Unlock()
	m.toll.forget(number) // after that nobody finds the number any more
}

// onBudgetJournal: the keeper asks for the memory of what is under way, which a new
// keeper does not have, or gives other memory, with which the till begins anew.
func (p *process) onBudgetJournal(payload []byte, fds []*os.File) ([]byte, []*os.File, error) {
	if len(fds) > 1 {
		return nil, nil, &wire.ProtocolError{Msg: "memory for budgets of several files"}
	}
	var q wire.BudgetJournal
	if err := q.Decode(payload); err != nil {
		return nil, nil, err
	}
	m := p.money
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(fds) == 1 {
		if err := m.open(q.Holder, fds[0]); err != nil {
			return nil, nil, err
		}
	}
	if m.journal == nil {
		return wire.BudgetJournal{}.Encode(), nil, nil
	}
	f, err := duplicate(m.journal)
	if err != nil {
		return nil, nil, err
	}
	return wire.BudgetJournal{Holder: m.till.Holder()}.Encode(), []*os.File{f}, nil
}

// open maps the memory and begins a life of the till. The mapping lasts as long as
// the process: calls of a life before may still write to theirs.
func (m *money) open(holder int64, f *os.File) error {
	own, err := duplicate(f)
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(int(own.Fd()), 0, budget.SlotsSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return errors.Join(fmt.Errorf("memory for budgets: %w", err), own.Close())
	}
	s, err := budget.NewSlots(mem, holder)
	if err != nil {
		return errors.Join(err, unix.Munmap(mem), own.Close())
	}
	if m.journal != nil {
		m.journal.Close()
	}
	m.journal = own
	m.till.Open(holder, s)
	return nil
}

// finishPatience is for the last word with the keeper.
const finishPatience = 2 * time.Second

// finish gives back what no call has. What a keeper does not hear now it reads in the
// memory.
func (m *money) finish(ctx context.Context, log *slog.Logger) {
	if m.till.Holder() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, finishPatience)
	defer cancel()
	if err := m.till.Finish(ctx); err != nil && ctx.Err() == nil {
		log.Warn("budgets were not given back; the keeper does it", "error", err)
	}
}

// Exchange asks the keeper about money. It waits for one as long as the process
// lives: only then is it certain what became of what was said.
func (l *link) Exchange(ctx context.Context, q *wire.BudgetExchange) (reply wire.BudgetReply, err error) {
	b, err := q.Encode()
	if err != nil {
		return reply, err
	}
	if b, err = l.call(ctx, wire.TypeBudgets, b); err != nil {
		return reply, err
	}
	return reply, reply.Decode(b)
}
