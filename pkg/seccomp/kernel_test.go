// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
	"unsafe"

	lib "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// The test binary runs itself as a child that loads the filter with the raw
// system call, as ringfence-init does, and then makes the calls.
const (
	childEnv  = "RINGFENCE_SECCOMP_CHILD" // "probe", "exec" or "go"
	filterEnv = "RINGFENCE_SECCOMP_FILTER"
	callsEnv  = "RINGFENCE_SECCOMP_CALLS"
)

type call struct {
	Name string
	Nr   uintptr
	Args [6]uint64
}

func TestMain(m *testing.M) {
	mode := os.Getenv(childEnv)
	if mode == "" {
		os.Exit(m.Run())
	}
	if err := child(mode); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(3)
	}
}

func child(mode string) error {
	runtime.LockOSThread()
	if file := os.Getenv(filterEnv); file != "" {
		prog, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := load(prog); err != nil {
			return err
		}
	}
	switch mode {
	case "exec":
		path, err := exec.LookPath(os.Args[1])
		if err != nil {
			return err
		}
		return syscall.Exec(path, os.Args[1:], os.Environ())
	case "go":
		return goProgram()
	}
	var calls []call
	b, err := os.ReadFile(os.Getenv(callsEnv))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &calls); err != nil {
		return err
	}
	got := make([]int, len(calls))
	for i, c := range calls {
		a := c.Args
		r, _, e := unix.RawSyscall6(c.Nr, uintptr(a[0]), uintptr(a[1]), uintptr(a[2]), uintptr(a[3]), uintptr(a[4]), uintptr(a[5]))
		got[i] = int(e)
		if e == 0 && (c.Nr == unix.SYS_SOCKET || c.Nr == unix.SYS_MEMFD_CREATE) {
			unix.Close(int(r))
		}
	}
	return json.NewEncoder(os.Stdout).Encode(got)
}

func load(prog []byte) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	f := unix.SockFprog{Len: uint16(len(prog) / insnLen), Filter: (*unix.SockFilter)(unsafe.Pointer(&prog[0]))}
	if r, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&f))); e != 0 || r != 0 {
		return fmt.Errorf("seccomp: %d %w", r, e)
	}
	return nil
}

// goProgram does what Go programs do: threads, timers, sockets, children.
func goProgram() error {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hi") }))
	defer srv.Close()
	resp, err := http.Get(srv.URL)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if _, err := net.Interfaces(); err != nil { // netlink, SOCK_RAW
		return err
	}
	done := make(chan error)
	for range 8 {
		go func() { time.Sleep(time.Millisecond); done <- exec.Command("/bin/true").Run() }()
	}
	for range 8 {
		if err := <-done; err != nil {
			return err
		}
	}
	return os.Mkdir(os.Getenv("GODIR")+"/made", 0o755)
}

func self(t *testing.T, mode, filter string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), childEnv+"="+mode, filterEnv+"="+filter)
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal: vhangup has nothing to hang up
	return cmd
}

func filterFile(t *testing.T, o Options) string {
	t.Helper()
	prog, err := Compile(o)
	if err != nil {
		t.Fatal(err)
	}
	name := t.TempDir() + "/filter"
	if err := os.WriteFile(name, prog, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func probe(t *testing.T, filter string, calls []call) []syscall.Errno {
	t.Helper()
	b, err := json.Marshal(calls)
	if err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/calls"
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := self(t, "probe", filter)
	cmd.Env = append(cmd.Env, callsEnv+"="+file)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("probe: %v", err)
	}
	var got []syscall.Errno
	if err := json.Unmarshal(out, &got); err != nil || len(got) != len(calls) {
		t.Fatalf("probe: %v in %q", err, out)
	}
	return got
}

// bad are arguments that no call can do anything with: bad descriptors, bad
// pointers, unknown flags. They make the controls harmless.
var bad = [6]uint64{all64, all64, all64, all64, all64, all64}

// callsOf makes, for every rule and call, calls that the rule refuses: each
// value or bit by itself, with and without garbage in the upper half.
func callsOf(t *testing.T, rules []Rule) (calls []call, rule []Rule) {
	t.Helper()
	tgt := targets[runtime.GOARCH]
	for _, r := range rules {
		for _, name := range r.Calls {
			nr, ok, err := number(name, tgt, findLimits(tgt))
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				continue
			}
			for _, args := range refused(name, r.When) {
				calls = append(calls, call{name, uintptr(nr), args})
				rule = append(rule, r)
			}
		}
	}
	return calls, rule
}

func refused(name string, when []Cond) [][6]uint64 {
	start := bad
	switch name {
	case "clone":
		start[0] = unix.CLONE_SIGHAND // without CLONE_VM: EINVAL
	case "unshare":
		start[0] = 1 // not a flag of unshare: EINVAL
	case "openat":
		start = [6]uint64{all64, all64, 0, 0, 0, 0}
	case "open":
		start = [6]uint64{all64, 0, 0, 0, 0, 0}
	case "socket":
		start = [6]uint64{unix.AF_INET, unix.SOCK_STREAM, 0, 0, 0, 0}
	case "socketpair":
		start = [6]uint64{unix.AF_UNIX, unix.SOCK_STREAM, 0, all64, 0, 0}
	}
	out := [][6]uint64{start}
	for _, c := range when {
		var next [][6]uint64
		for _, args := range out {
			for _, v := range samples(c) {
				a := args
				if name == "clone" || name == "unshare" {
					v |= a[c.Arg]
				}
				a[c.Arg] = v
				next = append(next, a)
			}
		}
		out = next
	}
	return out
}

func samples(c Cond) []uint64 {
	const garbage = 0xdeadbeef << 32
	var out []uint64
	switch c.Op {
	case In:
		out = append(out, c.Values...)
	case AnyBit:
		for m := c.Mask; m != 0; m &= m - 1 {
			out = append(out, 1<<bits.TrailingZeros64(m))
		}
	case NotIn:
		for v := range uint64(50) {
			out = append(out, v)
		}
		out = append(out, 132, 136, 256, 262, 0x0400000, 0x0040000)
	}
	var hold []uint64
	for _, v := range out {
		for _, w := range []uint64{v, v | garbage} {
			if c.Holds(w) {
				hold = append(hold, w)
			}
		}
	}
	return hold
}

// TestKernelRefuses makes every refused call for real, inside and outside.
// Outside as root the same call must do something else, unless this kernel
// does not have it at all.
func TestKernelRefuses(t *testing.T) {
	rules := Rules(Strict())
	calls, rule := callsOf(t, rules)
	inside := probe(t, filterFile(t, Strict()), calls)
	outside := probe(t, "", calls)
	same := map[string]int{}
	for i, c := range calls {
		ok := inside[i] == rule[i].Errno
		for _, r := range rules { // another rule for the same call may answer first
			ok = ok || (r.Matches(c.Args) && inside[i] == r.Errno && slices.Contains(r.Calls, c.Name))
		}
		if !ok {
			t.Errorf("%s %#x: inside %v, want %v", c.Name, c.Args, inside[i], rule[i].Errno)
		}
		if inside[i] == outside[i] {
			same[c.Name]++
			if c.Name != "socket" && c.Name != "socketpair" { // families the kernel was built without
				t.Logf("%s %#x: %v outside as well", c.Name, c.Args, outside[i])
			}
		}
	}
	if os.Geteuid() != 0 {
		t.Log("not root: controls not judged")
		return
	}
	t.Logf("%d calls refused; the same answer outside: %v", len(calls), same)
	for name, n := range same {
		switch name {
		case "socket", "socketpair", "personality":
		default:
			t.Errorf("%s: %d calls answer the same outside: the refusal proves nothing", name, n)
		}
	}
}

// TestKernelAllows is the other direction: what must still work.
func TestKernelAllows(t *testing.T) {
	sock := func(args ...uint64) call {
		c := call{Name: "socket", Nr: unix.SYS_SOCKET}
		copy(c.Args[:], args)
		return c
	}
	calls := []call{
		sock(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0),
		sock(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP),
		sock(unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP),
		sock(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0),
		sock(unix.AF_UNIX, unix.SOCK_STREAM, 0),
		{"personality", unix.SYS_PERSONALITY, [6]uint64{low32}},
		{"personality", unix.SYS_PERSONALITY, [6]uint64{all64}},
		{"personality", unix.SYS_PERSONALITY, [6]uint64{0}},
		{"unshare(CLONE_FS)", unix.SYS_UNSHARE, [6]uint64{unix.CLONE_FS}},
		{"getpid", unix.SYS_GETPID, [6]uint64{}},
	}
	for i, e := range probe(t, filterFile(t, Coding()), calls) {
		if e != 0 {
			t.Errorf("%s %#x: %v", calls[i].Name, calls[i].Args, e)
		}
	}
	noUnix := probe(t, filterFile(t, Strict()), []call{calls[4], {"memfd", unix.SYS_MEMFD_CREATE, bad}})
	if noUnix[0] != syscall.EAFNOSUPPORT || noUnix[1] != syscall.EPERM {
		t.Errorf("strict: unix socket %v, memfd %v", noUnix[0], noUnix[1])
	}
	// A mode without O_CREAT is a leftover register, not a request.
	open := probe(t, filterFile(t, Coding()), []call{{"openat", unix.SYS_OPENAT, [6]uint64{all64, all64, 0, 0o6777}}})
	if open[0] != syscall.EFAULT {
		t.Errorf("openat without O_CREAT and a stray mode: %v", open[0])
	}
}

func TestKernelAnswersENOSYS(t *testing.T) {
	calls := []call{
		{"clone3", unix.SYS_CLONE3, bad},
		{"openat2", unix.SYS_OPENAT2, bad},
		{"fchmodat2", 452, bad},
		{"statmount", 457, bad},
		{"listmount", 458, bad},
		{"open_tree_attr", 467, bad},
		{"beyond the review", reviewed + 1, bad},
	}
	if _, err := lib.GetSyscallFromName("fchmodat2"); err == nil {
		calls = calls[:2]
	}
	inside, outside := probe(t, filterFile(t, Coding()), calls), probe(t, "", calls)
	for i, c := range calls {
		if inside[i] != syscall.ENOSYS {
			t.Errorf("%s: %v, want ENOSYS", c.Name, inside[i])
		}
		if i < 2 && outside[i] == syscall.ENOSYS {
			t.Errorf("%s: ENOSYS outside as well", c.Name)
		}
	}
}

func TestProgramsWork(t *testing.T) {
	filter := filterFile(t, Coding())
	for _, c := range []struct{ name, need, script string }{
		{"shell", "sh", `x=$(echo a | tr a b); [ "$x" = b ] && (sleep 0.01 & wait) && mkdir d && echo 1 > d/f && chmod 755 d/f && mv d e`},
		{"git", "git", `git init -q . && echo x > f && git add f && git -c user.name=a -c user.email=a@b commit -qm m && git log --oneline | grep -q m && git checkout -q -b two && git gc -q`},
		{"python", "python3", `python3 -c 'import subprocess,threading,socket,tempfile,ssl,asyncio,multiprocessing
subprocess.run(["true"],check=True)
t=threading.Thread(target=lambda:None);t.start();t.join()
s=socket.create_server(("127.0.0.1",0));c=socket.create_connection(s.getsockname());c.close()
tempfile.mkstemp();asyncio.run(asyncio.sleep(0))
if __name__=="__main__":
  with multiprocessing.get_context("fork").Pool(2) as p: assert p.map(abs,[-1])==[1]'`},
		{"node", "node", `node -e 'const h=require("http"),c=require("child_process"),fs=require("fs"),{Worker}=require("worker_threads");
c.execSync("true");fs.writeFileSync("a","b");
new Worker("1",{eval:true}).on("exit",()=>{const s=h.createServer((q,r)=>r.end("x")).listen(0,"127.0.0.1",()=>h.get({port:s.address().port,host:"127.0.0.1"},r=>{r.resume();s.close()}))});'`},
		{"go", "go", `printf 'package main\nfunc main(){ch:=make(chan int);go func(){ch<-1}();println(<-ch)}\n' > m.go && go run m.go`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := exec.LookPath(c.need); err != nil {
				if os.Getenv("RINGFENCE_CI") == "1" {
					t.Fatalf("%s is not installed", c.need)
				}
				t.Skipf("%s is not installed", c.need)
			}
			cmd := self(t, "exec", filter, "sh", "-ec", c.script)
			cmd.Env = append(cmd.Env, childEnv+"=exec")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
	t.Run("this Go program", func(t *testing.T) {
		cmd := self(t, "go", filter)
		cmd.Env = append(cmd.Env, "GODIR="+cmd.Dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	})
}

func signalled(err error) syscall.Signal {
	var e *exec.ExitError
	if errors.As(err, &e) {
		if ws, ok := e.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return ws.Signal()
		}
	}
	return 0
}
