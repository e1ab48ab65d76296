// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"

	"github.com/ringfence/ringfence/pkg/kernel"
)

// programOf is what the process of a record runs. The kernel's table of programs
// is one for the node, and who executes much pushes the others' out of it: what
// is not there any more is known from the records of what was executed, of which
// each sandbox has its own share here.
func (c *clients) programOf(h *kernel.Head, o *kernel.Origin) (kernel.Program, bool, error) {
	return c.program(h.PID, o, func(pid uint32) (kernel.Ran, bool) { return c.ran(h, pid) })
}

// ran is what a process of a sandbox had executed last when a record was made. It
// is not known if the kernel has lost records of the sandbox's processes since:
// one of them may have told of another program.
func (c *clients) ran(h *kernel.Head, pid uint32) (kernel.Ran, bool) {
	lost, err := c.lost(h.Sandbox)
	if err != nil {
		c.failed("the losses of a sandbox cannot be read", "error", err)
		return kernel.Ran{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.of[h.Sandbox]
	if t == nil {
		return kernel.Ran{}, false
	}
	for i := len(t.execs) - 1; i >= 0; i-- {
		if x := &t.execs[i]; x.process.PID == pid && !x.at.After(h.Time) {
			return kernel.Ran{Program: x.program, Start: x.process.Start}, x.lost == lost
		}
	}
	return kernel.Ran{}, false
}

// lostProcesses says how many records of a sandbox's processes were not kept.
func (d *Daemon) lostProcesses(sandbox uint32) (uint64, error) {
	all, err := d.fence.LossesOf(sandbox)
	if errors.Is(err, kernel.ErrNoSandbox) {
		return 0, nil // it has ended: there will be no more
	}
	return all[kernel.RingProcesses].Lost(), err
}
