// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// operation is one thing that a process in a cgroup does, for its hooks.
type operation struct {
	name    string
	outside bool   // the process is born outside and joins the cgroup itself
	client  string // a process outside connects here meanwhile
	run     func(*scene) error
}

// scene is what an operation finds. It travels to the process that plays it.
type scene struct {
	Dir    string // of unix sockets
	Cgroup string
	FD     int // a UDP socket that the parent process holds
}

// Where the stage has servers: TCP on both families, UDP on both, a unix
// socket by path and an abstract one of each type.
const (
	tcpPort, udpPort = 80, 9
	servePort        = 81
	abstractStream   = "@visible-stream"
	abstractDgram    = "@visible-dgram"
)

func at(ip string, port int) string {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(port)).String()
}

// errLacking marks what this kernel does not have.
var errLacking = errors.New("not in this kernel")

func lacking(what string, err error) error { return fmt.Errorf("%s: %w: %w", what, errLacking, err) }

func step(what string, err error) error { return fmt.Errorf("%s: %w", what, err) }

// visible plays an operation in the helper process.
func (a attempt) visible() result {
	for _, op := range operations() {
		if op.name != a.Addr {
			continue
		}
		runtime.LockOSThread() // some change the thread's namespace
		err := op.run(a.Scene)
		if errors.Is(err, errLacking) {
			return result{Errno: unix.ENOTSUP, Reply: err.Error()}
		}
		if err != nil {
			return result{Errno: unix.EINVAL, Reply: err.Error()}
		}
		return result{}
	}
	return fail("unknown operation "+a.Addr, unix.ENOSYS)
}

// join moves the process into the cgroup, or into one below it.
func (s *scene) join(below ...string) error {
	dir := filepath.Join(append([]string{s.Cgroup}, below...)...)
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644) //nolint:gosec // not a file
}

// stage is a namespace with servers in it, none of them in a watched cgroup.
type stage struct {
	ns    *namespace
	dir   string
	given int // a UDP socket of this process, in the namespace
}

func newStage(t *testing.T) *stage {
	t.Helper()
	st := &stage{ns: newNamespace(t), dir: t.TempDir()}
	st.ns.listen(t, "tcp", at("::", tcpPort), "visible")
	err := st.ns.do(func() error {
		// "Who may make ping sockets" is a setting of the namespace.
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0o644); err != nil {
			t.Logf("ping sockets stay closed: %v", err)
		}
		var err error
		if st.given, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(st.given) })
		return errors.Join(
			st.bind(t, unix.SOCK_DGRAM, unix.AF_INET6, &unix.SockaddrInet6{Port: udpPort}),
			st.bind(t, unix.SOCK_STREAM, unix.AF_UNIX, unixAddr(filepath.Join(st.dir, "stream"))),
			st.bind(t, unix.SOCK_STREAM, unix.AF_UNIX, unixAddr(abstractStream)),
			st.bind(t, unix.SOCK_DGRAM, unix.AF_UNIX, unixAddr(filepath.Join(st.dir, "dgram"))),
			st.bind(t, unix.SOCK_DGRAM, unix.AF_UNIX, unixAddr(abstractDgram)),
		)
	})
	if err != nil {
		t.Fatalf("set the stage: %v", err)
	}
	st.passDescriptors(t)
	return st
}

// bind makes a server that nobody serves: what arrives stays in its queue.
func (st *stage) bind(t *testing.T, typ, family int, sa unix.Sockaddr) error {
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, sa); err != nil || typ != unix.SOCK_STREAM {
		return err
	}
	return unix.Listen(fd, 128)
}

// passDescriptors gives the UDP socket to whoever connects to "pass".
func (st *stage) passDescriptors(t *testing.T) {
	t.Helper()
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(l, unixAddr(filepath.Join(st.dir, "pass"))), unix.Listen(l, 1)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			if err := unix.Sendmsg(c, []byte{0}, unix.UnixRights(st.given), nil, 0); err != nil {
				t.Errorf("pass a descriptor: %v", err)
			}
			unix.Close(c)
		}
	}()
	t.Cleanup(func() {
		unix.Shutdown(l, unix.SHUT_RDWR) // ends accept
		<-done
		unix.Close(l)
	})
}

// play lets a process of its own do the operation and returns the hooks that
// saw it, or nil if the kernel lacks it.
func (st *stage) play(t *testing.T, c *counters, op operation) []string {
	t.Helper()
	cgroup := newCgroup(t)
	born := cgroup
	if op.outside {
		born = ""
	}
	c.watch(t, cgroup)
	in := st.ns.spawn(t, born)
	in.start(attempt{Op: "visible", Addr: op.name, Scene: &scene{Dir: st.dir, Cgroup: cgroup, FD: st.given}})
	if op.client != "" {
		out := st.ns.spawn(t, "")
		eventually(func() result { return out.try(attempt{Op: "tcp", Addr: op.client}) })
		out.end()
	}
	r := in.wait()
	in.end() // closes what it left open
	if r.Errno == unix.ENOTSUP {
		t.Log(r.Reply)
		return nil
	}
	if r.Errno != 0 {
		t.Fatalf("%s: %s", op.name, r.Reply)
	}
	return c.fired(t)
}
