// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// lintFlags are the flags of policy lint.
type lintFlags struct {
	known         []string
	running, hits bool
}

func (a *app) policyLintCommand() *cobra.Command {
	var f lintFlags
	cmd := &cobra.Command{
		Use:   "lint DOCUMENTS...",
		Short: "Find rules that do nothing, contradict each other or are for nobody",
		Long: "Find what the author of documents may not have meant: rules that no question is ever for,\n" +
			"rules in whose place others always stand, rules that repeat what others or a default say,\n" +
			"rules of one layer that say the opposite of the same, and models that a default alone allows.\n" +
			"A rule is named only when every decision is the same without it, whatever its conditions say.\n" +
			namedDocuments + "\n\n" +
			"With --known and --running, also documents and rules that are for none of these; with --hits,\n" +
			"also rules in force that decided nothing since the daemon started. Exit code 1 when something\n" +
			"is found; notes, which may well be meant, do not count.",
		Example: "  ringfence policy lint engineering.yaml --known org:acme/team:eng/agent:bot\n  ringfence policy lint live --running --hits -o json",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			if f.hits && !slices.Contains(names, liveDocuments) {
				return usagef("--hits is about the documents in force: name %s", liveDocuments)
			}
			if err := toEvaluate(); err != nil {
				return err
			}
			found, err := a.lint(cmd.Context(), names, &f)
			if err != nil {
				return err
			}
			return a.printFindings(found)
		},
	}
	cmd.Flags().StringArrayVar(&f.known, "known", nil, "scope of an agent that there is; what is for none of them is named")
	cmd.Flags().BoolVar(&f.running, "running", false, "take the sandboxes of the node as known")
	cmd.Flags().BoolVar(&f.hits, "hits", false, "name the rules in force that decided nothing since the daemon started")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) lint(ctx context.Context, names []string, f *lintFlags) ([]policy.Finding, error) {
	var known []scope.Principal
	for _, text := range f.known {
		p, err := scope.ParsePrincipal(text)
		if err != nil {
			return nil, usagef("--known: %v", err)
		}
		known = append(known, p)
	}
	if f.running {
		boxes, err := a.client().Sandboxes(ctx)
		if err != nil {
			return nil, err
		}
		for _, b := range boxes {
			p, err := scope.ParsePrincipal(b.Scope)
			if err != nil {
				return nil, err
			}
			known = append(known, p)
		}
		if len(known) == 0 {
			return nil, usagef("no sandbox runs; name who there is with --known")
		}
	}
	docs, err := a.documentsNamed(ctx, names)
	if err != nil {
		return nil, err
	}
	found, err := policy.Lint(docs, known, policy.MaxQuestions)
	if err != nil || !f.hits {
		return found, err
	}
	use, err := a.client().PolicyUse(ctx)
	return append(found, neverHit(docs, use)...), err
}

// neverHit are the rules of documents that decided nothing on the node.
func neverHit(docs []policy.Document, use api.PolicyUse) (out []policy.Finding) {
	idle := map[[2]string]bool{}
	for _, r := range use.Rules {
		idle[[2]string{r.Scope, r.Rule}] = r.KernelHits+r.GatewayHits == 0
	}
	for i := range docs {
		d := &docs[i]
		if d.Policy == nil {
			continue
		}
		for _, r := range slices.Concat(d.Policy.Egress, d.Policy.Inference, d.Policy.Tools) {
			if !r.Shadow && idle[[2]string{d.Scope.String(), d.Name + "/" + r.ID}] {
				out = append(out, policy.Finding{Kind: policy.LintNeverHit, Rule: policy.RuleRef{Doc: d.Name, ID: r.ID, File: d.File, Line: r.Line, Scope: d.Scope.String()}, Doc: d.Name,
					File: d.File, Line: r.Line, Col: r.Col, Why: "it decided nothing since " + use.Since.Local().Format("2006-01-02 15:04:05"), Do: "delete it if it is not needed any more"})
			}
		}
	}
	return out
}

// lintResult is the answer of policy lint with -o json.
type lintResult struct {
	OK       bool          `json:"ok"` // notes aside
	Findings []lintFinding `json:"findings"`
}

type lintFinding struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Col  int    `json:"col"`
	Kind string `json:"kind"`
	Note bool   `json:"note"` // may well be meant
	Rule string `json:"rule,omitempty"`
	Doc  string `json:"document"`
	Why  string `json:"why"`
	Do   string `json:"do"`
}

func (a *app) printFindings(found []policy.Finding) error {
	res := lintResult{OK: true, Findings: []lintFinding{}}
	notes := 0
	for _, f := range found {
		res.Findings = append(res.Findings, lintFinding{f.File, f.Line, f.Col, f.Kind, f.Note, f.Rule.String(), f.Doc, f.Why, f.Do})
		res.OK = res.OK && f.Note
		if f.Note {
			notes++
		}
	}
	if a.json() {
		if err := show.JSON(a.out, res); err != nil {
			return err
		}
	} else {
		var b strings.Builder
		for _, f := range res.Findings {
			kind, what := f.Kind, f.Rule
			if f.Note {
				kind = "note, " + kind
			}
			if what == "" {
				what = f.Doc
			}
			fmt.Fprintln(&b, show.Text(fmt.Sprintf("%s:%d:%d: %s: %s: %s (%s)", f.File, f.Line, f.Col, kind, what, f.Why, f.Do), 1000))
		}
		fmt.Fprintf(&b, "%s, %s\n", plural(len(found)-notes, "finding", "findings"), plural(notes, "note", "notes"))
		if _, err := fmt.Fprint(a.out, b.String()); err != nil {
			return err
		}
	}
	if !res.OK {
		return quiet(exitGeneric)
	}
	return nil
}
