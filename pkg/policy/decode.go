// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ringfence/ringfence/pkg/scope"
)

// decoder turns YAML nodes into values, collecting every mistake.
type decoder struct {
	file     string
	line     int // lines of the file before this document
	problems []Problem
}

func (d *decoder) fail(n *yaml.Node, hint, format string, a ...any) {
	line, col := d.line+1, 1
	if n != nil {
		line, col = d.line+n.Line, n.Column
	}
	d.problems = append(d.problems, Problem{d.file, line, col, fmt.Sprintf(format, a...), hint})
}

func (d *decoder) failText(n *yaml.Node, err error) {
	msg, hint, _ := strings.Cut(err.Error(), "; ")
	d.fail(n, hint, "%s", msg)
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "a boolean"
	case "!!int", "!!float":
		return "a number"
	case "!!timestamp":
		return "a date"
	}
	return "a string"
}

// plainNode refuses what YAML has and documents do not need: anchors, aliases
// and explicit tags. It checks the whole tree once.
func (d *decoder) plainTree(n *yaml.Node, depth int) bool {
	if depth > 32 {
		d.fail(n, "", "the document is nested too deeply")
		return false
	}
	ok := true
	switch {
	case n.Kind == yaml.AliasNode:
		d.fail(n, "write the value out", "alias %s: aliases are not supported", quote("*"+n.Value))
		return false
	case n.Anchor != "":
		d.fail(n, "write the value out where it is needed", "anchor %s: anchors are not supported", quote("&"+n.Anchor))
		ok = false
	case n.Style&yaml.TaggedStyle != 0:
		d.fail(n, "", "tag %s: explicit tags are not supported", quote(n.Tag))
		ok = false
	}
	for _, c := range n.Content {
		ok = d.plainTree(c, depth+1) && ok
	}
	return ok
}

// fieldMap is the accepted fields of one mapping.
type fieldMap struct {
	node    *yaml.Node // the mapping
	key     map[string]*yaml.Node
	val     map[string]*yaml.Node
	unknown bool // a field is not known: what seems to be missing may be it, misspelt
}

func (m fieldMap) get(name string) *yaml.Node { return m.val[name] }

// mapping reads n as an object of the table. ok is false when n is no mapping;
// single bad fields are reported and left out.
func (d *decoder) mapping(n *yaml.Node, o *object) (fieldMap, bool) {
	m := fieldMap{node: n, key: map[string]*yaml.Node{}, val: map[string]*yaml.Node{}}
	if n.Kind != yaml.MappingNode {
		d.fail(n, "", "%s must be a mapping, found %s %s", o.name, kindName(n), quote(n.Value))
		return m, false
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			d.fail(k, "", "a field name must be a plain word, found %s", kindName(k))
			continue
		}
		f := o.field(k.Value)
		switch {
		case f == nil:
			d.fail(k, didYouMean(k.Value, o.names()), "unknown field %s in %s", quote(k.Value), o.name)
			m.unknown = true
		case f.later:
			d.fail(k, "", "field %s in %s %s: remove it", quote(k.Value), o.name, notEnforced)
		case m.key[k.Value] != nil:
			d.fail(k, "", "field %s is given twice, first in line %d", quote(k.Value), d.line+m.key[k.Value].Line)
		default:
			m.key[k.Value] = k
			m.val[k.Value] = v
		}
	}
	for _, f := range o.fields {
		if f.required && m.key[f.name] == nil {
			d.fail(n, f.hint, "%s needs the field %q", o.name, f.name)
		}
	}
	return m, true
}

// str reads a non-empty string.
func (d *decoder) str(n *yaml.Node, what string) (string, bool) {
	if n == nil {
		return "", false
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		hint := ""
		if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
			hint = fmt.Sprintf("write %q in quotes", n.Value)
		}
		d.fail(n, hint, "%s must be a string, found %s %s", what, kindName(n), quote(n.Value))
		return "", false
	}
	if n.Value == "" {
		d.fail(n, "", "%s is empty", what)
		return "", false
	}
	return n.Value, true
}

func (d *decoder) boolean(n *yaml.Node, what string) bool {
	if n == nil {
		return false
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" && (n.Value == "true" || n.Value == "false") {
		return n.Value == "true"
	}
	d.fail(n, "", "%s must be true or false, found %s", what, quote(n.Value))
	return false
}

func (d *decoder) number(n *yaml.Node, what string, low, high int64) int64 {
	if n == nil {
		return 0
	}
	v, err := strconv.ParseInt(n.Value, 10, 64)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil || v < low || v > high {
		d.fail(n, "", "%s must be a number from %d to %d, found %s", what, low, high, quote(n.Value))
		return 0
	}
	return v
}

// list walks a sequence.
func (d *decoder) list(n *yaml.Node, what string, each func(*yaml.Node)) {
	if n == nil {
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.fail(n, "", "%s must be a list, found %s %s", what, kindName(n), quote(n.Value))
		return
	}
	for _, c := range n.Content {
		each(c)
	}
}

// MaxList bounds lists of strings in documents: each entry is compared with all before it.
const MaxList = 1000

// strs reads a non-empty list of strings without repeats, each through check,
// which gives the canonical form.
func (d *decoder) strs(n *yaml.Node, what string, check func(string) (string, error)) []string {
	var out []string
	if n != nil && n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		d.fail(n, "", "%s is an empty list", what)
	}
	if n != nil && len(n.Content) > MaxList {
		d.fail(n, "make several rules or documents of it", "%s has %d entries, the limit is %d", what, len(n.Content), MaxList)
		return nil
	}
	d.list(n, what, func(c *yaml.Node) {
		s, ok := d.str(c, "an entry of "+what)
		if !ok {
			return
		}
		v, err := check(s)
		switch {
		case err != nil:
			d.failText(c, err)
		case slices.Contains(out, v):
			d.fail(c, "", "%s is listed twice in %s", quote(s), what)
		default:
			out = append(out, v)
		}
	})
	return out
}

func (d *decoder) prefixes(n *yaml.Node, what string) []netip.Prefix {
	var out []netip.Prefix
	d.strs(n, what, func(s string) (string, error) {
		p, err := parsePrefix(s)
		if err != nil {
			return "", err
		}
		if p.Overlaps(virtualRange) && p.Bits() >= virtualRange.Bits() {
			return "", fmt.Errorf("%s lies in %s, which is reserved for virtual addresses", quote(s), virtualRange)
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
		return p.String(), nil
	})
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// selector reads a selector of principals.
func (d *decoder) selector(n *yaml.Node, what string) (scope.Selector, bool) {
	s, ok := d.str(n, what)
	if !ok {
		return scope.Selector{}, false
	}
	sel, err := scope.ParseSelector(s)
	if err != nil {
		hint := ""
		var se *scope.SyntaxError
		if errors.As(err, &se) && se.Near != "" {
			hint = fmt.Sprintf("did you mean %q?", se.Near)
			err = &scope.SyntaxError{Input: se.Input, Msg: se.Msg}
		}
		at := *n
		if se != nil && n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
			at.Column += se.Offset
			if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
				at.Column++
			}
		}
		d.fail(&at, hint, "%s: %v", what, err)
		return scope.Selector{}, false
	}
	return sel, true
}

// principals reads a selector that names no server and no tool.
func (d *decoder) principals(n *yaml.Node, what string) (scope.Selector, bool) {
	sel, ok := d.selector(n, what)
	if ok && sel.HasTarget() {
		d.fail(n, "use org, team, agent and sandbox", "%s %s names a server or tool", what, quote(n.Value))
		return scope.Selector{}, false
	}
	return sel, ok
}

// size reads bytes: a number, or one with Ki, Mi, Gi or Ti.
func (d *decoder) size(n *yaml.Node, what string) int64 {
	if n == nil {
		return 0
	}
	if n.Kind == yaml.ScalarNode {
		if v, ok := parseSize(n.Value); ok && v > 0 {
			return v
		}
	}
	d.fail(n, "for example 512Mi", "%s %s is not a size in bytes, or with Ki, Mi, Gi or Ti", what, quote(n.Value))
	return 0
}

func parseSize(s string) (int64, bool) {
	shift := 0
	for i, suf := range []string{"Ki", "Mi", "Gi", "Ti"} {
		if b, ok := strings.CutSuffix(s, suf); ok {
			s, shift = b, 10*(i+1)
			break
		}
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v < 0 || s[0] == '+' || v > math.MaxInt64>>shift {
		return 0, false
	}
	return v << shift, true
}

// namePattern reads a name with an optional "*" at the end.
func namePattern(s, what string) (scope.Pattern, error) {
	body, wild := strings.CutSuffix(s, "*")
	if strings.Contains(body, "*") {
		return scope.Pattern{}, fmt.Errorf(`%s %s: "*" may stand alone or at the end only`, what, quote(s))
	}
	if len(s) > 256 {
		return scope.Pattern{}, fmt.Errorf("%s is longer than 256 bytes", what)
	}
	for _, r := range body {
		if r <= ' ' || r == 0x7f || r == '�' {
			return scope.Pattern{}, fmt.Errorf("%s %s has a space or control character", what, quote(s))
		}
	}
	return scope.Pattern{Text: body, Wild: wild}, nil
}

// validName is what documents, rules, profiles and secrets are called.
func validName(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

func (d *decoder) name(n *yaml.Node, what string) string {
	s, ok := d.str(n, what)
	if !ok {
		return ""
	}
	if !validName(s) {
		d.fail(n, "use up to 128 letters, digits, '.', '_' and '-', starting with a letter, digit or '_'", "%s %s is not a valid name", what, quote(s))
		return ""
	}
	return s
}

// text reads free text for people: no control characters, bounded.
func (d *decoder) text(n *yaml.Node, what string, most int) string {
	if n == nil {
		return ""
	}
	s, ok := d.str(n, what)
	if !ok {
		return ""
	}
	if len(s) > most {
		d.fail(n, "", "%s is longer than %d bytes", what, most)
		return ""
	}
	for _, r := range s {
		if r < ' ' && r != '\n' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '�' {
			d.fail(n, "", "%s has a control character", what)
			return ""
		}
	}
	return strings.TrimRight(s, "\n")
}
