// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

// Exit codes of every command but run and exec, which pass the program's own
// on and use 125 (nothing ran), 126, 127 and 128+signal.
const (
	exitOK          = 0
	exitGeneric     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitDenied      = 4
	exitUnreachable = 6
	exitDegraded    = 7
	exitNothingRan  = 125
)

// exitError is an error that chooses the exit code. A nil Err prints nothing.
type exitError struct {
	Code   int
	Err    error
	Remedy string
}

func (e *exitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return e.Err.Error()
}

func (e *exitError) Unwrap() error { return e.Err }

// quiet ends with a code and without a message.
func quiet(code int) error {
	if code == exitOK {
		return nil
	}
	return &exitError{Code: code}
}

// programExit passes on the exit code of a program that ran, whatever it is.
type programExit struct{ code int }

func (e *programExit) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// usagef is a mistake in the command line.
func usagef(format string, args ...any) error {
	return &exitError{Code: exitUsage, Err: fmt.Errorf(format, args...)}
}

// nothingRan marks every error of run and exec before the program was started
// with code 125, unless it already has one of the codes of a launch.
func nothingRan(err error) error {
	if err == nil {
		return nil
	}
	var ran *programExit
	var e *exitError
	if errors.As(err, &ran) || errors.As(err, &e) && e.Code >= exitNothingRan {
		return err
	}
	return &exitError{Code: exitNothingRan, Err: err, Remedy: remedyOf(err)}
}

// exitCode finds the code for an error.
func exitCode(err error) int {
	var ran *programExit
	var e *exitError
	var u *api.UnreachableError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &ran):
		return ran.code
	case errors.As(err, &e):
		return e.Code
	case errors.As(err, &u) && u.Denied():
		return exitDenied
	case errors.As(err, &u):
		return exitUnreachable
	case errors.Is(err, context.Canceled):
		return 130
	}
	switch api.CodeOf(err) {
	case api.CodeNotFound:
		return exitNotFound
	case api.CodeDenied, api.CodeInSandbox:
		return exitDenied
	case api.CodeBadRequest:
		return exitUsage
	}
	return exitGeneric
}

// remedyOf finds what the caller can do.
func remedyOf(err error) string {
	var e *exitError
	if errors.As(err, &e) && e.Remedy != "" {
		return e.Remedy
	}
	var u *api.UnreachableError
	if errors.As(err, &u) {
		return u.Remedy()
	}
	var a *api.Error
	if errors.As(err, &a) {
		return a.Remedy
	}
	return ""
}

// printError writes an error for people, or as one JSON object.
func printError(w io.Writer, err error, asJSON bool) {
	var ran *programExit
	var e *exitError
	if errors.As(err, &ran) || errors.As(err, &e) && e.Err == nil {
		return
	}
	remedy := remedyOf(err)
	if asJSON {
		out := api.Error{Message: err.Error(), Remedy: remedy, Code: api.CodeOf(err)}
		if b, jerr := json.Marshal(out); jerr == nil {
			_, _ = fmt.Fprintf(w, "%s\n", show.SafeJSON(b))
			return
		}
	}
	for i, line := range strings.Split(strings.TrimRight(err.Error(), "\n"), "\n") {
		if i == 0 {
			line = "ringfence: " + line
		}
		_, _ = fmt.Fprintln(w, show.Text(line, 2000))
	}
	if remedy != "" {
		_, _ = fmt.Fprintln(w, "  "+show.Text(remedy, 1000))
	}
}
