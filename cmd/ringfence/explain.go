// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/ringfence/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
)

func (a *app) explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "explain EVENT-ID",
		Short:   "Explain one decision: which rule, and what would allow it",
		Example: "  ringfence explain 1042",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, ids []string) error {
			x, err := a.client().Explain(cmd.Context(), ids[0])
			if err != nil {
				return err
			}
			if a.json() {
				return show.JSON(a.out, x)
			}
			return a.printExplanation(x)
		},
	}
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) printExplanation(x api.Explanation) error {
	revision := ""
	if x.Revision > 0 {
		revision = strconv.FormatUint(x.Revision, 10)
	}
	rule := x.Rule
	if x.RuleAt != "" {
		rule += " (" + x.RuleAt + ")"
	}
	wall, remedy := "wall", "to allow"
	if x.Kind == event.KindTamper.String() { // nothing was asked for that could be allowed
		wall, remedy = "found by", "to do"
	}
	for _, f := range []struct{ name, value string }{
		{"event", x.ID}, {"sandbox", x.Sandbox}, {"scope", x.Scope}, {"verdict", x.Verdict}, {"what", x.Summary}, {wall, x.Layer}, {"detail", x.Detail},
		{"rule", rule}, {"revision", revision}, {"nearest", x.Nearest}, {"now", x.Now}, {remedy, x.Remedy},
	} {
		if f.value == "" {
			continue
		}
		if _, err := fmt.Fprintf(a.out, "%-9s %s\n", f.name, show.Text(f.value, 1000)); err != nil {
			return err
		}
	}
	return nil
}
