// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace as a sandbox has it: only lo, and a route
// that makes every address local. Its functions run on one thread inside it.
type namespace struct{ jobs chan func() }

func newNamespace(tb testing.TB) *namespace {
	tb.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("RINGFENCE_CI") == "1" {
			tb.Fatal("network namespaces need root")
		}
		tb.Skip("network namespaces need root")
	}
	n := &namespace{jobs: make(chan func())}
	ready := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the namespace
		ready <- setUpNamespace()
		for f := range n.jobs {
			f()
		}
	}()
	if err := <-ready; err != nil {
		tb.Fatalf("network namespace: %v", err)
	}
	tb.Cleanup(func() { close(n.jobs) })
	return n
}

func setUpNamespace() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	self, _ := netlink.ParseAddr("198.18.0.1/32")
	if err := netlink.AddrAdd(lo, self); err != nil {
		return err
	}
	_, all4, _ := net.ParseCIDR("0.0.0.0/0")
	_, all6, _ := net.ParseCIDR("::/0")
	for _, r := range []*netlink.Route{
		{LinkIndex: lo.Attrs().Index, Dst: all4, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST, Src: self.IP},
		{LinkIndex: lo.Attrs().Index, Dst: all6, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL},
	} {
		if err := netlink.RouteAdd(r); err != nil {
			return fmt.Errorf("route %v: %w", r.Dst, err)
		}
	}
	return nil
}

// do runs f inside.
func (n *namespace) do(f func()) {
	done := make(chan struct{})
	n.jobs <- func() { defer close(done); f() }
	<-done
}

func (n *namespace) dial(network, addr string) (c net.Conn, err error) {
	n.do(func() { c, err = net.DialTimeout(network, addr, 3*time.Second) })
	return c, err
}

// manyPorts stands for the listener that sk_lookup steers every port to.
type manyPorts struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	all    []net.Listener
}

func listenPorts(tb testing.TB, n *namespace, network, host string, ports ...int) *manyPorts {
	tb.Helper()
	m := &manyPorts{conns: make(chan net.Conn), closed: make(chan struct{})}
	for _, p := range ports {
		var l net.Listener
		var err error
		n.do(func() { l, err = net.Listen(network, net.JoinHostPort(host, fmt.Sprint(p))) })
		if err != nil {
			tb.Fatal(err)
		}
		m.all = append(m.all, l)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				select {
				case m.conns <- c:
				case <-m.closed:
					reset(c.(*net.TCPConn)) // as the kernel does with the backlog
				}
			}
		}()
	}
	return m
}

func (m *manyPorts) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *manyPorts) Close() error {
	m.once.Do(func() {
		close(m.closed)
		for _, l := range m.all {
			l.Close()
		}
	})
	return nil
}

func (m *manyPorts) Addr() net.Addr { return m.all[0].Addr() }
