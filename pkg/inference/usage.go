// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"

	"github.com/tidwall/gjson"
)

// usage is what one call cost in tokens.
type usage struct {
	in, out, cached uint64
	estimated       bool
}

// meter reads usage out of an answer while it passes. Its memory is bounded
// whatever the answer's size: it never buffers more than one usage object.
type meter struct {
	sse  *sseReader
	json jsonUsage
}

func newMeter(sse bool) *meter {
	m := &meter{}
	m.json.reset()
	if sse {
		m.sse = &sseReader{data: m.json.feed, end: m.json.reset}
	}
	return m
}

func (m *meter) feed(b []byte) {
	if m.sse != nil {
		m.sse.feed(b)
		return
	}
	m.json.feed(b)
}

// bytesPerToken is the usual rule of thumb for an estimate.
const bytesPerToken = 4

// total returns the call's usage. Without a report in the answer the figures
// are estimated from the text that went each way, and say so; after a broken
// answer too, since the last report may be missing.
func (m *meter) total(req *tape, broken bool) usage {
	u := m.json.usage
	out := (m.json.textBytes + bytesPerToken - 1) / bytesPerToken
	if !m.json.reported {
		u.in, u.estimated = requestTokens(req), true
		u.out = out
		return u
	}
	if broken {
		u.out, u.estimated = max(u.out, out), true
	}
	return u
}

// requestTokens estimates the input from the text of the request; encoded
// media are not text.
func requestTokens(t *tape) uint64 {
	var n uint64
	for i := range t.nodes {
		v := &t.nodes[i]
		if v.kind != kindString {
			continue
		}
		text := t.src[v.start+1 : v.end-1]
		if key := t.src[v.keyStart:v.keyEnd]; bytes.HasPrefix(text, []byte("data:")) || string(key) == "data" || string(key) == "file_data" {
			continue
		}
		n += uint64(len(text))
	}
	return (n + bytesPerToken - 1) / bytesPerToken
}

// sseReader finds the data of server-sent events in a stream cut anywhere.
type sseReader struct {
	data func([]byte) // bytes of the data of the current event
	end  func()       // the event is over

	field  []byte // start of the current line, up to and with the colon
	state  sseState
	lastCR bool
	blank  bool // nothing on this line so far
	began  bool
}

type sseState uint8

const (
	sseField sseState = iota
	sseSpace          // after "data:", one space may be skipped
	sseData
	sseSkip
)

func (s *sseReader) feed(b []byte) {
	if !s.began && len(b) > 0 {
		s.began, s.blank = true, true
	}
	for i := 0; i < len(b); {
		c := b[i]
		if c == '\n' && s.lastCR {
			s.lastCR = false
			i++
			continue
		}
		s.lastCR = c == '\r'
		if c == '\n' || c == '\r' {
			s.line()
			i++
			continue
		}
		s.blank = false
		switch s.state {
		case sseField:
			s.field = append(s.field, c)
			i++
			if c == ':' {
				s.state = sseSkip
				if f := bytes.TrimPrefix(s.field, []byte("\xef\xbb\xbf")); string(f) == "data:" {
					s.state = sseSpace
				}
			} else if len(s.field) > 16 {
				s.state = sseSkip
			}
		case sseSpace:
			s.state = sseData
			if c == ' ' {
				i++
			}
		default:
			n := lineLen(b[i:])
			if s.state == sseData {
				s.data(b[i : i+n])
			}
			i += n
		}
	}
}

func (s *sseReader) line() {
	if s.blank {
		s.end()
	}
	if s.state == sseData {
		s.data([]byte{'\n'})
	}
	s.state, s.field, s.blank = sseField, s.field[:0], true
}

func lineLen(b []byte) int {
	for i, c := range b {
		if c == '\n' || c == '\r' {
			return i
		}
	}
	return len(b)
}

// jsonUsage watches one JSON document go by in pieces, catches the usage
// object at its top level or inside "response" or "message", and counts the
// bytes of generated text. Documents it cannot follow are not counted.
type jsonUsage struct {
	usage     usage // over all documents of the answer
	reported  bool
	textBytes uint64

	depth    int
	isObject [usageDepth]bool
	inString bool
	escape   bool
	isKey    bool // the string is a key
	wantKey  bool // the next string is a key
	key      []byte
	inside   bool   // depth 2 is the object of "response" or "message"
	counts   bool   // the current string is generated text
	catch    []byte // the usage object so far
	catching int    // depth at which it ends, 0 = not catching
	lost     bool   // nested too deep: this document is not followed
}

const (
	usageDepth = 64
	maxKey     = 32
	maxUsage   = 8 << 10
)

// reset ends one document and starts the next.
func (j *jsonUsage) reset() {
	*j = jsonUsage{usage: j.usage, reported: j.reported, textBytes: j.textBytes, key: j.key[:0], catch: j.catch[:0]}
}

// textKeys are the members that hold generated text in either dialect.
var textKeys = [][]byte{
	[]byte("content"), []byte("text"), []byte("delta"), []byte("arguments"), []byte("partial_json"),
	[]byte("thinking"), []byte("reasoning_content"), []byte("refusal"), []byte("reasoning"),
}

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
	return n + 1
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
	case j.counts:
		j.textBytes += uint64(len(b))
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
	if c == '{' && j.catching == 0 {
		switch {
		case string(j.key) == "usage" && (j.depth == 1 || j.depth == 2 && j.inside):
			j.catching = j.depth
			j.catch = append(j.catch[:0], '{')
		case j.depth == 1:
			j.inside = string(j.key) == "response" || string(j.key) == "message"
		}
	}
	j.isObject[j.depth] = c == '{'
	j.depth++
	j.wantKey = c == '{'
	if c == '{' {
		j.key = j.key[:0]
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
		j.merge(gjson.ParseBytes(j.catch))
	}
	if j.depth == 1 {
		j.inside = false
	}
}

// merge takes one usage object. Streams report more than once (Anthropic:
// input at the start, cumulative output with each delta): the largest figure
// of each kind is the call's.
func (j *jsonUsage) merge(u gjson.Result) {
	num := func(paths ...string) (n uint64) {
		for _, p := range paths {
			if v := u.Get(p); v.Type == gjson.Number && v.Num > 0 && v.Num < 1<<53 {
				n = max(n, uint64(v.Num))
			}
		}
		return n
	}
	cached := num("prompt_tokens_details.cached_tokens", "input_tokens_details.cached_tokens", "cache_read_input_tokens")
	in := num("prompt_tokens", "input_tokens")
	if u.Get("cache_read_input_tokens").Exists() || u.Get("cache_creation_input_tokens").Exists() {
		// Anthropic counts cached input apart from input_tokens.
		in += num("cache_read_input_tokens") + num("cache_creation_input_tokens")
	}
	out := num("completion_tokens", "output_tokens")
	if in == 0 && out == 0 && !u.Get("total_tokens").Exists() {
		return
	}
	j.reported = true
	j.usage.in, j.usage.out, j.usage.cached = max(j.usage.in, in), max(j.usage.out, out), max(j.usage.cached, cached)
}
