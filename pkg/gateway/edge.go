// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"maps"
	"slices"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
)

// Conditions of rules change what policy says without a new revision: a window
// ends. New connections and requests are decided at their own time. What runs in a
// sandbox for which such a rule is is decided again at each edge, exactly as for a
// new revision, with nothing kept that was judged before: idle upstream connections
// were judged, too. Other sandboxes do not notice.

// judgeLocked has what runs decided on the snapshot in force, at this moment, and
// sees to the next one at which that may change. edge: the snapshot is the same as
// before.
func (g *Gateway) judgeLocked(edge bool) {
	g.forgetEdgeLocked()
	snap, all := g.inForce()
	if snap == nil {
		return
	}
	g.judged = g.wall() // before deciding: an edge that comes meanwhile is not missed
	for _, sb := range all {
		if e := sb.epoch.Load(); !edge || e == nil || e.view.Timed() {
			sb.setSnapshot(snap)
			g.judges.want(sb)
		}
	}
	g.awaitEdgeLocked(snap)
}

// inForce is the snapshot and who is served. Whoever is added later has it, or a
// later one.
func (g *Gateway) inForce() (*policy.Snapshot, []*sandbox) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.snapshot, slices.Collect(maps.Values(g.sandboxes))
}

// awaitEdgeLocked sets the timer for the next look.
func (g *Gateway) awaitEdgeLocked(snap *policy.Snapshot) {
	g.forgetEdgeLocked()
	next := snap.NextChange(g.judged)
	if next.IsZero() || g.ctx.Err() != nil {
		return
	}
	wait := min(max(next.Sub(g.wall()), 0), g.opt.Limits.ClockLook)
	g.edge = time.AfterFunc(wait, g.lookAtClock)
}

// lookAtClock decides again if an edge has passed since the last time, or the
// clock was set back.
func (g *Gateway) lookAtClock() {
	g.changing.Lock()
	defer g.changing.Unlock()
	if g.edge == nil {
		return // told to stop while it came
	}
	snap, _ := g.inForce()
	now := g.wall()
	if next := snap.NextChange(g.judged); now.Before(g.judged) || !next.IsZero() && !now.Before(next) {
		g.judgeLocked(true)
		return
	}
	g.awaitEdgeLocked(snap)
}

// wall is what the clock shows. Times of time.Now compare by the monotonic clock,
// by which no clock is ever set back.
func (g *Gateway) wall() time.Time { return g.opt.Clock().Round(0) }

func (g *Gateway) forgetEdgeLocked() {
	if g.edge != nil {
		g.edge.Stop()
		g.edge = nil
	}
}
