// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	testSandbox = 41
	testPolicy  = 7
)

// rig is one fenced sandbox with a child inside and a control outside: same
// namespace, same rights, other cgroup.
type rig struct {
	*testing.T
	fence  *Fence
	ns     *namespace
	cgroup string
	box    *Sandbox
	in     *child
	out    *child
	recs   *collector
}

func newRig(t *testing.T, flags Flags) *rig {
	t.Helper()
	f := newFence(t)
	r := &rig{T: t, fence: f, ns: newNamespace(t), cgroup: newCgroup(t)}
	st := State{Sandbox: testSandbox, Policy: testPolicy, Generation: 3, Flags: flags}
	var err error
	if r.box, err = f.AttachSandbox(r.cgroup, st); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.in.end()
		if err := detachSoon(r.box); err != nil {
			t.Errorf("Detach: %v", err)
		}
	})
	fd4, _ := r.ns.listen(t, "tcp4", "198.18.0.1:0", "gateway")
	fd6, _ := r.ns.listen(t, "tcp6", "[::1]:0", "gateway")
	if err := r.box.Steer(int(r.ns.file.Fd()), SteerListeners{TCP4: fd4, TCP6: fd6}); err != nil {
		t.Fatal(err)
	}
	if err := r.box.Attested(); err != nil {
		t.Fatal(err)
	}
	r.in, r.out = r.ns.spawn(t, r.cgroup), r.ns.spawn(t, "")
	r.recs = collect(t, f)
	return r
}

// errnoFor is what the denied caller must see on this kernel.
func errnoFor(e unix.Errno) unix.Errno {
	if haveRetval() {
		return e
	}
	return unix.EPERM
}

func TestDenied(t *testing.T) {
	r := newRig(t, FlagLoopback|FlagDNS)
	dir := t.TempDir()
	stream, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	dgram, err := net.ListenPacket("unixgram", filepath.Join(dir, "d"))
	if err != nil {
		t.Fatal(err)
	}
	defer dgram.Close()
	var abstract net.Listener
	if err := r.ns.do(func() (err error) { abstract, err = net.Listen("unix", "@ringfence-kernel-test"); return }); err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()

	if err := r.ns.do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0) }); err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name    string
		try     attempt
		errno   unix.Errno
		hook    Hook
		reason  Reason
		judged  string
		control unix.Errno // 0: succeeds outside
	}{
		{"TCP to a literal address", attempt{Op: "tcp", Addr: "203.0.113.5:443"}, unix.EACCES, HookConnect4, ReasonNoRule, "203.0.113.5", 0},
		{"TCP to a virtual address of nobody", attempt{Op: "tcp", Addr: "198.18.7.7:443"}, unix.EACCES, HookConnect4, ReasonNoRule, "198.18.7.7", 0},
		{"TCP over IPv6", attempt{Op: "tcp", Addr: "[2001:db8::1]:443"}, unix.EACCES, HookConnect6, ReasonNoRule, "2001:db8::1", 0},
		{"IPv4-mapped", attempt{Op: "tcp", Addr: "[::ffff:203.0.113.5]:443"}, unix.EACCES, HookConnect6, ReasonNoRule, "203.0.113.5", 0},
		{"NAT64", attempt{Op: "tcp", Addr: "[64:ff9b::203.0.113.5]:443"}, unix.EACCES, HookConnect6, ReasonNoRule, "203.0.113.5", 0},
		{"NAT64 hiding loopback", attempt{Op: "tcp", Addr: "[64:ff9b::127.0.0.1]:443"}, unix.EACCES, HookConnect6, ReasonNoRule, "127.0.0.1", 0},
		{"NAT64 hiding nothing", attempt{Op: "tcp", Addr: "[64:ff9b::0.0.0.0]:443"}, unix.EACCES, HookConnect6, ReasonUnspecified, "0.0.0.0", 0},
		{"6to4", attempt{Op: "tcp", Addr: "[2002:cb00:7105::1]:443"}, unix.EACCES, HookConnect6, ReasonNoRule, "203.0.113.5", 0},
		{"fast open", attempt{Op: "tcp-fastopen", Addr: "203.0.113.5:443"}, unix.EACCES, HookConnect4, ReasonNoRule, "203.0.113.5", 0},
		{"fast open, mapped", attempt{Op: "tcp-fastopen", Addr: "[::ffff:203.0.113.5]:443"}, unix.EACCES, HookConnect6, ReasonNoRule, "203.0.113.5", 0},
		{"metadata address", attempt{Op: "tcp", Addr: "169.254.169.254:80"}, unix.EACCES, HookConnect4, ReasonNoRule, "169.254.169.254", 0},
		{"UDP connect", attempt{Op: "udp", Addr: "8.8.8.8:443"}, unix.EACCES, HookConnect4, ReasonNoRule, "8.8.8.8", 0},
		{"UDP connect, IPv6", attempt{Op: "udp", Addr: "[2001:4860:4860::8888]:443"}, unix.EACCES, HookConnect6, ReasonNoRule, "2001:4860:4860::8888", 0},
		{"UDP sendto", attempt{Op: "udp-sendto", Addr: "8.8.8.8:443"}, unix.EACCES, HookSendmsg4, ReasonNoRule, "8.8.8.8", 0},
		{"UDP sendto, IPv6", attempt{Op: "udp-sendto", Addr: "[2001:db8::1]:443"}, unix.EACCES, HookSendmsg6, ReasonNoRule, "2001:db8::1", 0},
		{"UDP sendto, mapped", attempt{Op: "udp-sendto", Addr: "[::ffff:8.8.8.8]:443"}, unix.EACCES, HookSendmsg4, ReasonNoRule, "8.8.8.8", 0},
		{"UDP sendto past a connect", attempt{Op: "udp-sendto-connected", Addr: "8.8.8.8:443"}, unix.EACCES, HookSendmsg4, ReasonNoRule, "8.8.8.8", 0},
		{"UDP sendto AF_UNSPEC", attempt{Op: "udp-sendto-unspec", Addr: "8.8.8.8:443"}, unix.EACCES, HookSendmsg4, ReasonNoRule, "8.8.8.8", 0},
		{"UDP6 socket, IPv4 address", attempt{Op: "udp6-sendto4", Addr: "8.8.8.8:443"}, unix.EACCES, HookSendmsg4, ReasonNoRule, "8.8.8.8", 0},
		{"multicast", attempt{Op: "udp-sendto", Addr: "224.0.0.251:5353"}, unix.EACCES, HookSendmsg4, ReasonNoRule, "224.0.0.251", 0},
		{"source route over loopback", attempt{Op: "udp-options", Addr: "127.0.0.1:9"}, unix.EPERM, HookEgress, ReasonOptions, "127.0.0.9", 0},
		{"raw ICMP", attempt{Op: "raw", Addr: "8.8.8.8:0"}, unix.EPERM, HookSockCreate, ReasonRaw, "", 0},
		{"raw ICMPv6", attempt{Op: "raw", Addr: "[2001:db8::1]:0"}, unix.EPERM, HookSockCreate, ReasonRaw, "", 0},
		{"raw with own header", attempt{Op: "raw-hdrincl", Addr: "8.8.8.8:0"}, unix.EPERM, HookSockCreate, ReasonRaw, "", 0},
		{"MPTCP", attempt{Op: "mptcp", Addr: "203.0.113.5:443"}, unix.EPROTONOSUPPORT, HookSockCreate, ReasonMPTCP, "", 0},
		{"UDP-Lite", attempt{Op: "udplite", Addr: "127.0.0.1:9"}, unix.EPROTONOSUPPORT, HookSockCreate, ReasonProtocol, "", 0},
		{"SCTP", attempt{Op: "sctp", Addr: "127.0.0.1:9"}, unix.EPROTONOSUPPORT, HookSockCreate, ReasonProtocol, "", unix.ECONNREFUSED},
		{"ping socket", attempt{Op: "ping", Addr: "127.0.0.1:0"}, unix.EPROTONOSUPPORT, HookSockCreate, ReasonProtocol, "", 0},
		{"unix stream by path", attempt{Op: "unix", Addr: stream.Addr().String()}, unix.EACCES, HookConnectUnix, ReasonUnix, "", 0},
		{"unix stream, abstract", attempt{Op: "unix", Addr: "@ringfence-kernel-test"}, unix.EACCES, HookConnectUnix, ReasonUnix, "", 0},
		{"unix stream, dotted path", attempt{Op: "unix", Addr: dir + "/../" + filepath.Base(dir) + "/s"}, unix.EACCES, HookConnectUnix, ReasonUnix, "", 0},
		{"unix datagram", attempt{Op: "unix-dgram", Addr: dgram.LocalAddr().String()}, unix.EACCES, HookSendmsgUnix, ReasonUnix, "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			needHook(t, r.fence, tt.hook)
			if got := r.out.try(tt.try); got.Errno == unix.EPROTONOSUPPORT || got.Errno == unix.ESOCKTNOSUPPORT || got.Errno == unix.ENOPROTOOPT {
				needProtocol(t, tt.name)
			} else if got.Errno != tt.control {
				t.Fatalf("control outside: %s: %v", got.Step, got.Errno)
			}
			r.recs.reset()
			got := r.in.try(tt.try)
			want := tt.errno
			if tt.hook != HookEgress {
				want = errnoFor(want)
			}
			if got.Errno != want {
				t.Fatalf("errno = %v at %q (reply %q), want %v", got.Errno, got.Step, got.Reply, want)
			}
			v := find(t, r.recs, "denial", func(v *Verdict) bool { return !v.Allowed && v.Hook == tt.hook })
			if v.Reason != tt.reason || v.Sandbox != testSandbox || v.Policy != 0 && v.Policy != testPolicy || v.Generation != 3 || v.Errno != want {
				t.Errorf("record %+v, want reason %v", v, tt.reason)
			}
			if tt.judged != "" && v.Judged != netip.MustParseAddr(tt.judged) {
				t.Errorf("judged %v, want %s", v.Judged, tt.judged)
			}
			if tt.hook != HookEgress && (int(v.PID) != got.PID || v.Comm == "") {
				t.Errorf("record of pid %d %q, want %d", v.PID, v.Comm, got.PID)
			}
		})
	}
}

func TestDeniedAtOnce(t *testing.T) {
	r := newRig(t, FlagLoopback)
	for _, a := range []attempt{{Op: "tcp", Addr: "203.0.113.5:443"}, {Op: "udp", Addr: "8.8.8.8:53"}, {Op: "udp-sendto", Addr: "8.8.8.8:53"}} {
		got := r.in.try(a)
		// The helper's own timeout ends with EINPROGRESS or EAGAIN.
		if got.Errno != errnoFor(unix.EACCES) {
			t.Errorf("%s: %v at %q after %v", a.Op, got.Errno, got.Step, got.Took)
		}
	}
}

func TestAllowed(t *testing.T) {
	r := newRig(t, FlagLoopback|FlagDNS|FlagUnix)
	name := netip.MustParseAddr("198.18.0.9")
	if err := r.fence.PutNames(testPolicy, []NameEntry{
		{Addr: name, Port: 443, Proto: ProtoTCP, Rule: 11},
		{Addr: netip.MustParseAddr("198.18.0.10"), Proto: ProtoTCP, Rule: 12},
	}); err != nil {
		t.Fatal(err)
	}
	prefix := netip.MustParsePrefix
	if err := r.fence.PutCIDRs(testPolicy, []CIDREntry{
		{Prefix: prefix("10.0.0.0/8"), Port: 5432, Proto: ProtoTCP, Allow: true, Rule: 21},
		{Prefix: prefix("10.9.0.0/16"), Port: 5432, Proto: ProtoTCP, Allow: false, Rule: 22},
		{Prefix: prefix("10.0.0.0/8"), Proto: ProtoTCP, Allow: true, Rule: 23},
		{Prefix: prefix("2001:db8::/32"), Port: 443, Proto: ProtoTCP, Allow: true, Rule: 24},
		{Prefix: prefix("0.0.0.0/0"), Port: 8443, Proto: ProtoTCP, Allow: true, Rule: 25},
	}); err != nil {
		t.Fatal(err)
	}
	unixL, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer unixL.Close()

	tests := []struct {
		name  string
		try   attempt
		reply string // as the gateway saw it
		errno unix.Errno
		rule  uint32
	}{
		{"virtual name", attempt{Op: "tcp", Addr: "198.18.0.9:443"}, "gateway 198.18.0.9:443", 0, 11},
		{"virtual name, other port", attempt{Op: "tcp", Addr: "198.18.0.9:80"}, "", unix.EACCES, 0},
		{"virtual name, other protocol", attempt{Op: "udp", Addr: "198.18.0.9:443"}, "", unix.EACCES, 0},
		{"virtual name, every port", attempt{Op: "tcp", Addr: "198.18.0.10:9999"}, "gateway 198.18.0.10:9999", 0, 12},
		{"virtual name, mapped", attempt{Op: "tcp", Addr: "[::ffff:198.18.0.9]:443"}, "gateway 198.18.0.9:443", 0, 11},
		{"virtual name, NAT64", attempt{Op: "tcp", Addr: "[64:ff9b::198.18.0.9]:443"}, "gateway [64:ff9b::c612:9]:443", 0, 11},
		{"virtual name, 6to4", attempt{Op: "tcp", Addr: "[2002:c612:9::]:443"}, "gateway [2002:c612:9::]:443", 0, 11},
		{"virtual name, fast open", attempt{Op: "tcp-fastopen", Addr: "198.18.0.9:443"}, "gateway 198.18.0.9:443", 0, 11},
		{"CIDR rules do not reach virtual addresses", attempt{Op: "tcp", Addr: "198.18.0.77:8443"}, "", unix.EACCES, 0},
		{"CIDR", attempt{Op: "tcp", Addr: "10.1.2.3:5432"}, "gateway 10.1.2.3:5432", 0, 21},
		{"CIDR, mapped", attempt{Op: "tcp", Addr: "[::ffff:10.1.2.3]:5432"}, "gateway 10.1.2.3:5432", 0, 21},
		{"CIDR, longer prefix denies", attempt{Op: "tcp", Addr: "10.9.2.3:5432"}, "", unix.EACCES, 22},
		{"CIDR, group of any port", attempt{Op: "tcp", Addr: "10.9.2.3:22"}, "gateway 10.9.2.3:22", 0, 23},
		{"CIDR, IPv6", attempt{Op: "tcp", Addr: "[2001:db8::5]:443"}, "gateway [2001:db8::5]:443", 0, 24},
		{"CIDR, outside", attempt{Op: "tcp", Addr: "[2001:db9::5]:443"}, "", unix.EACCES, 0},
		{"server inside on 127.0.0.1", attempt{Op: "tcp-loop", Addr: "127.0.0.1:8080"}, "own server", 0, 0},
		{"server inside on ::1", attempt{Op: "tcp-loop", Addr: "[::1]:8080"}, "own server", 0, 0},
		{"server inside on 198.18.0.1", attempt{Op: "tcp-loop", Addr: "198.18.0.1:8080"}, "own server", 0, 0},
		{"server inside on 0.0.0.0", attempt{Op: "tcp-loop", Addr: "0.0.0.0:8081"}, "own server", 0, 0},
		{"server inside on ::", attempt{Op: "tcp-loop", Addr: "[::]:8082"}, "own server", 0, 0},
		{"0.0.0.0 from a virtual source is loopback", attempt{Op: "tcp-bound", Addr: "198.18.7.7:443"}, "", unix.ECONNREFUSED, 0},
		{"DNS sendto", attempt{Op: "udp-sendto", Addr: "8.8.8.8:53"}, "", 0, 0},
		{"DNS connect", attempt{Op: "udp", Addr: "[2001:4860:4860::8888]:53"}, "", 0, 0},
		{"unix socket", attempt{Op: "unix", Addr: unixL.Addr().String()}, "", 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.recs.reset()
			got := r.in.try(tt.try)
			want := tt.errno
			if want == unix.EACCES {
				want = errnoFor(want)
			}
			if got.Errno != want || got.Reply != tt.reply {
				t.Fatalf("errno %v at %q, reply %q; want %v, %q", got.Errno, got.Step, got.Reply, want, tt.reply)
			}
			if tt.rule != 0 {
				find(t, r.recs, "verdict of the rule", func(v *Verdict) bool {
					return v.Rule == tt.rule && v.Allowed == (tt.errno == 0) && v.Reason == ReasonRule
				})
			}
		})
	}
}

// DNS goes to whatever is bound to port 53 inside, not to the steered listener.
func TestPort53IsNotSteered(t *testing.T) {
	r := newRig(t, FlagDNS)
	r.ns.listen(t, "tcp4", "0.0.0.0:53", "resolver")
	got := r.in.try(attempt{Op: "tcp", Addr: "8.8.8.8:53"})
	if got.Reply != "resolver 8.8.8.8:53" {
		t.Errorf("%+v", got)
	}
}

// The zero state denies everything, and the flags open only their class.
func TestFlagsAreClosedByDefault(t *testing.T) {
	r := newRig(t, 0)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, a := range []attempt{
		{Op: "tcp-loop", Addr: "127.0.0.1:8080"}, {Op: "tcp-loop", Addr: "198.18.0.1:8080"}, {Op: "tcp-loop", Addr: "[::1]:8080"},
		{Op: "udp-sendto", Addr: "8.8.8.8:53"}, {Op: "tcp", Addr: "8.8.8.8:53"},
	} {
		if got := r.in.try(a); got.Errno != errnoFor(unix.EACCES) {
			t.Errorf("%v: %v at %q", a, got.Errno, got.Step)
		}
	}
	var zero struct{ Sandbox, Policy, Generation, Flags uint32 }
	if err := r.fence.maps.State.Put(r.box.CgroupID(), zero); err != nil {
		t.Fatal(err)
	}
	if err := r.box.Attested(); err == nil || !strings.Contains(err.Error(), "state") {
		t.Errorf("Attested did not see the foreign state: %v", err)
	}
	stateless := []attempt{{Op: "tcp", Addr: "127.0.0.1:1"}}
	if r.fence.progs[HookConnectUnix] != nil {
		stateless = append(stateless, attempt{Op: "unix", Addr: l.Addr().String()})
	}
	for _, a := range stateless {
		r.recs.reset()
		if got := r.in.try(a); got.Errno != errnoFor(unix.EACCES) {
			t.Errorf("%v: %v at %q", a, got.Errno, got.Step)
		}
		find(t, r.recs, "denial without state", func(v *Verdict) bool { return v.Reason == ReasonNoState && v.Sandbox == 0 })
	}
}

// A process that moves itself into a sub-cgroup is still the same sandbox.
func TestSubCgroupKeepsIdentity(t *testing.T) {
	r := newRig(t, 0)
	sub := filepath.Join(r.cgroup, "sub")
	if err := unix.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	defer removeCgroup(t, sub)
	c := r.ns.spawn(t, sub)
	defer c.end()
	if got := c.try(attempt{Op: "tcp", Addr: "203.0.113.5:443"}); got.Errno != errnoFor(unix.EACCES) {
		t.Errorf("%+v", got)
	}
	find(t, r.recs, "denial", func(v *Verdict) bool { return v.Sandbox == testSandbox && v.Reason == ReasonNoRule })
	got := c.try(attempt{Op: "exec", Addr: "exit 3"})
	find(t, r.recs, "exec below", func(e *Exec) bool { return e.Sandbox == testSandbox && strings.HasPrefix(got.Reply, itoa(e.PID)+" ") })
}
