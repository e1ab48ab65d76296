// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"net/http"
)

// Code is a stable short word for what went wrong. The zero value is an
// internal error.
type Code string

const (
	CodeInternal    Code = "internal"
	CodeBadRequest  Code = "bad-request"
	CodeTooLarge    Code = "too-large"
	CodeNotFound    Code = "not-found"
	CodeAmbiguous   Code = "ambiguous"
	CodeDenied      Code = "denied"     // the caller may not
	CodeInSandbox   Code = "in-sandbox" // the caller lives in a sandbox
	CodeConflict    Code = "conflict"   // wrong state, name taken
	CodeUnsupported Code = "unsupported"
	CodeUnavailable Code = "unavailable" // a part of the node is away or full
)

// httpStatus maps codes to HTTP.
var httpStatus = map[Code]int{
	CodeInternal:    http.StatusInternalServerError,
	CodeBadRequest:  http.StatusBadRequest,
	CodeTooLarge:    http.StatusRequestEntityTooLarge,
	CodeNotFound:    http.StatusNotFound,
	CodeAmbiguous:   http.StatusConflict,
	CodeDenied:      http.StatusForbidden,
	CodeInSandbox:   http.StatusForbidden,
	CodeConflict:    http.StatusConflict,
	CodeUnsupported: http.StatusNotImplemented,
	CodeUnavailable: http.StatusServiceUnavailable,
}

// Error is the body of every answer that is not a success. A Backend returns
// one to choose the code; any other error of a Backend becomes CodeInternal
// with its text.
type Error struct {
	Message string `json:"error"`            // what was refused or failed, one line
	Detail  string `json:"detail,omitempty"` // why
	Remedy  string `json:"remedy,omitempty"` // what the caller can do
	Code    Code   `json:"code"`
}

// Error joins message and detail.
func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Message
	}
	return e.Message + ": " + e.Detail
}

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithRemedy returns a copy that names what the caller can do.
func (e *Error) WithRemedy(remedy string) *Error {
	c := *e
	c.Remedy = remedy
	return &c
}

// asError turns any error into the one that is sent.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: CodeInternal, Message: err.Error()}
}

// CodeOf returns the code of err, or "" if it is no Error of this package.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// LaunchFailure says that a sandbox or an exec was not established. A Backend
// returns it from Launch and Exec; other errors become one with code 125.
type LaunchFailure struct {
	Code    int    `json:"code"` // exit code for `ringfence run`: 125 nothing ran, 126 not executable, 127 not found
	Message string `json:"message"`
	Missing string `json:"missing,omitempty"` // the feature, tool or right that is not there
	Remedy  string `json:"remedy,omitempty"`
}

// Error names what is missing.
func (f *LaunchFailure) Error() string {
	if f.Missing == "" {
		return f.Message
	}
	return f.Message + " (missing: " + f.Missing + ")"
}

// asFailure turns any launch error into the one that is sent.
func asFailure(err error) *LaunchFailure {
	var f *LaunchFailure
	if errors.As(err, &f) {
		c := *f
		if c.Code < 125 || c.Code > 127 {
			c.Code = 125
		}
		return &c
	}
	out := &LaunchFailure{Code: 125, Message: err.Error()}
	var e *Error
	if errors.As(err, &e) {
		out.Remedy = e.Remedy
	}
	return out
}
