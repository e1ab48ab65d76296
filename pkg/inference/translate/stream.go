// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"bytes"
	"errors"
)

// Stream translates the events of one answer as they come. It is for one
// goroutine at a time. Nothing is held back but what a later event completes:
// the text of a thinking block, whose signature comes last, and the usage.
type Stream struct {
	t     *Translated
	table *Table
	d     document
	check checker
	sse   splitter
	to    streamer
	done  bool
	whole bool
}

// streamer writes one dialect's stream.
type streamer interface {
	// event translates one event of the provider. errEnd: it was the last.
	event(w *writer, root val) error
	// end writes what closes the stream; false: the answer is not complete.
	end(w *writer) bool
}

var errEnd = errors.New("the stream is over")

// streamError is an error that the provider sent inside of its stream.
type streamError struct {
	kind    *kindOfError
	message string
}

func (e *streamError) Error() string { return "the provider ended its stream: " + e.message }

// Stream begins the translation of the provider's stream to a call.
func (t *Translated) Stream() *Stream {
	s := &Stream{t: t, check: checker{notes: &t.notes}}
	if t.to == AnthropicMessages {
		s.table, s.to = anthropicEvents, &chunks{t: t}
	} else {
		s.table, s.to = openAIChunks, &events{t: t}
	}
	return s
}

// Complete says whether the provider's answer came to its end and all of it was
// written.
func (s *Stream) Complete() bool { return s.whole }

// Feed translates one event of the provider: its name, which chat completions
// do not have, and its data. What the client gets is appended to dst as
// server-sent events. The error is a *Malformed, or says what error the provider
// sent; dst then ends with an error event of the client's dialect, and what is
// fed later is ignored.
func (s *Stream) Feed(dst []byte, name string, data []byte) ([]byte, error) {
	data = bytes.TrimSpace(data)
	if s.done || len(data) == 0 {
		return dst, nil
	}
	if s.t.to == OpenAIChat && string(data) == "[DONE]" {
		return s.End(dst)
	}
	root, err := s.d.parse(data)
	if err != nil {
		return s.fail(dst, malformed(err))
	}
	if name == "error" && s.t.to == OpenAIChat {
		return s.fail(dst, inStream(s.t.to, root))
	}
	if root.kind() != kindObject {
		return s.fail(dst, &Malformed{"", "an event is no JSON object"})
	}
	s.check.path = s.check.path[:0]
	if err := s.check.field(root, s.table.root); err != nil {
		return s.fail(dst, malformed(err))
	}
	w := writer{b: dst}
	switch err := s.to.event(&w, root); {
	case err == errEnd:
		s.done, s.whole = true, true
	case err != nil:
		return s.fail(w.b, err)
	}
	return w.b, nil
}

// Write is Feed for the bytes of the provider's stream, cut anywhere.
func (s *Stream) Write(dst, raw []byte) ([]byte, error) {
	if s.done {
		return dst, nil
	}
	var failed error
	err := s.sse.feed(raw, func(name string, data []byte) {
		var err error
		if dst, err = s.Feed(dst, name, data); err != nil && failed == nil {
			failed = err
		}
	})
	if failed == nil && err != nil && !s.done {
		return s.fail(dst, &Malformed{"", err.Error()})
	}
	return dst, failed
}

// End says that the provider's stream is over. An answer that was not complete
// ends with an error event, and the error is a *Malformed.
func (s *Stream) End(dst []byte) ([]byte, error) {
	if s.done {
		return dst, nil
	}
	w := writer{b: dst}
	if !s.to.end(&w) {
		return s.fail(dst, &Malformed{"", "the stream ended before the answer was complete"})
	}
	s.done, s.whole = true, true
	return w.b, nil
}

// fail ends the client's stream with an error event.
func (s *Stream) fail(dst []byte, err error) ([]byte, error) {
	s.done = true
	k, message := &kindsOfError[kindAPI], err.Error()
	if e, ok := err.(*streamError); ok {
		k, message = e.kind, e.message
	}
	w := writer{b: dst}
	if s.t.from == AnthropicMessages {
		w.b = append(w.b, "event: error\n"...)
	}
	w.b = append(w.b, "data: "...)
	writeError(&w, s.t.from, k, message)
	w.b = append(w.b, '\n', '\n')
	return w.b, err
}

// inStream is the error that a provider of the dialect sent as an event.
func inStream(from Dialect, root val) error {
	kind, code, message := errorParts(root)
	k := errorKind(from, 0, kind, code, message)
	if message == "" {
		message = "the provider ended the stream with an error"
	}
	return &streamError{k, message}
}

// maxEvent bounds one event, and what is kept of a thinking block.
const maxEvent = 8 << 20

// splitter finds the events of a stream that is cut anywhere (WHATWG HTML,
// server-sent events).
type splitter struct {
	line   []byte // what is there of the present line
	name   []byte
	data   []byte
	some   bool // the event has data
	lastCR bool
	begun  bool // a line has come
	broken bool
}

// feed calls event for each event that is complete. data is valid during the call.
func (s *splitter) feed(b []byte, event func(name string, data []byte)) error {
	for len(b) > 0 && !s.broken {
		if s.lastCR && b[0] == '\n' {
			b, s.lastCR = b[1:], false
			continue
		}
		s.lastCR = false
		n := bytes.IndexAny(b, "\r\n")
		if n < 0 {
			s.line = append(s.line, b...)
			s.broken = len(s.line)+len(s.data) > maxEvent
			break
		}
		line := b[:n]
		if len(s.line) > 0 {
			s.line = append(s.line, line...)
			line = s.line
		}
		s.lastCR = b[n] == '\r'
		b = b[n+1:]
		s.field(line, event)
		s.line = s.line[:0]
		s.broken = len(s.data) > maxEvent
	}
	if s.broken {
		return errors.New("an event is too long")
	}
	return nil
}

// field takes one line.
func (s *splitter) field(line []byte, event func(name string, data []byte)) {
	if !s.begun {
		line, s.begun = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf")), true
	}
	if len(line) == 0 {
		if s.some {
			event(string(s.name), s.data)
		}
		s.name, s.data, s.some = s.name[:0], s.data[:0], false
		return
	}
	key, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(key) {
	case "event":
		s.name = append(s.name[:0], value...)
	case "data":
		if s.some {
			s.data = append(s.data, '\n')
		}
		s.data = append(s.data, value...)
		s.some = true
	}
}
