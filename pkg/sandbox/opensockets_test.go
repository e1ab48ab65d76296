// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sleeper is a process that holds descriptors, from 3 on, and does nothing.
func sleeper(t *testing.T, fds ...int) int {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	for _, fd := range fds {
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(copied), "")
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process.Pid
}

func socketOf(t *testing.T, domain, typ, proto int) int {
	t.Helper()
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// looked looks at processes as if sockets of no sandbox were their own.
func looked(t *testing.T, b bounds, pids ...int) (*looseLook, int) {
	t.Helper()
	h := handOf(t, make(chan struct{}, 1))
	defer h.close()
	l := &looseLook{pids: pids, hand: h, held: new(atomic.Bool), bounds: b, seen: map[uint64]bool{}}
	done, err := l.all(pids)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.settleIn([]*os.File{ns}); err != nil {
		t.Fatal(err)
	}
	return l, done
}

// Who made a pair of sockets says nothing about who holds its ends.
func TestUnixSocketsByTheirOtherEnd(t *testing.T) {
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		for _, c := range []struct {
			name            string
			inside, outside []int // ends that the adopted process holds, and another one
			want            string
		}{
			{"both inside", []int{0, 1}, nil, ""},
			{"one passed out", []int{0}, []int{1}, "it is connected to process %d outside of the cgroup"},
			{"one inside and outside", []int{0, 1}, []int{1}, "its other end is held by process %d outside of the cgroup too"},
		} {
			t.Run(fmt.Sprint(c.name, typ), func(t *testing.T) {
				pair, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				ends := func(which []int) (out []int) {
					for _, i := range which {
						out = append(out, pair[i])
					}
					return out
				}
				in, out := sleeper(t, ends(c.inside)...), sleeper(t, ends(c.outside)...)
				unix.Close(pair[0])
				unix.Close(pair[1])
				l, _ := looked(t, newBounds(), in)
				if c.want == "" {
					if len(l.found) > 0 {
						t.Errorf("found %v", l.found)
					}
					return
				}
				if want := fmt.Sprintf(c.want, out); len(l.found) != 1 || l.found[0].Why != want {
					t.Errorf("found %v, want %q", l.found, want)
				}
				if both, _ := looked(t, newBounds(), min(in, out), max(in, out)); len(both.found) > 0 {
					t.Errorf("both processes adopted: %v", both.found)
				}
			})
		}
	}
}

func TestUnixSocketWhoseOtherEndIsClosed(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	in := sleeper(t, pair[0])
	unix.Close(pair[0])
	if l, _ := looked(t, newBounds(), in); len(l.found) != 1 { // held by the test, which is the keeper here: shown by nobody
		t.Errorf("control: %v", l.found)
	}
	unix.Close(pair[1])
	if l, _ := looked(t, newBounds(), in); len(l.found) != 0 {
		t.Errorf("found %v", l.found)
	}
}

func TestRawSocketsAreLoose(t *testing.T) {
	for _, c := range []struct {
		domain, typ, proto int
		want               string
	}{
		{unix.AF_INET, unix.SOCK_STREAM, 0, ""}, {unix.AF_INET6, unix.SOCK_DGRAM, 0, ""},
		{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP, "a raw socket"}, {unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6, "a raw socket"},
		{unix.AF_NETLINK, unix.SOCK_RAW, 0, "no hook"},
	} {
		l, _ := looked(t, newBounds(), sleeper(t, socketOf(t, c.domain, c.typ, c.proto)))
		if c.want == "" && len(l.found) > 0 || c.want != "" && (len(l.found) != 1 || !strings.Contains(l.found[0].Why, c.want)) {
			t.Errorf("%+v: %v", c, l.found)
		}
	}
}

// What is found beyond what is listed is counted.
func TestLooseSocketsBeyondTheList(t *testing.T) {
	var fds []int
	for range maxLoose + 7 {
		fds = append(fds, socketOf(t, unix.AF_NETLINK, unix.SOCK_RAW, 0))
	}
	l, _ := looked(t, newBounds(), sleeper(t, fds...))
	if len(l.found) != maxLoose || l.more != 7 {
		t.Errorf("%d listed and %d more", len(l.found), l.more)
	}
	e := &RefusedSockets{Sockets: l.found, More: l.more}
	if !strings.HasPrefix(e.Error(), "507 open descriptors") {
		t.Error(e)
	}
}

// A look ends, says so, and the next one goes on elsewhere.
func TestLooksAreBounded(t *testing.T) {
	var fds []int
	for range 200 {
		fds = append(fds, socketOf(t, unix.AF_INET, unix.SOCK_DGRAM, 0))
	}
	a, b := sleeper(t, fds...), sleeper(t, socketOf(t, unix.AF_NETLINK, unix.SOCK_RAW, 0))
	few := bounds{left: 50, until: time.Now().Add(time.Hour)}
	l, done := looked(t, few, a, b)
	if !l.bounds.reached() || done != 0 || len(l.seen) > 50 {
		t.Errorf("reached %t, %d processes and %d sockets looked at", l.bounds.reached(), done, len(l.seen))
	}
	if l, done = looked(t, few, b, a); done != 1 || len(l.found) != 1 {
		t.Errorf("the other way round: %d processes, found %v", done, l.found)
	}
	if l, _ = looked(t, bounds{left: lookDescriptors, until: time.Now()}, a); !l.bounds.reached() || len(l.seen) > 128 {
		t.Errorf("no time: reached %t after %d sockets", l.bounds.reached(), len(l.seen))
	}
	if l, done = looked(t, newBounds(), a, b); l.bounds.reached() || done != 2 || len(l.seen) != 201 {
		t.Errorf("control: reached %t, %d processes and %d sockets looked at", l.bounds.reached(), done, len(l.seen))
	}
	for first, want := range map[int]string{0: "[1 5 9]", 5: "[5 9 1]", 6: "[9 1 5]", 10: "[1 5 9]"} {
		if got := fmt.Sprint(beginAt([]int{1, 5, 9}, first)); got != want {
			t.Errorf("beginning at %d: %s", first, got)
		}
	}
	before := Sighting{Loose: []LooseSocket{{PID: 5, inode: 1}, {PID: 9, inode: 2}}}
	now := Sighting{}
	if now.keep(before, []int{9}); len(now.Loose) != 1 || now.Loose[0].PID != 9 {
		t.Errorf("kept %v", now.Loose)
	}
}

// A descriptor number that means another socket by the time it is copied.
func TestDescriptorThatChanges(t *testing.T) {
	pid := sleeper(t, socketOf(t, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP))
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	h := handOf(t, make(chan struct{}, 1))
	defer h.close()
	l := &looseLook{pids: []int{pid}, hand: h, held: new(atomic.Bool), bounds: newBounds(), seen: map[uint64]bool{}}
	if err := l.descriptor(pid, pid, pidfd, 3, "socket:[7]"); err != nil { // as /proc said it a moment ago
		t.Fatal(err)
	}
	if l.seen[7] {
		t.Error("the socket that the number meant before counts as looked at")
	}
	if len(l.found) != 1 || l.found[0].inode == 7 || !l.seen[l.found[0].inode] {
		t.Errorf("found %+v", l.found)
	}
}

// What a process calls itself, or does with its socket, does not make an old
// finding a new one, nor the end of one of the processes that have it.
func TestFindingsAreKnownAgain(t *testing.T) {
	a := LooseSocket{PID: 1, FD: 3, Comm: "a", What: "tcp", inode: 9}
	for _, c := range []struct {
		b    LooseSocket
		want bool
	}{
		{LooseSocket{PID: 1, FD: 4, Comm: "b", What: "tcp 1.2.3.4:5", inode: 9}, true},
		{LooseSocket{PID: 2, FD: 3, Comm: "a", What: "tcp", inode: 9}, true},
		{LooseSocket{PID: 1, FD: 3, Comm: "a", What: "tcp", inode: 10}, false},
	} {
		if a.same(c.b) != c.want {
			t.Errorf("%+v: %t", c.b, !c.want)
		}
	}
	ring := LooseSocket{PID: 1, FD: 3, What: "/dev/net/tun"}
	if other := (LooseSocket{PID: 1, FD: 4, What: "/dev/net/tun"}); ring.same(other) || !ring.same(ring) {
		t.Error("files are not told apart by their descriptors")
	}
}
