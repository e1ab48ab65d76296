// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"crypto/rand"
	"encoding/hex"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// The trial provider answers when a node has no provider for a dialect, so
// that a first try works without a key. It calls no model and says so.

const (
	trialName  = "trial"
	trialModel = "ringfence-trial"
)

// trialText is what the trial provider answers.
func (x *exchange) trialText() string {
	return "This is Ringfence's built-in trial provider. No model was called: this node has no provider for the " + x.d.name +
		" API yet. Your request was taken at " + x.c.Host + ", judged by policy, and answered here without leaving the host. " +
		"To use a real model, the operator runs: " + x.d.addCommand()
}

// trialResponse makes the trial provider's answer in the shape of an upstream
// answer, so that it takes the same way out as a real one.
func (x *exchange) trialResponse() (*http.Response, *refusal) {
	if x.route.trial == nil {
		return nil, &refusal{status: http.StatusNotImplemented, code: codeConfig, reason: "trial",
			message: "no provider for the " + x.d.name + " API is configured, and the built-in trial provider does not do " + x.route.method + " " + x.route.path,
			remedy:  "The operator can add one: " + x.d.addCommand(), command: x.d.addCommand()}
	}
	body := x.route.trial(x)
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}}
	resp.Header.Set("X-Ringfence-Provider", trialName)
	if len(body) == 1 && !x.asked.stream {
		resp.ContentLength = int64(len(body[0]))
		resp.Header.Set("Content-Type", "application/json")
		resp.Header.Set("Content-Length", strconv.Itoa(len(body[0])))
	} else {
		resp.ContentLength = -1
		resp.Header.Set("Content-Type", "text/event-stream; charset=utf-8")
		resp.Header.Set("Cache-Control", "no-cache")
	}
	id := trialID("req_")
	resp.Header.Set("X-Request-Id", id)
	resp.Header.Set("Request-Id", id)
	x.rec.ev.RequestID = id
	resp.Body = io.NopCloser(&pieces{left: body})
	return resp, nil
}

// pieces is a body that is read one piece at a time, as a live stream is.
type pieces struct{ left [][]byte }

func (p *pieces) Read(b []byte) (int, error) {
	for len(p.left) > 0 && len(p.left[0]) == 0 {
		p.left = p.left[1:]
	}
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.left[0])
	p.left[0] = p.left[0][n:]
	return n, nil
}

func trialID(prefix string) string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return prefix + hex.EncodeToString(b[:])
}

// deltas cuts a text into pieces at spaces, as models stream it.
func deltas(s string) []string {
	var out []string
	for len(s) > 0 {
		n := strings.IndexByte(s[1:], ' ') + 1
		if n == 0 {
			n = len(s)
		}
		out = append(out, s[:n])
		s = s[n:]
	}
	return out
}

// trialUsage counts as an estimate does: there is no tokeniser behind it.
func (x *exchange) trialUsage() (in, out uint64) {
	return requestTokens(&x.tape), textTokens(x.trialText())
}

func object(v any) [][]byte { return [][]byte{mustJSON(v)} }

func dataEvent(v any) []byte {
	return append(append([]byte("data: "), mustJSON(v)...), "\n\n"...)
}

func namedEvent(name string, v any) []byte {
	return append([]byte("event: "+name+"\n"), dataEvent(v)...)
}

// lastSegment is the identifier at the end of the path.
func (x *exchange) lastSegment() string {
	return x.path[strings.LastIndexByte(x.path, '/')+1:]
}
