// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/kernel"
)

// What the kernel has forgotten, because a neighbour executed much, is known
// from the sandbox's own records; never what another's say, or what may be old.
func TestProgramsThatTheKernelForgot(t *testing.T) {
	began := time.Now()
	c := knownClients()
	c.program = func(pid uint32, o *kernel.Origin, forgotten func(uint32) (kernel.Ran, bool)) (kernel.Program, bool, error) {
		r, ok := forgotten(pid)
		return r.Program, ok && r.Start == o.Start, nil
	}
	ran := func(sandbox, pid uint32, start uint64, after time.Duration, file string) {
		c.exec(&kernel.Exec{Head: kernel.Head{Time: began.Add(after), Sandbox: sandbox, PID: pid}, Origin: kernel.Origin{Start: start}, Program: kernel.Program{Filename: file}})
	}
	asks := func(sandbox, pid uint32, start uint64, after time.Duration) string {
		p, ok, err := c.programOf(&kernel.Head{Time: began.Add(after), Sandbox: sandbox, PID: pid}, &kernel.Origin{Start: start})
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return ""
		}
		return p.Filename
	}
	ran(1, 100, 5, 0, "/bin/first")
	ran(1, 100, 5, 2*time.Second, "/bin/second")
	for range 10 * sandboxMost {
		ran(2, 200, 6, 0, "/bin/flood")
	}
	for _, tt := range []struct {
		sandbox, pid uint32
		start        uint64
		after        time.Duration
		want         string
	}{
		{1, 100, 5, time.Second, "/bin/first"}, {1, 100, 5, 3 * time.Second, "/bin/second"}, {1, 100, 5, -time.Second, ""},
		{1, 100, 6, time.Second, ""}, {1, 200, 6, time.Second, ""}, {2, 100, 5, time.Second, ""}, {2, 200, 6, time.Second, "/bin/flood"}, {3, 100, 5, time.Second, ""},
	} {
		if got := asks(tt.sandbox, tt.pid, tt.start, tt.after); got != tt.want {
			t.Errorf("process %d of sandbox %d after %v runs %q, want %q", tt.pid, tt.sandbox, tt.after, got, tt.want)
		}
	}
	c.lost = func(sandbox uint32) (uint64, error) { return 1, nil }
	if got := asks(1, 100, 5, 3*time.Second); got != "" {
		t.Errorf("%q, although records of it were lost", got)
	}
	ran(1, 100, 5, 4*time.Second, "/bin/third")
	if got := asks(1, 100, 5, 5*time.Second); got != "/bin/third" {
		t.Errorf("%q, read after the loss", got)
	}
}
