// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"

	"github.com/tidwall/gjson"
)

// jsonUsage watches one JSON document go by in pieces, catches the usage
// object at its top level, in an element of an array at its top level, or inside
// "response" or "message", and counts the tokens of generated text, the pictures in
// "data" and the web searches in "output". Documents it cannot follow are not
// counted.
type jsonUsage struct {
	got      figures // over all documents of the answer
	text     counter
	pictures uint64
	searches uint64 // of the document that has most

	found    uint64 // searches in this document
	items    int    // depth of the objects in "output", 0 = not there
	shots    int    // depth of the objects in "data"
	value    []byte // of a "type" in them
	depth    int
	isObject [usageDepth]bool
	inString bool
	escape   bool
	isKey    bool // the string is a key
	wantKey  bool // the next string is a key
	key      []byte
	typed    bool   // the current string is such a "type"
	inside   bool   // depth 2 is the object of "response" or "message", or an element
	counts   bool   // the current string is generated text
	catch    []byte // the usage object so far
	catching int    // depth at which it ends, 0 = not catching
	lost     bool   // nested too deep: this document is not followed
}

const (
	usageDepth = maxDepth + 32 // answers repeat what requests hold: tools, schemas
	maxKey     = 32
	maxUsage   = 8 << 10
)

// reset ends one document and starts the next.
func (j *jsonUsage) reset() {
	j.count()
	*j = jsonUsage{got: j.got, text: j.text, pictures: j.pictures, searches: j.searches,
		key: j.key[:0], catch: j.catch[:0], value: j.value[:0]}
}

// count ends the count of searches in a document: the last one of a stream has them
// all once more.
func (j *jsonUsage) count() { j.searches, j.found = max(j.searches, j.found), 0 }

// textKeys are the members that hold generated text in either dialect.
var textKeys = [][]byte{
	[]byte("content"), []byte("text"), []byte("delta"), []byte("arguments"), []byte("partial_json"),
	[]byte("thinking"), []byte("reasoning_content"), []byte("refusal"), []byte("reasoning"),
}

const searchItem = "web_search_call"

func (j *jsonUsage) feed(b []byte) {
	for i := 0; i < len(b) && !j.lost; {
		if j.inString {
			i += j.str(b[i:])
			continue
		}
		c := b[i]
		i++
		if j.catching > 0 {
			j.keep(c)
		}
		switch c {
		case '"':
			j.inString, j.isKey = true, j.wantKey
			if j.isKey {
				j.key = j.key[:0]
			} else {
				j.counts = j.isText()
				j.typed = j.items > 0 && j.depth == j.items && string(j.key) == "type"
				j.value = j.value[:0]
			}
		case '{', '[':
			j.open(c)
		case '}', ']':
			j.close()
		case ',':
			j.wantKey = j.depth > 0 && j.isObject[j.depth-1]
		case ':':
			j.wantKey = false
		}
	}
}

// str consumes bytes of a string and returns how many.
func (j *jsonUsage) str(b []byte) int {
	if j.escape {
		j.escape = false
		j.part(b[:1])
		return 1
	}
	n := 0
	for n < len(b) && b[n] != '"' && b[n] != '\\' {
		n++
	}
	if n < len(b) && b[n] == '\\' {
		j.part(b[:n+1])
		j.escape = true
		return n + 1
	}
	j.part(b[:n])
	if n == len(b) {
		return n
	}
	if j.catching > 0 {
		j.keep('"')
	}
	j.inString = false
	if !j.isKey {
		j.endValue()
	}
	return n + 1
}

func (j *jsonUsage) endValue() {
	j.text.end()
	if j.typed && string(j.value) == searchItem {
		j.found++
	}
	j.typed = false
}

func (j *jsonUsage) part(b []byte) {
	if j.catching > 0 {
		for _, c := range b {
			j.keep(c)
		}
	}
	switch {
	case j.isKey && len(j.key)+len(b) <= maxKey:
		j.key = append(j.key, b...)
	case j.isKey:
		j.key = append(j.key[:0], '?')
	case j.typed && len(j.value)+len(b) <= maxKey:
		j.value = append(j.value, b...)
	case j.typed:
		j.value = append(j.value[:0], '?')
	case j.counts:
		j.text.add(b)
	}
}

func (j *jsonUsage) isText() bool {
	for _, k := range textKeys {
		if bytes.Equal(j.key, k) {
			return true
		}
	}
	return false
}

func (j *jsonUsage) keep(c byte) {
	if len(j.catch) >= maxUsage {
		j.catching = 0
		return
	}
	j.catch = append(j.catch, c)
}

func (j *jsonUsage) open(c byte) {
	if j.depth >= usageDepth {
		j.lost, j.catching = true, 0
		return
	}
	if j.catching == 0 {
		j.place(c)
	}
	j.isObject[j.depth] = c == '{'
	j.depth++
	j.wantKey = c == '{'
	if c == '{' {
		j.key = j.key[:0]
	}
}

// place notes what begins here.
func (j *jsonUsage) place(c byte) {
	top := (j.depth == 1 || j.depth == 2 && j.inside) && j.isObject[j.depth-1]
	switch key := string(j.key); {
	case c == '[':
		if top && key == "output" {
			j.items = j.depth + 2
		} else if top && j.depth == 1 && key == "data" {
			j.shots = j.depth + 1
		}
	case top && (key == "usage" || key == "usageMetadata"):
		j.catching = j.depth
		j.catch = append(j.catch[:0], '{')
	case j.depth == 1:
		j.inside = key == "response" || key == "message" || !j.isObject[0]
	case j.shots > 0 && j.depth == j.shots:
		j.pictures++
	}
}

func (j *jsonUsage) close() {
	if j.depth == 0 {
		j.lost = true
		return
	}
	j.depth--
	j.wantKey = false
	if j.catching > 0 && j.depth == j.catching {
		j.catching = 0
		j.got.merge(gjson.ParseBytes(j.catch))
	}
	if j.depth == 1 {
		j.inside = false
	}
	if j.depth < j.items-1 {
		j.items = 0
	}
	if j.depth < j.shots {
		j.shots = 0
	}
}
