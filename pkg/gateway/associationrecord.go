// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"fmt"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/gateway/upstream"
	"github.com/ringfence/ringfence/pkg/policy"
)

// event tells of the whole association.
func (a *association) event() event.Event {
	ev := a.sb.event(event.KindNetwork, "gateway")
	a.mu.Lock()
	defer a.mu.Unlock()
	ev.Time, ev.End, ev.Duration = a.start.UTC(), ev.Time, time.Since(a.start)
	ev.Activity, ev.Proto, ev.PID = "open", policy.UDP.String(), a.sender
	ev.SrcAddr, ev.DstAddr, ev.DstPort, ev.DstName = a.key.client.String(), a.key.dst.String(), a.key.dst.Port(), a.name
	if a.peer.IsValid() {
		ev.PeerAddr = a.peer.String()
	}
	ev.BytesIn, ev.BytesOut, ev.DatagramsIn, ev.DatagramsOut = a.count.bytesIn, a.count.bytesOut, a.count.in, a.count.out
	if a.count.lost > 0 {
		ev.Detail = fmt.Sprintf("%d datagrams were lost here", a.count.lost)
	}
	applyDecision(&ev, a.decision)
	return ev
}

// deny records that the association was refused and why.
func (a *association) deny(code, reason string) {
	ev := a.event()
	ev.Verdict, ev.ReasonCode, ev.Reason = event.Denied, code, reason
	ev.Rule, ev.RuleAt = "", "" // a rule may have allowed it; something else refused
	a.ticket.postFolded(ev)
}

func (a *association) refuse(code, reason string) {
	if !a.finishKilled() {
		a.deny(code, reason)
		a.reject()
	}
}

// denyByPolicy records the decision as it stands, with its remedy.
func (a *association) denyByPolicy() {
	ev := a.event()
	ev.Remedy = a.sb.remedy(ev.DstName, a.key.dst, policy.UDP)
	a.ticket.postFolded(ev)
	a.reject()
}

// dialFailed records whether policy or the network was the reason.
func (a *association) dialFailed(err error) {
	if a.finishKilled() {
		return
	}
	var refused *upstream.RefusedError
	if errors.As(err, &refused) {
		a.refuse(refused.Code(), refused.Error())
		return
	}
	ev := a.event()
	ev.Activity, ev.Failed = "fail", true
	ev.ReasonCode, ev.Reason, ev.Detail = codeUpstream, "policy allowed it, but "+upstream.Why(err, "the destination"), short(err)
	var unresolved *upstream.ResolveError
	if errors.As(err, &unresolved) {
		ev.ReasonCode = codeResolve
	}
	a.ticket.postFolded(ev)
	a.reject()
}

// stillOpen tells of an association that lasts, before it ends.
func (a *association) stillOpen() {
	if t := a.sb.g.rec.reserve(a.sb.cfg.ID); t != nil { // the one at the end has its place
		t.post(a.event())
	}
}

// finish records the end.
func (a *association) finish() {
	if a.finishKilled() {
		return
	}
	ev := a.event()
	ev.Activity = "close"
	a.mu.Lock()
	nobody := a.count.closed > 0 && a.count.in == 0
	a.mu.Unlock()
	if nobody {
		ev.Failed, ev.ReasonCode, ev.Reason = true, codeUpstream, "policy allowed it, but nobody is at that port of the destination"
	}
	a.ticket.post(ev)
}

// finishKilled records an association that we cut; false when we have not.
func (a *association) finishKilled() bool {
	a.mu.Lock()
	code, why := a.killed, a.why
	a.mu.Unlock()
	if code == "" {
		return false
	}
	ev := a.event()
	ev.Activity = "reset"
	cut(&ev, code, why)
	a.ticket.post(ev)
	return true
}
