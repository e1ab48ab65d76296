// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"go.yaml.in/yaml/v3"

	"github.com/ringfence/ringfence/pkg/scope"
)

// maxSubjects bounds the bindings of one document, and the users and groups of
// all of them: each name is looked up on the node.
const maxSubjects = 1000

func (d *decoder) access(m fieldMap, doc *Document) *Access {
	a := &Access{Name: doc.Name, Scope: doc.Scope, File: doc.File, Line: doc.Line}
	named := 0
	n := m.get("bindings")
	if n != nil && n.Kind == yaml.SequenceNode && len(n.Content) > maxSubjects {
		d.fail(n, "make several documents of it", "bindings has %d entries, more than %d", len(n.Content), maxSubjects)
		return a
	}
	d.list(n, "bindings", func(c *yaml.Node) {
		if b, ok := d.binding(c); ok {
			a.Bindings = append(a.Bindings, b)
			named += len(b.Users) + len(b.Groups)
		}
	})
	if named > maxSubjects {
		d.fail(n, "bind groups instead", "the bindings name %d users and groups, more than %d", named, maxSubjects)
	}
	return a
}

func (d *decoder) binding(n *yaml.Node) (Binding, bool) {
	m, ok := d.mapping(n, objBinding)
	if !ok {
		return Binding{}, false
	}
	b := Binding{Line: d.line + n.Line, Col: n.Column}
	if s, ok := d.str(m.get("role"), "role"); ok {
		for _, r := range roles {
			if r.name == s {
				b.Role = r.role
			}
		}
		if b.Role == RoleNone {
			d.fail(m.get("role"), didYouMean(s, roleNames()), "unknown role %s", quote(s))
		}
	}
	b.Users = d.subjects(m.get("users"), "users", false)
	b.Groups = d.subjects(m.get("groups"), "groups", true)
	if m.get("users") == nil && m.get("groups") == nil && !m.unknown {
		d.fail(n, "add users: [NAME] or groups: [NAME]", "the binding names nobody")
	}
	return b, true
}

// subjects reads a list of users, or of groups.
func (d *decoder) subjects(n *yaml.Node, what string, group bool) []Subject {
	if n != nil && n.Kind == yaml.SequenceNode && len(n.Content) > maxSubjects {
		d.fail(n, "bind a group instead", "%s has %d entries, more than %d", what, len(n.Content), maxSubjects)
		return nil
	}
	var out []Subject
	d.strs(n, what, func(s string) (string, error) {
		sub, err := scope.ParseSubject(s, group)
		if err == nil {
			out = append(out, Subject{Subject: sub})
		}
		return sub.Spell(), err
	})
	if n == nil || n.Kind != yaml.SequenceNode || len(out) != len(n.Content) {
		return out // there are mistakes, and the document is refused
	}
	for i := range out {
		out[i].Line, out[i].Col = d.line+n.Content[i].Line, n.Content[i].Column
	}
	return out
}
