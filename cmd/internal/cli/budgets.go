// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/policy"
)

var budgetHeader = []string{"BUDGET", "WHO", "MODEL", "WINDOW", "SPENT", "LEASED", "LIMIT", "LEFT", "ALERT", "UNTIL"}

func budgetRow(b *api.Budget) []string {
	window := b.Window
	if !b.Hard {
		window += ", soft"
	}
	limit := policy.FormatUSD(b.Limit)
	if b.Increased != 0 {
		limit += " (+" + policy.FormatUSD(b.Increased) + ")"
	}
	alert := ""
	if b.Alert > 0 {
		alert = fmt.Sprintf("%d%%", b.Alert)
	}
	return []string{b.Name, b.Who, b.Model, window, policy.FormatUSD(b.Spent), policy.FormatUSD(b.Leased), limit, policy.FormatUSD(b.Left), alert, stamp(b.Until)}
}

func (a *app) budgetsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "budgets",
		Short: "Show what budgets have spent and have left",
		Long: "Show every account of the budgets in force: what it has spent in its window, what the\n" +
			"gateway holds of it for calls (LEASED), and what is left. ALERT is the percentage that was\n" +
			"passed last. A viewer or launcher sees the accounts of its scope.",
		Example: "  ringfence budgets\n  ringfence budgets -o json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.client().Budgets(cmd.Context())
			if err != nil {
				return err
			}
			if a.json() {
				return show.JSON(a.out, list)
			}
			rows := make([][]string, len(list))
			for i := range list {
				rows[i] = budgetRow(&list[i])
			}
			return show.Table(a.out, budgetHeader, rows)
		},
	}
	a.outputFlag(cmd, "table", "json")
	cmd.AddCommand(a.budgetsIncreaseCommand())
	return cmd
}

func (a *app) budgetsIncreaseCommand() *cobra.Command {
	var by string
	var r api.BudgetIncrease
	var lasts time.Duration
	cmd := &cobra.Command{
		Use:   "increase DOCUMENT/ID --by AMOUNT --for TIME",
		Short: "Raise the limit of a budget for a time",
		Long: "Raise the limit of a budget for a time, of every account of it or of one (--who). It takes\n" +
			"root, or the role approver in the whole scope of the budget's document. It is recorded, and\n" +
			"what was spent beyond the limit when it ends is not taken back.",
		Example: "  ringfence budgets increase engineering/month --by 50USD --for 24h --reason release",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			n, err := policy.ParseUSD(by)
			if err != nil {
				return usagef("--by: %v", err)
			}
			if !strings.Contains(names[0], "/") {
				return usagef("a budget is named DOCUMENT/ID, as `ringfence budgets` shows it")
			}
			r.Name, r.Amount, r.For = names[0], n, api.Duration(lasts)
			res, err := a.client().IncreaseBudget(cmd.Context(), r)
			if err != nil {
				return err
			}
			if a.json() {
				return show.JSON(a.out, res)
			}
			_, err = fmt.Fprintf(a.out, "%s of %s has %s more until %s\n", show.Text(res.Name, 256), show.Text(res.Scope, 256), policy.FormatUSD(n), stamp(res.Until))
			return err
		},
	}
	cmd.Flags().StringVar(&by, "by", "", "how much, such as 50USD")
	cmd.Flags().DurationVar(&lasts, "for", 0, "for how long, up to 744h")
	cmd.Flags().StringVar(&r.Who, "who", "", "one account, as `ringfence budgets` shows it under WHO")
	cmd.Flags().StringVar(&r.Scope, "scope", "", "scope of the document, where several have a budget of that name")
	cmd.Flags().StringVar(&r.Reason, "reason", "", "why, for the record")
	_ = cmd.MarkFlagRequired("by")
	_ = cmd.MarkFlagRequired("for")
	a.outputFlag(cmd, "table", "json")
	return cmd
}
