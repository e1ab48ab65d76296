// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"cmp"
	"fmt"
	"strings"
)

// Pattern is one segment of a selector, or any other name matched the same
// way (a model, a tool). With Wild it matches every value that starts with
// Text, otherwise only Text itself. The zero value matches only the empty
// string.
type Pattern struct {
	Text string
	Wild bool
}

// Any matches every value, the empty one (an absent segment) included.
var Any = Pattern{Wild: true}

// ParsePattern reads a value with an optional "*" at the end, bytes as they
// are. A "*" elsewhere and an empty text are errors.
func ParsePattern(s string) (Pattern, error) {
	body, wild := strings.CutSuffix(s, "*")
	if s == "" {
		return Pattern{}, fmt.Errorf("the pattern is empty")
	}
	if strings.Contains(body, "*") {
		return Pattern{}, fmt.Errorf(`pattern %q: "*" may stand alone or at the end only`, s)
	}
	return Pattern{Text: body, Wild: wild}, nil
}

// Exact is the pattern of one value.
func Exact(v string) Pattern { return Pattern{Text: v} }

// Matches reports whether v is in the set.
func (p Pattern) Matches(v string) bool {
	if !p.Wild {
		return p.Text == v
	}
	return p.Text == "" || strings.HasPrefix(v, p.Text)
}

// Contains reports whether every value of q is in p.
func (p Pattern) Contains(q Pattern) bool {
	if p.Wild {
		return strings.HasPrefix(q.Text, p.Text)
	}
	return p == q
}

// Intersect is the set of values in both; ok is false when there is none.
func (p Pattern) Intersect(q Pattern) (r Pattern, ok bool) {
	switch {
	case p.Contains(q):
		return q, true
	case q.Contains(p):
		return p, true
	}
	return Pattern{}, false
}

// String prints the pattern with its bytes as they are.
func (p Pattern) String() string {
	if p.Wild {
		return p.Text + "*"
	}
	return p.Text
}

// Selector is a set of principals, servers and tools: one pattern for each
// segment. The zero value selects nothing that exists; [All] selects
// everything. Selectors are comparable.
type Selector struct {
	Org     Pattern
	Team    Pattern
	Agent   Pattern
	Sandbox Pattern
	Server  Pattern
	Tool    Pattern
}

// Reserved values of the server segment.
const (
	ServerAgent    = "agent"    // tools that the agent runs itself
	ServerProvider = "provider" // tools that the model provider runs on its side
)

// All selects everything.
func All() Selector { return Selector{Any, Any, Any, Any, Any, Any} }

// keys are the segments in canonical order.
var keys = [...]string{"org", "team", "agent", "sandbox", "server", "tool"}

// Keys lists the segment keys in canonical order.
func Keys() []string { return append([]string(nil), keys[:]...) }

func (s *Selector) segments() [6]*Pattern {
	return [6]*Pattern{&s.Org, &s.Team, &s.Agent, &s.Sandbox, &s.Server, &s.Tool}
}

// SyntaxError says which part of a selector is wrong.
type SyntaxError struct {
	Input  string // the whole selector
	Offset int    // byte offset of the offending segment in Input
	Text   string // the offending segment
	Msg    string
	Near   string // the nearest valid key, "" if none
}

func (e *SyntaxError) Error() string {
	s := fmt.Sprintf("selector %q: %s", e.Input, e.Msg)
	if e.Near != "" {
		s += fmt.Sprintf("; did you mean %q?", e.Near)
	}
	return s
}

// ParseSelector reads a selector. A missing segment means "*"; a "*" may stand
// alone or at the end of a value. Unknown keys, empty segments and repeated
// keys are errors of type [*SyntaxError]. Segments may come in any order.
func ParseSelector(in string) (Selector, error) {
	sel := All()
	if in == "" {
		return Selector{}, &SyntaxError{Input: in, Msg: `is empty; everything is "org:*"`}
	}
	segs := sel.segments()
	var seen [len(keys)]bool
	off := 0
	for _, part := range strings.Split(in, "/") {
		fail := func(format string, a ...any) error {
			return &SyntaxError{Input: in, Offset: off, Text: part, Msg: fmt.Sprintf(format, a...)}
		}
		if part == "" {
			return Selector{}, fail("has an empty segment")
		}
		key, val, ok := strings.Cut(part, ":")
		if !ok {
			return Selector{}, fail("segment %q is not key:value", part)
		}
		i := keyIndex(key)
		if i < 0 {
			return Selector{}, &SyntaxError{Input: in, Offset: off, Text: part, Near: nearestKey(key),
				Msg: fmt.Sprintf("unknown key %q (known: %s)", key, strings.Join(keys[:], ", "))}
		}
		if seen[i] {
			return Selector{}, fail("key %q is given twice", key)
		}
		seen[i] = true
		p, err := parsePattern(val)
		if err != nil {
			return Selector{}, fail("segment %q: %v", part, err)
		}
		*segs[i] = p
		off += len(part) + 1
	}
	return sel, nil
}

func parsePattern(val string) (Pattern, error) {
	if val == "" {
		return Pattern{}, fmt.Errorf("has no value")
	}
	body, wild := strings.CutSuffix(val, "*")
	if strings.Contains(body, "*") {
		return Pattern{}, fmt.Errorf(`"*" may stand alone or at the end only`)
	}
	text, err := decode(body)
	if err != nil {
		return Pattern{}, err
	}
	if len(text) > MaxValue {
		return Pattern{}, fmt.Errorf("is longer than %d bytes", MaxValue)
	}
	return Pattern{Text: text, Wild: wild}, nil
}

func keyIndex(k string) int {
	for i, v := range keys {
		if v == k {
			return i
		}
	}
	return -1
}

func nearestKey(k string) string {
	k = strings.ToLower(strings.TrimSpace(k))
	for _, v := range keys {
		if v == k || k == v+"s" || len(k) >= 2 && (strings.HasPrefix(v, k) || strings.HasPrefix(k, v)) {
			return v
		}
	}
	return ""
}

// String is the canonical form: canonical order, "*" segments left out, and
// "org:*" for everything. ParseSelector reads it back to an equal value.
func (s Selector) String() string {
	var b strings.Builder
	for i, p := range s.segments() {
		if *p == Any {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('/')
		}
		b.WriteString(keys[i])
		b.WriteByte(':')
		encode(&b, p.Text)
		if p.Wild {
			b.WriteByte('*')
		}
	}
	if b.Len() == 0 {
		return "org:*"
	}
	return b.String()
}

// Matches reports whether the call of tool on server by p is selected. Pass ""
// for server and tool where none is meant; a selector that names one does not
// match then.
func (s Selector) Matches(p Principal, server, tool string) bool {
	return s.Org.Matches(p.Org) && s.Team.Matches(p.Team) && s.Agent.Matches(p.Agent) &&
		s.Sandbox.Matches(p.Sandbox) && s.Server.Matches(server) && s.Tool.Matches(tool)
}

// Contains reports whether s contains t by syntax: each segment of s is equal
// to, a prefix of, or absent against that of t.
func (s Selector) Contains(t Selector) bool {
	return s.Org.Contains(t.Org) && s.Team.Contains(t.Team) && s.Agent.Contains(t.Agent) &&
		s.Sandbox.Contains(t.Sandbox) && s.Server.Contains(t.Server) && s.Tool.Contains(t.Tool)
}

// Intersect is what both select; ok is false when that is nothing.
func (s Selector) Intersect(t Selector) (r Selector, ok bool) {
	a, b, c := s.segments(), t.segments(), r.segments()
	for i := range a {
		if *c[i], ok = a[i].Intersect(*b[i]); !ok {
			return Selector{}, false
		}
	}
	return r, true
}

// Narrowest is the one of several that selects least, of those that contain all of
// t; ok is false when none does.
func Narrowest(list []Selector, t Selector) (least Selector, ok bool) {
	for _, s := range list {
		if s.Contains(t) && (!ok || cmp.Or(cmp.Compare(s.length(), least.length()), cmp.Compare(s.String(), least.String())) > 0) {
			least, ok = s, true
		}
	}
	return least, ok
}

// length is greater for a selector than for any other that contains it.
func (s Selector) length() (n int) {
	for _, p := range s.segments() {
		n += 2 * len(p.Text)
		if !p.Wild {
			n++
		}
	}
	return n
}

// HasTarget reports whether s names a server or a tool, which the scope of a
// document must not.
func (s Selector) HasTarget() bool { return s.Server != Any || s.Tool != Any }

// Level is how deep in the organisation a selector speaks.
type Level uint8

// Levels from the outermost inwards. A document's layer is the level of its
// scope; LevelBuiltin is Ringfence's own layer and no selector has it.
const (
	LevelBuiltin Level = iota
	LevelOrg
	LevelTeam
	LevelAgent
	LevelSandbox
	NumLevels int = iota
)

func (l Level) String() string {
	switch l {
	case LevelBuiltin:
		return "builtin"
	case LevelOrg:
		return "org"
	case LevelTeam:
		return "team"
	case LevelAgent:
		return "agent"
	case LevelSandbox:
		return "sandbox"
	}
	return "invalid"
}

// Level is the deepest segment among org, team, agent and sandbox that is not
// "*"; org when all are.
func (s Selector) Level() Level {
	switch {
	case s.Sandbox != Any:
		return LevelSandbox
	case s.Agent != Any:
		return LevelAgent
	case s.Team != Any:
		return LevelTeam
	}
	return LevelOrg
}
