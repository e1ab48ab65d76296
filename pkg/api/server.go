// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options configure a Server.
type Options struct {
	Backend Backend      // required
	Logger  *slog.Logger // nil discards
	// OperatorGID is the group whose members may use the API. 0 (root's own
	// group) and negative values admit root alone.
	OperatorGID int
	// Audit is called for every request that changes something and for every
	// refusal, after its outcome is known; for a launch or exec that is when
	// the program runs or does not. It must not block. Nil: not called.
	Audit func(a Action)
	// MaxConnsPerUID bounds open connections of one uid other than root; see
	// shares. 0 means 64.
	MaxConnsPerUID int
}

// Server answers the operator API on listeners it is given.
type Server struct {
	o    Options // immutable after NewServer
	http *http.Server

	ctx    context.Context // ends with Close: streams and sessions follow it
	cancel context.CancelFunc
	conns  sync.WaitGroup // hijacked connections
	shares *shares
	checks *turns
}

// NewServer returns a server. It fails when a required option is missing.
func NewServer(o Options) (*Server, error) {
	if o.Backend == nil {
		return nil, errors.New("api: a server needs a backend")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OperatorGID == 0 {
		o.OperatorGID = -1
	}
	if o.MaxConnsPerUID == 0 {
		o.MaxConnsPerUID = 64
	}
	s := &Server{o: o, shares: newShares(o.MaxConnsPerUID), checks: newTurns(checksAtOnce)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    MaxHeader,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: func(c net.Conn, st http.ConnState) {
			if p, ok := c.(*peerConn); ok && (st == http.StateActive || st == http.StateIdle) {
				s.shares.waits(p, st == http.StateIdle)
			}
		},
	}
	return s, nil
}

// Serve accepts on l until Close or until l fails. l belongs to the server.
func (s *Server) Serve(l *net.UnixListener) error {
	err := s.http.Serve(&listener{UnixListener: l, s: s})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close stops accepting, ends streams and sessions and waits, at most until
// ctx ends, for requests under way. Sandboxes are not touched.
func (s *Server) Close(ctx context.Context) error {
	s.cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	done := make(chan struct{})
	go func() { s.conns.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		err = errors.Join(err, ctx.Err())
	}
	return err
}

// call is one request that was admitted to its route.
type call struct {
	*http.Request
	caller *Caller // with the rights that it has, of the moment when all of its body was read
	need   need
	conn   *peerConn
	box    *Sandbox // the sandbox that the request is about, once it is known

	// For the record.
	what    string
	scope   string
	hidden  string // what is there, and the caller was not told
	audited bool   // or somebody else will see to it
}

// handler routes by the table. Everything else is 404 or 405 in the same form,
// for admitted callers only.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range routes {
		mux.HandleFunc(rt.method+" "+rt.path, func(w http.ResponseWriter, r *http.Request) { s.dispatch(w, r, rt) })
	}
	none := route{need: needMember, serve: func(_ *Server, _ http.ResponseWriter, r *call) error {
		return Errorf(CodeNotFound, "no such request: %s %q", r.Method, r.URL.Path)
	}}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.dispatch(w, r, none) })
	return mux
}

// dispatch admits or refuses, bounds the body, serves, and answers errors.
func (s *Server) dispatch(w http.ResponseWriter, r *http.Request, rt route) {
	c := &call{Request: r, need: rt.need}
	c.conn, _ = r.Context().Value(connKey{}).(*peerConn)
	if c.conn != nil && c.conn.caller != nil {
		own := *c.conn.caller
		c.caller = &own
	}
	err := s.admitCall(r.Context(), c, rt)
	if err == nil && rt.body == 0 && r.ContentLength != 0 {
		err = Errorf(CodeBadRequest, "this request takes no body")
	}
	if err == nil {
		r.Body = http.MaxBytesReader(w, r.Body, rt.body)
		_ = c.conn.SetWriteDeadline(time.Now().Add(writeTimeout)) // streams move it on
		err = rt.serve(s, w, c)
	}
	s.audit(c, err)
	if err != nil && !errors.Is(err, errAnswered) {
		if c.conn != nil { // what is left of the body is not worth waiting for
			_ = c.conn.SetReadDeadline(time.Now().Add(time.Second))
		}
		writeError(w, err)
	}
}

// errAnswered is returned by handlers that failed after they had begun to
// answer: there is nothing more to say on the connection.
var errAnswered = errors.New("the answer was already begun")

// admitCall is the only way to a handler.
func (s *Server) admitCall(ctx context.Context, c *call, rt route) error {
	if c.conn == nil || c.caller == nil {
		return denied("the caller of this connection is not known", "")
	}
	if err := c.conn.outsideSandbox(ctx, s.o.Backend); err != nil {
		return err
	}
	c.caller.Rights, _ = s.rightsOf(c.caller)
	if err := admit(c.caller, rt.need); err != nil {
		return err
	}
	if rt.lasts {
		if err := s.shares.last(c.conn); err != nil {
			return err
		}
	}
	if !strings.Contains(rt.path, "{id}") {
		return nil
	}
	if err := s.resolve(c, c.PathValue("id")); err != nil {
		return err
	}
	return admitBox(c.caller, rt.need, c.box)
}

// resolve finds the sandbox that ref means to the caller: a full id, else the
// name of one it sees (a living one first), else a unique beginning of an id. One
// that it does not see is as if it were not there, but for the record.
func (s *Server) resolve(c *call, ref string) error {
	list, err := s.o.Backend.Sandboxes(c.Context())
	if err != nil {
		return err
	}
	var exact, named, dead, begin []*Sandbox
	for i := range list {
		b := &list[i]
		switch {
		case !c.caller.Rights.Sees(b.Owner, b.Scope):
			if b.ID == ref || b.Name == ref {
				c.hidden = fmt.Sprintf("sandbox %q is of uid %d in %s, which the caller does not see", ref, b.Owner, b.Scope)
			}
		case b.ID == ref:
			exact = append(exact, b)
		case b.Name == ref && b.HasEnded():
			dead = append(dead, b)
		case b.Name == ref:
			named = append(named, b)
		case len(ref) >= 4 && strings.HasPrefix(b.ID, ref):
			begin = append(begin, b)
		}
	}
	if len(dead) > 1 {
		dead = dead[len(dead)-1:] // the last one that had the name
	}
	for _, group := range [][]*Sandbox{exact, named, dead, begin} {
		if len(group) == 1 {
			c.box = group[0]
			return nil
		}
		if len(group) > 1 {
			return Errorf(CodeAmbiguous, "%q means %d sandboxes", ref, len(group)).WithRemedy("use the id that `ringfence ps` shows")
		}
	}
	return Errorf(CodeNotFound, "no sandbox %q", ref).WithRemedy("`ringfence ps --all` lists them")
}

// readJSON decodes the body strictly: one value, no unknown field. A caller takes
// the time it wants to send one, so it is admitted again then.
func (s *Server) readJSON(r *call, into any) error {
	if err := decodeJSON(r, into); err != nil {
		return err
	}
	r.caller.Rights, _ = s.rightsOf(r.caller)
	if err := admit(r.caller, r.need); err != nil || r.box == nil {
		return err
	}
	return admitBox(r.caller, r.need, r.box)
}

func decodeJSON(r *call, into any) error {
	_ = r.conn.SetReadDeadline(time.Now().Add(bodyTimeout))
	defer r.conn.SetReadDeadline(time.Time{}) //nolint:errcheck // a closed connection shows in the next read
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, more := dec.Token(); more != io.EOF {
			err = errors.New("more than one JSON value")
		}
	}
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooLarge):
		return Errorf(CodeTooLarge, "the request body is over %d bytes", tooLarge.Limit)
	}
	return &Error{Code: CodeBadRequest, Message: "the request body is not what this request takes", Detail: err.Error()}
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a reader that went away is no error of ours
	return nil
}

func writeError(w http.ResponseWriter, err error) {
	e := asError(err)
	status, ok := httpStatus[e.Code]
	if !ok {
		status = http.StatusInternalServerError
	}
	if e.Code == CodeTooLarge {
		w.Header().Set("Connection", "close")
	}
	_ = writeJSON(w, status, e)
}
