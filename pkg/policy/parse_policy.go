// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ringfence/ringfence/pkg/scope"
)

func (d *decoder) policy(m fieldMap, doc *Document) *Policy {
	p := &Policy{}
	ids := map[string]*yaml.Node{}
	section := func(name string, s Section, o *object) (out []Rule) {
		d.list(m.get(name), name, func(n *yaml.Node) {
			if r, ok := d.rule(n, s, o, doc); ok {
				if first := ids[r.ID]; first != nil && r.ID != "" {
					d.fail(n, "give each rule of a document its own id", "rule id %s is used twice, first in line %d", quote(r.ID), d.line+first.Line)
				} else {
					ids[r.ID] = n
				}
				out = append(out, r)
			}
		})
		return out
	}
	p.Egress = section("egress", SectionEgress, objEgress)
	p.Inference = section("inference", SectionInference, objInference)
	p.Tools = section("tools", SectionTools, objTools)
	p.Routes = d.routes(m, doc)
	p.Budgets = d.budgets(m.get("budgets"), doc, ids)
	if len(d.problems) == 0 && len(p.Egress)+len(p.Inference)+len(p.Tools)+len(p.Routes)+len(p.Budgets) == 0 {
		d.fail(m.node, "add egress, inference or tools rules, routes or budgets", "the document has no rules")
	}
	return p
}

// rule reads one rule. ok is false only when n is no mapping.
func (d *decoder) rule(n *yaml.Node, s Section, o *object, doc *Document) (Rule, bool) {
	m, ok := d.mapping(n, o)
	if !ok {
		return Rule{}, false
	}
	r := Rule{Section: s, Line: d.line + n.Line, Col: n.Column}
	r.ID = d.name(m.get("id"), "id")
	target := d.effect(m, &r)
	if target != nil {
		switch s {
		case SectionEgress:
			d.egressTarget(target, &r)
		case SectionInference:
			d.modelTarget(target, &r)
		case SectionTools:
			d.toolTarget(target, &r)
		}
	}
	d.ruleFor(m.get("for"), &r, doc)
	r.Mandatory = d.boolean(m.get("mandatory"), "mandatory")
	r.Delegable = d.boolean(m.get("delegable"), "delegable")
	r.Reason = d.text(m.get("reason"), "reason", 512)
	if r.Mandatory && r.Effect == Allow && target != nil {
		d.fail(m.key["mandatory"], "remove mandatory, or block", "a mandatory rule never opens: it cannot allow")
	}
	if r.Mandatory && r.Delegable {
		d.fail(m.key["delegable"], "remove one of them", "a rule cannot be both mandatory and delegable")
	}
	if s == SectionEgress {
		d.egressExtras(m, &r)
	}
	d.extras(m, &r)
	d.requestCondition(m, &r)
	r.Digest = digestRule(n, doc, &r)
	return r, true
}

// targetField is the long form's field of each section.
var targetField = map[Section]string{SectionEgress: "to", SectionInference: "model", SectionTools: "match"}

// effect reads allow, deny, or action with the target field, and returns the
// node of the target; nil after a mistake.
func (d *decoder) effect(m fieldMap, r *Rule) *yaml.Node {
	long := targetField[r.Section]
	var given []string
	for _, k := range []string{"allow", "deny", "action"} {
		if m.get(k) != nil {
			given = append(given, k)
		}
	}
	switch {
	case len(given) == 0 && m.unknown:
		return nil // told already, and more to the point
	case len(given) == 0:
		d.fail(m.node, fmt.Sprintf("write allow: TARGET, deny: TARGET, or %s: TARGET with action", long), "the rule has no effect")
		return nil
	case len(given) > 1:
		d.fail(m.key[given[1]], "a rule has one effect", "%q and %q in one rule", given[0], given[1])
		return nil
	}
	if given[0] != "action" {
		if k := m.key[long]; k != nil {
			d.fail(k, fmt.Sprintf("use %q alone, or action with %q", given[0], long), "%q already names the target", given[0])
		}
		if given[0] == "allow" {
			r.Effect = Allow
		}
		return m.get(given[0])
	}
	if !d.action(m.get("action"), r) {
		return nil
	}
	if m.get(long) == nil {
		d.fail(m.node, "", "a rule with action needs the field %q", long)
	}
	return m.get(long)
}

func (d *decoder) ruleFor(n *yaml.Node, r *Rule, doc *Document) {
	if n == nil {
		return
	}
	sel, ok := d.principals(n, "for")
	if !ok {
		return
	}
	if _, ok := doc.Scope.Intersect(sel); !ok {
		d.fail(n, "for narrows within the document's scope", "for %s has nobody in common with the scope %q", quote(n.Value), doc.Scope)
		return
	}
	r.For = &sel
}

// opening is what a rule that can open is called.
var opening = map[Effect]string{Allow: "an allow", RequireApproval: "an approval"}

func (d *decoder) egressTarget(n *yaml.Node, r *Rule) {
	s, ok := d.str(n, "the target")
	if !ok {
		return
	}
	t, err := ParseTarget(s)
	if err != nil {
		d.failText(n, err)
		return
	}
	r.Host, r.Prefix, r.Port, r.Proto = t.Host, t.Prefix, t.Port, t.Proto
	if r.Effect != Block && t.Port == 0 {
		with := t
		with.Port = 443
		d.fail(n, fmt.Sprintf("for example %q", with), "%s names its port: %s has none", opening[r.Effect], quote(s))
	}
	if t.Prefix.IsValid() {
		d.addressTarget(n, s, r)
		return
	}
	if h, ok := providerHostNamed(t.Host); ok {
		d.fail(n, providerHint(h), "%s is a host of a model provider and never plain egress: no egress rule matches it", quote(s))
	}
}

func providerHint(h ProviderHost) string {
	if h.Supported() {
		return "write an inference: rule that names the models, such as allow: \"*\""
	}
	if h.reason != "" {
		return "configure a Provider with hosts: [" + h.Name() + "], then write an inference: rule that names the models"
	}
	return "its dialect is not built in this version; configure a Provider with a dialect that is"
}

func (d *decoder) addressTarget(n *yaml.Node, s string, r *Rule) {
	p := r.Prefix
	if virtualRange.Bits() <= p.Bits() && virtualRange.Contains(p.Addr()) {
		d.fail(n, "name the host instead", "%s lies in %s, which is reserved for virtual addresses", quote(s), virtualRange)
		return
	}
	if i := specialOf(p); r.Effect != Block && i >= 0 && strings.Contains(special[i].name, "loopback") {
		d.fail(n, "give the host's service a name and resolvesTo: [127.0.0.1/32]", "%s: loopback inside a sandbox is the sandbox's own", quote(s))
	}
	if i := specialOf(p); r.Effect != Block && r.Proto == UDP && i >= 0 && special[i].name == "multicast" {
		d.fail(n, "name each receiver", "%s: datagrams to a group are not relayed", quote(s))
	}
}

func (d *decoder) egressExtras(m fieldMap, r *Rule) {
	if n := m.get("http"); n != nil {
		r.HTTP = d.http(n)
		switch {
		case r.Proto == UDP:
			d.fail(m.key["http"], "remove it, or write the rule for TCP", "http conditions on UDP: nothing looks into datagrams")
		case r.Prefix.IsValid():
			d.fail(m.key["http"], "name the host instead of its address", "http conditions on literal addresses: this %s", notEnforced)
		case r.Port == 0 && r.Host.Kind != HostNone && r.Effect == Block:
			d.fail(m.key["http"], "add the port to the target, such as "+quote(Target{Host: r.Host, Port: 443}.String()),
				"a deny with http needs a port, or every connection to the host would have to be HTTP")
		}
	}
	if n := m.get("resolvesTo"); n != nil {
		r.ResolvesTo = d.prefixes(n, "resolvesTo")
		switch {
		case r.Prefix.IsValid():
			d.fail(m.key["resolvesTo"], "remove it", "resolvesTo is for host names, not for literal addresses")
		case r.Effect == Block && r.Host.Kind != HostNone:
			d.fail(m.key["resolvesTo"], "remove it", "resolvesTo admits addresses; a rule that blocks cannot have it")
		}
	}
}

func (d *decoder) http(n *yaml.Node) *HTTPMatch {
	m, ok := d.mapping(n, objHTTP)
	if !ok {
		return nil
	}
	h := &HTTPMatch{}
	if v := m.get("methods"); v != nil {
		h.Methods = d.strs(v, "methods", parseMethod)
	}
	if v := m.get("paths"); v != nil {
		h.Paths = d.strs(v, "paths", parsePath)
	}
	if m.get("methods") == nil && m.get("paths") == nil {
		d.fail(n, "add methods or paths, or remove it", "http has no condition")
		return nil
	}
	slices.Sort(h.Methods)
	slices.Sort(h.Paths)
	return h
}

func (d *decoder) modelTarget(n *yaml.Node, r *Rule) {
	s, ok := d.str(n, "the model")
	if !ok {
		return
	}
	p, err := namePattern(s, "model")
	if err != nil {
		d.failText(n, err)
		return
	}
	r.Model = p
}

func (d *decoder) toolTarget(n *yaml.Node, r *Rule) {
	sel, ok := d.selector(n, "the target")
	if !ok {
		return
	}
	only := scope.All()
	only.Server, only.Tool = sel.Server, sel.Tool
	if sel != only {
		d.fail(n, "use for: to narrow to principals", "the target %s names principals", quote(n.Value))
		return
	}
	r.Server, r.Tool = sel.Server, sel.Tool
}

// requestCondition checks an expression on requests like http.
func (d *decoder) requestCondition(m fieldMap, r *Rule) {
	if r.When == nil || !r.When.Request {
		return
	}
	switch {
	case r.Proto == UDP || r.Prefix.IsValid():
		d.fail(m.key["when"], "name a host and a TCP port", "method and path in a condition: only HTTP requests to names have them")
	case r.Port == 0 && r.Host.Kind != HostNone:
		d.fail(m.key["when"], "add the port to the target, such as "+quote(Target{Host: r.Host, Port: 443}.String()),
			"a condition on requests needs a port, or every connection to the host would have to be HTTP")
	}
}
