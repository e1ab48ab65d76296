// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/policy"
)

// testFlags are the flags of policy test.
type testFlags struct {
	policies         []string
	coverage, mutate bool
}

func (a *app) policyTestCommand() *cobra.Command {
	var f testFlags
	cmd := &cobra.Command{
		Use:   "test FILE|DIR...",
		Short: "Ask documents the questions of test files, and compare the answers",
		Long: "Run the PolicyTest documents of files, and of every *.yaml and *.yml of directories, without\n" +
			"the daemon. What is tested stands in them, or is named with --policy. --coverage lists the\n" +
			"rules that decided no test. --mutate deletes each rule in turn: without it a test must fail,\n" +
			"or nothing says what the rule is for. Exit code 1 when a test fails, and when --coverage or\n" +
			"--mutate find something.",
		Example: "  ringfence policy test tests/\n  ringfence policy test --policy engineering.yaml --mutate engineering-tests.yaml",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE:    func(_ *cobra.Command, names []string) error { return a.testPolicies(names, f) },
	}
	cmd.Flags().StringArrayVar(&f.policies, "policy", nil, "file, directory or pack to test, instead of what the test files name")
	cmd.Flags().BoolVar(&f.coverage, "coverage", false, "list the rules that no test is decided by")
	cmd.Flags().BoolVar(&f.mutate, "mutate", false, "list the rules without which every test still passes")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// tested is test files that test the same documents.
type tested struct {
	docs   []policy.Document
	suites []*policy.Suite
}

// testResult is the answer of policy test with -o json.
type testResult struct {
	OK        bool         `json:"ok"`
	Passed    int          `json:"passed"`
	Failed    []failedTest `json:"failed"`
	Uncovered []ruleAt     `json:"uncovered,omitempty"`
	Deletable []ruleAt     `json:"deletable,omitempty"`
	Unmutated bool         `json:"unmutated,omitempty"` // --mutate was asked for, and a test fails without
}

type failedTest struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Name string `json:"name,omitempty"`
	Want string `json:"want"`
	Got  string `json:"got"`
	Why  string `json:"why"`
}

type ruleAt struct {
	Rule string `json:"rule"`
	File string `json:"file"`
	Line int    `json:"line"`
}

func (a *app) testPolicies(names []string, f testFlags) error {
	if err := toEvaluate(); err != nil {
		return err
	}
	sets, err := a.readTests(names, f.policies)
	if err != nil {
		return err
	}
	res := testResult{Failed: []failedTest{}}
	for _, set := range sets {
		if err := set.run(f, &res); err != nil {
			return err
		}
	}
	res.OK = len(res.Failed)+len(res.Uncovered)+len(res.Deletable) == 0
	if a.json() {
		err = show.JSON(a.out, res)
	} else {
		a.printTests(res)
	}
	if err == nil && !res.OK {
		return quiet(exitGeneric)
	}
	return err
}

func (s *tested) run(f testFlags, res *testResult) error {
	snap, problems := policy.Compile(1, s.docs)
	if len(problems) > 0 {
		return policy.Problems(problems)
	}
	var all []policy.Outcome
	failed := false
	for _, suite := range s.suites {
		for _, o := range suite.Run(snap) {
			all = append(all, o)
			if o.OK {
				res.Passed++
				continue
			}
			failed = true
			res.Failed = append(res.Failed, failedTest{o.Test.File, o.Test.Line, o.Test.Name, wanted(o.Test), got(&o), o.Why})
		}
	}
	if f.coverage {
		for _, c := range policy.Cover(s.docs, all) {
			if c.Hits == 0 {
				res.Uncovered = append(res.Uncovered, at(c.Rule))
			}
		}
	}
	res.Unmutated = res.Unmutated || f.mutate && failed
	if f.mutate && !failed { // otherwise a test fails without any rule
		for _, r := range policy.Mutate(s.docs, s.suites) {
			res.Deletable = append(res.Deletable, at(r))
		}
	}
	return nil
}

func at(r policy.RuleRef) ruleAt { return ruleAt{r.String(), r.File, r.Line} }

func wanted(t *policy.Test) string {
	out := t.Want
	if t.Rule != "" {
		out += " by " + t.Rule
	}
	return out + listed(" obliged to", t.Obligations) + listed(" demanded by", t.Demands)
}

// got says of an outcome what its test asks for.
func got(o *policy.Outcome) string {
	by := o.Rule.String()
	if by == "" {
		by = policy.NoRule
	}
	out := o.Got + " by " + by
	if o.Test.Obligations != nil {
		out += listed(" obliged to", o.Obligations)
	}
	if o.Test.Demands != nil {
		out += listed(" demanded by", o.Demands)
	}
	return out
}

func listed(what string, names []string) string {
	if names == nil {
		return ""
	}
	return what + " [" + strings.Join(names, ", ") + "]"
}

func (a *app) printTests(res testResult) {
	line := func(format string, args ...any) {
		_, _ = fmt.Fprintln(a.out, show.Text(fmt.Sprintf(format, args...), 1000))
	}
	for _, t := range res.Failed {
		name := ""
		if t.Name != "" {
			name = t.Name + ": "
		}
		line("%s:%d: %swant %s, got %s: %s", t.File, t.Line, name, t.Want, t.Got, t.Why)
	}
	for _, r := range res.Uncovered {
		line("%s:%d: no test is decided by %s", r.File, r.Line, r.Rule)
	}
	for _, r := range res.Deletable {
		line("%s:%d: without %s every test still passes", r.File, r.Line, r.Rule)
	}
	if res.Unmutated {
		line("a test fails without any rule deleted: nothing was mutated")
	}
	line("%s passed, %d failed", plural(res.Passed, "test", "tests"), len(res.Failed))
}

// readTests reads test files and what they test.
func (a *app) readTests(names, policies []string) ([]*tested, error) {
	files, err := documentFiles(names)
	if err != nil {
		return nil, err
	}
	sets := map[string]*tested{}
	var out []*tested
	for _, name := range files {
		text, err := a.readDocument(name)
		if err != nil {
			return nil, err
		}
		suites, problems := policy.ParseSuite(name, text)
		if len(problems) > 0 {
			return nil, policy.Problems(problems)
		}
		if len(suites) == 0 {
			return nil, fmt.Errorf("%s holds no tests", name)
		}
		for _, s := range suites {
			of, err := whatIsTested(s, policies)
			if err != nil {
				return nil, err
			}
			key := strings.Join(of, "\x00")
			if sets[key] == nil {
				docs, err := a.testedDocuments(of)
				if err != nil {
					return nil, err
				}
				sets[key] = &tested{docs: docs}
				out = append(out, sets[key])
			}
			sets[key].suites = append(sets[key].suites, s)
		}
	}
	return out, nil
}

// whatIsTested names the files, directories and packs of a suite.
func whatIsTested(s *policy.Suite, policies []string) ([]string, error) {
	if len(policies) > 0 {
		return policies, nil
	}
	var out []string
	for _, p := range s.Policies {
		if !filepath.IsAbs(p) && !strings.HasPrefix(p, packPrefix) {
			p = filepath.Join(filepath.Dir(s.File), p)
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, usagef("%s does not say what it tests: add policies: [...] to it, or --policy FILE", s.File)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func (a *app) testedDocuments(names []string) ([]policy.Document, error) {
	texts, err := a.documentTexts(names, "")
	if err != nil {
		return nil, err
	}
	var docs []policy.Document
	var problems []policy.Problem
	for _, t := range texts {
		d, p := policy.ParseWhole(t.File, []byte(t.Text)) // also what no part enforces yet: nothing comes into force here
		docs, problems = append(docs, d...), append(problems, p...)
	}
	if len(problems) > 0 {
		return nil, policy.Problems(problems)
	}
	for i := range docs {
		for _, p := range policy.Unenforced(&docs[i]) {
			a.noteUnenforced(p)
		}
	}
	return docs, nil
}
