// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair returns two connected ends.
func pair(t testing.TB) (a, b *Conn) {
	t.Helper()
	a, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if b, err = FromFile(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// raw sends one packet as a hostile process would.
func raw(t testing.TB, c *Conn, packet []byte, fds ...int) {
	t.Helper()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := c.c.WriteMsgUnix(packet, oob, nil); err != nil {
		t.Fatal(err)
	}
}

func header(typ, flags byte, length uint32, id uint64) []byte {
	b := make([]byte, headerLen)
	binary.LittleEndian.PutUint16(b, magic)
	b[2], b[3] = typ, flags
	binary.LittleEndian.PutUint32(b[4:], length)
	binary.LittleEndian.PutUint64(b[8:], id)
	return b
}

// openFDs counts the descriptors of this process.
func openFDs(t testing.TB) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

func TestMessagesArriveAsSent(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	big := bytes.Repeat([]byte{7}, MaxPayload)
	for _, m := range []Message{
		{Type: 1, ID: 1}, {Type: 2, ID: ^uint64(0), Reply: true}, {Type: 255, Reply: true, Failed: true, ID: 9, Payload: []byte("x")},
		{Type: 3, ID: 4, Payload: big}, {Type: 4, Payload: []byte("fds"), FDs: []*os.File{w, w}},
	} {
		if err := a.Send(m); err != nil {
			t.Fatal(err)
		}
		got, err := b.Recv(make([]byte, BufferLen))
		if err != nil {
			t.Fatal(err)
		}
		if got.Type != m.Type || got.ID != m.ID || got.Reply != m.Reply || got.Failed != m.Failed || !bytes.Equal(got.Payload, m.Payload) || len(got.FDs) != len(m.FDs) {
			t.Errorf("sent %+v, got type %d id %d %d bytes %d fds", m.Type, got.Type, got.ID, len(got.Payload), len(got.FDs))
		}
		CloseAll(got.FDs)
	}
	w.Close()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a received descriptor is still open: %v", err)
	}
}

func TestOversizedMessagesAreNotSent(t *testing.T) {
	a, _ := pair(t)
	if err := a.Send(Message{Type: 1, Payload: make([]byte, MaxPayload+1)}); err == nil {
		t.Error("a payload over the limit was sent")
	}
	if err := a.Send(Message{Type: 1, FDs: make([]*os.File, MaxFDs+1)}); err == nil {
		t.Error("too many descriptors were sent")
	}
}

// Each of these ends the connection with a protocol error, leaks no
// descriptor, and never comes out as a message.
func TestHostilePacketsAreRefused(t *testing.T) {
	devnull, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(devnull)
	many := func(n int) []int {
		out := make([]int, n)
		for i := range out {
			out[i] = devnull
		}
		return out
	}
	wrongMagic := header(1, 0, 0, 1)
	wrongMagic[0] = 0
	for _, c := range []struct {
		name   string
		packet []byte
		fds    []int
	}{
		{"one byte", []byte{0x46}, nil},
		{"half a header", header(1, 0, 0, 1)[:headerLen-1], nil},
		{"wrong magic", wrongMagic, nil},
		{"type zero", header(0, 0, 0, 1), nil},
		{"unknown flag", header(1, 4, 0, 1), nil},
		{"a failed request", header(1, 2, 0, 1), nil},
		{"length too small", append(header(1, 0, 0, 1), 'x'), nil},
		{"length too large", header(1, 0, 1, 1), nil},
		{"length near 2^32", header(1, 0, ^uint32(0), 1), nil},
		{"payload over the limit", append(header(1, 0, MaxPayload+1, 1), make([]byte, MaxPayload+1)...), nil},
		{"garbage with descriptors", []byte("garbage garbage garbage"), many(3)},
		{"more descriptors than allowed", header(1, 0, 0, 1), many(MaxFDs + 1)},
		{"253 descriptors", header(1, 0, 0, 1), many(253)},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := pair(t)
			before := openFDs(t)
			raw(t, a, c.packet, c.fds...)
			_, err := b.Recv(make([]byte, BufferLen))
			if pe := (*ProtocolError)(nil); !errors.As(err, &pe) {
				t.Errorf("got %v, want a protocol error", err)
			}
			if n := openFDs(t); n != before {
				t.Errorf("%d descriptors are left open", n-before)
			}
		})
	}
	t.Run("control: a well-formed one is taken", func(t *testing.T) {
		a, b := pair(t)
		raw(t, a, header(1, 0, 0, 1), many(MaxFDs)...)
		m, err := b.Recv(make([]byte, BufferLen))
		if err != nil || len(m.FDs) != MaxFDs {
			t.Fatalf("%v, %d descriptors", err, len(m.FDs))
		}
		CloseAll(m.FDs)
	})
	t.Run("an empty packet is the end", func(t *testing.T) {
		a, b := pair(t)
		raw(t, a, nil)
		if _, err := b.Recv(make([]byte, BufferLen)); !errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
	})
}

// The keeper hands out listeners that a running gateway accepts on.
func TestSendingAListenerLeavesItNonBlocking(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, b := pair(t)
	there := f
	for range 3 { // sent, received, sent on
		if err := a.Send(Message{Type: 1, FDs: []*os.File{there}}); err != nil {
			t.Fatal(err)
		}
		m, err := b.Recv(make([]byte, BufferLen))
		if err != nil {
			t.Fatal(err)
		}
		defer CloseAll(m.FDs)
		there = m.FDs[0]
	}
	rc, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := rc.Control(func(fd uintptr) {
		flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("flags %#x, %v: the listener is blocking now", flags, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

func TestSealedFilesCannotBeChanged(t *testing.T) {
	f, err := Seal("t", []byte("policy"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("a sealed file was written")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("a sealed file was truncated")
	}
	if b, err := ReadSealed(f); err != nil || string(b) != "policy" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestOnlySealedFilesAreRead(t *testing.T) {
	open, err := os.CreateTemp(t.TempDir(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for name, f := range map[string]*os.File{"an ordinary file": open, "a pipe": r} {
		if _, err := ReadSealed(f); err == nil || !strings.Contains(err.Error(), "sealed") {
			t.Errorf("%s was read: %v", name, err)
		}
	}
}

func TestAPeerThatDoesNotReadIsGivenUp(t *testing.T) {
	a, _ := pair(t)
	a.patience = 100 * time.Millisecond
	payload := make([]byte, MaxPayload)
	began := time.Now()
	for {
		err := a.Send(Message{Type: 1, Payload: payload})
		if err == nil {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		break
	}
	if d := time.Since(began); d < a.patience/2 {
		t.Errorf("given up after %s", d)
	}
	if err := a.Send(Message{Type: 1}); err == nil {
		t.Error("the connection is still used")
	}
}
