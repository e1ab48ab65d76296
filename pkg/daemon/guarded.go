// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"path"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

// wayActivities are the verbs that refused calls have too.
var wayActivities = map[kernel.Way]string{
	kernel.WayCreate: "create", kernel.WayMkdir: "create", kernel.WaySymlink: "create", kernel.WayLink: "link", kernel.WayRename: "rename",
}

// recordGuarded is for what the third lock refused, other than sockets.
func (d *Daemon) recordGuarded(g *kernel.Guarded) {
	kind := event.KindSyscall
	if g.Hook == kernel.HookLSMEntry || g.Hook == kernel.HookLSMExec {
		kind = event.KindFile
	}
	e, s := d.about(kind, g.Head)
	describeGuarded(e, g)
	d.describe(e, &g.Head, &g.Origin)
	if s != nil {
		s.CountDenial(1)
	}
	d.repeats.take(e)
}

// describeGuarded says what was refused, and why.
func describeGuarded(e *event.Event, g *kernel.Guarded) {
	e.Verdict, e.Layer = event.Denied, guardLayer
	e.ReasonCode, e.Reason = g.Reason.String(), g.Reason.Text()
	e.Revision = uint64(g.Generation)
	e.Status = uint32(g.Errno)
	switch g.Hook {
	case kernel.HookLSMEntry:
		e.Activity, e.Path = wayActivities[g.Way], path.Join(g.Parent, g.Name)
		e.Remedy = "make it outside the sandbox, or leave it out of files.guard (hooks of git: git.protect) in the profile"
	case kernel.HookLSMExec:
		e.Activity, e.Path = "execute", g.Name
	case kernel.HookLSMUserns:
		e.Activity, e.Object = "unshare", "user namespace"
	case kernel.HookLSMURing:
		e.Activity, e.Object = "io_uring_setup", "io_uring"
	}
}

// guardLayer is the third lock in events.
const guardLayer = "bpf-lsm"

// guardHooks are those of its hooks that give verdicts on sockets.
var guardHooks = map[kernel.Hook]bool{kernel.HookLSMSocket: true, kernel.HookLSMConnect: true, kernel.HookLSMSendmsg: true}

// guardPart is what operators see of the third lock.
func guardPart(r *sandbox.Record) api.Part {
	if len(r.Guard) == 0 {
		p := api.Part{Name: "bpf_lsm", State: api.Absent, Detail: r.Unguarded}
		switch {
		case r.Foreign != nil:
			p.Detail = "not used for what was adopted"
		case r.Unguarded == "":
			p.Detail = "not used for what a version without it started"
		default:
			p.Remedy = "ringfence doctor"
		}
		return p
	}
	detail := "refuses at"
	for _, h := range r.Guard {
		detail += " " + h
	}
	return api.Part{Name: "bpf_lsm", State: api.Enforced, Detail: detail}
}
