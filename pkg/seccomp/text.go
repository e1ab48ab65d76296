// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// Text lists what a filter with these options refuses, one row for each call,
// from the same table the filter is compiled from.
func Text(o Options) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(cols ...string) { fmt.Fprintln(w, strings.Join(cols, "\t")) }
	row("GROUP", "SYSTEM CALL", "CONDITION", "ANSWER", "WHY")
	row("entry", "any", "foreign architecture (int 0x80, compat)", "KILL_PROCESS", "another table of numbers")
	row("entry", "any", "x32 number (bit 0x40000000)", "ENOSYS", "the same calls under other numbers")
	row("entry", "any", fmt.Sprintf("number above %d or unknown to libseccomp", reviewed), "ENOSYS", "nobody looked at it yet")
	names := make([]string, 0, len(hidden))
	for name := range hidden {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		row("entry", name, "-", "ENOSYS", hidden[name])
	}
	for _, r := range Rules(o) {
		when := make([]string, len(r.When))
		for i, c := range r.When {
			when[i] = c.String()
		}
		cond := strings.Join(when, " and ")
		if cond == "" {
			cond = "-"
		}
		for _, call := range r.Calls {
			row(r.Group, call, cond, unix.ErrnoName(r.Errno), r.Why)
		}
	}
	w.Flush() // a strings.Builder does not fail
	return b.String()
}
