// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/env"
	"github.com/ringfence/ringfence/test/escapes/world"
	"github.com/ringfence/ringfence/test/node"
)

const (
	owner    = 23456    // whose world it is, and who launches in the user's mode
	group    = "daemon" // an existing group, here the operators'
	groupGID = 1
)

// place is where the world stands: a network namespace in which every
// destination of the attempts is an address of the world, so that a packet
// which gets out is noticed and none leaves the machine. Two daemons serve the
// attempts. One stands in that namespace too; the other in the machine's own,
// for the kernel tells of Landlock's and the filter's refusals only there.
type place struct {
	wire, home *node.Node
	audited    bool   // the kernel tells home of refusals
	third      bool   // BPF LSM is enforced
	dir        string // the world's, and the attempts'
	world      *world.World
	program    []byte // the attempts program
	attempts   []attempt
	on         chan func()
}

func need(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newPlace builds everything. It skips without root, as every test that starts
// a daemon.
func newPlace(t *testing.T) *place {
	t.Helper()
	return newPlaceIn(t, "")
}

// newPlaceIn builds it below a directory, that of temporary files if it is "".
func newPlaceIn(t *testing.T, parent string) *place {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("RINGFENCE_CI") != "" {
			t.Fatal("whole-product tests need root, and CI has it")
		}
		t.Skip("needs root: cgroups, namespaces and BPF programs")
	}
	p := &place{on: make(chan func())}
	dir, err := os.MkdirTemp(parent, "esc") // short: unix socket paths lie below
	need(t, err)
	t.Cleanup(func() { need(t, os.RemoveAll(dir)) })
	need(t, os.Chmod(dir, 0o755))
	p.dir = dir
	program := env.Built("attempts")
	if program == "" {
		program = filepath.Join(dir, "attempts")
		build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./attempts")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
	}
	p.program, err = os.ReadFile(program)
	need(t, err)
	p.attempts = list(t, program)
	p.namespace(t)
	p.do(func() {
		p.world, err = world.Start(world.Options{Dir: filepath.Join(dir, "w"), Attempts: program, UID: owner, GID: owner, DNSPort: 53, WellKnown: true})
	})
	need(t, err)
	t.Cleanup(func() { need(t, p.world.Close()) })
	return p
}

// daemons starts the two.
func (p *place) daemons(t *testing.T) {
	t.Helper()
	config := "group: " + group + "\naudit: {landlock: true, watch: [" + p.dir + ", /tmp/escape, /dev/shm, /sys/fs/cgroup]}\n"
	p.wire = node.Start(t, node.Options{NoStart: true, Config: config})
	p.do(func() { p.wire.StartDaemon(t) })
	p.home = node.Start(t, node.Options{Config: config})
	for _, e := range p.home.Events(t) {
		switch {
		case e.Kind == event.KindDaemon && e.Activity == "audit-enabled":
			p.audited = true
		case e.Kind == event.KindDaemon && e.Activity == "degraded":
			t.Logf("this kernel lacks: %s", e.Reason+e.Detail)
		}
	}
	if r := p.home.CLI(t, "run", "-d", "--workspace", "none", "--name", "third", "--", "sleep", "1000"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	p.third = thirdLock(t, p.home, "third").State == api.Enforced
	if r := p.home.CLI(t, "stop", "--timeout", "0s", "third"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
}

// namespace starts the thread whose network namespace is the place.
func (p *place) namespace(t *testing.T) {
	t.Helper()
	done, ready := make(chan struct{}), make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread and its namespace end with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = p.addresses()
		}
		ready <- err
		for f := range p.on {
			f()
		}
	}()
	t.Cleanup(func() { close(p.on); <-done })
	need(t, <-ready)
}

// do runs f on the place's thread: sockets and processes that it makes belong
// to its network namespace.
func (p *place) do(f func()) {
	done := make(chan struct{})
	p.on <- func() { defer close(done); f() }
	<-done
}

// addresses leads what the attempts reach for to the loopback interface. They
// are no addresses of it: those of the node itself the gateway refuses for that.
func (p *place) addresses() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, a := range p.attempts {
		addr, err := netip.ParseAddr(strings.TrimPrefix(a.Trace, "::ffff:"))
		if a.Event != "network" || err != nil || addr.IsMulticast() || a.Trace == "255.255.255.255" {
			continue
		}
		to := &netlink.Route{LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST, Dst: netlink.NewIPNet(addr.AsSlice())}
		if err := netlink.RouteAdd(to); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("address %s: %w", addr, err)
		}
	}
	return nil
}
