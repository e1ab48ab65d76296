// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/refusal"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

// record turns one record of the kernel into an event. Allowed flows are
// recorded by the gateway, which knows how they went on.
func (d *Daemon) record(r kernel.Record) {
	if d.sandboxes.Probed(r) {
		return // the launch of a sandbox looked at it: see sandbox.Manager.Probed
	}
	switch r := r.(type) {
	case *kernel.Verdict:
		switch {
		case r.Allowed && r.Sandbox != gatewayNumber && r.Sandbox != listenersNumber:
			d.clients.add(r)
		case !r.Allowed && !r.Ended: // the gateway records the end of a flow
			d.recordDenial(r)
		}
	case *kernel.Refusal:
		d.recordRefusal(r)
	case *kernel.Guarded:
		d.recordGuarded(r)
	case *kernel.Exec:
		d.clients.exec(r)
		d.recordExec(r)
	case *kernel.Exit:
		d.recordExit(r)
	}
}

// about begins an event on a sandbox.
func (d *Daemon) about(k event.Kind, h kernel.Head) (*event.Event, *sandbox.Sandbox) {
	e := &event.Event{Kind: k, Time: h.Time, Source: "kernel", Layer: "kernel", PID: h.PID, Version: d.version}
	s, ok := d.sandboxes.Sandbox(h.Sandbox)
	switch {
	case ok:
		e.Sandbox, e.Scope = s.Record.ID, s.Principal.String()
	case h.Sandbox == gatewayNumber, h.Sandbox == listenersNumber:
		e.Object = "gateway"
	default: // it ended before its records were read
		id := sandbox.IDOf(h.Sandbox)
		if p, known := d.sandboxes.Principal(id); known {
			e.Sandbox, e.Scope = id, p.String()
		}
	}
	return e, s
}

// addressHooks judge a destination address; the others judge a socket.
var addressHooks = map[kernel.Hook]string{
	kernel.HookConnect4: "connect", kernel.HookConnect6: "connect", kernel.HookSendmsg4: "sendmsg", kernel.HookSendmsg6: "sendmsg",
	kernel.HookLSMConnect: "connect", kernel.HookLSMSendmsg: "sendmsg",
}

var socketHooks = map[kernel.Hook]string{
	kernel.HookSockCreate: "socket", kernel.HookEgress: "send", kernel.HookConnectUnix: "connect", kernel.HookSendmsgUnix: "sendmsg",
	kernel.HookLSMSocket: "socket",
}

func (d *Daemon) recordDenial(v *kernel.Verdict) {
	kind, activity := event.KindNetwork, addressHooks[v.Hook]
	switch {
	case activity == "":
		kind, activity = event.KindKernelDenial, socketHooks[v.Hook]
	case !v.Dst.IsValid(): // the third lock has one hook for every family
		kind = event.KindKernelDenial
	}
	e, s := d.about(kind, v.Head)
	e.Verdict, e.Activity = event.Denied, activity
	if guardHooks[v.Hook] {
		e.Layer = guardLayer
	}
	why := reasonOf(v)
	e.ReasonCode, e.Reason = why.String(), why.Text()
	e.Revision = uint64(v.Generation)
	d.describe(e, &v.Head, &v.Origin)
	e.Status = uint32(v.Errno)
	e.Proto = protoName(v)
	if v.Dst.Addr().IsValid() {
		e.DstAddr, e.DstPort = v.Dst.String(), v.Dst.Port()
	}
	if kind == event.KindKernelDenial {
		e.SocketInfo = fmt.Sprintf("family=%d type=%d protocol=%d", v.Family, v.SockType, v.Proto)
	}
	var then func(*event.Event)
	if s != nil {
		s.CountDenial(1)
		d.explainDenial(e, s, v)
		then = d.draft // once for all repeats
	} else if e.Object == "gateway" {
		e.Severity = event.SeverityHigh
		e.Detail = "the gateway itself tried to connect where no document lets it"
	}
	d.repeats.takeFor(e, then)
}

// describe names the process of a denial. That its program is not known leaves
// it out: a record is worth more than a word in it.
func (d *Daemon) describe(e *event.Event, h *kernel.Head, o *kernel.Origin) {
	e.UID, e.Comm, e.PPID, e.Parents = o.UID, o.Comm, o.PPID(), parents(o.Ancestors)
	if h.PID == 0 {
		return
	}
	p, ok, err := d.clients.programOf(h, o)
	if err != nil {
		d.logger.Warn("the program of a process cannot be read", "error", err)
	}
	if ok {
		e.Exe, e.Args = p.Filename, p.CommandLine()
	}
}

// recordRefusal is for system calls that no cgroup hook judged.
func (d *Daemon) recordRefusal(r *kernel.Refusal) {
	e, ok := refusal.Event(r)
	if !ok {
		return
	}
	who, s := d.about(e.Kind, r.Head)
	if who.Sandbox == "" {
		return
	}
	if s != nil && s.Record.Foreign != nil {
		return // no system call is refused to it by Ringfence
	}
	e.Sandbox, e.Scope, e.Version = who.Sandbox, who.Scope, who.Version
	d.describe(&e, &r.Head, &r.Origin)
	e.Path = guarded(e.Path)
	if s != nil {
		s.CountDenial(1)
		e.Remedy = readOnlyRemedy(&e, &s.Record)
	}
	d.repeats.take(&e)
}

// readOnlyRemedy is for a write into a workspace that the profile shows
// read-only. A relative path is taken for one of the workspace, where programs
// start: little else that they stand in is read-only.
func readOnlyRemedy(e *event.Event, r *sandbox.Record) string {
	if e.ReasonCode != "read-only" || r.Workspace == "" || r.Handback { // handed back is what it may write
		return ""
	}
	p := e.Path
	if !path.IsAbs(p) {
		p = path.Join(r.Workspace, p)
	}
	if p = path.Clean(p); p != r.Workspace && !strings.HasPrefix(p, strings.TrimSuffix(r.Workspace, "/")+"/") {
		return ""
	}
	return "run it with --profile coding, which may write the workspace"
}

// reasonOf is why the kernel said what it said. An entry without a rule stands in
// its table where a prefix ends that reaches what is not public: no rule, then.
func reasonOf(v *kernel.Verdict) kernel.Reason {
	if v.Reason == kernel.ReasonRule && v.Rule == 0 && !v.Allowed {
		return kernel.ReasonNoRule
	}
	return v.Reason
}

// explainDenial adds the name, the deciding rule and what would allow it, of which
// only the last is of the present.
func (d *Daemon) explainDenial(e *event.Event, s *sandbox.Sandbox, v *kernel.Verdict) {
	switch {
	case s.Record.Foreign != nil:
		if explainAdopted(e, &s.Record, v) {
			return
		}
	case v.Reason == kernel.ReasonUnix:
		e.Remedy = unixRemedyInside
	}
	proto := policy.Proto(v.Proto)
	if v.Dst.Port() == 0 || addressHooks[v.Hook] == "" || proto != policy.TCP && proto != policy.UDP {
		return
	}
	view := s.View().Ahead() // as the kernel's table was made; nothing that a sandbox does has the keeper evaluate expressions
	host := v.Judged.String()
	if name := s.Name(v.Judged); name != "" {
		e.DstName, host = name, name
	} else if sandbox.VirtualPrefix.Contains(v.Judged) {
		e.Reason = "this virtual address stands for no name in this sandbox"
		return
	}
	dec := deniedBy(view, e.DstName, v)
	e.Rule, e.RuleAt = dec.Rule.String(), ruleAt(dec.Rule.File, dec.Rule.Line)
	if e.Shadow = dec.WouldBe(); e.Shadow != "" {
		d.shadowDenials[dec.Shadow().Effect].Add(1)
	}
	e.Remedy = view.Remedy(host, v.Dst.Port(), proto)
}

// deniedBy is the decision about a name, or without one about a literal address,
// with the rule that the kernel's record has. It is of the revision that the record
// names, or none: where another is in force by now, the numbers of rules and what
// decides are others.
func deniedBy(view *policy.View, name string, v *kernel.Verdict) (d policy.Decision) {
	if uint32(view.Revision()) != v.Generation {
		return d
	}
	proto := policy.Proto(v.Proto)
	if name != "" {
		return decide(view, policy.Target{Host: policy.HostPattern{Kind: policy.HostExact, Name: name}, Port: v.Dst.Port(), Proto: proto})
	}
	d = view.Addr(v.Judged, v.Dst.Port(), proto)
	if d.Rule = (policy.RuleRef{}); v.Reason == kernel.ReasonRule {
		d.Rule, _, _ = view.Snapshot().Rule(v.Rule)
	}
	return d
}

func ruleAt(file string, line int) string {
	if file == "" {
		return ""
	}
	return file + ":" + strconv.Itoa(line)
}

var protoNames = map[uint16]string{
	unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_ICMPV6: "icmpv6",
	unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_UDPLITE: "udplite", unix.IPPROTO_MPTCP: "mptcp", unix.IPPROTO_RAW: "raw",
}

func protoName(v *kernel.Verdict) string {
	switch {
	case v.Family == unix.AF_UNIX:
		return "unix"
	case v.SockType == unix.SOCK_RAW:
		return "raw"
	}
	if n := protoNames[v.Proto]; n != "" {
		return n
	}
	return strconv.Itoa(int(v.Proto))
}

// ofInit says whether a process is a sandbox's own ringfence-init, of which
// start and stop of the sandbox tell. s is nil for one that has ended.
func (d *Daemon) ofInit(e *event.Event, s *sandbox.Sandbox) bool {
	if s != nil {
		return s.Record.Init.PID == int(e.PID)
	}
	id, _ := d.lateInits.find(e)
	return id != "" && id == e.Sandbox
}

func (d *Daemon) recordExec(x *kernel.Exec) {
	e, s := d.about(event.KindExec, x.Head)
	if e.Sandbox == "" || d.ofInit(e, s) {
		return // the gateway's threads, or a sandbox that ended meanwhile
	}
	e.Verdict, e.Activity = event.Observed, "exec"
	e.UID, e.Comm, e.PPID, e.Parents = x.UID, x.Comm, x.PPID(), parents(x.Ancestors)
	e.Exe, e.Args = x.Filename, x.CommandLine()
	d.repeats.each(e)
}

func parents(chain []kernel.Ancestor) string {
	parts := make([]string, len(chain))
	for i, a := range chain {
		parts[i] = fmt.Sprintf("%d:%s", a.PID, a.Comm)
	}
	return strings.Join(parts, " < ")
}

func (d *Daemon) recordExit(x *kernel.Exit) {
	e, s := d.about(event.KindExit, x.Head)
	if e.Sandbox == "" {
		return
	}
	e.Verdict, e.Activity = event.Observed, "exit"
	e.UID, e.PPID, e.Comm = x.UID, x.PPID, x.Comm
	e.Status = uint32(x.Status.ExitStatus())
	e.Reason = fmt.Sprintf("exit status %d", x.Status.ExitStatus())
	if x.Status.Signaled() {
		e.Status = uint32(128 + int(x.Status.Signal()))
		e.Reason = "killed by " + x.Status.Signal().String()
	}
	if !x.Started.IsZero() {
		e.Duration = x.Time.Sub(x.Started)
	}
	if !d.ofInit(e, s) {
		d.repeats.each(e)
	}
	if x.Status.Signal() == unix.SIGSYS {
		d.recordKilled(x)
	}
}

// recordKilled: the system call filter ends a process that calls the kernel by
// a foreign architecture's way in. Which call it was, nobody says, nor whether
// the process did not send itself the signal.
func (d *Daemon) recordKilled(x *kernel.Exit) {
	e, s := d.about(event.KindSyscall, x.Head)
	e.Verdict, e.Activity, e.Object = event.Denied, "kill", "foreign architecture"
	e.UID, e.PPID, e.Comm, e.Status = x.UID, x.PPID, x.Comm, uint32(128+int(unix.SIGSYS))
	e.Layer, e.ReasonCode = "seccomp", "foreign-call"
	e.Reason = "ended by SIGSYS, which the system call filter sends for a call by another architecture's way in"
	if s != nil {
		s.CountDenial(1)
	}
	d.repeats.take(e)
}
