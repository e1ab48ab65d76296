// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
)

func (a *app) explainCommand() *cobra.Command {
	var as string
	var f askFlags
	cmd := &cobra.Command{
		Use:   "explain EVENT-ID | --as SCOPE egress|model|tool WHAT",
		Short: "Explain one decision: which rule, and what would allow it",
		Long: "Explain a decision that was made, by the id of its event; or with --as one that would be made:\n" +
			whatIsAsked + ". The second is decided on the\n" +
			"documents in force on the node (for viewers of the scope), or those of --policy, without the\ndaemon. Every rule\n" +
			"that speaks of the target is listed, with why it decides or does not.",
		Example: "  ringfence explain 1042\n  ringfence explain --as org:acme/team:eng/agent:bot egress api.github.com:443 --request \"POST /graphql\"",
		Args: args(func(cmd *cobra.Command, words []string) error {
			if as != "" {
				return cobra.ExactArgs(2)(cmd, words)
			}
			return cobra.ExactArgs(1)(cmd, words)
		}),
		RunE: func(cmd *cobra.Command, words []string) error {
			if as != "" {
				if err := toEvaluate(); err != nil {
					return err
				}
				if err := fits(cmd, words[0]); err != nil {
					return err
				}
				return a.whatIf(cmd.Context(), as, &f, words)
			}
			for _, flag := range []string{"policy", "request", "dialect", "risk", "args", "at"} {
				if cmd.Flags().Changed(flag) {
					return usagef("--%s goes with --as", flag)
				}
			}
			x, err := a.client().Explain(cmd.Context(), words[0])
			if err != nil {
				return err
			}
			if a.json() {
				return show.JSON(a.out, x)
			}
			return a.printExplanation(x)
		},
	}
	cmd.Flags().StringVar(&as, "as", "", "who would ask, such as org:local/team:default/agent:web")
	f.add(cmd)
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// narrower is for a request: the command that allows it opens the whole host.
func narrower(x *api.Explanation) string {
	if x.Kind != event.KindHTTP.String() || !strings.HasPrefix(x.Remedy, "ringfence allow ") {
		return ""
	}
	return "that is for every request to the host; ringfence policy learn " + x.Sandbox + " writes a rule for this one, where requests are decided"
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
		{"rule", rule}, {"revision", revision}, {"nearest", x.Nearest}, {"now", x.Now}, {remedy, x.Remedy}, {"narrower", narrower(&x)},
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
