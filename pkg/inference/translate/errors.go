// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"bytes"
	"net/http"
	"strconv"
)

// kindOfError is one kind of failure in both dialects' words.
type kindOfError struct {
	anthropic       string
	anthropicStatus int
	openAI, code    string // type and code; a code of "" is null
	openAIStatus    int
}

// kindsOfError is in the order in which they are tried. Sources: Anthropic's
// and OpenAI's references of errors.
var kindsOfError = []kindOfError{
	{"invalid_request_error", 400, "invalid_request_error", "context_length_exceeded", 400},
	{"billing_error", 402, "insufficient_quota", "insufficient_quota", 429},
	{"invalid_request_error", 400, "invalid_request_error", "", 400},
	{"authentication_error", 401, "invalid_request_error", "invalid_api_key", 401},
	{"permission_error", 403, "permission_error", "", 403},
	{"not_found_error", 404, "invalid_request_error", "model_not_found", 404},
	{"request_too_large", 413, "invalid_request_error", "request_too_large", 413},
	{"rate_limit_error", 429, "rate_limit_error", "rate_limit_exceeded", 429},
	{"timeout_error", 504, "server_error", "timeout", 504},
	{"overloaded_error", 529, "server_error", "overloaded", 503},
	{"api_error", 500, "server_error", "", 500},
}

const ( // places in kindsOfError
	kindTooLong = 0
	kindBilling = 1
	kindInvalid = 2
	kindTimeout = 8
	kindAPI     = 10
)

// Error translates an error answer: from is the provider's dialect, to the
// client's. The status is changed only where the two dialects have another for
// the same failure. A body that is none of the dialect's is not passed on: the
// client learns the status.
func Error(from, to Dialect, status int, body []byte) (int, []byte) {
	var d document
	var kind, code, message string
	if root, err := d.parse(body); err == nil {
		kind, code, message = errorParts(root)
	}
	k := errorKind(from, status, kind, code, message)
	if message == "" {
		message = "the provider answered with status " + strconv.Itoa(status)
		if text := http.StatusText(status); text != "" {
			message += " (" + text + ")"
		}
	}
	var w writer
	writeError(&w, to, k, message)
	usual, other := k.anthropicStatus, k.openAIStatus
	if from == OpenAIChat {
		usual, other = other, usual
	}
	if status == usual || status < 400 || status > 599 {
		status = other
	}
	return status, w.b
}

// errorParts finds type, code and message of an error in the forms that
// providers have: an object, a string, or no level of its own.
func errorParts(root val) (kind, code, message string) {
	text := func(v val) string {
		switch v.kind() {
		case kindString:
			return string(v.text())
		case kindNumber:
			return string(v.raw())
		}
		return ""
	}
	e := root.get("error")
	switch e.kind() {
	case kindString:
		return "", "", string(e.text())
	case kindObject:
	default:
		e = root
	}
	kind, code, message = text(e.get("type")), text(e.get("code")), text(e.get("message"))
	if message == "" {
		message = text(e.get("detail"))
	}
	return kind, code, message
}

// errorKind finds the kind of an error by what it says, then by its status.
func errorKind(from Dialect, status int, kind, code, message string) *kindOfError {
	if from == AnthropicMessages {
		if kind == "invalid_request_error" && bytes.Contains([]byte(message), []byte("prompt is too long")) {
			return &kindsOfError[kindTooLong]
		}
		for i := kindBilling; i < len(kindsOfError); i++ {
			if kindsOfError[i].anthropic == kind {
				return &kindsOfError[i]
			}
		}
	} else if code != "" || kind == "insufficient_quota" {
		for i := range kindsOfError {
			if k := &kindsOfError[i]; k.code != "" && k.code == code || i == kindBilling && kind == k.openAI {
				return k
			}
		}
	}
	for i := kindInvalid; i < len(kindsOfError); i++ {
		if k := &kindsOfError[i]; from == AnthropicMessages && k.anthropicStatus == status || from != AnthropicMessages && k.openAIStatus == status {
			return k
		}
	}
	switch {
	case status == http.StatusRequestTimeout:
		return &kindsOfError[kindTimeout]
	case status >= 400 && status < 500 || status < 400 && kind == "invalid_request_error":
		return &kindsOfError[kindInvalid]
	}
	return &kindsOfError[kindAPI]
}

func writeError(w *writer, to Dialect, k *kindOfError, message string) {
	if to == AnthropicMessages {
		w.lit(`{"type":"error","error":{`)
		w.field("type", k.anthropic)
		w.field("message", message)
		w.b = append(w.b, '}', '}')
		return
	}
	w.lit(`{"error":{`)
	w.field("message", message)
	w.field("type", k.openAI)
	w.lit(`"param":null`)
	w.key("code")
	if k.code == "" {
		w.lit("null")
	} else {
		w.str(k.code)
	}
	w.b = append(w.b, '}', '}')
}
