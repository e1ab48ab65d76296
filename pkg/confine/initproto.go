// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/passfd"
)

// FrameType says what a frame means. The zero value is invalid.
//
// Conversation on init's control socket (descriptor 3, SEQPACKET):
//
//	keeper -> init   Spec (payload Spec, descriptors)
//	init -> keeper   Ready, or Failed{125}
//	keeper -> init   Go
//	init -> keeper   Started{pid}, or Failed{125,126,127}
//	keeper -> init   Signal{n} | Exec{seq} (payload Spec, descriptors), any number
//	init -> keeper   Started{seq} | Failed{seq} | Exited{seq}, for each Exec
//	init -> keeper   Exited{0, status}, then end of file
//
// On a status socket (towards the command line tool): PtyMaster with the
// descriptor if a terminal was asked for, Started or Failed, Exited; the tool
// may send Signal. Both readers must treat the other side as hostile: init
// shares its fate with the agent.
type FrameType uint8

const (
	FrameSpec      FrameType = 1  // Status = payload length in all
	FrameGo        FrameType = 2  // start the agent
	FrameSignal    FrameType = 3  // Status = signal number, Seq = which process (0 = the agent)
	FrameExec      FrameType = 4  // like Spec: Argv, Env, Dir, TTY, stdio and status; Seq != 0
	FrameReady     FrameType = 10 // walls are up; Status = Landlock ABI in force; payload = what came of the probes
	FrameStarted   FrameType = 11 // Pid as seen inside
	FrameExited    FrameType = 12 // Status = exit code or 128+signal; Code = signal
	FrameFailed    FrameType = 13 // Status = 125, 126 or 127; Errno; payload = why
	FramePtyMaster FrameType = 14 // one descriptor: the master side
	frameChunk     FrameType = 20 // continuation of a payload
)

// FrameSize is the fixed size of a frame on the wire.
const FrameSize = 64

// Limits of one logical message; a peer that goes over them gets [ErrFrame].
const (
	MaxPayload  = 4 << 20
	MaxFDs      = 240
	chunkSize   = 32 << 10
	maxTextSize = 1 << 10
)

// ErrFrame is wrapped by every error about a malformed message.
var ErrFrame = errors.New("confine: malformed frame")

// Frame is one message header. Text holds at most 40 bytes.
type Frame struct {
	Type   FrameType
	Code   uint8
	Errno  int32
	Pid    int32
	Status int32
	Seq    uint32
	Text   string
}

// AppendBinary appends the 64 bytes of f.
func (f Frame) AppendBinary(b []byte) []byte {
	var w [FrameSize]byte
	w[0], w[1] = byte(f.Type), f.Code
	binary.LittleEndian.PutUint32(w[4:], uint32(f.Errno))
	binary.LittleEndian.PutUint32(w[8:], uint32(f.Pid))
	binary.LittleEndian.PutUint32(w[12:], uint32(f.Status))
	binary.LittleEndian.PutUint32(w[16:], f.Seq)
	copy(w[24:], f.Text)
	return append(b, w[:]...)
}

// DecodeFrame reads the first 64 bytes of b.
func DecodeFrame(b []byte) (Frame, error) {
	if len(b) < FrameSize {
		return Frame{}, fmt.Errorf("%w: %d bytes", ErrFrame, len(b))
	}
	f := Frame{
		Type:   FrameType(b[0]),
		Code:   b[1],
		Errno:  int32(binary.LittleEndian.Uint32(b[4:])),
		Pid:    int32(binary.LittleEndian.Uint32(b[8:])),
		Status: int32(binary.LittleEndian.Uint32(b[12:])),
		Seq:    binary.LittleEndian.Uint32(b[16:]),
	}
	text := string(b[24:FrameSize])
	if i := strings.IndexByte(text, 0); i >= 0 {
		text = text[:i]
	}
	f.Text = text
	if f.Type == 0 {
		return Frame{}, fmt.Errorf("%w: type 0", ErrFrame)
	}
	return f, nil
}

// Message is a frame with what came along. The receiver owns FDs.
type Message struct {
	Frame
	Payload []byte
	FDs     []*os.File
}

// Reason is the text of a Failed message, for people. It may have been written
// by a hostile process: escape it before a terminal sees it.
func (m *Message) Reason() string {
	s := string(m.Payload)
	if s == "" {
		s = m.Text
	}
	if s == "" && m.Errno != 0 {
		s = syscall.Errno(m.Errno).Error()
	}
	return s
}

// Close closes the descriptors that came with the message. Those of a hostile
// sender may hold it up for as long as that likes: a socket that lingers, or
// another that holds one in its queue, waits in close(2).
func (m *Message) Close() {
	for _, f := range m.FDs {
		f.Close()
	}
	m.FDs = nil
}

// Conn is one end of a SEQPACKET socket pair. Send and Recv may run at the
// same time, but each only from one goroutine.
type Conn struct {
	f *os.File
	// Recv's own: what arrived last.
	packet, oob []byte
}

// NewConn takes over fd, a unix SEQPACKET socket, and makes it non-blocking
// and close-on-exec.
func NewConn(fd int) (*Conn, error) {
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("confine: control socket: %w", err)
	}
	return &Conn{f: os.NewFile(uintptr(fd), "control")}, nil
}

// Pair makes a connected pair: a Conn for this process and a file for the
// other one.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("confine: socketpair: %w", err)
	}
	c, err := NewConn(fds[0])
	if err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, err
	}
	return c, os.NewFile(uintptr(fds[1]), "control-peer"), nil
}

// Close closes the socket; a Recv in progress returns.
func (c *Conn) Close() error { return c.f.Close() }

// SetDeadline bounds Send and Recv in progress and to come.
func (c *Conn) SetDeadline(t time.Time) error { return c.f.SetDeadline(t) }

// SetWriteDeadline bounds Send alone, so that a peer that does not read cannot
// hold the sender.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.f.SetWriteDeadline(t) }

// SyscallConn gives access to the socket, for example for pidfd or SO_PEERCRED
// look-ups.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.f.SyscallConn() }

// RefuseDescriptors makes the kernel refuse descriptors that the other side
// sends (SO_PASSRIGHTS, Linux 6.16). Before that they arrive; see
// [Message.Close].
func (c *Conn) RefuseDescriptors() error {
	rc, err := c.f.SyscallConn()
	if err != nil {
		return fmt.Errorf("confine: control socket: %w", err)
	}
	var serr error
	if err := rc.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0) }); err != nil {
		return fmt.Errorf("confine: control socket: %w", err)
	}
	if serr != nil && !errors.Is(serr, unix.ENOPROTOOPT) {
		return fmt.Errorf("confine: control socket: refuse descriptors: %w", serr)
	}
	return nil
}

// Send writes one message. Descriptors stay with the caller.
func (c *Conn) Send(f Frame, payload []byte, fds ...*os.File) error {
	if len(payload) > MaxPayload || len(fds) > MaxFDs {
		return fmt.Errorf("%w: %d bytes, %d descriptors", ErrFrame, len(payload), len(fds))
	}
	if f.Type == FrameSpec || f.Type == FrameExec {
		f.Status = int32(len(payload))
	}
	var rights []byte
	if len(fds) > 0 {
		raw := make([]int, len(fds))
		for i, f := range fds {
			var err error
			if raw[i], err = rawFD(f); err != nil {
				return err
			}
		}
		rights = unix.UnixRights(raw...)
	}
	for {
		n := min(len(payload), chunkSize)
		packet := append(f.AppendBinary(nil), payload[:n]...)
		if err := c.sendmsg(packet, rights); err != nil {
			return err
		}
		if payload = payload[n:]; len(payload) == 0 {
			return nil
		}
		f, rights = Frame{Type: frameChunk, Seq: f.Seq}, nil
	}
}

// rawFD is f.Fd() without its side effect on the blocking mode, which the
// descriptor's other holders share.
func rawFD(f *os.File) (int, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("confine: descriptor of %s: %w", f.Name(), err)
	}
	n := -1
	if err := rc.Control(func(fd uintptr) { n = int(fd) }); err != nil {
		return -1, fmt.Errorf("confine: descriptor of %s: %w", f.Name(), err)
	}
	return n, nil
}

func (c *Conn) sendmsg(packet, rights []byte) error {
	rc, err := c.f.SyscallConn()
	if err != nil {
		return fmt.Errorf("confine: send: %w", err)
	}
	var serr error
	err = rc.Write(func(fd uintptr) bool {
		for {
			_, serr = unix.SendmsgN(int(fd), packet, rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			if serr != unix.EINTR {
				return serr != unix.EAGAIN
			}
		}
	})
	if err == nil {
		err = serr
	}
	if err != nil {
		return fmt.Errorf("confine: send: %w", err)
	}
	return nil
}

// Recv reads one message. It returns io.EOF when the peer has gone.
func (c *Conn) Recv() (*Message, error) {
	m, err := c.recvFirst()
	if err != nil {
		return nil, err
	}
	if m.Type != FrameSpec && m.Type != FrameExec {
		return m, nil
	}
	if err := c.recvRest(m); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// RecvReport is Recv for words of init, which are one packet each: what claims
// to be longer is malformed at once, and nothing is kept for the rest of it.
func (c *Conn) RecvReport() (*Message, error) {
	m, err := c.recvFirst()
	if err != nil {
		return nil, err
	}
	if m.Type == FrameSpec || m.Type == FrameExec {
		go m.Close()
		return nil, fmt.Errorf("%w: a specification where a report was expected", ErrFrame)
	}
	return m, nil
}

// recvFirst reads the first packet of a message; only a specification has more.
func (c *Conn) recvFirst() (*Message, error) {
	m := &Message{}
	packet, fds, err := c.recvmsg()
	m.FDs = fds
	if err == nil {
		m.Frame, err = DecodeFrame(packet)
	}
	if err == nil && m.Type != FrameSpec && m.Type != FrameExec && len(packet)-FrameSize > maxTextSize {
		err = fmt.Errorf("%w: %d bytes with type %d", ErrFrame, len(packet)-FrameSize, m.Type)
	}
	if err != nil {
		go m.Close() // whoever sent this may draw it out
		return nil, err
	}
	m.Payload = append([]byte(nil), packet[FrameSize:]...)
	return m, nil
}

func (c *Conn) recvRest(m *Message) error {
	want := int(m.Status)
	if want < 0 || want > MaxPayload {
		return fmt.Errorf("%w: payload of %d bytes", ErrFrame, want)
	}
	m.Payload = append(make([]byte, 0, max(want, len(m.Payload))), m.Payload...)
	for len(m.Payload) < want {
		packet, fds, err := c.recvmsg()
		m.FDs = append(m.FDs, fds...)
		if err != nil {
			return err
		}
		f, err := DecodeFrame(packet)
		if err != nil {
			return err
		}
		if f.Type != frameChunk || len(packet) == FrameSize || len(m.FDs) > MaxFDs {
			return fmt.Errorf("%w: broken continuation", ErrFrame)
		}
		m.Payload = append(m.Payload, packet[FrameSize:]...)
	}
	if len(m.Payload) != want {
		return fmt.Errorf("%w: payload longer than announced", ErrFrame)
	}
	return nil
}

// recvmsg returns one packet, which is valid until the next call.
func (c *Conn) recvmsg() ([]byte, []*os.File, error) {
	rc, err := c.f.SyscallConn()
	if err != nil {
		return nil, nil, fmt.Errorf("confine: receive: %w", err)
	}
	if c.packet == nil {
		c.packet, c.oob = make([]byte, FrameSize+chunkSize), make([]byte, unix.CmsgSpace(4*253))
	}
	packet, oob := c.packet, c.oob
	var n, oobn, flags int
	var rerr error
	err = rc.Read(func(fd uintptr) bool {
		for {
			n, oobn, flags, _, rerr = unix.Recvmsg(int(fd), packet, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
			if rerr != unix.EINTR {
				return rerr != unix.EAGAIN
			}
		}
	})
	if err == nil {
		err = rerr
	}
	if err != nil {
		if errors.Is(err, unix.ECONNRESET) {
			err = io.EOF
		}
		return nil, nil, fmt.Errorf("confine: receive: %w", err)
	}
	fds, err := receivedFiles(oob[:oobn])
	if err != nil {
		return nil, fds, err
	}
	if n == 0 {
		return nil, fds, io.EOF
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return nil, fds, fmt.Errorf("%w: truncated packet", ErrFrame)
	}
	return packet[:n], fds, nil
}

func receivedFiles(oob []byte) ([]*os.File, error) {
	fds, err := passfd.Parse(oob)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrFrame, err)
	}
	files := make([]*os.File, 0, len(fds))
	for _, fd := range fds {
		files = append(files, os.NewFile(uintptr(fd), "received"))
	}
	return files, err
}
