// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/confine"
)

// Result is how it went.
type Result struct {
	ID      string             // the sandbox, "" if it was not established
	Code    int                // exit code for the caller
	Failure *api.LaunchFailure // not nil: the program did not run
	Exit    *api.Exit          // what the daemon said at the end, nil if it did not
	Note    string             // something the caller should know about the end, safe to print
}

// How long one side may be silent after the other has said that it is over.
const (
	exitGrace   = 3 * time.Second  // the daemon's word, after the exit status
	statusGrace = 5 * time.Second  // the daemon's word, after the status socket ended without a status
	launchGrace = 30 * time.Second // the daemon's word, after the status socket ended before the start
)

// session is one wait for a program. It has two sources: frames from the
// daemon, which may die meanwhile, and messages of the sandbox's init, which
// may lie. The exit status is init's; whether anything ran is the daemon's.
type session struct {
	launched *api.Launched
	status   *confine.Conn
	stdio    *Stdio
	forward  chan syscall.Signal // to init, which may not read

	id         string
	started    bool
	failure    *api.LaunchFailure // the daemon's
	initFail   *api.LaunchFailure // init's
	exit       *api.Exit
	code       *int // init's
	signal     syscall.Signal
	daemonGone bool
	statusGone bool
	timedOut   bool
	note       string
	deadline   <-chan time.Time
	grace      time.Duration
}

type statusEvent struct {
	m   *confine.Message
	err error
}

type frameEvent struct {
	f   api.Frame
	err error
}

// Wait relays until the program has ended. Signals INT, TERM, HUP and QUIT are
// forwarded, WINCH resizes; one that arrives before the sandbox is established
// abandons the launch. Wait closes launched and status.
func Wait(launched *api.Launched, status *confine.Conn, stdio *Stdio, signals <-chan os.Signal) Result {
	s := &session{launched: launched, status: status, stdio: stdio}
	if stdio.term == nil {
		_ = status.RefuseDescriptors() // what comes all the same ends the conversation
	}
	s.forward = make(chan syscall.Signal, 8)
	stop := make(chan struct{})
	go s.sendSignals(stop)
	frames, statuses := make(chan frameEvent), make(chan statusEvent)
	go readFrames(launched, frames, stop)
	go readStatus(status, statuses, stop)
	defer func() {
		close(stop)
		_ = launched.Close()
		_ = status.Close()
	}()
	for !s.over() {
		select {
		case e := <-frames:
			s.onFrame(e)
		case e := <-statuses:
			s.onStatus(e)
		case sig := <-signals:
			s.onSignal(sig)
		case <-s.deadline:
			s.timedOut = true
		}
	}
	r := s.result()
	stdio.Finish(r.Code >= 128 || r.Failure != nil)
	return r
}

func readFrames(l *api.Launched, out chan<- frameEvent, stop <-chan struct{}) {
	for {
		f, err := l.Next()
		select {
		case out <- frameEvent{f, err}:
		case <-stop:
			return
		}
		if err != nil {
			return
		}
	}
}

func readStatus(c *confine.Conn, out chan<- statusEvent, stop <-chan struct{}) {
	for {
		m, err := c.RecvReport()
		select {
		case out <- statusEvent{m, err}:
		case <-stop:
			if m != nil {
				m.Close()
			}
			return
		}
		if err != nil {
			return
		}
	}
}

// sendSignals is apart from Wait, for a sandbox that does not read blocks it.
func (s *session) sendSignals(stop <-chan struct{}) {
	for {
		select {
		case n := <-s.forward:
			if s.status.Send(confine.Frame{Type: confine.FrameSignal, Status: int32(n)}, nil) != nil {
				return // it is closed
			}
		case <-stop:
			return
		}
	}
}

func (s *session) onFrame(e frameEvent) {
	if e.err != nil {
		s.daemonGone = true
		return
	}
	switch e.f.Type {
	case api.FrameEstablished:
		s.id = e.f.ID
	case api.FrameFailed:
		s.failure = e.f.Failed
		if s.failure == nil {
			s.failure = &api.LaunchFailure{Code: 125, Message: "the daemon did not say why"}
		}
	case api.FrameExited:
		if s.exit = e.f.Exit; s.exit == nil {
			s.exit = &api.Exit{Code: 1}
		}
	}
}

func (s *session) onStatus(e statusEvent) {
	if e.err != nil {
		s.statusGone = true
		return
	}
	fds := e.m.FDs
	if len(fds) > 0 {
		defer func() { go e.m.Close() }() // which its sender can draw out
	}
	switch {
	case len(fds) > 0 && (e.m.Type != confine.FramePtyMaster || s.stdio.term == nil || len(fds) != 1):
		s.distrust("the sandbox sent something that nobody asked for")
		return
	case len(fds) > 0:
		if err := s.stdio.term.attach(fds[0]); err != nil {
			s.distrust(err.Error())
		}
		return
	}
	switch e.m.Type {
	case confine.FramePtyMaster:
		s.note = "the sandbox sent no terminal where it said so"
	case confine.FrameStarted:
		s.started = true
	case confine.FrameExited:
		code := int(e.m.Status)
		if code < 0 || code > 255 {
			code = 1
		}
		if s.code == nil {
			s.code = &code
		}
	case confine.FrameFailed:
		code := int(e.m.Status)
		if code < 125 || code > 127 {
			code = 125
		}
		s.initFail = &api.LaunchFailure{Code: code, Message: show.Text(e.m.Reason(), 500)}
	}
}

// distrust ends the conversation with init; what the daemon says still counts.
func (s *session) distrust(why string) {
	s.note = why
	_ = s.status.Close()
}

func (s *session) onSignal(sig os.Signal) {
	n, ok := sig.(syscall.Signal)
	switch {
	case !ok:
	case n == syscall.SIGWINCH:
		if s.stdio.term != nil {
			s.stdio.term.resize()
		}
	case s.id == "" && !s.started:
		s.signal = n
	case !s.statusGone:
		select {
		case s.forward <- n:
		default:
			s.note = "the sandbox does not take signals; end it with: ringfence stop " + show.Text(s.id, 64)
		}
	}
}

// over decides whether all that can be known is known, and starts the clock
// for what is still missing.
func (s *session) over() bool {
	switch {
	case s.failure != nil, s.signal != 0, s.timedOut:
		return true
	case s.code != nil, s.initFail != nil:
		if s.exit != nil || s.daemonGone {
			return true
		}
		s.wait(exitGrace)
	case s.statusGone && s.exit != nil:
		return true
	case s.statusGone && s.daemonGone:
		return true
	case s.statusGone && s.id == "":
		s.wait(launchGrace)
	case s.statusGone, s.exit != nil:
		s.wait(statusGrace)
	}
	return false
}

// wait starts the clock; a shorter grace replaces a longer one.
func (s *session) wait(d time.Duration) {
	if s.deadline == nil || d < s.grace {
		s.deadline, s.grace = time.After(d), d
	}
}

// result sums up. Silence of both sides after the start means that init was
// killed, and with it everything in the sandbox.
func (s *session) result() Result {
	r := Result{ID: s.id, Exit: s.exit, Note: s.note}
	if s.exit != nil && s.exit.Why != "" {
		r.Note = "the daemon ended the sandbox: " + s.exit.Why + "; see ringfence events --sandbox " + show.Text(s.id, 64)
	}
	switch {
	case s.failure != nil:
		r.Failure, r.Code = s.failure, s.failure.Code
	case s.signal != 0:
		r.Code = 128 + int(s.signal)
		r.Failure = &api.LaunchFailure{Code: r.Code, Message: "interrupted before the sandbox was established"}
	case s.code != nil:
		r.Code = *s.code
		if s.exit == nil && s.timedOut {
			r.Note = fmt.Sprintf("the program reported its end, but the sandbox is still there: ringfence stop %s", show.Text(s.id, 64))
		}
	case s.initFail != nil:
		r.Failure, r.Code = s.initFail, s.initFail.Code
	case s.exit != nil:
		r.Code = s.exit.Code & 0xff
	case s.timedOut && !s.daemonGone && s.id != "": // the daemon would have said that it ended
		r.Code = 128 + int(syscall.SIGKILL)
		r.Note = fmt.Sprintf("the sandbox no longer reports to this command and may still run: ringfence stop %s", show.Text(s.id, 64))
	case s.id != "" || s.started:
		r.Code = 128 + int(syscall.SIGKILL)
		r.Note = "the sandbox ended without reporting an exit status"
	default:
		r.Failure = &api.LaunchFailure{Code: 125, Message: "the daemon went away before the sandbox was established",
			Missing: "the daemon", Remedy: "see `journalctl -u ringfenced`, then try again"}
		r.Code = 125
	}
	return r
}
