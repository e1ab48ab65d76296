// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"fmt"
	"testing"
	"time"
)

// model is the table, slowly: each bucket by its sums, each rule in turn.
type model struct {
	specs []Spec
	rates map[string]*sums // by "rule/split/what"
	open  map[string]int
	holds []*modelHold
	now   int64
}

type modelHold struct {
	h       Hold
	tokens  int64
	buckets []string // where it is open
	rules   []int
}

func (m *model) rate(key string, n uint64, w time.Duration) *sums {
	if m.rates[key] == nil {
		m.rates[key] = &sums{n: int64(n), per: int64(w)}
	}
	return m.rates[key]
}

// room says whether one rule lets the call pass.
func (m *model) room(rule int, split string, tokens int64) bool {
	s, key := m.specs[rule], fmt.Sprint(rule, "/", split)
	return (s.Requests == 0 || m.rate(key+"/r", s.Requests, s.RequestsWindow).room(m.now, 1)) &&
		(s.Tokens == 0 || tokens == 0 || m.rate(key+"/t", s.Tokens, s.TokensWindow).room(m.now, tokens)) &&
		(s.Concurrency == 0 || m.open[key] < int(s.Concurrency))
}

func (m *model) take(h *modelHold, rule int, split string, tokens int64) {
	s, key := m.specs[rule], fmt.Sprint(rule, "/", split)
	h.buckets, h.rules = append(h.buckets, key), append(h.rules, rule)
	m.open[key]++
	if s.Requests > 0 {
		m.rate(key+"/r", s.Requests, s.RequestsWindow).put(m.now, 1)
	}
	if s.Tokens > 0 && tokens > 0 {
		m.rate(key+"/t", s.Tokens, s.TokensWindow).put(m.now, tokens)
	}
}

// FuzzSequences compares a table with the model over any sequence of calls, ends
// and steps of a clock that also goes back.
func FuzzSequences(f *testing.F) {
	f.Add([]byte{0x10, 0x20, 0x30, 0x41, 0x50, 0x11, 0x22})
	f.Add([]byte{0, 1, 2, 3, 0xf8, 4, 5, 0xe0, 7, 1, 1, 1, 1, 0xf1, 0x83, 9, 0x41, 0x42, 0xc1, 0xc2, 0xc3})
	f.Fuzz(func(t *testing.T, ops []byte) {
		c := &clock{now: time.Hour}
		tab := New(Options{Clock: c})
		m := &model{rates: map[string]*sums{}, open: map[string]int{}, now: int64(c.now), specs: []Spec{
			{Requests: 3, RequestsWindow: 7 * time.Second},
			{Tokens: 50, TokensWindow: time.Second, Concurrency: 3},
			{Requests: 5, RequestsWindow: time.Minute, Tokens: 100, TokensWindow: 11 * time.Second, Concurrency: 4},
		}}
		for i, op := range ops[:min(len(ops), 120)] {
			arg := int64(op & 0x3f)
			switch op >> 6 {
			case 0, 1: // a call under the rules that three bits name
				m.call(t, tab, i, arg, op>>6 == 1)
			case 2: // the clock
				d := time.Duration(arg-20) * 100 * time.Millisecond
				c.move(d)
				_ = tab.now() // the latest time seen counts, and only looking sees
				m.now = max(m.now, int64(c.now))
			case 3:
				m.end(tab, int(arg))
			}
		}
	})
}

func (m *model) call(t *testing.T, tab *Table, i int, arg int64, split bool) {
	c := &Call{Tokens: uint64(arg >> 3 * 7), Owner: "o"}
	who := Split{}
	if split {
		who.Who = "w"
	}
	want := true
	for r := range m.specs {
		if arg&(1<<r) != 0 {
			c.Claims = append(c.Claims, Claim{Rule: tab.Rule(name(fmt.Sprint(r))), Spec: m.specs[r], Split: who})
			want = want && m.room(r, who.Who, int64(c.Tokens))
		}
	}
	h := &modelHold{tokens: int64(c.Tokens)}
	ref := tab.Take(c, &h.h)
	if got := ref.Kind == None; got != want {
		t.Fatalf("op %d: %+v, the model says %v", i, ref, want)
	}
	if !want {
		return
	}
	for r := range m.specs {
		if arg&(1<<r) != 0 {
			m.take(h, r, who.Who, h.tokens)
		}
	}
	m.holds = append(m.holds, h)
}

// end settles a call for as much as the estimate or more; what comes back has a
// test of its own, where less than exact is allowed.
func (m *model) end(tab *Table, n int) {
	if len(m.holds) == 0 {
		return
	}
	k := n % len(m.holds)
	h := m.holds[k]
	m.holds = append(m.holds[:k], m.holds[k+1:]...)
	more := int64(n / 2)
	h.h.Settle(tab, uint64(h.tokens+more))
	for i, key := range h.buckets {
		m.open[key]--
		if s := m.specs[h.rules[i]]; s.Tokens > 0 && more > 0 {
			m.rate(key+"/t", s.Tokens, s.TokensWindow).put(m.now, more)
		}
	}
}
