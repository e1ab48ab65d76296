// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// clock is a clock that tests move. Calls that wait are tested in a bubble, see
// queue_test.go.
type clock struct{ now time.Duration }

func (c *clock) Now() time.Duration   { return c.now }
func (c *clock) move(d time.Duration) { c.now += d }
func (c *clock) After(time.Duration) (<-chan time.Time, func() bool) {
	panic("nobody waits by this clock")
}

func name(id string) Name { return Name{"org:acme", "doc", id} }

// perMinute is a rate of requests.
func perMinute(n uint64) Spec { return Spec{Requests: n, RequestsWindow: time.Minute} }

// one is a call under one rule.
func one(t *Table, id string, s Spec, split Split, tokens uint64) *Call {
	return &Call{Claims: []Claim{{Rule: t.Rule(name(id)), Spec: s, Split: split}}, Owner: split.Who, Tokens: tokens}
}

func TestEveryRateOrNone(t *testing.T) {
	c := &clock{}
	tab := New(Options{Clock: c})
	call := func() *Call {
		return &Call{Tokens: 10, Claims: []Claim{
			{Rule: tab.Rule(name("b")), Spec: Spec{Requests: 5, RequestsWindow: time.Minute, Tokens: 1000, TokensWindow: time.Hour}},
			{Rule: tab.Rule(name("a")), Spec: Spec{Tokens: 30, TokensWindow: time.Minute}},
			{Rule: tab.Rule(name("c")), Spec: Spec{Concurrency: 4}},
		}}
	}
	holds := make([]Hold, 5)
	for i := range 3 {
		if ref := tab.Take(call(), &holds[i]); ref.Kind != None {
			t.Fatalf("call %d: %+v", i, ref)
		}
	}
	ask := call()
	ref := tab.Take(ask, &holds[3])
	if ref.Kind != Tokens || ask.Claims[ref.Claim].Rule != tab.Rule(name("a")) || ref.Wait != 20*time.Second || ref.Never {
		t.Errorf("%+v", ref)
	}
	if want := (Level{30, time.Minute, 0, time.Minute}); ref.Tokens != want {
		t.Errorf("tokens %+v", ref.Tokens)
	}
	if want := (Level{5, time.Minute, 2, 36 * time.Second}); ref.Requests != want {
		t.Errorf("requests %+v: something was taken by a call that was refused", ref.Requests)
	}
	for range 20 {
		tab.Take(call(), &holds[3])
	}
	c.move(20 * time.Second)
	if ref := tab.Take(call(), &holds[3]); ref.Kind != None {
		t.Fatalf("there was no room when it was told: %+v", ref)
	}
	c.move(20 * time.Second)
	if ref := tab.Take(call(), &holds[4]); ref.Kind != Concurrency || ref.Wait != 0 {
		t.Errorf("a fifth call runs: %+v", ref)
	}
	holds[0].Settle(tab, 10)
	holds[0].Settle(tab, 10)
	if ref := tab.Take(call(), &holds[4]); ref.Kind != None {
		t.Errorf("%+v", ref)
	}
	if ref := tab.Take(call(), &holds[0]); ref.Kind == None {
		t.Error("a hold that ended twice gave two places")
	}
}

func TestTokensAreTruedUp(t *testing.T) {
	c := &clock{}
	tab := New(Options{Clock: c})
	s := Spec{Tokens: 100, TokensWindow: 100 * time.Second}
	var h, g Hold
	take := func(h *Hold, n uint64) Refusal { return tab.Take(one(tab, "a", s, Split{}, n), h) }
	if ref := take(&h, 40); ref.Kind != None {
		t.Fatal(ref)
	}
	h.Settle(tab, 250)
	if ref := take(&h, 1); ref.Kind != Tokens || ref.Wait != 151*time.Second || ref.Tokens.Remaining != 0 || ref.Tokens.Reset != 250*time.Second {
		t.Errorf("a debt is not waited for: %+v", ref)
	}
	c.move(150 * time.Second)
	if ref := take(&h, 1); ref.Kind != Tokens || ref.Wait != time.Second {
		t.Errorf("%+v", ref)
	}
	c.move(time.Second)
	if ref := take(&h, 1); ref.Kind != None {
		t.Errorf("%+v", ref)
	}
	h.Settle(tab, 1)
	c.move(time.Hour)
	take(&h, 100)
	if ref := take(&g, 1); ref.Kind != Tokens {
		t.Errorf("%+v", ref)
	}
	h.Settle(tab, 30)
	if ref := take(&g, 70); ref.Kind != None {
		t.Errorf("what was not used did not come back: %+v", ref)
	}
	if ref := take(&h, 1); ref.Kind != Tokens {
		t.Errorf("more came back than was not used: %+v", ref)
	}
	g.Cancel(tab)
	if ref := take(&h, 101); ref.Kind != Tokens || !ref.Never || ref.Patience != 0 {
		t.Errorf("larger than the bucket: %+v", ref)
	}
	if ref := take(&h, 0); ref.Kind != None {
		t.Errorf("a call without tokens: %+v", ref)
	}
}

func TestCancelGivesTheRequestBack(t *testing.T) {
	tab := New(Options{Clock: &clock{}})
	var h Hold
	for range 5 {
		if ref := tab.Take(one(tab, "a", perMinute(1), Split{}, 7), &h); ref.Kind != None {
			t.Fatalf("%+v", ref)
		}
		h.Cancel(tab)
	}
	tab.Take(one(tab, "a", perMinute(1), Split{}, 7), &h)
	h.Settle(tab, 0)
	if ref := tab.Take(one(tab, "a", perMinute(1), Split{}, 7), &h); ref.Kind != Requests || ref.Wait != time.Minute {
		t.Errorf("a call that was made came back: %+v", ref)
	}
}

// TestShadowIsCountedAndRefusesNothing: it counts as if it were in force, so what
// it would have refused is not in it.
func TestShadowIsCountedAndRefusesNothing(t *testing.T) {
	c := &clock{}
	tab := New(Options{Clock: c})
	would := ""
	for range 6 {
		call := &Call{Claims: []Claim{
			{Rule: tab.Rule(name("live")), Spec: perMinute(100)},
			{Rule: tab.Rule(name("shadow")), Spec: perMinute(2), Shadow: true},
		}}
		var h Hold
		if ref := tab.Take(call, &h); ref.Kind != None {
			t.Fatalf("%+v", ref)
		}
		if h.ShadowKind != None {
			would += fmt.Sprint(h.ShadowKind, " of ", call.Claims[h.Shadow].Rule.name.ID, "; ")
		} else {
			would += "-; "
		}
		h.Settle(tab, 0)
		c.move(10 * time.Second)
	}
	if want := "-; -; requests of shadow; -; requests of shadow; requests of shadow; "; would != want {
		t.Errorf("%s\nwant %s", would, want)
	}
	call := &Call{Claims: []Claim{
		{Rule: tab.Rule(name("none")), Spec: Spec{Concurrency: 1}},
		{Rule: tab.Rule(name("free")), Spec: perMinute(1), Shadow: true},
	}}
	var h, g Hold
	tab.Take(call, &h)
	h.Cancel(tab)
	tab.Take(&Call{Claims: call.Claims[:1]}, &h)
	tab.Take(call, &g)
	if level := tab.Rule(name("free")).last.requests.used; level != 0 {
		t.Errorf("a call that was refused took %d in shadow mode", level)
	}
}

func TestBucketsAreBounded(t *testing.T) {
	c := &clock{}
	tab := New(Options{Clock: c, Buckets: 100, OwnerBuckets: 10})
	take := func(owner, model string) Refusal {
		var h Hold
		call := one(tab, "a", perMinute(2), Split{Model: model}, 0)
		call.Owner = owner
		ref := tab.Take(call, &h)
		h.Settle(tab, 0)
		return ref
	}
	passed := 0
	for i := range 10_000 {
		if take("attacker", fmt.Sprint("m", i)).Kind == None {
			passed++
		}
	}
	if passed != 10 {
		t.Errorf("who varies the model got %d buckets, want 10", passed)
	}
	if ref := take("attacker", "more"); ref.Kind != Buckets || ref.Wait != 30*time.Second || ref.Never || ref.Patience != 0 {
		t.Errorf("%+v", ref)
	}
	if ref := take("attacker", "m3"); ref.Kind != None {
		t.Errorf("a bucket of its own: %+v", ref)
	}
	for i := range 9 {
		for j := range 10 {
			if ref := take(fmt.Sprint("o", i), fmt.Sprint(i, "/", j)); ref.Kind != None {
				t.Fatalf("others are kept out: %+v", ref)
			}
		}
	}
	if ref := take("late", "x"); ref.Kind != Buckets {
		t.Errorf("%+v", ref)
	}
	c.move(29 * time.Second)
	if ref := take("late", "x"); ref.Kind != Buckets {
		t.Errorf("a bucket in use was dropped: %+v", ref)
	}
	c.move(time.Second)
	if ref := take("late", "x"); ref.Kind != None {
		t.Errorf("%+v", ref)
	}
	if n := tab.Rule(name("a")).Len(); n != 2 { // m3 has one request left in it
		t.Errorf("%d buckets stay", n)
	}
}

// TestBucketsGoWithoutPressure: they do not stay until there are as many as may
// be.
func TestBucketsGoWithoutPressure(t *testing.T) {
	c := &clock{}
	tab := New(Options{Clock: c})
	var h Hold
	for i := range 20_000 {
		if ref := tab.Take(one(tab, "a", perMinute(60), Split{Who: fmt.Sprint(i)}, 0), &h); ref.Kind != None {
			t.Fatalf("%d: %+v", i, ref)
		}
		h.Settle(tab, 0)
		c.move(100 * time.Millisecond)
		if n := tab.Rule(name("a")).Len(); n > 2*minSweep {
			t.Fatalf("%d buckets, of which 10 are in use", n)
		}
	}
}

// TestOpenBucketsStay: the debt of a call that ran for long falls on its bucket.
func TestOpenBucketsStay(t *testing.T) {
	c := &clock{}
	tab := New(Options{Clock: c, Buckets: 1, OwnerBuckets: 1})
	s := Spec{Tokens: 100, TokensWindow: time.Minute}
	var h, g Hold
	tab.Take(one(tab, "a", s, Split{Model: "x"}, 10), &h)
	c.move(time.Hour)
	if ref := tab.Take(one(tab, "a", s, Split{Model: "y"}, 10), &g); ref.Kind != Buckets {
		t.Errorf("a bucket of a call that runs was dropped: %+v", ref)
	}
	h.Settle(tab, 500)
	if ref := tab.Take(one(tab, "a", s, Split{Model: "x"}, 10), &g); ref.Kind != Tokens {
		t.Errorf("a debt is lost: %+v", ref)
	}
	c.move(5 * time.Minute)
	if ref := tab.Take(one(tab, "a", s, Split{Model: "y"}, 10), &g); ref.Kind != None {
		t.Errorf("%+v", ref)
	}
}

// TestClockGoesBack: time stands still until it is where it was, also for what
// has been dropped meanwhile.
func TestClockGoesBack(t *testing.T) {
	c := &clock{now: time.Hour}
	tab := New(Options{Clock: c})
	var h Hold
	take := func() Kind {
		ref := tab.Take(one(tab, "a", perMinute(1), Split{}, 0), &h)
		h.Settle(tab, 0)
		return ref.Kind
	}
	take()
	c.move(time.Minute)
	r := tab.Rule(name("a"))
	r.mu.Lock()
	r.dropIdle(tab.now())
	r.mu.Unlock()
	for i, step := range []struct {
		move time.Duration
		want Kind
	}{{-time.Hour, None}, {0, Requests}, {time.Hour, Requests}, {-time.Hour, Requests}, {time.Hour + 59*time.Second, Requests}, {time.Second, None}} {
		c.move(step.move)
		if got := take(); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}

func TestRulesAreBounded(t *testing.T) {
	c := &clock{}
	tab := New(Options{Clock: c, Rules: 3})
	var h Hold
	for i := range 3 {
		tab.Take(one(tab, fmt.Sprint(i), perMinute(1), Split{}, 0), &h)
		h.Settle(tab, 0)
	}
	old := tab.Rule(name("1"))
	if ref := tab.Take(one(tab, "new", perMinute(1), Split{}, 0), &h); ref.Kind != Rules {
		t.Errorf("%+v", ref)
	}
	c.move(time.Minute)
	if ref := tab.Take(one(tab, "new", perMinute(1), Split{}, 0), &h); ref.Kind != None {
		t.Errorf("%+v", ref)
	}
	h.Settle(tab, 0)
	if !old.gone {
		t.Fatal("an idle rule stays")
	}
	tab.Take(&Call{Claims: []Claim{{Rule: old, Spec: perMinute(1)}}}, &h)
	h.Settle(tab, 0)
	if ref := tab.Take(one(tab, "1", perMinute(1), Split{}, 0), &h); ref.Kind != Requests {
		t.Errorf("who held a rule that was dropped counts apart: %+v", ref)
	}
	r := tab.Rule(name("1"))
	if ref := tab.Take(&Call{Claims: []Claim{{Rule: r, Spec: perMinute(9)}, {Rule: r, Spec: perMinute(9)}}}, &h); ref.Kind != Rules {
		t.Errorf("a rule twice: %+v", ref)
	}
	if ref := tab.Take(&Call{Claims: []Claim{{Spec: perMinute(9)}}}, &h); ref.Kind != Rules {
		t.Errorf("no rule: %+v", ref)
	}
}

// TestNewNumbersAreNoNewBucket: a changed limit holds at once, for what was taken
// too.
func TestNewNumbersAreNoNewBucket(t *testing.T) {
	tab := New(Options{Clock: &clock{}})
	var h Hold
	for range 10 {
		tab.Take(one(tab, "a", perMinute(10), Split{}, 0), &h)
		h.Settle(tab, 0)
	}
	if ref := tab.Take(one(tab, "a", perMinute(5), Split{}, 0), &h); ref.Kind != Requests || ref.Wait != 72*time.Second {
		t.Errorf("%+v", ref)
	}
	if ref := tab.Take(one(tab, "a", perMinute(11), Split{}, 0), &h); ref.Kind != None {
		t.Errorf("%+v", ref)
	}
}

// TestFiftyAtTheLimit: none too many passes, however many ask at once.
func TestFiftyAtTheLimit(t *testing.T) {
	tab := New(Options{Clock: &clock{}})
	rules := []string{"r", "t", "c", "own"}
	var passed, running, most atomic.Int64
	var wg sync.WaitGroup
	for g := range 50 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 3))
			for range 200 {
				call := &Call{Tokens: 10, Owner: fmt.Sprint(g)}
				for _, i := range rng.Perm(len(rules)) {
					cl := Claim{Rule: tab.Rule(name(rules[i]))}
					switch rules[i] {
					case "r":
						cl.Spec = Spec{Requests: 301, RequestsWindow: time.Hour}
					case "t":
						cl.Spec = Spec{Tokens: 5000, TokensWindow: time.Hour}
					case "c":
						cl.Spec = Spec{Concurrency: 7}
					case "own":
						cl.Spec, cl.Split = perMinute(1000), Split{Who: call.Owner}
					}
					call.Claims = append(call.Claims, cl)
				}
				var h Hold
				if tab.Take(call, &h).Kind != None {
					continue
				}
				passed.Add(1)
				for n := running.Add(1); ; {
					if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
						break
					}
				}
				running.Add(-1)
				h.Settle(tab, 10)
			}
		})
	}
	wg.Wait()
	if passed.Load() != 301 || most.Load() > 7 {
		t.Errorf("%d passed, want 301; %d at a time, want at most 7", passed.Load(), most.Load())
	}
	r := tab.Rule(name("t")).last
	if r.tokens.used != 3010 || r.open != 0 {
		t.Errorf("%d tokens taken, %d calls open", r.tokens.used, r.open)
	}
	own := uint64(0)
	for _, b := range tab.Rule(name("own")).buckets {
		own += b.requests.used
	}
	if own != 301 {
		t.Errorf("calls that were refused took: %d in the buckets of their own", own)
	}
}

func three(tab *Table) *Call {
	return &Call{Owner: "org:acme/team:eng/agent:bot", Tokens: 1, Claims: []Claim{
		{Rule: tab.Rule(name("a")), Spec: Spec{Requests: 1 << 40, RequestsWindow: time.Second, Tokens: 1 << 50, TokensWindow: time.Second, Concurrency: 100}},
		{Rule: tab.Rule(name("b")), Spec: Spec{Requests: 1 << 40, RequestsWindow: time.Second}, Split: Split{Who: "org:acme/team:eng/agent:bot"}},
		{Rule: tab.Rule(name("c")), Spec: Spec{Tokens: 1 << 50, TokensWindow: time.Second}, Split: Split{Who: "org:acme/team:eng", Model: "claude-sonnet-4-5"}},
	}}
}

func TestAllowedAllocatesNothing(t *testing.T) {
	tab := New(Options{})
	call := three(tab)
	var h Hold
	if n := testing.AllocsPerRun(1000, func() {
		if tab.Take(call, &h).Kind != None {
			t.Fatal("refused")
		}
		h.Settle(tab, 1)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTakeThree(b *testing.B) {
	tab := New(Options{})
	call := three(tab)
	holds := make([]Hold, 1)
	b.ReportAllocs()
	var spent time.Duration
	for b.Loop() {
		start := time.Now()
		if ref := tab.Take(call, &holds[0]); ref.Kind != None {
			b.Fatalf("%+v", ref)
		}
		spent += time.Since(start)
		holds[0].Settle(tab, 1)
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "ns/take+clock")
}

func BenchmarkTakeManyBuckets(b *testing.B) {
	tab := New(Options{Buckets: 1 << 17, OwnerBuckets: 1 << 17})
	calls := make([]*Call, 4096)
	for i := range calls {
		calls[i] = three(tab)
		for j := range calls[i].Claims {
			calls[i].Claims[j].Split.Who = fmt.Sprint("org:acme/team:eng/agent:", i)
			calls[i].Claims[j].Spec.Concurrency = 0
		}
		tab.Take(calls[i], new(Hold)) // so that all stay
	}
	var h Hold
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if ref := tab.Take(calls[i&4095], &h); ref.Kind != None {
			b.Fatalf("%+v", ref)
		}
		h.Settle(tab, 1)
		i++
	}
}
