// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

func TestKeptConnections(t *testing.T) {
	pair := func() (*kept, net.Conn) {
		c, far := connection(t)
		wire, err := newReadAhead(c, &lender{})
		if err != nil {
			t.Fatal(err)
		}
		return &kept{Conn: wire, wire: wire}, far
	}
	isClosed := func(far net.Conn) bool {
		_ = far.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err := far.Read(make([]byte, 1))
		return errors.Is(err, io.EOF) || isReset(err)
	}
	a, b := destination{"a.test", 443, true}, destination{"a.test", 443, false}
	var p keptConns
	now := time.Now()
	k, far := pair()
	p.put(a, k, now)
	if p.get(b) != nil || p.get(destination{"b.test", 443, true}) != nil {
		t.Fatal("another destination's connection")
	}
	if p.get(a) != k || p.get(a) != nil {
		t.Fatal("not the connection that was kept, once")
	}
	p.put(a, k, now.Add(-2*keptIdle))
	if p.prune(); p.n != 0 || !isClosed(far) {
		t.Error("it is kept for ever")
	}
	k, far = pair()
	p.put(a, k, now)
	if p.close(); !isClosed(far) {
		t.Error("it outlives its epoch")
	}
	k, far = pair()
	if p.put(a, k, now); !isClosed(far) {
		t.Error("it came back to an epoch that was closed")
	}
	p = keptConns{}
	for range maxKeptEach {
		k, _ := pair()
		p.put(a, k, now)
	}
	k, far = pair()
	if p.put(a, k, now); !isClosed(far) {
		t.Error("more than the limit are kept")
	}
	p.close()
}
