// SPDX-License-Identifier: Apache-2.0

package refusal

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/seccomp"
)

// layer is which wall answered, and its words.
type layer struct{ name, code, reason string }

// byErrno are the layers that an error number alone gives away, for calls that
// name a path or socket.
var byErrno = map[unix.Errno]layer{
	unix.EROFS:           {"mount", "read-only", "it is read-only in the sandbox's view"},
	unix.ENOENT:          {"mount", "not-in-view", "the sandbox's view does not hold it"},
	unix.ENOTDIR:         {"mount", "not-in-view", "the sandbox's view does not hold it"},
	unix.EBUSY:           {"mount", "guarded", "it is guarded by a mount of its own"},
	unix.EXDEV:           {"mount", "guarded", "it would lead from one mount or domain into another"},
	unix.ETXTBSY:         {"mount", "in-use", "the program runs"},
	unix.EACCES:          {"files", "files", "the file rules of the profile, or the file's own permissions, do not allow it"},
	unix.EPERM:           {"files", "files", "the file is another user's, or a rule of the kernel protects it"},
	unix.ECONNREFUSED:    {"netns", "own-loopback", "loopback is the sandbox's own and nothing listens there; the host's is out of reach"},
	unix.EAFNOSUPPORT:    {"seccomp", "family", "this family of sockets is closed"},
	unix.EPROTONOSUPPORT: {"seccomp", "protocol", "only TCP and UDP are open"},
}

var (
	unknownCall = layer{"seccomp", "unknown-call", "the system call filter does not let it through"}
	noProcess   = layer{"pidns", "no-such-process", "the sandbox holds no such process"}
	noObject    = layer{"ipcns", "no-such-object", "the sandbox has its own IPC objects, and no such one"}
	dropped     = layer{"kernel", "dropped", "the socket, the packet or its destination is closed to a sandbox"}
	noRight     = layer{"capabilities", "no-right", "nobody in a sandbox has the right to it"}
)

// strictest lists the filter's rules. A call that a wider filter lets through
// does not fail with the rule's error, so the strictest one serves for all.
var strictest = seccomp.Rules(seccomp.Strict())

func (g *group) has(call string) bool { return slices.Contains(strings.Fields(g.calls), call) }

func groupOf(call string) group {
	for _, g := range groups {
		if g.has(call) {
			return g
		}
	}
	return group{}
}

// byRule finds the rule of the filter that refuses such a call.
func byRule(call string, r *kernel.Refusal) (layer, bool) {
	for _, rule := range strictest {
		if unix.Errno(rule.Errno) == r.Errno && slices.Contains(rule.Calls, call) && rule.Matches(r.Args) {
			return layer{"seccomp", "filter", rule.Why}, true
		}
	}
	return layer{}, false
}

func layerOf(call string, r *kernel.Refusal) layer {
	if l, ok := byRule(call, r); ok {
		return l
	}
	if r.Errno == unix.ENOSYS {
		return unknownCall
	}
	named := r.Subject == kernel.SubjectPath || r.Subject == kernel.SubjectSockaddr
	if l, ok := byErrno[r.Errno]; ok && (named || strings.HasPrefix(call, "socket")) {
		return l
	}
	if strings.HasPrefix(call, "send") {
		return dropped
	}
	switch r.Errno {
	case unix.ESRCH:
		return noProcess
	case unix.ENOENT:
		return noObject
	case unix.EROFS:
		return byErrno[unix.EROFS]
	}
	return noRight
}

// Event puts a refusal into words. It sets neither sandbox nor scope. ok is
// false for what is none after all: a connection that somebody else refused, a
// signal to everybody where nobody else is.
func Event(r *kernel.Refusal) (e event.Event, ok bool) {
	call := seccomp.Name(r.Call)
	g, l := groupOf(call), layerOf(call, r)
	e = event.Event{
		Time: r.Time, Source: "kernel", Verdict: event.Denied, Layer: l.name, ReasonCode: l.code, Reason: l.reason,
		PID: r.PID, PPID: r.PPID(), UID: r.UID, Comm: r.Comm, Status: uint32(r.Errno),
		Kind: event.KindSyscall, Object: call, Activity: g.activity, Detail: errnoName(r.Errno),
	}
	switch {
	case call == "kill" && r.Errno == unix.ESRCH && int32(r.Args[0]) == -1:
		return e, false
	case r.Subject == kernel.SubjectPath:
		e.Kind, e.Path = event.KindFile, string(r.What)
	case r.Subject == kernel.SubjectSockaddr:
		return socketEvent(e, r)
	case g.activity == "socket":
		e.Kind = event.KindKernelDenial
		e.SocketInfo = fmt.Sprintf("family=%d type=%d protocol=%d", r.Args[0], r.Args[1]&0xf, r.Args[2])
	case e.Activity == "":
		e.Activity = call
	}
	if e.Kind == event.KindSyscall {
		e.Detail += fmt.Sprintf(" %s(%#x, %#x, %#x, %#x)", call, r.Args[0], r.Args[1], r.Args[2], r.Args[3])
	}
	return e, true
}

// socketEvent reads a struct sockaddr of at most 128 bytes.
func socketEvent(e event.Event, r *kernel.Refusal) (event.Event, bool) {
	b := r.What
	e.Kind = event.KindKernelDenial
	if len(b) < 2 {
		return e, r.Errno != unix.ECONNREFUSED
	}
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_UNIX:
		e.Proto, e.Path = "unix", unixPath(b[2:])
		if r.Errno == unix.ECONNREFUSED {
			e.Reason = "nothing of the sandbox's own listens there"
		}
		return e, true
	case family == unix.AF_INET && len(b) >= 8:
		return addrEvent(e, r, netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:]))
	case family == unix.AF_INET6 && len(b) >= 24:
		return addrEvent(e, r, netip.AddrFrom16([16]byte(b[8:24])), binary.BigEndian.Uint16(b[2:]))
	default:
		e.SocketInfo = fmt.Sprintf("family=%d", family)
		return e, r.Errno != unix.ECONNREFUSED
	}
}

func addrEvent(e event.Event, r *kernel.Refusal, a netip.Addr, port uint16) (event.Event, bool) {
	e.Kind, e.DstAddr, e.DstPort = event.KindNetwork, netip.AddrPortFrom(a, port).String(), port
	own := a.Unmap().IsLoopback() || a.Unmap().IsUnspecified()
	if r.Errno == unix.EACCES || r.Errno == unix.EPERM { // no file is asked for
		l := dropped
		if e.Activity == "bind" {
			l = noRight
		}
		e.Layer, e.ReasonCode, e.Reason = l.name, l.code, l.reason
	}
	return e, own || r.Errno != unix.ECONNREFUSED
}

// unixPath shows an abstract name with a leading @.
func unixPath(b []byte) string {
	if len(b) > 0 && b[0] == 0 {
		return "@" + strings.TrimRight(string(b[1:]), "\x00")
	}
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

func errnoName(e unix.Errno) string {
	if n := unix.ErrnoName(e); n != "" {
		return n
	}
	return fmt.Sprintf("errno %d", int(e))
}
