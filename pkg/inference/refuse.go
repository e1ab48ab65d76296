// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
)

// Codes that a client sees in an error that Ringfence made.
const (
	codeDenied   = "ringfence_denied"          // policy or the fence said no
	codeInvalid  = "ringfence_invalid_request" // the request could not be judged
	codeConfig   = "ringfence_not_configured"  // the operator has something to do
	codeUpstream = "ringfence_upstream_error"  // the provider could not be reached or broke off
	codeBusy     = "ringfence_busy"            // the gateway is out of room; try again
	codeApproval = "ringfence_approval"        // a person has to approve it; try again
)

// refusal is an answer that Ringfence makes itself instead of the provider.
type refusal struct {
	status  int
	code    string        // what the client sees
	reason  string        // reason code of the event: "path", "model", "provider-tool" ...
	message string        // what was refused and why, one sentence without a full stop
	remedy  string        // what the agent or the operator can do
	param   string        // the field at fault, "" if none
	command string        // the one command that would allow it, for the event
	wait    time.Duration // when to try again; 0: nothing is said

	header http.Header // for the answer

	decision *policy.Decision
}

// text is the message for the agent.
func (e *refusal) text() string {
	var b strings.Builder
	switch e.code {
	case codeDenied:
		b.WriteString("Ringfence refused this request: ")
	case codeInvalid:
		b.WriteString("Ringfence could not judge this request: ")
	default:
		b.WriteString("Ringfence: ")
	}
	b.WriteString(e.message)
	b.WriteByte('.')
	if e.remedy != "" {
		b.WriteByte(' ')
		b.WriteString(e.remedy)
		b.WriteByte('.')
	}
	return b.String()
}

// refuse writes the dialect's error and marks the record.
func (x *exchange) refuse(e *refusal) {
	x.rec.refused(e)
	if x.body == nil { // the server reads on what is left of a body: not for ever
		_ = http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(x.r.opt.BodyIdle))
	}
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Ringfence-Code", e.code)
	if e.code != codeUpstream && e.code != codeBusy && e.code != codeApproval && (e.code != CodeLimited || e.wait == 0) {
		h.Set("X-Should-Retry", "false") // the official SDKs honour it
	}
	if e.code == codeBusy {
		h.Set("Retry-After", "1")
	}
	for name, v := range e.header {
		h[name] = v
	}
	if e.wait > 0 {
		h.Set("Retry-After", strconv.Itoa(int((e.wait+time.Second-1)/time.Second)))
	}
	if e.code == codeApproval {
		h.Set("Retry-After", retryApproval)
	}
	body := x.d.errorBody(e, e.status, e.text())
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(e.status)
	x.rec.ev.Status = uint32(e.status)
	if x.in.Method != http.MethodHead {
		n, _ := x.w.Write(body)
		x.rec.ev.BytesIn = uint64(n)
	}
}

// quote makes a client's string safe and short inside a message.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return strconv.QuoteToASCII(s)
}

// mustJSON encodes values this package made; they always encode.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return []byte(`{"error":{"message":"error text could not be encoded"}}`)
	}
	return b
}

func invalid(status int, reason, message, remedy string) *refusal {
	return &refusal{status: status, code: codeInvalid, reason: reason, message: message, remedy: remedy}
}

func denied(reason, message, remedy string) *refusal {
	return &refusal{status: http.StatusForbidden, code: codeDenied, reason: reason, message: message, remedy: remedy}
}
