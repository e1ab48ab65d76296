// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// askFlags say what is asked, and of which documents.
type askFlags struct {
	policies         []string
	request, dialect string
	risk             []string
	args, at         string
}

func (f *askFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.policies, "policy", nil, "file, directory or pack to ask instead of the node")
	cmd.Flags().StringVar(&f.request, "request", "", "with egress: the HTTP request, such as \"GET /repos/a/b\"")
	cmd.Flags().StringVar(&f.dialect, "dialect", "", "with model: openai (default) or anthropic")
	cmd.Flags().StringSliceVar(&f.risk, "risk", nil, "with tool: its risk classes, such as read,money; unclassified when absent")
	cmd.Flags().StringVar(&f.args, "args", "", "with tool: the arguments of the call, as a JSON object")
	cmd.Flags().StringVar(&f.at, "at", "", "when, such as 2026-03-02T10:00:00Z; now when absent")
}

// flagOf is the subject that a flag goes with.
var flagOf = map[string]string{"request": "egress", "dialect": "model", "risk": "tool", "args": "tool"}

// fits refuses flags that say nothing about the subject.
func fits(cmd *cobra.Command, subject string) error {
	for flag, of := range flagOf {
		if cmd.Flags().Changed(flag) && of != subject {
			return usagef("--%s goes with %s", flag, of)
		}
	}
	return nil
}

const whatIsAsked = "egress HOST:PORT[/udp], model NAME or tool SERVER/TOOL"

// question reads "egress a.example:443", "model gpt-5", "tool provider/web_search".
func (f *askFlags) question(words []string) (policy.Question, error) {
	var q policy.Question
	var err error
	switch words[0] {
	case "egress":
		q, err = policy.EgressQuestion(words[1], f.request)
	case "model":
		q, err = policy.ModelQuestion(words[1], f.dialect)
	case "tool":
		q, err = f.tool(words[1])
	default:
		return q, usagef("%q cannot be asked about; write %s", words[0], whatIsAsked)
	}
	if err != nil {
		return q, usagef("%v", err)
	}
	return q, nil
}

func (f *askFlags) tool(name string) (policy.Question, error) {
	q, err := policy.ToolQuestion(name)
	if err != nil {
		return q, err
	}
	for _, name := range f.risk {
		class, err := policy.ParseRisk(name)
		if err != nil {
			return q, err
		}
		q.Risk |= class
	}
	if f.args != "" {
		var args map[string]any
		if err := json.Unmarshal([]byte(f.args), &args); err != nil {
			return q, fmt.Errorf("--args is not a JSON object: %w", err)
		}
		q.Args = policy.NewArgs(args)
	}
	return q, nil
}

// when is the time that is asked about.
func (f *askFlags) when() (time.Time, error) {
	if f.at == "" {
		return time.Now(), nil
	}
	at, err := time.Parse(time.RFC3339, f.at)
	if err != nil {
		return at, usagef("--at %q is no time such as 2026-03-02T10:00:00Z", f.at)
	}
	return at, nil
}

// asked compiles the documents that are asked: those of files and packs, or
// those in force on the node. Of the node a caller may have been given only what
// is about some scopes: of others nothing can be said.
func (a *app) asked(ctx context.Context, policies []string) (_ *policy.Snapshot, within scopes, err error) {
	if len(policies) > 0 {
		docs, err := a.testedDocuments(policies)
		if err != nil {
			return nil, nil, err
		}
		snap, err := compile(0, docs)
		return snap, nil, err
	}
	v, err := a.client().Policy(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	for _, text := range v.Within {
		sel, err := scope.ParseSelector(text)
		if err != nil {
			return nil, nil, err
		}
		within = append(within, sel)
	}
	docs, err := inForce(v)
	if err != nil {
		return nil, nil, err
	}
	snap, err := compile(v.Revision, docs)
	return snap, within, err
}

// scopes are where a caller sees everybody; none is everywhere.
type scopes []scope.Selector

func (in scopes) hold(s scope.Selector) bool {
	return len(in) == 0 || slices.ContainsFunc(in, func(w scope.Selector) bool { return w.Contains(s) })
}

func (in scopes) String() string {
	var out []string
	for _, s := range in {
		out = append(out, s.String())
	}
	return strings.Join(out, ", ")
}

// narrow leaves of each row what the scopes hold of it. Wider rows stand first,
// as before; where two become one, the narrower one's word counts.
func (in scopes) narrow(rows []policy.Who) (out []policy.Who) {
	for _, r := range rows {
		if in.hold(r.Scope) {
			out = append(out, r)
			continue
		}
		for _, w := range in {
			if s, ok := w.Intersect(r.Scope); ok && !slices.ContainsFunc(rows, func(o policy.Who) bool { return o.Scope == s }) {
				out = slices.DeleteFunc(out, func(o policy.Who) bool { return o.Scope == s })
				out = append(out, policy.Who{Scope: s, Decision: r.Decision})
			}
		}
	}
	return out
}

func compile(revision uint64, docs []policy.Document) (*policy.Snapshot, error) {
	snap, problems := policy.Compile(revision, docs)
	if len(problems) > 0 {
		return nil, policy.Problems(problems)
	}
	return snap, nil
}

// inForce reads the documents of the node. A text may hold several, and stands
// with each of them.
func inForce(v api.PolicyView) ([]policy.Document, error) {
	var out []policy.Document
	read := map[string]bool{}
	for _, d := range v.Documents {
		if d.Text == "" {
			return nil, fmt.Errorf("%s holds documents besides that you may not see, so the answer would lack its rules: ask somebody who may, or keep one document in a file", d.File)
		}
		if read[d.File+"\x00"+d.Text] {
			continue
		}
		read[d.File+"\x00"+d.Text] = true
		docs, problems := policy.Parse(d.File, []byte(d.Text))
		if len(problems) > 0 {
			return nil, fmt.Errorf("a document in force is not understood by this version of ringfence: %w", policy.Problems(problems))
		}
		if d.Scope != "" && len(docs) == 1 { // one of a sandbox is narrowed to it
			sel, err := scope.ParseSelector(d.Scope)
			if err != nil {
				return nil, err
			}
			docs[0].Scope = sel
		}
		out = append(out, docs...)
	}
	return out, nil
}

func (a *app) whoCanCommand() *cobra.Command {
	var f askFlags
	cmd := &cobra.Command{
		Use:   "who-can egress|model|tool WHAT",
		Short: "Tell who may reach a destination, use a model or have a tool run",
		Long: "Tell for everybody what they get: " + whatIsAsked + ".\n" +
			"A row is everybody in its scope who is not in the scope of a row below it. The documents in\n" +
			"force on the node are asked, for the scopes where you are a viewer, or those of --policy,\n" +
			"without the daemon.",
		Example: "  ringfence policy who-can egress db.internal:5432\n  ringfence policy who-can model claude-opus-4 --dialect anthropic --policy ./policies",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, words []string) error {
			if err := toEvaluate(); err != nil {
				return err
			}
			if err := fits(cmd, words[0]); err != nil {
				return err
			}
			q, err := f.question(words)
			if err != nil {
				return err
			}
			at, err := f.when()
			if err != nil {
				return err
			}
			snap, within, err := a.asked(cmd.Context(), f.policies)
			if err != nil {
				return err
			}
			rows, err := snap.WhoCan(q, at)
			if err != nil {
				return err
			}
			return a.printWho(within.narrow(rows))
		},
	}
	f.add(cmd)
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// verdictRow is what somebody gets.
type verdictRow struct {
	Scope   string `json:"scope"`
	Verdict string `json:"verdict"` // allow, http (each request is decided), require-approval or block
	Rule    string `json:"rule,omitempty"`
	RuleAt  string `json:"ruleAt,omitempty"`
	Why     string `json:"why"`
}

func ruleAtOf(d *policy.Decision) string {
	if d.Rule.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", d.Rule.File, d.Rule.Line)
}

func (a *app) printWho(rows []policy.Who) error {
	list, table := []verdictRow{}, [][]string{}
	for i := range rows {
		d := &rows[i].Decision
		r := verdictRow{rows[i].Scope.String(), d.Verdict(), d.Rule.String(), ruleAtOf(d), d.Reason}
		list = append(list, r)
		table = append(table, []string{r.Scope, r.Verdict, strings.TrimSpace(r.Rule + " " + r.RuleAt), r.Why})
	}
	if a.json() {
		return show.JSON(a.out, list)
	}
	return show.Table(a.out, []string{"SCOPE", "VERDICT", "RULE", "WHY"}, table)
}

// whatIf answers `explain --as`.
func (a *app) whatIf(ctx context.Context, as string, f *askFlags, words []string) error {
	p, err := scope.ParsePrincipal(as)
	if err != nil {
		return usagef("--as: %v", err)
	}
	q, err := f.question(words)
	if err != nil {
		return err
	}
	at, err := f.when()
	if err != nil {
		return err
	}
	snap, within, err := a.asked(ctx, f.policies)
	if err != nil {
		return err
	}
	if !within.hold(p.Selector()) {
		return fmt.Errorf("--as %s: you are a viewer of %s, and not there: what applies there is not yours to see", p, within)
	}
	view := snap.View(p).At(at)
	if len(f.policies) == 0 && a.learns(ctx, p) {
		view = view.Learning()
	}
	x := view.Explain(q)
	if a.json() {
		r := explained(p, &x)
		r.answering = answers(view, &q)
		return show.JSON(a.out, r)
	}
	if err := a.printWhatIf(p, &x); err != nil {
		return err
	}
	return a.printAnswers(answers(view, &q))
}

// learns says whether the principal is a sandbox that runs and learns.
func (a *app) learns(ctx context.Context, p scope.Principal) bool {
	if p.Sandbox == "" {
		return false
	}
	b, err := a.client().Sandbox(ctx, p.Sandbox)
	return err == nil && b.Scope == p.String() && b.Learns
}

// whatIfResult is the answer of explain --as with -o json.
type whatIfResult struct {
	verdictRow
	Revision   uint64         `json:"revision,omitempty"` // 0: of files
	Nearest    string         `json:"nearest,omitempty"`  // the rule that came closest to allowing it
	Remedy     string         `json:"remedy,omitempty"`
	Rules      []judgedByRule `json:"rules"` // all that speak of the target, the winner first
	*answering                // of models
}

type judgedByRule struct {
	Rule    string `json:"rule"`
	At      string `json:"at"`
	Layer   string `json:"layer"`
	Effect  string `json:"effect"`
	Target  string `json:"target"`
	Matched bool   `json:"matched"`
	Why     string `json:"why"`
}

func explained(p scope.Principal, x *policy.Explanation) whatIfResult {
	d := &x.Decision
	r := whatIfResult{verdictRow: verdictRow{p.String(), d.Verdict(), d.Rule.String(), ruleAtOf(d), d.Reason},
		Revision: d.Revision, Remedy: remedyFor(p, x), Rules: []judgedByRule{}}
	for i := range x.Candidates {
		c := &x.Candidates[i]
		r.Rules = append(r.Rules, judgedByRule{c.Rule.String(), fmt.Sprintf("%s:%d", c.Rule.File, c.Rule.Line), c.Layer.String(), c.Effect.String(), c.Target, c.Matched, c.Why})
	}
	if x.Nearest != nil {
		r.Nearest = x.Nearest.Rule.String() + ": " + x.Nearest.Why
	}
	return r
}

// remedyFor is the remedy as a whole command for that scope, or as a rule to
// write where files are asked.
func remedyFor(p scope.Principal, x *policy.Explanation) string {
	destination, ok := strings.CutPrefix(x.Remedy, "ringfence allow ")
	switch {
	case !ok:
		return x.Remedy
	case x.Decision.Revision == 0:
		return fmt.Sprintf("add to a Policy document: egress: [{id: ID, allow: %q}]", destination)
	}
	return x.Remedy + " --scope " + p.String() + " --always"
}

func (a *app) printWhatIf(p scope.Principal, x *policy.Explanation) error {
	r := explained(p, x)
	for _, f := range []struct{ name, value string }{
		{"scope", r.Scope}, {"verdict", r.Verdict}, {"rule", strings.TrimSpace(r.Rule + " " + r.RuleAt)}, {"why", r.Why}, {"nearest", r.Nearest}, {"to allow", r.Remedy},
	} {
		if f.value != "" {
			_, _ = fmt.Fprintf(a.out, "%-9s %s\n", f.name, show.Text(f.value, 1000))
		}
	}
	if len(r.Rules) == 0 {
		return nil
	}
	_, _ = fmt.Fprintln(a.out)
	var table [][]string
	for _, c := range r.Rules {
		table = append(table, []string{c.Rule, c.At, c.Layer, c.Effect, c.Target, c.Why})
	}
	return show.Table(a.out, []string{"RULE", "AT", "LAYER", "EFFECT", "TARGET", "WHY"}, table)
}
