// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// Frame types on an upgraded connection, server to client.
const (
	FrameEstablished = "established" // the agent was started
	FrameFailed      = "failed"      // nothing runs; the last frame
	FrameExited      = "exited"      // best effort: the status socket has the word; the last frame
)

// Frame is one message from the server on an upgraded connection: four bytes
// of length, big-endian, then that much JSON.
type Frame struct {
	Type   string         `json:"type"`
	ID     string         `json:"id,omitempty"`     // FrameEstablished: the sandbox
	Failed *LaunchFailure `json:"failed,omitempty"` // FrameFailed
	Exit   *Exit          `json:"exit,omitempty"`   // FrameExited
}

// WriteFrame writes f in one Write. A frame over MaxFrame loses its findings
// first, and is an error if that is not enough.
func WriteFrame(w io.Writer, f Frame) error {
	b, err := json.Marshal(f)
	if err == nil && len(b) > MaxFrame && f.Exit != nil {
		short := *f.Exit
		short.Findings = nil
		f.Exit = &short
		b, err = json.Marshal(f)
	}
	if err != nil {
		return err
	}
	if len(b) > MaxFrame {
		return fmt.Errorf("frame of %d bytes is over the limit of %d", len(b), MaxFrame)
	}
	out := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b)))
	_, err = w.Write(append(out, b...))
	return err
}

// ReadFrame reads one frame. io.EOF means that the stream ended between
// frames, io.ErrUnexpectedEOF that it ended inside one.
func ReadFrame(r io.Reader) (Frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Frame{}, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > MaxFrame {
		return Frame{}, fmt.Errorf("frame length %d is not between 1 and %d", n, MaxFrame)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	var f Frame
	if err := json.Unmarshal(b, &f); err != nil {
		return Frame{}, fmt.Errorf("frame: %w", err)
	}
	return f, nil
}
