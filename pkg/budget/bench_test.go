// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"context"
	"testing"
)

// BenchmarkCall is a call in four budgets whose leases have room: what a call costs
// the gateway, without the messages to the keeper.
func BenchmarkCall(b *testing.B) {
	w := newWorld(b, "{id: a, limit: 900000000 USD, window: year}", "{id: b, limit: 900000000 USD, window: year, per: [team]}",
		"{id: c, limit: 900000000 USD, window: year, per: [agent]}", "{id: d, limit: 900000000 USD, window: year, per: [sandbox, model]}")
	c := w.counts(0)
	r, ref := w.reserve(0, exact("m", 1e6*usd))
	if ref != nil {
		b.Fatal(ref)
	}
	r.Release()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r, ref := w.till.Reserve(context.Background(), c, exact("m", usd/100))
		if ref != nil {
			b.Fatal(ref)
		}
		r.Sent()
		r.Settle(usd/200, false)
		if i%100 == 99 {
			b.StopTimer()
			w.step()
			b.StartTimer()
		}
	}
}
