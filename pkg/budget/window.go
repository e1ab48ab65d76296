// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
)

// span is where a moment lies in the windows of a budget. What is spent then
// counts in bucket; what was spent in buckets from start on counts against the
// limit; from until on it is another span.
type span struct {
	start, bucket, until time.Time
}

// steps of a rolling window.
const steps = 32

// spanOf is a function of the moment alone, and none of its parts goes back when
// the moment goes on.
func spanOf(w *policy.BudgetWindow, at time.Time) span {
	if w.Unit == policy.BudgetRolling {
		step := w.Length / steps
		bucket := floor(at, step)
		return span{floor(at.Add(-w.Length), step), bucket, bucket.Add(step)}
	}
	loc := w.Location()
	if w.Unit == policy.BudgetHour {
		return hourOf(at.In(loc))
	}
	first := begins(w.Unit, at.In(loc), 0)
	start, until := midnight(first, loc), midnight(begins(w.Unit, at.In(loc), 1), loc)
	if !at.Before(until) { // a clock that was set back over midnight: the day has begun once
		start, until = until, midnight(begins(w.Unit, at.In(loc), 2), loc)
	}
	return span{start, start, until}
}

func floor(t time.Time, step time.Duration) time.Time {
	n, s := t.UnixNano(), int64(step)
	down := n % s
	if down < 0 {
		down += s
	}
	return time.Unix(0, n-down)
}

// date is a day of a calendar, as UTC's midnight.
func date(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }

// begins is the first day of the window that a local time lies in, or of the nth
// after it.
func begins(u policy.BudgetUnit, t time.Time, n int) time.Time {
	y, m, d := t.Date()
	switch u {
	case policy.BudgetWeek:
		return date(y, m, d-(int(t.Weekday())+6)%7+7*n)
	case policy.BudgetMonth:
		return date(y, m+time.Month(n), 1)
	case policy.BudgetQuarter:
		return date(y, (m-1)/3*3+1+time.Month(3*n), 1)
	case policy.BudgetYear:
		return date(y+n, 1, 1)
	}
	return date(y, m, d+n)
}

// midnight is the first moment of a day in a zone. Where clocks are put forward
// over midnight it is that moment, where they are put back over it the first time
// that it is midnight.
func midnight(day time.Time, loc *time.Location) time.Time {
	offset := func(t time.Time) time.Duration {
		_, s := t.In(loc).Zone()
		return time.Duration(s) * time.Second
	}
	before, after := offset(day.Add(-36*time.Hour)), offset(day.Add(36*time.Hour))
	var first time.Time
	for _, o := range []time.Duration{before, after} {
		t := day.Add(-o)
		if offset(t) == o && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	if !first.IsZero() {
		return first
	}
	change, _ := day.Add(-before).In(loc).ZoneBounds() // of the offset after the clock was put forward
	if change.IsZero() {
		return day.Add(-before)
	}
	return change
}

// hourOf: clocks are put forward and back inside of hours; what is left of one on
// either side of that is an hour of its own.
func hourOf(t time.Time) span {
	_, s := t.Zone()
	o := time.Duration(s) * time.Second
	start := floor(t.Add(o), time.Hour).Add(-o)
	until := start.Add(time.Hour)
	change, next := t.ZoneBounds()
	if !change.IsZero() && start.Before(change) {
		start = change
	}
	if !next.IsZero() && next.Before(until) {
		until = next
	}
	return span{start, start, until}
}
