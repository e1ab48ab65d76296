// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/policy"
)

// liveDocuments stands for the documents in force on the node where files are
// named; ./live is a file. A number stands for the documents as of that
// revision, and ./12 is a file.
const liveDocuments = "live"

// namedDocuments says in help texts what DOCUMENTS are.
const namedDocuments = "DOCUMENTS are a file, a directory, a pack (`ringfence policy packs` lists them), live, or the\n" +
	"number of a revision. live is what is in force on the node, for who sees all of it; a revision\n" +
	"is what was kept then, for root and admins of org:*. A file called 12 is ./12."

func (a *app) policyProveCommand() *cobra.Command {
	var older []string
	cmd := &cobra.Command{
		Use:   "prove DOCUMENTS... --no-more-permissive-than DOCUMENTS",
		Short: "Prove that documents let nothing pass that others do not",
		Long: "Prove that whatever is asked, by whomever, documents give no more permissive answer than\n" +
			"others do: no looser verdict, no obligation or approver less, no address of a name and no\n" +
			"model provider more. If that is not so, a question is shown that they answer differently.\n" +
			namedDocuments + "\n\n" +
			"Every question is covered, none is sampled. Nothing is assumed about conditions (when): each\n" +
			"may be true, false or an error at any time, but the same text is the same on both sides.\n" +
			"Profiles and who operates what are not compared. Exit code 1 when it is not so, or when the\n" +
			"documents are too large to tell.",
		Example: "  ringfence policy prove new/ --no-more-permissive-than live\n  ringfence policy prove ours.yaml --no-more-permissive-than pack:coding-agent\n  ringfence policy prove 12 --no-more-permissive-than 11",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, newer []string) error {
			if len(older) == 0 {
				return usagef("say what to compare with, for example: ringfence policy prove %s --no-more-permissive-than live", newer[0])
			}
			if err := toEvaluate(); err != nil {
				return err
			}
			n, err := a.documentsNamed(cmd.Context(), newer)
			if err != nil {
				return err
			}
			o, err := a.documentsNamed(cmd.Context(), older)
			if err != nil {
				return err
			}
			proof, err := policy.Prove(n, o, policy.MaxQuestions)
			if err != nil {
				return err
			}
			return a.printProof(proof)
		},
	}
	cmd.Flags().StringArrayVar(&older, "no-more-permissive-than", nil, "what to compare with; once for each, where it is several")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// documentsNamed reads files, directories, packs, what is in force and what was.
func (a *app) documentsNamed(ctx context.Context, names []string) ([]policy.Document, error) {
	var files []string
	var docs []policy.Document
	for _, n := range names {
		read := a.liveNow
		if number, err := strconv.ParseUint(n, 10, 63); err == nil && number > 0 {
			read = func(ctx context.Context) ([]policy.Document, error) { return a.asOf(ctx, number) }
		} else if n != liveDocuments {
			files = append(files, n)
			continue
		}
		more, err := read(ctx)
		if err != nil {
			return nil, err
		}
		docs = append(docs, more...)
	}
	if len(files) == 0 {
		return docs, nil
	}
	more, err := a.testedDocuments(files)
	return append(docs, more...), err
}

// liveNow are the documents in force on the node, for who sees all of them.
func (a *app) liveNow(ctx context.Context) ([]policy.Document, error) {
	v, err := a.client().Policy(ctx, "")
	if err != nil {
		return nil, err
	}
	if len(v.Within) > 0 {
		return nil, fmt.Errorf("you see the documents in force for %s only, and what others say may apply too: ask a viewer of org:*", strings.Join(v.Within, ", "))
	}
	return inForce(v)
}

// asOf are the documents that the node kept as of a revision. One of the API
// gives way to one of the policy directory with its kind and name, as it did then.
func (a *app) asOf(ctx context.Context, revision uint64) ([]policy.Document, error) {
	kept, err := a.client().StoredDocuments(ctx, "", revision)
	if err != nil {
		return nil, err
	}
	var out []policy.Document
	for _, d := range kept.Documents {
		if d.Owner == "api" && slices.ContainsFunc(kept.Documents, func(o api.StoredDocument) bool {
			return o.Owner == "directory" && o.Kind == d.Kind && o.Name == d.Name
		}) {
			continue
		}
		docs, problems := policy.Parse(fmt.Sprintf("%s/%s@%d", d.Kind, d.Name, revision), []byte(d.Text))
		if len(problems) > 0 {
			return nil, fmt.Errorf("a document of revision %d is not understood by this version of ringfence: %w", revision, policy.Problems(problems))
		}
		out = append(out, docs...)
	}
	return out, nil
}

// proofResult is the answer of policy prove with -o json.
type proofResult struct {
	Holds          bool              `json:"holds"`
	Compared       int               `json:"compared"`             // questions that stand for all
	Conditions     []string          `json:"conditions,omitempty"` // of which nothing is assumed
	Counterexample *counterexampleOf `json:"counterexample,omitempty"`
}

type counterexampleOf struct {
	Scope      string            `json:"scope"`
	Question   string            `json:"question"`
	Resolved   string            `json:"resolved,omitempty"` // the address that the name has
	Difference string            `json:"difference"`
	Assuming   map[string]string `json:"assuming,omitempty"` // condition: true, false or error
	New        verdictRow        `json:"new"`
	Old        verdictRow        `json:"old"`
}

func proofOf(p *policy.Proof) proofResult {
	res := proofResult{Holds: p.Holds, Compared: p.Compared, Conditions: p.Conditions}
	if c := p.Counterexample; c != nil {
		side := func(d *policy.Decision) verdictRow {
			return verdictRow{c.As.String(), d.Verdict(), d.Rule.String(), ruleAtOf(d), d.Reason}
		}
		x := &counterexampleOf{Scope: c.As.String(), Question: c.Question.String(), Difference: c.Difference, New: side(&c.New), Old: side(&c.Old)}
		if c.Resolved.IsValid() {
			x.Resolved = c.Resolved.String()
		}
		for _, s := range c.Assuming {
			if x.Assuming == nil {
				x.Assuming = map[string]string{}
			}
			x.Assuming[s.Condition] = s.Value
		}
		res.Counterexample = x
	}
	return res
}

func (a *app) printProof(p *policy.Proof) error {
	res := proofOf(p)
	if a.json() {
		if err := show.JSON(a.out, res); err != nil {
			return err
		}
	} else if _, err := fmt.Fprint(a.out, proofText(p, &res)); err != nil {
		return err
	}
	if !res.Holds {
		return quiet(exitGeneric)
	}
	return nil
}

func proofText(p *policy.Proof, res *proofResult) string {
	var b strings.Builder
	line := func(name, value string) {
		fmt.Fprintln(&b, show.Text(fmt.Sprintf("%-9s %s", name, value), 1000))
	}
	if res.Holds {
		fmt.Fprintf(&b, "proved: whatever is asked, the answer is no more permissive (%s for all)\n", stand(res.Compared))
		if n := len(res.Conditions); n > 0 {
			fmt.Fprintf(&b, "whatever %s of rules say\n", plural(n, "condition", "conditions"))
		}
		return b.String()
	}
	x := res.Counterexample
	fmt.Fprintln(&b, "not so: a question is answered more permissively")
	line("scope", x.Scope)
	line("asks for", x.Question)
	line("gets", x.Difference)
	for _, s := range p.Counterexample.Assuming {
		line("assuming", fmt.Sprintf("%q: %s", s.Condition, s.Value))
	}
	for _, side := range []struct {
		name string
		row  verdictRow
	}{{"new", x.New}, {"old", x.Old}} {
		by := side.row.Verdict + ", " + side.row.Why
		if side.row.Rule != "" {
			by = side.row.Verdict + " by " + strings.TrimSpace(side.row.Rule+" "+side.row.RuleAt)
		}
		line(side.name, by)
	}
	if len(x.Assuming) > 0 {
		fmt.Fprintln(&b, "If the conditions can never be like that, it is no counterexample.")
	}
	return b.String()
}

func stand(n int) string {
	if n == 1 {
		return "1 question stands"
	}
	return fmt.Sprintf("%d questions stand", n)
}
