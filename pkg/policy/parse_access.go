// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
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
	b.Users = d.subjects(m.get("users"), "users", "uid")
	b.Groups = d.subjects(m.get("groups"), "groups", "gid")
	if m.get("users") == nil && m.get("groups") == nil && !m.unknown {
		d.fail(n, "add users: [NAME] or groups: [NAME]", "the binding names nobody")
	}
	return b, true
}

// subjects reads a list of names and numbers; kind is "uid" or "gid".
func (d *decoder) subjects(n *yaml.Node, what, kind string) []Subject {
	if n != nil && n.Kind == yaml.SequenceNode && len(n.Content) > maxSubjects {
		d.fail(n, "bind a group instead", "%s has %d entries, more than %d", what, len(n.Content), maxSubjects)
		return nil
	}
	var out []Subject
	d.strs(n, what, func(s string) (string, error) {
		sub, err := parseSubject(s, kind)
		if err == nil {
			out = append(out, sub)
		}
		return sub.Spell(kind), err
	})
	if n == nil || n.Kind != yaml.SequenceNode || len(out) != len(n.Content) {
		return out // there are mistakes, and the document is refused
	}
	for i := range out {
		out[i].Line, out[i].Col = d.line+n.Content[i].Line, n.Content[i].Column
	}
	return out
}

// parseSubject reads a name of the user database, or uid:N and gid:N. What a
// number is called is for the database to say, so a bare number is refused: it
// could be either.
func parseSubject(s, kind string) (Subject, error) {
	other := map[string]string{"uid": "gid", "gid": "uid"}[kind]
	list := map[string]string{"uid": "groups", "gid": "users"}[kind]
	digits, numbered := strings.CutPrefix(s, kind+":")
	switch {
	case numbered:
		id, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || id == 1<<32-1 || digits != strconv.FormatUint(id, 10) {
			return Subject{}, fmt.Errorf("%s is not %s:N with a number from 0 to 4294967294", quote(s), kind)
		}
		return Subject{ID: uint32(id), Number: true}, nil
	case strings.HasPrefix(s, other+":"):
		return Subject{}, fmt.Errorf("%s belongs under %s; write %s:N here", quote(s), list, kind)
	case strings.Trim(s, "0123456789") == "":
		return Subject{}, fmt.Errorf("%s could be a name or a number; write %s:%s for the number", quote(s), kind, s)
	case !unixName(s):
		return Subject{}, fmt.Errorf("%s is no name of a user or group; one has no space, \":\", \"/\", \",\", \"*\" or control character and at most 256 bytes", quote(s))
	}
	return Subject{Name: s}, nil
}

// unixName refuses what no user database has, and what would look like a
// pattern or a list. "\\", "@", "$", "." and "+" occur in names of domains.
func unixName(s string) bool {
	if s == "" || len(s) > 256 || s[0] == '-' || s[0] == '+' || s[0] == '~' {
		return false
	}
	for _, r := range s {
		if r <= ' ' || r == 0x7f || r >= 0x80 && r <= 0xa0 || r == '�' || strings.ContainsRune(":/,*", r) {
			return false
		}
	}
	return true
}
