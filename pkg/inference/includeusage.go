// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"slices"
	"strings"

	"github.com/tidwall/gjson"
)

// An OpenAI chat or completions stream reports usage only when it is asked to
// (stream_options.include_usage: API reference, "create chat completion"). Where the
// client did not ask, Ringfence does, and takes the one chunk that comes of it out of
// the answer. The other chunks then have "usage": null, which is passed on: they are
// not rewritten.

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
		return t.replace(opts, []byte("{"+want+"}")), true
	}
	if n.kind != kindObject {
		return edit{}, false
	}
	inc, there := t.member(opts, "include_usage")
	if !there {
		return t.insert(opts, want), true
	}
	if v := &t.nodes[inc]; v.kind == kindFalse || v.kind == kindNull {
		return t.replace(inc, []byte("true")), true
	}
	return edit{}, false
}

// unaskedHosts report usage in each stream without being asked, and refuse a request
// that asks (Mistral: 422 extra_forbidden, openai/openai-agents-python#442).
var unaskedHosts = []string{"api.mistral.ai"}

// asksForUsage says whether a candidate is asked for usage that the client did not
// ask for, and how.
func (x *exchange) asksForUsage(c *candidate) (edit, bool) {
	if !x.route.unasked || !x.asked.stream || x.asked.includeUsage || slices.Contains(unaskedHosts, hostOf(c.prov.BaseURL)) {
		return edit{}, false
	}
	return askForUsage(&x.tape)
}

// hostOf is the host of a base URL, without its port.
func hostOf(base string) string {
	_, host, _ := strings.Cut(base, "://")
	host, _, _ = strings.Cut(host, "/")
	host, _, _ = strings.Cut(host, ":")
	return host
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

// idleFor says that b passes as it is: nothing is held, and whole events in which no
// usage is an object cannot be the chunk.
func (h *usageHider) idleFor(b []byte) bool {
	if len(h.held) > 0 || h.pass || h.wasCR || !bytes.HasSuffix(b, []byte("\n\n")) {
		return false
	}
	for {
		i := bytes.Index(b, []byte("usage\""))
		if i < 0 {
			return true
		}
		b = b[i+len("usage\""):]
		if v := bytes.TrimLeft(b, " \t\r\n:"); len(v) == 0 || v[0] == '{' {
			return false
		}
	}
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
