// SPDX-License-Identifier: Apache-2.0

package price

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Bounds of a table.
const (
	MaxTable  = 8 << 20 // bytes of its text
	MaxModels = 50000
	maxTiers  = 8
	maxName   = 256
	// MaxVersion bounds the name of a version, in bytes.
	MaxVersion = 64
)

// Problem is something wrong in a document, and where.
type Problem struct {
	File         string
	Line, Column int
	Msg          string
}

func (p *Problem) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Msg)
}

// reader walks one document; the first problem ends it.
type reader struct{ file string }

func (r *reader) bad(n *yaml.Node, format string, args ...any) error {
	return &Problem{r.file, max(n.Line, 1), max(n.Column, 1), fmt.Sprintf(format, args...)}
}

// Parse reads one table, as YAML or JSON:
//
//	version: "2026-11-01"
//	effective: 2026-11-01T00:00:00Z
//	source: https://example.com/prices, read on 2026-11-01
//	models:
//	  - provider: anthropic
//	    model: claude-sonnet-4-5
//	    rates: {input: "3", output: "15", cachedInput: "0.3", cacheWrite5m: "3.75", cacheWrite1h: "6"}
//	    tiers: [{contextOver: 200000, rates: {input: "6", output: "22.5"}}]
//	    maxOutput: 64000
//
// Prices are decimal numbers in US dollars, exact to the last digit: of tokens for a
// million of them, of image, request and webSearch for one. Unknown fields, duplicate
// keys, aliases and prices finer than a nano-dollar per million are errors.
func Parse(file string, text []byte) (Table, error) {
	r := reader{file}
	at := &yaml.Node{Line: 1, Column: 1}
	if len(text) > MaxTable {
		return Table{}, r.bad(at, "the table is larger than %d MiB", MaxTable>>20)
	}
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		return Table{}, r.bad(at, "not a YAML or JSON document: %v", err)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) || len(doc.Content) != 1 {
		return Table{}, r.bad(&more, "a file holds one table, and nothing else")
	}
	return r.table(doc.Content[0])
}

// members calls the function of each member of a mapping by its name.
func (r *reader) members(n *yaml.Node, what string, fields map[string]func(*yaml.Node) error, need ...string) error {
	if n.Kind != yaml.MappingNode || n.Anchor != "" {
		return r.bad(n, "%s has to be a mapping", what)
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		f, ok := fields[k.Value]
		switch {
		case k.Kind != yaml.ScalarNode || !ok:
			return r.bad(k, "%s has no field %q", what, k.Value)
		case seen[k.Value]:
			return r.bad(k, "the field %s is there twice", k.Value)
		}
		seen[k.Value] = true
		if err := f(v); err != nil {
			return err
		}
	}
	for _, name := range need {
		if !seen[name] {
			return r.bad(n, "%s needs the field %s", what, name)
		}
	}
	return nil
}

func (r *reader) list(n *yaml.Node, what string, most int, f func(*yaml.Node) error) error {
	if n.Kind != yaml.SequenceNode || n.Anchor != "" {
		return r.bad(n, "%s has to be a list", what)
	}
	if len(n.Content) > most {
		return r.bad(n, "%s has more than %d entries", what, most)
	}
	for _, c := range n.Content {
		if err := f(c); err != nil {
			return err
		}
	}
	return nil
}

// text reads one line of printable text.
func (r *reader) text(to *string, what string, most int) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || n.Anchor != "" || n.Tag == "!!null" {
			return r.bad(n, "%s has to be text", what)
		}
		if len(n.Value) == 0 || len(n.Value) > most {
			return r.bad(n, "%s is not between 1 and %d bytes long", what, most)
		}
		if i := strings.IndexFunc(n.Value, func(c rune) bool { return !strconv.IsPrint(c) }); i >= 0 {
			return r.bad(n, "%s holds a character that is not printable", what)
		}
		*to = n.Value
		return nil
	}
}

// name reads the name of a model or of a kind of provider.
func (r *reader) name(to *string, what string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if err := r.text(to, what, maxName)(n); err != nil {
			return err
		}
		if !validName(*to) {
			return r.bad(n, "%s %q has to be printable ASCII without spaces and quotes, with a * at its end only", what, *to)
		}
		return nil
	}
}

func validName(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\' || s[i] == '*' && i != len(s)-1 {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// validVersion says whether s can be the name of a table.
func validVersion(s string) bool {
	return s != "" && len(s) <= MaxVersion && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("._-+:", c)
	})
}

func (r *reader) count(to *uint64, what string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		v, err := strconv.ParseUint(n.Value, 10, 53)
		if n.Kind != yaml.ScalarNode || err != nil || v == 0 {
			return r.bad(n, "%s %q has to be a whole number above 0", what, n.Value)
		}
		*to = v
		return nil
	}
}

func (r *reader) table(n *yaml.Node) (t Table, err error) {
	err = r.members(n, "a price table", map[string]func(*yaml.Node) error{
		"version": func(n *yaml.Node) error {
			if err := r.text(&t.Version, "version", MaxVersion)(n); err != nil {
				return err
			}
			if !validVersion(t.Version) {
				return r.bad(n, "version %q has to be letters, digits and any of . _ - + :", t.Version)
			}
			return nil
		},
		"effective": func(n *yaml.Node) error { return r.moment(&t.Effective, n) },
		"source":    r.text(&t.Source, "source", 1024),
		"models": func(n *yaml.Node) error {
			return r.list(n, "models", MaxModels, func(n *yaml.Node) error {
				m, err := r.model(n)
				t.Models = append(t.Models, m)
				return err
			})
		},
	}, "version", "effective", "source", "models")
	if err != nil {
		return Table{}, err
	}
	if _, err := NewBook(t); err != nil { // one model twice
		return Table{}, r.bad(n, "%s", strings.TrimPrefix(err.Error(), "price: "))
	}
	return t, nil
}

// moment reads a day or a time.
func (r *reader) moment(to *time.Time, n *yaml.Node) error {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if v, err := time.Parse(layout, n.Value); err == nil && v.Year() >= 1970 && v.Year() < 2200 {
			*to = v.UTC()
			return nil
		}
	}
	return r.bad(n, "effective %q has to be a day such as 2026-11-01 or a time such as 2026-11-01T00:00:00Z", n.Value)
}

func (r *reader) model(n *yaml.Node) (m Model, err error) {
	err = r.members(n, "a model", map[string]func(*yaml.Node) error{
		"provider":  r.name(&m.Provider, "provider"),
		"model":     r.name(&m.Name, "model"),
		"rates":     func(n *yaml.Node) error { return r.rates(n, &m.Rates) },
		"maxInput":  r.count(&m.MaxInput, "maxInput"),
		"maxOutput": r.count(&m.MaxOutput, "maxOutput"),
		"tiers": func(n *yaml.Node) error {
			return r.list(n, "tiers", maxTiers, func(n *yaml.Node) error { return r.tier(n, &m) })
		},
	}, "provider", "model", "rates")
	if err == nil && m.Provider != Any && strings.HasSuffix(m.Provider, "*") {
		err = r.bad(n, "provider %q: a provider is one kind, or * for any", m.Provider)
	}
	return m, err
}

func (r *reader) tier(n *yaml.Node, m *Model) error {
	var t Tier
	err := r.members(n, "a tier", map[string]func(*yaml.Node) error{
		"contextOver": r.count(&t.ContextOver, "contextOver"),
		"rates":       func(n *yaml.Node) error { return r.rates(n, &t.Rates) },
	}, "contextOver", "rates")
	if err != nil {
		return err
	}
	if k := len(m.Tiers); k > 0 && m.Tiers[k-1].ContextOver >= t.ContextOver {
		return r.bad(n, "tiers have to be in ascending order of contextOver")
	}
	m.Tiers = append(m.Tiers, t)
	return nil
}

func (r *reader) rates(n *yaml.Node, to *Rates) error {
	fields := map[string]func(*yaml.Node) error{}
	for u := range Unit(Units) {
		fields[u.String()] = func(n *yaml.Node) error {
			v, err := parseRate(n.Value, u.scale(), false)
			if n.Kind != yaml.ScalarNode {
				err = errNumber
			}
			if err != nil {
				return r.bad(n, "the price %s of %s: %v", strconv.Quote(n.Value), u, err)
			}
			to.Set(u, v)
			return nil
		}
	}
	if err := r.members(n, "rates", fields); err != nil {
		return err
	}
	if to.Empty() {
		return r.bad(n, "rates name no price")
	}
	return nil
}

// scale is the power of ten from the dollars of a document to a Rate.
func (u Unit) scale() int {
	if u.isToken() {
		return perMillion
	}
	return perOne
}

// AppendYAML writes the table as Parse reads it, one model on each line, in the
// order of provider and name.
func (t *Table) AppendYAML(b []byte) []byte {
	b = fmt.Appendf(b, "version: %q\neffective: %s\nsource: %q\nmodels:\n", t.Version, t.Effective.UTC().Format(time.RFC3339), t.Source)
	models := slices.Clone(t.Models)
	slices.SortFunc(models, func(x, y Model) int {
		return strings.Compare(x.Provider+"\x00"+x.Name, y.Provider+"\x00"+y.Name)
	})
	for i := range models {
		m := &models[i]
		b = fmt.Appendf(b, "  - {provider: %q, model: %q, rates: %s", m.Provider, m.Name, m.Rates.text())
		for j := range m.Tiers {
			b = append(b, [...]string{", tiers: [", ", "}[min(j, 1)]...)
			b = fmt.Appendf(b, "{contextOver: %d, rates: %s}", m.Tiers[j].ContextOver, m.Tiers[j].text())
		}
		if len(m.Tiers) > 0 {
			b = append(b, ']')
		}
		if m.MaxInput > 0 {
			b = fmt.Appendf(b, ", maxInput: %d", m.MaxInput)
		}
		if m.MaxOutput > 0 {
			b = fmt.Appendf(b, ", maxOutput: %d", m.MaxOutput)
		}
		b = append(b, "}\n"...)
	}
	if len(models) == 0 {
		b = append(b[:len(b)-1], " []\n"...)
	}
	return b
}

func (r *Rates) text() string {
	out := ""
	for u := range Unit(Units) {
		if v, ok := r.Get(u); ok {
			out += fmt.Sprintf(", %s: %q", u, dollars(int64(v), u.scale()))
		}
	}
	return "{" + strings.TrimPrefix(out, ", ") + "}"
}
