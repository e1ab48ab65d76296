// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cel.dev/cel-go/cel"
	"go.yaml.in/yaml/v3"

	"github.com/ringfence/ringfence/pkg/scope"
)

// The second oracle: the whole algebra of the design (section 4) read from the
// text of documents, naively and with no code of the engine but selectors. It
// knows three effects, obligations, waive, conditions, risk and shadow.

// algRule is one rule as it is written.
type algRule struct {
	ID                  string
	Allow, Deny         string
	To, Model, Match    string
	Action, For, Mode   string
	Risk, Waive         []string
	When                *algWhen
	Rate, PII, Redact   map[string]any
	Audit, Reason       string
	Approval            map[string]any
	Mandatory           bool
	Delegable           bool
	doc, docScope       string
	section             string
	principals, targets scope.Selector
	level               scope.Level
}

type algWhen struct {
	Expression string
	Windows    []algWindow
}

type algWindow struct {
	Days           []string
	From, To, Zone string
}

// algAsk is one question of the table.
type algAsk struct {
	As, Tool, Egress, Model, At string
	Builtin                     bool
	Risk                        []string
	Args                        map[string]any
	algWant                     `yaml:",inline"`
	Shadow                      *algWant
}

type algWant struct {
	Want, By    string
	Obligations *[]string
	Demands     *[]string
}

type algCase struct {
	Name, Docs string
	Ask        []algAsk
}

// algVerdict is what the oracle answers, in the words of the table.
type algVerdict struct {
	effect, by           string
	obligations, demands []string
}

var algPrincipals = map[string]scope.Principal{
	"bot":   {Org: "acme", Team: "eng", Agent: "bot", Sandbox: "s1"},
	"cat":   {Org: "acme", Team: "ops", Agent: "cat"},
	"rep":   {Org: "acme", Team: "crm", Agent: "rep"},
	"alien": {Org: "other", Team: "eng", Agent: "bot"},
}

var strictness = map[string]int{"block": 2, "require-approval": 1, "allow": 0}

func algCases(t testing.TB) []algCase {
	t.Helper()
	data, err := os.ReadFile("testdata/algebra.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cases []algCase
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&cases); err != nil {
		t.Fatal(err)
	}
	return cases
}

func TestAlgebraOracle(t *testing.T) {
	for _, c := range algCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			rules := algRules(t, c.Docs)
			for _, q := range c.Ask {
				algCheck(t, q, "", q.algWant, algOracle(t, rules, q, false))
				if q.Shadow != nil {
					algCheck(t, q, " with shadow", *q.Shadow, algOracle(t, rules, q, true))
				}
			}
		})
	}
}

// algCheck compares a verdict with what the table wants.
func algCheck(t *testing.T, q algAsk, how string, want algWant, got algVerdict) {
	t.Helper()
	at := fmt.Sprintf("%s: %s%s%s risk %v args %v at %q%s", q.As, q.Tool, q.Egress, q.Model, q.Risk, q.Args, q.At, how)
	if got.effect != want.Want || got.by != want.By {
		t.Errorf("%s\n\twant %s by %q, got %s by %q", at, want.Want, want.By, got.effect, got.by)
	}
	if want.Obligations != nil && !slices.Equal(*want.Obligations, got.obligations) {
		t.Errorf("%s\n\twant obligations %q, got %q", at, *want.Obligations, got.obligations)
	}
	if want.Demands != nil && !slices.Equal(*want.Demands, got.demands) {
		t.Errorf("%s\n\twant demands %q, got %q", at, *want.Demands, got.demands)
	}
}

// algRules reads the rules of all documents of a text.
func algRules(t testing.TB, text string) (out []*algRule) {
	t.Helper()
	dec := yaml.NewDecoder(strings.NewReader(text))
	dec.KnownFields(true)
	for {
		var d struct {
			APIVersion               string `yaml:"apiVersion"`
			Kind, Scope              string
			Metadata                 struct{ Name, Description string }
			Egress, Inference, Tools []*algRule
		}
		err := dec.Decode(&d)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		for section, rules := range map[string][]*algRule{"egress": d.Egress, "inference": d.Inference, "tools": d.Tools} {
			for _, r := range rules {
				r.section, r.doc, r.docScope = section, d.Metadata.Name, d.Scope
				algFinish(t, r)
				out = append(out, r)
			}
		}
	}
}

func algFinish(t testing.TB, r *algRule) {
	t.Helper()
	selector := func(s string) scope.Selector {
		sel, err := scope.ParseSelector(s)
		if err != nil {
			t.Fatal(err)
		}
		return sel
	}
	sc := selector(r.docScope)
	r.level = sc.Level()
	r.docScope = sc.String()
	if r.For != "" {
		both, ok := sc.Intersect(selector(r.For))
		if !ok {
			t.Fatalf("%s/%s is for nobody", r.doc, r.ID)
		}
		sc = both
	}
	r.principals = sc
	if r.Allow != "" {
		r.Action, r.To, r.Model, r.Match = "allow", r.Allow, r.Allow, r.Allow
	}
	if r.Deny != "" {
		r.Action, r.To, r.Model, r.Match = "block", r.Deny, r.Deny, r.Deny
	}
	if r.section == "tools" {
		r.targets = selector(r.Match)
	}
}

func (r *algRule) name() string { return r.doc + "/" + r.ID }

// effect is "" for an obligation alone.
func (r *algRule) effect() string {
	if _, ok := strictness[r.Action]; ok {
		return r.Action
	}
	return ""
}

func (r *algRule) obligations() (out []string) {
	for kind, has := range map[string]bool{
		"rate": r.Rate != nil || r.Action == "rate-limit", "pii": r.PII != nil || r.Action == "pii-scan",
		"redact": r.Redact != nil || r.Action == "redact", "audit": r.Audit != "",
	} {
		if has {
			out = append(out, kind)
		}
	}
	return out
}

// matched is a rule that matches, and whether what loosens of it counts: not
// when its condition is an error, nor when it names only some of the risks.
type matched struct {
	*algRule
	sure bool
}

// speaks says whether the rule's effect counts: of an allow that is not sure
// only the obligations do.
func (m matched) speaks() bool { return m.effect() != "" && (m.sure || m.effect() != "allow") }

// algOracle decides one question.
func algOracle(t testing.TB, rules []*algRule, q algAsk, shadow bool) algVerdict {
	t.Helper()
	var m []matched
	for _, r := range rules {
		if r.Mode == "shadow" && !shadow {
			continue
		}
		if x, ok := algMatch(t, r, q); ok {
			m = append(m, x)
		}
	}
	slices.SortFunc(m, func(a, b matched) int {
		for _, p := range [][2]string{{a.docScope, b.docScope}, {a.doc, b.doc}, {a.ID, b.ID}} {
			if c := strings.Compare(p[0], p[1]); c != 0 {
				return c
			}
		}
		return 0
	})
	v := algEffect(m, q)
	v.obligations = algObligations(m)
	slices.Sort(v.demands)
	v.demands = slices.Compact(v.demands)
	return v
}

// algMatch says whether a rule matches: its condition is true or an error, and
// one of the risks is named. What loosens of it counts only if its condition is
// true and all are.
func algMatch(t testing.TB, r *algRule, q algAsk) (matched, bool) {
	t.Helper()
	p := algPrincipals[q.As]
	if !r.principals.Matches(p, "", "") || !algTarget(r, q, p) {
		return matched{}, false
	}
	some, all := algRisk(r, q)
	when, err := algCondition(t, r, q)
	return matched{r, all && when && err == nil}, some && (when || err != nil)
}

func algTarget(r *algRule, q algAsk, p scope.Principal) bool {
	switch {
	case r.section == "tools" && q.Tool != "":
		server, tool, _ := strings.Cut(q.Tool, "/")
		return r.targets.Matches(p, server, tool)
	case r.section == "inference" && q.Model != "":
		stem, wild := strings.CutSuffix(r.Model, "*")
		return q.Model == r.Model || wild && strings.HasPrefix(q.Model, stem)
	case r.section == "egress" && q.Egress != "":
		host, port, _ := strings.Cut(q.Egress, ":")
		ruleHost, rulePort, _ := strings.Cut(r.To, ":")
		return (rulePort == "" || rulePort == port) && oracleHost(ruleHost, host)
	}
	return false
}

func algRisk(r *algRule, q algAsk) (some, all bool) {
	if len(r.Risk) == 0 {
		return true, true
	}
	risks := q.Risk
	if len(risks) == 0 {
		risks = []string{"unclassified"}
	}
	all = true
	for _, k := range risks {
		has := slices.Contains(r.Risk, k) || k == "unclassified" && slices.Contains(r.Risk, "destructive")
		some, all = some || has, all && has
	}
	return some, all
}

func algCondition(t testing.TB, r *algRule, q algAsk) (bool, error) {
	t.Helper()
	if r.When == nil {
		return true, nil
	}
	if len(r.When.Windows) > 0 && !algInWindow(t, r.When.Windows, algTime(t, q)) {
		return false, nil
	}
	if r.When.Expression == "" {
		return true, nil
	}
	program := algProgram(t, r.When.Expression)
	args := q.Args
	if args == nil {
		args = map[string]any{}
	}
	out, _, err := program.Eval(map[string]any{"args": args})
	if err != nil {
		return false, err
	}
	yes, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("%v is not a bool", out)
	}
	return yes, nil
}

// algPrograms keeps what was compiled: environments are slow to make.
var algPrograms sync.Map

func algProgram(t testing.TB, text string) cel.Program {
	t.Helper()
	if p, ok := algPrograms.Load(text); ok {
		return p.(cel.Program)
	}
	env, err := cel.NewEnv(cel.Variable("args", cel.MapType(cel.StringType, cel.DynType)))
	if err != nil {
		t.Fatal(err)
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		t.Fatal(issues.Err())
	}
	program, err := env.Program(ast)
	if err != nil {
		t.Fatal(err)
	}
	algPrograms.Store(text, program)
	return program
}

func algTime(t testing.TB, q algAsk) time.Time {
	t.Helper()
	at := q.At
	if at == "" {
		at = "2026-03-02T10:00:00Z"
	}
	when, err := time.Parse(time.RFC3339, at)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

// algInWindow: from inclusive, to exclusive, in the zone's wall clock; a window
// that ends before it begins goes over midnight and belongs to the day it
// began on.
func algInWindow(t testing.TB, windows []algWindow, now time.Time) bool {
	t.Helper()
	for _, w := range windows {
		zone, err := time.LoadLocation(w.Zone)
		if err != nil {
			t.Fatal(err)
		}
		local := now.In(zone)
		clock, day := local.Format("15:04"), local.Weekday()
		in := w.From <= clock && clock < w.To
		if w.From > w.To {
			in = clock >= w.From || clock < w.To
			if clock < w.To {
				day = (day + 6) % 7
			}
		}
		name := strings.ToLower(day.String()[:3])
		if in && (len(w.Days) == 0 || slices.Contains(w.Days, name)) {
			return true
		}
	}
	return false
}

// algContains: field by field, by syntax.
func algContains(a, b *algRule) bool {
	if a.section != b.section || !a.principals.Contains(b.principals) {
		return false
	}
	switch a.section {
	case "tools":
		if !a.targets.Contains(b.targets) {
			return false
		}
	case "inference":
		stem, wild := strings.CutSuffix(a.Model, "*")
		if a.Model != b.Model && !(wild && strings.HasPrefix(b.Model, stem)) {
			return false
		}
	case "egress":
		aHost, aPort, _ := strings.Cut(a.To, ":")
		bHost, bPort, _ := strings.Cut(b.To, ":")
		if aPort != "" && aPort != bPort || !mustHost(aHost).Contains(mustHost(bHost)) {
			return false
		}
	}
	if len(a.Risk) > 0 {
		if len(b.Risk) == 0 {
			return false
		}
		for _, k := range b.Risk {
			if !slices.Contains(a.Risk, k) {
				return false
			}
		}
	}
	return a.When == nil || b.When != nil && fmt.Sprint(*a.When) == fmt.Sprint(*b.When)
}

func mustHost(s string) HostPattern {
	h, err := ParseHostPattern(s)
	if err != nil {
		panic(err)
	}
	return h
}

func strictly(a, b *algRule) bool { return algContains(a, b) && !algContains(b, a) }

// algWord is what one layer says.
type algWord struct {
	effect, by string
	delegable  bool
	demands    []string
}

func algLayer(m []matched, level scope.Level) *algWord {
	var stays []matched
	for _, a := range m {
		if a.level != level || a.Mandatory || !a.speaks() {
			continue
		}
		if !slices.ContainsFunc(m, func(b matched) bool {
			return b.level == level && !b.Mandatory && b.speaks() && strictly(a.algRule, b.algRule)
		}) {
			stays = append(stays, a)
		}
	}
	if len(stays) == 0 {
		return nil
	}
	w := &algWord{effect: "allow", delegable: true}
	for _, a := range stays {
		if strictness[a.effect()] > strictness[w.effect] {
			w.effect = a.effect()
		}
	}
	for _, a := range stays {
		if a.effect() != w.effect {
			continue
		}
		if w.by == "" {
			w.by = a.name()
		}
		w.delegable = w.delegable && a.Delegable && a.sure
		if w.effect == "require-approval" {
			w.demands = append(w.demands, a.name())
		}
	}
	return w
}

// algEffect: the layers from above, then the floor of mandatory rules.
func algEffect(m []matched, q algAsk) algVerdict {
	var words []*algWord // those that nothing below replaced, from above
	var standing *algWord
	speak := func(w *algWord) {
		words = slices.DeleteFunc(words, func(u *algWord) bool { return u.delegable })
		switch {
		case standing == nil || standing.delegable:
			standing = w
			for _, u := range words { // what stands above and was not delegated goes on standing
				if strictness[u.effect] > strictness[standing.effect] {
					standing = u
				}
			}
		case strictness[w.effect] > strictness[standing.effect]:
			standing = w
		}
		words = append(words, w)
	}
	if q.Builtin {
		speak(&algWord{effect: "allow", by: "builtin/models", delegable: true})
	}
	for _, level := range []scope.Level{scope.LevelOrg, scope.LevelTeam, scope.LevelAgent, scope.LevelSandbox} {
		if w := algLayer(m, level); w != nil {
			speak(w)
		}
	}
	v := algVerdict{effect: "block"}
	if standing != nil {
		v.effect, v.by = standing.effect, standing.by
	}
	for _, w := range words {
		v.demands = append(v.demands, w.demands...)
	}
	return algFloor(m, v)
}

// algFloor: the stricter of what the layers say and every mandatory rule.
func algFloor(m []matched, v algVerdict) algVerdict {
	silent := v.by == ""
	for _, a := range m { // in the order of names
		if !a.Mandatory || a.effect() == "" {
			continue
		}
		if a.effect() == "require-approval" {
			v.demands = append(v.demands, a.name())
		}
		if strictness[a.effect()] > strictness[v.effect] || silent && a.effect() == v.effect {
			v.effect, v.by, silent = a.effect(), a.name(), false
		}
	}
	// Of all rules that say it, mandatory or the standing word, the smallest name.
	for _, a := range m {
		if a.name() == v.by {
			break
		}
		if a.Mandatory && a.effect() == v.effect {
			v.by = a.name()
			break
		}
	}
	if v.effect != "require-approval" {
		v.demands = nil
	}
	return v
}

// algObligations: the union, without what was waived.
func algObligations(m []matched) []string {
	out := []string{}
	for _, o := range m {
		for _, kind := range o.obligations() {
			waived := !o.Mandatory && slices.ContainsFunc(m, func(w matched) bool {
				return w.sure && slices.Contains(w.Waive, kind) && strictly(o.algRule, w.algRule) &&
					(w.level == o.level || w.level > o.level && o.Delegable && o.sure)
			})
			if !waived {
				out = append(out, kind+" "+o.name())
			}
		}
	}
	slices.Sort(out)
	return out
}
