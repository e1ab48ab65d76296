// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"iter"
	"strconv"
)

// val is one value of a document. The zero val is an absent one.
type val struct {
	d *document
	i int32
}

func (v val) node() *node { return &v.d.nodes[v.i] }

// there says whether the value exists; null counts as absent where get finds it.
func (v val) there() bool { return v.d != nil }

func (v val) kind() kind {
	if v.d == nil {
		return kindNone
	}
	return v.node().kind
}

// raw is the value as it was written.
func (v val) raw() []byte {
	n := v.node()
	return v.d.src[n.start:n.end]
}

// key is the member's name.
func (v val) key() []byte {
	n := v.node()
	raw := v.d.src[n.keyStart:n.keyEnd]
	if !n.keyEscaped {
		return raw
	}
	return unescape(nil, raw)
}

// text is the value of a string, without a copy where it has no escapes, and
// nothing of what is no string.
func (v val) text() []byte {
	if v.kind() != kindString {
		return nil
	}
	n := v.node()
	raw := v.d.src[n.start+1 : n.end-1]
	if !n.escaped {
		return raw
	}
	return unescape(nil, raw)
}

// inner is a string as written, without its quotes; parts of it can be put
// between quotes of another document.
func (v val) inner() []byte {
	if v.kind() != kindString {
		return nil
	}
	n := v.node()
	return v.d.src[n.start+1 : n.end-1]
}

// is says whether the value is this string.
func (v val) is(s string) bool { return v.kind() == kindString && string(v.text()) == s }

func (v val) truth() bool { return v.kind() == kindBool && v.raw()[0] == 't' }

// empty says whether a string, array or object holds nothing, or is absent.
func (v val) empty() bool {
	switch {
	case v.d == nil:
		return true
	case v.kind() == kindString:
		return len(v.inner()) == 0
	}
	return v.node().next == uint32(v.i)+1
}

// integer is the value of a number that is one.
func (v val) integer() (int64, bool) {
	if v.kind() != kindNumber {
		return 0, false
	}
	n, err := strconv.ParseInt(string(v.raw()), 10, 64)
	return n, err == nil
}

func (v val) float() (float64, bool) {
	if v.kind() != kindNumber {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(v.raw()), 64)
	return f, err == nil
}

// kids are the elements or members in their order.
func (v val) kids() iter.Seq[val] {
	return func(yield func(val) bool) {
		if v.d == nil || v.node().kind < kindArray {
			return
		}
		for i, end := uint32(v.i)+1, v.node().next; i < end; i = v.d.nodes[i].next {
			if !yield(val{v.d, int32(i)}) {
				return
			}
		}
	}
}

// count is the number of elements or members.
func (v val) count() int {
	n := 0
	for range v.kids() {
		n++
	}
	return n
}

// get is the member of that name; absent and null are the same.
func (v val) get(name string) val {
	if v.kind() != kindObject {
		return val{}
	}
	for i, end := uint32(v.i)+1, v.node().next; i < end; {
		n := &v.d.nodes[i]
		m := val{v.d, int32(i)}
		if !n.keyEscaped && string(v.d.src[n.keyStart:n.keyEnd]) == name || n.keyEscaped && string(m.key()) == name {
			if n.kind == kindNull {
				return val{}
			}
			return m
		}
		i = n.next
	}
	return val{}
}
