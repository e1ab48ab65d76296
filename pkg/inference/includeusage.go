// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"

	"github.com/tidwall/gjson"
)

// An OpenAI chat or completions stream reports usage only when it is asked to
// (stream_options.include_usage: API reference, "create chat completion"). Where the
// client did not ask, Ringfence does, and takes the one chunk that comes of it out of
// the answer. The other chunks then have "usage": null, which is passed on: they are
// not rewritten.

// edit replaces the bytes of a body from one offset up to another.
type edit struct {
	from, to uint32
	text     string
}

// apply returns src with the edits made, which are in ascending order and do not
// overlap. Every other byte is kept; src is not changed.
func apply(src []byte, edits ...edit) []byte {
	n := len(src)
	for _, e := range edits {
		n += len(e.text)
	}
	out := make([]byte, 0, n)
	var at uint32
	for _, e := range edits {
		out = append(append(out, src[at:e.from]...), e.text...)
		at = e.to
	}
	return append(out, src[at:]...)
}

// askForUsage is the edit that makes a streaming request ask for usage; ok is false
// where it asks already, or where stream_options is of a form that is the
// provider's to refuse.
func askForUsage(t *tape) (e edit, ok bool) {
	const want = `"include_usage":true`
	opts, there := t.member(0, "stream_options")
	if !there {
		return t.insert(0, `"stream_options":{`+want+`}`), true
	}
	n := &t.nodes[opts]
	if n.kind == kindNull {
		return edit{n.start, n.end, "{" + want + "}"}, true
	}
	if n.kind != kindObject {
		return edit{}, false
	}
	inc, there := t.member(opts, "include_usage")
	if !there {
		return t.insert(opts, want), true
	}
	if v := &t.nodes[inc]; v.kind == kindFalse || v.kind == kindNull {
		return edit{v.start, v.end, "true"}, true
	}
	return edit{}, false
}

// insert puts a member in front of those of an object.
func (t *tape) insert(obj uint32, member string) edit {
	n := &t.nodes[obj]
	if n.next > obj+1 {
		member += ","
	}
	return edit{n.start + 1, n.start + 1, member}
}

// maxHeld bounds an event that is held back to be looked at. A chunk with usage and
// nothing else is far smaller; a larger event is passed on as it comes.
const maxHeld = 8 << 10

// usageHider takes the chunk with usage and no choices out of an event stream. Each
// event is held until it is complete, or too large to be that chunk; every other byte
// passes unchanged and in order.
type usageHider struct {
	held  []byte // the event so far
	line  int    // where its last line begins
	pass  bool   // this event is passed on
	wasCR bool   // the byte before was a carriage return
}

// next appends what may be passed on of b, and of all that is held with end.
func (h *usageHider) next(dst, b []byte, end bool) []byte {
	for _, c := range b {
		if h.wasCR && c != '\n' {
			dst = h.lineEnd(dst)
		}
		h.held = append(h.held, c)
		if c == '\n' {
			dst = h.lineEnd(dst)
		}
		h.wasCR = c == '\r'
		if h.pass || len(h.held) > maxHeld {
			h.pass = true
			dst, h.line = append(dst, h.held...), h.line-len(h.held)
			h.held = h.held[:0]
		}
	}
	if end {
		if h.wasCR {
			dst = h.lineEnd(dst)
		}
		if !hidden(h.held) { // a stream may end without the last blank line
			dst = append(dst, h.held...)
		}
		*h = usageHider{}
	}
	return dst
}

// lineEnd ends a line; an empty one ends the event.
func (h *usageHider) lineEnd(dst []byte) []byte {
	h.wasCR = false
	blank := h.line >= 0 && len(bytes.TrimRight(h.held[h.line:], "\r\n")) == 0
	h.line = len(h.held)
	if !blank {
		return dst
	}
	if !hidden(h.held) {
		dst = append(dst, h.held...)
	}
	h.held, h.line, h.pass = h.held[:0], 0, false
	return dst
}

// hidden says whether an event is the chunk that nobody asked for.
func hidden(ev []byte) bool {
	if !bytes.Contains(ev, []byte("usage")) {
		return false
	}
	var data []byte
	for _, line := range bytes.FieldsFunc(ev, func(c rune) bool { return c == '\n' || c == '\r' }) {
		if d, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			data = append(append(data, d...), '\n')
		}
	}
	if !gjson.ValidBytes(data) {
		return false
	}
	doc := gjson.ParseBytes(data)
	choices := doc.Get("choices")
	return doc.Get("usage").IsObject() && choices.IsArray() && len(choices.Array()) == 0
}
