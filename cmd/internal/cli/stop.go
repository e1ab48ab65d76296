// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

func (a *app) stopCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:               "stop SANDBOX...",
		Short:             "Stop sandboxes",
		Long:              "Stop sandboxes: TERM for the agent, and after the timeout the end of everything\nin the sandbox. SANDBOX is an id, the beginning of one, or a name.",
		Example:           "  ringfence stop web\n  ringfence stop --timeout 0s 3f2a",
		Args:              args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: a.completeSandboxes,
		RunE: func(cmd *cobra.Command, refs []string) error {
			results := make([]api.StopResult, 0, len(refs))
			first := a.each(refs, func(ref string) error {
				res, err := a.client().Stop(cmd.Context(), ref, timeout)
				if err != nil {
					return err
				}
				results = append(results, res)
				if !a.json() {
					_, _ = fmt.Fprintln(a.out, show.Text(res.Sandbox.ID, 64))
					printFindings(a.err, res.Findings)
				}
				return nil
			})
			if a.json() {
				if err := show.JSON(a.out, results); err != nil {
					return err
				}
			}
			return first
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "how long the agent may take to end by itself")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// each does something to every sandbox that was named, also when it fails for
// one: what was done to the others is to be said. It returns the first error and
// prints the others.
func (a *app) each(refs []string, do func(ref string) error) (first error) {
	for _, ref := range refs {
		err := do(ref)
		switch {
		case first == nil:
			first = err
		case err != nil:
			printError(a.err, err, a.json())
		}
	}
	return first
}

// maxFindings is how many findings are listed one by one.
const maxFindings = 10

// printFindings says what was found in the workspace when it came back.
func printFindings(w io.Writer, list []api.Finding) {
	if len(list) == 0 {
		return
	}
	_, _ = fmt.Fprintf(w, "ringfence: %d found in the workspace and made harmless:\n", len(list))
	for i, f := range list {
		if i == maxFindings {
			_, _ = fmt.Fprintf(w, "  ... and %d more\n", len(list)-i)
			break
		}
		_, _ = fmt.Fprintf(w, "  %s: %s (%s)\n", show.Text(f.Path, 200), show.Text(f.What, 200), show.Text(f.Action, 40))
	}
	var dirs []string
	for _, f := range list {
		if dir := path.Dir(f.Copy); f.Copy != "" && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range dirs {
		_, _ = fmt.Fprintf(w, "  the originals are in %s/ of the workspace; its index.txt says what lay where\n", show.Text(dir, 200))
	}
}
