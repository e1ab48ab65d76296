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
	"strconv"
	"syscall"
	"time"
)

// Client talks to one keeper. Its methods may be used concurrently; errors
// that the keeper sent are of type [*Error], and a keeper that cannot be
// reached gives an [*UnreachableError].
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client for the socket. Nothing is dialled yet.
func NewClient(socket string) *Client {
	c := &Client{socket: socket}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DisableCompression: true,
		MaxIdleConns:       2,
		IdleConnTimeout:    30 * time.Second,
	}}
	return c
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, &UnreachableError{Socket: c.socket, Err: err}
	}
	return conn, nil
}

// request sends body (nil: none) as JSON and returns the response, whose body
// the caller closes, or the error that the keeper sent.
func (c *Client) request(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://ringfence"+path, r)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.transportError(err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close() //nolint:errcheck // only read
		return nil, c.readError(resp)
	}
	return resp, nil
}

// transportError strips the words of net/http and counts a connection that
// broke before an answer as an unreachable keeper.
func (c *Client) transportError(err error) error {
	var u *UnreachableError
	if errors.As(err, &u) {
		return u
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return &UnreachableError{Socket: c.socket, Err: errors.New("it closed the connection without an answer")}
	}
	return err
}

// readError reads the Error of a response; anything else that answers on the
// socket is reported as such.
func (c *Client) readError(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxFrame))
	e := new(Error)
	if err != nil || json.Unmarshal(b, e) != nil || e.Message == "" {
		return Errorf(CodeInternal, "%s answers, but not as ringfenced does (%s)", c.socket, resp.Status).WithRemedy("name the daemon's socket with --socket or " + SocketEnv)
	}
	return e
}

// maxAnswer bounds one JSON answer.
const maxAnswer = 64 << 20

func call1[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var v T
	resp, err := c.request(ctx, method, path, body)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&v); err != nil {
		return v, fmt.Errorf("the daemon's answer to %s %s: %w", method, path, err)
	}
	return v, nil
}

// Version returns the daemon's version.
func (c *Client) Version(ctx context.Context) (VersionInfo, error) {
	return call1[VersionInfo](ctx, c, "GET", "/v1/version", nil)
}

// Status returns the state of the node.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call1[Status](ctx, c, "GET", "/v1/status", nil)
}

// Sandboxes lists what the caller may see.
func (c *Client) Sandboxes(ctx context.Context) ([]Sandbox, error) {
	return call1[[]Sandbox](ctx, c, "GET", "/v1/sandboxes", nil)
}

// Sandbox returns one by id, name or beginning of an id.
func (c *Client) Sandbox(ctx context.Context, ref string) (Sandbox, error) {
	return call1[Sandbox](ctx, c, "GET", "/v1/sandboxes/"+url.PathEscape(ref), nil)
}

// Stop ends a sandbox: SIGTERM, and after the timeout the end of everything
// in it.
func (c *Client) Stop(ctx context.Context, ref string, timeout time.Duration) (StopResult, error) {
	return call1[StopResult](ctx, c, "POST", "/v1/sandboxes/"+url.PathEscape(ref)+"/stop", StopRequest{Timeout: Duration(timeout)})
}

// Allow adds one rule.
func (c *Client) Allow(ctx context.Context, r AllowRequest) (AllowResult, error) {
	return call1[AllowResult](ctx, c, "POST", "/v1/allow", r)
}

// TakeBack removes what Allow gave.
func (c *Client) TakeBack(ctx context.Context, r AllowRequest) (TakenBack, error) {
	return call1[TakenBack](ctx, c, "DELETE", "/v1/allow", r)
}

// Providers lists the configured providers.
func (c *Client) Providers(ctx context.Context) ([]Provider, error) {
	return call1[[]Provider](ctx, c, "GET", "/v1/providers", nil)
}

// Inference tells how those are that answer model calls.
func (c *Client) Inference(ctx context.Context) (InferenceStatus, error) {
	return call1[InferenceStatus](ctx, c, "GET", "/v1/inference", nil)
}

// AddProvider configures one.
func (c *Client) AddProvider(ctx context.Context, r ProviderRequest) (Provider, error) {
	return call1[Provider](ctx, c, "POST", "/v1/providers", r)
}

// RemoveProvider removes what AddProvider wrote.
func (c *Client) RemoveProvider(ctx context.Context, name string) (ProviderRemoved, error) {
	return call1[ProviderRemoved](ctx, c, "DELETE", "/v1/providers/"+url.PathEscape(name), nil)
}

// CheckPolicy has the daemon check documents against those in force.
func (c *Client) CheckPolicy(ctx context.Context, docs []Document) (CheckResult, error) {
	return call1[CheckResult](ctx, c, "POST", "/v1/policy/check", CheckRequest{Documents: docs})
}

// Policy returns the documents in force, for one sandbox or ("") the node.
func (c *Client) Policy(ctx context.Context, sandbox string) (PolicyView, error) {
	path := "/v1/policy"
	if sandbox != "" {
		path += "?sandbox=" + url.QueryEscape(sandbox)
	}
	return call1[PolicyView](ctx, c, "GET", path, nil)
}

// Explain explains one event.
func (c *Client) Explain(ctx context.Context, event string) (Explanation, error) {
	return call1[Explanation](ctx, c, "GET", "/v1/events/"+url.PathEscape(event)+"/explain", nil)
}

// Doctor returns what the daemon probed.
func (c *Client) Doctor(ctx context.Context) (DoctorReport, error) {
	return call1[DoctorReport](ctx, c, "GET", "/v1/doctor", nil)
}

// VerifyAudit has the daemon verify its log.
func (c *Client) VerifyAudit(ctx context.Context) (AuditReport, error) {
	return call1[AuditReport](ctx, c, "GET", "/v1/audit/verify", nil)
}

// Log streams the output of a detached sandbox. The bytes are the sandbox's:
// escape them before a terminal sees them. The caller closes the stream.
func (c *Client) Log(ctx context.Context, ref string, follow bool) (io.ReadCloser, error) {
	resp, err := c.request(ctx, "GET", "/v1/sandboxes/"+url.PathEscape(ref)+"/log?follow="+strconv.FormatBool(follow), nil)
	if err != nil {
		return nil, err
	}
	return &streamBody{ReadCloser: resp.Body, resp: resp}, nil
}

// maxEventLine bounds one event line.
const maxEventLine = 4 << 20

// Events calls yield with each line, without its newline, until the stream
// ends, ctx ends or yield returns an error, which it passes on. The line is
// valid only during the call.
func (c *Client) Events(ctx context.Context, q EventQuery, yield func(line []byte) error) error {
	resp, err := c.request(ctx, "GET", "/v1/events?"+q.values().Encode(), nil)
	if err != nil {
		return err
	}
	body := &streamBody{ReadCloser: resp.Body, resp: resp}
	defer body.Close() //nolint:errcheck // only read
	sc := bufio.NewScanner(body)
	sc.Buffer(make([]byte, 64<<10), maxEventLine)
	for sc.Scan() {
		if len(sc.Bytes()) == 0 {
			continue
		}
		if err := yield(sc.Bytes()); err != nil {
			return err
		}
	}
	return sc.Err()
}

func (q EventQuery) values() url.Values {
	v := url.Values{}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if q.Sandbox != "" {
		v.Set("sandbox", q.Sandbox)
	}
	if q.Denied {
		v.Set("denied", "true")
	}
	if q.Failed {
		v.Set("failed", "true")
	}
	if q.Learned {
		v.Set("learned", "true")
	}
	if q.Follow {
		v.Set("follow", "true")
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

// streamBody turns the error trailer of a stream into an error at its end.
type streamBody struct {
	io.ReadCloser
	resp *http.Response
}

// Read reads the stream; at its end it returns the keeper's error, if any.
func (s *streamBody) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err == io.EOF {
		if text := s.resp.Trailer.Get(errorTrailer); text != "" {
			e := new(Error)
			if json.Unmarshal([]byte(text), e) == nil {
				return n, e
			}
			return n, Errorf(CodeInternal, "the daemon ended the stream with an error")
		}
	}
	return n, err
}
