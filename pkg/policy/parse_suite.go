// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ringfence/ringfence/pkg/scope"
)

var objSuite = &object{KindTest, "Tests of documents: questions, and what must come of them. They are run by `ringfence policy test` and never in force.", []field{
	{name: "apiVersion", typ: "string", required: true, doc: "`ringfence.dev/v1`."},
	{name: "kind", typ: "string", required: true, doc: "`PolicyTest`."},
	{name: "metadata", typ: "metadata", required: true, doc: "Name of the tests."},
	{name: "policies", typ: "list of paths", doc: "What is tested, when the command line does not say it: files and directories relative to this file, and `pack:NAME`."},
	{name: "as", typ: "principal", doc: "Who asks, such as `org:acme/team:eng/agent:bot`, where a test does not say it."},
	{name: "tests", typ: "list of test", required: true, doc: "The questions."},
}}

var objTest = &object{"test", "One question: exactly one of `egress`, `model` and `tool`, and what must come of it.", []field{
	{name: "name", typ: "string", doc: "What the test is for, shown when it fails."},
	{name: "as", typ: "principal", doc: "Who asks; the document's `as` when absent."},
	{name: "egress", typ: "target", doc: "A connection to `HOST:PORT`, or datagrams to `HOST:PORT/udp`. The host is a name or an address."},
	{name: "request", typ: "string", doc: "`METHOD /path` on the connection, such as `GET /repos/a/b`."},
	{name: "model", typ: "string", doc: "A call of this model."},
	{name: "dialect", typ: "string", doc: "The dialect of the call: `openai` (default) or `anthropic`."},
	{name: "tool", typ: "string", doc: "A call of `SERVER/TOOL`; `provider/NAME` is what the model provider runs on its side."},
	{name: "risk", typ: "list of strings", doc: "The risk classes of the tool; unclassified when absent."},
	{name: "args", typ: "mapping of anything", doc: "The arguments of the call, for conditions."},
	{name: "at", typ: "string", doc: "When, for time windows, such as `2026-03-02T10:00:00Z`. Without it, what depends on the time is decided the stricter way."},
	{name: "want", typ: "string", required: true, doc: "`allow`, `block`, `require-approval`, or `http`: the connection is allowed as inspected HTTP, and each request is decided."},
	{name: "rule", typ: "string", doc: "`DOCUMENT/ID` of the rule that must decide, or `none`."},
	{name: "obligations", typ: "list of strings", doc: "All that must be done with what passes, as `KIND DOCUMENT/ID`, such as `rate acme/slow`, in any order; `[]` for nothing. Not compared when absent."},
	{name: "demands", typ: "list of strings", doc: "All rules whose approval is needed, as `DOCUMENT/ID`, in any order. Not compared when absent."},
}}

// ParseSuite reads a file of PolicyTest documents. It returns those without
// mistakes and every mistake of the others.
func ParseSuite(file string, data []byte) ([]*Suite, []Problem) {
	var out []*Suite
	problems := eachDocument(file, data, func(d *decoder, n *yaml.Node, _ []byte) {
		if s := d.suite(n); s != nil && len(d.problems) == 0 {
			out = append(out, s)
		}
	})
	return out, problems
}

func (d *decoder) suite(n *yaml.Node) *Suite {
	if !d.plainTree(n, 0) {
		return nil
	}
	if kind := valueOf(n, "kind"); n.Kind != yaml.MappingNode || kind == nil || kind.Value != KindTest {
		d.fail(n, "kind: "+KindTest, "this is no document of tests")
		return nil
	}
	m, _ := d.mapping(n, objSuite)
	doc := Document{File: d.file, Scope: scope.All()}
	d.header(m, &doc)
	s := &Suite{Name: doc.Name, File: d.file}
	if n := m.get("policies"); n != nil {
		s.Policies = d.strs(n, "policies", func(s string) (string, error) { return s, nil })
	}
	as := d.principal(m.get("as"))
	d.list(m.get("tests"), "tests", func(n *yaml.Node) { d.test(n, s, as) })
	if n := m.get("tests"); n != nil && n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		d.fail(n, "", "tests is an empty list")
	}
	return s
}

func (d *decoder) principal(n *yaml.Node) *scope.Principal {
	s, ok := d.str(n, "as")
	if !ok {
		return nil
	}
	p, err := scope.ParsePrincipal(s)
	if err != nil {
		d.fail(n, "for example org:local/team:default/agent:bot", "as: %v", err)
		return nil
	}
	return &p
}

func (d *decoder) test(n *yaml.Node, s *Suite, as *scope.Principal) {
	m, ok := d.mapping(n, objTest)
	if !ok {
		return
	}
	t := Test{File: d.file, Line: d.line + n.Line, Name: d.text(m.get("name"), "name", 512), Rule: d.text(m.get("rule"), "rule", 300)}
	if own := m.get("as"); own != nil {
		as = d.principal(own)
	} else if as == nil {
		d.fail(n, "as: org:local/team:default/agent:bot, here or for the whole document", "nobody asks")
	}
	if as != nil {
		t.As = *as
	}
	d.question(m, &t.Ask)
	d.call(m, &t)
	t.Obligations = d.set(m.get("obligations"), "obligations")
	t.Demands = d.set(m.get("demands"), "demands")
	if w, ok := d.str(m.get("want"), "want"); ok {
		if t.Want = w; !slices.Contains(wants, w) {
			d.fail(m.get("want"), didYouMean(w, wants), "unknown want %s", quote(w))
		}
	}
	s.Tests = append(s.Tests, t)
}

// question reads what is asked.
func (d *decoder) question(m fieldMap, q *Question) {
	var asked []string
	for _, k := range []string{"egress", "model", "tool"} {
		if m.get(k) != nil {
			asked = append(asked, k)
		}
	}
	for _, x := range [][2]string{{"request", "egress"}, {"dialect", "model"}, {"risk", "tool"}, {"args", "tool"}} {
		if m.get(x[0]) != nil && m.get(x[1]) == nil {
			d.fail(m.key[x[0]], "", "%q goes with %q", x[0], x[1])
		}
	}
	switch {
	case len(asked) == 0 && m.unknown:
		return // told already, and more to the point
	case len(asked) == 0:
		d.fail(m.node, "egress: HOST:PORT, model: NAME or tool: SERVER/TOOL", "nothing is asked")
		return
	case len(asked) > 1:
		d.fail(m.key[asked[1]], "make two tests of it", "%q and %q in one test", asked[0], asked[1])
		return
	}
	n := m.get(asked[0])
	what, ok := d.str(n, asked[0])
	request, _ := d.str(m.get("request"), "request")
	dialect, _ := d.str(m.get("dialect"), "dialect")
	if !ok {
		return
	}
	var err error
	switch asked[0] {
	case "egress":
		*q, err = EgressQuestion(what, request)
	case "model":
		*q, err = ModelQuestion(what, dialect)
	case "tool":
		*q, err = ToolQuestion(what)
	}
	if err != nil {
		d.failText(n, err)
	}
}

// call reads what belongs to the call of a tool, and when it is.
func (d *decoder) call(m fieldMap, t *Test) {
	if n := m.get("risk"); n != nil {
		d.strs(n, "risk", func(name string) (string, error) {
			class, err := ParseRisk(name)
			t.Ask.Risk |= class
			return name, err
		})
	}
	if n := m.get("args"); n != nil {
		var args map[string]any
		if err := n.Decode(&args); err != nil || n.Kind != yaml.MappingNode {
			d.fail(n, "for example {amount: 5}", "args must be a mapping")
		}
		t.Ask.Args = NewArgs(args)
	}
	if n := m.get("at"); n != nil {
		at, err := time.Parse(time.RFC3339, n.Value)
		if err != nil {
			d.fail(n, "for example 2026-03-02T10:00:00Z", "at %s is no time", quote(n.Value))
		}
		t.At = at
	}
}

// set reads names without order; nil where the field is absent.
func (d *decoder) set(n *yaml.Node, what string) []string {
	if n == nil {
		return nil
	}
	out := []string{}
	d.list(n, what, func(c *yaml.Node) {
		if s, ok := d.str(c, "an entry of "+what); ok {
			out = append(out, s)
		}
	})
	slices.Sort(out)
	return out
}
