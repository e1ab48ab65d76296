// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/kernel"
)

// python runs a program that does what a shell cannot, and waits for its first
// line.
func python(t *testing.T, program string) (pid int) {
	t.Helper()
	path, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is missing: a process with several threads is needed")
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
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
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
	t.Skip("system call 60 is not exit on this machine")
	return 0
}

const rawSocket = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_RAW, 6)\n"

func TestProcessWithoutFirstThreadLives(t *testing.T) {
	p, err := ProcessOf(headless(t, ""))
	if err != nil || !p.Alive() {
		t.Fatalf("it counts as ended: %v", err)
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
