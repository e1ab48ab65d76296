// SPDX-License-Identifier: Apache-2.0

package confine_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/confine"
	"golang.org/x/sys/unix"
)

func TestExitStatus(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	plain := filepath.Join(w.workspace, "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\nexit 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	lost := filepath.Join(w.workspace, "lost")
	if err := os.WriteFile(lost, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		argv []string
		dir  string
		want int
		text string
	}{
		{"success", []string{"true"}, "", 0, ""},
		{"own status", []string{"sh", "-c", "exit 7"}, "", 7, ""},
		{"killed", []string{"sh", "-c", "kill -9 $$"}, "", 128 + 9, ""},
		{"terminated", []string{"sh", "-c", "kill -15 $$"}, "", 128 + 15, ""},
		{"not found", []string{"no-such-command"}, "", 127, "not found in the sandbox"},
		{"path not found", []string{"./nothing"}, "", 127, "not found"},
		{"interpreter not found", []string{lost}, "", 127, "interpreter"},
		{"not executable", []string{plain}, "", 126, "not executable"},
		{"a directory", []string{"/usr"}, "", 126, "not a regular file"},
		{"execution not granted", []string{"/etc/passwd"}, "", 126, ""},
		{"no working directory", []string{"true"}, "/no/such/dir", 125, "working directory"},
		{"background left behind", []string{"sh", "-c", "sleep 1000 >/dev/null 2>&1 & setsid sleep 1000 >/dev/null 2>&1 & exit 3"}, "", 3, ""},
		{"attack on init", []string{"sh", "-c", "for s in $(seq 1 64); do kill -$s 1 2>/dev/null; done; exit 4"}, "", 4, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := input(t, w)
			in.Dir = tt.dir
			out, code := launch(t, in, tt.argv...).result()
			if code != tt.want || !strings.Contains(out, tt.text) {
				t.Errorf("status %d, want %d; output %q, want %q in it", code, tt.want, out, tt.text)
			}
		})
	}
}

func TestKeeperGoneBeforeGo(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	b := prepare(t, input(t, w), "sh", "-c", "echo ran > ran")
	b.init.Conn.Close()
	st, err := b.init.Process.Wait()
	b.waited = true
	if err != nil || st.ExitCode() != 125 {
		t.Errorf("init ended with %v, %v; want 125", st, err)
	}
	if _, err := os.Stat(filepath.Join(w.workspace, "ran")); err == nil {
		t.Error("the agent ran without Go")
	}
}

func TestKeeperComesBack(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	in := input(t, w)
	path := filepath.Join(w.dir, "init.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	in.Listener = os.NewFile(uintptr(fd), "listener")
	defer in.Listener.Close()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 4); err != nil {
		t.Fatal(err)
	}
	b := launch(t, in, "sleep", "100")
	if m := b.recv(b.status); m.Type != confine.FrameStarted {
		t.Fatalf("got frame %d", m.Type)
	}
	b.init.Conn.Close() // the keeper is killed
	cfd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(cfd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if b.init.Conn, err = confine.NewConn(cfd); err != nil {
		t.Fatal(err)
	}
	if err := b.init.Conn.Send(confine.Frame{Type: confine.FrameSignal, Status: int32(syscall.SIGTERM)}, nil); err != nil {
		t.Fatal(err)
	}
	if _, code := b.result(); code != 128+15 {
		t.Errorf("status %d after the new keeper's SIGTERM", code)
	}
}

// terminal reads the master side in the background.
func terminal(t *testing.T, b *box) (*os.File, func(want string)) {
	t.Helper()
	m := b.recv(b.status)
	if m.Type != confine.FramePtyMaster || len(m.FDs) != 1 {
		t.Fatalf("got frame %d with %d descriptors: %s", m.Type, len(m.FDs), m.Reason())
	}
	master := m.FDs[0]
	t.Cleanup(func() { master.Close() })
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for sc := bufio.NewScanner(master); sc.Scan(); {
			lines <- sc.Text()
		}
	}()
	return master, func(want string) {
		t.Helper()
		var seen []string
		for {
			select {
			case l, ok := <-lines:
				seen = append(seen, l)
				if strings.Contains(l, want) {
					return
				}
				if !ok {
					t.Fatalf("the terminal ended without %q: %q", want, seen)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("no %q on the terminal: %q", want, seen)
			}
		}
	}
}

func TestTerminal(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			in := input(t, w)
			mode.set(&in)
			in.TTY, in.Rows, in.Cols = true, 40, 120
			b := launch(t, in, "sh", "-c", `tty; stty size; trap 'echo interrupted; exit 3' INT; trap 'stty size; echo resized' WINCH
				[ -c /dev/tty ] && echo have > /dev/tty; echo ready; while :; do sleep 0.05; done`)
			master, expect := terminal(t, b)
			expect("/dev/pts/0")
			expect("40 120")
			expect("have")
			expect("ready")
			if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 132}); err != nil {
				t.Fatal(err)
			}
			expect("50 132")
			expect("resized")
			if _, err := master.WriteString("\x03"); err != nil {
				t.Fatal(err)
			}
			expect("interrupted")
			if _, code := b.result(); code != 3 {
				t.Errorf("status %d", code)
			}
		})
	}
}

func TestJobControl(t *testing.T) {
	needRoot(t)
	if _, err := os.Stat("/bin/bash"); err != nil {
		missing(t, "bash")
	}
	w := newWorld(t)
	in := input(t, w)
	in.TTY = true
	b := launch(t, in, "bash", "--norc", "-i")
	master, expect := terminal(t, b)
	for _, step := range []struct{ send, want string }{
		// The job speaks when the terminal is its own: bash's child takes it before it executes anything.
		{"sh -c 'echo in''front; exec sleep 100'\n", "infront"}, {"\x1a", "Stopped"}, {"jobs; bg; jobs\n", "Running"}, {"kill %1; wait; echo all''done\n", "alldone"},
	} {
		if _, err := master.WriteString(step.send); err != nil {
			t.Fatal(err)
		}
		expect(step.want)
	}
	if _, err := master.WriteString("exit 5\n"); err != nil {
		t.Fatal(err)
	}
	if _, code := b.result(); code != 5 {
		t.Errorf("status %d", code)
	}
}

func TestExecInTheSameWalls(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	b := launch(t, input(t, w), "sh", "-c", "touch /tmp/agent; sleep 100")
	if m := b.recv(b.init.Conn); m.Type != confine.FrameStarted {
		t.Fatalf("got frame %d", m.Type)
	}
	run := func(seq uint32, argv ...string) (string, int32, int32) {
		r, pw, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		status, peer, err := confine.Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer status.Close()
		spec := confine.Spec{Argv: argv, Env: []string{"PATH=/usr/bin"}, Dir: "/tmp", SeccompFD: -1, ListenFD: -1, StatusFD: 2, StdioFDs: [3]int{0, 1, 1}}
		payload, err := spec.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.init.Conn.Send(confine.Frame{Type: confine.FrameExec, Seq: seq}, payload, null, pw, peer); err != nil {
			t.Fatal(err)
		}
		pw.Close()
		peer.Close()
		out, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		last := func(c *confine.Conn) int32 {
			for {
				m := b.recv(c)
				if m.Seq == seq && (m.Type == confine.FrameExited || m.Type == confine.FrameFailed) {
					return m.Status
				}
			}
		}
		return strings.TrimSpace(string(out)), last(status), last(b.init.Conn)
	}
	for i := range uint32(3) {
		out, tool, keeper := run(i+1, "sh", "-c", "ls /tmp/agent; cat /etc/shadow; id -u; exit 6")
		if tool != 6 || keeper != 6 || !strings.Contains(out, "/tmp/agent") || !strings.Contains(out, "Permission denied") || !strings.Contains(out, fmt.Sprint(testUID)) {
			t.Errorf("exec: %q, status %d and %d", out, tool, keeper)
		}
	}
	if _, tool, keeper := run(9, "no-such"); tool != 127 || keeper != 127 {
		t.Errorf("exec of nothing: %d and %d, want 127", tool, keeper)
	}
	if err := b.init.Conn.Send(confine.Frame{Type: confine.FrameSignal, Status: 9}, nil); err != nil {
		t.Fatal(err)
	}
	if _, code := b.result(); code != 137 {
		t.Errorf("status %d", code)
	}
}

// TestNothingStays launches some sandboxes and compares what the host holds.
func TestNothingStays(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	count := func() string {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		groups, err := filepath.Glob(filepath.Join(cgroup2(t), "confine-test-*"))
		if err != nil {
			t.Fatal(err)
		}
		ours := 0 // other test packages mount things at the same time
		for line := range strings.Lines(string(mounts)) {
			if strings.Contains(line, "confine") {
				ours++
			}
		}
		return fmt.Sprintf("descriptors %d, mounts %d, cgroups %d", len(fds), ours, len(groups))
	}
	round := func(t *testing.T) {
		if out, code := sh(t, input(t, w), "sleep 300 & echo hi"); code != 0 {
			t.Fatalf("status %d: %s", code, out)
		}
	}
	t.Run("warm up", round)
	before := count()
	for i := range 10 {
		t.Run(fmt.Sprint(i), round)
	}
	if after := count(); after != before {
		t.Errorf("before: %s; after: %s", before, after)
	}
}

// BenchmarkLaunch measures plan, clone, walls, agent and end of `true`; cpu-ms
// is what the launch costs in processor time, whoever else is busy.
func BenchmarkLaunch(b *testing.B) {
	needRoot(b)
	w := newWorld(b)
	before := cpu(b)
	for b.Loop() {
		x := launch(b, input(b, w), "true")
		if _, code := x.result(); code != 0 {
			b.Fatal(code)
		}
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var sum int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var ru unix.Rusage
		if err := unix.Getrusage(who, &ru); err != nil {
			b.Fatal(err)
		}
		sum += ru.Utime.Nano() + ru.Stime.Nano()
	}
	return time.Duration(sum)
}

func TestResourceLimits(t *testing.T) {
	needRoot(t)
	in := input(t, newWorld(t))
	in.Walls.Rlimits = []confine.Rlimit{
		{Resource: unix.RLIMIT_NOFILE, Value: 256}, {Resource: unix.RLIMIT_CORE, Value: 1 << 20},
		{Resource: unix.RLIMIT_AS, Value: 1 << 30}, {Resource: unix.RLIMIT_NPROC, Value: 1<<64 - 1},
	}
	// The limit on address space lands right after exec, hence the pause.
	out, code := sh(t, in, "sleep 0.2; ulimit -n; ulimit -Hn; ulimit -c; ulimit -Hc; ulimit -v; ulimit -Hv")
	if want := "256\n256\n0\n0\n1048576\n1048576"; code != 0 || out != want {
		t.Errorf("status %d, limits %q, want %q", code, out, want)
	}
}
