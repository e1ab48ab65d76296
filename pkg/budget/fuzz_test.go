// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"bytes"
	"context"
	"testing"

	"github.com/ringfence/ringfence/pkg/wire"
)

// Whatever a gateway that was taken over says, and leaves in its memory: the ledger
// stays whole, what it has given away stays within the limits, and what is spent
// beyond them was settled above what was reserved, which is told.
func FuzzAHostileGateway(f *testing.F) {
	seed := func(q wire.BudgetExchange) []byte {
		q.Holder = 0
		b, err := q.Encode()
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	budgets := []string{"{id: a, limit: 3 USD, window: year}", "{id: b, limit: 2 USD, window: 30d, per: [model]}"}
	keys := budgetsOf(f, budgets...)
	ask := func(b int, model string, lease, have, most int64) wire.BudgetAsked {
		return wire.BudgetAsked{Sandbox: 1, Budget: keys[b].Key(), Model: model, Lease: lease, Have: have, Least: most, Most: most}
	}
	f.Add(seed(wire.BudgetExchange{First: 1, Asked: []wire.BudgetAsked{ask(0, "", 0, 0, usd), ask(1, "m", 0, 0, usd), ask(0, "", 2, 9*usd, usd)}}),
		seed(wire.BudgetExchange{First: 1, Settled: []wire.BudgetSettled{{Leases: []int64{2, 2}, Reserved: usd, Actual: 2 * usd}, {Leases: []int64{4}, Reserved: 1 << 62, Actual: 1 << 62}}, Returned: []wire.BudgetReturned{{Lease: 2, Granted: 1 << 62}, {Lease: 2, Ended: true}}}), []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, one, two, mem []byte) {
		w := newWorld(t, budgets...)
		var excess int64
		for _, b := range [][]byte{one, two, one} {
			var q wire.BudgetExchange
			if q.Decode(b) != nil {
				continue
			}
			q.Holder = w.holder
			if _, err := w.ledger.Exchange(context.Background(), &q); err == nil {
				for i := range q.Settled {
					for range q.Settled[i].Leases {
						excess = plus(excess, max(0, q.Settled[i].Actual-q.Settled[i].Reserved))
					}
				}
			}
			w.whole(false)
		}
		used := map[int64]int64{}
		for _, n := range w.ledger.leases {
			used[n.Account] = plus(used[n.Account], max(0, n.Used-n.Granted)) // what it settled of what it was not given
		}
		for id, a := range w.ledger.accounts {
			b, _ := w.rules.Budget(a.key())
			if s := a.since(a.span(&b.Window, w.clock.now()).start); s.leased > b.Limit || s.leased > 0 && plus(s.amount, s.leased) > plus(b.Limit, plus(used[id], excess)) {
				t.Errorf("%s: %d are spent and %d leased of %d", a.Who, s.amount, s.leased, b.Limit)
			}
		}
		copy(w.mem[16:], mem)
		under, err := ReadSlots(bytes.NewReader(w.mem), w.holder)
		if err != nil {
			under = nil
		}
		if err := w.ledger.Close(context.Background(), w.holder, under); err != nil {
			t.Fatal(err)
		}
		w.whole(true)
	})
}
