// SPDX-License-Identifier: Apache-2.0

package inference

import "bytes"

// sseEvents cuts a stream of server-sent events (WHATWG HTML, section 9.2) that
// comes in pieces. The lines of an event's data are joined by newlines.
type sseEvents struct {
	event func(name, data []byte) bool // false: no more are wanted

	line   []byte
	name   []byte
	data   []byte
	some   bool // the event has a data line
	lastCR bool
	begun  bool
	done   bool
}

func (s *sseEvents) feed(b []byte) {
	for len(b) > 0 && !s.done {
		if s.lastCR && b[0] == '\n' {
			b = b[1:]
			s.lastCR = false
			continue
		}
		s.lastCR = false
		i := bytes.IndexAny(b, "\r\n")
		if i < 0 {
			s.line = append(s.line, b...)
			return
		}
		s.line = append(s.line, b[:i]...)
		s.lastCR = b[i] == '\r'
		b = b[i+1:]
		s.end()
	}
}

// end takes one line.
func (s *sseEvents) end() {
	line := s.line
	if !s.begun {
		line, s.begun = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf")), true
	}
	s.line = s.line[:0]
	if len(line) == 0 {
		if s.some || len(s.name) > 0 {
			s.done = !s.event(s.name, s.data)
		}
		s.name, s.data, s.some = s.name[:0], s.data[:0], false
		return
	}
	field, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(field) {
	case "event":
		s.name = append(s.name[:0], value...)
	case "data":
		if s.some {
			s.data = append(s.data, '\n')
		}
		s.data, s.some = append(s.data, value...), true
	}
}
