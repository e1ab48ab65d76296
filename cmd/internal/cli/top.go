// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ringfence/ringfence/pkg/api"
)

// View shows the daemon's sandboxes on a terminal until the user quits or ctx
// ends. Events are read from since on.
type View func(ctx context.Context, c *api.Client, in, out *os.File, color bool, since time.Time) error

func (a *app) topCommand() *cobra.Command {
	var since string
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch sandboxes, verdicts and approvals on one screen",
		Long: "Show live on the whole terminal what runs, what was decided, what waits for approval and\n" +
			"what was refused for want of a rule: four lists, with everything about the selected row a\n" +
			"key away. A request is approved or denied with one key; before an approval is sent, or a\n" +
			"rule written, all of it is shown. You see what your roles let you see. ? lists the keys,\n" +
			"q quits.",
		Example: "  ringfence top\n  ringfence top --since 1h",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := parseSince(since, time.Now())
			if err != nil {
				return err
			}
			if err := a.fullScreen(); err != nil {
				return err
			}
			if a.view == nil {
				return become("has the view")
			}
			ctx, cancel := interruptible(cmd.Context())
			defer cancel()
			c := a.client()
			defer c.Close()
			if _, err := c.Status(ctx); err != nil {
				return err
			}
			return a.view(ctx, c, a.in, a.out, a.color(a.out), from)
		},
	}
	cmd.Flags().StringVar(&since, "since", "10m", "how far back events are read: 10m, 2h, or a time as 2026-01-31T12:00:00Z")
	return cmd
}

// fullScreen says why there is no screen to draw on, if there is none.
func (a *app) fullScreen() error {
	why := ""
	switch {
	case !term.IsTerminal(int(a.in.Fd())) || !term.IsTerminal(int(a.out.Fd())):
		why = "top needs a terminal for its input and its output"
	case os.Getenv("TERM") == "" || os.Getenv("TERM") == "dumb":
		why = "top needs a terminal that can move its cursor, and TERM is \"" + os.Getenv("TERM") + "\""
	default:
		return nil
	}
	return &exitError{Code: exitUsage, Err: errors.New(why), Remedy: "without one: ringfence ps, ringfence events --follow, ringfence approvals watch"}
}
