// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
)

// recordOperator writes what an operator did, or was refused, to the log: who,
// by which program, from where and what.
func (d *Daemon) recordOperator(a api.Action) {
	e := operatorEvent(a, d.people.spell)
	e.Time, e.Version = time.Now().UTC(), d.version
	d.log.Post(e)
}

// operatorEvent is the record of an action. One that was admitted and did not
// come about has failed; only one that the caller may not do is denied.
func operatorEvent(a api.Action, spell func(uid uint32) string) *event.Event {
	e := &event.Event{Kind: event.KindOperator, Source: "keeper", Verdict: event.Allowed, Reason: "done",
		Activity: a.Method, Object: a.Path, Sandbox: a.Sandbox, Scope: a.Scope}
	if c := a.Caller; c != nil {
		e.Actor, e.UID, e.PID, e.Exe, e.Comm = spell(c.UID), c.UID, uint32(c.PID), c.Exe, c.Comm
		if c.Cgroup != "" {
			e.Detail = "from the cgroup " + c.Cgroup
		}
	}
	e.Detail = strings.TrimPrefix(strings.TrimSuffix(a.What+"; "+e.Detail, "; "), "; ")
	switch {
	case a.Err == nil:
	case api.IsRefusal(a.Err):
		e.Verdict, e.Reason, e.ReasonCode = event.Denied, a.Err.Error(), string(api.CodeOf(a.Err))
	default:
		e.Failed, e.Reason, e.ReasonCode = true, a.Err.Error(), string(api.CodeOf(a.Err))
	}
	return e
}
