// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/test/env"
)

// python runs a program that does what a shell cannot, and waits for its first
// line. One that says what is missing skips the test.
func python(t *testing.T, program string) (pid int) {
	t.Helper()
	path, err := exec.LookPath("python3")
	if err != nil {
		env.Lack(t, true, "python3: a process with several threads is needed")
	}
	cmd := exec.Command(path, "-c", program)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(line, "missing: ") {
		_, err := os.Stat("/proc/sys/vm/unprivileged_userfaultfd") // with CONFIG_USERFAULTFD
		env.Lack(t, err == nil && runtime.GOARCH == "amd64", line)
	}
	return cmd.Process.Pid
}

// headless is a process whose first thread has ended while another one lives.
// before runs in the first one.
func headless(t *testing.T, before string) (pid int) {
	t.Helper()
	pid = python(t, before+`
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall(60, 0) # exit of x86-64: of this thread alone
`)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if st, err := readStatus(pid); err != nil || ended(st) {
			return pid
		}
	}
	env.Lack(t, runtime.GOARCH == "amd64", "the number 60 of exit (x86-64)")
	return 0
}

const rawSocket = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_RAW, 6)\n"

func TestProcessWithoutFirstThreadLives(t *testing.T) {
	p, err := ProcessOf(headless(t, ""))
	if err != nil || !p.Alive() {
		t.Fatalf("it counts as ended: %v", err)
	}
	b := newBounds()
	if tid, err := livingThread(p.PID, &b); err != nil || tid == p.PID || comesOrGoes(tid) || !comesOrGoes(p.PID) {
		t.Errorf("thread %d, %v: the first one goes, the other does not", tid, err)
	}
	if err := p.kill(); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(10 * time.Second); p.Alive(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it lives still")
		}
	}
}

func TestDescriptorsOfProcessWithoutFirstThread(t *testing.T) {
	pid := headless(t, rawSocket)
	l, done := looked(t, newBounds(), pid)
	tid, err := livingThread(pid, &l.bounds)
	if err != nil || tid == 0 || tid == pid {
		t.Fatalf("thread %d of %d: %v", tid, pid, err)
	}
	want := "a raw socket"
	if _, err := openLiving(pid, tid); errors.Is(err, unix.EINVAL) {
		want = "before Linux 6.9"
	}
	if done != 1 || len(l.found) != 1 || !strings.Contains(l.found[0].String(), want) {
		t.Errorf("%d done, found %v", done, l.found)
	}
	if l, _ := looked(t, newBounds(), headless(t, "")); want == "a raw socket" && len(l.found) > 0 {
		t.Errorf("control: %v", l.found)
	}
}

func TestNetworkOfProcessWithoutFirstThread(t *testing.T) {
	pid := headless(t, "")
	host, err := namespacesOf("self")
	if err != nil {
		t.Fatal(err)
	}
	inode, ns, err := oneNetwork([]int{pid})
	if err != nil || inode != host["net"] {
		t.Fatalf("network namespace %d: %v", inode, err)
	}
	ns.Close()
	apart := headless(t, "import ctypes\nctypes.CDLL(None).unshare(0x40000000)\n") // CLONE_NEWNET
	if _, _, err := oneNetwork([]int{pid, apart}); err == nil || !strings.Contains(err.Error(), "2 network namespaces") {
		t.Errorf("another one: %v", err)
	}
	// One thread alone may be elsewhere.
	alone := python(t, `
import ctypes, threading, time
def elsewhere():
    ctypes.CDLL(None).unshare(0x40000000)
    print("ready", flush=True)
    time.sleep(1000)
threading.Thread(target=elsewhere).start()
`)
	if _, _, err := oneNetwork([]int{alone}); err == nil || !strings.Contains(err.Error(), "2 network namespaces") {
		t.Errorf("one thread elsewhere: %v", err)
	}
}

// Its threads leave the cgroup while the first one, which has ended, stays.
func TestLeavingWithoutFirstThread(t *testing.T) {
	root, err := kernel.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(root, fmt.Sprintf("ringfence-headless-%d", os.Getpid()))
	inside, beside := filepath.Join(base, "inside"), filepath.Join(base, "beside")
	for _, dir := range []string{base, inside, beside} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = RemoveCgroup(dir) })
	}
	move := func(pid int, to string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	s := &Sandbox{Record: Record{Cgroup: inside}}
	ended, whole := headless(t, fmt.Sprintf("import os\nopen(%q, 'w').write(str(os.getpid()))\n", inside+"/cgroup.procs")), sleeper(t)
	move(whole, inside)
	if left := s.leavers(); len(left) > 0 || len(s.members) != 2 {
		t.Fatalf("control: left %v, members %v", left, s.members)
	}
	move(ended, beside)
	if b, err := os.ReadFile(inside + "/cgroup.procs"); err != nil || !strings.Contains(string(b), strconv.Itoa(ended)) {
		t.Logf("this kernel lists it in its old cgroup no more: %q, %v", b, err)
	}
	for range 2 { // as long as it lives
		if left := s.leavers(); len(left) != 1 || left[0].PID != ended || left[0].Cgroup != beside {
			t.Errorf("left: %v", left)
		}
	}
	// The other way round: only its threads tell that it is there.
	there := &Sandbox{Record: Record{Cgroup: beside}}
	if there.leavers(); there.members[ended].PID != ended {
		t.Errorf("members beside: %v", there.members)
	}
	move(ended, inside)
	if left := s.leavers(); len(left) > 0 {
		t.Errorf("it came back: %v", left)
	}
}

// Each thread has capabilities of its own.
func TestPowersOfOneThread(t *testing.T) {
	const drop = "ctypes.CDLL(None).syscall(117, 65534, 65534, 65534)" // setresuid of x86-64: of this thread alone
	program := `
import ctypes, threading, time
def other():
    %s
    %s
    time.sleep(1000)
threading.Thread(target=other).start()
%s
time.sleep(1000)
`
	const ready = `print("ready", flush=True)`
	root, err := kernel.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	one, none := python(t, fmt.Sprintf(program, "pass", "pass", drop+"\n"+ready)), python(t, fmt.Sprintf(program, drop, "pass", drop+"\ntime.sleep(1)\n"+ready))
	if st, err := readStatus(one); err != nil || strings.Trim(st["CapEff"]+st["CapPrm"], "0") != "" {
		env.Lack(t, runtime.GOARCH == "amd64", "the number 117 of setresuid (x86-64)")
	}
	if at := mayDoOf(t, root, newBounds(), one); len(at.Powers) != len(undoing) {
		t.Errorf("powers %q", at.Powers)
	}
	if at := mayDoOf(t, root, newBounds(), none); len(at.Powers) != 0 {
		t.Errorf("control: powers %q", at.Powers)
	}
	m, err := newMayDo(root, bounds{left: 1, until: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if done, err := m.all([]int{none, one}); done != 0 || err != nil || !m.bounds.reached() {
		t.Errorf("bounds of one thread: %d processes, %v, cut %t", done, err, m.bounds.reached())
	}
	before, at := Sighting{Powers: []string{"process 7 has CAP_NET_RAW: it is known"}, Ways: []string{"a way"}}, Sighting{}
	if m.into(&at, before); fmt.Sprint(at.Powers, at.Ways) != fmt.Sprint(before.Powers, before.Ways) {
		t.Errorf("what was known before is kept: %q, %q", at.Powers, at.Ways)
	}
}

// Set-user-ID programs give their rights to whom has not done without.
func TestRightsOfSetUserIDPrograms(t *testing.T) {
	root, err := kernel.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	const program = "import ctypes, time\n%s\nprint('ready', flush=True)\ntime.sleep(1000)\n"
	gets, not := python(t, fmt.Sprintf(program, "")), python(t, fmt.Sprintf(program, "ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)"))
	if at := mayDoOf(t, root, newBounds(), gets); !strings.HasPrefix(at.Gains, fmt.Sprintf("process %d gets", gets)) {
		t.Errorf("%q", at.Gains)
	}
	if at := mayDoOf(t, root, newBounds(), not); at.Gains != "" {
		t.Errorf("with no_new_privs: %q", at.Gains)
	}
	m, at := &mayDo{bounds: bounds{cut: true}}, Sighting{}
	if m.into(&at, Sighting{Gains: "known"}); at.Gains != "known" {
		t.Errorf("what was known before is kept: %q", at.Gains)
	}
}

// A process with more mounts than are read may have any among them.
func TestManyMountsAreNotRead(t *testing.T) {
	root, err := kernel.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	mounts := func(n int) int {
		return python(t, fmt.Sprintf(`
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    if getattr(libc, name)(*args) != 0: raise OSError(ctypes.get_errno(), name)
call("unshare", 0x20000)
call("mount", b"none", b"/", None, 0x44000, None)
for line in reversed(open("/proc/self/mountinfo").readlines()):
    if " - cgroup2 " in line: call("umount2", line.split()[4].encode(), 2)
call("mount", b"none", b"/tmp", b"tmpfs", 0, None)
where = "/tmp" + ("/" + "d" * 250) * 15
os.makedirs(where)
for _ in range(%d): call("mount", b"none", where.encode(), b"tmpfs", 0, None)
print("ready", flush=True)
time.sleep(1000)
`, n))
	}
	cgroup := filepath.Join(root, "some")
	few, many := mounts(1), mounts(300)
	if at := mayDoOf(t, cgroup, newBounds(), few); len(at.Ways) != 0 {
		t.Errorf("control: %q", at.Ways)
	}
	m, err := newMayDo(cgroup, newBounds())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.all([]int{many}); err != nil || m.way == "" {
		t.Errorf("way %q, %v", m.way, err)
	}
	if len(m.mounts) != 1 {
		t.Fatalf("%d views of mounts", len(m.mounts))
	}
	for view := range m.mounts { // it is not read again
		m.mounts[view], m.way = nil, ""
	}
	if _, err := m.all([]int{many}); err != nil || m.way != "" {
		t.Errorf("read again: way %q, %v", m.way, err)
	}
	late := &mayDo{bounds: bounds{left: 10, until: time.Now()}}
	if text, err := late.mountinfo(threadDir(many, many)); err != nil || text != "" || !late.bounds.reached() {
		t.Errorf("no time: read %d bytes, %v", len(text), err)
	}
}
