// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/bpf"
	"github.com/ringfence/ringfence/test/env"
)

// guardRig is a process in a cgroup that nothing but the guard holds: the hooks
// of the cgroup are taken away, and there is no filter, Landlock or mount. Its
// own directory is the workspace.
func guardRig(t *testing.T, flags Flags, passed ...*os.File) (*rig, string) {
	t.Helper()
	r := newRig(t, flags)
	if _, _, err := r.fence.Guard(); err != nil {
		env.Lack(t, env.BPFLSM(), "BPF as a security module (CONFIG_BPF_LSM, bpf in lsm=): "+err.Error())
	}
	for _, h := range r.box.set {
		err := os.Remove(filepath.Join(r.box.dir, h.name))
		if errors.Is(err, os.ErrNotExist) {
			continue // this kernel lacks the hook
		}
		if err := errors.Join(err, r.fence.shelf.drop(r.box.kept(h.name))); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	r.in.end()
	r.in = r.ns.spawn(t, r.cgroup, passed...)
	return r, dir
}

// arm guards the rig's sandbox, with dir as its workspace.
func (r *rig) arm(dir string) {
	r.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		r.Fatal(err)
	}
	rows := append(GitHooks(), GuardedPath(".mcp.json")...)
	if err := r.box.Guard(GuardRules{Device: st.Dev, Entries: append(rows, GuardedPath(".claude/settings.json")...)}); err != nil {
		r.Fatal(err)
	}
}

// guardRecord waits for the record of a denial.
func (r *rig) guardRecord(name string, h Hook, why Reason, errno unix.Errno) {
	r.Helper()
	if h == HookLSMEntry || h == HookLSMExec || h == HookLSMUserns || h == HookLSMURing {
		g := find(r.T, r.recs, name, func(g *Guarded) bool { return g.Hook == h && g.Reason == why })
		if g.Sandbox != testSandbox || g.Errno != errno || g.PID == 0 || g.Comm == "" {
			r.Errorf("%s: record %+v", name, g)
		}
		return
	}
	v := find(r.T, r.recs, name, func(v *Verdict) bool { return v.Hook == h && v.Reason == why && !v.Allowed })
	if v.Sandbox != testSandbox || v.Errno != errno || v.PID == 0 {
		r.Errorf("%s: record %+v", name, v)
	}
}

// TestGuardSockets: each call is refused by the guard alone, and works outside.
func TestGuardSockets(t *testing.T) {
	r, dir := guardRig(t, FlagLoopback|FlagDNS)
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
	if err := r.ns.do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0) }); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		try     attempt
		errno   unix.Errno
		hook    Hook
		reason  Reason
		control unix.Errno
	}{
		{"TCP", attempt{Op: "tcp", Addr: "203.0.113.5:443"}, unix.EACCES, HookLSMConnect, ReasonNoRule, 0},
		{"TCP to a virtual address", attempt{Op: "tcp", Addr: "198.18.7.7:443"}, unix.EACCES, HookLSMConnect, ReasonNoRule, 0},
		{"TCP over IPv6", attempt{Op: "tcp", Addr: "[2001:db8::1]:443"}, unix.EACCES, HookLSMConnect, ReasonNoRule, 0},
		{"IPv4-mapped", attempt{Op: "tcp", Addr: "[::ffff:203.0.113.5]:443"}, unix.EACCES, HookLSMConnect, ReasonNoRule, 0},
		{"NAT64 hiding nothing", attempt{Op: "tcp", Addr: "[64:ff9b::0.0.0.0]:443"}, unix.EACCES, HookLSMConnect, ReasonUnspecified, 0},
		{"fast open", attempt{Op: "tcp-fastopen", Addr: "203.0.113.5:443"}, unix.EACCES, HookLSMSendmsg, ReasonNoRule, 0},
		{"UDP connect", attempt{Op: "udp", Addr: "8.8.8.8:443"}, unix.EACCES, HookLSMConnect, ReasonNoRule, 0},
		{"UDP sendto", attempt{Op: "udp-sendto", Addr: "8.8.8.8:443"}, unix.EACCES, HookLSMSendmsg, ReasonNoRule, 0},
		{"UDP sendto, IPv6", attempt{Op: "udp-sendto", Addr: "[2001:db8::1]:443"}, unix.EACCES, HookLSMSendmsg, ReasonNoRule, 0},
		{"UDP sendto past a connect", attempt{Op: "udp-sendto-connected", Addr: "8.8.8.8:443"}, unix.EACCES, HookLSMSendmsg, ReasonNoRule, 0},
		{"UDP sendto AF_UNSPEC", attempt{Op: "udp-sendto-unspec", Addr: "8.8.8.8:443"}, unix.EACCES, HookLSMSendmsg, ReasonNoRule, 0},
		{"UDP6 socket, IPv4 address", attempt{Op: "udp6-sendto4", Addr: "8.8.8.8:443"}, unix.EACCES, HookLSMSendmsg, ReasonNoRule, 0},
		{"raw ICMP", attempt{Op: "raw", Addr: "8.8.8.8:0"}, unix.EPERM, HookLSMSocket, ReasonRaw, 0},
		{"MPTCP", attempt{Op: "mptcp", Addr: "203.0.113.5:443"}, unix.EPROTONOSUPPORT, HookLSMSocket, ReasonMPTCP, 0},
		{"UDP-Lite", attempt{Op: "udplite", Addr: "127.0.0.1:9"}, unix.EPROTONOSUPPORT, HookLSMSocket, ReasonProtocol, 0},
		{"ping socket", attempt{Op: "ping", Addr: "127.0.0.1:0"}, unix.EPROTONOSUPPORT, HookLSMSocket, ReasonProtocol, 0},
		{"packet socket", attempt{Op: "socket-packet"}, unix.EAFNOSUPPORT, HookLSMSocket, ReasonFamily, 0},
		{"netlink, not routes", attempt{Op: "socket-uevent"}, unix.EAFNOSUPPORT, HookLSMSocket, ReasonFamily, 0},
		{"unix stream", attempt{Op: "unix", Addr: stream.Addr().String()}, unix.EACCES, HookLSMConnect, ReasonUnix, 0},
		{"unix datagram", attempt{Op: "unix-dgram", Addr: dgram.LocalAddr().String()}, unix.EACCES, HookLSMSendmsg, ReasonUnix, 0},
	}
	allowed := []attempt{
		{Op: "tcp-loop", Addr: "127.0.0.1:7001"}, {Op: "tcp-loop", Addr: "[::1]:7002"}, {Op: "udp-sendto", Addr: "8.8.8.8:53"},
		{Op: "udp-sendto", Addr: "0.0.0.0:9"}, {Op: "udp", Addr: "[::]:9"}, {Op: "socket-route"}, {Op: "socket-pair"}, {Op: "disconnect"},
	}
	lacks := map[string]bool{}
	for _, c := range tests { // before it is armed, and where the hooks are gone, all is open
		got := r.in.try(c.try)
		lacks[c.name] = got.Errno == unix.EPROTONOSUPPORT || got.Errno == unix.ESOCKTNOSUPPORT
		if got.Errno != c.control && !lacks[c.name] {
			t.Errorf("%s: not armed: %+v", c.name, got)
		}
	}
	r.arm(dir)
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			if lacks[c.name] {
				needProtocol(t, c.name)
			}
			r.recs.reset()
			if got := r.in.try(c.try); got.Errno != c.errno {
				t.Errorf("inside: %+v, want %v", got, c.errno)
			}
			if got := r.out.try(c.try); got.Errno != c.control {
				t.Errorf("outside: %+v", got)
			}
			r.guardRecord(c.name, c.hook, c.reason, c.errno)
		})
	}
	if got := r.in.try(attempt{Op: "tcp", Addr: "[2001:db8::1]:443"}); got.Errno != unix.EACCES {
		t.Errorf("IPv6: %+v", got)
	}
	for _, a := range allowed {
		if got := r.in.try(a); got.Errno != 0 {
			t.Errorf("%+v: %+v, want it to work", a, got)
		}
	}
	if v := find(t, r.recs, "address", func(v *Verdict) bool {
		return v.Hook == HookLSMConnect && v.Dst.Port() == 443 && v.Family == unix.AF_INET6
	}); !v.Dst.Addr().Is6() {
		t.Errorf("record %+v", v)
	}
}

// TestGuardFollowsThePolicy: a new state reaches the guard, and unix sockets
// open with the profile's flag.
func TestGuardFollowsThePolicy(t *testing.T) {
	r, dir := guardRig(t, 0)
	stream, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	r.arm(dir)
	tcp, own := attempt{Op: "tcp", Addr: "203.0.113.5:443"}, attempt{Op: "unix", Addr: stream.Addr().String()}
	for _, a := range []attempt{tcp, own, {Op: "tcp-loop", Addr: "127.0.0.1:7003"}} {
		if got := r.in.try(a); got.Errno != unix.EACCES {
			t.Errorf("%+v: %+v", a, got)
		}
	}
	if err := r.fence.PutCIDRs(8, []CIDREntry{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Port: 443, Proto: ProtoTCP, Allow: true, Rule: 1}}); err != nil {
		t.Fatal(err)
	}
	st := r.box.State()
	st.Policy, st.Generation, st.Flags = 8, 4, FlagUnix
	if err := r.box.SetState(st); err != nil {
		t.Fatal(err)
	}
	for _, a := range []attempt{tcp, own} {
		if got := r.in.try(a); got.Errno != 0 {
			t.Errorf("allowed now: %+v: %+v", a, got)
		}
	}
	if got := r.in.try(attempt{Op: "tcp", Addr: "203.0.113.5:80"}); got.Errno != unix.EACCES {
		t.Errorf("another port: %+v", got)
	}
}

// TestGuardSeesPassedSockets: a socket that was made outside is judged by who
// uses it, which no hook of a cgroup does.
func TestGuardSeesPassedSockets(t *testing.T) {
	ns := newNamespace(t)
	ns.listen(t, "tcp4", "198.18.0.1:7010", "echo")
	var files []*os.File
	var sink net.PacketConn
	err := ns.do(func() (err error) {
		if sink, err = net.ListenPacket("udp4", "198.18.0.1:7010"); err != nil {
			return err
		}
		for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
			for _, connected := range []bool{true, false} {
				fd, err := unix.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return err
				}
				files = append(files, os.NewFile(uintptr(fd), "passed"))
				if !connected {
					continue
				}
				to := unix.SockaddrInet4{Port: 7010, Addr: [4]byte{198, 18, 0, 1}}
				if err := unix.Connect(fd, &to); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	r, dir := guardRig(t, 0, files...)
	other := r.ns.spawn(t, "", files...)
	tests := []attempt{
		{Op: "passed-write", N: 0}, {Op: "passed-connect", N: 1, Addr: "203.0.113.5:443"},
		{Op: "passed-write", N: 2}, {Op: "passed-connect", N: 3, Addr: "203.0.113.5:443"},
	}
	for _, a := range []attempt{tests[0], tests[2]} {
		if got := r.in.try(a); got.Errno != 0 {
			t.Errorf("not armed: %+v: %+v", a, got)
		}
	}
	r.arm(dir)
	for _, a := range tests {
		if got := r.in.try(a); got.Errno != unix.EACCES {
			t.Errorf("inside: %+v: %+v", a, got)
		}
	}
	for _, a := range []attempt{tests[0], tests[2]} {
		if got := other.try(a); got.Errno != 0 {
			t.Errorf("outside: %+v: %+v", a, got)
		}
	}
}

// guardTree is a workspace with repositories and settings.
func guardTree(t *testing.T, base string) {
	t.Helper()
	for _, d := range []string{"repo/.git/hooks", "src/hooks", ".claude", "plain/dir", "repo/dir", "repo/.git/dir", "bare.git/hooks"} {
		if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"repo/.git/hooks/old", ".claude/old", "old", "repo/.git/hooks/other"} {
		if err := os.WriteFile(filepath.Join(base, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// guardedEntries are refused, openEntries are not.
var (
	guardedEntries = []struct{ op, path string }{
		{"entry-create", "repo/.git/hooks/pre-commit"}, {"entry-mknod", "repo/.git/hooks/post-checkout"}, {"entry-mkdir", "repo/.git/hooks/pre-push"},
		{"entry-symlink", "bare.git/hooks/update"}, {"entry-link", "repo/.git/hooks/post-merge"}, {"entry-rename", "repo/.git/hooks/pre-rebase"},
		{"entry-renamedir", "repo/.git"}, {"entry-renamedir", "repo/.git/hooks"}, {"entry-symlink", "plain/.git"},
		{"entry-create", ".mcp.json"}, {"entry-rename", ".mcp.json"}, {"entry-create", ".claude/settings.json"},
		{"entry-link", ".claude/settings.json"}, {"entry-renamedir", "plain/.claude"},
	}
	openEntries = []struct{ op, path string }{
		{"entry-create", "repo/.git/hooks/pre-commit.sample"}, {"entry-create", "src/hooks/useThing.ts"}, {"entry-create", "pre-commit"},
		{"entry-mkdir", "src/.git"}, {"entry-mkdir", "src/.git/hooks"}, {"entry-create", "plain/.git"}, {"entry-create", ".claude/notes.md"},
		{"entry-mkdir", "plain/.claude"}, {"entry-create", "settings.json"}, {"entry-create", strings.Repeat("x", 200)},
	}
)

// TestGuardEntries: names that make tools outside run programs cannot be given
// in the workspace, in any way, at any depth.
func TestGuardEntries(t *testing.T) {
	r, dir := guardRig(t, 0)
	deep := filepath.Join(dir, "a/b/c")
	guardTree(t, dir)
	guardTree(t, deep)
	first := attempt{Op: "entry-create", Addr: filepath.Join(deep, guardedEntries[0].path)}
	if got := r.in.try(first); got.Errno != 0 {
		t.Errorf("not armed: %+v", got)
	}
	if err := os.Remove(first.Addr); err != nil {
		t.Fatal(err)
	}
	r.arm(dir)
	for _, base := range []string{dir, deep} {
		for _, c := range guardedEntries {
			if got := r.in.try(attempt{Op: c.op, Addr: filepath.Join(base, c.path)}); got.Errno != unix.EACCES {
				t.Errorf("inside: %+v: %+v, want EACCES", c, got)
			}
		}
		for _, c := range openEntries {
			if got := r.in.try(attempt{Op: c.op, Addr: filepath.Join(base, c.path)}); got.Errno != 0 {
				t.Errorf("inside, allowed: %+v: %+v", c, got)
			}
		}
	}
	exchange := attempt{Op: "entry-exchange", Addr: filepath.Join(dir, "repo/.git/hooks/commit-msg")}
	if err := os.WriteFile(exchange.Addr, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if in, out := r.in.try(exchange), r.out.try(exchange); in.Errno != unix.EACCES || out.Errno != 0 {
		t.Errorf("two names exchanged: inside %+v, outside %+v", in, out)
	}
	r.guardRecord("entry", HookLSMEntry, ReasonEntry, unix.EACCES)
	if g := find(t, r.recs, "link", func(g *Guarded) bool { return g.Way == WayLink && g.Name == "post-merge" }); g.Parent != "hooks" {
		t.Errorf("record %+v", g)
	}
}

// TestGuardEntriesElsewhere: a process outside makes what is refused inside, and
// so does one inside in another file system than the workspace's.
func TestGuardEntriesElsewhere(t *testing.T) {
	r, dir := guardRig(t, 0)
	r.arm(dir)
	for _, c := range guardedEntries {
		base := filepath.Join(dir, strings.ReplaceAll(c.op+c.path, "/", "_"))
		guardTree(t, base)
		at := filepath.Join(base, c.path)
		if c.op == "entry-renamedir" {
			if err := errors.Join(os.RemoveAll(at), os.MkdirAll(beside(at, "dir"), 0o755)); err != nil {
				t.Fatal(err)
			}
		}
		if got := r.out.try(attempt{Op: c.op, Addr: at}); got.Errno != 0 {
			t.Errorf("outside: %+v: %+v", c, got)
		}
	}
	elsewhere, err := os.MkdirTemp("/dev/shm", "ringfence-guard")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(elsewhere)
	if sameDevice(t, elsewhere, dir) {
		t.Fatalf("%s and %s are one file system", elsewhere, dir)
	}
	if got := r.in.try(attempt{Op: "entry-create", Addr: filepath.Join(elsewhere, ".mcp.json")}); got.Errno != 0 {
		t.Errorf("in another file system: %+v", got)
	}
	if got := r.in.try(attempt{Op: "entry-create", Addr: filepath.Join(dir, ".mcp.json")}); got.Errno != unix.EACCES {
		t.Errorf("in the workspace: %+v", got)
	}
}

func sameDevice(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y unix.Stat_t
	if err := errors.Join(unix.Stat(a, &x), unix.Stat(b, &y)); err != nil {
		t.Fatal(err)
	}
	return x.Dev == y.Dev
}

// TestGuardPrivileges: programs without no_new_privs, user namespaces and
// io_uring.
func TestGuardPrivileges(t *testing.T) {
	r, dir := guardRig(t, 0)
	hooks, absent, _ := r.fence.Guard()
	r.arm(dir)
	for _, c := range []struct {
		op, lsm string
		hook    Hook
		reason  Reason
	}{
		{"exec-plain", "bprm_check_security", HookLSMExec, ReasonPrivilege},
		{"userns", "userns_create", HookLSMUserns, ReasonNamespace},
		{"io_uring", "uring_allowed", HookLSMURing, ReasonURing},
	} {
		want := unix.EPERM
		switch {
		case slices.Contains(absent, c.lsm):
			want = 0 // the kernel is older than the hook
		case !slices.Contains(hooks, c.lsm):
			t.Errorf("%s is neither used nor absent", c.lsm)
		}
		if got := r.in.try(attempt{Op: c.op}); got.Errno != want {
			t.Errorf("%s inside: %+v, want %v", c.op, got, want)
		}
		if got := r.out.try(attempt{Op: c.op}); got.Errno != 0 {
			t.Errorf("%s outside: %+v", c.op, got)
		}
		if want != 0 {
			r.guardRecord(c.op, c.hook, c.reason, want)
		}
	}
	if got := r.in.try(attempt{Op: "exec-confined"}); got.Errno != 0 {
		t.Errorf("a program with no_new_privs: %+v", got)
	}
	if g := find(t, r.recs, "exec", func(g *Guarded) bool { return g.Hook == HookLSMExec }); g.Name != "true" {
		t.Errorf("record %+v", g)
	}
}

// guardPins lists what is pinned of the guard.
func guardPins(t *testing.T, f *Fence) []string {
	t.Helper()
	pins, err := filepath.Glob(filepath.Join(f.dir, "links", "lsm_*"))
	if err != nil {
		t.Fatal(err)
	}
	return pins
}

// TestGuardLife: pinned hooks refuse while no keeper runs, the next keeper goes
// on with them, and they are gone with the last sandbox.
func TestGuardLife(t *testing.T) {
	needRoot(t)
	pin := t.TempDir()
	f := openFence(t, pin)
	if _, _, err := f.Guard(); err != nil {
		if err := f.Remove(); err != nil {
			t.Error(err)
		}
		env.Lack(t, env.BPFLSM(), "BPF as a security module (CONFIG_BPF_LSM, bpf in lsm=): "+err.Error())
	}
	ns, cgroup, dir := newNamespace(t), newCgroup(t), t.TempDir()
	box, err := f.AttachSandbox(cgroup, State{Sandbox: testSandbox, Policy: testPolicy})
	if err != nil {
		t.Fatal(err)
	}
	if pins := guardPins(t, f); len(pins) != 0 {
		t.Errorf("attached before a sandbox is guarded: %v", pins)
	}
	in := ns.spawn(t, cgroup)
	r := &rig{T: t, fence: f, ns: ns, cgroup: cgroup, box: box}
	r.arm(dir)
	entry := func(n string) attempt { return attempt{Op: "entry-create", Addr: filepath.Join(dir, n, ".mcp.json")} }
	for _, n := range []string{"1", "2", "3", "4"} {
		if err := os.Mkdir(filepath.Join(dir, n), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := in.try(entry("1")); got.Errno != unix.EACCES {
		t.Errorf("guarded: %+v", got)
	}
	if err := errors.Join(box.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if got := in.try(entry("2")); got.Errno != unix.EACCES {
		t.Errorf("without a keeper: %+v", got)
	}
	f = openFence(t, pin)
	defer func() {
		if err := f.Remove(); err != nil {
			t.Error(err)
		}
	}()
	if box, err = f.TakeOverSandbox(cgroup, testSandbox); err != nil {
		t.Fatal(err)
	}
	if got := in.try(entry("3")); got.Errno != unix.EACCES {
		t.Errorf("with another keeper: %+v", got)
	}
	if len(f.guard.links) == 0 {
		t.Error("the other keeper does not hold the hooks")
	}
	in.end()
	if err := detachSoon(box); err != nil {
		t.Error(err)
	}
	if pins := guardPins(t, f); len(pins) != 0 {
		t.Errorf("outlived the last sandbox: %v", pins)
	}
	guards, err := keysWhere(f.maps.Guards, func(*uint32, *bpf.FenceRfGuard) bool { return true })
	rows, err2 := keysWhere(f.maps.Entries, func(*bpf.FenceRfEntryKey, *uint32) bool { return true })
	if err := errors.Join(err, err2); err != nil || len(guards) != 0 || len(rows) != 0 {
		t.Errorf("outlived the sandbox: %v, %d rows, %v", guards, len(rows), err)
	}
}

// TestNoGuard: without BPF LSM the fence says why, and a sandbox is none the
// worse.
func TestNoGuard(t *testing.T) {
	r := newRig(t, 0)
	hooks, _, err := r.fence.Guard()
	if err == nil {
		if len(hooks) == 0 {
			t.Error("no reason and no hooks")
		}
		return // the other tests show that it holds
	}
	if len(hooks) != 0 || err.Error() == "" {
		t.Errorf("%v, %v", hooks, err)
	}
	if err := r.box.Guard(GuardRules{Entries: GitHooks()}); err != nil {
		t.Error(err)
	}
	if pins := guardPins(t, r.fence); len(pins) != 0 {
		t.Errorf("pins %v", pins)
	}
}

func TestGuardedPaths(t *testing.T) {
	for p, want := range map[string][]GuardEntry{
		".mcp.json":             {{"", ".mcp.json", WayAny}},
		".claude/settings.json": {{"", ".claude", WaySymlink | WayRename}, {".claude", "settings.json", WayAny}},
		"a/./b/c/":              {{"", "a", WaySymlink | WayRename}, {"a", "b", WaySymlink | WayRename}, {"b", "c", WayAny}},
		strings.Repeat("x", 64): nil,
		strings.Repeat("x", 63): {{"", strings.Repeat("x", 63), WayAny}},
	} {
		if got := GuardedPath(p); !slices.Equal(got, want) {
			t.Errorf("GuardedPath(%q) = %v, want %v", p, got, want)
		}
	}
	for _, e := range []GuardEntry{{Name: ""}, {Name: "a/b"}, {Name: strings.Repeat("x", 64)}, {Parent: strings.Repeat("x", 64), Name: "x"}, {Name: "a\x00b"}} {
		if _, err := entryRows(1, []GuardEntry{e}); err == nil {
			t.Errorf("%+v was taken", e)
		}
	}
	if len(GitHooks()) < 30 {
		t.Errorf("%d rows for git", len(GitHooks()))
	}
}
