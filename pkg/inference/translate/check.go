// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"strconv"
)

// checker compares one document with its table: every field is known, of its
// type and allowed, and what is not carried has a note.
type checker struct {
	strict bool // a request: an unknown field is refused; an answer's is dropped with a note
	notes  *notes
	path   []step
}

// step is one part of the way to a value.
type step struct {
	name  []byte // of a member; nil: an element
	index int
}

// where is the way to the present value, as the client would write it.
func (c *checker) where(more ...string) string {
	var b []byte
	for _, s := range c.path {
		if s.name == nil {
			b = append(strconv.AppendInt(append(b, '['), int64(s.index), 10), ']')
			continue
		}
		b = appendName(b, s.name)
	}
	for _, m := range more {
		b = appendName(b, []byte(m))
	}
	return string(b)
}

// appendName appends a member's name to a path. Names are the sender's: what
// is no plain word is quoted, and none makes a long message.
func appendName(b, name []byte) []byte {
	if len(b) > 0 {
		b = append(b, '.')
	}
	plain := len(name) > 0 && len(name) <= 64
	for _, c := range name {
		plain = plain && (c == '_' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z')
	}
	if plain {
		return append(b, name...)
	}
	return strconv.AppendQuoteToASCII(b, string(name[:min(64, len(name))]))
}

// field checks v against the rows at f.
func (c *checker) field(v val, f *field) error {
	if r := f.row; r != nil {
		if done, err := c.row(v, r); done || err != nil {
			return err
		}
	}
	if !f.kinds.has(v) {
		return &Refusal{Field: c.where(), Why: "has to be " + article(f.kinds)}
	}
	switch v.kind() {
	case kindArray:
		return c.elements(v, f)
	case kindObject:
		if f.variants != nil {
			return c.variant(v, f)
		}
		return c.members(v, f)
	}
	return nil
}

// row does what one row says; done means that nothing below it is looked at.
func (c *checker) row(v val, r *Row) (done bool, err error) {
	switch r.Do {
	case Refused:
		if !c.strict {
			c.notes.row(r)
			return true, nil
		}
		if r.Unless != "" && r.neutral(v) {
			return true, nil
		}
		return true, &Refusal{Field: c.where(), Why: r.Why}
	case Ignored:
		if r.Unless == "" || !r.neutral(v) {
			c.notes.row(r)
		}
		return true, nil
	}
	if r.Opaque && r.Kinds.has(v) {
		return true, nil
	}
	return false, nil
}

func (c *checker) elements(v val, f *field) error {
	if f.elem == nil {
		return nil
	}
	c.path = append(c.path, step{})
	at := len(c.path) - 1
	i := 0
	for e := range v.kids() {
		c.path[at].index = i
		if err := c.field(e, f.elem); err != nil {
			return err
		}
		i++
	}
	c.path = c.path[:at]
	return nil
}

// variant finds which of the objects at f this one is.
func (c *checker) variant(v val, f *field) error {
	by := v.get(f.by)
	name := []byte(f.els)
	switch {
	case by.kind() == kindString:
		name = by.text()
	case by.there():
		return &Refusal{Field: c.where(f.by), Why: "has to be a string"}
	case f.els == "":
		return &Refusal{Field: c.where(f.by), Why: "is missing"}
	}
	is := f.variants[string(name)]
	if is == nil {
		if !c.strict {
			c.notes.add(c.where(f.by), "of a kind that this translation does not know: dropped")
			return nil
		}
		return &Refusal{Field: c.where(f.by), Why: "this translation knows no " + strconv.QuoteToASCII(string(name[:min(64, len(name))])) + " here"}
	}
	if is.row != nil {
		if done, err := c.row(v, is.row); done || err != nil {
			return err
		}
	}
	return c.members(v, is)
}

func (c *checker) members(v val, f *field) error {
	for _, need := range f.needs {
		if !v.get(need).there() {
			return &Refusal{Field: c.where(need), Why: "is missing"}
		}
	}
	c.path = append(c.path, step{})
	at := len(c.path) - 1
	for m := range v.kids() {
		key := m.key()
		c.path[at].name = key
		is := f.members[string(key)]
		switch {
		case is == nil && c.strict:
			return &Refusal{Field: c.where(), Why: "the table of this translation has no such field"}
		case is == nil:
			c.notes.add(c.where(), "not in the provider's documented answer: dropped")
		case m.kind() == kindNull: // the same as absent
		default:
			if err := c.field(m, is); err != nil {
				return err
			}
		}
	}
	c.path = c.path[:at]
	return nil
}

func article(k Kinds) string {
	s := k.String()
	switch {
	case s == "any":
		return "a value"
	case s[0] == 'a' || s[0] == 'i' || s[0] == 'o':
		return "an " + s
	}
	return "a " + s
}

// Note says what was not carried as it was, and why.
type Note struct {
	Field string // as the sender would write it; with [] for any element where the rule is one of the table
	Why   string
}

// notes keeps each note once, and as many as anybody reads.
type notes struct{ list []Note }

const maxNotes = 64

func (n *notes) row(r *Row) { n.add(r.Path, r.Why) }

func (n *notes) add(field, why string) {
	for i := range n.list {
		if n.list[i].Field == field {
			return
		}
	}
	switch {
	case len(n.list) < maxNotes:
		n.list = append(n.list, Note{field, why})
	case len(n.list) == maxNotes:
		n.list = append(n.list, Note{"", "more fields than these were not carried"})
	}
}
