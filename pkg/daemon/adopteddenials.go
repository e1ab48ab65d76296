// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

// adoptedDenials are those that no rule of policy would change: how the adoption
// was asked for decides them. The first that matches says why, and what opens it.
var adoptedDenials = []struct {
	is     func(*sandbox.Record, *kernel.Verdict) bool
	reason string // "": the kernel's own says it
	flag   string // of `ringfence adopt`
	what   string // that the flag does, or has to be done besides
}{
	{
		is: func(r *sandbox.Record, v *kernel.Verdict) bool {
			return v.Hook == kernel.HookEgress && v.Proto == unix.IPPROTO_TCP && !r.Foreign.Inbound && (v.Reason == kernel.ReasonNoRule || v.Reason == kernel.ReasonPastHooks)
		},
		reason: "the packet belongs to no connection that was begun behind the fence: it answers one from outside, or is of one from before",
		flag:   "--inbound", what: "if others connect to it",
	},
	{
		is:     func(r *sandbox.Record, v *kernel.Verdict) bool { return v.Reason == kernel.ReasonUnix },
		reason: "unix sockets are closed for what was adopted",
		flag:   "--unix-sockets", what: "which opens all of them, the host's included",
	},
	{
		is: func(r *sandbox.Record, v *kernel.Verdict) bool {
			return v.Reason == kernel.ReasonNoRule && v.Judged.IsLoopback() && !r.Foreign.HostNet && v.Hook != kernel.HookEgress
		},
		reason: "the loopback of its own network namespace is closed for what was adopted",
		flag:   "--loopback", what: "or give a service of the host a name in a rule with resolvesTo: [127.0.0.1/32]",
	},
	{
		is:   func(r *sandbox.Record, v *kernel.Verdict) bool { return v.Reason == kernel.ReasonNoRelay },
		flag: "--direct", what: "and give a rule for the address",
	},
}

// explainAdopted says of a denial what the adoption has to do with it; false if
// nothing.
func explainAdopted(e *event.Event, r *sandbox.Record, v *kernel.Verdict) bool {
	for _, d := range adoptedDenials {
		if !d.is(r, v) {
			continue
		}
		if d.reason != "" {
			e.Reason = d.reason
		}
		e.Remedy = "release it and adopt it again with " + d.flag + ", " + d.what
		return true
	}
	return false
}

// unixRemedyInside is for what was started with a profile that closes them.
const unixRemedyInside = "run it with a profile that has unixSockets: true"
