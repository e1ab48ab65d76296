// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"cmp"
	"slices"
	"strconv"
)

// edit replaces the bytes from start to end of a document.
type edit struct {
	start, end uint32
	text       []byte
}

// replace changes the value of a node.
func (t *tape) replace(i uint32, value []byte) edit {
	return edit{t.nodes[i].start, t.nodes[i].end, value}
}

// bound makes the document say that at most n tokens may come out: it lowers each
// member that says more or says nothing sensible, and adds one of the given name
// where there is none.
func (t *tape) bound(name string, n uint64) (edits []edit) {
	value := strconv.AppendUint(nil, n, 10)
	said := false
	for _, k := range outputKeys {
		i, ok := t.member(0, k)
		if !ok {
			continue
		}
		said = said || k == name || t.count(i) > 0 && slices.Contains(outputNames(name), k)
		if v := t.count(i); v == 0 || v > n {
			edits = append(edits, t.replace(i, value))
		}
	}
	if said {
		return edits
	}
	return append(edits, t.insert(0, strconv.Quote(name)+":"+string(value)))
}

// insert puts a member in front of those of an object.
func (t *tape) insert(obj uint32, member string) edit {
	if t.hasChildren(obj) {
		member += ","
	}
	at := t.nodes[obj].start + 1
	return edit{at, at, []byte(member)}
}

// edited is the document with the edits, which must not overlap; every other byte
// is kept. The source is not changed, and is what comes back without edits.
func (t *tape) edited(edits []edit) []byte {
	if len(edits) == 0 {
		return t.src
	}
	slices.SortFunc(edits, func(a, b edit) int { return cmp.Compare(a.start, b.start) })
	size := len(t.src)
	for _, e := range edits {
		size += len(e.text)
	}
	out, at := make([]byte, 0, size), uint32(0)
	for _, e := range edits {
		out = append(append(out, t.src[at:e.start]...), e.text...)
		at = e.end
	}
	return append(out, t.src[at:]...)
}
