// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"net/http"
)

// Action is one thing that an operator did or tried, for the record: every
// request that changes something, and every refusal.
type Action struct {
	Caller       *Caller
	Method, Path string
	What         string // in words, "" when it was refused before that was known
	Sandbox      string // the id of the sandbox it was about, "" if none
	Scope        string // the scope it was about, "" if none or not known
	// Err is nil when it was admitted and done. What the caller was told was not
	// there, and is, is CodeDenied here.
	Err error
}

// note says in words what a request asks for, for the record.
func (c *call) note(format string, args ...any) { c.what = fmt.Sprintf(format, args...) }

// audit records a request once, when its outcome is known.
func (s *Server) audit(c *call, err error) {
	if c.audited {
		return
	}
	c.audited = true
	if c.hidden != "" && CodeOf(err) == CodeNotFound {
		err = denied(c.hidden, "")
	}
	if s.o.Audit == nil || c.Method == http.MethodGet && !IsRefusal(err) {
		return
	}
	a := Action{Caller: c.caller, Method: c.Method, Path: c.URL.Path, What: c.what, Err: err}
	if !IsRefusal(err) { // else it is only what the caller wrote, and who belongs there would be shown who the caller is
		a.Scope = c.scope
	}
	if c.box != nil {
		a.Sandbox, a.Scope = c.box.ID, c.box.Scope
	}
	s.o.Audit(a)
}

// IsRefusal says whether err refused the caller, and not what was asked for.
func IsRefusal(err error) bool {
	code := CodeOf(err)
	return code == CodeDenied || code == CodeInSandbox
}
