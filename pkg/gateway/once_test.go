// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestOneConnectionTakesAGrant(t *testing.T) {
	var g grants
	var won atomic.Int32
	var wg sync.WaitGroup
	now := time.Now()
	for range 50 {
		wg.Go(func() {
			if g.take("allow-x.once-1", now) {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d connections got through", won.Load())
	}
	if !g.take("allow-x.once-2", now) {
		t.Error("another grant was refused")
	}
	if g.take("allow-x.once-1", now.Add(2*grantMemory)) {
		t.Error("a second connection got through while the first lives")
	}
	g.ended("allow-x.once-1", now)
	g.ended("allow-x.once-2", now)
	g.take("allow-x.once-3", now.Add(2*grantMemory))
	if len(g.used) != 1 || len(g.live) != 1 {
		t.Errorf("%d grants are remembered, %d live", len(g.used), len(g.live))
	}
}
