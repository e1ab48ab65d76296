// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
)

// errorTrailer carries the Error, as JSON, of a stream that broke after it
// had begun.
const errorTrailer = "Ringfence-Error"

// stream is a response that is written piece by piece, each under a deadline
// of its own, to a reader that may stop reading.
type stream struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	call *call
}

// begin sends the header at once, so that the client knows it was admitted.
func begin(w http.ResponseWriter, r *call, contentType string) *stream {
	st := &stream{w: w, rc: http.NewResponseController(w), call: r}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Trailer", errorTrailer)
	w.WriteHeader(http.StatusOK)
	_ = st.rc.Flush()
	return st
}

// write sends p. With flush it is on the socket when write returns.
func (st *stream) write(p []byte, flush bool) error {
	_ = st.call.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := st.w.Write(p); err != nil {
		return err
	}
	if flush {
		return st.rc.Flush()
	}
	return nil
}

// end says in the trailer why the stream broke.
func (st *stream) end(err error) error {
	if err == nil || st.call.Context().Err() != nil {
		return nil
	}
	b, jerr := json.Marshal(asError(err))
	if jerr != nil {
		return errAnswered
	}
	st.w.Header().Set(errorTrailer, string(b))
	return errAnswered
}

// log streams the output of a detached sandbox, as the sandbox wrote it.
func (s *Server) log(w http.ResponseWriter, r *call) error {
	follow, err := flag(r, "follow")
	if err != nil {
		return err
	}
	ctx, _, done := s.lasting(r.Context(), r.caller, func(now Rights) bool { return now.Sees(r.box.Owner, r.box.Scope) })
	defer done()
	out, err := s.o.Backend.Log(ctx, r.box.ID, follow)
	if err != nil {
		return err
	}
	defer out.Close() //nolint:errcheck // only read
	stop := context.AfterFunc(ctx, func() { _ = out.Close() })
	defer stop()

	st := begin(w, r, "application/octet-stream")
	buf := make([]byte, 32<<10)
	for {
		n, err := out.Read(buf)
		if wasRevoked(ctx) {
			return st.end(errRevoked)
		}
		if n > 0 {
			if werr := st.write(buf[:n], true); werr != nil {
				return errAnswered
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return st.end(err)
		}
	}
}

// events streams JSON lines: those of sandboxes and scopes that the caller sees
// when each is written. It ends when there are none any more.
func (s *Server) events(w http.ResponseWriter, r *call) error {
	q, err := s.eventQuery(r)
	if err != nil {
		return err
	}
	ctx, rights, done := s.lasting(r.Context(), r.caller, func(now Rights) bool { return !now.none() && (r.box == nil || now.Sees(r.box.Owner, r.box.Scope)) })
	defer done()
	visible := s.sees(ctx, rights.now)
	limit := q.Limit
	q.Limit = 0 // counted here, after the filter

	st := begin(w, r, "application/x-ndjson")
	sent := 0
	for rec, err := range s.o.Backend.Events(ctx, q) {
		if wasRevoked(ctx) {
			break
		}
		if err != nil {
			return st.end(err)
		}
		if !visible(rec.Sandbox, rec.Scope) {
			continue
		}
		line := append(append(make([]byte, 0, len(rec.Line)+1), rec.Line...), '\n')
		if err := st.write(line, q.Follow); err != nil {
			return errAnswered
		}
		if sent++; sent == limit {
			break
		}
	}
	if wasRevoked(ctx) {
		return st.end(errRevoked)
	}
	return nil
}

// eventQuery reads the query strictly. Who sees more than its own may name a
// sandbox that the registry no longer knows.
func (s *Server) eventQuery(r *call) (EventQuery, error) {
	v := r.URL.Query()
	var q EventQuery
	var err error
	for key := range v {
		switch key {
		case "since":
			if q.Since, err = time.Parse(time.RFC3339Nano, v.Get(key)); err != nil {
				return q, Errorf(CodeBadRequest, "since=%q is not an RFC 3339 time", v.Get(key))
			}
		case "denied":
			q.Denied, err = flag(r, key)
		case "failed":
			q.Failed, err = flag(r, key)
		case "learned":
			q.Learned, err = flag(r, key)
		case "follow":
			q.Follow, err = flag(r, key)
		case "limit":
			if q.Limit, err = strconv.Atoi(v.Get(key)); err != nil || q.Limit < 0 {
				return q, Errorf(CodeBadRequest, "limit=%q is not a number", v.Get(key))
			}
		case "sandbox":
			r.note("events of sandbox %q", v.Get(key))
			err = s.resolve(r, v.Get(key))
			switch {
			case err == nil:
				q.Sandbox = r.box.ID
			case CodeOf(err) == CodeNotFound && r.caller.Rights.anywhere(policy.RightSee):
				if q.Sandbox = v.Get(key); s.recorded(r, q.Sandbox) {
					err = nil
				} else {
					err = Errorf(CodeNotFound, "no sandbox %q runs, and the event log has none of that id", q.Sandbox).WithRemedy("`ringfence ps --all` lists them; of one that ended long ago only the id is known")
				}
			}
		default:
			return q, Errorf(CodeBadRequest, "unknown query %q", key)
		}
		if err != nil {
			return q, err
		}
	}
	return q, nil
}

// recorded says whether the event log has something of a sandbox's id that the
// caller sees. What is wrong with the log, if anything, the query itself tells.
func (s *Server) recorded(r *call, id string) bool {
	visible := s.sees(r.Context(), func() Rights { return r.caller.Rights })
	for rec, err := range s.o.Backend.Events(r.Context(), EventQuery{Sandbox: id}) {
		if err != nil || visible(rec.Sandbox, rec.Scope) {
			return true
		}
	}
	return false
}

// flag reads a boolean of the query; absent is false.
func flag(r *call, key string) (bool, error) {
	text := r.URL.Query().Get(key)
	if text == "" {
		return false, nil
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return false, Errorf(CodeBadRequest, "%s=%q is neither true nor false", key, text)
	}
	return v, nil
}

// explain explains one event that the caller sees. Another is as if it were not
// there, but for the record.
func (s *Server) explain(w http.ResponseWriter, r *call) error {
	id := r.PathValue("event")
	visible := s.sees(r.Context(), func() Rights { return r.caller.Rights })
	x, err := s.o.Backend.Explain(r.Context(), id, func(sandbox, scope string) bool {
		ok := visible(sandbox, scope)
		if !ok {
			r.hidden = fmt.Sprintf("event %q is of sandbox %q, which the caller does not see", id, sandbox)
		}
		return ok
	})
	return answer(w, x, err)
}
