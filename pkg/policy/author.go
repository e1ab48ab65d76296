// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ringfence/ringfence/pkg/scope"
)

// WithRule authors a Policy document that holds one rule for a scope. The text
// is deterministic and has been parsed back: Document.Raw is what to store.
// The name says what the rule does; if docs already has a document of that
// name and scope with other text, a number is added, and one with the same
// text is returned as it is. ID may be empty ("rule" then). The error lists
// what is wrong with the rule as [Problems].
func WithRule(docs []Document, sel scope.Selector, r Rule) (Document, error) {
	if r.ID == "" {
		r.ID = "rule"
	}
	base := slug(r.Effect.String() + "-" + r.targetText())
	for n := 1; ; n++ {
		name := base
		if n > 1 {
			name += "-" + strconv.Itoa(n)
		}
		text := ruleText(name, sel, r)
		var taken *Document
		for i := range docs {
			if docs[i].Kind == KindPolicy && docs[i].Name == name && docs[i].Scope == sel {
				taken = &docs[i]
			}
		}
		if taken != nil {
			if string(taken.Raw) == text {
				return *taken, nil
			}
			continue
		}
		parsed, problems := Parse(name+".yaml", []byte(text))
		if len(problems) > 0 {
			return Document{}, Problems(problems)
		}
		if len(parsed) != 1 {
			return Document{}, fmt.Errorf("policy: authored text holds %d documents", len(parsed))
		}
		return parsed[0], nil
	}
}

// NewEgressRule makes the rule of a target such as "api.github.com:443" for
// WithRule.
func NewEgressRule(effect Effect, target string) (Rule, error) {
	t, err := ParseTarget(target)
	if err != nil {
		return Rule{}, err
	}
	if effect == Allow && t.Port == 0 {
		with := t
		with.Port = 443
		return Rule{}, fmt.Errorf("an allow names its port: %s has none; for example %q", quote(target), with)
	}
	if effect == Allow && t.Proto == TCP {
		t.Proto = 0 // what an allow means anyway: one spelling for one rule
	}
	if h, ok := providerHostNamed(t.Host); ok {
		return Rule{}, fmt.Errorf("%s is a host of a model provider and never plain egress: %s", quote(target), providerHint(h))
	}
	return Rule{Section: SectionEgress, Effect: effect, Host: t.Host, Prefix: t.Prefix, Port: t.Port, Proto: t.Proto}, nil
}

// Target is the target of an egress rule.
func (r *Rule) Target() Target {
	return Target{Host: r.Host, Prefix: r.Prefix, Port: r.Port, Proto: r.Proto}
}

func (r *Rule) targetText() string {
	switch r.Section {
	case SectionInference:
		return r.Model.String()
	case SectionTools:
		return toolSelector(r.Server, r.Tool)
	}
	return r.Target().String()
}

func ruleText(name string, sel scope.Selector, r Rule) string {
	return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata:\n  name: %q\nscope: %q\n%s:\n%s", APIVersion, KindPolicy, name, sel, r.Section, r.item())
}

// item is the rule in the list of its section, a field on each line.
func (r *Rule) item() string {
	var b strings.Builder
	lead := "  - "
	for _, f := range r.says() {
		if f.in == nil {
			fmt.Fprintf(&b, "%s%s: %s\n", lead, f.key, f.val)
		} else {
			fmt.Fprintf(&b, "%s%s:\n", lead, f.key)
		}
		lead = "    "
		for _, g := range f.in {
			fmt.Fprintf(&b, "%s  %s: %s\n", lead, g.key, g.val)
		}
	}
	return b.String()
}

// OneLine is the rule in the list of its section, on one line.
func (r *Rule) OneLine() string { return "  - {" + joined(r.says()) + "}\n" }

func joined(fields []said) string {
	parts := make([]string, len(fields))
	for i, f := range fields {
		if f.in != nil {
			f.val = "{" + joined(f.in) + "}"
		}
		parts[i] = f.key + ": " + f.val
	}
	return strings.Join(parts, ", ")
}

// said is one field of an authored rule: a value as YAML, or fields of its own.
type said struct {
	key, val string
	in       []said
}

func (r *Rule) says() (out []said) {
	add := func(key, val string) { out = append(out, said{key: key, val: val}) }
	add("id", strconv.Quote(r.ID))
	verb := "deny"
	if r.Effect == Allow {
		verb = "allow"
	}
	add(verb, strconv.Quote(r.targetText()))
	if r.For != nil {
		add("for", strconv.Quote(r.For.String()))
	}
	if h := r.HTTP; h != nil {
		in := []said{}
		if len(h.Methods) > 0 {
			in = append(in, said{key: "methods", val: quoteList(h.Methods)})
		}
		if len(h.Paths) > 0 {
			in = append(in, said{key: "paths", val: quoteList(h.Paths)})
		}
		out = append(out, said{key: "http", in: in})
	}
	if len(r.ResolvesTo) > 0 {
		add("resolvesTo", quoteList(prefixStrings(r.ResolvesTo)))
	}
	if r.Mandatory {
		add("mandatory", "true")
	}
	if r.Delegable {
		add("delegable", "true")
	}
	if r.Reason != "" {
		add("reason", strconv.Quote(r.Reason))
	}
	return out
}

func quoteList(list []string) string {
	q := make([]string, len(list))
	for i, s := range list {
		q[i] = strconv.Quote(s)
	}
	return "[" + strings.Join(q, ", ") + "]"
}

func prefixStrings(list []netip.Prefix) []string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.String()
	}
	return out
}

// NameOf makes a name for a document or a rule of any text, one that is not
// taken: with a number behind it if need be.
func NameOf(text string, taken func(string) bool) string {
	base := strings.TrimLeft(slug(text), ".-")
	if base == "" {
		base = "rule"
	}
	name := base
	for n := 2; taken(name); n++ {
		name = base + "-" + strconv.Itoa(n)
	}
	return name
}

// slug is text with what a name cannot have replaced.
func slug(s string) string {
	s = strings.ReplaceAll(s, "*", "any")
	b := []byte(s)
	for i, c := range b {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-') {
			b[i] = '-'
		}
	}
	if len(b) > 100 {
		b = b[:100]
	}
	return string(b)
}
