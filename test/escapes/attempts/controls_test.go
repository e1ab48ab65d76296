// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/ringfence/ringfence/pkg/seccomp"
	"github.com/ringfence/ringfence/test/escapes/world"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The controls run in namespaces of their own, so that what succeeds harms
// nothing: the test starts itself there as the first process.
const (
	stageEnv   = "RINGFENCE_ESCAPES_STAGE"
	programEnv = "RINGFENCE_ESCAPES_PROGRAM"
	dirEnv     = "RINGFENCE_ESCAPES_DIR"
	user       = 12345
)

func TestList(t *testing.T) {
	list := all()
	if len(list) < 110 {
		t.Errorf("%d attempts", len(list))
	}
	seen := map[string]bool{}
	for _, a := range list {
		switch {
		case seen[a.Name]:
			t.Errorf("%s is there twice", a.Name)
		case strings.ContainsAny(a.Name, " =\n"), a.Class == "", a.Layer == "", a.Control == "", a.run == nil:
			t.Errorf("%s is not complete: %+v", a.Name, a)
		case len(a.Expect.Errnos) == 0 && !a.Expect.Contained:
			t.Errorf("%s expects nothing", a.Name)
		}
		seen[a.Name] = true
		for _, e := range a.Expect.Errnos {
			if e != "none" && e != "SIGSYS" && !knownErrno(e) {
				t.Errorf("%s expects %q, which is no errno", a.Name, e)
			}
		}
	}
}

func knownErrno(name string) bool {
	for e := syscall.Errno(1); e < 140; e++ {
		if unix.ErrnoName(e) == name {
			return true
		}
	}
	return false
}

// TestControls shows that every attempt is a real one: outside it succeeds.
func TestControls(t *testing.T) {
	if os.Getenv(stageEnv) != "" {
		t.Skip("inside its own namespaces")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to make namespaces for the controls")
	}
	dir, err := os.MkdirTemp("/tmp", "esc") // short: unix socket paths lie below
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "attempts")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestStage$", "-test.v")
	cmd.Env = append(os.Environ(), stageEnv+"=1", programEnv+"="+program, dirEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID,
		Setsid:     true, Pdeathsig: unix.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	report(t, string(out))
	if err != nil {
		t.Errorf("controls: %v", err)
	}
}

// report passes on what failed and counts the rest.
func report(t *testing.T, out string) {
	t.Helper()
	passed, skipped := 0, 0
	var notes []string
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "--- PASS: TestStage/"):
			passed++
		case strings.HasPrefix(line, "--- SKIP: TestStage/"):
			skipped++
		case strings.HasPrefix(line, "=== "), line == "PASS":
		default:
			notes = append(notes, line)
		}
	}
	t.Logf("%d controls succeeded, %d need what this machine lacks\n%s", passed, skipped, strings.Join(notes, "\n"))
	if passed < 110 {
		t.Errorf("only %d controls succeeded", passed)
	}
}

// TestStage is the inside of TestControls.
func TestStage(t *testing.T) {
	if os.Getenv(stageEnv) == "" {
		t.Skip("started by TestControls")
	}
	if err := stage(os.Getenv(dirEnv)); err != nil {
		t.Fatal(err)
	}
	w, err := world.Start(world.Options{Dir: filepath.Join(os.Getenv(dirEnv), "w"), Attempts: os.Getenv(programEnv), UID: user, GID: user, DNSPort: 53, WellKnown: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	m := machine{config: kernelConfig()}
	for _, a := range all() {
		t.Run(a.Name, func(t *testing.T) {
			if missing := m.missing(a.Needs); missing != "" {
				t.Skipf("this machine lacks %s", missing)
			}
			control(t, w, a)
		})
	}
}

func control(t *testing.T, w *world.World, a *Attempt) {
	if err := w.Reset(); err != nil {
		t.Fatal(err)
	}
	w.Effects() // of the attempt before
	replace := map[string]string{"fd": "9"}
	if a.Class == "init" {
		pid, err := w.Victim()
		if err != nil {
			t.Fatal(err)
		}
		replace["pid"] = fmt.Sprint(pid)
	}
	cmd := exec.CommandContext(t.Context(), os.Getenv(programEnv), append([]string{a.Name}, w.Args(replace)...)...)
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "HOME=" + w.Params["home"]}, a.Env...)
	cmd.Dir = w.Params["ws"]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a.As == asUser {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: user, Gid: user}
	}
	r := result(t, cmd)
	if !r.OK {
		t.Errorf("as %s: %s %s (%s)", a.As, r.Errno, r.Detail, a.Control)
	}
	if r.OK && leavesTraces(a) && !noticed(w) {
		t.Errorf("the world outside did not notice")
	}
	if a.Layer == "seccomp" {
		filtered(t, w, a)
	}
}

// filtered makes the attempt again, as root and with every capability, under
// nothing but the filter: so it is the filter that refuses.
func filtered(t *testing.T, w *world.World, a *Attempt) {
	if err := w.Reset(); err != nil {
		t.Fatal(err)
	}
	replace := map[string]string{"pid": "1"}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", append([]string{os.Getenv(programEnv), a.Name}, w.Args(replace)...)...)
	cmd.Env = append(os.Environ(), stageEnv+"=filter")
	if slices.Contains(a.NotIn, unixOpen) {
		cmd.Env = append(os.Environ(), stageEnv+"=closed-filter")
	}
	cmd.Dir = w.Params["ws"]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	r := result(t, cmd)
	if r.OK || !slices.Contains(a.Expect.Errnos, r.Errno) {
		t.Errorf("under the filter: ok=%v %s %s, want one of %v", r.OK, r.Errno, r.Detail, a.Expect.Errnos)
	}
}

func result(t *testing.T, cmd *exec.Cmd) (r Result) {
	t.Helper()
	dir, err := os.Open("/usr/bin")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd.ExtraFiles = []*os.File{6: dir} // descriptor 9
	out, err := cmd.CombinedOutput()
	if err != nil || json.Unmarshal(out, &r) != nil {
		t.Fatalf("%v: %q", err, out)
	}
	return r
}

// TestMain is also the loader of the filter.
func TestMain(m *testing.M) {
	options := seccomp.Coding()
	switch os.Getenv(stageEnv) {
	case "filter":
	case "closed-filter":
		options = seccomp.Options{}
	default:
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	check(loadFilter(options))
	check(syscall.Exec(os.Args[1], os.Args[1:], os.Environ()))
}

func loadFilter(o seccomp.Options) error {
	prog, err := seccomp.Compile(o)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	f := unix.SockFprog{Len: uint16(len(prog) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&prog[0]))}
	return sys(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&f)))
}

// leavesTraces says whether the world can see that an attempt succeeded.
func leavesTraces(a *Attempt) bool {
	switch a.Class {
	case "tcp", "unix", "dns":
		return true
	case "udp":
		return !slices.Contains([]string{"udp-multicast", "udp-broadcast"}, a.Name)
	case "file-write":
		return a.As == asUser && a.Name != "write-open-write" && a.Name != "write-chown"
	}
	return false
}

func noticed(w *world.World) bool {
	for range 100 {
		if len(w.Effects()) > 0 {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// stage makes the namespaces a place where controls can succeed: private
// mounts, a proc and a message queue of their own, every address on loopback.
func stage(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "w"), 0o755); err != nil {
		return err
	}
	for _, m := range []struct{ kind, at, data string }{
		{"proc", "/proc", ""}, {"tmpfs", filepath.Join(dir, "w"), "mode=755"}, {"tmpfs", "/dev/shm", "mode=1777"},
	} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, d := range append(slices.Clone(destinations), destination{addr: "198.18.77.78"}) {
		mask := "/32"
		if strings.Contains(d.addr, ":") {
			mask = "/128"
		}
		if strings.HasPrefix(d.addr, "::ffff:") {
			continue
		}
		addr, err := netlink.ParseAddr(d.addr + mask)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(lo, addr); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("address %s: %w", d.addr, err)
		}
	}
	everywhere := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: everywhere}); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0)
}

// machine knows what the controls can count on.
type machine struct{ config map[string]bool }

// options are the kernel options behind needs. Where the configuration cannot
// be read they count as missing.
var options = map[string]string{
	"UDPLITE": "", "MPTCP": "MPTCP", "IO_URING": "IO_URING", "SCTP": "IP_SCTP", "SMC": "SMC", "VSOCK": "VIRTIO_VSOCKETS", "XDP": "XDP_SOCKETS", "ALG": "CRYPTO_USER_API", "CAN": "CAN",
	"TIPC": "TIPC", "BLUETOOTH": "BT", "AUDIT": "AUDIT", "XFRM": "XFRM_USER", "CRYPTO_USER": "CRYPTO_USER", "KEXEC": "KEXEC_FILE", "MODULES": "MODULES",
	"ACCT": "BSD_PROCESS_ACCT", "QUOTA": "QUOTACTL", "PERF": "PERF_EVENTS", "FANOTIFY": "FANOTIFY", "KCMP": "KCMP", "IOPORT": "X86_IOPL_IOPERM",
	"LDT": "MODIFY_LDT_SYSCALL", "USELIB": "USELIB", "IA32": "IA32_EMULATION", "X32": "X86_X32_ABI", "DCOOKIE": "PROFILING_NEVER",
}

func (m machine) missing(needs []string) string {
	for _, n := range needs {
		kind, what, _ := strings.Cut(n, ":")
		ok := true
		switch kind {
		case "kernel":
			option, known := options[what]
			ok = known && (option == "" && !atLeast("7.1") || m.config["CONFIG_"+option])
		case "linux":
			ok = atLeast(what)
		case "file":
			_, err := os.Stat(what)
			ok = err == nil
		case "cgroup2":
			_, err := cgroupRoot()
			ok = err == nil
		case "block-device":
			ok = blockDevice(nil) == nil
		case "cap":
			ok = hasCapability(unix.CAP_SYS_RESOURCE)
		case "userns":
			b, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
			ok = err == nil && strings.TrimSpace(string(b)) != "0"
		case "ping", "victim", "extra-fd":
		default:
			ok = false
		}
		if !ok {
			return n
		}
	}
	return ""
}

func hasCapability(c int) bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&hdr, &data[0])
	return err == nil && data[c/32].Effective&(1<<(c%32)) != 0
}

func atLeast(want string) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var a, b, c, d int
	fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	fmt.Sscanf(want, "%d.%d", &c, &d)
	return a > c || a == c && b >= d
}

func kernelConfig() map[string]bool {
	out := map[string]bool{}
	f, err := os.Open("/proc/config.gz")
	if err != nil {
		return out
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return out
	}
	for s := bufio.NewScanner(z); s.Scan(); {
		if name, ok := strings.CutSuffix(s.Text(), "=y"); ok {
			out[name] = true
		}
	}
	return out
}
