// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// wholeEvents passes a stream of server-sent events on, event by event (WHATWG HTML,
// section 9.2: an event counts once its blank line is there). What has come of one
// that is not complete stays here, so a stream that breaks off ends between two
// events, and the error that follows is read as one. It also sees whether the stream
// came to its end, and whether it ended with an error of the provider.
type wholeEvents struct {
	ends []string // what events hold that end a stream, one of them; nil: nobody knows

	held   []byte // of an event that is not complete
	spare  []byte // the buffer before held; with open the last bytes that were passed on
	open   bool   // part of an event has been passed on, for it is larger than holdBytes
	ended  bool   // it has come to its end
	failed bool   // with an error
}

// errEarly ends a stream that has no end of its own.
var errEarly = errors.New("the stream ended before it was complete")

// pass takes the next bytes, and the error that came with them. It returns what may
// be passed on, which is valid until the next call and may alias b, and what ended
// the stream: io.EOF only for one that is complete.
func (e *wholeEvents) pass(b []byte, err error) ([]byte, error) {
	out := e.next(b)
	e.look(out)
	if err != io.EOF {
		return out, err
	}
	if len(e.held) > 0 {
		if !lastEvent(e.held) {
			return out, errEarly
		}
		e.look(e.held)
		out, e.held = append(out[:len(out):len(out)], e.held...), nil
	}
	if len(e.ends) > 0 && !e.ended || e.open {
		return out, errEarly
	}
	return out, io.EOF
}

// next gives the events that are complete now.
func (e *wholeEvents) next(b []byte) []byte {
	if e.open {
		return e.rest(b)
	}
	if len(e.held) == 0 {
		n := lastBlank(b)
		if n < len(b) {
			e.held = append(e.held, b[n:]...)
		}
		return b[:n]
	}
	from := max(len(e.held)-3, 0) // a blank line may have begun before
	e.held = append(e.held, b...)
	n := lastBlank(e.held[from:])
	switch {
	case n > 0:
		n += from
	case len(e.held) > holdBytes:
		n, e.open = len(e.held), true
	default:
		return nil
	}
	out := e.held
	if e.open {
		e.held, e.spare = nil, append([]byte(nil), out[n-3:]...)
	} else {
		e.held, e.spare = append(e.spare[:0], out[n:]...), out
	}
	return out[:n]
}

// rest passes on what comes of an event that is too large to be held.
func (e *wholeEvents) rest(b []byte) []byte {
	all := append(e.spare, b...) // the blank line may have begun before
	n := lastBlank(all) - len(e.spare)
	e.spare = append([]byte(nil), all[max(len(all)-3, 0):]...)
	if n <= 0 {
		return b
	}
	e.open = false
	e.held, e.spare = append(e.held[:0], b[n:]...), nil
	return b[:n]
}

// lastBlank is where the last blank line of b ends; 0 when there is none. A blank
// line is the end of a line after the end of another.
func lastBlank(b []byte) int {
	if bytes.HasSuffix(b, []byte("\n\n")) {
		return len(b)
	}
	for i := len(b) - 1; i > 0; i-- {
		if b[i] != '\n' && b[i] != '\r' {
			if i = bytes.LastIndexAny(b[:i], "\r\n"); i <= 0 {
				return 0
			}
		}
		j := i - 1 // before this end of a line
		if b[i] == '\n' && b[j] == '\r' {
			j--
		}
		if j >= 0 && (b[j] == '\n' || b[j] == '\r') {
			return i + 1
		}
	}
	return 0
}

// lastEvent says whether an event is complete but for the blank line, which some
// servers leave out at the end.
func lastEvent(b []byte) bool {
	whole := len(bytes.Trim(b, "\r\n")) == 0
	s := sseEvents{event: func(_, data []byte) bool {
		whole = string(bytes.TrimSpace(data)) == "[DONE]" || json.Valid(data)
		return false
	}}
	s.feed(b)
	s.feed([]byte("\n\n"))
	return whole
}

// errorMarks are how the providers' documented errors begin inside a stream.
var errorMarks = [][]byte{
	[]byte("event: error\n"), []byte(`data: {"error":{`), []byte(`data: {"error": {`), []byte(`data: {"type":"error"`), []byte(`"type":"response.failed"`),
}

// look finds the end of the stream among complete events.
func (e *wholeEvents) look(b []byte) {
	if len(b) == 0 {
		return
	}
	for _, s := range e.ends {
		if e.ended {
			break
		}
		e.ended = bytes.Contains(b, []byte(s))
	}
	if e.failed || !bytes.Contains(b, []byte("error")) {
		return
	}
	for _, mark := range errorMarks {
		if bytes.Contains(b, mark) {
			e.failed, e.ended = true, true
		}
	}
}
