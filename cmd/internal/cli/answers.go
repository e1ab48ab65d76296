// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/policy"
)

// answering is who could answer a call of a model: part of explain's answer.
type answering struct {
	Route   string     `json:"route,omitempty"` // "document/id (file:line)"
	Answers []answerer `json:"answers"`         // in the order in which they are asked, as far as that is fixed
	Trial   bool       `json:"trial,omitempty"` // nobody: the built-in trial provider
}

type answerer struct {
	Tier     string `json:"tier,omitempty"`
	Chain    string `json:"chain,omitempty"` // "too long", "refused": asked after such an answer only
	Provider string `json:"provider"`
	Model    string `json:"model"` // as sent
	Region   string `json:"region,omitempty"`
	Priority uint32 `json:"priority"`
	Weight   uint32 `json:"weight"`
	Verdict  string `json:"verdict"`
	Why      string `json:"why,omitempty"`
}

// answers asks a view who would answer.
func answers(v *policy.View, q *policy.Question) *answering {
	if q.Section != policy.SectionInference {
		return nil
	}
	out := &answering{Answers: []answerer{}, Trial: v.Trial(q.Dialect) && v.RouteFor(q.Model) == nil}
	r, places, decisions := v.WouldAnswer(q.Dialect, q.Model)
	if r != nil {
		out.Route = fmt.Sprintf("%s/%s (%s:%d)", r.Doc, r.ID, r.File, r.Line)
	}
	for i := range places {
		p, d := &places[i], &decisions[i]
		row := answerer{Provider: p.Provider.Name, Model: p.Upstream, Region: p.Provider.Region, Priority: p.Priority, Weight: p.Share, Verdict: d.Verdict()}
		if !d.Allowed() {
			row.Why = d.Reason
		}
		row.Tier, row.Chain = placeIn(r, p)
		out.Answers = append(out.Answers, row)
	}
	slices.SortStableFunc(out.Answers, func(a, b answerer) int {
		return cmp.Or(cmp.Compare(a.Chain, b.Chain), cmp.Compare(a.Priority, b.Priority))
	})
	return out
}

// placeIn says which tier or chain of a route a place stands in first.
func placeIn(r *policy.Route, p *policy.Reach) (tier, chain string) {
	if r == nil {
		return "", ""
	}
	leads := func(list []policy.RouteTarget) bool {
		return slices.ContainsFunc(list, func(t policy.RouteTarget) bool {
			return (t.Provider == "" || t.Provider == p.Provider.Name) && (t.Model == "" || t.Model == p.Model)
		})
	}
	for i := range r.Tiers {
		if leads(r.Tiers[i].To) {
			return r.Tiers[i].Name, ""
		}
	}
	switch {
	case leads(r.To):
	case leads(r.TooLong):
		chain = "too long"
	case leads(r.Refused):
		chain = "refused"
	}
	return "", chain
}

func (a *app) printAnswers(x *answering) error {
	if x == nil {
		return nil
	}
	_, _ = fmt.Fprintln(a.out)
	if x.Route != "" {
		_, _ = fmt.Fprintf(a.out, "%-9s %s\n", "route", show.Text(x.Route, 500))
	}
	switch {
	case x.Trial:
		_, err := fmt.Fprintf(a.out, "%-9s %s\n", "answered", "by the built-in trial provider: no provider of the dialect is configured for this scope")
		return err
	case len(x.Answers) == 0:
		why := "the route leads to no provider that this scope may use"
		if x.Route == "" {
			why = "agents of this scope reach no provider of the dialect at its own host"
		}
		_, err := fmt.Fprintf(a.out, "%-9s %s\n", "answered", "by nobody: "+why)
		return err
	}
	rows := make([][]string, len(x.Answers))
	for i, r := range x.Answers {
		rows[i] = []string{r.Provider, r.Model, r.Region, cmp.Or(r.Tier, r.Chain), strconv.Itoa(int(r.Priority)), strconv.Itoa(int(r.Weight)), r.Verdict, r.Why}
	}
	return show.Table(a.out, []string{"ANSWERED BY", "AS", "REGION", "WHEN", "PRIORITY", "WEIGHT", "VERDICT", "WHY"}, rows)
}
