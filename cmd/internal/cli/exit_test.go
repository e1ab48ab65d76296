// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
)

func TestErrorsChooseTheirCode(t *testing.T) {
	tests := []struct {
		name string
		err  error
		code int
		text string
	}{
		{"no socket", &api.UnreachableError{Socket: "/s", Err: fs.ErrNotExist}, 6, "start ringfenced"},
		{"nobody listens", &api.UnreachableError{Socket: "/s", Err: syscall.ECONNREFUSED}, 6, "start ringfenced"},
		{"the socket's mode", &api.UnreachableError{Socket: "/s", Err: syscall.EACCES}, 4, "usermod -aG ringfence"},
		{"not found", api.Errorf(api.CodeNotFound, "x"), 3, "x"},
		{"denied", api.Errorf(api.CodeDenied, "x").WithRemedy("do y"), 4, "do y"},
		{"in a sandbox", api.Errorf(api.CodeInSandbox, "x"), 4, "x"},
		{"bad request", fmt.Errorf("w: %w", api.Errorf(api.CodeBadRequest, "x")), 2, "x"},
		{"unavailable", api.Errorf(api.CodeUnavailable, "x"), 1, "x"},
		{"other", errors.New("x\x1b[2J"), 1, `x\x1b[2J`},
		{"usage", usagef("x"), 2, "x"},
		{"nothing ran", nothingRan(usagef("x")), 125, "x"},
		{"nothing ran for a reason of its own", nothingRan(&exitError{Code: 127, Err: errors.New("x")}), 127, "x"},
		{"the program's", nothingRan(&programExit{code: 2}), 2, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			printError(&out, tt.err, false)
			if got := exitCode(tt.err); got != tt.code || !strings.Contains(out.String(), tt.text) || strings.Contains(out.String(), "\x1b") {
				t.Errorf("%d %q", got, out.String())
			}
			if tt.text == "" && out.Len() > 0 {
				t.Errorf("said %q", out.String())
			}
		})
	}
}
