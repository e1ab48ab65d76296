// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/ringfence/ringfence/cmd/internal/cli/internal/attach"
	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
)

const (
	maxRefused    = 6    // entries listed; with their commands at most twelve lines
	maxFailed     = 4    // likewise, of one line each
	maxRefusedRaw = 2000 // events read
	refusedWait   = 3 * time.Second
)

// refusal is what was refused, or was allowed and failed, folded over all
// events about it.
type refusal struct {
	what, reason, remedy string
	name                 string // host name, to fold the question for a name into the attempt at it
	count                uint64
	routine              bool // what programs try by themselves all day
}

// printRefused lists on stderr what the sandbox was refused, with the one
// command that would allow each, and what it was allowed and did not get all
// the same.
func (a *app) printRefused(ctx context.Context, r attach.Result, began time.Time) {
	if r.Exit != nil && r.Exit.Denials == 0 && r.Exit.Failures == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, refusedWait)
	defer cancel()
	var refused, failed []refusal
	// The daemon's clock and ours are one; a minute covers its being set.
	q := api.EventQuery{Sandbox: r.ID, Denied: true, Failed: true, Since: began.Add(-time.Minute), Limit: maxRefusedRaw}
	err := a.client().Events(ctx, q, func(line []byte) error {
		e, err := event.ParseOCSF(line)
		switch {
		case err != nil: // not for us to report
		case e.IsFailure():
			failed = fold(failed, &e)
		case e.Kind == event.KindApproval: // what came of it is listed
		default:
			refused = fold(refused, &e)
		}
		return nil
	})
	if err != nil && len(refused)+len(failed) == 0 {
		_, _ = fmt.Fprintf(a.err, "ringfence: what was refused cannot be listed: %s\n", show.Text(err.Error(), 200))
		return
	}
	events := "ringfence events --%s --sandbox " + show.Text(r.ID, 64)
	refused, routine := apart(refused)
	if len(refused) > 0 {
		_, _ = fmt.Fprintf(a.err, "ringfence: %s refused:\n", plural(len(refused), "thing was", "things were"))
		writeRefused(a.err, refused, maxRefused, fmt.Sprintf(events, "denied"))
	}
	if routine > 0 {
		_, _ = fmt.Fprintf(a.err, "ringfence: %s refused that programs often try by themselves: %s\n",
			plural(routine, "more thing was", "more things were"), fmt.Sprintf(events, "denied"))
	}
	if len(failed) > 0 {
		_, _ = fmt.Fprintf(a.err, "ringfence: %s allowed but failed:\n", plural(len(failed), "thing was", "things were"))
		writeRefused(a.err, failed, maxFailed, fmt.Sprintf(events, "failed"))
	}
}

// apart takes what is routine out of the list: a look for a file that the view
// does not have, a system call that nobody inside may make, the ring that
// Node tries at every start.
func apart(list []refusal) (weighty []refusal, routine int) {
	for _, r := range list {
		if r.routine {
			routine++
		} else {
			weighty = append(weighty, r)
		}
	}
	return weighty, routine
}

func isRoutine(e *event.Event) bool {
	switch e.Kind {
	case event.KindFile:
		return e.ReasonCode == "not-in-view"
	case event.KindSyscall:
		return e.Layer != "seccomp" || e.Object == "io_uring_setup"
	}
	return false
}

// refusalAddress is where the refused names of a profile with explain lead.
const refusalAddress = "198.18.0.2"

// portOf puts the port that a program then tried into the question for a name
// that was refused: the question itself names none.
func portOf(list []refusal, e *event.Event) bool {
	addr, port, err := net.SplitHostPort(e.DstAddr)
	if e.Kind != event.KindNetwork || e.DstName != "" || err != nil || addr != refusalAddress {
		return false
	}
	var asked *refusal
	for i := range list {
		switch have := &list[i]; {
		case have.name != "" && have.what == words(e.Proto, net.JoinHostPort(have.name, port)):
			have.count += max(e.Count, 1)
			return true
		case !strings.HasSuffix(have.what, " (name)"):
		case asked != nil:
			return false // which of them, nobody knows
		default:
			asked = have
		}
	}
	if asked == nil {
		return false
	}
	asked.what = words(e.Proto, net.JoinHostPort(asked.name, port))
	asked.remedy = strings.Replace(asked.remedy, "ringfence allow "+asked.name+":443", "ringfence allow "+asked.name+":"+port, 1)
	return true
}

func words(s ...string) string { return strings.TrimSpace(strings.Join(s, " ")) }

// fold adds one event. Two events are about the same when the same thing was
// refused for the same reason, or when one is the question for the name that
// the other tried to reach.
func fold(list []refusal, e *event.Event) []refusal {
	n := refusal{what: e.Target(), reason: reason(e), remedy: remedyAfter(e), name: e.DstName, count: max(e.Count, 1), routine: isRoutine(e)}
	if portOf(list, e) {
		return list
	}
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

// remedyAfter is what can be done when the sandbox has ended, and what it asked
// people with it.
func remedyAfter(e *event.Event) string {
	switch e.ReasonCode {
	case "approval-waits":
		return "run it again, and decide while it waits: ringfence approvals watch"
	case "approval-denied":
		return "people said no; a new sandbox asks them again: ringfence approvals watch"
	}
	return event.LastingRemedy(e.Remedy, e.Scope)
}

// reason is why, without what the heading of the list says already. What a
// provider's failure was is in the detail.
func reason(e *event.Event) string {
	if !e.IsFailure() {
		return e.Reason
	}
	for _, said := range []string{"policy allowed it, but ", "policy allows it, but "} {
		if rest, ok := strings.CutPrefix(e.Reason, said); ok {
			return rest
		}
	}
	if e.Kind == event.KindInference && e.Detail != "" {
		return e.Reason + ": " + e.Detail
	}
	return e.Reason
}

// writeRefused writes at most so many entries, and the command that shows all.
func writeRefused(w io.Writer, list []refusal, most int, all string) {
	for i, r := range list {
		if i == most {
			_, _ = fmt.Fprintf(w, "  ... and %d more: %s\n", len(list)-i, all)
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
			note := ""
			if strings.HasSuffix(r.what, " (name)") && strings.HasPrefix(r.remedy, "ringfence allow ") {
				note = "   (443 is a guess: only the name was asked for)"
			}
			_, _ = fmt.Fprintln(w, "    to allow: "+show.Text(r.remedy, 400)+note)
		}
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
