// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
)

// grants remembers which rules for one connection have had theirs. Such a rule
// stays in force until its connection ends, or the kernel would cut it; here
// nobody else gets through on it. The keeper hears of both ends and takes the
// rule back.
type grants struct {
	mu   sync.Mutex
	used map[string]time.Time // when its connection began; when it ended, once it has
	live map[string]bool      // its connection has not ended
}

// grantMemory is how long a rule is remembered behind its connection: longer
// than the keeper takes to take it back.
const grantMemory = 24 * time.Hour

// take tells whether the caller has the one connection.
func (g *grants) take(doc string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, used := g.used[doc]; used {
		return false
	}
	if g.used == nil {
		g.used, g.live = map[string]time.Time{}, map[string]bool{}
	}
	for d, at := range g.used {
		if !g.live[d] && now.Sub(at) > grantMemory {
			delete(g.used, d)
		}
	}
	g.used[doc], g.live[doc] = now, true
	return true
}

// ended says that the connection is over.
func (g *grants) ended(doc string, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used[doc] = now
	delete(g.live, doc)
}

// heldGrant is the rule for one connection that a flow has, if it has one.
type heldGrant struct {
	mu    sync.Mutex
	doc   string // document of the rule
	begun event.Event
	end   *ticket // for the event of its end
}

// claimed turns a decision into a denial when it rests on a rule for one
// connection that another connection has had. ev tells of the flow.
func (h *heldGrant) claimed(sb *sandbox, ev event.Event, d policy.Decision) policy.Decision {
	if !d.Allowed() || !d.Rule.Once() {
		return d
	}
	applyDecision(&ev, d)
	ev.Activity = event.ActivityClaim
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.doc == d.Rule.Doc {
		return d
	}
	// The end has its place from the beginning: a rule must not outlive it
	// because the keeper could not be told.
	t, end := sb.g.rec.reserve(sb.cfg.ID), sb.g.rec.reserve(sb.cfg.ID)
	if t == nil || end == nil || h.doc != "" || !sb.g.grants.take(d.Rule.Doc, time.Now()) {
		for _, place := range []*ticket{t, end} {
			if place != nil {
				place.release()
			}
		}
		return policy.Decision{ReasonCode: codeGrantUsed, Revision: d.Revision, Reason: "it was allowed for one connection, and that has been made"}
	}
	h.doc, h.begun, h.end = d.Rule.Doc, ev, end
	t.post(ev)
	return d
}

// release tells that the one connection of a rule has ended.
func (h *heldGrant) release(g *Gateway) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.doc == "" {
		return
	}
	g.grants.ended(h.doc, time.Now())
	ev := h.begun
	ev.Activity, ev.End = event.ActivityRelease, time.Now().UTC()
	ev.Verdict = event.Observed
	h.end.post(ev)
}

// claimed asks for the flow's own grant; see heldGrant.
func (f *flow) claimed(name string, d policy.Decision) policy.Decision {
	if !d.Allowed() || !d.Rule.Once() {
		return d
	}
	ev := f.event(event.KindNetwork)
	ev.DstName = name
	return f.grant.claimed(f.sb, ev, d)
}

// claim is claimed for a whole connection.
func (f *flow) claim(name string, r route) route {
	if d := f.claimed(name, r.decision); d.Effect != r.decision.Effect {
		return route{decision: d}
	}
	return r
}
