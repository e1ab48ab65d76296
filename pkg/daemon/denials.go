// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/audit/landlock"
	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/keeper"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

// readDenials starts the reader of file denials, if the operator turned it on
// with audit.landlock. The returned function puts the machine's audit state
// back.
func (d *Daemon) readDenials(ctx context.Context, wg *sync.WaitGroup) (restore func()) {
	if !d.cfg.Audit.Landlock {
		return func() {}
	}
	err := os.MkdirAll(d.cfg.LockDir, 0o700)
	var f *os.File
	var undo func() error
	if err == nil {
		f, undo, err = landlock.OpenSocket(true, filepath.Join(d.cfg.LockDir, "audit"))
	}
	if err != nil {
		d.logger.Error("file denials are not recorded", "error", err)
		d.daemonEvent("degraded", "audit.landlock is set, but the kernel's audit log cannot be read: "+err.Error())
		return func() {}
	}
	d.daemonEvent("audit-enabled", "the kernel's audit log is read for file denials (audit.landlock)")
	wg.Go(func() {
		defer f.Close()
		keeper.RunReader(ctx, keeper.ReaderOptions{
			Binary: ownBinary, CgroupFD: d.gwCgroup, UID: d.cfg.Gateway.UID, GID: d.cfg.Gateway.GID,
			Filter: d.filter, Audit: f, Take: d.takeDenial, Log: d.log, Now: time.Now, Logger: d.logger,
		})
	})
	wg.Go(func() { d.lostDenials.tell(ctx, d.log.Post) })
	return func() {
		if err := undo(); err != nil {
			d.logger.Error("restore the machine's audit state", "error", err)
		}
	}
}

// sayRefusals tells when refused system calls are asked for and not recorded.
func (d *Daemon) sayRefusals() {
	if err := d.fence.Refusals(); err != nil && !errors.Is(err, kernel.ErrNotWanted) {
		d.logger.Error("refused system calls are not recorded", "error", err)
		d.daemonEvent("degraded", "audit.syscalls is set, but this kernel cannot record refused system calls: "+err.Error())
	}
}

// takeDenial finds the sandbox of a file denial by the process that made the
// Landlock domain: ringfence-init, or a program below it that confined itself
// further. Denials of others on the machine are not ours to record. Those of
// which nobody can say whose they are are counted: of a domain that the kernel
// described to a former reader, or of a program below init that is gone.
func (d *Daemon) takeDenial(e *event.Event) {
	e.Version = d.version
	if e.Kind == event.KindLoss {
		d.log.Post(e)
		return
	}
	s := d.sandboxOf(int(e.PID))
	if s == nil {
		d.takeLate(e)
		return
	}
	e.Sandbox, e.Scope, e.UID = s.Record.ID, s.Principal.String(), s.Record.UID
	e.Path = guarded(e.Path)
	s.CountDenial(max(e.Count, 1))
	d.repeats.take(e)
}

// guarded is the path that a decoy stands for.
func guarded(path string) string {
	if real, ok := strings.CutPrefix(path, confine.GuardDir+"/"); ok {
		return "/" + real
	}
	return path
}

// takeLate records a denial whose sandbox has ended meanwhile.
func (d *Daemon) takeLate(e *event.Event) {
	id, lost := d.lateInits.find(e)
	if p, known := d.sandboxes.Principal(id); id != "" && known {
		e.Sandbox, e.Scope, e.Path = id, p.String(), guarded(e.Path)
		d.repeats.take(e)
		return
	}
	if lost {
		d.lostDenials.add(time.Now(), max(e.Count, 1), d.log.Post)
	}
}

func (d *Daemon) sandboxOf(pid int) *sandbox.Sandbox {
	for _, s := range d.sandboxes.List() {
		if s.Record.Init.PID == pid {
			return s
		}
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for _, s := range d.sandboxes.List() {
			if own := strings.TrimPrefix(s.Record.Cgroup, d.cgroupRoot); path == own || strings.HasPrefix(path, own+"/") {
				return s
			}
		}
	}
	return nil
}
