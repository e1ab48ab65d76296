// SPDX-License-Identifier: Apache-2.0

package inference

import "bytes"

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
