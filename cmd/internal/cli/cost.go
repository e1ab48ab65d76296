// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/price"
)

func (a *app) costCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cost",
		Short: "Show what model calls cost",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return usagef("name what to show: ringfence cost top|report|export")
		},
	}
	cmd.AddCommand(a.costTopCommand(), a.costReportCommand(), a.costExportCommand())
	return cmd
}

const costNote = "Days are of UTC. A call whose price is not known is counted as unpriced, and nothing of it\n" +
	"is in the cost. Who is not root sees the calls of scopes where it is a viewer. Prices come\n" +
	"from the tables that `ringfence prices list` shows."

// costFlags adds those that choose calls.
func costFlags(cmd *cobra.Command, q *api.CostQuery, since *string, by string) {
	f := cmd.Flags()
	f.StringVar(since, "since", "", "how far back: 7d, or a day as 2026-11-30")
	f.StringVar(&q.To, "to", "", "the last day, as 2026-11-30")
	for _, c := range []struct {
		to   *string
		name string
	}{{&q.Org, "org"}, {&q.Team, "team"}, {&q.Agent, "agent"}, {&q.Provider, "provider"}, {&q.Model, "model"}} {
		f.StringVar(c.to, c.name, "", "only of this "+c.name)
	}
	if by != "" {
		f.StringSliceVar(&q.By, "by", strings.Split(by, ","), "what to sum up by: "+strings.Join(api.CostKeys, ", "))
	}
}

// costs asks the daemon.
func (a *app) costs(cmd *cobra.Command, q api.CostQuery, since string) (api.Costs, error) {
	var err error
	if q.From, err = firstDay(since, time.Now()); err != nil {
		return api.Costs{}, err
	}
	return a.client().Costs(cmd.Context(), q)
}

// firstDay reads so many days back, or a day.
func firstDay(s string, now time.Time) (string, error) {
	if s == "" {
		return "", nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n < 10000 {
			return now.UTC().AddDate(0, 0, -n).Format(time.DateOnly), nil
		}
	}
	if _, err := time.Parse(time.DateOnly, s); err == nil {
		return s, nil
	}
	return "", usagef("--since %q is neither a number of days (7d) nor a day (2026-11-30)", s)
}

func (a *app) costTopCommand() *cobra.Command {
	var q api.CostQuery
	var since string
	var most int
	cmd := &cobra.Command{
		Use:     "top",
		Short:   "Show what cost most",
		Long:    "Show what cost most, the dearest first.\n\n" + costNote,
		Example: "  ringfence cost top\n  ringfence cost top --by team,model --since 7d",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			res, err := a.costs(cmd, q, since)
			if err != nil {
				return err
			}
			slices.SortStableFunc(res.Rows, func(a, b api.CostRow) int {
				return cmp.Or(cmp.Compare(b.CostNanoUSD, a.CostNanoUSD), cmp.Compare(b.TokensIn+b.TokensOut, a.TokensIn+a.TokensOut))
			})
			if len(res.Rows) > most {
				res.Rows = res.Rows[:most]
			}
			return a.printCosts(res)
		},
	}
	costFlags(cmd, &q, &since, "agent")
	cmd.Flags().IntVarP(&most, "limit", "n", 20, "only so many")
	a.outputFlag(cmd, "table", "json", "csv")
	return cmd
}

func (a *app) costReportCommand() *cobra.Command {
	var q api.CostQuery
	var since string
	cmd := &cobra.Command{
		Use:     "report",
		Short:   "Show what model calls cost, by day and whatever else",
		Long:    "Show what model calls cost, in the order of what they are summed up by.\n\n" + costNote,
		Example: "  ringfence cost report --since 30d --by day,team\n  ringfence cost report --team payments --by day,agent,model -o csv",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			res, err := a.costs(cmd, q, since)
			if err != nil {
				return err
			}
			return a.printCosts(res)
		},
	}
	costFlags(cmd, &q, &since, "day,team")
	a.outputFlag(cmd, "table", "json", "csv")
	return cmd
}

func (a *app) costExportCommand() *cobra.Command {
	var q api.CostQuery
	var since string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write every row of the ledger of costs",
		Long: "Write every row of the ledger: one for each day, organisation, team, agent, provider and\n" +
			"model, with all units. In CSV a text that a spreadsheet would take for a formula has a '\n" +
			"in front: agents choose names of models. A cost of which nothing is known is empty.\n\n" + costNote,
		Example: "  ringfence cost export --since 30d > costs.csv\n  ringfence cost export -o json | jq '.rows[]'",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			res, err := a.costs(cmd, q, since)
			if err != nil {
				return err
			}
			return a.printCosts(res)
		},
	}
	costFlags(cmd, &q, &since, "")
	a.outputFlag(cmd, "csv", "json")
	return cmd
}

// printCosts writes rows in the chosen format.
func (a *app) printCosts(res api.Costs) error {
	switch a.output {
	case "json":
		return show.JSON(a.out, res)
	case "csv":
		return a.costCSV(res)
	}
	header := make([]string, 0, len(res.By)+6)
	for _, k := range res.By {
		header = append(header, strings.ToUpper(k))
	}
	header = append(header, "CALLS", "IN", "CACHED", "OUT", "COST USD", "UNPRICED")
	rows := make([][]string, len(res.Rows))
	for i := range res.Rows {
		r := &res.Rows[i]
		for _, k := range res.By {
			rows[i] = append(rows[i], *r.Key(k))
		}
		cost := dollars(r)
		switch {
		case cost == "":
			cost = "unknown"
		case r.Estimated > 0:
			cost = "~" + cost
		}
		rows[i] = append(rows[i], number(r.Calls), number(r.TokensIn), number(r.Cached), number(r.TokensOut), cost, number(r.Unpriced))
	}
	if err := show.Table(a.out, header, rows); err != nil {
		return err
	}
	if len(res.Within) > 0 {
		_, _ = fmt.Fprintln(a.out, show.Text("calls of "+strings.Join(res.Within, ", "), 500))
	}
	if res.Missed > 0 {
		_, _ = fmt.Fprintf(a.out, "%d records were gone from the event log before they were summed up; calls among them are not here\n", res.Missed)
	}
	return nil
}

// dollars is the cost of a row, exactly; "" where nothing of it is known, which is
// not the same as nothing.
func dollars(r *api.CostRow) string {
	if r.CostNanoUSD == 0 && r.Unpriced > 0 {
		return ""
	}
	return price.USD(int64(min(r.CostNanoUSD, 1<<63-1)))
}

func number(v uint64) string { return strconv.FormatUint(v, 10) }

// costCSV writes every number, and the cost in dollars and exactly.
func (a *app) costCSV(res api.Costs) error {
	w := csv.NewWriter(a.out)
	_ = w.Write(append(slices.Clone(res.By), "calls", "failed", "estimated", "unpriced", "cost_usd", "tokens_in", "tokens_cached", "tokens_cache_write_5m", "tokens_cache_write_1h",
		"tokens_out", "tokens_reasoning", "tokens_audio_in", "tokens_audio_out", "tokens_image_in", "tokens_image_out", "images", "web_searches"))
	for i := range res.Rows {
		r := &res.Rows[i]
		var cells []string
		for _, k := range res.By {
			cells = append(cells, plainCell(*r.Key(k)))
		}
		cells = append(cells, number(r.Calls), number(r.Failed), number(r.Estimated), number(r.Unpriced), dollars(r))
		for _, v := range []uint64{r.TokensIn, r.Cached, r.CacheWrite5m, r.CacheWrite1h, r.TokensOut, r.Reasoning, r.AudioIn, r.AudioOut, r.ImageIn, r.ImageOut, r.Images, r.WebSearches} {
			cells = append(cells, number(v))
		}
		_ = w.Write(cells) // the writer keeps its error
	}
	w.Flush()
	return w.Error()
}

// plainCell is text that neither a terminal nor a spreadsheet obeys.
func plainCell(s string) string {
	s = show.Text(s, 0)
	if s != "" && strings.ContainsRune("=+-@", rune(s[0])) {
		return "'" + s
	}
	return s
}
