// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"time"

	"github.com/ringfence/ringfence/pkg/confine"
	"golang.org/x/sys/unix"
)

// sendTimeout bounds every report: a reader that does not read must not stop
// the reaper.
const sendTimeout = 2 * time.Second

// process is one process that we were asked to start: the agent (seq 0) or an
// extra one of `ringfence exec`.
type process struct {
	seq    uint32
	pid    int
	status *confine.Conn // may be nil
}

// incoming is a message or the end of one connection.
type incoming struct {
	msg  *confine.Message // nil: the connection has ended
	from *confine.Conn
	proc *process // nil: from the keeper
}

// guard is the second run: the parent of everything in the sandbox. All fields
// belong to the goroutine of run.
type guard struct {
	keeper *confine.Conn // nil while there is none
	spec   *confine.Spec
	probes []confine.ProbeResult // for Ready
	agent  *process
	procs  map[int]*process
	in     chan incoming
	fresh  chan *confine.Conn // keepers that came back
	child  chan struct{}      // a child has ended and is not reaped yet
	reaped chan struct{}      // the answer
}

func newGuard(keeper *confine.Conn, spec *confine.Spec) (*guard, error) {
	g := &guard{
		keeper: keeper, spec: spec, procs: map[int]*process{}, in: make(chan incoming, 16),
		fresh: make(chan *confine.Conn), child: make(chan struct{}), reaped: make(chan struct{}),
	}
	g.agent = &process{}
	if spec.StatusFD >= 0 {
		status, err := confine.NewConn(spec.StatusFD)
		if err != nil {
			return nil, err
		}
		g.agent.status = status
	}
	return g, nil
}

// ready tells the keeper that the walls are up, and what came of the probes.
func (g *guard) ready() error {
	_ = g.keeper.SetWriteDeadline(time.Now().Add(sendTimeout))
	return g.keeper.Send(confine.Frame{Type: confine.FrameReady, Status: int32(g.spec.Landlock.MinABI)}, confine.AppendProbes(nil, g.probes))
}

// run returns init's exit status.
func (g *guard) run() int {
	if err := g.ready(); err != nil {
		return exitSetup
	}
	m, err := g.keeper.Recv()
	if err != nil || m.Type != confine.FrameGo {
		return exitSetup // no keeper, no agent
	}
	files := map[int]*os.File{}
	for _, fd := range g.spec.StdioFDs {
		if fd >= 0 {
			files[fd] = os.NewFile(uintptr(fd), "stdio")
		}
	}
	code, err := g.start(g.agent, g.spec, files)
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		g.fail(g.agent, code, err)
		return int(code)
	}
	go g.watch()
	go g.read(g.keeper, nil)
	if g.spec.ListenFD >= 0 {
		go g.accept(g.spec.ListenFD)
	}
	return g.loop()
}

func (g *guard) loop() int {
	for {
		select {
		case <-g.child:
			if ws, done := g.reap(unix.WNOHANG); done {
				return g.end(ws)
			}
			g.reaped <- struct{}{}
		case in := <-g.in:
			g.handle(in)
		case c := <-g.fresh:
			if g.keeper != nil {
				g.keeper.Close()
			}
			g.keeper = c
			go g.read(c, nil)
		}
	}
}

// watch tells of children that ended, until there is none: the agent was the
// last. It waits for them in a thread, for a handler of SIGCHLD would make init
// mortal; see defaultSignals.
func (g *guard) watch() {
	for {
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		g.child <- struct{}{}
		<-g.reaped
	}
}

// reap collects children until there is none, or none that has ended; it stops
// at the agent.
func (g *guard) reap(options int) (unix.WaitStatus, bool) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, options, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return 0, false
		}
		p := g.procs[pid]
		if p == nil {
			continue // an orphan
		}
		delete(g.procs, pid)
		if p == g.agent {
			return ws, true
		}
		g.exited(p, ws)
	}
}

// end kills what the agent left and reports its status. The kernel reaps: it
// lets PID 1 go only when its namespace is empty, so whoever waits for init
// knows that nothing runs any more.
func (g *guard) end(ws unix.WaitStatus) int {
	// ESRCH: nobody is left.
	_ = unix.Kill(-1, unix.SIGKILL)
	for _, p := range g.procs {
		g.exited(p, unix.WaitStatus(unix.SIGKILL))
	}
	g.exited(g.agent, ws)
	return int(exitCode(ws))
}

func exitCode(ws unix.WaitStatus) int32 {
	if ws.Signaled() {
		return 128 + int32(ws.Signal())
	}
	return int32(ws.ExitStatus())
}

func (g *guard) exited(p *process, ws unix.WaitStatus) {
	f := confine.Frame{Type: confine.FrameExited, Seq: p.seq, Pid: int32(p.pid), Status: exitCode(ws)}
	if ws.Signaled() {
		f.Code = uint8(ws.Signal())
	}
	g.send(p.status, f, nil)
	g.send(g.keeper, f, nil)
	if p.status != nil {
		p.status.Close()
	}
}

func (g *guard) fail(p *process, code int32, err error) {
	for _, c := range []*confine.Conn{p.status, g.keeper} {
		if c == nil {
			continue
		}
		_ = c.SetWriteDeadline(time.Now().Add(sendTimeout))
		sendFailure(c, p.seq, code, err)
	}
}

// send reports on c if there is one. A failure means that the reader has gone
// or does not read; the sandbox goes on either way.
func (g *guard) send(c *confine.Conn, f confine.Frame, fd *os.File) {
	if c == nil {
		return
	}
	_ = c.SetWriteDeadline(time.Now().Add(sendTimeout))
	if fd == nil {
		_ = c.Send(f, nil)
		return
	}
	_ = c.Send(f, nil, fd)
}

// read passes messages of c on until it ends.
func (g *guard) read(c *confine.Conn, p *process) {
	for {
		m, err := c.Recv()
		if err != nil {
			g.in <- incoming{from: c, proc: p}
			return
		}
		g.in <- incoming{msg: m, from: c, proc: p}
	}
}

// accept lets a restarted keeper find us again. The socket's file lies where
// only root can reach it.
func (g *guard) accept(fd int) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), "listener")
	rc, err := f.SyscallConn()
	if err != nil {
		return
	}
	for {
		n := -1
		var aerr error
		err := rc.Read(func(fd uintptr) bool {
			n, _, aerr = unix.Accept4(int(fd), unix.SOCK_CLOEXEC)
			return aerr != unix.EAGAIN
		})
		if err != nil {
			return
		}
		if aerr != nil {
			continue
		}
		c, err := confine.NewConn(n)
		if err != nil {
			unix.Close(n)
			continue
		}
		g.fresh <- c
	}
}

func (g *guard) handle(in incoming) {
	if in.msg == nil {
		switch {
		case in.proc != nil: // the command line tool has gone; exited closes
		case in.from == g.keeper:
			g.keeper.Close()
			g.keeper = nil
		}
		return
	}
	defer in.msg.Close()
	switch {
	case in.msg.Type == confine.FrameSignal && in.proc != nil:
		deliver(in.proc, in.msg.Status)
	case in.msg.Type == confine.FrameSignal:
		for _, p := range g.procs {
			if p.seq == in.msg.Seq {
				deliver(p, in.msg.Status)
			}
		}
	case in.msg.Type == confine.FrameExec && in.proc == nil && in.msg.Seq != 0:
		g.exec(in.msg)
	}
}

// deliver signals the whole process group: that is what a terminal would do.
func deliver(p *process, sig int32) {
	if p.pid <= 1 || sig < 1 || sig > 64 {
		return
	}
	// ESRCH: it has just ended.
	_ = unix.Kill(-p.pid, unix.Signal(sig))
}

// exec starts one more process in the same walls.
func (g *guard) exec(m *confine.Message) {
	p := &process{seq: m.Seq}
	spec, err := confine.DecodeSpec(m.Payload)
	if err != nil {
		g.fail(p, exitSetup, err)
		return
	}
	files := map[int]*os.File{}
	for i, f := range m.FDs {
		if i == spec.StatusFD {
			fd, derr := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
			if derr == nil {
				p.status, derr = confine.NewConn(fd)
			}
			if derr != nil {
				g.fail(p, exitSetup, fmt.Errorf("status socket: %w", derr))
				return
			}
			continue
		}
		files[i] = f
	}
	if code, err := g.start(p, spec, files); err != nil {
		g.fail(p, code, err)
		if p.status != nil {
			p.status.Close()
		}
	}
}
