// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"

	"github.com/tidwall/gjson"
)

// eventStreamType is the type of Amazon's binary frames (application/vnd.amazon.eventstream).
//
// A frame is a prelude (total length, length of the headers, CRC of both), headers, a
// payload and a CRC over all of it, integers big-endian. A header is a name with its
// length in a byte, a type, and a value. Source: smithy.io, "Amazon Event Stream
// Specification".
const eventStreamType = "application/vnd.amazon.eventstream"

const (
	framePrelude   = 12
	frameCRC       = 4
	maxFrame       = 16 << 20
	maxFrameHeader = 128 << 10
)

var errFrame = errors.New("malformed frame")

// frames turns a stream of frames into server-sent events of the dialect.
type frames struct {
	src io.ReadCloser
	d   *dialect
	buf []byte       // the current frame
	out bytes.Buffer // events that were not read yet
	err error
}

func newFrames(src io.ReadCloser, d *dialect) *frames { return &frames{src: src, d: d} }

// Read returns events as their frames come; what was complete before an error is read
// first.
func (f *frames) Read(p []byte) (int, error) {
	for f.out.Len() == 0 {
		if f.err != nil {
			return 0, f.err
		}
		f.out.Reset()
		f.err = f.next()
	}
	return f.out.Read(p)
}

func (f *frames) Close() error { return f.src.Close() }

// next reads one frame and writes its event.
func (f *frames) next() error {
	var pre [framePrelude]byte
	if _, err := io.ReadFull(f.src, pre[:]); err != nil {
		return err // io.EOF between two frames is the end
	}
	total, header := binary.BigEndian.Uint32(pre[:]), binary.BigEndian.Uint32(pre[4:])
	switch {
	case crc32.ChecksumIEEE(pre[:8]) != binary.BigEndian.Uint32(pre[8:]):
		return fmt.Errorf("%w: checksum of the prelude", errFrame)
	case total > maxFrame || header > maxFrameHeader || uint64(total) < framePrelude+frameCRC+uint64(header):
		return fmt.Errorf("%w: its lengths are %d and %d", errFrame, total, header)
	}
	if need := int(total) - framePrelude; cap(f.buf) < need {
		f.buf = make([]byte, need)
	} else {
		f.buf = f.buf[:need]
	}
	if _, err := io.ReadFull(f.src, f.buf); err != nil {
		return cutShort(err)
	}
	end := len(f.buf) - frameCRC
	if crc32.Update(crc32.ChecksumIEEE(pre[:]), crc32.IEEETable, f.buf[:end]) != binary.BigEndian.Uint32(f.buf[end:]) {
		return fmt.Errorf("%w: checksum", errFrame)
	}
	headers, err := frameHeaders(f.buf[:header])
	if err != nil {
		return err
	}
	return f.event(headers, f.buf[header:end])
}

func cutShort(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// fixedHeader are the lengths of header values by type, of those that have no length
// of their own; types 6 and 7, bytes and string, have one of two bytes.
var fixedHeader = map[byte]int{0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}

// frameHeaders reads the headers that are strings; others are skipped.
func frameHeaders(b []byte) (map[string]string, error) {
	out := map[string]string{}
	for len(b) > 0 {
		n := int(b[0])
		if len(b) < n+2 {
			return nil, fmt.Errorf("%w: a header's name", errFrame)
		}
		name, typ := string(b[1:1+n]), b[1+n]
		b = b[n+2:]
		size, fixed := fixedHeader[typ]
		if !fixed {
			if typ != 6 && typ != 7 || len(b) < 2 {
				return nil, fmt.Errorf("%w: the type of a header", errFrame)
			}
			size = int(binary.BigEndian.Uint16(b))
			b = b[2:]
		}
		if len(b) < size {
			return nil, fmt.Errorf("%w: a header's value", errFrame)
		}
		if typ == 7 {
			out[name] = string(b[:size])
		}
		b = b[size:]
	}
	return out, nil
}

// event writes what a frame says as an event of the dialect.
func (f *frames) event(h map[string]string, payload []byte) error {
	switch h[":message-type"] {
	case "event":
		if h[":event-type"] != "chunk" {
			return nil // one that a later version of the platform has
		}
		var chunk struct {
			Bytes string `json:"bytes"`
		}
		if err := json.Unmarshal(payload, &chunk); err != nil {
			return fmt.Errorf("%w: its payload is not JSON", errFrame)
		}
		data, err := base64.StdEncoding.DecodeString(chunk.Bytes)
		if err != nil || !json.Valid(data) {
			return fmt.Errorf("%w: its bytes are not an event", errFrame)
		}
		f.write(gjson.GetBytes(data, "type").String(), data)
	case "exception":
		f.fail(h[":exception-type"], gjson.GetBytes(payload, "message").String())
	case "error":
		f.fail(h[":error-code"], h[":error-message"])
	default:
		return fmt.Errorf("%w: the message type %q", errFrame, h[":message-type"])
	}
	return nil
}

// write writes one event. The data of an event is one line: JSON has line breaks
// between values only.
func (f *frames) write(name string, data []byte) {
	f.out.WriteString("event: ")
	f.out.WriteString(toolName(name))
	f.out.WriteString("\ndata: ")
	for _, c := range data {
		if c == '\n' || c == '\r' {
			c = ' '
		}
		f.out.WriteByte(c)
	}
	f.out.WriteString("\n\n")
}

// exceptionStatus are the statuses that exceptions inside a stream stand for.
var exceptionStatus = map[string]int{
	"throttlingException": http.StatusTooManyRequests, "validationException": http.StatusBadRequest,
	"modelTimeoutException": http.StatusGatewayTimeout, "serviceUnavailableException": http.StatusServiceUnavailable,
}

func (f *frames) fail(code, message string) {
	status := exceptionStatus[code]
	if status == 0 {
		status = http.StatusInternalServerError
	}
	f.write("error", f.d.errorBody(&refusal{code: code}, status, message))
}
