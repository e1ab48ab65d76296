// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"github.com/ringfence/ringfence/pkg/scope"
)

// ToolServer is an upstream MCP server that is run or called for sandboxes.
// Nothing serves it in this version: [Unenforced] says so, and what it says of its
// tools counts for questions only.
type ToolServer struct {
	Name    string         // the server of selectors: server:NAME/tool:TOOL
	Scope   scope.Selector // principals that may use it
	Stdio   *StdioServer   // one of the two is set
	HTTP    *HTTPServer
	Secrets []ToolSecret
	Egress  []Rule // for the server's own sandbox; with Stdio only
	Tools   []ToolEntry

	File      string
	Line      int
	kindPlace fieldPlace
}

// StdioServer is a program that speaks MCP on its standard input and output, in a
// sandbox of its own.
type StdioServer struct {
	Command   string   // absolute path
	Args      []string // without the command
	Env       []string // names of variables that it gets from whoever launches
	Workspace WorkspaceMode
}

// HTTPServer is a server that speaks MCP's streamable HTTP.
type HTTPServer struct {
	URL string // scheme://host[:port][/path]
}

// ToolSecret hands a secret to the server, by its name in the secrets directory.
type ToolSecret struct {
	Name   string
	Env    string // the variable that it goes into, with Stdio
	Header string // the request header, with HTTP
}

// ToolEntry classifies tools.
type ToolEntry struct {
	Name scope.Pattern
	Risk Risk
}

// classes are those that the document gives a tool: the exact entry's, else the
// longest prefix's; 0 for a tool that it does not list.
func (t *ToolServer) classes(tool string) Risk {
	best := -1
	for i := range t.Tools {
		if e := &t.Tools[i]; e.Name.Matches(tool) && (best < 0 || t.Tools[best].Name.Contains(e.Name)) {
			best = i
		}
	}
	if best < 0 {
		return 0
	}
	return t.Tools[best].Risk
}

// classes are those of a tool as far as a document tells the principal, 0 if none
// does. They are not part of what is encoded: no such document comes into force.
func (v *View) classes(server, tool string) Risk {
	if t := v.s.toolServers[server]; t != nil && t.Scope.Matches(v.p, "", "") {
		return t.classes(tool)
	}
	return 0
}

// toolHostsInEgress reports egress rules on a host that a ToolServer document
// made a tool server's.
func (s *Snapshot) toolHostsInEgress(docs []Document) (out []Problem) {
	hosts := map[string]string{}
	for name, t := range s.toolServers {
		if t.HTTP != nil {
			p := Provider{BaseURL: t.HTTP.URL}
			if host, _, _ := p.endpoint(); host != "" {
				hosts[host] = name
			}
		}
	}
	eachRule(docs, func(d *Document, r *Rule) {
		if name := hosts[r.Host.Name]; name != "" && r.Section == SectionEgress && r.Host.Kind == HostExact {
			out = append(out, Problem{File: d.File, Line: r.Line, Col: r.Col,
				Msg:  quote(r.Host.Name) + " is the host of the ToolServer " + quote(name) + " and never plain egress",
				Hint: "write a tools rule on server:" + name})
		}
	})
	return out
}
