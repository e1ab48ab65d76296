// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // the gateway sees no files of the host
)

// Window is a span of the wall clock in a zone, on some days of the week. From
// counts, To does not. A window that ends before it begins goes over midnight
// and belongs to the day on which it begins.
type Window struct {
	Days     uint8  // bit 0 is Sunday; 0 = every day
	From, To int    // minutes since midnight, To up to 24 hours
	Zone     string // as in the IANA time zone database
	loc      *time.Location
}

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// holds says whether a moment lies in the window.
func (w *Window) holds(t time.Time) bool {
	local := t.In(w.loc)
	now, day := local.Hour()*60+local.Minute(), local.Weekday()
	in := w.From <= now && now < w.To
	if w.From > w.To {
		in = now >= w.From || now < w.To
		if now < w.To {
			day = (day + 6) % 7
		}
	}
	return in && (w.Days == 0 || w.Days&(1<<day) != 0)
}

// edge is the first moment after t at which it may begin or end to hold: its
// next beginning or end on any day, or the change of its zone's clock, which
// can leap over one.
func (w *Window) edge(t time.Time) time.Time {
	const day = 24 * 60 * 60
	local := t.In(w.loc)
	_, offset := local.Zone()
	now := (t.Unix() + int64(offset)) % day
	wait := int64(day)
	for _, minutes := range []int{w.From, w.To} {
		if d := (int64(minutes)*60 - now + day) % day; d > 0 {
			wait = min(wait, d)
		}
	}
	next := time.Unix(t.Unix()+wait, 0)
	if _, leap := local.ZoneBounds(); !leap.IsZero() && leap.Before(next) {
		return leap
	}
	return next
}

func (w *Window) load() (err error) {
	if w.Zone == "Local" {
		return fmt.Errorf("zone %q depends on the machine; name one such as Europe/Berlin", w.Zone)
	}
	if w.loc, err = time.LoadLocation(w.Zone); err != nil {
		return fmt.Errorf("zone %s is not known; name one such as Europe/Berlin or UTC", quote(w.Zone))
	}
	return nil
}

// valid is what a window from an encoded snapshot has to be.
func (w *Window) valid() bool {
	return w.Days < 1<<7 && w.From >= 0 && w.From < 24*60 && w.To >= 0 && w.To <= 24*60 && w.From != w.To
}

// parseClock reads "HH:MM".
func parseClock(s string, most int) (int, error) {
	if len(s) == 5 && s[2] == ':' && strings.Trim(s[:2]+s[3:], "0123456789") == "" {
		h, m := int(s[0]-'0')*10+int(s[1]-'0'), int(s[3]-'0')*10+int(s[4]-'0')
		if m < 60 && h*60+m <= most {
			return h*60 + m, nil
		}
	}
	return 0, fmt.Errorf("%s is not a time of day such as 09:00", quote(s))
}
