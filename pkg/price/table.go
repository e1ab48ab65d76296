// SPDX-License-Identifier: Apache-2.0

package price

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Table is a list of prices that hold from a time on.
type Table struct {
	Version   string    // its name in events: what a price was taken from
	Effective time.Time // UTC
	Source    string    // where the prices were read, for people
	Models    []Model
}

// Model is the price of one model, or of all whose names begin alike.
type Model struct {
	Provider string // kind of the provider: "openai", "bedrock" ...; "*" for any
	Name     string // as sent upstream; with a * at its end, a pattern
	Rates    Rates
	Tiers    []Tier // in ascending order
	// Bounds in tokens, 0: not known.
	MaxInput, MaxOutput uint64
}

// Any is the provider of a price that holds for all kinds.
const Any = "*"

// How says how a price was found. The zero value is "not at all".
type How uint8

// Ways, in the order in which they are tried.
const (
	Missing How = iota
	Exact       // the very name
	Dated       // the name without the date at its end
	Pattern     // the longest pattern
)

func (h How) String() string {
	return [...]string{"missing", "exact", "dated", "pattern"}[min(h, Pattern)]
}

// Match is a price that was found. The zero value is a model of which none is known.
type Match struct {
	Model   *Model // nil: unknown
	Version string // of the table
	How     How
}

// Known says whether there is a price.
func (m Match) Known() bool { return m.Model != nil }

// Cost is what a usage costs; that of an unknown model is an error, never zero.
func (m Match) Cost(u *Usage) (Charge, error) {
	if m.Model == nil {
		return Charge{}, ErrUnknown
	}
	return m.Model.Cost(u)
}

// Book is a set of tables. It never changes; nil is an empty one.
type Book struct {
	tables   []Table
	exact    map[key][]dated // newest first
	patterns map[string][]pattern
}

type key struct{ provider, name string }

type dated struct {
	from    int64 // nanoseconds since 1970
	table   *Table
	version string
	model   *Model
}

type pattern struct {
	prefix string
	prices []dated
}

// NewBook merges tables. For each model the table that was the last to take effect
// wins; of two that take effect together, the greater version. Two tables of one
// version, and one table that names a model twice, are errors.
func NewBook(tables ...Table) (*Book, error) {
	b := &Book{tables: slices.Clone(tables), exact: map[key][]dated{}, patterns: map[string][]pattern{}}
	slices.SortStableFunc(b.tables, func(x, y Table) int {
		return cmp.Or(y.Effective.Compare(x.Effective), cmp.Compare(y.Version, x.Version))
	})
	versions := map[string]bool{}
	for i := range b.tables {
		t := &b.tables[i]
		if versions[t.Version] {
			return nil, fmt.Errorf("price: two tables have the version %q", t.Version)
		}
		versions[t.Version] = true
		if err := b.add(t); err != nil {
			return nil, err
		}
	}
	for k, list := range b.exact {
		if prefix, ok := strings.CutSuffix(k.name, "*"); ok {
			b.patterns[k.provider] = append(b.patterns[k.provider], pattern{prefix, list})
			delete(b.exact, k)
		}
	}
	for _, list := range b.patterns {
		slices.SortFunc(list, func(x, y pattern) int {
			return cmp.Or(cmp.Compare(len(y.prefix), len(x.prefix)), cmp.Compare(x.prefix, y.prefix))
		})
	}
	return b, nil
}

func (b *Book) add(t *Table) error {
	for i := range t.Models {
		m := &t.Models[i]
		k := key{m.Provider, m.Name}
		list := b.exact[k]
		if n := len(list); n > 0 && list[n-1].table == t {
			return fmt.Errorf("price: table %q names the model %s of %s twice", t.Version, m.Name, m.Provider)
		}
		m.settle()
		b.exact[k] = append(list, dated{t.Effective.UnixNano(), t, t.Version, m})
	}
	return nil
}

// Tables lists them, the newest first. The caller does not change them.
func (b *Book) Tables() []Table {
	if b == nil {
		return nil
	}
	return b.tables
}

// Lookup finds what a model of a kind of provider costs at a time. In this order:
// its very name, its name without a date, the longest pattern that it begins with;
// each of the kind first, then of any. The date is one of "-20250929", "@20250929"
// or "-2025-09-29" at the end. A name is found before a pattern also where the
// pattern's table is newer. It allocates nothing.
func (b *Book) Lookup(kind, model string, at time.Time) Match {
	if b == nil {
		return Match{}
	}
	now := at.UnixNano()
	if m := b.named(kind, model, now, Exact); m.Known() {
		return m
	}
	if short := undated(model); short != model {
		if m := b.named(kind, short, now, Dated); m.Known() {
			return m
		}
	}
	for _, provider := range [...]string{kind, Any} {
		for _, p := range b.patterns[provider] {
			if strings.HasPrefix(model, p.prefix) {
				if m := inForce(p.prices, now, Pattern); m.Known() {
					return m
				}
			}
		}
	}
	return Match{}
}

func (b *Book) named(kind, model string, now int64, how How) Match {
	if m := inForce(b.exact[key{kind, model}], now, how); m.Known() {
		return m
	}
	return inForce(b.exact[key{Any, model}], now, how)
}

func inForce(list []dated, now int64, how How) Match {
	for i := range list {
		if list[i].from <= now {
			return Match{list[i].model, list[i].version, how}
		}
	}
	return Match{}
}

// undated takes a date from the end of a model's name.
func undated(name string) string {
	for _, form := range [...]string{"-dddddddd", "@dddddddd", "-dddd-dd-dd"} {
		n := len(name) - len(form)
		if n <= 0 || !looksLike(name[n:], form) {
			continue
		}
		month, day := n+5, n+7
		if len(form) == len("-dddd-dd-dd") {
			month, day = n+6, n+9
		}
		if name[n+1:n+3] == "20" && within(name[month:month+2], 12) && within(name[day:], 31) {
			return name[:n]
		}
	}
	return name
}

func looksLike(s, form string) bool {
	for i := range len(form) {
		if form[i] == 'd' {
			if s[i] < '0' || s[i] > '9' {
				return false
			}
		} else if s[i] != form[i] {
			return false
		}
	}
	return true
}

// within says whether two digits are between 01 and most.
func within(d string, most int) bool {
	n := int(d[0]-'0')*10 + int(d[1]-'0')
	return n >= 1 && n <= most
}
