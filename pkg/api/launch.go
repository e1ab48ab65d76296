// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
)

// UpgradeProtocol is the token of the Upgrade header for launch and exec.
const UpgradeProtocol = "ringfence-fds"

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + UpgradeProtocol + "\r\n\r\n"

// starter establishes a sandbox or an exec; it owns the files from its call.
type starter func(ctx context.Context, f *Files) (Session, error)

// wants says which descriptors a request has to bring.
type wants struct {
	workspace bool // may bring one
	stdio     bool // must bring all three; else none
	status    bool // must bring one
}

func (s *Server) launch(w http.ResponseWriter, r *call) error {
	req := new(LaunchRequest)
	if err := s.readJSON(r, req); err != nil {
		return err
	}
	if err := checkLaunch(req); err != nil {
		return err
	}
	r.scope = cmp.Or(req.Scope, DefaultScope)
	r.note("launch %.200q with the profile %s", req.Argv[0], cmp.Or(req.Profile.Name, req.Profile.File))
	if req.Learn {
		r.note("launch %.200q with the profile %s, LEARNING", req.Argv[0], cmp.Or(req.Profile.Name, req.Profile.File))
	}
	if err := admitLaunch(r.caller, req); err != nil {
		return err
	}
	still := func(now Rights) bool {
		return now.mayIn(policy.RightLaunch, r.scope) && (!req.Learn || now.mayIn(policy.RightAdmin, r.scope))
	}
	want := wants{workspace: true, stdio: !req.Detach && !req.TTY, status: !req.Detach}
	return s.upgrade(w, r, want, still, func(ctx context.Context, f *Files) (Session, error) {
		return s.o.Backend.Launch(ctx, r.caller, req, f)
	})
}

func (s *Server) exec(w http.ResponseWriter, r *call) error {
	req := new(ExecRequest)
	if err := s.readJSON(r, req); err != nil {
		return err
	}
	if err := checkExec(req); err != nil {
		return err
	}
	if r.box.State != StateRunning {
		return Errorf(CodeConflict, "sandbox %s is %s", r.box.ID, r.box.State)
	}
	may := func(now Rights) bool {
		return now.Owns(r.box.Owner, r.box.Scope) && (!r.box.Learns || now.mayIn(policy.RightAdmin, r.box.Scope))
	}
	if !may(r.caller.Rights) { // who owns it was looked at before
		return denied("a program in a sandbox that learns needs root, or the role admin in its scope", "stop it, and run it again without --learn")
	}
	r.note("run %.200q in sandbox %s", req.Argv[0], r.box.ID)
	return s.upgrade(w, r, wants{stdio: !req.TTY, status: true}, may, func(ctx context.Context, f *Files) (Session, error) {
		return s.o.Backend.Exec(ctx, r.caller, r.box.ID, req, f)
	})
}

// upgrade takes the connection over and hands it to a goroutine that Close
// waits for. The session ends when still says no to what the caller may then.
func (s *Server) upgrade(w http.ResponseWriter, r *call, want wants, still func(Rights) bool, start starter) error {
	if !strings.EqualFold(r.Header.Get("Upgrade"), UpgradeProtocol) {
		return Errorf(CodeBadRequest, "this request needs \"Upgrade: %s\": descriptors cannot be named in JSON", UpgradeProtocol)
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	conn, ok := c.(*peerConn)
	if !ok {
		_ = c.Close()
		return errAnswered
	}
	ses := *r // the request is over when this returns; what became of it is told by the session
	r.audited = true
	s.conns.Go(func() {
		defer conn.Close() //nolint:errcheck // the last thing done with it
		s.session(&ses, rw.Reader, want, still, start)
	})
	return nil
}

// session speaks the upgraded protocol. The caller's bytes after the
// descriptor message have no meaning: one more byte, or the end of the
// stream, means that the client went away.
func (s *Server) session(r *call, early *bufio.Reader, want wants, still func(Rights) bool, start starter) {
	conn := r.conn
	fail := func(err error) {
		s.audit(r, err)
		_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		_ = WriteFrame(conn, Frame{Type: FrameFailed, Failed: asFailure(err)})
	}
	files, err := s.receive(conn, early, want)
	if err != nil {
		fail(err)
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	ctx, _, done := s.lasting(ctx, r.caller, still)
	defer done()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer cancel()
		var one [1]byte
		_, _ = conn.Read(one[:])
	}()
	defer func() {
		_ = conn.SetReadDeadline(time.Now())
		<-gone
	}()

	ses, err := start(ctx, files)
	if err != nil {
		if wasRevoked(ctx) {
			err = errRevoked
		}
		fail(err)
		return
	}
	if r.box == nil {
		r.box = &Sandbox{ID: ses.ID(), Scope: r.scope}
	}
	s.audit(r, nil)
	_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if WriteFrame(conn, Frame{Type: FrameEstablished, ID: ses.ID()}) != nil {
		return
	}
	exit, err := ses.Wait(ctx)
	if wasRevoked(ctx) {
		return // what was launched lives by its own rules, as when the client goes away
	}
	if err != nil {
		if ctx.Err() == nil {
			s.o.Logger.Warn("api: waiting for a sandbox", "sandbox", ses.ID(), "err", err)
		}
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_ = WriteFrame(conn, Frame{Type: FrameExited, ID: ses.ID(), Exit: &exit})
}

// receive answers 101 and takes the descriptors.
func (s *Server) receive(conn *peerConn, early *bufio.Reader, want wants) (*Files, error) {
	if early.Buffered() > 0 {
		return nil, errors.New("bytes before the protocol was switched")
	}
	if err := conn.SetDeadline(time.Now().Add(fdsTimeout)); err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte(switching)); err != nil {
		return nil, err
	}
	files, err := recvFiles(conn.UnixConn)
	if err != nil {
		return nil, err
	}
	if err = checkFiles(files, want.workspace, want.stdio); err == nil && want.status && files.Status == nil {
		err = errors.New("the status socket is missing")
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		files.Close()
		return nil, fmt.Errorf("descriptors refused: %w", err)
	}
	return files, nil
}
