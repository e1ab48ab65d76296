// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

// sums is the slow oracle of a rate: all that was ever put in, and when. The
// level at a time is the largest, over every moment since which one may count,
// of what came since then less what drains in that time. Exact: in parts of the
// window.
type sums struct {
	n, per int64
	at     []int64
	cost   []int64
}

func (s *sums) put(at, cost int64) {
	s.at, s.cost = append(s.at, at), append(s.cost, cost)
}

// level is in parts: units times per.
func (s *sums) level(now int64) *big.Int {
	most, since := new(big.Int), new(big.Int)
	for i := len(s.at) - 1; i >= 0; i-- {
		since.Add(since, new(big.Int).Mul(big.NewInt(s.cost[i]), big.NewInt(s.per)))
		drained := new(big.Int).Mul(big.NewInt(now-s.at[i]), big.NewInt(s.n))
		if l := new(big.Int).Sub(since, drained); l.Cmp(most) > 0 {
			most = l
		}
	}
	return most
}

func (s *sums) room(now, cost int64) bool {
	full := new(big.Int).Mul(big.NewInt(s.n), big.NewInt(s.per))
	l := s.level(now)
	return l.Add(l, new(big.Int).Mul(big.NewInt(cost), big.NewInt(s.per))).Cmp(full) <= 0
}

func (m *meter) parts() *big.Int {
	l := new(big.Int).Mul(new(big.Int).SetUint64(m.used), new(big.Int).SetUint64(m.per))
	return l.Add(l, new(big.Int).SetUint64(m.frac))
}

var windows = []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour, 7, 1, 999_999_937}

// step is a time that matters for a rate: nothing, a fraction of a unit, about a
// unit, about a window, a jump.
func step(rng *rand.Rand, n, per int64) int64 {
	switch rng.IntN(8) {
	case 0:
		return 0
	case 1, 2, 3:
		return rng.Int64N(2*per/n + 2)
	case 4, 5:
		return per / n * rng.Int64N(5)
	case 6:
		return rng.Int64N(2 * per)
	}
	return rng.Int64N(1000 * per)
}

func TestRateIsExact(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		per := int64(windows[rng.IntN(len(windows))])
		n := 1 + rng.Int64N([]int64{3, 10, 1000, 1e6, 1e12}[rng.IntN(5)])
		s, m, now := sums{n: n, per: per}, meter{}, int64(rng.IntN(3))
		m.drain(now, uint64(n), time.Duration(per))
		for i := range 120 {
			now += step(rng, n, per)
			cost := int64(1)
			if rng.IntN(2) == 0 {
				cost = 1 + rng.Int64N(n)
			}
			where := fmt.Sprintf("seed %d, step %d: %d in %d, cost %d at %d", seed, i, n, per, cost, now)
			m.drain(now, uint64(n), time.Duration(per))
			if m.parts().Cmp(s.level(now)) != 0 {
				t.Fatalf("%s: level %v, sums say %v", where, m.parts(), s.level(now))
			}
			if got := m.room(uint64(n), uint64(cost)); got != s.room(now, cost) {
				t.Fatalf("%s: room %v", where, got)
			}
			exactWait(t, where, &s, &m, now, cost)
			if debt := rng.IntN(20) == 0; debt || s.room(now, cost) {
				s.put(now, cost)
				m.put(uint64(cost))
			}
		}
	}
}

// exactWait: at the time that is told there is room, and not before; and so for
// what remains and when nothing is left in it.
func exactWait(t *testing.T, where string, s *sums, m *meter, now, cost int64) {
	t.Helper()
	w := int64(m.wait(uint64(s.n), uint64(cost)))
	if !s.room(now+w, cost) || w > 0 && s.room(now+w-1, cost) {
		t.Fatalf("%s: not exact that there is room in %d", where, w)
	}
	if rest := int64(m.remaining(uint64(s.n))); rest > 0 && !s.room(now, rest) || rest < s.n && s.room(now, rest+1) {
		t.Fatalf("%s: not exact that %d remain", where, rest)
	}
	if r := int64(m.until(0, uint64(s.n))); s.level(now+r).Sign() != 0 || r > 0 && s.level(now+r-1).Sign() == 0 {
		t.Fatalf("%s: not exact that it is empty in %d", where, r)
	}
}

// TestRefund: what a call did not use comes back, and never more than if it had
// been known from the start.
func TestRefund(t *testing.T) {
	exact, all := 0, 0
	for seed := range uint64(800) {
		rng := rand.New(rand.NewPCG(seed, 2))
		n, per := 10+rng.Int64N(1000), int64(time.Minute)
		known, asked, m, now := sums{n: n, per: per}, sums{n: n, per: per}, meter{}, int64(0)
		type taken struct {
			at        int
			est, mark uint64
		}
		var open []taken
		for range 40 {
			now += step(rng, n, per)
			m.drain(now, uint64(n), time.Duration(per))
			if m.parts().Cmp(known.level(now)) < 0 || m.parts().Cmp(asked.level(now)) > 0 {
				t.Fatalf("seed %d: level %v is not between %v, as if all had been known, and %v, as if nothing had come back", seed, m.parts(), known.level(now), asked.level(now))
			}
			if k := len(open); k > 0 && rng.IntN(2) == 0 {
				j := rng.IntN(k)
				o := open[j]
				open = append(open[:j], open[j+1:]...)
				back := 1 + rng.Int64N(int64(o.est))
				known.cost[o.at] -= back
				m.back(uint64(back), o.mark)
				all++
				if m.parts().Cmp(known.level(now)) == 0 {
					exact++
				}
				continue
			}
			if cost := 1 + rng.Int64N(n); m.room(uint64(n), uint64(cost)) {
				known.put(now, cost)
				asked.put(now, cost)
				m.put(uint64(cost))
				open = append(open, taken{len(known.at) - 1, uint64(cost), m.in})
			}
		}
	}
	t.Logf("%d of %d refunds were exact, the others strict", exact, all)
	if exact*2 < all {
		t.Errorf("only %d of %d refunds are exact", exact, all)
	}
}

func TestOtherWindow(t *testing.T) {
	var m meter
	m.drain(0, 7, time.Minute)
	m.put(7)
	m.drain(int64(time.Second), 7, time.Minute)
	before := m.parts()
	m.drain(int64(time.Second), 7, time.Hour)
	if m.used != 7 || m.frac != 0 {
		t.Errorf("%v parts of a minute became %d + %d: a begun unit counts whole", before, m.used, m.frac)
	}
}

func TestClockOfARate(t *testing.T) {
	var m meter
	m.drain(int64(time.Hour), 10, time.Minute)
	m.put(10)
	m.drain(0, 10, time.Minute) // back
	m.drain(int64(time.Hour), 10, time.Minute)
	if m.used != 10 {
		t.Errorf("a clock that went back and forth gave %d", 10-m.used)
	}
	m.drain(1<<62, 10, time.Minute) // a jump of a century
	if m.used != 0 || m.at != 1<<62 {
		t.Errorf("%+v", m)
	}
	m.put(1 << 63)
	m.put(1 << 63)
	if m.used != maxUsed {
		t.Errorf("a debt of %d", m.used)
	}
	if w := m.wait(1, 1); w <= 0 {
		t.Errorf("wait %v", w)
	}
	var endless meter
	endless.put(3)
	endless.drain(1<<40, 3, 0)
	if endless.room(3, 1) {
		t.Error("a window of nothing is no limit")
	}
}
