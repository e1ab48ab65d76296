// SPDX-License-Identifier: Apache-2.0

package gatewayd

import (
	"net"
	"os"
	"testing"

	"github.com/ringfence/ringfence/pkg/gateway"
)

func TestListenersAreClosedWhenALaterOneFails(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before := openFiles(t)
	var sb gateway.Sandbox
	if _, err := openListeners(&sb, []*os.File{f, f, f, f, f, f, f, f, f, f}); err == nil {
		t.Fatal("a TCP listener was taken for a UDP socket")
	}
	if sb.TCP4 != nil || sb.DNSTCP6 != nil {
		t.Error("closed listeners are handed on")
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
