// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Bounds of one document.
const (
	maxArgs   = 256
	maxTools  = 2000
	maxSecret = 64
)

func (d *decoder) toolServer(m fieldMap, doc *Document) *ToolServer {
	t := &ToolServer{Name: doc.Name, Scope: doc.Scope, File: doc.File, Line: doc.Line}
	if k := m.get("kind"); k != nil {
		t.kindPlace = fieldPlace{"kind", d.line + k.Line, k.Column}
	}
	if doc.Name == scope.ServerAgent || doc.Name == scope.ServerProvider {
		d.fail(m.get("metadata"), "give it another name", "the server %q is reserved: it stands for tools that no server has", doc.Name)
	}
	if n := m.get("stdio"); n != nil {
		t.Stdio = d.stdio(n)
	}
	if n := m.get("http"); n != nil {
		t.HTTP = d.httpServer(n)
	}
	switch {
	case m.get("stdio") != nil && m.get("http") != nil:
		d.fail(m.key["http"], "remove one of them", "a server is a program (stdio) or is called (http), not both")
	case m.get("stdio") == nil && m.get("http") == nil && !m.unknown:
		d.fail(m.node, "stdio: {command: /usr/bin/server}, or http: {url: https://HOST/mcp}", "it says neither what to run nor what to call")
	}
	d.bounded(m.get("secrets"), "secrets", maxSecret, func(n *yaml.Node) { d.toolSecret(n, t) })
	d.serverEgress(m, t, doc)
	d.bounded(m.get("tools"), "tools", maxTools, func(n *yaml.Node) { d.toolEntry(n, t) })
	return t
}

// bounded is list with at most so many entries.
func (d *decoder) bounded(n *yaml.Node, what string, most int, each func(*yaml.Node)) {
	if n != nil && n.Kind == yaml.SequenceNode && len(n.Content) > most {
		d.fail(n, "", "%s has %d entries, more than %d", what, len(n.Content), most)
		return
	}
	d.list(n, what, each)
}

func (d *decoder) stdio(n *yaml.Node) *StdioServer {
	s := &StdioServer{Workspace: WorkspaceNone}
	m, ok := d.mapping(n, objStdio)
	if !ok {
		return s
	}
	if c, ok := d.str(m.get("command"), "command"); ok {
		if err := checkAbsolute(c); err != nil {
			d.failText(m.get("command"), err)
		}
		s.Command = c
	}
	d.bounded(m.get("args"), "args", maxArgs, func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" || strings.Contains(n.Value, "\x00") {
			d.fail(n, "write it in quotes", "an entry of args must be a string, found %s %s", kindName(n), quote(n.Value))
			return
		}
		if looksLikeKey(n.Value) {
			d.fail(n, "name it under secrets: everybody sees the arguments of a program", "an argument looks like a key itself: documents name secrets, never hold them")
			return
		}
		s.Args = append(s.Args, n.Value)
	})
	if e := m.get("env"); e != nil {
		s.Env = d.strs(e, "env", func(name string) (string, error) { return name, checkPass(name) })
	}
	if w := m.get("workspace"); w != nil {
		if text, ok := d.str(w, "workspace"); ok {
			switch s.Workspace = WorkspaceMode(text); s.Workspace {
			case WorkspaceRW, WorkspaceRO, WorkspaceNone:
			default:
				d.fail(w, didYouMean(text, []string{string(WorkspaceRW), string(WorkspaceRO), string(WorkspaceNone)}), "unknown workspace mode %s", quote(text))
			}
		}
	}
	return s
}

func (d *decoder) httpServer(n *yaml.Node) *HTTPServer {
	s := &HTTPServer{}
	m, ok := d.mapping(n, objHTTPServer)
	if !ok {
		return s
	}
	plain := d.boolean(m.get("allowPlaintext"), "allowPlaintext")
	if u, ok := d.str(m.get("url"), "url"); ok {
		clean, err := parseURL("url", u, "calls and secrets", plain)
		if err != nil {
			d.failText(m.get("url"), err)
		}
		s.URL = clean
	}
	return s
}

func (d *decoder) toolSecret(n *yaml.Node, t *ToolServer) {
	m, ok := d.mapping(n, objToolSecret)
	if !ok {
		return
	}
	var s ToolSecret
	if text, ok := d.str(m.get("name"), "name"); ok {
		s.Name = d.secretName(m.get("name"), text)
	}
	if e := m.get("env"); e != nil {
		if text, ok := d.str(e, "env"); ok {
			if err := checkEnvName(text); err != nil {
				d.failText(e, err)
			}
			s.Env = text
		}
	}
	if h := m.get("header"); h != nil {
		if text, ok := d.str(h, "header"); ok {
			if !isToken(text) {
				d.fail(h, "for example Authorization", "header %s is no name of a header", quote(text))
			}
			s.Header = text
		}
	}
	switch {
	case m.unknown:
	case t.HTTP == nil && m.get("env") == nil:
		d.fail(n, "env: NAME", "a secret of a program needs the variable that it goes into")
	case t.HTTP != nil && m.get("header") == nil:
		d.fail(n, "header: Authorization", "a secret of a server that is called needs the header that it goes into")
	case m.get("env") != nil && m.get("header") != nil:
		d.fail(n, "remove one of them", "a secret goes into a variable or a header, not both")
	}
	for _, o := range t.Secrets {
		if o.Env != "" && o.Env == s.Env || o.Header != "" && strings.EqualFold(o.Header, s.Header) {
			d.fail(n, "", "two secrets go into %s", quote(s.Env+s.Header))
		}
	}
	t.Secrets = append(t.Secrets, s)
}

// isToken says whether s is a field name of HTTP (RFC 9110, section 5.1).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != "" && len(s) <= 256
}

// serverEgress reads the rules of the server's own sandbox.
func (d *decoder) serverEgress(m fieldMap, t *ToolServer, doc *Document) {
	n := m.get("egress")
	if n == nil {
		return
	}
	if t.HTTP != nil {
		d.fail(m.key["egress"], "remove it", "egress is for a program that is run here: a server that is called reaches what it reaches")
		return
	}
	ids := map[string]int{}
	d.list(n, "egress", func(n *yaml.Node) {
		r, ok := d.rule(n, SectionEgress, objEgress, doc)
		if !ok {
			return
		}
		if first := ids[r.ID]; first != 0 && r.ID != "" {
			d.fail(n, "give each rule of a document its own id", "rule id %s is used twice, first in line %d", quote(r.ID), first)
		}
		ids[r.ID] = r.Line
		if r.For != nil {
			d.fail(n, "remove for", "a rule of the server's own sandbox is for nobody else")
		}
		t.Egress = append(t.Egress, r)
	})
}

func (d *decoder) toolEntry(n *yaml.Node, t *ToolServer) {
	m, ok := d.mapping(n, objToolEntry)
	if !ok {
		return
	}
	var e ToolEntry
	if r := m.get("risk"); r != nil {
		d.strs(r, "risk", func(s string) (string, error) {
			c, err := ParseRisk(s)
			if err == nil && c == RiskUnclassified {
				err = fmt.Errorf("a tool is unclassified when it is not listed")
			}
			e.Risk |= c
			return s, err
		})
	}
	text, ok := d.str(m.get("name"), "name")
	if !ok {
		return
	}
	pat, err := namePattern(text, "tool")
	if err != nil {
		d.failText(m.get("name"), err)
		return
	}
	e.Name = pat
	for _, o := range t.Tools {
		if o.Name == e.Name {
			d.fail(n, "", "tool %s is listed twice", quote(text))
			return
		}
	}
	t.Tools = append(t.Tools, e)
}
