// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ringfence/ringfence/cmd/internal/show"
)

func (a *app) logsCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:               "logs SANDBOX",
		Short:             "Show the output of a detached sandbox",
		Long:              "Show the output of a detached sandbox. On a terminal everything but text and\ncolours is shown escaped; into a pipe or file it is written as it is.",
		Example:           "  ringfence logs web\n  ringfence logs --follow web",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeSandboxes,
		RunE: func(cmd *cobra.Command, refs []string) error {
			ctx, cancel := interruptible(cmd.Context())
			defer cancel()
			r, err := a.client().Log(ctx, refs[0], follow)
			if err != nil {
				return err
			}
			defer r.Close() //nolint:errcheck // only read
			var w io.Writer = a.out
			if term.IsTerminal(int(a.out.Fd())) {
				f := show.NewFilter(a.out)
				defer f.Close() //nolint:errcheck // the terminal went away
				w = f
			}
			if _, err = io.Copy(w, r); errors.Is(err, context.Canceled) && follow {
				return nil
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "wait for more until the sandbox ends")
	return cmd
}
