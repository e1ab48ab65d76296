// SPDX-License-Identifier: Apache-2.0

package health

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// waitHeaders are what providers say of when to come back, in the order in which
// they are believed: RFC 9110 section 10.2.3; the milliseconds of OpenAI and Azure;
// and the resets of rate limits, of which the soonest one counts, for the answer
// says that only one of them is used up.
var waitHeaders = []struct {
	names []string
	read  func(v string, now time.Time) (time.Duration, bool)
}{
	{[]string{"Retry-After"}, secondsOrDate},
	{[]string{"Retry-After-Ms", "X-Ms-Retry-After-Ms"}, milliseconds},
	{[]string{"X-Ratelimit-Reset"}, secondsOrEpoch},
	{[]string{"X-Ratelimit-Reset-Requests", "X-Ratelimit-Reset-Tokens", "X-Ratelimit-Reset-Requests-Day", "X-Ratelimit-Reset-Tokens-Minute"}, durationText},
	{[]string{"Anthropic-Ratelimit-Requests-Reset", "Anthropic-Ratelimit-Tokens-Reset", "Anthropic-Ratelimit-Input-Tokens-Reset", "Anthropic-Ratelimit-Output-Tokens-Reset"}, instant},
}

// RetryAfter is how long an answer asks to be left alone; 0 when it says nothing
// that can be read. It is never negative.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	for _, row := range waitHeaders {
		found, least := false, time.Duration(0)
		for _, name := range row.names {
			v := h.Get(name)
			if v == "" || len(v) > 64 {
				continue
			}
			if d, ok := row.read(v, now); ok && d > 0 && (!found || d < least) {
				found, least = true, d
			}
		}
		if found {
			return least
		}
	}
	return 0
}

const farAway = 30 * 24 * time.Hour

func number(v string, unit time.Duration) (time.Duration, bool) {
	f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
	if err != nil || f < 0 || f > float64(1<<62)/float64(unit) || f != f {
		return 0, false
	}
	return time.Duration(f * float64(unit)), true
}

func milliseconds(v string, _ time.Time) (time.Duration, bool) { return number(v, time.Millisecond) }

func secondsOrDate(v string, now time.Time) (time.Duration, bool) {
	if d, ok := number(v, time.Second); ok {
		return min(d, farAway), true
	}
	t, err := http.ParseTime(v)
	return t.Sub(now), err == nil
}

// secondsOrEpoch: some count seconds, some tell the time; nothing is 30 days away.
func secondsOrEpoch(v string, now time.Time) (time.Duration, bool) {
	d, ok := number(v, time.Second)
	if ok && d >= farAway {
		return time.Unix(int64(d/time.Second), 0).Sub(now), true
	}
	return d, ok
}

// durationText reads "6m0s", "120ms", and plain seconds.
func durationText(v string, _ time.Time) (time.Duration, bool) {
	if d, err := time.ParseDuration(v); err == nil {
		return d, d >= 0
	}
	return number(v, time.Second)
}

func instant(v string, now time.Time) (time.Duration, bool) {
	t, err := time.Parse(time.RFC3339, v)
	return t.Sub(now), err == nil
}
