// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

// A denial of what was adopted names the flag that would open it, where policy
// would not; where policy would, nothing of this is said.
func TestDenialsThatTheAdoptionDecides(t *testing.T) {
	at := func(hook kernel.Hook, why kernel.Reason, proto uint16, dst string) *kernel.Verdict {
		v := &kernel.Verdict{Hook: hook, Reason: why, Proto: proto}
		if dst != "" {
			v.Dst = netip.MustParseAddrPort(dst)
			v.Judged = v.Dst.Addr()
		}
		return v
	}
	reply := at(kernel.HookEgress, kernel.ReasonNoRule, unix.IPPROTO_TCP, "192.0.2.1:40000")
	local := at(kernel.HookConnect4, kernel.ReasonNoRule, unix.IPPROTO_TCP, "127.0.0.1:80")
	for _, tt := range []struct {
		name string
		of   sandbox.Foreign
		v    *kernel.Verdict
		flag string
	}{
		{"a reply", sandbox.Foreign{}, reply, "--inbound"},
		{"a reply past the hooks", sandbox.Foreign{}, at(kernel.HookEgress, kernel.ReasonPastHooks, unix.IPPROTO_TCP, "192.0.2.1:40000"), "--inbound"},
		{"with --inbound", sandbox.Foreign{Inbound: true}, reply, ""},
		{"a datagram", sandbox.Foreign{}, at(kernel.HookEgress, kernel.ReasonNoRule, unix.IPPROTO_UDP, "192.0.2.1:40000"), ""},
		{"a unix socket", sandbox.Foreign{}, at(kernel.HookConnectUnix, kernel.ReasonUnix, 0, ""), "--unix-sockets"},
		{"loopback", sandbox.Foreign{}, local, "--loopback"},
		{"the machine's loopback", sandbox.Foreign{HostNet: true}, local, ""},
		{"UDP that nobody relays", sandbox.Foreign{}, at(kernel.HookConnect4, kernel.ReasonNoRelay, unix.IPPROTO_UDP, "192.0.2.1:123"), "--direct"},
		{"an address without a rule", sandbox.Foreign{}, at(kernel.HookConnect4, kernel.ReasonNoRule, unix.IPPROTO_TCP, "192.0.2.1:443"), ""},
	} {
		e := &event.Event{Reason: "before"}
		said := explainAdopted(e, &sandbox.Record{Foreign: &tt.of}, tt.v)
		if said != (tt.flag != "") || !strings.Contains(e.Remedy, tt.flag) || !said && (e.Remedy != "" || e.Reason != "before") {
			t.Errorf("%s: %t %q %q", tt.name, said, e.Reason, e.Remedy)
		}
	}
}
