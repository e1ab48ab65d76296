// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/ringfence/ringfence/cmd/ringfence/internal/attach"
	"github.com/ringfence/ringfence/cmd/ringfence/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
)

const (
	maxRefused    = 6    // entries listed; with their commands at most twelve lines
	maxRefusedRaw = 2000 // events read
	refusedWait   = 3 * time.Second
)

// refusal is what was refused, folded over all events about it.
type refusal struct {
	what, reason, remedy string
	name                 string // host name, to fold the question for a name into the attempt at it
	count                uint64
}

// printRefused lists on stderr what the sandbox was refused, with the one
// command that would allow each.
func (a *app) printRefused(ctx context.Context, r attach.Result, began time.Time) {
	if r.Exit != nil && r.Exit.Denials == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, refusedWait)
	defer cancel()
	var list []refusal
	// The daemon's clock and ours are one; a minute covers its being set.
	q := api.EventQuery{Sandbox: r.ID, Denied: true, Since: began.Add(-time.Minute), Limit: maxRefusedRaw}
	err := a.client().Events(ctx, q, func(line []byte) error {
		if e, err := event.ParseOCSF(line); err == nil {
			list = fold(list, &e)
		}
		return nil
	})
	if err != nil && len(list) == 0 {
		_, _ = fmt.Fprintf(a.err, "ringfence: what was refused cannot be listed: %s\n", show.Text(err.Error(), 200))
		return
	}
	writeRefused(a.err, r.ID, list)
}

// fold adds one event. Two events are about the same when the same thing was
// refused for the same reason, or when one is the question for the name that
// the other tried to reach.
func fold(list []refusal, e *event.Event) []refusal {
	n := refusal{what: e.Target(), reason: e.Reason, remedy: event.LastingRemedy(e.Remedy, e.Scope), name: e.DstName, count: max(e.Count, 1)}
	question := e.Kind == event.KindDNS
	for i := range list {
		have := &list[i]
		switch {
		case have.what == n.what && have.reason == n.reason:
			have.count += n.count
			return list
		case n.name == "" || have.name != n.name:
		case question:
			return list
		case strings.HasSuffix(have.what, " (name)"):
			*have = n
			return list
		}
	}
	if question {
		n.what = e.DstName + " (name)"
		for i := range list {
			if list[i].what == n.what {
				list[i].count += n.count
				return list
			}
		}
	}
	return append(list, n)
}

func writeRefused(w io.Writer, id string, list []refusal) {
	if len(list) == 0 {
		return
	}
	_, _ = fmt.Fprintf(w, "ringfence: %s refused:\n", plural(len(list), "thing was", "things were"))
	for i, r := range list {
		if i == maxRefused {
			_, _ = fmt.Fprintf(w, "  ... and %d more: ringfence events --denied --sandbox %s\n", len(list)-i, show.Text(id, 64))
			return
		}
		times := ""
		if r.count > 1 {
			times = fmt.Sprintf(" x%d", r.count)
		}
		line := "  " + show.Text(r.what, 160) + times
		if r.reason != "" {
			line += "  " + show.Text(r.reason, 160)
		}
		_, _ = fmt.Fprintln(w, line)
		if r.remedy != "" {
			_, _ = fmt.Fprintln(w, "    to allow: "+show.Text(r.remedy, 400))
		}
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
