// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/wire"
	"github.com/ringfence/ringfence/test/env"
)

func ten(t *testing.T) *Listeners {
	t.Helper()
	var files []*os.File
	for range 4 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		l.Close()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	for range 6 {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := c.(*net.UDPConn).File()
		c.Close()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	l, ok := ListenersFrom(files)
	if !ok {
		t.Fatal("ten descriptors are not taken")
	}
	t.Cleanup(l.Close)
	return l
}

// What a gateway gives back after the keeper was away counts only if it is
// what it was given.
func TestOnlyTheVerySocketsAreTakenBack(t *testing.T) {
	mine, other := ten(t), ten(t)
	want, err := mine.cookies()
	if err != nil {
		t.Fatal(err)
	}
	again, err := dup(mine.TCP4)
	if err != nil {
		t.Fatal(err)
	}
	copied := *mine
	copied.TCP4 = os.NewFile(uintptr(again), "copy")
	defer copied.TCP4.Close()
	if !mine.are(want) || !copied.are(want) {
		t.Error("the very sockets, or copies of their descriptors, are refused")
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	swapped, foreign, file := *mine, *mine, *mine
	swapped.TCP4, swapped.DNSTCP4 = mine.DNSTCP4, mine.TCP4
	foreign.DNSUDP6 = other.DNSUDP6
	file.TCP6 = null
	for name, l := range map[string]*Listeners{"another sandbox's": other, "in another order": &swapped, "one foreign": &foreign, "a file": &file} {
		if l.are(want) {
			t.Errorf("%s: taken", name)
		}
	}
	if mine.are(nil) || mine.are(want[:9]) {
		t.Error("sockets that nobody noted are taken")
	}
	for _, n := range []int{0, 5, 7, 9, 11} {
		if _, ok := ListenersFrom(make([]*os.File, n)); ok {
			t.Errorf("%d descriptors are taken", n)
		}
	}
	redirected, ok := ListenersFrom(mine.Files()[:6])
	if !ok || redirected.UDP4 != nil || !redirected.are(want[:6]) || redirected.are(want) {
		t.Errorf("listeners without those of datagrams: %+v, %v", redirected, ok)
	}
}

func TestUIDsInUseAreNotGivenAgain(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a := UIDs{Dir: dir, Range: UIDRange{First: 1 << 30, Count: 4}}
	b := a // another keeper of the machine
	got := map[uint32]*UID{}
	for i, from := range []UIDs{a, b, a, b} {
		u, err := from.Acquire(uint32(i) * 3)
		if err != nil {
			t.Fatal(err)
		}
		if got[u.Value] != nil || u.Value < a.Range.First || u.Value >= a.Range.First+a.Range.Count {
			t.Fatalf("uid %d is given again", u.Value)
		}
		got[u.Value] = u
	}
	if _, err := a.Acquire(2); err == nil {
		t.Error("a fifth uid out of four")
	}
	v := a.Range.First + 1
	if _, err := b.Take(v); err == nil {
		t.Error("a uid in use was taken by name")
	}
	got[v].Release()
	got[v].Release() // again is nothing
	if u, err := b.Acquire(0); err != nil || u.Value != v {
		t.Errorf("the one that was given back: %v, %v", u, err)
	} else {
		u.Release()
	}
}

// A keeper was killed and its sandbox lives: the lock is free, the uid is not.
func TestTheUIDOfAnOrphanIsNotGivenAgain(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	u := UIDs{Dir: dir, Range: UIDRange{First: 1 << 30, Count: 2}}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	p, err := ProcessOf(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := u.Acquire(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := mine.Bind(p); err != nil {
		t.Fatal(err)
	}
	mine.lock.Close() // what a kill does
	for range 2 {
		other, err := u.Acquire(0)
		if err != nil {
			t.Fatal(err)
		}
		if other.Value == mine.Value {
			t.Fatal("the uid of a living sandbox was given to another")
		}
		other.Release()
	}
	adopted, err := u.Take(mine.Value) // its own next keeper may
	if err != nil {
		t.Fatal(err)
	}
	adopted.lock.Close()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for deadline := time.Now().Add(10 * time.Second); p.Alive() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	again, err := u.Acquire(0)
	if err != nil || again.Value != mine.Value {
		t.Errorf("after the end of the sandbox: %v, %v", again, err)
	}
	again.Release()
}

// Listeners of a namespace that is not ours go over a socket in one order, and
// their ports are told by it.
func TestForeignListeners(t *testing.T) {
	if os.Geteuid() != 0 {
		env.Lack(t, false, "root")
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	l, err := ListenForeign(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want := wire.RedirectedListeners
	if env.Linux(5, 19) {
		want += wire.DatagramListeners
	}
	if n := len(l.Files()); n != want {
		t.Fatalf("%d listeners, want %d", n, want)
	}
	again, ok := ListenersFrom(l.Files())
	if !ok || !slices.Equal(again.Files(), l.Files()) {
		t.Error("the order is another one afterwards")
	}
	at, err := l.listening()
	if err != nil || len(at.Sockets) != want || len(at.UDP4) != kernel.Relays {
		t.Fatalf("%+v, %v", at, err)
	}
	for i := range len(l.Datagrams) / 2 {
		for network, port := range map[string]uint16{"udp4": at.UDP4[i], "udp6": at.UDP6[i]} {
			host := map[string]string{"udp4": "127.0.0.1", "udp6": "::1"}[network]
			if c, err := net.ListenPacket(network, net.JoinHostPort(host, strconv.Itoa(int(port)))); err == nil {
				c.Close()
				t.Errorf("nothing is at port %d, place %d of %s", port, i, network)
			}
		}
	}
}
