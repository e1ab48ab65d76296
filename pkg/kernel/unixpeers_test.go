// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"os"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func inodeOf(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestUnixPeers(t *testing.T) {
	runtime.LockOSThread() // the sockets and the list are to be of one namespace
	defer runtime.UnlockOSThread()
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		pair, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		a, b := inodeOf(t, pair[0]), inodeOf(t, pair[1])
		peers, err := UnixPeers(int(ns.Fd()), new(atomic.Bool))
		if err != nil {
			t.Fatal(err)
		}
		if peers[a] != b || peers[b] != a {
			t.Errorf("type %d: the ends %d and %d have the peers %d and %d", typ, a, b, peers[a], peers[b])
		}
		unix.Close(pair[1])
		if peers, err = UnixPeers(int(ns.Fd()), new(atomic.Bool)); err != nil || peers[a] != 0 {
			t.Errorf("type %d: the peer is closed: %d, %v", typ, peers[a], err)
		}
		unix.Close(pair[0])
	}
	alone, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(alone)
	peers, err := UnixPeers(int(ns.Fd()), new(atomic.Bool))
	if _, connected := peers[inodeOf(t, alone)]; connected || err != nil {
		t.Errorf("a socket that is not connected has a peer, %v", err)
	}
}

func FuzzUnixPeer(f *testing.F) {
	m := make([]byte, 24)
	m[4], m[16], m[18], m[20] = 7, 8, attrUnixPeer, 9
	f.Add(m)
	f.Add(m[:17])
	f.Fuzz(func(t *testing.T, b []byte) {
		inode, peer, connected, err := unixPeer(b)
		if err != nil && (inode != 0 || peer != 0 || connected) || !connected && peer != 0 {
			t.Errorf("%d %d %t %v", inode, peer, connected, err)
		}
	})
}
