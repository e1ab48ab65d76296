// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/test/env"
)

// needRoot skips where the kernel cannot be asked at all.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("RINGFENCE_CI") == "1" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
}

// needHook skips only on a kernel older than the hook.
func needHook(t testing.TB, f *Fence, h Hook) {
	t.Helper()
	if f.progs[h] != nil {
		return
	}
	if os.Getenv("RINGFENCE_CI") == "1" {
		t.Fatalf("kernel lacks %v", h)
	}
	t.Skipf("kernel lacks %v", h)
}

// needProtocol ends a case whose protocol the kernel refuses to anybody.
func needProtocol(t testing.TB, name string) {
	t.Helper()
	registered := map[string]string{"MPTCP": "MPTCP", "UDP-Lite": "UDP-Lite", "SCTP": "SCTP", "ping socket": "PING"}[name]
	if registered == "" {
		t.Fatalf("%s: no control succeeds, and no kernel lacks it", name)
	}
	env.Lack(t, env.Protocol(registered), "the protocol "+registered+" (/proc/net/protocols)")
}

// lacksTracepoint ends a test of what the recorder of refused calls says.
func lacksTracepoint(t testing.TB, err error) {
	t.Helper()
	env.Lack(t, true, "the system call tracepoint (CONFIG_FTRACE_SYSCALLS): "+err.Error())
}

func openFence(t testing.TB, pin string) *Fence {
	t.Helper()
	f, err := Open(Options{PinDir: pin, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("Open: %+v", err)
	}
	return f
}

// newFence opens a fence in its own bpffs and removes it at the end.
func newFence(t testing.TB) *Fence {
	t.Helper()
	needRoot(t)
	f := openFence(t, t.TempDir())
	t.Cleanup(func() {
		if err := f.Remove(); err != nil {
			t.Errorf("Remove: %v", err)
		}
	})
	return f
}

var cgroupSeq struct {
	sync.Mutex
	n int
}

// newCgroup makes an empty cgroup below the discovered root.
func newCgroup(t testing.TB) string {
	t.Helper()
	root, err := CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	cgroupSeq.Lock()
	cgroupSeq.n++
	path := filepath.Join(root, fmt.Sprintf("ringfence-test-%d-%d", os.Getpid(), cgroupSeq.n))
	cgroupSeq.Unlock()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroup(t, path) })
	return path
}

// removeCgroup waits for exiting processes; a test may have removed it before.
func removeCgroup(t testing.TB, path string) {
	t.Helper()
	var err error
	for range 100 {
		if err = os.Remove(path); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("remove cgroup: %v", err)
}

// namespace is a network namespace as a sandbox has it: lo only, every
// address routed to itself.
type namespace struct{ file *os.File }

func newNamespace(t testing.TB) *namespace {
	t.Helper()
	return namespaceWith(t, routeAll)
}

// namespaceWith makes a namespace and sets it up from inside.
func namespaceWith(t testing.TB, setUp func() error) *namespace {
	t.Helper()
	type made struct {
		f   *os.File
		err error
	}
	ch := make(chan made, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with this goroutine
		f, err := makeNamespace()
		if err == nil {
			err = setUp()
		}
		ch <- made{f, err}
	}()
	m := <-ch
	if m.err != nil {
		t.Fatalf("make namespace: %v", m.err)
	}
	t.Cleanup(func() { m.f.Close() })
	return &namespace{m.f}
}

func makeNamespace() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	return os.Open("/proc/thread-self/ns/net")
}

// routeAll makes every address local to the namespace.
func routeAll() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	own, _ := netlink.ParseAddr("198.18.0.1/32")
	_, all4, _ := net.ParseCIDR("0.0.0.0/0")
	_, all6, _ := net.ParseCIDR("::/0")
	local := func(dst *net.IPNet, src net.IP) *netlink.Route {
		return &netlink.Route{
			LinkIndex: lo.Attrs().Index, Dst: dst, Src: src, Table: unix.RT_TABLE_LOCAL,
			Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
		}
	}
	return errors.Join(
		netlink.LinkSetUp(lo),
		netlink.AddrAdd(lo, own),
		netlink.RouteAdd(local(all4, net.IPv4(198, 18, 0, 1))),
		netlink.RouteAdd(local(all6, nil)),
	)
}

// do runs fn on a thread inside the namespace.
func (ns *namespace) do(fn func() error) error {
	ch := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
			ch <- err
			return
		}
		ch <- fn()
	}()
	return <-ch
}

// listen opens a plain TCP listener inside, as the keeper does, and answers
// each connection with "<tag> <local address>".
func (ns *namespace) listen(t testing.TB, network, addr, tag string) (int, net.Listener) {
	t.Helper()
	var l net.Listener
	err := ns.do(func() (err error) {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		l, err = lc.Listen(context.Background(), network, addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if tag == "echo" {
					io.Copy(c, c)
					return
				}
				fmt.Fprintf(c, "%s %s", tag, c.LocalAddr())
				if tag == "hold" {
					c.Read(make([]byte, 1))
				}
			}()
		}
	}()
	// Not File().Fd(): that makes the listener blocking.
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	if err := raw.Control(func(p uintptr) { fd = int(p) }); err != nil {
		t.Fatal(err)
	}
	return fd, l
}

// child is a helper process, in a cgroup or not.
type child struct {
	t   testing.TB
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
	end func()
}

// spawn starts a helper in the namespace, born inside the cgroup if one is
// given, and with files from descriptor 3 on. The helper is root with every
// capability: the fence alone decides.
func (ns *namespace) spawn(t testing.TB, cgroup string, files ...*os.File) *child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	// The runtime's preemption signals would interrupt blocking calls.
	// The race detector would have each process wait for a second at its end.
	cmd.Env = append(os.Environ(), helperEnv+"=1", "GODEBUG=asyncpreemptoff=1", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = files
	if cgroup != "" {
		dir, err := os.Open(cgroup)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	c := &child{t: t, cmd: cmd, in: json.NewEncoder(stdin), out: json.NewDecoder(stdout)}
	c.end = func() { once.Do(func() { stdin.Close(); cmd.Wait() }) }
	t.Cleanup(c.end)
	return c
}

func (c *child) start(a attempt) {
	c.t.Helper()
	if err := c.in.Encode(a); err != nil {
		c.t.Fatal(err)
	}
}

func (c *child) wait() result {
	c.t.Helper()
	var r result
	if err := c.out.Decode(&r); err != nil {
		c.t.Fatalf("helper: %v", err)
	}
	return r
}

func (c *child) try(a attempt) result {
	c.t.Helper()
	c.start(a)
	return c.wait()
}

// collector keeps the records of a fence.
type collector struct {
	mu   sync.Mutex
	recs []Record
}

func collect(t testing.TB, f *Fence) *collector {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &collector{}
	done := make(chan error, 1)
	go func() {
		done <- f.Records(ctx, func(r Record) {
			c.mu.Lock()
			c.recs = append(c.recs, r)
			c.mu.Unlock()
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Records: %v", err)
		}
	})
	return c
}

func (c *collector) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recs = nil
}

func (c *collector) all() []Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Record(nil), c.recs...)
}

// find waits for a record that ok accepts.
func find[T Record](t testing.TB, c *collector, what string, ok func(T) bool) T {
	t.Helper()
	for deadline := time.Now().Add(env.Wait(3 * time.Second)); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for _, r := range c.all() {
			if v, is := r.(T); is && ok(v) {
				return v
			}
		}
	}
	for _, r := range c.all() {
		t.Logf("have %+v", r)
	}
	t.Fatalf("no record: %s", what)
	panic("unreachable")
}

func itoa(n uint32) string { return fmt.Sprint(n) }

// eventually repeats a connection until its server is there.
func eventually(try func() result) result {
	var r result
	for range 200 {
		if r = try(); r.Errno != unix.ECONNREFUSED {
			return r
		}
		time.Sleep(5 * time.Millisecond)
	}
	return r
}

func allowTCP(prefix string) CIDREntry {
	return CIDREntry{Prefix: netip.MustParsePrefix(prefix), Proto: ProtoTCP, Allow: true, Rule: 1}
}

// atLeast compares kernel releases by their first two numbers.
func atLeast(release, version string) bool {
	var a, b, c, d int
	fmt.Sscanf(release, "%d.%d", &a, &b)
	fmt.Sscanf(version, "%d.%d", &c, &d)
	return a > c || a == c && b >= d
}
