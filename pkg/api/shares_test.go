// SPDX-License-Identifier: Apache-2.0

package api

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func connOf(uid uint32) *peerConn { return &peerConn{caller: &Caller{UID: uid}} }

func TestConnectionsOfOneUserAreBounded(t *testing.T) {
	s := newShares(2)
	busy := func(uid uint32) *peerConn {
		c := connOf(uid)
		if _, ok := s.take(c); ok {
			s.waits(c, false)
		}
		return c
	}
	a, b := busy(7), busy(7)
	if _, ok := s.take(connOf(7)); ok {
		t.Error("one user has more than its share")
	}
	if _, ok := s.take(connOf(8)); !ok {
		t.Error("another user was refused")
	}
	if _, ok := s.take(connOf(0)); !ok {
		t.Error("root was refused")
	}
	s.give(a)
	s.give(a)
	c := busy(7)
	if s.n != 3 {
		t.Errorf("%d are counted", s.n)
	}
	// One that waits makes room: the one that waits longest.
	s.waits(c, true)
	time.Sleep(time.Millisecond)
	s.waits(b, true)
	if evicted, ok := s.take(connOf(7)); !ok || evicted != c {
		t.Errorf("%v, %p in place of %p", ok, evicted, c)
	}
	if s.n != 3 {
		t.Errorf("%d are counted", s.n)
	}
}

// Many users of one person fill what all have together: the one with most makes
// room, as far as anything of it waits.
func TestConnectionsOfAllUsersAreBounded(t *testing.T) {
	s := newShares(3)
	s.all = 5
	var first *peerConn
	for i, uid := range []uint32{7, 7, 7, 8, 8} {
		c := connOf(uid)
		if evicted, ok := s.take(c); !ok || evicted != nil {
			t.Fatalf("connection %d: %v", i, ok)
		}
		if first == nil {
			first = c
		}
		s.waits(c, c == first || uid == 8)
	}
	if evicted, ok := s.take(connOf(9)); !ok || evicted != first {
		t.Errorf("%v, %p in place of %p", ok, evicted, first)
	}
	for range 2 { // of 9 itself or of 8
		if evicted, ok := s.take(connOf(10)); !ok || evicted == nil || evicted.caller.UID == 7 {
			t.Errorf("%v, in place of %+v", ok, evicted)
		}
	}
	for _, of := range s.of {
		for _, p := range of {
			p.idle = time.Time{}
		}
	}
	if _, ok := s.take(connOf(11)); ok || s.n != 5 {
		t.Errorf("taken although nothing waits, of %d", s.n)
	}
	if _, ok := s.take(connOf(0)); !ok {
		t.Error("root was refused")
	}
}

// What lasts leaves room for requests, one of which may be what ends it.
func TestWhatLastsLeavesRoomForRequests(t *testing.T) {
	s := newShares(16)
	var all []*peerConn
	for i := range 16 {
		c := connOf(7)
		s.take(c)
		s.waits(c, false)
		all = append(all, c)
		if err := s.last(c); (err == nil) != (i < 14) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	s.waits(all[0], true) // its stream has ended
	s.waits(all[15], false)
	if err := s.last(all[15]); err != nil {
		t.Error(err)
	}
	if err := s.last(connOf(7)); CodeOf(err) != CodeUnavailable {
		t.Errorf("one that has no place: %v", err)
	}
	if err := s.last(connOf(0)); err != nil {
		t.Errorf("root: %v", err)
	}
}

// dialAs connects as another user: credentials are the thread's.
func dialAs(t *testing.T, socket string, uid int) net.Conn {
	t.Helper()
	type dialed struct {
		c   net.Conn
		err error
	}
	done := make(chan dialed)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		const keep = ^uintptr(0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
			done <- dialed{nil, errno}
			return
		}
		c, err := net.Dial("unix", socket)
		done <- dialed{c, err}
	}()
	d := <-done
	if d.err != nil {
		t.Fatal(d.err)
	}
	t.Cleanup(func() { _ = d.c.Close() })
	return d.c
}

// Who opens connections and says nothing loses the oldest of them to its own
// next one, and nobody else's.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	needRootTest(t)
	socket := serve(t, newFake(), Options{MaxConnsPerUID: 2})
	root, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck
	var mine []net.Conn
	for range 4 {
		mine = append(mine, dialAs(t, socket, memberUID))
	}
	for i, c := range mine[:2] {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("connection %d of 4: %d, %v", i, n, err)
		}
	}
	for name, c := range map[string]net.Conn{"root's": root, "the third": mine[2], "the fourth": mine[3]} {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.WriteString(c, "GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n, err := c.Read(make([]byte, 8)); n == 0 || err != nil {
			t.Errorf("%s: no answer: %v", name, err)
		}
	}
}
