// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/budget"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/store/sqlite"
	"github.com/ringfence/ringfence/pkg/wire"
)

// moneyDaemon is as much of a daemon as budgets need, on a state directory.
func moneyDaemon(t *testing.T, dir string, told *[]budget.Notice) *Daemon {
	t.Helper()
	docs, problems := policy.ParseWhole("f", []byte("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: d}\nscope: org:acme\nbudgets:\n  - {id: b, limit: 100 USD, window: year}\n"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	snap, _ := policy.Compile(1, docs)
	logger := slog.New(slog.DiscardHandler)
	st, err := sqlite.Open(context.Background(), sqlite.Options{Dir: dir, Version: "test", Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{logger: logger, store: st}
	d.budgets = &budgets{snap: func() *policy.Snapshot { return snap }, journals: map[int64]*os.File{},
		living: func(context.Context, uint32) (scope.Principal, error) {
			return scope.Principal{Org: "acme", Team: "t", Agent: "a"}, nil
		}}
	if d.budgets.ledger, err = budget.NewLedger(context.Background(), budget.Options{Store: st, Policy: d.budgets, Now: time.Now, Record: func(_ context.Context, list []budget.Notice) error {
		*told = append(*told, list...)
		return nil
	}}); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *Daemon) closeMoney(t *testing.T) {
	t.Helper()
	d.budgets.close()
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// teller is a gateway, as far as budgets go.
type teller struct {
	t    *testing.T
	id   int64
	f    *os.File
	mem  []byte
	till *budget.Till
	d    *Daemon
}

func (g *teller) Call(_ context.Context, typ wire.Type, payload []byte, fds ...*os.File) ([]byte, []*os.File, error) {
	var q wire.BudgetJournal
	if err := q.Decode(payload); err != nil || typ != wire.TypeBudgetJournal {
		g.t.Fatal(typ, err)
	}
	if len(fds) == 1 {
		g.end()
		fd, err := unix.Dup(int(fds[0].Fd()))
		if err != nil {
			g.t.Fatal(err)
		}
		g.f, g.id = os.NewFile(uintptr(fd), "own"), q.Holder
		if g.mem, err = unix.Mmap(fd, 0, budget.SlotsSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			g.t.Fatal(err)
		}
		s, err := budget.NewSlots(g.mem, g.id)
		if err != nil {
			g.t.Fatal(err)
		}
		g.till = budget.NewTill(g, time.Now)
		g.till.Open(g.id, s)
	}
	if g.f == nil {
		return wire.BudgetJournal{}.Encode(), nil, nil
	}
	fd, err := unix.Dup(int(g.f.Fd()))
	if err != nil {
		g.t.Fatal(err)
	}
	return wire.BudgetJournal{Holder: g.id}.Encode(), []*os.File{os.NewFile(uintptr(fd), "shown")}, nil
}

func (g *teller) Exchange(ctx context.Context, q *wire.BudgetExchange) (wire.BudgetReply, error) {
	return g.d.budgets.ledger.Exchange(ctx, q)
}

// end is its end: its memory is nobody's then.
func (g *teller) end() {
	if g.mem != nil {
		if err := unix.Munmap(g.mem); err != nil {
			g.t.Fatal(err)
		}
		g.mem = nil
		g.f.Close()
	}
}

// take reserves for a call, and marks it as sent.
func (g *teller) take(nano int64, sent bool) {
	g.t.Helper()
	c := budget.Count(1, scope.Principal{Org: "acme", Team: "t", Agent: "a"}, g.d.budgets.snap().AllBudgets())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, ref := g.till.Reserve(context.Background(), c, budget.Ask{Model: "m", Least: nano, Most: nano})
		if ref != nil {
			g.t.Error(ref)
			return
		}
		if sent {
			r.Sent()
		}
	}()
	for {
		if _, err := g.till.Step(context.Background(), false); err != nil {
			g.t.Fatal(err)
		}
		select {
		case <-done:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func (d *Daemon) feedMoney(t *testing.T, g *teller) {
	t.Helper()
	g.d = d
	if err := d.feedBudgets(context.Background(), g); err != nil {
		t.Fatal(err)
	}
}

func (d *Daemon) standing() budget.Standing {
	return d.budgets.ledger.Standings(d.budgets.snap().AllBudgets())[0]
}

const dollar = policy.NanoPerUSD

func TestAGatewayThatIsGoneSettlesAsItsMemorySays(t *testing.T) {
	var told []budget.Notice
	d := moneyDaemon(t, t.TempDir(), &told)
	defer d.closeMoney(t)
	first := &teller{t: t}
	d.feedMoney(t, first)
	first.take(2*dollar, true)
	first.take(3*dollar, false)

	// It cannot be settled while somebody may write its memory.
	if _, err := d.budgets.read(ended(), first.id); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("memory that is in use was read: %v", err)
	}
	if s := d.standing(); s.Spent != 0 || s.Leased < 5*dollar {
		t.Fatalf("%+v", s)
	}
	first.end()
	second := &teller{t: t}
	defer second.end()
	d.feedMoney(t, second)
	if s := d.standing(); s.Spent != 2*dollar || s.Estimated != 2*dollar || s.Leased != 0 {
		t.Errorf("%+v", s)
	}
	if n := told[len(told)-1]; n.Kind != budget.NoticeCrash || n.Sent != 1 || n.Released != 1 || n.Unknown {
		t.Errorf("%+v", n)
	}
}

// ended is a context that has ended: whoever waits for something does not.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestANewKeeperTakesTheMemoryFromTheGateway(t *testing.T) {
	var told []budget.Notice
	dir := t.TempDir()
	d := moneyDaemon(t, dir, &told)
	g := &teller{t: t}
	d.feedMoney(t, g)
	g.take(2*dollar, true)
	g.take(3*dollar, false)
	before := g.id
	d.closeMoney(t)

	d = moneyDaemon(t, dir, &told)
	d.feedMoney(t, g)
	if g.id != before {
		t.Fatal("the gateway has other memory")
	}
	g.take(1*dollar, true)
	g.end()
	last := &teller{t: t}
	defer last.end()
	d.feedMoney(t, last)
	if s := d.standing(); s.Spent != 3*dollar || s.Leased != 0 {
		t.Errorf("%+v", s)
	}
	d.closeMoney(t)

	// Both gone, and the memory with them: what was leased is spent.
	d = moneyDaemon(t, dir, &told)
	next := &teller{t: t}
	defer next.end()
	d.feedMoney(t, next)
	next.take(1*dollar, false)
	leased := d.standing().Leased
	d.closeMoney(t)
	d = moneyDaemon(t, dir, &told)
	defer d.closeMoney(t)
	after := &teller{t: t}
	defer after.end()
	d.feedMoney(t, after)
	if s := d.standing(); s.Spent != 3*dollar+leased || s.Leased != 0 {
		t.Errorf("%+v, %d was leased", s, leased)
	}
	if n := told[len(told)-1]; !n.Unknown || n.Amount != leased {
		t.Errorf("%+v", n)
	}
}

// What a gateway can do to its memory so that nobody can tell what is in it costs all
// that it was leased.
func TestMemoryThatAGatewaySpoiled(t *testing.T) {
	for name, spoil := range map[string]func(g *teller) error{
		"sealed as it is": func(g *teller) error {
			_, err := unix.FcntlInt(g.f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL)
			return err
		},
		"lies": func(g *teller) error { g.mem[0]++; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			var told []budget.Notice
			d := moneyDaemon(t, t.TempDir(), &told)
			defer d.closeMoney(t)
			g := &teller{t: t}
			d.feedMoney(t, g)
			if err := g.f.Truncate(1 << 30); err == nil {
				t.Error("a gateway made its memory larger")
			}
			g.take(1*dollar, false)
			leased := d.standing().Leased
			if err := spoil(g); err != nil {
				t.Fatal(err)
			}
			g.end()
			next := &teller{t: t}
			defer next.end()
			d.feedMoney(t, next)
			if s := d.standing(); s.Spent != leased || s.Leased != 0 {
				t.Errorf("%+v, %d was leased", s, leased)
			}
		})
	}
}

func TestEventsOfBudgetsSayWhatHappened(t *testing.T) {
	ref := policy.RuleRef{Doc: "eng", ID: "month", File: "p.yaml", Line: 4}
	for want, n := range map[string]budget.Notice{
		"the budget eng/month of org:acme/team:x has passed 80 percent: 8.00 USD of 10.00 USD are spent": {Kind: budget.NoticeAlert, Budget: ref, Who: "org:acme/team:x", Percent: 80, Amount: 8 * dollar, Limit: 10 * dollar},
		"reported 0.50 USD more for a call than the cap":                                                 {Kind: budget.NoticeExcess, Budget: ref, Who: "org:acme", Amount: dollar / 2},
		"2 that were sent are settled at":                                                                {Kind: budget.NoticeCrash, Sent: 2, Released: 1},
		"all that it was leased counts as spent":                                                         {Kind: budget.NoticeCrash, Unknown: true},
	} {
		e := budgetEvent(&n, time.Now(), "1")
		if e.Kind != event.KindBudget || !strings.Contains(e.Reason, want) || !strings.HasPrefix(e.ReasonCode, "budget-") || n.Kind == budget.NoticeAlert && (e.Rule != "eng/month" || e.RuleAt != "p.yaml:4") {
			t.Errorf("%+v\nwant %s", e, want)
		}
	}
}
