// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// reaches are the attempts of one sandbox on what another one offers. hostpid
// and pid name the other's process as the host numbers it.
var reaches = []string{
	"host-signal", "host-pidfd", "host-proc", "host-environ", "host-root", "host-priority", "host-affinity", "host-limits", "host-ptrace",
	"host-compare", "ns-setns-net", "ns-setns-ipc", "ns-setns-uts", "init-ptrace-attach", "init-ptrace-seize", "init-mem-read", "init-mem-write",
	"init-maps", "init-environ", "init-exe", "init-fds", "init-fd-open", "init-root", "init-cwd", "init-pidfd-getfd", "init-vm-read", "init-vm-write",
	"unix-stream", "unix-dgram", "unix-abstract", "unix-abstract-dgram",
	"ipc-sysv-shm", "ipc-sysv-msg", "ipc-sysv-sem", "ipc-mqueue",
	"read-host-tmp", "read-host-shm", "read-ssh-key", "read-secret-proc-root", "read-secret-dotdot", "hardlink-secret",
	"tcp-host-loopback", "tcp-host-loopback6", "tcp-unspecified",
	"init-kill", "init-pidfd-kill", // the last: outside they succeed once
}

// fatal are those after which an unfenced victim is gone.
var fatal = []string{"init-kill", "init-pidfd-kill"}

// byRoot are those whose control needs root.
var byRoot = []string{"ns-setns-net", "ns-setns-ipc", "ns-setns-uts"}

// TestNeighbours lets one sandbox attack another of the same caller through
// everything that two processes of a machine share. A member's sandboxes have
// one uid, so that no attempt fails for a difference of users alone; those of
// root have one each.
func TestNeighbours(t *testing.T) {
	p := newPlace(t)
	var echo *doubles.Echo
	var err error
	p.do(func() { echo, err = doubles.NewEcho(nil) })
	need(t, err)
	t.Cleanup(func() { need(t, echo.Close()) })
	n := node.Start(t, node.Options{NoStart: true, Config: "group: " + group + "\n" + echoConfig})
	p.do(func() { n.StartDaemon(t) })
	program := neighbourProgram(t)
	t.Run("controls", func(t *testing.T) { p.unfencedNeighbours(t, program) })
	t.Run("of a member", func(t *testing.T) { p.neighbours(t, n, program, echo, true) })
	t.Run("of root", func(t *testing.T) { p.neighbours(t, n, program, echo, false) })
}

const echoConfig = "gateway:\n  hosts:\n    echo.example: [127.0.0.1]\n    web.example: [127.0.0.1]\n"

// echoPolicy allows a name whose server is the test's.
func echoPolicy(name string, port int) string {
	return fmt.Sprintf("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: %s}\nscope: org:local/team:default\negress:\n"+
		"  - {id: %s, allow: \"%s.example:%d\", resolvesTo: [127.0.0.1/32]}\n", name, name, name, port)
}

func portOf(e *doubles.Echo) int {
	_, port, _ := strings.Cut(e.Addr().String(), ":")
	n, _ := strconv.Atoi(port)
	return n
}

// asOwner makes a command the world's owner's.
func asOwner(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner, Gid: owner, Groups: []uint32{groupGID}}}
	return cmd
}

// shared makes a workspace with both programs in it, the caller's own.
func (p *place) shared(t *testing.T, n *node.Node, program []byte, member bool) string {
	t.Helper()
	ws := p.workspace(t, n)
	need(t, os.WriteFile(filepath.Join(ws, "neighbour"), program, 0o755))
	if member {
		need(t, os.Chown(ws, owner, owner))
	}
	return ws
}

// command prepares `ringfence`, as a member or as root.
func command(t *testing.T, n *node.Node, ws string, member bool, args ...string) *exec.Cmd {
	t.Helper()
	cmd := n.Command(t.Context(), args...)
	cmd.Dir = ws
	if member {
		asOwner(cmd)
	}
	return cmd
}

// detached starts a sandbox in the background and returns what ps knows of it.
func detached(t *testing.T, n *node.Node, ws string, member bool, name string, args ...string) {
	t.Helper()
	r := node.Finish(t, command(t, n, ws, member, append([]string{"run", "--detach", "--name", name, "--profile", "coding"}, args...)...))
	if r.Code != 0 {
		t.Fatalf("%s: %s", name, r.Stderr)
	}
	t.Cleanup(func() { n.CLI(t, "stop", "--timeout", "0s", name) }) // it may have ended
}

// offered waits for what a neighbour offers.
func offered(t *testing.T, file string) map[string]string {
	t.Helper()
	params := map[string]string{}
	eventually(t, "the neighbour offers something", func() bool {
		b, err := os.ReadFile(file)
		return err == nil && json.Unmarshal(b, &params) == nil
	})
	return params
}

// happened is what the neighbour noticed.
func happened(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file + ".noticed")
	need(t, err)
	return string(b)
}

func arguments(params map[string]string) (out []string) {
	for k, v := range params {
		out = append(out, k+"="+v)
	}
	return out
}

// attempted makes attempts, one after the other, with a prepared command.
func attempted(t *testing.T, cmd *exec.Cmd, names []string) map[string]result {
	t.Helper()
	cmd.Stdin = strings.NewReader(strings.Join(names, "\n") + "\n")
	r := node.Finish(t, cmd)
	out := map[string]result{}
	for sc := bufio.NewScanner(strings.NewReader(r.Stdout)); sc.Scan(); {
		res := parse(t, sc.Bytes())
		out[res.Name] = res
	}
	if r.Code != 0 || len(out) != len(names) {
		t.Errorf("%d results of %d: exit %d %s", len(out), len(names), r.Code, r.Stderr)
	}
	return out
}

// removeObjects removes the IPC objects of a neighbour without a fence.
func removeObjects(t *testing.T, params map[string]string) {
	t.Helper()
	name, err := unix.BytePtrFromString(params["mq"])
	need(t, err)
	_, _, _ = unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(name)), 0, 0) // an error means that it is gone
	key, err := strconv.ParseUint(params["key"], 10, 64)
	need(t, err)
	for _, o := range []struct{ get, size, control, command uintptr }{
		{unix.SYS_SHMGET, 0, unix.SYS_SHMCTL, unix.IPC_RMID}, {unix.SYS_MSGGET, 0, unix.SYS_MSGCTL, unix.IPC_RMID}, {unix.SYS_SEMGET, 0, unix.SYS_SEMCTL, unix.IPC_RMID},
	} {
		id, _, e := unix.Syscall(o.get, uintptr(key), o.size, 0)
		if e != 0 {
			continue
		}
		if o.control == unix.SYS_SEMCTL {
			_, _, e = unix.Syscall(o.control, id, 0, o.command)
		} else {
			_, _, e = unix.Syscall(o.control, id, o.command, 0)
		}
		if e != 0 {
			t.Errorf("an object of key %#x stays: %v", key, e)
		}
	}
}

// unfencedNeighbours: each attempt succeeds between two processes of one user,
// and what can be noticed is.
func (p *place) unfencedNeighbours(t *testing.T, program []byte) {
	home, err := os.MkdirTemp("", "nb")
	need(t, err)
	t.Cleanup(func() { need(t, os.RemoveAll(home)) })
	need(t, os.Chown(home, owner, owner))
	tool, attempts := filepath.Join(home, "neighbour"), filepath.Join(home, "attempts")
	need(t, os.WriteFile(tool, program, 0o755))
	need(t, os.WriteFile(attempts, p.program, 0o755))
	file := filepath.Join(home, "offer")
	victim := func() (params map[string]string, stop func()) {
		cmd := asOwner(exec.CommandContext(t.Context(), tool, "offer", file))
		cmd.Env, cmd.Dir, cmd.Stderr = []string{"HOME=" + home}, home, os.Stderr
		null, err := os.Open(os.DevNull)
		need(t, err)
		defer null.Close()
		cmd.ExtraFiles = []*os.File{null} // descriptor 3, for those who want one
		in, err := cmd.StdinPipe()
		need(t, err)
		p.do(func() { err = cmd.Start() })
		need(t, err)
		params = offered(t, file)
		params["hostpid"], params["fd"] = params["pid"], "3"
		return params, func() {
			in.Close()
			_ = cmd.Wait() // it may have been killed, and then it has removed nothing
			need(t, os.Remove(file))
			removeObjects(t, params)
			for _, key := range []string{"unix", "unixdgram", "tmpfile", "shmfile", "secretdotdot"} {
				_ = os.Remove(params[key]) // one that was not killed has done it
			}
		}
	}
	run := func(params map[string]string, names []string) map[string]result {
		cmd := exec.CommandContext(t.Context(), attempts, append([]string{"--batch"}, arguments(params)...)...)
		cmd.Dir = home
		if !slices.Contains(byRoot, names[0]) {
			asOwner(cmd)
		}
		var out map[string]result
		p.do(func() { out = attempted(t, cmd, names) })
		return out
	}
	params, stop := victim()
	plain := slices.DeleteFunc(slices.Clone(reaches), func(a string) bool { return slices.Contains(fatal, a) || slices.Contains(byRoot, a) })
	for _, names := range [][]string{plain, byRoot} {
		for name, r := range run(params, names) {
			if !r.OK {
				t.Errorf("%s fails without a fence: %s %s", name, r.Errno, r.Detail)
			}
		}
	}
	for _, what := range []string{"tcp", "unix", "unixdgram", "abstract", "abstractdgram"} {
		eventually(t, "the victim notices "+what, func() bool { return strings.Contains(happened(t, file), what+"\n") })
	}
	stop()
	for _, name := range fatal {
		params, stop := victim()
		if r := run(params, []string{name})[name]; !r.OK {
			t.Errorf("%s fails without a fence: %s %s", name, r.Errno, r.Detail)
		}
		stop()
	}
}

// neighbours attacks one sandbox from another.
func (p *place) neighbours(t *testing.T, n *node.Node, program []byte, echo *doubles.Echo, member bool) {
	who := "root"
	if member {
		who = "member"
	}
	ws := p.shared(t, n, program, member)
	victim := "victim-" + who
	policy := filepath.Join(ws, "echo.yaml")
	need(t, os.WriteFile(policy, []byte(echoPolicy("echo", portOf(echo))), 0o644))
	detached(t, n, ws, member, victim, "--policy", policy, "--", "sh", "-c", "sleep 1000 | ./neighbour offer offer")
	file := filepath.Join(ws, "offer")
	params := offered(t, file)
	pid := hostPID(t, n, victim, "offer")
	params["hostpid"], params["pid"] = fmt.Sprint(pid), fmt.Sprint(pid)

	cmd := command(t, n, ws, member, append([]string{"run", "--quiet", "--profile", "coding", "--name", "attacker-" + who, "--", "./attempts", "--batch"}, arguments(params)...)...)
	for name, r := range attempted(t, cmd, reaches) {
		if r.OK || !slices.Contains([]string{"EPERM", "EACCES", "ESRCH", "ENOENT", "ECONNREFUSED", "none"}, r.Errno) {
			t.Errorf("ESCAPE: %s reached the other sandbox: ok=%v %s %s", name, r.OK, r.Errno, r.Detail)
		}
	}
	t.Run("everything it may signal", func(t *testing.T) {
		r := node.Finish(t, command(t, n, ws, member, "run", "--quiet", "--profile", "coding", "--", "sh", "-c",
			"sleep 100 & p=$!; for s in STOP CONT USR1 TERM KILL; do kill -$s -1; done; wait $p; echo $?"))
		if code, err := strconv.Atoi(strings.TrimSpace(r.Stdout)); err != nil || code < 128 {
			t.Errorf("control: its own child lives: %+v", r)
		}
	})
	t.Run("its network", func(t *testing.T) { p.foreignNetwork(t, n, ws, member, victim, echo) })
	if got := happened(t, file); got != "" {
		t.Errorf("the victim noticed:\n%s", got)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || !strings.Contains(string(b), ") S ") && !strings.Contains(string(b), ") R ") {
		t.Errorf("the victim is no longer running: %s %v", b, err)
	}
	for _, e := range p.world.Effects() {
		t.Errorf("ESCAPE: the world noticed: %s", e)
	}
}

// hostPID is the number on the host of a process of a sandbox.
func hostPID(t *testing.T, n *node.Node, name, arg string) int {
	t.Helper()
	id := n.Sandbox(t, name).ID
	b, err := os.ReadFile(filepath.Join(n.Cgroup(t), "sb-"+id, "cgroup.procs"))
	need(t, err)
	for pid := range strings.FieldsSeq(string(b)) {
		cmdline, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		if strings.HasSuffix(string(cmdline), arg+"\x00") && !strings.HasPrefix(string(cmdline), "sh\x00") {
			n, err := strconv.Atoi(pid)
			need(t, err)
			return n
		}
	}
	t.Fatalf("no process %q in %s", arg, name)
	return 0
}

// foreignNetwork reaches for addresses that mean something in another sandbox:
// its loopback, the gateway's listeners there, and the address of a name that
// its policy allows.
func (p *place) foreignNetwork(t *testing.T, n *node.Node, ws string, member bool, victim string, echo *doubles.Echo) {
	port := portOf(echo)
	addr := virtual(t, n, victim, "echo.example")
	connect := func(sandbox []string, addr string, port int) result {
		t.Helper()
		args := append(sandbox, "--", "./attempts", "tcp-literal4", "addr="+addr, fmt.Sprintf("port=%d", port))
		r := node.Finish(t, command(t, n, ws, member, args...))
		return parse(t, []byte(r.Stdout))
	}
	other := []string{"run", "--quiet", "--profile", "coding"}
	before := echo.Count()
	if r := connect([]string{"exec", victim}, addr, port); !r.OK {
		t.Fatalf("control: the victim does not reach what it may: %s %s", r.Errno, r.Detail)
	}
	eventually(t, "control: the server counts", func() bool { return echo.Count() == before+1 })
	if r := connect(other, addr, port); r.OK || r.Errno != "EACCES" && r.Errno != "EPERM" {
		t.Errorf("ESCAPE: the virtual address of another sandbox: %+v", r)
	}
	// The same number in a sandbox with a name of its own is that name.
	var web *doubles.Echo
	var err error
	p.do(func() { web, err = doubles.NewEcho(nil) })
	need(t, err)
	defer func() { need(t, web.Close()) }()
	own := filepath.Join(ws, "web.yaml")
	need(t, os.WriteFile(own, []byte(echoPolicy("web", portOf(web))), 0o644))
	args := append(slices.Clone(other), "--policy", own, "--", "sh", "-c", `getent ahostsv4 web.example; exec ./attempts "$@"`, "x", "tcp-literal4", "addr="+addr, fmt.Sprintf("port=%d", port))
	r := node.Finish(t, command(t, n, ws, member, args...))
	if !strings.Contains(r.Stdout, addr+" ") {
		t.Logf("its own name has another number: %s", r.Stdout)
	}
	if !strings.Contains(r.Stdout, `"ok":false`) {
		t.Errorf("ESCAPE: through an address of its own: %s", r.Stdout)
	}
	for _, l := range listenersOf(t, n, victim) {
		for _, addr := range []string{"127.0.0.1", "198.18.0.1"} {
			if r := connect(other, addr, l); r.OK {
				t.Errorf("ESCAPE: port %d on %s, where the other sandbox has a listener", l, addr)
			}
		}
	}
	time.Sleep(100 * time.Millisecond) // what is on its way
	if got := echo.Count(); got != before+1 {
		t.Errorf("ESCAPE: the server saw %d more connections", got-before-1)
	}
	n.WaitEvent(t, "the refusal", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.Verdict == event.Denied && strings.HasPrefix(e.DstAddr, addr+":") && e.Sandbox != n.Sandbox(t, victim).ID
	})
}

// virtual is the address of a name in a sandbox, once the policy that allows
// it is in force.
func virtual(t *testing.T, n *node.Node, name, host string) (addr string) {
	t.Helper()
	eventually(t, host+" has an address in "+name, func() bool {
		r := n.CLI(t, "exec", name, "--", "getent", "ahostsv4", host)
		addr, _, _ = strings.Cut(r.Stdout, " ")
		return strings.HasPrefix(addr, "198.18.") && addr != "198.18.0.2" // which is the refusal's
	})
	return addr
}

// listenersOf lists the TCP ports that somebody listens on in a sandbox's
// namespace, the gateway's among them.
func listenersOf(t *testing.T, n *node.Node, name string) (ports []int) {
	t.Helper()
	for _, file := range []string{"tcp", "tcp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", n.Sandbox(t, name).PID, file))
		need(t, err)
		b, err := io.ReadAll(f)
		f.Close()
		need(t, err)
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 4 || f[3] != "0A" {
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			port, err := strconv.ParseInt(hex, 16, 32)
			need(t, err)
			if port != 53 && !slices.Contains(ports, int(port)) {
				ports = append(ports, int(port))
			}
		}
	}
	if len(ports) < 2 {
		t.Errorf("listeners in %s: %v", name, ports)
	}
	return ports
}
