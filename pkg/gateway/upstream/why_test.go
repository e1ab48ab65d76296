// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestWhy(t *testing.T) {
	dial := func(err error) error {
		return fmt.Errorf("wrapped: %w", errors.Join(&net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(10, 9, 8, 7)}, Err: err}))
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{&ResolveError{&net.DNSError{Err: "no such host", Name: "x.test", Server: "10.9.8.7:53", IsNotFound: true}}, "the host's name servers do not know x.test (/etc/hosts is not asked)"},
		{&ResolveError{&net.DNSError{Err: "i/o timeout", Name: "x.test", IsTimeout: true}}, "the host's resolver did not answer in time for x.test"},
		{&ResolveError{fmt.Errorf("resolve x.test: %w", context.DeadlineExceeded)}, "the host's resolver did not answer in time for x.test"},
		{&ResolveError{&net.DNSError{Err: "server misbehaving", Name: "x.test", IsTemporary: true}}, "the host's resolver has no address for x.test"},
		{dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), "x.test refused the connection"},
		{dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), "this host has no route to x.test"},
		{dial(os.NewSyscallError("connect", syscall.EPERM)), "this host does not let the gateway connect to x.test"},
		{dial(os.ErrDeadlineExceeded), "x.test did not answer in time"},
		{context.DeadlineExceeded, "x.test did not answer in time"},
		{dial(os.NewSyscallError("read", syscall.ECONNRESET)), "x.test closed the connection without an answer"},
		{io.EOF, "x.test closed the connection without an answer"},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: handshake failure")}, "the TLS handshake with x.test failed"},
		{errors.New("tls: server selected unsupported protocol version 301"), "the TLS handshake with x.test failed"},
		{errors.New("something else of 10.9.8.7"), "x.test did not answer"},
	} {
		if got := Why(c.err, "x.test"); got != c.want || strings.Contains(got, "10.9.8.7") {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

// TestWhyOfRealFailures asks for what net and the dialer really return.
func TestWhyOfRealFailures(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := closed.Addr().(*net.TCPAddr).AddrPort().Port()
	closed.Close()
	hosts, err := NewResolver(ResolverConfig{Hosts: map[string][]netip.Addr{"down.test": {netip.MustParseAddr("127.0.0.1")}}, Servers: []string{fmt.Sprintf("127.0.0.1:%d", port)}})
	if err != nil {
		t.Fatal(err)
	}
	d := NewDialer(DialerConfig{Resolver: hosts})
	admit := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	for host, want := range map[string]string{"down.test": "down.test refused the connection", "unknown.test": "the host's resolver has no address for unknown.test"} {
		_, err := d.Dial(t.Context(), Target{Host: host, Port: port, Admit: admit})
		if got := Why(err, host); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
