// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/ringfence/ringfence/bpf"
)

// Hook is a place in the kernel where a verdict is given.
type Hook uint8

// The hooks of the program set.
const (
	HookConnect4    = Hook(bpf.FenceRfHookRF_HOOK_CONNECT4)
	HookConnect6    = Hook(bpf.FenceRfHookRF_HOOK_CONNECT6)
	HookSendmsg4    = Hook(bpf.FenceRfHookRF_HOOK_SENDMSG4)
	HookSendmsg6    = Hook(bpf.FenceRfHookRF_HOOK_SENDMSG6)
	HookSockCreate  = Hook(bpf.FenceRfHookRF_HOOK_SOCK_CREATE)
	HookEgress      = Hook(bpf.FenceRfHookRF_HOOK_EGRESS)
	HookConnectUnix = Hook(bpf.FenceRfHookRF_HOOK_CONNECT_UNIX)
	HookSendmsgUnix = Hook(bpf.FenceRfHookRF_HOOK_SENDMSG_UNIX)
	HookLSMSocket   = Hook(bpf.FenceRfHookRF_HOOK_LSM_SOCKET) // here begins the guard
	HookLSMConnect  = Hook(bpf.FenceRfHookRF_HOOK_LSM_CONNECT)
	HookLSMSendmsg  = Hook(bpf.FenceRfHookRF_HOOK_LSM_SENDMSG)
	HookLSMEntry    = Hook(bpf.FenceRfHookRF_HOOK_LSM_ENTRY)
	HookLSMExec     = Hook(bpf.FenceRfHookRF_HOOK_LSM_EXEC)
	HookLSMUserns   = Hook(bpf.FenceRfHookRF_HOOK_LSM_USERNS)
	HookLSMURing    = Hook(bpf.FenceRfHookRF_HOOK_LSM_URING)
)

// hookInfo says which program serves a hook and how it is attached.
type hookInfo struct {
	hook     Hook
	name     string // pin and display name
	prog     string // program in the object
	attach   ebpf.AttachType
	kernel   string // first kernel with it
	optional bool   // sandboxes are fenced without it
}

// hooks in the order they are attached: sockets cannot be made before their
// addresses are judged.
var hooks = [...]hookInfo{
	{HookSockCreate, "sock_create", bpf.FenceProgRfSockCreate, ebpf.AttachCGroupInetSockCreate, "4.10", false},
	{HookConnect4, "connect4", bpf.FenceProgRfConnect4, ebpf.AttachCGroupInet4Connect, "4.17", false},
	{HookConnect6, "connect6", bpf.FenceProgRfConnect6, ebpf.AttachCGroupInet6Connect, "4.17", false},
	{HookSendmsg4, "sendmsg4", bpf.FenceProgRfSendmsg4, ebpf.AttachCGroupUDP4Sendmsg, "4.18", false},
	{HookSendmsg6, "sendmsg6", bpf.FenceProgRfSendmsg6, ebpf.AttachCGroupUDP6Sendmsg, "4.18", false},
	{HookEgress, "egress", bpf.FenceProgRfEgress, ebpf.AttachCGroupInetEgress, "4.10", false},
	{HookConnectUnix, "connect_unix", bpf.FenceProgRfConnectUnix, ebpf.AttachCgroupUnixConnect, "6.7", true},
	{HookSendmsgUnix, "sendmsg_unix", bpf.FenceProgRfSendmsgUnix, ebpf.AttachCgroupUnixSendmsg, "6.7", true},
}

// guardNames are those of the guard's hooks: some stand for several of the
// kernel's.
var guardNames = map[Hook]string{
	HookLSMSocket: "lsm_socket", HookLSMConnect: "lsm_connect", HookLSMSendmsg: "lsm_sendmsg", HookLSMEntry: "lsm_entry",
	HookLSMExec: "lsm_exec", HookLSMUserns: "lsm_userns", HookLSMURing: "lsm_uring",
}

// String returns the hook's name as it stands in events and metrics.
func (h Hook) String() string {
	for _, i := range hooks {
		if i.hook == h {
			return i.name
		}
	}
	if n := guardNames[h]; n != "" {
		return n
	}
	return fmt.Sprintf("hook-%d", uint8(h))
}

// Since is the first kernel with the hook.
func (h Hook) Since() string {
	for _, i := range hooks {
		if i.hook == h {
			return i.kernel
		}
	}
	return "9999"
}

// Reason says why a verdict was given. The zero value is a denial.
type Reason uint8

// The reasons of the program set; see enum rf_reason.
const (
	ReasonNoState     = Reason(bpf.FenceRfReasonRF_NO_STATE)
	ReasonNoRule      = Reason(bpf.FenceRfReasonRF_NO_RULE)
	ReasonRule        = Reason(bpf.FenceRfReasonRF_RULE)
	ReasonLoopback    = Reason(bpf.FenceRfReasonRF_LOOPBACK)
	ReasonDNS         = Reason(bpf.FenceRfReasonRF_DNS)
	ReasonSocket      = Reason(bpf.FenceRfReasonRF_SOCKET)
	ReasonRaw         = Reason(bpf.FenceRfReasonRF_RAW)
	ReasonProtocol    = Reason(bpf.FenceRfReasonRF_PROTOCOL)
	ReasonMPTCP       = Reason(bpf.FenceRfReasonRF_MPTCP)
	ReasonFamily      = Reason(bpf.FenceRfReasonRF_FAMILY)
	ReasonUnix        = Reason(bpf.FenceRfReasonRF_UNIX)
	ReasonFragment    = Reason(bpf.FenceRfReasonRF_FRAGMENT)
	ReasonOptions     = Reason(bpf.FenceRfReasonRF_OPTIONS)
	ReasonShort       = Reason(bpf.FenceRfReasonRF_SHORT)
	ReasonUnspecified = Reason(bpf.FenceRfReasonRF_UNSPECIFIED)
	ReasonEstablished = Reason(bpf.FenceRfReasonRF_ESTABLISHED)
	ReasonElsewhere   = Reason(bpf.FenceRfReasonRF_ELSEWHERE)
	ReasonNoListener  = Reason(bpf.FenceRfReasonRF_NO_LISTENER)
	ReasonPastHooks   = Reason(bpf.FenceRfReasonRF_PAST_HOOKS)
	ReasonNoRelay     = Reason(bpf.FenceRfReasonRF_NO_RELAY)
	ReasonEntry       = Reason(bpf.FenceRfReasonRF_ENTRY)
	ReasonPrivilege   = Reason(bpf.FenceRfReasonRF_PRIVILEGE)
	ReasonNamespace   = Reason(bpf.FenceRfReasonRF_NAMESPACE)
	ReasonURing       = Reason(bpf.FenceRfReasonRF_URING)
	ReasonBound       = Reason(bpf.FenceRfReasonRF_BOUND)
	ReasonTooMany     = Reason(bpf.FenceRfReasonRF_TOO_MANY)
)

// reasonNames and reasonTexts are indexed by Reason.
var reasonNames = [...]string{
	ReasonNoState: "no-state", ReasonNoRule: "no-rule", ReasonRule: "rule", ReasonLoopback: "loopback",
	ReasonDNS: "dns", ReasonSocket: "socket", ReasonRaw: "raw-socket", ReasonProtocol: "protocol",
	ReasonMPTCP: "mptcp", ReasonFamily: "family", ReasonUnix: "unix-socket", ReasonFragment: "fragment",
	ReasonOptions: "ip-options", ReasonShort: "short-packet", ReasonUnspecified: "unspecified-address",
	ReasonEstablished: "established", ReasonElsewhere: "elsewhere", ReasonNoListener: "no-listener", ReasonPastHooks: "past-hooks",
	ReasonNoRelay: "no-relay", ReasonEntry: "guarded-name", ReasonPrivilege: "new-privileges", ReasonNamespace: "user-namespace",
	ReasonURing: "io-uring", ReasonBound: "bound-elsewhere", ReasonTooMany: "too-many-destinations",
}

var reasonTexts = [...]string{
	ReasonNoState:     "the cgroup has no policy yet",
	ReasonNoRule:      "no rule of the policy lists this address, port and protocol",
	ReasonRule:        "a rule of the policy decides this address",
	ReasonLoopback:    "the sandbox's own loopback",
	ReasonDNS:         "port 53 is answered by the gateway's resolver",
	ReasonSocket:      "an ordinary TCP or UDP socket",
	ReasonRaw:         "raw sockets are closed",
	ReasonProtocol:    "only TCP and UDP are open",
	ReasonMPTCP:       "multipath TCP is closed; plain TCP is not",
	ReasonFamily:      "only IPv4 and IPv6 are open",
	ReasonUnix:        "unix sockets are opened or closed by the profile",
	ReasonFragment:    "packets fragmented by the sender are dropped",
	ReasonOptions:     "packets with IP options or extension headers are dropped",
	ReasonShort:       "the packet's headers could not be read",
	ReasonUnspecified: "the unspecified address behind an IPv6 prefix is no destination",
	ReasonEstablished: "a flow that was judged when it began",
	ReasonElsewhere:   "the process is in the machine's network namespace instead of the sandbox's",
	ReasonNoListener:  "the gateway does not listen in the network namespace of this socket: it is not the one that was adopted, or the listeners there are gone",
	ReasonPastHooks:   "the flow did not begin under the fence: what is older, and replies to connections from outside, is dropped",
	ReasonNoRelay:     "the gateway relays no datagrams of what was adopted in this namespace: the kernel is older than Linux 5.19, or there is no IPv6 on its loopback",
	ReasonEntry:       "a new file of this name would make tools outside the sandbox run programs",
	ReasonPrivilege:   "programs of a sandbox start with no_new_privs only",
	ReasonNamespace:   "new user namespaces are closed",
	ReasonURing:       "io_uring is closed",
	ReasonBound:       "the socket is bound to an address or a device from which it cannot reach the gateway on loopback; let it bind neither",
	ReasonTooMany:     "the socket sends to more destinations at a time than the gateway can tell apart; use one socket for each, or wait until two minutes have passed",
}

// String returns the stable code that events and metrics carry.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason-%d", uint8(r))
}

// Text returns the reason as a sentence for people, without a full stop.
func (r Reason) Text() string {
	if int(r) < len(reasonTexts) {
		return reasonTexts[r]
	}
	return "unknown reason"
}
