// SPDX-License-Identifier: Apache-2.0

// This file is laid over cmd/ringfence-init for a test build: an init that an
// agent took over. It stands behind the same walls as any other, with the same
// descriptors, and attacks as the variable TAKENOVER says once the agent runs.
// Without the variable it is honest.
package main

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/confine"
	"golang.org/x/sys/unix"
)

func init() {
	if os.Getpid() == 1 && len(os.Args) == 3 && os.Args[1] == "guard" {
		os.Exit(takenOver(os.Args[2]))
	}
}

// attack is one way to misbehave. With early it comes instead of the word that
// the agent was started; what it returns is init's own exit status, -1 to go
// on as an honest one.
type attack struct {
	early bool
	run   func(h *hostile) int
}

// hostile is what a taken-over init has: two sockets.
type hostile struct {
	g              *guard
	keeper, status int
}

func takenOver(arg string) int {
	fd := 0
	for _, c := range arg {
		fd = fd*10 + int(c-'0')
	}
	spec, err := readSpecAgain(fd)
	if err != nil {
		return exitSetup
	}
	a, ok := attacks[variable(spec.Env, "TAKENOVER")]
	if !ok {
		return guardMain(arg)
	}
	defaultSignals()
	conn, err := confine.NewConn(controlFD)
	if err != nil {
		return exitSetup
	}
	g, err := newGuard(conn, spec)
	if err == nil {
		err = lock(spec)
	}
	if err == nil {
		g.probes, err = tryWalls()
	}
	if err == nil {
		err = g.ready()
	}
	if err != nil {
		sendFailure(conn, 0, exitSetup, err)
		return exitSetup
	}
	h := &hostile{g: g, keeper: controlFD, status: spec.StatusFD}
	if m, err := conn.Recv(); err != nil || m.Type != confine.FrameGo {
		return exitSetup
	}
	return h.begin(a)
}

// readSpecAgain leaves the descriptor open for guardMain.
func readSpecAgain(fd int) (*confine.Spec, error) {
	again, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return readSpec(again)
}

func variable(env []string, name string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

func (h *hostile) begin(a attack) int {
	files := map[int]*os.File{}
	for _, fd := range h.g.spec.StdioFDs {
		if fd >= 0 {
			files[fd] = os.NewFile(uintptr(fd), "stdio")
		}
	}
	keeper, status := h.g.keeper, h.g.agent.status
	if a.early { // nobody is told that the agent was started
		h.g.keeper, h.g.agent.status = nil, nil
	}
	if code, err := h.g.start(h.g.agent, h.g.spec, files); err != nil {
		h.g.fail(h.g.agent, code, err)
		return int(code)
	}
	h.g.keeper, h.g.agent.status = keeper, status
	time.Sleep(200 * time.Millisecond) // the agent and the tool get somewhere
	if code := a.run(h); code >= 0 {
		return code
	}
	for { // an honest end
		if ws, done := h.g.reap(0); done {
			return h.g.end(ws)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// packet sends raw bytes and waits for room.
func packet(fd int, b []byte, fds ...int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(fd, b, rights, nil, unix.MSG_NOSIGNAL)
		if err != unix.EAGAIN && err != unix.EINTR {
			return err
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 100)
	}
}

func frame(f confine.Frame, more ...byte) []byte { return append(f.AppendBinary(nil), more...) }

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// say makes an attack of packets, on the keeper's socket or on the tool's.
func say(tool bool, packets ...[]byte) attack {
	return attack{run: func(h *hostile) int {
		fd := h.keeper
		if tool {
			fd = h.status
		}
		for _, p := range packets {
			_ = packet(fd, p) // the other side may have gone
		}
		return -1
	}}
}

var attacks = map[string]attack{
	"garbage":       say(false, noise(5000)),
	"short":         say(false, []byte{1, 2, 3}),
	"empty":         say(false, nil),
	"oversized":     say(false, append(frame(confine.Frame{Type: confine.FrameExited, Seq: 1}), noise(120<<10)...)),
	"long text":     say(false, frame(confine.Frame{Type: confine.FrameFailed, Seq: 1}, noise(4000)...)),
	"unfinished":    say(false, frame(confine.Frame{Type: confine.FrameExec, Status: confine.MaxPayload, Seq: 1}, noise(100)...)),
	"huge":          say(false, frame(confine.Frame{Type: confine.FrameSpec, Status: 1<<31 - 1})),
	"continuation":  say(false, frame(confine.Frame{Type: 20, Seq: 1}, noise(500)...)),
	"unknown":       say(false, frame(confine.Frame{Type: 200})),
	"keeper's word": say(false, frame(confine.Frame{Type: confine.FrameGo})),
	"ready again":   say(false, frame(confine.Frame{Type: confine.FrameReady})),
	"started again": say(false, frame(confine.Frame{Type: confine.FrameStarted, Pid: 2})),
	"failed late":   say(false, frame(confine.Frame{Type: confine.FrameFailed, Status: 127}, []byte("\x1b[2Jnot found")...)),
	"two ends":      say(false, frame(confine.Frame{Type: confine.FrameExited, Status: 0}), frame(confine.Frame{Type: confine.FrameExited, Status: 9})),
	"end of -1":     say(false, frame(confine.Frame{Type: confine.FrameExited, Status: -1})),
	"end of 2^31-1": say(false, frame(confine.Frame{Type: confine.FrameExited, Status: 1<<31 - 1})),
	"descriptors":   {run: descriptors},
	"lingering":     {run: func(h *hostile) int { return lingering(h.keeper) }},
	"flood":         {run: flood},
	"closed":        {run: func(h *hostile) int { h.g.keeper.Close(); h.g.keeper = nil; return -1 }},
	"deaf":          {run: func(*hostile) int { return -1 }}, // it reads nothing from here on
	"handed on":     {run: handOn},
	"to the next":   {run: toTheNext},

	"no start":     {early: true, run: func(h *hostile) int { _ = packet(h.keeper, noise(5000)); return -1 }},
	"silent start": {early: true, run: func(*hostile) int { time.Sleep(time.Hour); return -1 }},
	"false start": {early: true, run: func(h *hostile) int {
		_ = packet(h.keeper, frame(confine.Frame{Type: confine.FrameFailed, Status: 127}, []byte("\x1b]0;x\x07no such command")...))
		return -1
	}},

	"tool garbage":    say(true, noise(5000)),
	"tool empty":      say(true, nil),
	"tool oversized":  say(true, append(frame(confine.Frame{Type: confine.FrameExited}), noise(120<<10)...)),
	"tool unfinished": say(true, frame(confine.Frame{Type: confine.FrameExec, Status: confine.MaxPayload, Seq: 1}, noise(100)...)),
	"tool unknown":    say(true, frame(confine.Frame{Type: 200}), frame(confine.Frame{Type: confine.FrameGo})),
	"tool terminal":   {run: terminals},
	"tool lingering":  {run: func(h *hostile) int { return lingering(h.status) }},
	"tool escapes":    say(true, frame(confine.Frame{Type: confine.FrameFailed, Status: 126}, []byte("\x1b[2J\x1b]0;x\x07not executable\n")...)),
	"tool flood":      {run: toolFlood},
	"tool end of 999": say(true, frame(confine.Frame{Type: confine.FrameExited, Status: 999})),
	"tool end of -7":  say(true, frame(confine.Frame{Type: confine.FrameExited, Status: -7})),
	"tool two ends":   say(true, frame(confine.Frame{Type: confine.FrameExited, Status: 4}), frame(confine.Frame{Type: confine.FrameExited, Status: 5})),
	"tool closed":     {run: func(h *hostile) int { h.g.agent.status.Close(); h.g.agent.status = nil; return -1 }},
}

// descriptors sends as many as one message takes, with frames that say nothing
// wrong otherwise.
func descriptors(h *hostile) int {
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return exitSetup
	}
	many := make([]int, 250)
	for i := range many {
		many[i] = null
	}
	for range 50 {
		_ = packet(h.keeper, frame(confine.Frame{Type: confine.FrameExited, Seq: 9}), many...)
	}
	return -1
}

// lingering sends connections whose closing would wait for ever, both ends of
// each: one has data that the other never takes, and has been told to linger.
// They lie in the queue of a unix socket, so that nobody else has them and
// nobody finds them before it closes that.
func lingering(fd int) int {
	hide, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return exitSetup
	}
	for i := range 20 {
		a, b, err := connected()
		if err != nil {
			return exitSetup
		}
		_ = unix.SetNonblock(a, true)
		for full := noise(64 << 10); ; {
			if _, err := unix.Write(a, full); err != nil {
				break
			}
		}
		_ = unix.SetNonblock(a, false)
		_ = unix.SetsockoptLinger(a, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 1 << 30})
		both := []int{a, b} // whichever the kernel closes first
		if i%2 == 1 {
			both = []int{b, a}
		}
		if err := packet(hide[0], []byte{1}, both...); err != nil {
			return exitSetup
		}
		unix.Close(b)
		unix.Close(a)
	}
	_ = packet(fd, frame(confine.Frame{Type: confine.FrameStarted, Seq: 9}), hide[1])
	closed := make(chan struct{})
	go func() { // it waits for ever if nobody took the other
		unix.Close(hide[1])
		unix.Close(hide[0])
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(200 * time.Millisecond):
	}
	return -1
}

func connected() (a, b int, err error) {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(l)
	if err := unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, 0, err
	}
	if err := unix.Listen(l, 1); err != nil {
		return 0, 0, err
	}
	sa, err := unix.Getsockname(l)
	if err != nil {
		return 0, 0, err
	}
	if a, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, 0, err
	}
	if err := unix.Connect(a, sa); err != nil {
		return 0, 0, err
	}
	b, _, err = unix.Accept4(l, unix.SOCK_CLOEXEC)
	return a, b, err
}

// flood answers what nobody asked.
func flood(h *hostile) int {
	for i := range 300_000 {
		f := confine.Frame{Type: confine.FrameStarted, Seq: uint32(i) + 1, Pid: int32(i)}
		if i%2 == 1 {
			f.Type = confine.FrameExited
		}
		if packet(h.keeper, frame(f)) != nil {
			break
		}
	}
	return -1
}

func toolFlood(h *hostile) int {
	var b [4]byte
	for i := range 300_000 {
		binary.LittleEndian.PutUint32(b[:], uint32(i))
		if packet(h.status, frame(confine.Frame{Type: confine.FrameStarted, Seq: uint32(i)}, b[:]...)) != nil {
			break
		}
	}
	return -1
}

// terminals sends the tool masters of terminals that it did not ask for, and
// things that are none.
func terminals(h *hostile) int {
	for range 50 {
		m, s, err := openPty(24, 80)
		if err != nil {
			return exitSetup
		}
		_ = packet(h.status, frame(confine.Frame{Type: confine.FramePtyMaster}), int(m.Fd()))
		_ = packet(h.status, frame(confine.Frame{Type: confine.FramePtyMaster}), int(s.Fd()), h.keeper, 0)
		m.Close()
		s.Close()
	}
	return -1
}

// handOn gives the socket to the keeper to another sandbox, which holds it.
func handOn(h *hostile) int {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return exitSetup
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: h.g.spec.Dir + "/holder"}); err != nil {
		return exitSetup
	}
	if err := packet(fd, []byte{1}, h.keeper); err != nil {
		return exitSetup
	}
	return -1
}

// toTheNext waits for another keeper.
func toTheNext(h *hostile) int {
	go func() {
		l := h.g.spec.ListenFD
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(l), Events: unix.POLLIN}}, -1)
		if fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC); err == nil {
			_ = packet(fd, noise(5000))
		}
	}()
	return -1
}
