// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
)

var runsFlag = flag.Int("budget.runs", 60, "how many seeds the property test tries")

var seedFlag = flag.Uint64("budget.seed", 0, "replays the property test of this seed alone")

// under is a call under way, as the world outside knows it.
type under struct {
	r       *Reservation
	sandbox uint32
	model   string
	sent    bool
}

// sim is a run of calls, crashes and changes of the clock, and what is known of it
// from outside: what every call cost.
type sim struct {
	*world
	r       *rand.Rand
	calls   []under
	settled map[accountName]int64 // by account: what the ledger has to have
	excess  map[accountName]int64
	raised  map[string]int64
	told    int // settlements above what was reserved
}

// count adds to every account that counts a call.
func (s *sim) count(u under, amount, excess int64) {
	for _, b := range s.rules.list {
		if !b.Selects.Matches(who(u.sandbox), "", "") || !b.Covers(u.model) {
			continue
		}
		n := accountName{b.Ref.Scope, b.Ref.Doc, b.ID, b.Who(who(u.sandbox)), ""}
		if b.PerModel() {
			n.model = u.model
		}
		s.settled[n] += amount
		s.excess[n] += excess
	}
}

// simBudgets have windows that do not end while the run lasts, so that what an
// account spent in all is what it spent in its window.
var simBudgets = []string{
	"{id: org, limit: 20 USD, window: year}", "{id: team, limit: 7 USD, window: year, per: [team]}",
	"{id: agent, limit: 3 USD, window: year, per: [agent]}", "{id: box, limit: 2 USD, window: 366d, per: [sandbox], for: 'org:acme/team:a'}",
	"{id: model, limit: 9 USD, window: year, per: [model], models: [big]}", "{id: soft, limit: 1 USD, window: year, hard: false, per: [org]}",
}

func newSim(t testing.TB, seed uint64) *sim {
	return &sim{world: newWorld(t, simBudgets...), r: rand.New(rand.NewPCG(seed, 7)), settled: map[accountName]int64{}, excess: map[accountName]int64{}, raised: map[string]int64{}}
}

func (s *sim) one() {
	switch s.r.IntN(20) {
	case 0, 1, 2, 3, 4, 5:
		most := 1 + s.r.Int64N(usd/2)
		least := most
		if s.r.IntN(3) == 0 {
			least = 1 + s.r.Int64N(most)
		}
		u := under{sandbox: uint32(s.r.IntN(8)), model: []string{"big", "small"}[s.r.IntN(2)]}
		r, ref := s.reserve(u.sandbox, Ask{Model: u.model, Least: least, Most: most})
		if ref != nil {
			return
		}
		if r.Amount() < least || r.Amount() > most {
			s.t.Errorf("reserved %d of %d to %d", r.Amount(), least, most)
		}
		u.r = r
		s.calls = append(s.calls, u)
	case 6, 7, 8, 9:
		if n := len(s.calls); n > 0 {
			u := &s.calls[s.r.IntN(n)]
			u.r.Sent()
			u.sent = true
		}
	case 10, 11, 12, 13:
		s.end()
	case 14, 15:
		s.step()
	case 16:
		s.clock.add(time.Duration(s.r.Int64N(int64(20 * time.Minute))))
		if _, err := s.till.Step(context.Background(), true); err != nil && !errors.Is(err, errDisk) {
			s.t.Fatal(err)
		}
	case 17:
		s.clock.add(-time.Duration(s.r.Int64N(int64(time.Minute))))
	case 18:
		switch s.r.IntN(4) {
		case 0:
			s.crashGateway()
		case 1:
			s.startKeeper()
		case 2: // the keeper did what the gateway said, which was killed before it heard so
			if q, _, _ := s.till.build(false); q != nil {
				if _, err := s.Exchange(context.Background(), q); err != nil && !errors.Is(err, errDisk) {
					s.t.Fatal(err)
				}
			}
			s.crashGateway()
		}
	case 19:
		if s.r.IntN(10) == 0 {
			b := []string{"org", "team", "agent", "box", "model"}[s.r.IntN(5)]
			amount := 1 + s.r.Int64N(usd)
			s.retry(func() error {
				_, err := s.ledger.Increase(context.Background(), Raise{Scope: "org:acme", Document: "d", Budget: b, Amount: amount, For: time.Hour})
				s.raised[b] += amount // also what failed may stand there
				return err
			})
		}
	}
}

// end ends a call.
func (s *sim) end() {
	if len(s.calls) == 0 {
		return
	}
	i := s.r.IntN(len(s.calls))
	u := s.calls[i]
	s.calls = append(s.calls[:i], s.calls[i+1:]...)
	amount := u.r.Amount()
	switch {
	case !u.sent || s.r.IntN(10) == 0:
		u.r.Release()
		if u.sent {
			s.count(u, amount, 0)
		}
	case s.r.IntN(20) == 0:
		more := 1 + s.r.Int64N(usd/10)
		u.r.Settle(amount+more, false)
		s.count(u, amount+more, more)
		s.told++
	default:
		actual := s.r.Int64N(amount + 1)
		u.r.Settle(actual, s.r.IntN(2) == 0)
		s.count(u, actual, 0)
	}
}

// crashGateway is kill -9: a call that was sent costs what was reserved for it.
func (s *sim) crashGateway() {
	for _, u := range s.calls {
		if u.sent {
			s.count(u, u.r.Amount(), 0)
		}
	}
	s.calls = nil
	s.startGateway()
}

// check is what must hold of the money, whatever happened.
func (s *sim) check() {
	s.t.Helper()
	for len(s.calls) > 0 {
		s.end()
	}
	s.finish()
	s.whole(true)
	seen := map[accountName]bool{}
	for _, a := range s.ledger.accounts {
		n := nameOf(&a.BudgetAccount)
		seen[n] = true
		got := a.since(time.Time{}.AddDate(1900, 0, 0)).amount
		if got != s.settled[n] {
			s.t.Errorf("%+v: %d is settled, and its calls cost %d", n, got, s.settled[n])
		}
		b, _ := s.rules.Budget(a.key())
		if most := b.Limit + s.raised[b.ID] + s.excess[n]; b.Hard && got > most {
			s.t.Errorf("%+v: %d is settled; its limit and what providers reported beyond their caps is %d", n, got, most)
		}
	}
	for n, amount := range s.settled {
		if amount > 0 && !seen[n] {
			s.t.Errorf("%+v: its calls cost %d, and there is no such account", n, amount)
		}
	}
	told := map[[2]uint64]bool{}
	for _, n := range s.notices {
		if n.Kind == NoticeExcess {
			told[[2]uint64{uint64(n.Holder), n.Sequence}] = true
		}
	}
	if len(told) != s.told {
		s.t.Errorf("%d calls cost more than was reserved, %d were told", s.told, len(told))
	}
}

// Whatever calls, crashes and faults of the disk do at whatever moment: what is
// settled is what calls cost, which is at most the limit and what providers reported
// beyond declared caps, each of which is told; and nothing stays reserved.
func TestBudgetsHoldWhateverHappens(t *testing.T) {
	first, runs := uint64(time.Now().UnixNano()), *runsFlag
	if *seedFlag != 0 {
		first, runs = *seedFlag, 1
	}
	for i := range runs {
		seed := first + uint64(i)
		s := newSim(t, seed)
		s.disk.fault = func(int) fault {
			if s.r.IntN(30) == 0 {
				return fault(1 + s.r.IntN(4))
			}
			return works
		}
		for range 400 {
			s.one()
		}
		s.disk.fault = nil
		s.check()
		if t.Failed() {
			t.Fatalf("replay with -run %s -budget.seed %d", t.Name(), seed)
		}
	}
}

// The same run of calls with one fault, at each operation of the store in turn.
func TestAFaultAtEveryOperationLosesNothing(t *testing.T) {
	const seed = 20261130
	run := func(at int, f fault) *sim {
		s := newSim(t, seed)
		begin := s.disk.ops
		s.disk.fault = func(op int) fault {
			if op == begin+at {
				return f
			}
			return works
		}
		for range 120 {
			s.one()
		}
		s.check()
		return s
	}
	ops := run(-1, works).disk.ops
	if ops < 30 {
		t.Fatalf("the run has %d operations", ops)
	}
	for _, f := range []fault{fails, diesUndo, diesDone, liesAbout} {
		for at := 1; at <= ops; at++ {
			if run(at, f); t.Failed() {
				t.Fatalf("fault %d at operation %d of %d", f, at, ops)
			}
		}
	}
}

func TestWhatAGatewayLeaves(t *testing.T) {
	for _, c := range []struct {
		name           string
		lost, hostile  bool
		want           int64
		sent, released int
		unknown        bool
	}{
		{name: "its memory", want: (3 + 2 + 1) * usd, sent: 1, released: 1},
		{name: "nothing", lost: true, want: -1, unknown: true},
		{name: "lies", hostile: true, want: -1, unknown: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, "{id: a, limit: 100 USD, window: day}")
			take := func(amount int64) *Reservation {
				r, ref := w.reserve(0, exact("m", amount))
				if ref != nil {
					t.Fatal(ref)
				}
				return r
			}
			told, unsaid, sent := take(4*usd), take(4*usd), take(1*usd)
			_ = take(5 * usd) // never sent
			told.Sent()
			told.Settle(3*usd, false)
			w.step()
			unsaid.Sent()
			unsaid.Settle(2*usd, true) // the keeper does not hear of it
			sent.Sent()
			leased := int64(0)
			for _, n := range w.ledger.leases {
				leased += n.left()
			}
			under, err := ReadSlots(bytes.NewReader(w.mem), w.holder)
			if err != nil {
				t.Fatal(err)
			}
			if c.lost {
				under = nil
			}
			if c.hostile {
				under.calls[0].leases[0] = 999
			}
			for range 2 { // again does nothing
				if err := w.ledger.Close(context.Background(), w.holder, under); err != nil {
					t.Fatal(err)
				}
			}
			if c.want < 0 {
				c.want = 3*usd + leased
			}
			if got := w.spent("a", "", ""); got != c.want {
				t.Errorf("spent %s, want %s", policy.FormatUSD(got), policy.FormatUSD(c.want))
			}
			w.whole(true)
			n := w.notices[len(w.notices)-1]
			if n.Kind != NoticeCrash || n.Sent != c.sent || n.Released != c.released || n.Unknown != c.unknown {
				t.Errorf("%+v", n)
			}
			unsaid.Release()
			if _, err := w.till.Step(context.Background(), false); !errors.Is(err, ErrHolder) {
				t.Errorf("the gateway that was given up goes on: %v", err)
			}
		})
	}
}

func TestAGatewayThatDoesNotComeBackExpires(t *testing.T) {
	w := newWorld(t, "{id: a, limit: 1 USD, window: day}")
	if _, ref := w.reserve(0, exact("m", usd/2)); ref != nil {
		t.Fatal(ref)
	}
	holder := w.holder
	w.holder = 0
	w.startKeeper()
	sweep := func() {
		t.Helper()
		if err := w.ledger.Sweep(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if sweep(); len(w.ledger.leases) != 1 {
		t.Fatal("a lease was given up before it expired")
	}
	w.clock.add(LeaseTime + time.Second)
	if sweep(); len(w.ledger.leases) != 0 || w.ledger.Attach(holder) {
		t.Fatal("a lease that expired is still there")
	}
	w.whole(true)
	w.clock.add(400 * 24 * time.Hour)
	if sweep(); len(w.ledger.accounts)+len(w.disk.spent)+len(w.disk.accounts) != 0 {
		t.Error("an account is kept for ever")
	}
}

func TestSlotsThatNoGatewayOfOursLeft(t *testing.T) {
	good := memory()
	s, err := NewSlots(good, 7)
	if err != nil {
		t.Fatal(err)
	}
	c := s.take()
	c.leases, c.reserved = 1, 5
	c.state.Store(slotSent)
	if l, err := ReadSlots(bytes.NewReader(good), 7); err != nil || len(l.calls) != 1 {
		t.Fatal(l, err)
	}
	if l, err := ReadSlots(bytes.NewReader(memory()), 7); err != nil || len(l.calls) != 0 {
		t.Errorf("memory that was never used: %v %v", l, err)
	}
	if _, err := ReadSlots(bytes.NewReader(good), 8); err == nil {
		t.Error("memory of another gateway was read")
	}
	if _, err := ReadSlots(bytes.NewReader(good[:len(good)-1]), 7); err == nil {
		t.Error("memory that was cut short was read")
	}
	for name, spoil := range map[string]func(){
		"a state that is none": func() { c.state.Store(9) }, "leases": func() { c.leases = MaxLeases + 1 }, "an amount": func() { c.reserved = -1 },
	} {
		was := bytes.Clone(good)
		spoil()
		if _, err := ReadSlots(bytes.NewReader(good), 7); err == nil {
			t.Errorf("%s was read", name)
		}
		copy(good, was)
	}
	for n := 1; s.take() != nil; n++ {
		if n > numSlots {
			t.Fatal("there are more slots than there are")
		}
	}
}
