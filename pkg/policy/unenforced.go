// SPDX-License-Identifier: Apache-2.0

package policy

import "github.com/ringfence/ringfence/pkg/scope"

// unenforced lists what documents can say and this version does not enforce. A
// row goes when what it names is built.
var unenforced = []struct {
	field string // where it stands in a rule, for the place of the problem
	what  string // for people
	has   func(r *Rule) bool
	msg   func(r *Rule) string
	hint  string
}{
	{"action", "`action: require-approval` for anything but models, tools of a provider and TCP connections to host names; on port 80; with `http` or an expression on requests", func(r *Rule) bool { return r.Effect == RequireApproval && !r.Shadow && !askable(r) },
		says(`action "require-approval" here`), "people can be asked about models, about what a provider does on its side (server:provider/tool:NAME), and about TCP connections to host names, not port 80 and not about single requests: use allow or block"},
	{"match", "tools on servers other than `server:provider`", func(r *Rule) bool {
		return r.Server != scope.Pattern{} && r.Server != scope.Exact(scope.ServerProvider)
	},
		func(r *Rule) string { return "tools on " + quote(toolSelector(r.Server, r.Tool)) + ": this" }, `only "server:provider/tool:NAME" is`},
	{"risk", "`risk`: nothing classifies the tools of a provider", func(r *Rule) bool { return r.Risk != 0 }, fieldOf("risk"), ""},
	{"when", "`when` in tools rules", func(r *Rule) bool { return r.When != nil && r.Section == SectionTools }, fieldOf("when"), "conditions are asked for egress and inference"},
	{"mode", "`mode: shadow` in tools rules: what it would change is recorded nowhere", func(r *Rule) bool { return r.Shadow && r.Section == SectionTools }, fieldOf("mode"), "what it would change is recorded for egress and inference"},
	{"rate", "`rate` in egress and tools rules", func(r *Rule) bool { return r.Rate != nil && r.Section != SectionInference }, fieldOf("rate"), "calls of models are counted: rates of inference rules are enforced"},
	{"pii", "`pii`", func(r *Rule) bool { return r.PII != nil }, fieldOf("pii"), ""},
	{"redact", "`redact`", func(r *Rule) bool { return r.Redact != nil }, fieldOf("redact"), ""},
	{"audit", "`audit`", func(r *Rule) bool { return r.Audit != AuditUnsaid }, fieldOf("audit"), ""},
	{"waive", "`waive` of anything but the rates of inference rules", func(r *Rule) bool { return r.Waive&^KindRate != 0 || r.Waive != 0 && r.Section != SectionInference }, fieldOf("waive"), "in inference rules waive: [rate] is"},
}

// askable says whether people can be asked about what the rule is for.
func askable(r *Rule) bool {
	return r.Section == SectionInference || r.Section == SectionTools && r.Server == scope.Exact(scope.ServerProvider) || r.Section == SectionEgress && r.Host != (HostPattern{}) && r.HTTP == nil && (r.When == nil || !r.When.Request) && r.Proto != UDP && r.Port != 80
}

func says(what string) func(*Rule) string { return func(*Rule) string { return what } }

// fieldOf names a field or an action and the kind of rule it stands in.
func fieldOf(name string) func(*Rule) string {
	return func(r *Rule) string { return "field " + quote(name) + " in " + r.Section.String() + " rule" }
}

// Unenforced tells what a document says that nothing in this version enforces.
// Such a document must not come into force: who wrote it relies on it. Parse
// refuses it; ParseWhole does not.
func Unenforced(d *Document) (out []Problem) {
	if t := d.ToolServer; t != nil {
		return []Problem{{File: d.File, Line: t.kindPlace.line, Col: t.kindPlace.col, Msg: "kind " + quote(d.Kind) + " " + notEnforced}}
	}
	if d.Policy == nil {
		return nil
	}
	out = unenforcedBudgets(d)
	for _, rules := range [][]Rule{d.Policy.Egress, d.Policy.Inference, d.Policy.Tools} {
		for i := range rules {
			r := &rules[i]
			for _, row := range unenforced {
				if !row.has(r) {
					continue
				}
				p := Problem{File: d.File, Line: r.Line, Col: r.Col, Msg: row.msg(r) + " " + notEnforced, Hint: row.hint}
				p.Line, p.Col = r.place(row.field)
				out = append(out, p)
			}
		}
	}
	return out
}

// place is where a field stands, or the field that stands for it.
func (r *Rule) place(field string) (line, col int) {
	for _, name := range []string{field, "allow", "deny"} {
		for _, f := range r.fields {
			if f.name == name {
				return f.line, f.col
			}
		}
	}
	return r.Line, r.Col
}
