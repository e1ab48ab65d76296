// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Launched is the client's end of an upgraded connection. Closing it before
// the frame "established" abandons the launch; afterwards nothing depends
// on it.
type Launched struct {
	conn *net.UnixConn
	r    *bufio.Reader
}

// Next waits for the next frame. io.EOF means that the keeper went away or
// has nothing more to say.
func (l *Launched) Next() (Frame, error) { return ReadFrame(l.r) }

// SetDeadline bounds Next; the zero time lifts the bound.
func (l *Launched) SetDeadline(t time.Time) error { return l.conn.SetReadDeadline(t) }

// Close drops the connection.
func (l *Launched) Close() error { return l.conn.Close() }

// Launch asks for a sandbox and passes the descriptors, which stay the
// caller's to close. It returns when the keeper has them; then Next tells how
// it went. Refusals are errors as of every other method.
func (c *Client) Launch(ctx context.Context, r *LaunchRequest, f *Files) (*Launched, error) {
	return c.upgrade(ctx, "/v1/sandboxes", r, f)
}

// Exec asks for one more program in a sandbox, likewise.
func (c *Client) Exec(ctx context.Context, ref string, r *ExecRequest, f *Files) (*Launched, error) {
	return c.upgrade(ctx, "/v1/sandboxes/"+url.PathEscape(ref)+"/exec", r, f)
}

func (c *Client) upgrade(ctx context.Context, path string, body any, f *Files) (_ *Launched, err error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxLaunchBody {
		return nil, Errorf(CodeTooLarge, "arguments, environment and documents are together over %d bytes", MaxLaunchBody)
	}
	req, err := http.NewRequestWithContext(ctx, "POST", "http://ringfence"+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", UpgradeProtocol)

	nc, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	conn, ok := nc.(*net.UnixConn)
	if !ok {
		_ = nc.Close()
		return nil, fmt.Errorf("%s is not a unix socket", c.socket)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			_ = conn.Close()
		}
	}()
	// A refusal may arrive, and the connection end, before all of the body is
	// written: the answer is read first.
	werr := req.Write(conn)
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return nil, c.transportError(errors.Join(eof(err), werr))
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close() //nolint:errcheck // only read
		return nil, c.readError(resp)
	}
	if err := sendFiles(conn, f); err != nil {
		return nil, c.transportError(err)
	}
	return &Launched{conn: conn, r: br}, nil
}

// eof makes an end inside the header an end of the stream.
func eof(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}
