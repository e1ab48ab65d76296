// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
)

func (a *app) eventsCommand() *cobra.Command {
	var q api.EventQuery
	var since string
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what sandboxes did and were refused",
		Long: "Show the event log. -o compact is one line for each event with everything that a\n" +
			"sandbox chose escaped; -o json is OCSF 1.8, one object on each line.",
		Example: "  ringfence events --follow --denied\n  ringfence events --since 10m --sandbox web\n  ringfence events -o json | jq .",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if q.Since, err = parseSince(since, time.Now()); err != nil {
				return err
			}
			ctx, cancel := interruptible(cmd.Context())
			defer cancel()
			err = a.printEvents(ctx, q)
			if errors.Is(err, context.Canceled) && q.Follow {
				return nil
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&q.Follow, "follow", "f", false, "wait for more")
	f.BoolVar(&q.Denied, "denied", false, "only what was refused")
	f.BoolVar(&q.Failed, "failed", false, "only what was allowed and failed; with --denied either")
	f.BoolVar(&q.Learned, "learned", false, "only what was let through because the sandbox learns; with --denied either")
	f.StringVar(&since, "since", "", "how far back: 10m, 2h, or a time as 2026-01-31T12:00:00Z")
	f.StringVar(&q.Sandbox, "sandbox", "", "only this sandbox")
	f.IntVarP(&q.Limit, "limit", "n", 0, "only the newest so many; with --follow, end after so many")
	_ = cmd.RegisterFlagCompletionFunc("sandbox", a.completeSandboxes)
	a.outputFlag(cmd, "compact", "json")
	return cmd
}

// printEvents writes the lines, flushed one by one when following. JSON goes
// out byte for byte unless a terminal reads it.
func (a *app) printEvents(ctx context.Context, q api.EventQuery) error {
	newest := q.Limit
	if q.Follow {
		newest = 0
	} else {
		q.Limit = 0
	}
	w := bufio.NewWriter(a.out)
	tty := term.IsTerminal(int(a.out.Fd()))
	color := a.color(a.out)
	print := func(line []byte) error {
		switch {
		case !a.json():
			_, _ = fmt.Fprintln(w, event.Compact(line, color))
		case tty:
			_, _ = fmt.Fprintf(w, "%s\n", show.SafeJSON(line))
		default:
			_, _ = w.Write(line)
			_ = w.WriteByte('\n')
		}
		if q.Follow || tty {
			return w.Flush()
		}
		return nil
	}
	if newest == 0 {
		return errors.Join(a.client().Events(ctx, q, print), w.Flush())
	}
	var kept [][]byte
	err := a.client().Events(ctx, q, func(line []byte) error {
		if kept = append(kept, bytes.Clone(line)); len(kept) > newest {
			kept = kept[1:]
		}
		return nil
	})
	for _, line := range kept {
		err = errors.Join(err, print(line))
	}
	return errors.Join(err, w.Flush())
}

// parseSince reads a duration before now or a time.
func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		if d < 0 {
			d = -d
		}
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("--since %q is neither a duration (10m) nor a time (2026-01-31T12:00:00Z)", s)
}
