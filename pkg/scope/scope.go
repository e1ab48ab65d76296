// SPDX-License-Identifier: Apache-2.0

// Package scope names who is asking. A [Principal] is one running agent; a
// [Selector] is a set of principals, and of servers and tools they call. The
// grammar is the one used by every part of Ringfence:
//
//	org:acme/team:*/agent:*/server:jira/tool:read_*
//
// Values are [A-Za-z0-9_.@-]+; every other byte is percent-encoded. Structs
// hold decoded values, String methods print the canonical, encoded form.
package scope

import (
	"errors"
	"fmt"
	"strings"
)

// MaxValue is the longest decoded value of one segment, in bytes.
const MaxValue = 255

// Principal is who a sandbox runs as. Org, Team and Agent are always set in a
// valid principal; Sandbox is empty where no particular sandbox is meant. The
// zero value is no principal and matches no selector with a named segment.
type Principal struct {
	Org     string
	Team    string
	Agent   string
	Sandbox string
}

// ParsePrincipal reads "org:X/team:Y/agent:Z" with an optional "sandbox:S".
// Wildcards, servers and tools are errors, as are missing, empty, unknown and
// repeated segments. Segments may come in any order.
func ParsePrincipal(s string) (Principal, error) {
	sel, err := ParseSelector(s)
	if err != nil {
		return Principal{}, fmt.Errorf("principal: %w", err)
	}
	p := Principal{Org: sel.Org.Text, Team: sel.Team.Text, Agent: sel.Agent.Text}
	for _, seg := range []struct {
		key string
		pat Pattern
	}{{"org", sel.Org}, {"team", sel.Team}, {"agent", sel.Agent}} {
		if seg.pat.Wild {
			return Principal{}, fmt.Errorf("principal %q: %s must name exactly one, for example org:local/team:default/agent:name", s, seg.key)
		}
	}
	switch {
	case sel.Sandbox == Any:
		if segmentGiven(s, "sandbox") {
			return Principal{}, fmt.Errorf("principal %q: sandbox must not be a wildcard", s)
		}
	case sel.Sandbox.Wild:
		return Principal{}, fmt.Errorf("principal %q: sandbox must not be a wildcard", s)
	default:
		p.Sandbox = sel.Sandbox.Text
	}
	if segmentGiven(s, "server") || segmentGiven(s, "tool") {
		return Principal{}, fmt.Errorf("principal %q: a principal has no server and no tool", s)
	}
	return p, nil
}

func segmentGiven(s, key string) bool {
	return strings.HasPrefix(s, key+":") || strings.Contains(s, "/"+key+":")
}

// String is the canonical form; the sandbox segment is printed only when set.
func (p Principal) String() string {
	var b strings.Builder
	b.WriteString("org:")
	encode(&b, p.Org)
	b.WriteString("/team:")
	encode(&b, p.Team)
	b.WriteString("/agent:")
	encode(&b, p.Agent)
	if p.Sandbox != "" {
		b.WriteString("/sandbox:")
		encode(&b, p.Sandbox)
	}
	return b.String()
}

// Valid reports why p is not a usable principal, nil if it is.
func (p Principal) Valid() error {
	for _, v := range []struct{ key, val string }{{"org", p.Org}, {"team", p.Team}, {"agent", p.Agent}} {
		if v.val == "" {
			return fmt.Errorf("principal has no %s", v.key)
		}
	}
	for _, v := range []string{p.Org, p.Team, p.Agent, p.Sandbox} {
		if len(v) > MaxValue {
			return fmt.Errorf("principal: a value is longer than %d bytes", MaxValue)
		}
	}
	return nil
}

// Selector is the one selector that matches exactly this principal: with a
// sandbox that sandbox, without one every sandbox of the agent.
func (p Principal) Selector() Selector {
	s := All()
	s.Org, s.Team, s.Agent = Exact(p.Org), Exact(p.Team), Exact(p.Agent)
	if p.Sandbox != "" {
		s.Sandbox = Exact(p.Sandbox)
	}
	return s
}

const hexDigits = "0123456789ABCDEF"

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '_' || c == '.' || c == '@' || c == '-'
}

func encode(b *strings.Builder, s string) {
	for i := 0; i < len(s); i++ {
		if c := s[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
}

var errEscape = errors.New(`a "%" must be followed by two hexadecimal digits`)

func decode(s string) (string, error) {
	if !strings.Contains(s, "%") {
		for i := 0; i < len(s); i++ {
			if !plain(s[i]) {
				return "", fmt.Errorf("character %q must be written %%%02X", s[i], s[i])
			}
		}
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case plain(c):
			b.WriteByte(c)
		case c != '%':
			return "", fmt.Errorf("character %q must be written %%%02X", c, c)
		default:
			if i+2 >= len(s) {
				return "", errEscape
			}
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi < 0 || lo < 0 {
				return "", errEscape
			}
			b.WriteByte(byte(hi<<4 | lo))
			i += 2
		}
	}
	return b.String(), nil
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
