// SPDX-License-Identifier: Apache-2.0

package gateway

import "time"

// Conditions of rules change what policy says without a new revision: a window
// ends. New connections and requests are decided at their own time. What runs in a
// sandbox for which such a rule is is decided again at each edge, exactly as for a
// new revision, with nothing kept that was judged before: idle upstream connections
// were judged, too. Other sandboxes do not notice.

// judgeLocked decides what runs on the snapshot in force, at this moment, and sees
// to the next one at which that may change. edge: the snapshot is the same as
// before.
func (g *Gateway) judgeLocked(edge bool) {
	g.forgetEdgeLocked()
	if g.snapshot == nil {
		return
	}
	g.judged = g.wall() // before deciding: an edge that comes meanwhile is not missed
	for _, sb := range g.sandboxes {
		if e := sb.epoch.Load(); !edge || e == nil || e.view.Timed() {
			sb.setSnapshot(g.snapshot)
		}
	}
	g.awaitEdgeLocked()
}

// awaitEdgeLocked sets the timer for the next look.
func (g *Gateway) awaitEdgeLocked() {
	g.forgetEdgeLocked()
	next := g.snapshot.NextChange(g.judged)
	if next.IsZero() || g.ctx.Err() != nil {
		return
	}
	wait := min(max(next.Sub(g.wall()), 0), g.opt.Limits.ClockLook)
	g.edge = time.AfterFunc(wait, g.lookAtClock)
}

// lookAtClock decides again if an edge has passed since the last time, or the
// clock was set back.
func (g *Gateway) lookAtClock() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.edge == nil {
		return // told to stop while it came
	}
	now := g.wall()
	if next := g.snapshot.NextChange(g.judged); now.Before(g.judged) || !next.IsZero() && !now.Before(next) {
		g.judgeLocked(true)
		return
	}
	g.awaitEdgeLocked()
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
