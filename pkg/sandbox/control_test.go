// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/confine"
)

// hostileInit is the other end of a control socket, in the hands of an agent
// that took init over.
type hostileInit struct {
	t  *testing.T
	c  *control
	fd int
}

func newHostileInit(t *testing.T) *hostileInit {
	t.Helper()
	conn, f, err := confine.Pair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := dup(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	h := &hostileInit{t: t, c: newControl(conn), fd: fd}
	t.Cleanup(func() { conn.Close(); unix.Close(fd) })
	return h
}

// serve hears init out; what it sends is why that ended.
func (h *hostileInit) serve() <-chan error {
	why := make(chan error, 1)
	go func() { why <- h.c.serve() }()
	return why
}

func (h *hostileInit) send(packet []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(h.fd, packet, oob, nil, unix.MSG_NOSIGNAL)
}

func (h *hostileInit) frame(f confine.Frame) { _ = h.send(f.AppendBinary(nil)) }

func (h *hostileInit) ended() {
	h.t.Helper()
	select {
	case <-h.c.ended:
	case <-time.After(20 * time.Second):
		h.t.Fatal("the conversation goes on")
	}
}

func fdsOpen(t *testing.T) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

func TestHostileFramesEndTheConversation(t *testing.T) {
	frame := func(f confine.Frame, more string) []byte { return append(f.AppendBinary(nil), more...) }
	for name, packet := range map[string][]byte{
		"a short packet":           {1, 2, 3},
		"type zero":                make([]byte, confine.FrameSize),
		"a long text":              frame(confine.Frame{Type: confine.FrameFailed}, strings.Repeat("x", 4000)),
		"a payload of minus one":   frame(confine.Frame{Type: confine.FrameSpec, Status: -1}, ""),
		"a payload of 2 GB":        frame(confine.Frame{Type: confine.FrameExec, Status: 1<<31 - 1}, ""),
		"more than was announced":  frame(confine.Frame{Type: confine.FrameExec, Status: 1}, "xxxx"),
		"the largest packet there": frame(confine.Frame{Type: confine.FrameExited}, strings.Repeat("x", 60<<10)),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostileInit(t)
			go h.c.serve()
			if err := h.send(packet); err != nil {
				t.Fatal(err)
			}
			h.ended()
			if _, err := h.c.exec(context.Background(), &confine.Spec{Argv: []string{"x"}}, nil); err == nil {
				t.Error("exec after the end")
			}
		})
	}
}

// Where the kernel cannot refuse descriptors they arrive, are closed, and end
// the conversation.
func TestDescriptorsOfAHostileInitAreClosed(t *testing.T) {
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	many := make([]int, 250)
	for i := range many {
		many[i] = null
	}
	before := fdsOpen(t) + 1 // our end of the pair
	for _, f := range []confine.Frame{{Type: confine.FrameReady}, {Type: confine.FrameExited, Seq: 9}, {Type: confine.FramePtyMaster}, {Type: 200}} {
		h := newHostileInit(t)
		why := h.serve()
		if err := h.send(f.AppendBinary(nil), many...); err != nil {
			t.Fatal(err)
		}
		if err := <-why; !isHostile(err) || !strings.Contains(err.Error(), "descriptors") {
			t.Errorf("type %d: %v", f.Type, err)
		}
		unix.Close(h.fd)
		h.fd = -1
	}
	n := fdsOpen(t)
	for end := time.Now().Add(10 * time.Second); n > before && time.Now().Before(end); n = fdsOpen(t) {
		time.Sleep(time.Millisecond)
	}
	if n > before {
		t.Errorf("%d descriptors are left open", n-before)
	}
}

func TestTheKernelRefusesDescriptorsOfAHostileInit(t *testing.T) {
	h := newHostileInit(t)
	if err := h.c.conn.RefuseDescriptors(); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.GetsockoptInt(h.fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS); err != nil {
		t.Skipf("needs Linux 6.16: %v", err)
	}
	if err := h.send(confine.Frame{Type: confine.FrameExited, Seq: 9}.AppendBinary(nil), h.fd); !errors.Is(err, unix.EPERM) {
		t.Errorf("sent: %v", err)
	}
}

// What an init of this version never says once an agent runs.
func TestWordsOfATakenOverInit(t *testing.T) {
	exited := func(seq uint32, status int32) confine.Frame {
		return confine.Frame{Type: confine.FrameExited, Seq: seq, Status: status}
	}
	for name, frames := range map[string][]confine.Frame{
		"ready":               {{Type: confine.FrameReady}},
		"go":                  {{Type: confine.FrameGo}},
		"a signal":            {{Type: confine.FrameSignal, Seq: 4}},
		"a terminal":          {{Type: confine.FramePtyMaster, Seq: 4}},
		"a continuation":      {{Type: 20, Seq: 4}},
		"an unknown type":     {{Type: 99}},
		"started again":       {{Type: confine.FrameStarted}},
		"failed and runs":     {{Type: confine.FrameFailed, Status: 127}},
		"two ends":            {exited(0, 3), exited(0, 3)},
		"a negative status":   {exited(0, -1)},
		"a status of 256":     {exited(0, 256)},
		"an exec's bad one":   {exited(7, 1<<30)},
		"a specification":     {{Type: confine.FrameSpec}},
		"an exec of its own":  {{Type: confine.FrameExec, Seq: 1, Status: confine.MaxPayload}},
		"a payload of 2^31-1": {{Type: confine.FrameExec, Seq: 1, Status: 1<<31 - 1}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostileInit(t)
			why := h.serve()
			for _, f := range frames {
				h.frame(f)
			}
			if err := <-why; !isHostile(err) {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}

// A flood costs a bounded time: then the conversation is over.
func TestAFloodOfAnswers(t *testing.T) {
	h := newHostileInit(t)
	why := h.serve()
	sent := 0
	for i := range 100_000 {
		f := confine.Frame{Type: confine.FrameExited, Status: int32(i % 256), Seq: uint32(i%7) + 1}
		if i%2 == 0 {
			f.Type = confine.FrameStarted
		}
		if h.send(f.AppendBinary(nil)) != nil {
			break
		}
		sent++
	}
	if err := <-why; !isHostile(err) {
		t.Errorf("it ended with %v", err)
	}
	if sent < unasked || sent > 2*unasked {
		t.Errorf("%d answers that nobody asked for were read", sent)
	}
}

// An init that was asked before this keeper came may answer late, and one that
// is asked often answers often.
func TestAnswersOfAnHonestInit(t *testing.T) {
	h := newHostileInit(t)
	why := h.serve()
	h.c.mu.Lock()
	h.c.asked = unasked
	h.c.mu.Unlock()
	for i := range 3 * unasked {
		h.frame(confine.Frame{Type: confine.FrameExited, Seq: uint32(i) + 1, Status: 255})
	}
	h.frame(confine.Frame{Type: confine.FrameExited, Status: 137})
	unix.Shutdown(h.fd, unix.SHUT_RDWR)
	if err := <-why; !errors.Is(err, io.EOF) {
		t.Errorf("it ended with %v", err)
	}
	if code := <-h.c.exited; code != 137 {
		t.Errorf("status %d", code)
	}
}

func TestExecAgainstAHostileInit(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	spec := &confine.Spec{Argv: []string{"x"}}
	asked := func(h *hostileInit) uint32 {
		b := make([]byte, 64<<10)
		n, _, _, _, err := unix.Recvmsg(h.fd, b, nil, 0)
		if err != nil {
			return 0
		}
		f, err := confine.DecodeFrame(b[:n])
		if err != nil {
			return 0
		}
		return f.Seq
	}
	t.Run("answers of other numbers and types", func(t *testing.T) {
		h := newHostileInit(t)
		go h.c.serve()
		go func() {
			seq := asked(h)
			h.frame(confine.Frame{Type: confine.FrameStarted, Seq: seq + 1})
			h.frame(confine.Frame{Type: confine.FrameExited, Seq: seq}) // an end before the start
		}()
		if _, err := h.c.exec(ctx, spec, nil); err == nil {
			t.Error("an end was taken for a start")
		}
	})
	t.Run("terminal sequences in the reason", func(t *testing.T) {
		h := newHostileInit(t)
		go h.c.serve()
		go func() {
			_ = h.send(append(confine.Frame{Type: confine.FrameFailed, Status: 99, Seq: asked(h)}.AppendBinary(nil), "\x1b]0;evil\x07\r\n\x00\xff"+strings.Repeat("x", 900)...))
		}()
		_, err := h.c.exec(ctx, spec, nil)
		var le *LaunchError
		if !errors.As(err, &le) || le.Code != 125 {
			t.Fatalf("got %v", err)
		}
		if strings.ContainsAny(le.Error(), "\x1b\x07\r\n\x00") || len(le.Error()) > 600 {
			t.Errorf("the reason is %q", le.Error())
		}
	})
	t.Run("silence", func(t *testing.T) {
		h := newHostileInit(t)
		go h.c.serve()
		short, stop := context.WithTimeout(ctx, 100*time.Millisecond)
		defer stop()
		if _, err := h.c.exec(short, spec, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		h.c.mu.Lock()
		n := len(h.c.waiting)
		h.c.mu.Unlock()
		if n != 0 {
			t.Errorf("%d questions are still kept", n)
		}
	})
	t.Run("a thousand starts", func(t *testing.T) {
		h := newHostileInit(t)
		go h.c.serve()
		go func() {
			seq := asked(h)
			for range 1000 {
				h.frame(confine.Frame{Type: confine.FrameStarted, Seq: seq})
			}
			unix.Shutdown(h.fd, unix.SHUT_RDWR)
		}()
		p, err := h.c.exec(ctx, spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		if code, err := p.Wait(ctx); err != nil || code != 137 {
			t.Errorf("code %d, %v", code, err)
		}
	})
}

// A hostile init that says nothing ends the launch, not the keeper.
func TestExpectHasAnEnd(t *testing.T) {
	h := newHostileInit(t)
	if _, err := h.c.expect(context.Background(), confine.FrameReady, 50*time.Millisecond); err == nil {
		t.Error("silence was taken for an answer")
	}
	h = newHostileInit(t)
	h.frame(confine.Frame{Type: confine.FrameStarted})
	if _, err := h.c.expect(context.Background(), confine.FrameReady, 5*time.Second); err == nil {
		t.Error("another message was taken for the answer")
	}
	h = newHostileInit(t)
	h.frame(confine.Frame{Type: confine.FrameFailed, Status: 1 << 30, Text: "\x1b[2J"})
	_, err := h.c.expect(context.Background(), confine.FrameReady, 5*time.Second)
	var le *LaunchError
	if !errors.As(err, &le) || le.Code != 125 || strings.Contains(le.Error(), "\x1b") {
		t.Errorf("got %v", err)
	}
}

// Whatever init says, the reader of its words ends with it.
func FuzzControl(f *testing.F) {
	f.Add(confine.Frame{Type: confine.FrameExited, Status: 3}.AppendBinary(nil), []byte{})
	f.Add(confine.Frame{Type: confine.FrameExec, Status: 100, Seq: 1}.AppendBinary(nil), confine.Frame{Type: 20, Seq: 1}.AppendBinary(nil))
	f.Add([]byte{1}, []byte{})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		if len(one) > 30<<10 || len(two) > 30<<10 {
			t.Skip("larger than a packet")
		}
		h := newHostileInit(t)
		go h.c.serve()
		_ = h.send(one)
		_ = h.send(two)
		_ = unix.Shutdown(h.fd, unix.SHUT_RDWR)
		h.ended()
		select {
		case code := <-h.c.exited:
			if code != int(int32(code)) {
				t.Errorf("exit code %d", code)
			}
		default:
		}
	})
}
