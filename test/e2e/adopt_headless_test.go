// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// What a process holds is found although its first thread has ended, where
// /proc/PID shows nothing of it.
func TestAdoptAProcessWithoutFirstThread(t *testing.T) {
	r := newAdopted(t)
	dir, err := os.Open(r.a.cgroup)
	need(t, err)
	defer dir.Close()
	cmd := exec.Command(tool(t, "python3"), "-c", `
import ctypes, socket, sys, threading, time
ns = open(sys.argv[1])
if ctypes.CDLL(None).setns(ns.fileno(), 0) != 0: sys.exit("setns")
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 6)
threading.Thread(target=time.sleep, args=(1000,)).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall(60, 0) # exit of x86-64: of this thread alone
`, "/proc/"+strconv.Itoa(r.a.cmd.Process.Pid)+"/ns/net")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	need(t, err)
	need(t, cmd.Start())
	end := func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	t.Cleanup(end)
	_, err = bufio.NewReader(out).ReadString('\n')
	need(t, err)
	stat := "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/stat"
	eventually(t, "its first thread has ended", func() bool {
		b, err := os.ReadFile(stat)
		return err == nil && strings.Contains(string(b), ") Z ")
	})
	res := r.adopt(t)
	if res.Code == 0 || !strings.Contains(res.Stderr, "a raw socket") && !strings.Contains(res.Stderr, "its first thread has ended") {
		t.Errorf("adopt: %d %s", res.Code, res.Stderr)
	}
	end()
	if res := r.adopt(t); res.Code != 0 {
		t.Errorf("control: adopt without it: %d %s", res.Code, res.Stderr)
	}
}
