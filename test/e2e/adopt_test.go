// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/test/node"
)

const adoptPolicy = `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: shop}
scope: org:acme/team:web
egress:
  - {id: web, allow: "web.test:443"}
  - {id: db, allow: "10.20.0.0/16:7000"}
`

// adopted is a world with one program that was adopted.
type adopted struct {
	*world
	n         *node.Node
	a         *adoptee
	db, other string // greeters: one that the policy allows, and one that it does not
}

func newAdopted(t *testing.T) *adopted {
	t.Helper()
	return newAdoptedIn(t, newCgroup(t), "")
}

// newAdoptedIn runs the program in the given cgroup, beside a daemon with the
// given configuration.
func newAdoptedIn(t *testing.T, cgroup, config string) *adopted {
	t.Helper()
	w := newWorld(t)
	readable(t, w.roots)
	w.site(t, "web.test", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "web") }))
	r := &adopted{world: w, db: w.greeter(t, privateAddr+":7000"), other: w.greeter(t, w.address()+":7000")}
	r.a = startAdoptee(t, w, w.newPod(t), cgroup)
	r.n = w.start(t, node.Options{Config: config, Policies: map[string]string{"shop.yaml": adoptPolicy}})
	return r
}

// readable opens the directories of a test's file to other users.
func readable(t *testing.T, path string) {
	t.Helper()
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		need(t, os.Chmod(dir, 0o755))
	}
}

func (r *adopted) adopt(t *testing.T, flags ...string) node.Result {
	t.Helper()
	args := append([]string{"adopt", "--pid", fmt.Sprint(r.a.cmd.Process.Pid), "--as", "org:acme/team:web/agent:shop", "--name", "shop"}, flags...)
	return r.n.CLI(t, args...)
}

func (r *adopted) denied(t *testing.T, op, arg string) {
	t.Helper()
	if text, err := r.a.do(op, arg); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("%s %s: %q, %v; want permission denied", op, arg, text, err)
	}
}

func (r *adopted) gives(t *testing.T, op, arg, want string) {
	t.Helper()
	if text, err := r.a.do(op, arg); err != nil || !strings.Contains(text, want) {
		t.Errorf("%s %s: %q, %v; want %q", op, arg, text, err, want)
	}
}

func TestAdopt(t *testing.T) {
	r := newAdopted(t)
	// Controls: everything that is denied later works now.
	r.gives(t, "tcp", r.other, "from "+podAddr)
	r.gives(t, "tcp", r.db, "from "+podAddr)
	r.gives(t, "udp", r.other, "")
	r.gives(t, "keep", r.other, "from "+podAddr)
	r.gives(t, "kept", r.other, "still")

	res := r.adopt(t)
	if res.Code != 0 || !strings.Contains(res.Stderr, "1 open connections were ended") {
		t.Fatalf("adopt: %d %s%s", res.Code, res.Stdout, res.Stderr)
	}
	if text, err := r.a.do("kept", r.other); err == nil {
		t.Errorf("the connection from before lives: %q", text)
	}
	r.denied(t, "tcp", r.other)
	r.denied(t, "udp", r.other)
	r.denied(t, "tcp", "127.0.0.1:1")
	r.denied(t, "tcp", "169.254.169.254:80")
	r.denied(t, "tcp", "198.18.0.9:443")
	r.gives(t, "get", "https://web.test/", "200 web")
	r.gives(t, "tcp", r.db, r.db+" from 10.20.0.2") // shown as asked for, come through the gateway
	if addrs, err := r.a.do("resolve", "other.test"); err == nil {
		t.Errorf("a name that policy does not know resolves to %s", addrs)
	}

	ps := r.n.CLI(t, "ps")
	if !strings.Contains(ps.Stdout, "network only") || !strings.Contains(ps.Stdout, "files, system calls, identity: not applied (adopted)") {
		t.Errorf("ps: %s", ps.Stdout)
	}
	r.n.WaitEvent(t, "the denial under the scope", func(e *event.Event) bool {
		return e.Verdict == event.Denied && e.DstAddr == r.other && strings.HasPrefix(e.Scope, "org:acme/team:web/agent:shop")
	})
	local := r.n.WaitEvent(t, "the denial that the adoption decides", func(e *event.Event) bool {
		return e.Verdict == event.Denied && e.DstAddr == "127.0.0.1:1" && e.Kind == event.KindNetwork
	})
	if x := r.n.CLI(t, "explain", fmt.Sprint(local.Sequence)); !strings.Contains(x.Stdout, "to allow  release it and adopt it again with --loopback") || !strings.Contains(x.Stdout, "is closed for what was adopted") {
		t.Errorf("explain: %s%s", x.Stdout, x.Stderr)
	}
	r.n.WaitEvent(t, "the connection by name", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.Verdict == event.Allowed && e.DstName == "web.test" &&
			e.Source == "gateway" && e.PID == uint32(r.a.cmd.Process.Pid) && e.Comm != "" && e.Parents != ""
	})
	if s := r.n.CLI(t, "stop", "shop"); s.Code != 4 && s.Code != 1 || !strings.Contains(s.Stderr, "ringfence release") {
		t.Errorf("stop: %d %s", s.Code, s.Stderr)
	}
	r.denied(t, "tcp", r.other)
	if s := r.n.CLI(t, "release", "shop"); s.Code != 0 || !strings.Contains(s.Stderr, "without a fence") {
		t.Errorf("release: %d %s", s.Code, s.Stderr)
	}
	if all := r.n.CLI(t, "ps", "--all"); !regexp.MustCompile(`(?m)^\S+ +shop .* released .* -$`).MatchString(all.Stdout) {
		t.Errorf("ps --all after the release: %s", all.Stdout)
	}
	if now := r.n.CLI(t, "ps"); strings.Contains(now.Stdout, "shop") {
		t.Errorf("ps after the release: %s", now.Stdout)
	}
	r.gives(t, "tcp", r.other, "from "+podAddr)
	r.n.WaitEvent(t, "the release", func(e *event.Event) bool {
		return e.Kind == event.KindSandboxStop && strings.Contains(e.Reason, "without a fence")
	})
}

func TestAdoptDirectAndRevoke(t *testing.T) {
	r := newAdopted(t)
	if res := r.adopt(t, "--direct"); res.Code != 0 {
		t.Fatalf("adopt: %s", res.Stderr)
	}
	r.gives(t, "tcp", r.db, r.db+" from "+podAddr)
	r.denied(t, "tcp", r.other)
	r.gives(t, "keep", r.db, "from "+podAddr)
	r.gives(t, "kept", r.db, "still")
	r.n.WritePolicy(t, "shop.yaml", strings.Replace(adoptPolicy, ":7000", ":7001", 1))
	eventually(t, "the direct connection is ended", func() bool { _, err := r.a.do("kept", r.db); return err != nil })
	r.denied(t, "tcp", r.db)
}

func TestAdoptRevokedThroughTheGateway(t *testing.T) {
	r := newAdopted(t)
	if res := r.adopt(t); res.Code != 0 {
		t.Fatalf("adopt: %s", res.Stderr)
	}
	r.gives(t, "keep", r.db, "from 10.20.0.2")
	r.gives(t, "kept", r.db, "still")
	r.n.WritePolicy(t, "shop.yaml", strings.Replace(adoptPolicy, ":7000", ":7001", 1))
	eventually(t, "the connection is ended", func() bool { _, err := r.a.do("kept", r.db); return err != nil })
	r.denied(t, "tcp", r.db)
	r.gives(t, "get", "https://web.test/", "200 web")
}

func TestAdoptKeeperDies(t *testing.T) {
	r := newAdopted(t)
	if res := r.adopt(t); res.Code != 0 {
		t.Fatalf("adopt: %s", res.Stderr)
	}
	before := r.n.Sandbox(t, "shop")
	r.gives(t, "get", "https://web.test/", "200 web")
	r.gives(t, "keep", r.db, "from 10.20.0.2")
	r.n.KillDaemon(t)
	r.denied(t, "tcp", r.other)
	r.gives(t, "tcp", r.db, "from 10.20.0.2") // the gateway serves on
	r.gives(t, "kept", r.db, "still")
	r.near.do(func() { r.n.StartDaemon(t) })
	if now := r.n.Sandbox(t, "shop"); now.ID != before.ID || now.State != "running" || !now.Adopted || now.Enforcement == "unenforced" {
		t.Errorf("after the restart: %+v", now)
	}
	r.denied(t, "tcp", r.other)
	r.gives(t, "kept", r.db, "still")
	r.gives(t, "get", "https://web.test/", "200 web")
	if s := r.n.CLI(t, "release", "shop"); s.Code != 0 {
		t.Errorf("release: %s", s.Stderr)
	}
	r.gives(t, "tcp", r.other, "from "+podAddr)
}

// The gateway dies alone: the keeper has its listeners.
func TestAdoptGatewayDies(t *testing.T) {
	r := newAdopted(t)
	if res := r.adopt(t); res.Code != 0 {
		t.Fatalf("adopt: %s", res.Stderr)
	}
	before := r.n.KillGateway(t)
	r.denied(t, "tcp", r.other)
	eventually(t, "another gateway", func() bool { now, ok := r.n.Gateway(t); return ok && now.PID != before.PID })
	eventually(t, "it serves", func() bool { text, _ := r.a.do("tcp", r.db); return strings.Contains(text, "from 10.20.0.2") })
	r.gives(t, "get", "https://web.test/", "200 web")
}

// Both die: a new gateway has no listeners of the old one.
func TestAdoptKeeperAndGatewayDie(t *testing.T) {
	r := newAdopted(t)
	if res := r.adopt(t); res.Code != 0 {
		t.Fatalf("adopt: %s", res.Stderr)
	}
	gateway, ok := r.n.Gateway(t)
	if !ok {
		t.Fatal("no gateway")
	}
	r.n.KillDaemon(t)
	p, err := os.FindProcess(gateway.PID)
	need(t, err)
	need(t, p.Kill())
	eventually(t, "nothing listens any more", func() bool { _, err := r.a.do("tcp", r.db); return err != nil })
	r.denied(t, "tcp", r.other)
	r.near.do(func() { r.n.StartDaemon(t) })
	r.gives(t, "tcp", r.db, "from 10.20.0.2")
	r.denied(t, "tcp", r.other)
}

// A restarted daemon that cannot take an adoption over leaves it denied, and
// the next one tries again.
func TestAdoptThatCannotBeTakenOver(t *testing.T) {
	t.Run("through the gateway", func(t *testing.T) { adoptCannotBeTakenOver(t, "from 10.20.0.2") })
	t.Run("direct", func(t *testing.T) { adoptCannotBeTakenOver(t, "from 10.31.0.", "--direct") })
}

func adoptCannotBeTakenOver(t *testing.T, from string, flags ...string) {
	r := newAdopted(t)
	r.a.end()
	pod := r.newPodAt(t, "10.31.0")
	r.a = startAdoptee(t, r.world, pod, r.a.cgroup)
	if res := r.adopt(t, flags...); res.Code != 0 {
		t.Fatalf("adopt: %s", res.Stderr)
	}
	r.gives(t, "tcp", r.db, from)
	r.n.KillDaemon(t)
	r.n.KillGateway(t)
	r.a.end() // the cgroup is empty: nothing shows its network namespace
	eventually(t, "it is empty", func() bool {
		b, err := os.ReadFile(filepath.Join(r.a.cgroup, "cgroup.events"))
		return err == nil && strings.Contains(string(b), "populated 0")
	})
	r.near.do(func() { r.n.StartDaemon(t) })
	r.n.WaitEvent(t, "it says so", func(e *event.Event) bool {
		return e.Activity == "adopt-failed" && strings.Contains(e.Detail, r.a.cgroup)
	})
	if res := r.n.CLI(t, "adopt", "--cgroup", r.a.cgroup); res.Code == 0 || !strings.Contains(res.Stderr, "adopted already") {
		t.Errorf("adopt again: %d %s", res.Code, res.Stderr)
	}
	r.a = startAdoptee(t, r.world, pod, r.a.cgroup)
	r.denied(t, "tcp", r.other)
	if text, err := r.a.do("tcp", r.db); err == nil {
		t.Errorf("something serves it: %q", text)
	}
	r.n.StopDaemon(t, syscall.SIGTERM) // with nothing else it would clean up
	r.denied(t, "tcp", r.other)
	r.near.do(func() { r.n.StartDaemon(t) })
	r.gives(t, "tcp", r.db, from)
	r.denied(t, "tcp", r.other)
}

// The adoption ends with the cgroup, and leaves nothing.
func TestAdoptEndsWithItsCgroup(t *testing.T) {
	r := newAdopted(t)
	if res := r.adopt(t); res.Code != 0 {
		t.Fatalf("adopt: %s", res.Stderr)
	}
	r.a.end()
	eventually(t, "the cgroup can be removed", func() bool { return os.Remove(r.a.cgroup) == nil })
	eventually(t, "the adoption has ended", func() bool { return !strings.Contains(r.n.CLI(t, "ps").Stdout, "shop") })
	r.n.WaitEvent(t, "the end", func(e *event.Event) bool {
		return e.Kind == event.KindSandboxStop && strings.Contains(e.Reason, "cgroup was removed")
	})
}

func TestAdoptRefuses(t *testing.T) {
	r := newAdopted(t)
	refused := func(want string, args ...string) {
		t.Helper()
		res := r.n.CLI(t, append([]string{"adopt"}, args...)...)
		if res.Code == 0 || !strings.Contains(res.Stderr, want) {
			t.Errorf("adopt %v: %d %s; want %q", args, res.Code, res.Stderr, want)
		}
	}
	root, err := kernel.CgroupRoot()
	need(t, err)
	empty := newCgroup(t)
	refused("root of the cgroup hierarchy", "--cgroup", root)
	refused("no process", "--cgroup", empty)
	refused("no cgroup", "--cgroup", "/no-such-cgroup")
	refused("no process 999999999", "--pid", "999999999")
	refused("the daemon's own cgroups", "--cgroup", r.n.Cgroup(t))
	refused("the daemon's own cgroups", "--cgroup", filepath.Join(r.n.Cgroup(t), "gateway"))
	refused("no cgroup v2 is named after", "--container", strings.Repeat("c", 64))

	// Who asks from within would lock itself in.
	mine := newCgroup(t)
	dir, err := os.Open(mine)
	need(t, err)
	defer dir.Close()
	cmd := r.n.Command(t.Context(), "adopt", "--cgroup", mine)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if res := node.Finish(t, cmd); res.Code == 0 || !strings.Contains(res.Stderr, "you are in this cgroup yourself") {
		t.Errorf("adopt of the own cgroup: %d %s", res.Code, res.Stderr)
	}

	// Processes of one cgroup in two network namespaces.
	two := newCgroup(t)
	startAdoptee(t, r.world, r.near, two)
	startAdoptee(t, r.world, r.far, two)
	refused("2 network namespaces", "--cgroup", two)

	if res := r.adopt(t); res.Code != 0 {
		t.Fatalf("adopt: %s", res.Stderr)
	}
	refused("adopted already", "--pid", fmt.Sprint(r.a.cmd.Process.Pid))
}

// Sockets that were made elsewhere, and unix sockets that are connected to
// others, would stay outside of the fence.
func TestAdoptLooseSockets(t *testing.T) {
	r := newAdopted(t)
	r.a.end()
	var c net.Conn
	var err error
	r.near.do(func() { c, err = net.Dial("tcp", r.other) })
	need(t, err)
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	need(t, err)
	defer f.Close()
	r.a = startAdoptee(t, r.world, r.near, newCgroup(t), f)
	sock := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", sock)
	need(t, err)
	defer ln.Close()
	need(t, os.Chmod(sock, 0o777))
	readable(t, sock)
	r.a.must("keep-unix", sock)
	accepted, err := ln.Accept()
	need(t, err)
	defer accepted.Close()

	res := r.adopt(t)
	for _, want := range []string{"2 open descriptors", "-> " + r.other, "made outside of the cgroup", "unix: it is connected to process", "--keep-sockets"} {
		if res.Code == 0 || !strings.Contains(res.Stderr, want) {
			t.Errorf("adopt: %d %s; want %q", res.Code, res.Stderr, want)
		}
	}
	r.gives(t, "tcp", r.other, "from ") // nothing has changed for it
	if res = r.adopt(t, "--keep-sockets"); res.Code != 0 || !strings.Contains(res.Stderr, "unenforced") {
		t.Fatalf("adopt: %d %s", res.Code, res.Stderr)
	}
	s := r.n.Sandbox(t, "shop")
	if s.Enforcement != "unenforced" || len(s.Parts) != 7 {
		t.Errorf("ps: %+v", s)
	}
	r.n.WaitEvent(t, "an event for each", func(e *event.Event) bool {
		return e.ReasonCode == "loose-socket" && strings.Contains(e.Detail, r.other)
	})
	r.denied(t, "tcp", r.other)
	r.denied(t, "unix", sock)

	// Each look lists what is there at its time.
	r.a.must("drop", sock)
	r.n.StopDaemon(t, syscall.SIGTERM)
	r.near.do(func() { r.n.StartDaemon(t) })
	eventually(t, "one is left", func() bool {
		s := r.n.Sandbox(t, "shop")
		return s.Enforcement == "unenforced" && len(s.Parts) == 6
	})
}

// A cgroup as a container runtime names it, adopted by the container's id. The
// program gets a certificate it can trust where policy looks into TLS, and
// serves on.
func TestAdoptContainer(t *testing.T) {
	r := newAdopted(t)
	r.a.end()
	id := fmt.Sprintf("%016x", os.Getpid()) + strings.Repeat("9c0d41e7b8a65544", 3)
	cgroup := filepath.Join(newCgroup(t), "docker-"+id+".scope")
	need(t, os.Mkdir(cgroup, 0o755))
	t.Cleanup(func() {
		eventually(t, "the container's cgroup can be removed", func() bool { return os.Remove(cgroup) == nil })
	})
	pod := r.newPodAt(t, "10.31.0")
	r.a = startAdoptee(t, r.world, pod, cgroup)
	r.n.WritePolicy(t, "shop.yaml", strings.Replace(adoptPolicy, `"web.test:443"`, `"web.test:443", http: {methods: [GET]}`, 1))
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if res := r.n.CLI(t, "adopt", "--container", id[:12], "--as", "org:acme/team:web", "--inbound", "--ca", ca); res.Code != 0 {
		t.Fatalf("adopt: %s", res.Stderr)
	}
	if b, err := os.ReadFile(ca); err != nil || !strings.HasPrefix(string(b), "-----BEGIN CERTIFICATE-----") {
		t.Errorf("certificate: %q %v", b, err)
	} else {
		need(t, os.WriteFile(r.roots, b, 0o644))
	}
	if ps := r.n.CLI(t, "ps"); !strings.Contains(ps.Stdout, "agent:"+id[:12]) {
		t.Errorf("ps: %s", ps.Stdout)
	}
	r.gives(t, "get", "https://web.test/", "200 web")
	r.denied(t, "tcp", r.other)
	addr := r.a.must("serve", "10.31.0.2:0")
	var text string
	var err error
	r.far.do(func() { text, err = (order{Op: "tcp", Arg: addr}).obey() })
	if err != nil || !strings.Contains(text, "served") {
		t.Errorf("its server, from outside: %q %v", text, err)
	}
}

// A program in the machine's own network namespace: what it is sent to is on
// the machine's loopback, and serves nobody else.
func TestAdoptInTheHostsNetwork(t *testing.T) {
	r := newAdopted(t)
	beside := r.a // in another namespace; replaced by one beside it
	beside.end()
	r.a = startAdopteeAs(t, r.world, r.near, newCgroup(t), 0)
	beside = startAdoptee(t, r.world, r.near, newCgroup(t))
	var local net.Listener
	var err error
	r.near.do(func() { local, err = net.Listen("tcp", "127.0.0.1:0") })
	need(t, err)
	defer local.Close()
	if res := r.adopt(t, "--loopback"); res.Code == 0 || !strings.Contains(res.Stderr, "machine's own network namespace") {
		t.Errorf("adopt --loopback: %d %s", res.Code, res.Stderr)
	}
	if res := r.adopt(t); res.Code != 0 {
		t.Fatalf("adopt: %s", res.Stderr)
	}
	if ps := r.n.CLI(t, "ps", "-o", "json"); !strings.Contains(ps.Stdout, "CAP_NET_RAW: it can send packets that no hook sees") {
		t.Errorf("ps does not say what root can undo: %s", ps.Stdout)
	}
	r.gives(t, "tcp", r.db, r.db+" from 10.20.0.2")
	r.gives(t, "get", "https://web.test/", "200 web")
	r.denied(t, "tcp", local.Addr().String())
	r.denied(t, "tcp", r.other)
	for _, addr := range listening(t, r.near) {
		if addr == local.Addr().String() {
			continue
		}
		if text, err := beside.do("tcp", addr); err == nil {
			t.Errorf("a program beside it is served at %s: %q", addr, text)
		}
	}
	if text, err := beside.do("tcp", r.other); err != nil || !strings.Contains(text, "from ") {
		t.Errorf("control: %q %v", text, err)
	}
}

// listening lists what listens on loopback in a namespace.
func listening(t *testing.T, s space) (out []string) {
	t.Helper()
	var b []byte
	var err error
	s.do(func() { b, err = os.ReadFile("/proc/thread-self/net/tcp") })
	need(t, err)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		var addr, port uint32
		if len(f) < 4 || f[3] != "0A" {
			continue
		}
		if _, err := fmt.Sscanf(f[1], "%08X:%04X", &addr, &port); err == nil && addr == 0x0100007f {
			out = append(out, fmt.Sprintf("127.0.0.1:%d", port))
		}
	}
	if len(out) < 3 {
		t.Fatalf("nothing of the gateway listens: %v", out)
	}
	return out
}
