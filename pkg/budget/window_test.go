// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
)

// window reads one as a document has it.
func window(t testing.TB, kind, zone string) *policy.BudgetWindow {
	t.Helper()
	if zone != "" {
		zone = ", zone: " + zone
	}
	return &budgetOf(t, "{id: b, limit: 1 USD, window: "+kind+zone+"}").Window
}

// budgetOf reads a budget as a document has it.
func budgetOf(t testing.TB, text string) *policy.Budget {
	t.Helper()
	return budgetsOf(t, text)[0]
}

func budgetsOf(t testing.TB, list ...string) []*policy.Budget {
	t.Helper()
	doc := "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: d}\nscope: org:acme\nbudgets:\n"
	for _, b := range list {
		doc += "  - " + b + "\n"
	}
	docs, problems := policy.ParseWhole("f", []byte(doc))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	s, problems := policy.Compile(1, docs)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return s.AllBudgets()
}

func TestWindowsBeginWhereTheCalendarSays(t *testing.T) {
	for _, c := range []struct{ kind, zone, at, start, until string }{
		{"day", "", "2026-03-29T12:00:00Z", "2026-03-29T00:00:00Z", "2026-03-30T00:00:00Z"},
		{"day", "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"},     // 23 hours
		{"day", "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"},     // 25 hours
		{"day", "America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"}, // there was no midnight
		{"day", "America/Sao_Paulo", "2018-02-18T02:30:00Z", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z"}, // the last hour twice
		{"day", "America/St_Johns", "2006-10-29T02:45:00Z", "2006-10-29T02:30:00Z", "2006-10-30T03:30:00Z"},  // 00:01 became 23:01: the day has begun once
		{"day", "Pacific/Apia", "2011-12-30T09:30:00Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"},      // the 30th did not exist
		{"hour", "", "2026-01-01T10:59:59Z", "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z"},
		{"hour", "Asia/Kolkata", "2026-01-01T10:15:00Z", "2026-01-01T09:30:00Z", "2026-01-01T10:30:00Z"},
		{"week", "", "2026-11-29T23:59:59Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"},
		{"week", "", "2026-11-30T00:00:00Z", "2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z"},
		{"month", "", "2024-02-29T10:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"},
		{"month", "Asia/Tokyo", "2026-01-31T15:00:00Z", "2026-01-31T15:00:00Z", "2026-02-28T15:00:00Z"},
		{"quarter", "", "2026-11-30T10:00:00Z", "2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"year", "", "2026-11-30T10:00:00Z", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"32h", "", "2026-01-02T00:30:00Z", "2025-12-31T16:00:00Z", "2026-01-02T01:00:00Z"},
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		s := spanOf(window(t, c.kind, c.zone), at)
		if start, until := s.start.UTC().Format(time.RFC3339), s.until.UTC().Format(time.RFC3339); start != c.start || until != c.until {
			t.Errorf("%s in %q at %s: %s to %s, want %s to %s", c.kind, c.zone, c.at, start, until, c.start, c.until)
		}
	}
}

// Whatever a zone's clocks do: a window is a stretch of time, windows follow each
// other without a gap, and none of its ends goes back.
func TestWindowsFollowEachOther(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	for _, zone := range []string{"UTC", "Europe/Berlin", "America/Sao_Paulo", "America/St_Johns", "Pacific/Apia", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Casablanca", "America/Havana", "Asia/Beirut", "Antarctica/Troll"} {
		for _, kind := range []string{"hour", "day", "week", "month", "quarter", "year"} {
			w := window(t, kind, zone)
			follow(t, w, zone+" "+kind, r, time.Date(1995, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2035, 1, 1, 0, 0, 0, 0, time.UTC))
		}
	}
	for _, kind := range []string{"1h", "24h", "30d", "366d", "7h13m"} {
		follow(t, window(t, kind, ""), kind, r, time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	}
}

func follow(t *testing.T, w *policy.BudgetWindow, name string, r *rand.Rand, from, to time.Time) {
	at := from.Add(time.Duration(r.Int64N(int64(time.Hour * 24 * 365))))
	for n := 0; n < 3000 && at.Before(to); n++ {
		s := spanOf(w, at)
		if at.Before(s.bucket) || !at.Before(s.until) || s.start.After(s.bucket) {
			t.Fatalf("%s: %s lies in %s .. %s", name, at, s.bucket, s.until)
		}
		for _, in := range []time.Time{s.bucket, s.until.Add(-1), s.bucket.Add(time.Duration(r.Int64N(int64(s.until.Sub(s.bucket)))))} {
			if o := spanOf(w, in); !o.bucket.Equal(s.bucket) || !o.until.Equal(s.until) || w.Unit != policy.BudgetRolling && !o.start.Equal(s.start) {
				t.Fatalf("%s: %s lies in %s .. %s, and %s of it in %s .. %s", name, at, s.bucket, s.until, in, o.bucket, o.until)
			}
		}
		next := spanOf(w, s.until)
		if !next.bucket.Equal(s.until) || next.start.Before(s.start) {
			t.Fatalf("%s: after %s .. %s comes %s .. %s", name, s.bucket, s.until, next.bucket, next.until)
		}
		at = s.until
		if w.Unit == policy.BudgetHour && n%5 == 0 {
			at = at.Add(time.Duration(r.Int64N(int64(time.Hour * 24 * 40))))
		}
	}
}
