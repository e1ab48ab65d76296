// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
)

// begun is a request that straight has sent, or tried to send, and does not
// finish: the upstream takes its time, failed, or answered in a way that
// net/http has to look at. The HTTP server reads the same request from the
// beginning, decides again on one that was not sent, and this is its way to the
// upstream.
type begun struct {
	method, target string
	dial           *dialling // nil once there is a connection
	send           []byte    // what is to be sent once there is one
	kept           *kept
	read           []byte // of the answer
	err            error  // why there is no answer

	ticket *ticket // of its record; nil once it is somebody's
	sent   *sent   // nil: nothing of it has left
}

// sent is what was decided on a request before it was sent: that is in force for
// it, whatever policy says since.
type sent struct {
	decision  policy.Decision
	peer      string
	unclaimed event.Event // if nobody goes on with it
}

// claim hands over the place of the record.
func (b *begun) claim() *ticket {
	if b == nil {
		return nil
	}
	t := b.ticket
	b.ticket = nil
	return t
}

// drop lets go of what was begun and is not wanted.
func (b *begun) drop() {
	if b == nil {
		return
	}
	if t := b.claim(); t != nil && b.sent != nil {
		t.post(b.sent.unclaimed)
	} else if t != nil {
		t.release()
	}
	switch {
	case b.dial != nil:
		b.dial.drop()
	case b.kept != nil:
		b.kept.Close()
	}
}

// errNotBegun cannot come about: both ways read the same bytes.
var errNotBegun = errors.New("gateway: another request than the one that was begun")

// RoundTrip implements http.RoundTripper. It is called once.
func (b *begun) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil { // it has been sent, or is in send
		_, err := io.Copy(io.Discard, req.Body)
		req.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	if req.Method != b.method || req.URL.RequestURI() != b.target {
		return nil, errNotBegun
	}
	ctx := req.Context()
	if err := b.connected(ctx); err != nil {
		return nil, err
	}
	k := b.kept
	b.kept = nil
	_ = k.SetReadDeadline(time.Time{})
	if t := httptrace.ContextClientTrace(ctx); t != nil && t.GotConn != nil {
		t.GotConn(httptrace.GotConnInfo{Conn: k.Conn, Reused: k.used})
	}
	stop := context.AfterFunc(ctx, func() { k.wire.Close() })
	resp, err := b.answer(req, k)
	if err != nil {
		stop()
		k.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	resp.Body = &lastBody{resp.Body, k, stop}
	return resp, nil
}

// connected waits for the connection.
func (b *begun) connected(ctx context.Context) error {
	if b.dial != nil {
		select {
		case <-b.dial.done:
		case <-ctx.Done():
			return ctx.Err() // drop ends the attempt
		}
		b.kept, b.err, b.dial = b.dial.kept, b.dial.err, nil
	}
	return b.err
}

// maxAnswerHead is what the transports allow.
const maxAnswerHead = 1 << 20

// answer sends what is still to be sent and reads the head of the final answer.
func (b *begun) answer(req *http.Request, k *kept) (*http.Response, error) {
	if len(b.send) > 0 {
		if _, err := k.Write(b.send); err != nil {
			return nil, err
		}
	}
	limit := &io.LimitedReader{R: io.MultiReader(bytes.NewReader(b.read), k), N: maxAnswerHead}
	br := bufio.NewReader(limit)
	trace := httptrace.ContextClientTrace(req.Context())
	for {
		resp, err := http.ReadResponse(br, req)
		switch {
		case err != nil && limit.N <= 0:
			return nil, errors.New("gateway: the head of the answer is too large")
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, errors.New("gateway: the server switches protocols unasked")
		case resp.StatusCode >= 200:
			limit.N = 1<<63 - 1
			return resp, nil
		}
		if trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(resp.StatusCode, textproto.MIMEHeader(resp.Header)); err != nil {
				return nil, err
			}
		}
	}
}

// lastBody is the body of the last answer that a connection gives.
type lastBody struct {
	io.ReadCloser
	conn net.Conn
	stop func() bool
}

// Close implements io.Closer. The connection goes first: what is left of the
// body is not waited for.
func (b *lastBody) Close() error {
	b.stop()
	b.conn.Close()
	_ = b.ReadCloser.Close() // it fails, as the connection is closed
	return nil
}
