// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// world is a small Internet: a network namespace for the daemon, and behind
// one cable another with public and private addresses on which doubles serve.
// Nothing of the machine's own network is touched, and no packet leaves it.
type world struct {
	ca    *doubles.CA
	roots string // PEM file of ca
	hosts map[string]string

	near, far space
	next      int
}

// space is a thread that lives in a network namespace of its own.
type space struct {
	on   chan func()
	done chan struct{}
}

func newSpace(t *testing.T) space {
	t.Helper()
	s := space{on: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go func() {
		defer close(s.done)
		runtime.LockOSThread() // never unlocked: the thread and its namespace end with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = up("lo")
		}
		ready <- err
		for f := range s.on {
			f()
		}
	}()
	t.Cleanup(func() { close(s.on); <-s.done })
	need(t, <-ready)
	return s
}

// do runs f on the thread. Sockets and processes that it makes belong to the
// namespace for good.
func (s space) do(f func()) {
	done := make(chan struct{})
	s.on <- func() { defer close(done); f() }
	<-done
}

func up(name string, addrs ...string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, a := range addrs {
		parsed, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, parsed); err != nil {
			return fmt.Errorf("%s %s: %w", name, a, err)
		}
	}
	return netlink.LinkSetUp(l)
}

// publicBase and privateAddr are addresses in the world. The public ones stand
// for the Internet: no guard of the gateway knows them as special.
const (
	publicBase  = "93.184.216."
	privateAddr = "10.20.0.5"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("RINGFENCE_CI") != "" {
			t.Fatal("whole-product tests need root, and CI has it")
		}
		t.Skip("needs root: cgroups, namespaces and BPF programs")
	}
	ca, err := doubles.NewCA()
	need(t, err)
	w := &world{ca: ca, roots: filepath.Join(t.TempDir(), "roots.pem"), hosts: map[string]string{}, near: newSpace(t), far: newSpace(t), next: 10}
	need(t, os.WriteFile(w.roots, ca.PEM(), 0o644))
	var nearNS int
	w.near.do(func() { nearNS, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	need(t, err)
	defer unix.Close(nearNS)
	w.far.do(func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "far"
		err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "near", PeerNamespace: netlink.NsFd(nearNS)})
		if err != nil {
			return
		}
		addrs := []string{privateAddr + "/16"}
		for i := 10; i < 60; i++ {
			addrs = append(addrs, fmt.Sprintf("%s%d/24", publicBase, i))
		}
		err = up("far", addrs...)
	})
	need(t, err)
	w.near.do(func() { err = up("near", publicBase+"2/24", "10.20.0.2/16") })
	need(t, err)
	return w
}

// listen opens a TCP socket in the world. An address without a port gets one.
func (w *world) listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	var ln net.Listener
	var err error
	w.far.do(func() { ln, err = net.Listen("tcp", addr) })
	need(t, err)
	t.Cleanup(func() { ln.Close() })
	return ln
}

// answer has f answer each connection to an address, and gives the address with its
// port. f need not close what it is given.
func (w *world) answer(t *testing.T, addr string, f func(net.Conn)) string {
	t.Helper()
	ln := w.listen(t, addr)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
	return ln.Addr().String()
}

// address is a public address that no other name of this world has.
func (w *world) address() string {
	w.next++
	return fmt.Sprintf("%s%d", publicBase, w.next)
}

// site serves h as name on ports 80 and 443 of an address of its own.
func (w *world) site(t *testing.T, name string, h http.Handler) string {
	t.Helper()
	addr := w.address()
	w.hosts[name] = addr
	s, err := w.ca.Serve(w.listen(t, addr+":443"), h, name)
	need(t, err)
	plain, err := doubles.Serve(w.listen(t, addr+":80"), h)
	need(t, err)
	t.Cleanup(func() { _ = s.Close(); _ = plain.Close() })
	return addr
}

// config is the daemon's configuration for this world.
func (w *world) config() string {
	var b strings.Builder
	fmt.Fprintf(&b, "gateway:\n  rootCAs: %s\n  resolvers: [\"%s9:53\"]\n  hosts:\n", w.roots, publicBase)
	for name, addr := range w.hosts {
		fmt.Fprintf(&b, "    %s: [%s]\n", name, netip.MustParseAddr(addr))
	}
	if len(w.hosts) == 0 {
		b.WriteString("    nothing.test: [192.0.2.1]\n")
	}
	return b.String()
}

// start runs a daemon in this world.
func (w *world) start(t *testing.T, o node.Options) *node.Node {
	t.Helper()
	o.Config = w.config() + o.Config
	o.NoStart = true
	n := node.Start(t, o)
	w.near.do(func() { n.StartDaemon(t) })
	return n
}

// discard reads a body to its end and counts it.
func discard(r io.Reader) int64 {
	n, _ := io.Copy(io.Discard, r)
	return n
}
