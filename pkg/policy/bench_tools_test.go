// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/ringfence/ringfence/pkg/scope"
)

// manyTools has n rules on tools, of several layers and tenants: a quarter each
// allows, blocks, asks and obliges, on exact names and on prefixes. when is a
// condition for every allow, nil for none.
func manyTools(tb testing.TB, n int, when *When) *Snapshot {
	tb.Helper()
	const perDoc = 50
	var docs []Document
	for i := 0; i < n; i += perDoc {
		d := Document{Kind: KindPolicy, Name: fmt.Sprint("doc", i), File: "bench.yaml", Policy: &Policy{}}
		d.Scope = sel([]string{"org:acme", "org:acme/team:eng", fmt.Sprintf("org:acme/team:eng/agent:a%d", i%97), fmt.Sprintf("org:other%d", i%13)}[(i/perDoc)%4])
		for j := i; j < min(i+perDoc, n); j++ {
			r := Rule{ID: fmt.Sprint("r", j), Section: SectionTools, Line: j, Server: scope.Exact(fmt.Sprint("server", j%(1+n/20)))}
			r.Tool = scope.Pattern{Text: fmt.Sprintf("do%d_", j%5), Wild: true}
			if j%3 == 0 {
				r.Tool = scope.Exact(fmt.Sprintf("do%d_this", j%5))
			}
			switch j % 4 {
			case 0, 1:
				r.Effect, r.When = Allow, when
			case 2:
				r.Effect = RequireApproval
			case 3:
				r.NoEffect, r.Rate = true, &Rate{Requests: 1, RequestsWindow: 1e9}
			}
			if j%11 == 0 {
				r.Effect, r.NoEffect, r.When, r.Rate = Block, false, nil, nil
			}
			d.Policy.Tools = append(d.Policy.Tools, r)
		}
		docs = append(docs, d)
	}
	docs = append(docs, Document{Kind: KindPolicy, Name: "floor", Scope: sel("org:acme"), Policy: &Policy{Tools: []Rule{
		{ID: "all", Section: SectionTools, Effect: Allow, Server: scope.Any, Tool: scope.Pattern{Text: "do1_", Wild: true}, Delegable: true},
		{ID: "never", Section: SectionTools, Server: scope.Any, Tool: scope.Exact("purge"), Mandatory: true},
	}}})
	s, problems := Compile(1, docs)
	if len(problems) > 0 {
		tb.Fatal(Problems(problems))
	}
	return s
}

// manyCalls are calls that meet those rules; each effect is a tenth of them at
// least.
func manyCalls(tb testing.TB, v *View, n int) []Call {
	tb.Helper()
	var out []Call
	seen := map[Effect]int{}
	for i := 0; len(out) < 256; i++ {
		c := Call{Server: fmt.Sprint("server", i*7%(1+n/20)), Tool: fmt.Sprintf("do%d_%s", i%7, []string{"this", "that"}[i/7%2]), Risk: RiskRead, Args: NewArgs(map[string]any{"n": float64(i % 20)})}
		d := v.Tool(&c)
		if i < 100000 && seen[d.Effect] > 120 { // the mix is made even
			continue
		}
		seen[d.Effect]++
		out = append(out, c)
	}
	for _, e := range []Effect{Block, RequireApproval, Allow} {
		if seen[e] < 26 {
			tb.Fatalf("of 256 calls %v: %s is less than a tenth", seen, e)
		}
	}
	return out
}

func BenchmarkTool(b *testing.B) {
	for _, c := range []struct {
		name string
		when *When
	}{{"plain", nil}, {"conditions", &When{Expression: "args.n < 10.0"}}} {
		for _, n := range []int{10, 1000, 10000, 100000} {
			v := manyTools(b, n, c.when).View(bot)
			calls := manyCalls(b, v, n)
			b.Run(fmt.Sprintf("%s/rules=%d", c.name, n), func(b *testing.B) {
				loop(b, func(i int) { v.Tool(&calls[i&255]) })
			})
		}
	}
}

// Deciding allocates nothing, whatever the effect and what comes with it, once
// the same has been decided before.
func TestTermsDoNotAllocate(t *testing.T) {
	v := manyTools(t, 1000, nil).View(bot)
	calls := manyCalls(t, v, 1000)
	terms := 0
	for i := range calls {
		if d := v.Tool(&calls[i]); d.Terms != nil {
			terms++
		}
	}
	if terms < 50 {
		t.Fatalf("%d decisions with terms: too few", terms)
	}
	if n := testing.AllocsPerRun(20, func() {
		for i := range calls {
			v.Tool(&calls[i])
		}
	}); n != 0 {
		t.Errorf("%d decisions allocate %v times", len(calls), n)
	}
	shadow := algCompile(t, strings.Replace(egressDoc(`{id: a, to: "**:443", action: require-approval}
  - {id: b, allow: "x.org:443", rate: {requests: 1/s}, mode: shadow}
  - {id: c, to: "*.org:443", action: redact}`), "name: ", "name: s", 1)).View(bot)
	if d := shadow.Egress("x.org", 443); d.Shadow() == nil || d.Shadow().Effect != Allow || d.Effect != RequireApproval {
		t.Fatalf("%+v", d)
	}
	if n := testing.AllocsPerRun(100, func() { shadow.Egress("x.org", 443) }); n != 0 {
		t.Errorf("with shadow rules: %v", n)
	}
}

// A principal that asks for ever new terms fills its own view and no more.
func TestTermsAreBounded(t *testing.T) {
	c := &termsCache{}
	for i := range maxTerms + 50 {
		c.add([]byte(fmt.Sprint(i)), &Terms{})
	}
	if n := len(*c.known.Load()); n != maxTerms {
		t.Errorf("%d terms are kept", n)
	}
	if c.get([]byte("7")) == nil || c.get([]byte(fmt.Sprint(maxTerms+7))) != nil {
		t.Error("the first are kept, the others not")
	}
}

// Many decide at once on one view: conditions are compiled and terms are kept
// while others decide.
func TestDecidingIsSafeForManyAtOnce(t *testing.T) {
	s := manyTools(t, 1000, &When{Expression: "args.n < 10.0"})
	calls := manyCalls(t, manyTools(t, 1000, &When{Expression: "args.n < 10.0"}).View(bot), 1000)
	v := s.View(bot) // nothing is compiled or kept yet
	want := make([]algVerdict, len(calls))
	for i := range calls {
		want[i] = algWords(manyTools(t, 1000, &When{Expression: "args.n < 10.0"}).View(bot).Tool(&calls[i]))
		if i == 15 {
			break
		}
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 2 * len(calls) {
				c := calls[i%len(calls)]
				if got := algWords(v.Tool(&c)); i%len(calls) < 16 && !got.equal(want[i%len(calls)]) {
					t.Errorf("%+v: %+v, alone %+v", c, got, want[i%len(calls)])
				}
			}
		})
	}
	wg.Wait()
}
