// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
)

const usd = policy.NanoPerUSD

// exact is what a call with a declared cap asks for.
func exact(model string, nano int64) Ask { return Ask{Model: model, Least: nano, Most: nano} }

func TestACallMustFitInEveryHardBudget(t *testing.T) {
	w := newWorld(t, "{id: org, limit: 10 USD, window: month}", "{id: team, limit: 4 USD, window: day, per: [team]}",
		"{id: agent, limit: 1 USD, window: hour, per: [agent], hard: false}", "{id: big, limit: 3 USD, window: month, models: ['opus*'], per: [model]}")
	for _, c := range []struct {
		sandbox uint32
		model   string
		cost    int64
		kind    RefusalKind
		budget  string
	}{
		{0, "mini", 3 * usd, 0, ""}, // over the soft one of its agent
		{0, "mini", 2 * usd, RefusedLimit, "d/team"},
		{1, "mini", 1 * usd, 0, ""},
		{2, "mini", 1, RefusedLimit, "d/team"},
		{4, "mini", 1 * usd, 0, ""},        // another team
		{4, "opus-4", 3 * usd, 0, ""},      // fits all to the last cent
		{4, "opus-4", 1, RefusedLimit, ""}, // whichever is named: several are used up
	} {
		r, ref := w.reserve(c.sandbox, exact(c.model, c.cost))
		if ref != nil {
			if ref.Kind != c.kind || c.budget != "" && ref.Budget.String() != c.budget {
				t.Fatalf("%+v: %+v: %v", c, ref, ref)
			}
			continue
		}
		if c.kind != 0 {
			t.Fatalf("%+v was let through", c)
		}
		r.Sent()
		r.Settle(c.cost, false)
	}
	w.finish()
	w.whole(true)
	for _, c := range []struct {
		budget, who, model string
		want               int64
	}{
		{"org", "", "", 8 * usd}, {"team", "org:acme/team:a", "", 4 * usd}, {"team", "org:acme/team:b", "", 4 * usd},
		{"agent", "org:acme/agent:k", "", 4 * usd}, {"big", "", "opus-4", 3 * usd},
	} {
		if got := w.spent(c.budget, c.who, c.model); got != c.want {
			t.Errorf("%s of %q %s: spent %s, want %s", c.budget, c.who, c.model, policy.FormatUSD(got), policy.FormatUSD(c.want))
		}
	}
}

func TestWithoutACapTheCallGetsWhatRemains(t *testing.T) {
	w := newWorld(t, "{id: a, limit: 5 USD, window: day}", "{id: b, limit: 3 USD, window: week}")
	first, ref := w.reserve(0, Ask{Model: "m", Least: usd / 100, Most: 2 * usd})
	if ref != nil || first.Amount() != 2*usd {
		t.Fatalf("%d %v", first.Amount(), ref)
	}
	second, ref := w.reserve(0, Ask{Model: "m", Least: usd / 100, Most: 2 * usd})
	if ref != nil || second.Amount() != usd {
		t.Fatalf("%d %v", second.Amount(), ref)
	}
	if r, ref := w.reserve(0, Ask{Model: "m", Least: usd / 100, Most: 2 * usd}); ref == nil || ref.Kind != RefusedLimit || ref.Budget.ID != "b" || ref.RetryAt != time.Date(2026, 12, 7, 0, 0, 0, 0, time.UTC) { // the next Monday
		t.Fatalf("%v %+v", r, ref)
	}
	second.Release()
	if r, ref := w.reserve(0, Ask{Model: "m", Least: usd / 100, Most: 2 * usd}); ref != nil || r.Amount() != usd {
		t.Fatalf("what was released is not there: %v", ref)
	}
}

func TestFiftyCallsAtTheLimitOvershootNothing(t *testing.T) {
	w := newWorld(t, "{id: a, limit: 1 USD, window: day}", "{id: b, limit: 100 USD, window: day, per: [sandbox]}")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	run, stop := context.WithCancel(ctx)
	var clerk, calls sync.WaitGroup
	clerk.Go(func() { w.till.Run(run, func(err error) { t.Error(err) }) })
	const each = usd / 20
	var mu sync.Mutex
	var taken, refusals int
	for i := range 50 {
		calls.Go(func() {
			r, ref := w.till.Reserve(ctx, w.counts(uint32(i%8)), exact("m", each))
			mu.Lock()
			defer mu.Unlock()
			if ref != nil {
				if refusals++; ref.Kind != RefusedLimit {
					t.Error(ref)
				}
				return
			}
			taken++
			r.Sent()
			go r.Settle(each, false)
		})
	}
	calls.Wait()
	stop()
	clerk.Wait()
	if taken != 20 || refusals != 30 {
		t.Errorf("%d calls of %s were let through and %d refused, of a limit of 1 USD", taken, policy.FormatUSD(each), refusals)
	}
	w.finish()
	w.whole(true)
	if got := w.spent("a", "", ""); got != usd {
		t.Errorf("spent %s", policy.FormatUSD(got))
	}
}

func TestNoCallWaitsForTheKeeperWhileTheLeaseHasRoom(t *testing.T) {
	w := newWorld(t, "{id: a, limit: 100 USD, window: day}")
	r, ref := w.reserve(0, exact("m", usd/10))
	if ref != nil {
		t.Fatal(ref)
	}
	r.Settle(usd/10, false)
	w.refuse = true
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // whatever waits is refused
	n := 0
	for ; n < 100; n++ {
		r, ref := w.till.Reserve(ctx, w.counts(0), exact("m", usd/10))
		if ref != nil {
			if ref.Kind != RefusedAway {
				t.Error(ref)
			}
			break
		}
		r.Settle(usd/10, false)
	}
	if n < 5 || n > 15 {
		t.Errorf("%d calls on one lease", n)
	}
	w.clock.add(LeaseTime)
	w.refuse = false
	w.step()
	if r, ref := w.reserve(0, exact("m", usd/10)); ref != nil {
		t.Error(ref)
	} else {
		r.Release()
	}
	w.refuse = true
	w.clock.add(LeaseTime)
	if _, ref := w.till.Reserve(ctx, w.counts(0), exact("m", 1)); ref == nil || ref.Kind != RefusedAway {
		t.Errorf("a lease that expired was spent: %v", ref)
	}
}

func TestMoreThanReservedIsTakenAndTold(t *testing.T) {
	w := newWorld(t, "{id: a, limit: 1 USD, window: day}")
	r, _ := w.reserve(0, exact("m", usd))
	r.Sent()
	r.Settle(usd+7, false)
	r.Settle(5, false) // once
	if _, ref := w.reserve(0, exact("m", 1)); ref == nil || ref.Kind != RefusedLimit || ref.Left != 0 {
		t.Errorf("%v", ref)
	}
	w.finish()
	w.whole(true)
	if got := w.spent("a", "", ""); got != usd+7 || w.count(NoticeExcess) != 1 || w.notices[0].Amount != 7 && w.notices[1].Amount != 7 {
		t.Errorf("spent %d, told %+v", got, w.notices)
	}
}

func TestAlertsComeOnceInAWindow(t *testing.T) {
	w := newWorld(t, "{id: a, limit: 1 USD, window: day, alerts: [50, 80], onAlert: [{at: 90, action: notify}]}")
	spend := func(cents int64) {
		t.Helper()
		r, ref := w.reserve(0, exact("m", cents*usd/100))
		if ref != nil {
			t.Fatal(ref)
		}
		r.Sent()
		r.Settle(cents*usd/100, false)
		w.step()
	}
	told := func(want ...uint8) {
		t.Helper()
		var got []uint8
		for _, n := range w.notices {
			got = append(got, n.Percent)
		}
		if string(got) != string(want) {
			t.Errorf("told %v, want %v", got, want)
		}
	}
	spend(49)
	told()
	spend(1)
	told(50)
	spend(1)
	w.startKeeper()
	spend(38)
	told(50, 80)
	spend(11)
	told(50, 80, 90)
	w.clock.add(24 * time.Hour)
	spend(40)
	told(50, 80, 90)
	spend(15)
	told(50, 80, 90, 50)
	w.finish()
	w.whole(true)
}

func TestActionsOfABudget(t *testing.T) {
	w := newWorld(t, "{id: a, limit: 1 USD, window: day, onAlert: [{at: 50, action: downgrade}, {at: 70, action: require-approval}, {at: 90, action: block}]}")
	for i, c := range []struct {
		cents int64
		a     Ask
		kind  RefusalKind
	}{
		{49, Ask{}, 0}, {1, Ask{}, 0}, {1, Ask{}, RefusedDowngrade}, {20, Ask{Downgraded: true}, 0}, {1, Ask{Downgraded: true}, RefusedApproval},
		{1, Ask{}, RefusedApproval}, {20, Ask{Approved: true}, 0}, {1, Ask{Approved: true, Downgraded: true}, RefusedBlock},
	} {
		c.a.Model, c.a.Least, c.a.Most = "m", c.cents*usd/100, c.cents*usd/100
		r, ref := w.reserve(0, c.a)
		switch {
		case ref != nil && ref.Kind != c.kind || ref == nil && c.kind != 0:
			t.Fatalf("%d: %+v: %v", i, c, ref)
		case r != nil:
			r.Settle(c.a.Least, false)
		}
	}
	if _, err := w.ledger.Increase(context.Background(), Raise{Scope: "org:acme", Document: "d", Budget: "a", Amount: usd, For: time.Hour, By: "uid=0(root)"}); err != nil {
		t.Fatal(err)
	}
	if r, ref := w.reserve(0, exact("m", usd/100)); ref != nil {
		t.Errorf("the budget was increased: %v", ref)
	} else {
		r.Release()
	}
	w.clock.add(2 * time.Hour)
	if _, ref := w.reserve(0, exact("m", usd/100)); ref == nil || ref.Kind != RefusedBlock {
		t.Errorf("the increase is over: %v", ref)
	}
}

func TestALimitThatChangesCountsFromTheNextCallOn(t *testing.T) {
	w := newWorld(t, "{id: a, limit: 100 USD, window: day}")
	long, ref := w.reserve(0, exact("m", usd))
	if ref != nil {
		t.Fatal(ref)
	}
	long.Sent()
	w.rules.list = budgetsOf(t, "{id: a, limit: 3 USD, window: day}")
	for i := range 3 {
		r, ref := w.reserve(0, exact("m", usd))
		if (ref != nil) != (i == 2) {
			t.Fatalf("%d: %v", i, ref)
		}
		if r != nil {
			r.Sent()
			r.Settle(usd, false)
		}
	}
	w.rules.list = budgetsOf(t, "{id: a, limit: 4 USD, window: month}")
	if r, ref := w.reserve(0, exact("m", usd)); ref != nil {
		t.Fatal(ref)
	} else {
		r.Settle(usd, false)
	}
	if _, ref := w.reserve(0, exact("m", 1)); ref == nil {
		t.Fatal("what was spent before the window was made longer does not count")
	}
	long.Settle(usd, false)
	w.finish()
	w.whole(true)
}

func TestANewWindowBegins(t *testing.T) {
	for _, kind := range []string{"hour", "1h"} {
		w := newWorld(t, "{id: a, limit: 1 USD, window: "+kind+"}")
		long, ref := w.reserve(0, exact("m", usd/2))
		if ref != nil {
			t.Fatal(ref)
		}
		long.Sent()
		r, _ := w.reserve(0, exact("m", usd/2))
		r.Settle(usd/2, false)
		if _, ref := w.reserve(0, exact("m", 1)); ref == nil || !ref.RetryAt.After(w.clock.now()) {
			t.Fatalf("%s: %v", kind, ref)
		} else {
			w.clock.add(ref.RetryAt.Sub(w.clock.now()))
		}
		if kind == "hour" { // what is under way counts where it began
			r, ref := w.reserve(0, exact("m", usd))
			if ref != nil {
				t.Fatal(kind, ref)
			}
			r.Settle(usd, false)
		}
		w.clock.add(-40 * time.Minute) // the clock goes back: the newest window stays
		if _, ref := w.reserve(0, exact("m", usd)); ref == nil {
			t.Errorf("%s: a clock that went back opened a window again", kind)
		}
		long.Settle(usd/2, false)
		w.finish()
		w.whole(true)
	}
}
