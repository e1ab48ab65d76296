// SPDX-License-Identifier: Apache-2.0

package price

import (
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var day = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func rates(pairs ...any) (r Rates) {
	for i := 0; i < len(pairs); i += 2 {
		v, err := parseRate(pairs[i+1].(string), pairs[i].(Unit).scale(), false)
		if err != nil {
			panic(err)
		}
		r.Set(pairs[i].(Unit), v)
	}
	return r
}

func TestRatesAreReadExactly(t *testing.T) {
	for _, c := range []struct {
		text  string
		scale int
		up    bool
		want  Rate
		err   error
	}{
		{"1.25e-06", perOne, false, 1_250_000_000, nil},
		{"1.25E-06", perOne, false, 1_250_000_000, nil},
		{"1.25e-6", perOne, false, 1_250_000_000, nil},
		{"0.00000125", perOne, false, 1_250_000_000, nil},
		{"1.25", perMillion, false, 1_250_000_000, nil},
		{"0.1", perMillion, false, 100_000_000, nil},
		{"0.3", perMillion, false, 300_000_000, nil}, // as a float64 times 1e9 it is not whole
		{"2.4000000000000003e-07", perOne, true, 240_000_001, nil},
		{"2.4000000000000003e-07", perOne, false, 0, errFine},
		{"1e-15", perOne, false, 1, nil},
		{"1e-16", perOne, true, 1, nil},
		{"0", perMillion, false, 0, nil},
		{"0e64", perMillion, false, 0, nil},
		{"9223372036.854775807", perMillion, false, math.MaxInt64, nil},
		{"9223372036.854775808", perMillion, false, 0, errRange},
		{"1e64", perMillion, false, 0, errRange},
		{"1e65", perMillion, false, 0, errNumber},
		{"-1", perMillion, false, 0, errNumber},
		{"+1", perMillion, false, 0, errNumber},
		{"1.", perMillion, false, 0, errNumber},
		{".5", perMillion, false, 0, errNumber},
		{"1,5", perMillion, false, 0, errNumber},
		{"1e1e1", perMillion, false, 0, errNumber},
		{"0x10", perMillion, false, 0, errNumber},
		{"NaN", perMillion, false, 0, errNumber},
		{"", perMillion, false, 0, errNumber},
		{strings.Repeat("1", maxText+1), perMillion, false, 0, errNumber},
	} {
		got, err := parseRate(c.text, c.scale, c.up)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%q: %d, %v; want %d, %v", c.text, got, err, c.want, c.err)
		}
	}
}

func TestDollarsComeBackAsTheyWere(t *testing.T) {
	for _, nano := range []int64{0, 1, 999_999_999, 1_000_000_000, 12_345_678_901, math.MaxInt64} {
		back, err := parseRate(USD(nano), nanoDigits, false)
		if int64(back) != nano || err != nil {
			t.Errorf("%d: %s: %d, %v", nano, USD(nano), back, err)
		}
	}
	if s := USD(math.MinInt64 + 1); s != "-9223372036.854775807" {
		t.Error(s)
	}
}

// The figures are worked out by hand: dollars for a million times tokens.
func TestCostOfACall(t *testing.T) {
	long := Model{Rates: rates(Input, "3", Output, "15", CachedInput, "0.3", CacheWrite5m, "3.75", CacheWrite1h, "6", WebSearch, "0.01"),
		Tiers: []Tier{{200_000, rates(Input, "6", Output, "22.5", CacheWrite5m, "7.5")}}}
	long.settle()
	plain := Model{Rates: rates(Input, "1.25", Output, "10")}
	for _, c := range []struct {
		name              string
		m                 *Model
		u                 Usage
		nano              int64
		assumed, unpriced string
		tier              uint64
	}{
		{"nothing used", &long, Usage{}, 0, "", "", 0},
		{"one token rounds up", &plain, Usage{Input: 1}, 1250, "", "", 0},
		{"input and output", &long, Usage{Input: 1000, Output: 100}, 3_000_000 + 1_500_000, "", "", 0},
		{"cached input is counted once", &long, Usage{Input: 100, CachedInput: 900, Output: 10}, 300_000 + 270_000 + 150_000, "", "", 0},
		{"both kinds of cache writes", &long, Usage{CacheWrite5m: 1000, CacheWrite1h: 1000}, 3_750_000 + 6_000_000, "", "", 0},
		{"reasoning is output", &long, Usage{Reasoning: 100, Output: 100}, 3_000_000, "", "", 0},
		{"exactly at a tier is below it", &long, Usage{Input: 200_000}, 600_000_000, "", "", 0},
		{"above a tier all of it costs more", &long, Usage{Input: 200_001, Output: 1000}, 1_200_006_000 + 22_500_000, "", "", 200_000},
		{"cached input counts for the tier", &long, Usage{Input: 1, CachedInput: 200_000}, 6_000 + 60_000_000, "", "", 200_000},
		{"an hour is never cheaper than five minutes in a tier", &long, Usage{CacheWrite1h: 200_001}, 1_500_007_500, "", "", 200_000},
		{"searches are priced each", &long, Usage{WebSearch: 3}, 30_000_000, "", "", 0},
		{"no price of its own", &plain, Usage{CachedInput: 1000, CacheWrite1h: 1000}, 2_500_000, "cachedInput cacheWrite1h", "", 0},
		{"nothing to go by", &plain, Usage{Input: 1000, WebSearch: 2}, 1_250_000, "", "webSearch", 0},
		{"no fee for a call", &plain, Usage{Request: 1}, 0, "", "", 0},
		{"pictures billed by tokens", &plain, Usage{Image: 1, ImageOutput: 1000}, 10_000_000, "imageOutput", "", 0},
		{"pictures without a price", &plain, Usage{Image: 1}, 0, "", "image", 0},
	} {
		got, err := c.m.Cost(&c.u)
		if err != nil || got.Nano != c.nano || strings.Join(got.Assumed.List(), " ") != c.assumed || strings.Join(got.Unpriced.List(), " ") != c.unpriced || got.Tier != c.tier {
			t.Errorf("%s: %d assumed %v unpriced %v tier %d, %v", c.name, got.Nano, got.Assumed.List(), got.Unpriced.List(), got.Tier, err)
		}
	}
}

func TestCostIsTheExactSumRoundedUpOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		var m Model
		var u Usage
		want := new(big.Int)
		for i := range Unit(Units) {
			if i == Image || i == Request { // their own rules
				continue
			}
			v := Rate(rng.Int64() >> (rng.IntN(62) + 1))
			m.Rates.Set(i, v)
			u[i] = rng.Uint64() >> (rng.IntN(60) + 2)
			want.Add(want, new(big.Int).Mul(new(big.Int).SetUint64(u[i]), big.NewInt(int64(v))))
		}
		q, rest := new(big.Int).QuoRem(want, big.NewInt(mega), new(big.Int))
		if rest.Sign() > 0 {
			q.Add(q, big.NewInt(1))
		}
		got, err := m.Cost(&u)
		if !q.IsInt64() {
			if !errors.Is(err, ErrOverflow) {
				t.Fatalf("%v is no error", q)
			}
			continue
		}
		var sum int64
		for _, p := range got.Parts {
			if p < 0 {
				t.Fatalf("a negative part: %v", got.Parts)
			}
			sum += p
		}
		if err != nil || got.Nano != q.Int64() || sum != got.Nano {
			t.Fatalf("%d (parts %d), %v; want %v", got.Nano, sum, err, q)
		}
	}
}

func book(t *testing.T, tables ...Table) *Book {
	t.Helper()
	b, err := NewBook(tables...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func one(version string, from time.Time, provider, name, input string) Table {
	return Table{Version: version, Effective: from, Source: "test", Models: []Model{{Provider: provider, Name: name, Rates: rates(Input, input)}}}
}

func TestLookup(t *testing.T) {
	b := book(t,
		one("a", day, "openai", "gpt-x", "1"), one("b", day.AddDate(0, 1, 0), "openai", "gpt-x", "2"),
		one("c", day, "openai", "gpt-x*", "3"), one("d", day, "openai", "gpt-x-pro*", "4"),
		one("e", day, Any, "local-*", "0"), one("f", day.AddDate(0, 2, 0), "openai", "*", "5"),
		one("g", day, "vertex", "claude-s", "6"), one("h", day, Any, "gpt-y", "7"), one("i", day, "azure", "gpt-x-2026-02-30-2", "8"))
	later := day.AddDate(1, 0, 0)
	for _, c := range []struct {
		kind, model string
		at          time.Time
		version     string
		how         How
	}{
		{"openai", "gpt-x", day, "a", Exact},
		{"openai", "gpt-x", day.AddDate(0, 1, 0), "b", Exact},
		{"openai", "gpt-x", day.AddDate(0, 1, 0).Add(-1), "a", Exact},
		{"openai", "gpt-x", day.Add(-1), "", Missing},
		{"openai", "gpt-x-2026-01-31", day, "a", Dated},
		{"openai", "gpt-x-20260131", later, "b", Dated},
		{"vertex", "claude-s@20260131", later, "g", Dated},
		{"openai", "gpt-x-20269931", later, "c", Pattern}, // no date
		{"openai", "gpt-x-0613", later, "c", Pattern},
		{"openai", "gpt-x-pro-2", later, "d", Pattern},
		{"openai", "else", later, "f", Pattern},
		{"openai", "else", day, "", Missing},
		{"ollama", "local-1", later, "e", Pattern},
		{"openai", "local-1", later, "f", Pattern},
		{"openai", "local-1", day, "e", Pattern},
		{"openai", "gpt-y", later, "h", Exact},
		{"anthropic", "gpt-x", later, "", Missing},
		{"openai", "", day, "", Missing},
		{"openai", "GPT-X", day, "", Missing},
	} {
		m := b.Lookup(c.kind, c.model, c.at)
		if m.Version != c.version || m.How != c.how || m.Known() != (c.how != Missing) {
			t.Errorf("%s %s at %s: %q %s", c.kind, c.model, c.at.Format(time.DateOnly), m.Version, m.How)
		}
	}
	if n := testing.AllocsPerRun(100, func() { b.Lookup("openai", "gpt-x-2026-01-31", later) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestOrderOfTablesDoesNotMatter(t *testing.T) {
	x, y := one("x", day, "openai", "m", "1"), one("y", day, "openai", "m", "2")
	if a, b := book(t, x, y).Lookup("openai", "m", day), book(t, y, x).Lookup("openai", "m", day); a.Version != "y" || b.Version != "y" {
		t.Error(a.Version, b.Version)
	}
	if _, err := NewBook(x, x); err == nil {
		t.Error("one version twice")
	}
	x.Models = append(x.Models, x.Models[0])
	if _, err := NewBook(x); err == nil {
		t.Error("one model twice")
	}
}

func TestUnknownIsNeverZero(t *testing.T) {
	b := book(t, one("a", day, "openai", "cheap", "1"), one("b", day, "openai", "dear", "9"), one("c", day, "anthropic", "dearest", "20"))
	for _, c := range []struct {
		u                    Unknown
		b                    *Book
		kind, model          string
		ok, known, estimated bool
		name                 string
	}{
		{Deny, b, "openai", "cheap", true, true, false, "cheap"},
		{Deny, b, "openai", "else", false, false, false, ""},
		{Estimate, b, "openai", "else", true, true, true, "dear"},
		{Estimate, b, "groq", "else", true, true, true, "dearest"},
		{Estimate, nil, "groq", "else", false, false, true, ""},
		{Flag, b, "openai", "else", true, false, false, ""},
		{Flag, nil, "openai", "cheap", true, false, false, ""},
		{Unknown(9), b, "openai", "else", false, false, false, ""},
	} {
		m, estimated, ok := c.u.Decide(c.b, c.kind, c.model, day)
		if ok != c.ok || m.Known() != c.known || estimated != c.estimated || m.Known() && m.Model.Name != c.name {
			t.Errorf("%s %s %s: %+v %v %v", c.u, c.kind, c.model, m, estimated, ok)
		}
		if _, err := m.Cost(&Usage{Input: 1}); m.Known() == errors.Is(err, ErrUnknown) {
			t.Errorf("%s %s %s: the cost is no error", c.u, c.kind, c.model)
		}
	}
}
