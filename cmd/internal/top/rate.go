// SPDX-License-Identifier: Apache-2.0

package top

import (
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

// tally counts what was decided, and what it cost.
type tally struct {
	allowed, denied, failed uint64
	calls                   uint64 // of models
	in, out, cached         uint64 // tokens
	estimated               bool   // some of the tokens
}

// add counts one record. Only what a sandbox tried is a verdict: not what
// operators did, and not the questions to people that come before one.
func (t *tally) add(e *event.Event) {
	n := max(e.Count, 1)
	switch e.Kind {
	case event.KindOperator, event.KindPolicy, event.KindApproval, event.KindSandboxStart, event.KindWorkspace, event.KindTamper:
		return
	case event.KindInference:
		t.calls += n
		t.in, t.out, t.cached = t.in+e.TokensIn, t.out+e.TokensOut, t.cached+e.TokensCached
		t.estimated = t.estimated || e.Estimated
	}
	switch {
	case !e.Decides() || e.Verdict == event.Observed:
	case e.Verdict != event.Allowed:
		t.denied += n
	case e.Failed:
		t.failed += n
	default:
		t.allowed += n
	}
}

func (t tally) tokens() uint64 { return t.in + t.out }

// spent is the number of tokens in a few characters.
func (t tally) spent() string {
	if t.estimated {
		return "~" + count(t.tokens())
	}
	return count(t.tokens())
}

func (t *tally) plus(o *tally) {
	t.allowed, t.denied, t.failed, t.calls = t.allowed+o.allowed, t.denied+o.denied, t.failed+o.failed, t.calls+o.calls
	t.in, t.out, t.cached, t.estimated = t.in+o.in, t.out+o.out, t.cached+o.cached, t.estimated || o.estimated
}

// window is how many seconds a rate is an average of.
const window = 10

// rate keeps the tallies of the last seconds, by the time of the records: what
// is read late is no burst.
type rate struct {
	slots [window + 2]struct {
		at int64
		n  tally
	}
}

func (r *rate) add(e *event.Event) {
	at := e.Time.Unix()
	if at < 0 {
		return
	}
	s := &r.slots[at%int64(len(r.slots))]
	switch {
	case s.at > at: // older than what is kept
		return
	case s.at < at:
		s.at, s.n = at, tally{}
	}
	s.n.add(e)
}

// last is the sum of the last whole seconds before now.
func (r *rate) last(now time.Time) (sum tally) {
	for i := range r.slots {
		if ago := now.Unix() - r.slots[i].at; ago >= 1 && ago <= window {
			sum.plus(&r.slots[i].n)
		}
	}
	return sum
}
