// SPDX-License-Identifier: Apache-2.0

package inference

import "bytes"

// Google's parsers take a member of a message by its name in the proto file
// ("file_uri") as well as by the one of JSON ("fileUri"): the JSON mapping of
// Protocol Buffers demands both. So two keys of one object can be one member, which
// of them counts depends on the reader, and neither is found by looking for the other.
// Here a key is compared without letter case and underscores; a known member has to
// be spelled in one of the two ways, and no object may hold a member twice.

// snakeCase is the proto name of a JSON name.
func snakeCase(camel string) string {
	out := make([]byte, 0, len(camel)+4)
	for i := 0; i < len(camel); i++ {
		c := camel[i]
		if c >= 'A' && c <= 'Z' {
			out = append(out, '_', c+'a'-'A')
		} else {
			out = append(out, c)
		}
	}
	return string(out)
}

// canonical appends the key of member i to dst without letter case and underscores.
func (t *tape) canonical(dst []byte, i uint32) []byte {
	key := t.src[t.nodes[i].keyStart:t.nodes[i].keyEnd]
	if !t.plainKey(i) {
		key = t.folded(i)
	}
	for _, c := range key {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != '_' {
			dst = append(dst, c)
		}
	}
	return dst
}

// plainKey says whether the key of member i is ASCII without escapes.
func (t *tape) plainKey(i uint32) bool {
	n := &t.nodes[i]
	if n.keyEscaped {
		return false
	}
	for _, c := range t.src[n.keyStart:n.keyEnd] {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// spelled notes member i as a variant unless it is spelled as documented.
func (t *tape) spelled(i uint32, camel string) {
	if key := t.key(i); key != camel && key != snakeCase(camel) {
		t.noteVariant(i, camel)
	}
}

func (t *tape) noteVariant(i uint32, of string) {
	if t.variant == 0 {
		t.variant, t.variantOf = i, of
	}
}

// twice notes a member of an object that is there under two spellings.
func (t *tape) twice(obj uint32) {
	if t.nodes[obj].kind != kindObject {
		return
	}
	n := 0
	t.children(obj, func(uint32) bool {
		n++
		return n <= smallObject
	})
	if n <= smallObject {
		t.children(obj, func(c uint32) bool {
			t.children(obj, func(o uint32) bool {
				if o < c && t.sameMember(o, c) {
					t.noteVariant(c, t.key(o))
				}
				return o < c
			})
			return true
		})
		return
	}
	seen := make(map[string]uint32, 4*smallObject)
	t.children(obj, func(c uint32) bool {
		name := string(t.canonical(nil, c))
		if o, ok := seen[name]; ok {
			t.noteVariant(c, t.key(o))
		}
		seen[name] = c
		return true
	})
}

// sameMember says whether two keys are one member.
func (t *tape) sameMember(a, b uint32) bool {
	var x, y [2 * maxKey]byte
	return bytes.Equal(t.canonical(x[:0], a), t.canonical(y[:0], b))
}
