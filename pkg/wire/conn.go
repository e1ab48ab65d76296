// SPDX-License-Identifier: Apache-2.0

// Package wire carries typed, length-bounded messages and descriptors between
// the keeper and the gateway over one Unix SEQPACKET socket. Neither side
// parses strings of the other: every field has a fixed kind and a limit, and a
// message that breaks one is an error, never a guess.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/passfd"
)

// Limits of one packet. A message that needs more is split by its sender or
// goes through a sealed memory file.
const (
	MaxPayload = 60 << 10
	MaxFDs     = 40
	headerLen  = 16
	magic      = 0x5246 // "RF"
)

// Type names a message. The zero value is invalid.
type Type uint8

// Message is one packet. ID pairs a reply with its request; the receiver owns
// the descriptors in FDs.
type Message struct {
	Type    Type
	Reply   bool
	Failed  bool // Reply only: Payload is an encoded Failure
	ID      uint64
	Payload []byte
	FDs     []*os.File
}

// Conn is one end of the socket. Send is safe for concurrent use, Recv is not.
type Conn struct {
	c        *net.UnixConn
	patience time.Duration // SendPatience
	mu       sync.Mutex    // serialises senders: one packet, one sendmsg
}

// Pair makes a connected pair of SEQPACKET sockets. The second end is returned
// as a file to be inherited by a child.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	here := os.NewFile(uintptr(fds[0]), "wire")
	there := os.NewFile(uintptr(fds[1]), "wire-peer")
	conn, err := FromFile(here)
	if err != nil {
		there.Close()
		return nil, nil, err
	}
	return conn, there, nil
}

// FromFile makes a Conn of an inherited descriptor and closes f.
func FromFile(f *os.File) (*Conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("wire: not a unix socket")
	}
	return FromUnix(uc), nil
}

// FromUnix wraps an accepted or dialled SEQPACKET connection.
func FromUnix(c *net.UnixConn) *Conn { return &Conn{c: c, patience: SendPatience} }

// Close closes the socket; a blocked Recv returns.
func (c *Conn) Close() error { return c.c.Close() }

// Send writes one message. It does not close m.FDs.
func (c *Conn) Send(m Message) error {
	if len(m.Payload) > MaxPayload {
		return fmt.Errorf("wire: message %d of %d bytes exceeds %d", m.Type, len(m.Payload), MaxPayload)
	}
	if len(m.FDs) > MaxFDs {
		return fmt.Errorf("wire: %d descriptors exceed %d", len(m.FDs), MaxFDs)
	}
	buf := make([]byte, headerLen+len(m.Payload))
	binary.LittleEndian.PutUint16(buf[0:], magic)
	buf[2] = byte(m.Type)
	buf[3] = flags(m)
	binary.LittleEndian.PutUint32(buf[4:], uint32(len(m.Payload)))
	binary.LittleEndian.PutUint64(buf[8:], m.ID)
	copy(buf[headerLen:], m.Payload)
	var oob []byte
	if len(m.FDs) > 0 {
		ints := make([]int, len(m.FDs))
		for i, f := range m.FDs {
			n, err := rawFD(f)
			if err != nil {
				return err
			}
			ints[i] = n
		}
		oob = unix.UnixRights(ints...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.c.SetWriteDeadline(time.Now().Add(c.patience))
	if err == nil {
		_, _, err = c.c.WriteMsgUnix(buf, oob, nil)
	}
	runtime.KeepAlive(m.FDs)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.c.Close() // nothing may wait behind a peer that does not read
		}
		return fmt.Errorf("wire: send: %w", err)
	}
	return nil
}

// SendPatience is how long a peer may leave its end of the socket full. Then
// the connection is closed: a peer that stopped reading must not hold whoever
// has something to tell it.
const SendPatience = 20 * time.Second

// rawFD is f.Fd() without its side effect on the blocking mode, which all
// holders of a socket share: a listener that a running gateway accepts on must
// stay non-blocking.
func rawFD(f *os.File) (int, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("wire: descriptor of %s: %w", f.Name(), err)
	}
	n := -1
	if err := rc.Control(func(fd uintptr) { n = int(fd) }); err != nil {
		return -1, fmt.Errorf("wire: descriptor of %s: %w", f.Name(), err)
	}
	return n, nil
}

func flags(m Message) byte {
	var f byte
	if m.Reply {
		f |= 1
	}
	if m.Failed {
		f |= 2
	}
	return f
}

// Recv reads one message; io.EOF when the peer is gone. A malformed packet is
// an error of kind *ProtocolError: the peer is broken or hostile.
func (c *Conn) Recv(buf []byte) (Message, error) {
	oob := make([]byte, unix.CmsgSpace(MaxFDs*4))
	n, oobn, rflags, _, err := c.c.ReadMsgUnix(buf, oob)
	if err != nil {
		return Message{}, err
	}
	fds, fdErr := takeFDs(oob[:oobn])
	if n == 0 && oobn == 0 {
		return Message{}, io.EOF
	}
	m, err := decodeHeader(buf[:n])
	if err == nil {
		err = fdErr
	}
	if err == nil && rflags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = &ProtocolError{"packet truncated"}
	}
	if err != nil {
		CloseAll(fds)
		return Message{}, err
	}
	m.FDs = fds
	return m, nil
}

// BufferLen is the length a Recv buffer must have.
const BufferLen = headerLen + MaxPayload

func decodeHeader(b []byte) (Message, error) {
	if len(b) < headerLen {
		return Message{}, &ProtocolError{fmt.Sprintf("packet of %d bytes is shorter than its header", len(b))}
	}
	if binary.LittleEndian.Uint16(b) != magic {
		return Message{}, &ProtocolError{"wrong magic number"}
	}
	if n := binary.LittleEndian.Uint32(b[4:]); int(n) != len(b)-headerLen || n > MaxPayload {
		return Message{}, &ProtocolError{fmt.Sprintf("length field %d does not match packet of %d", n, len(b))}
	}
	if b[2] == 0 || b[3]&^3 != 0 || b[3] == 2 {
		return Message{}, &ProtocolError{"invalid type or flags"}
	}
	m := Message{Type: Type(b[2]), Reply: b[3]&1 != 0, Failed: b[3]&2 != 0, ID: binary.LittleEndian.Uint64(b[8:])}
	m.Payload = append([]byte(nil), b[headerLen:]...)
	return m, nil
}

// takeFDs owns what came, also with an error: then nothing stays open.
func takeFDs(oob []byte) ([]*os.File, error) {
	fds, err := passfd.Parse(oob)
	files := make([]*os.File, 0, len(fds))
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		files = append(files, os.NewFile(uintptr(fd), "passed"))
	}
	if err != nil {
		CloseAll(files)
		return nil, &ProtocolError{err.Error()}
	}
	return files, nil
}

// CloseAll closes files, ignoring errors; nil entries are skipped.
func CloseAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// ProtocolError says that the peer broke the framing or a bound.
type ProtocolError struct{ Msg string }

func (e *ProtocolError) Error() string { return "wire: protocol error: " + e.Msg }
