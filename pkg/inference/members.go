// SPDX-License-Identifier: Apache-2.0

package inference

import "bytes"

// withMembers returns the document, an object, with the members add in front, in the
// form `"a":1,"b":2`, and without those whose nodes are in without. Every other byte of
// every other member is kept.
func (t *tape) withMembers(add string, without ...uint32) []byte {
	root := &t.nodes[0]
	var out bytes.Buffer
	out.Grow(len(t.src) + len(add) + 1)
	out.WriteByte('{')
	out.WriteString(add)
	var last uint32 // the last member that was kept
	began := add != ""
	t.children(0, func(c uint32) bool {
		for _, w := range without {
			if w == c {
				return true
			}
		}
		n := &t.nodes[c]
		switch {
		case last != 0 && t.nodes[last].next == c: // its own separator
			out.Write(t.src[t.nodes[last].end : n.keyStart-1])
		case began:
			out.WriteByte(',')
		}
		out.Write(t.src[n.keyStart-1 : n.end])
		began, last = true, c
		return true
	})
	out.WriteByte('}')
	out.Write(t.src[root.end:])
	return out.Bytes()
}
