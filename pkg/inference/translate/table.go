// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"fmt"
	"strconv"
	"strings"
)

// Action is what becomes of a field.
type Action uint8

const (
	Refused     Action = iota // the call is refused, by the field's name
	Carried                   // the value arrives as it was sent
	Transformed               // the value arrives in another form; Why says how
	Ignored                   // not carried, and a note says so; Why says why
)

func (a Action) String() string {
	return [...]string{"refused", "carried", "transformed", "ignored with a note"}[a]
}

// Kinds is a set of JSON types.
type Kinds uint8

const (
	String Kinds = 1 << iota
	Integer
	Number
	Bool
	Object
	Array
	Any = String | Number | Bool | Object | Array
)

func (k Kinds) String() string {
	if k == Any {
		return "any"
	}
	var out []string
	for i, name := range [...]string{"string", "integer", "number", "boolean", "object", "array"} {
		if k&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return strings.Join(out, " or ")
}

// Row is one field of one kind of message and what becomes of it on its way to
// the other dialect.
//
// A path names members with dots; [] is the elements of an array, <x> the
// object whose discriminator (type; role for messages) is x. A row that is
// refused, ignored or opaque speaks for everything below it.
type Row struct {
	Path   string
	Kinds  Kinds
	Do     Action
	To     string // the field of the other dialect, where one line says it
	Why    string // how it is transformed, or why it is refused or ignored
	Unless string // values that ask for nothing, as JSON, separated by blanks: accepted and not carried
	Need   bool   // the field has to be there
	Opaque bool   // the value is carried as a whole; its members are the client's
	// Extension says whose field it is that no official SDK has.
	Extension string
	// By is the discriminator of the objects here, Else the variant of one without it.
	By, Else string
}

// Table is the rows of one kind of message.
type Table struct {
	Title    string
	From, To Dialect
	Rows     []Row
	root     *field
}

// field is a row, and the rows below it, as the checker walks them.
type field struct {
	row      *Row
	kinds    Kinds
	members  map[string]*field
	needs    []string
	elem     *field
	by, els  string
	variants map[string]*field
}

// newTable builds the walkable form. A row that cannot be is a programming
// error and panics; the tables are data, built once.
func newTable(title string, from, to Dialect, parts ...[]Row) *Table {
	t := &Table{Title: title, From: from, To: to, root: &field{}}
	for _, p := range parts {
		t.Rows = append(t.Rows, p...)
	}
	for i := range t.Rows {
		r := &t.Rows[i]
		f, parent, name := t.root.at(r.Path)
		if f.row != nil {
			panic("translate: " + title + ": two rows for " + r.Path)
		}
		f.row, f.by, f.els = r, r.By, r.Else
		if r.Kinds != 0 {
			f.kinds = r.Kinds
		}
		if r.Need && parent != nil {
			parent.needs = append(parent.needs, name)
		}
	}
	t.root.settle(title, "")
	return t
}

// at finds or makes the field of a path; parent and name are those of its last
// member, nil where the path ends in an element or a variant.
func (f *field) at(path string) (_, parent *field, name string) {
	for path != "" {
		switch {
		case strings.HasPrefix(path, "[]"):
			if f.elem == nil {
				f.elem = &field{}
			}
			f, parent, path = f.elem, nil, path[2:]
		case path[0] == '<':
			v, rest, _ := strings.Cut(path[1:], ">")
			if f.variants == nil {
				f.variants = map[string]*field{}
			}
			if f.variants[v] == nil {
				f.variants[v] = &field{}
			}
			f, parent, path = f.variants[v], nil, rest
		default:
			path = strings.TrimPrefix(path, ".")
			n := strings.IndexAny(path, ".[<")
			if n < 0 {
				n = len(path)
			}
			if f.members == nil {
				f.members = map[string]*field{}
			}
			name = path[:n]
			if f.members[name] == nil {
				f.members[name] = &field{}
			}
			f, parent, path = f.members[name], f, path[n:]
		}
	}
	return f, parent, name
}

// settle fills in what follows from the rows, below f.
func (f *field) settle(title, path string) {
	if f.kinds == 0 {
		f.kinds = Object
	}
	if f.variants != nil && f.by == "" {
		f.by = "type"
	}
	for name, m := range f.members {
		if m.row == nil {
			panic(fmt.Sprintf("translate: %s: %s.%s has rows below it and none of its own", title, path, name))
		}
		m.settle(title, path+"."+name)
	}
	if f.elem != nil {
		if f.elem.by == "" {
			f.elem.by, f.elem.els = f.by, f.els
		}
		f.elem.settle(title, path+"[]")
	}
	for name, v := range f.variants {
		if v.members == nil {
			v.members = map[string]*field{}
		}
		if v.members[f.by] == nil {
			v.members[f.by] = &field{row: &Row{Kinds: String, Do: Carried}, kinds: String}
		}
		v.settle(title, path+"<"+name+">")
	}
}

// under is rows at a place below another.
func under(prefix string, rows []Row) []Row {
	out := make([]Row, len(rows))
	for i, r := range rows {
		out[i] = r
		if strings.HasPrefix(r.Path, "<") || strings.HasPrefix(r.Path, "[") {
			out[i].Path = prefix + r.Path
		} else {
			out[i].Path = prefix + "." + r.Path
		}
	}
	return out
}

// neutral says whether the value asks for nothing.
func (r *Row) neutral(v val) bool {
	for rest := r.Unless; rest != ""; {
		var one string
		one, rest, _ = strings.Cut(rest, " ")
		if sameJSON(v.raw(), one) {
			return true
		}
		if f, ok := v.float(); ok {
			if n, err := strconv.ParseFloat(one, 64); err == nil && n == f {
				return true
			}
		}
	}
	return false
}

// sameJSON says whether a is b but for blanks between its parts.
func sameJSON(a []byte, b string) bool {
	inside := false
	for i := 0; i < len(a); i++ {
		switch c := a[i]; {
		case !inside && (c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			continue
		case b == "" || c != b[0]:
			return false
		case c == '"':
			inside = !inside
		}
		b = b[1:]
	}
	return b == ""
}

// has says whether the value is of one of the types.
func (k Kinds) has(v val) bool {
	switch v.kind() {
	case kindString:
		return k&String != 0
	case kindNumber:
		if k&Number != 0 {
			return true
		}
		_, whole := v.integer()
		return k&Integer != 0 && whole
	case kindBool:
		return k&Bool != 0
	case kindObject:
		return k&Object != 0
	case kindArray:
		return k&Array != 0
	}
	return false
}
