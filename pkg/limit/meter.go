// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"math"
	"math/bits"
	"time"
)

// meter is the level of one rate. What is in it drains evenly: n in per.
type meter struct {
	used uint64 // whole units
	frac uint64 // and this many parts of per, below it
	per  uint64 // what frac is of: nanoseconds of the window
	at   int64  // drained up to this time
	in   uint64 // all that was ever taken; wraps
}

// maxUsed is where a debt stops to grow, far from an overflow.
const maxUsed = 1 << 60

// drain lets the time up to now pass. An earlier time than before changes nothing:
// two calls may come to a bucket in another order than they looked at the clock.
func (m *meter) drain(now int64, n uint64, window time.Duration) {
	per := uint64(window)
	if m.per != per { // another window than before: a begun unit counts whole
		if m.frac > 0 {
			m.used, m.frac = m.used+1, 0
		}
		m.per = per
	}
	if now <= m.at || window <= 0 {
		return
	}
	dt := uint64(now - m.at)
	m.at = now
	if m.used|m.frac == 0 {
		return
	}
	hi, lo := bits.Mul64(dt, n)
	if hi >= per {
		m.used, m.frac = 0, 0
		return
	}
	q, r := bits.Div64(hi, lo, per)
	if q > m.used || q == m.used && r >= m.frac {
		m.used, m.frac = 0, 0
		return
	}
	m.used -= q
	if m.frac < r {
		m.used--
		m.frac += per
	}
	m.frac -= r
}

// room says whether cost fits below n.
func (m *meter) room(n, cost uint64) bool {
	return cost <= n && (m.used < n-cost || m.used == n-cost && m.frac == 0)
}

// put adds cost.
func (m *meter) put(cost uint64) {
	m.in += cost
	m.used += min(cost, maxUsed-min(m.used, maxUsed))
}

// back gives n of a take back, of which `of` was put in when in was mark: only
// what is still in the bucket. What came later lies above it.
func (m *meter) back(n, mark uint64) {
	if later := m.in - mark; later < m.used {
		m.used -= min(n, m.used-later)
	}
}

// remaining is what could be taken now.
func (m *meter) remaining(n uint64) uint64 {
	have := m.used
	if m.frac > 0 {
		have++
	}
	return n - min(n, have)
}

// wait is how long until cost fits below n; cost is at most n.
func (m *meter) wait(n, cost uint64) time.Duration {
	if m.room(n, cost) {
		return 0
	}
	return m.until(n-cost, n)
}

// until is how long until the level is down to a level below it.
func (m *meter) until(level, n uint64) time.Duration {
	if m.used < level {
		return 0
	}
	hi, lo := bits.Mul64(m.used-level, m.per)
	lo, c := bits.Add64(lo, m.frac, 0)
	lo, c2 := bits.Add64(lo, n-1, 0)
	hi += c + c2
	if hi >= n {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, n)
	return time.Duration(min(q, math.MaxInt64))
}

// level tells about the meter.
func (m *meter) level(n uint64) Level {
	return Level{Limit: n, Window: time.Duration(m.per), Remaining: m.remaining(n), Reset: m.until(0, n)}
}

// idleAt is when nothing will be in the meter, if nothing is put in. Without a
// limit nothing counts.
func (m *meter) idleAt(now int64, n uint64, window time.Duration) int64 {
	if n == 0 {
		return now
	}
	m.drain(now, n, window)
	if m.used|m.frac == 0 {
		return now
	}
	return later(m.at, m.until(0, n))
}

// later is at+d, at most the end of time.
func later(at int64, d time.Duration) int64 {
	if at > 0 && int64(d) > math.MaxInt64-at {
		return math.MaxInt64
	}
	return at + int64(d)
}
