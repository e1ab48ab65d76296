// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/ringfence/ringfence/test/node"
)

// screen is an interactive session as a person has it: the command line tool
// on a terminal of its own.
type screen struct {
	t    *testing.T
	cmd  *exec.Cmd
	tty  *os.File
	done chan struct{}

	mu   sync.Mutex
	text bytes.Buffer
	from int // what expect has consumed
}

func open(t *testing.T, n *node.Node, ws string, rows, cols uint16, args ...string) *screen {
	t.Helper()
	cmd := n.Command(t.Context(), args...)
	cmd.Dir = ws
	return openCommand(t, cmd, rows, cols)
}

func openCommand(t *testing.T, cmd *exec.Cmd, rows, cols uint16) *screen {
	t.Helper()
	cmd.Env = append(cmd.Env, "TERM=xterm")
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: rows, Cols: cols})
	need(t, err)
	s := &screen{t: t, cmd: cmd, tty: tty, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		b := make([]byte, 4096)
		for {
			n, err := tty.Read(b)
			s.mu.Lock()
			s.text.Write(b[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = tty.Close() })
	return s
}

// send types a text.
func (s *screen) send(text string) {
	s.t.Helper()
	_, err := s.tty.WriteString(text)
	need(s.t, err)
}

// expect waits for a pattern after the last one and returns its match.
func (s *screen) expect(pattern string) string {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		rest := s.text.Bytes()[s.from:]
		m := re.FindIndex(rest)
		if m != nil {
			s.from += m[1]
			out := string(rest[m[0]:m[1]])
			s.mu.Unlock()
			return out
		}
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.Fatalf("%q did not appear after %q", pattern, s.text.Bytes()[s.from:])
	return ""
}

// end waits for the session's exit code.
func (s *screen) end() int {
	s.t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); _ = s.cmd.Wait() }()
	select {
	case <-done:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(20 * time.Second):
		s.t.Fatalf("the session does not end:\n%s", s.text.String())
		return -1
	}
}

func TestTerminal(t *testing.T) {
	n := node.Start(t, node.Options{})
	ws := n.Workspace(t)
	t.Run("shell", func(t *testing.T) { shell(t, n, ws) })
	t.Run("own terminal", func(t *testing.T) { ownTerminal(t, n, ws) })
	t.Run("exec", func(t *testing.T) { execTerminal(t, n, ws) })
	t.Run("signal ends it", func(t *testing.T) { terminalSignals(t, n, ws) })
	t.Run("pipes", func(t *testing.T) { pipes(t, n, ws) })
}

// shell is a session of bash with everything that needs a real terminal.
func shell(t *testing.T, n *node.Node, ws string) {
	s := open(t, n, ws, 31, 97, "run", "--profile", "coding", "--", "bash", "--norc", "-i")
	s.expect(`bash[^ ]*[$#] `)
	s.send("bind 'set enable-bracketed-paste off'; PS1='rea''dy> '\r")
	s.expect("ready> ")
	s.send("stty size\r")
	s.expect("31 97\r\n")
	s.send(`bash -c 'trap "echo resized \$(stty size); exit" WINCH; echo ar''med; while :; do sleep 0.05; done'` + "\r")
	s.expect("armed")
	need(t, pty.Setsize(s.tty, &pty.Winsize{Rows: 20, Cols: 60}))
	s.expect("resized 20 60")
	s.expect("ready> ")

	// Ctrl-C ends the program in front, not the shell or the sandbox.
	s.send("sleep 1000; echo interrupted=$?\r")
	time.Sleep(300 * time.Millisecond)
	s.send("\x03")
	s.expect(`\^C`)
	s.expect("ready> ")
	s.send("echo status=$?\r")
	s.expect("status=130")

	// Job control: stop, list, background, foreground.
	s.send("sleep 1000\r")
	time.Sleep(300 * time.Millisecond)
	s.send("\x1a")
	s.expect(`Stopped`)
	s.send("jobs\r")
	s.expect(`\[1\]\+ +Stopped +sleep 1000`)
	s.send("bg\r")
	s.expect(`sleep 1000 &`)
	s.send("fg\r")
	s.expect(`sleep 1000\r\n`)
	time.Sleep(200 * time.Millisecond)
	s.send("\x03")
	s.expect("ready> ")

	// Nothing echoes a password, and Ctrl-D ends input.
	s.send("read -s secret; echo got=${#secret}\r")
	time.Sleep(200 * time.Millisecond)
	s.send("hunter2\r")
	if got := s.expect(`got=7`); strings.Contains(got, "hunter2") {
		t.Error("the terminal echoed a hidden line")
	}
	s.send("cat > typed\r")
	time.Sleep(200 * time.Millisecond)
	s.send("a line\r\x04")
	s.expect("ready> ")
	s.send("cat typed; exit 3\r")
	s.expect("a line\r\n")
	if code := s.end(); code != 3 {
		t.Errorf("exit %d", code)
	}
}

// ownTerminal shows that the caller's terminal never goes in.
func ownTerminal(t *testing.T, n *node.Node, ws string) {
	outer, err := os.Readlink("/proc/self/ns/mnt")
	need(t, err)
	s := open(t, n, ws, 24, 80, "run", "--profile", "coding", "--", "sh", "-c",
		"tty; ls /dev/pts; stat -c %u $(tty); id -u; readlink /proc/self/ns/mnt; cat /dev/pts/1 || echo no-other; echo end")
	s.expect(`end\r\n`)
	if code := s.end(); code != 0 {
		t.Errorf("exit %d", code)
	}
	s.mu.Lock()
	all := s.text.String()
	s.mu.Unlock()
	contains(t, "inside", all, "/dev/pts/0\r\n", "no-other")
	if strings.Contains(all, outer) {
		t.Error("the mount namespace is the host's")
	}
}

// execTerminal is a second session in a running sandbox.
func execTerminal(t *testing.T, n *node.Node, ws string) {
	if r := n.CLIIn(t, ws, "run", "--profile", "coding", "--detach", "--name", "longer", "--", "sleep", "1000"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	defer n.CLI(t, "stop", "longer", "--timeout", "0s")
	s := open(t, n, ws, 15, 44, "exec", "longer", "--", "bash", "--norc", "-i")
	s.send("PS1='second> '; stty size\r")
	s.expect("15 44\r\n")
	s.send("pgrep sleep && echo same-sandbox\r")
	s.expect("\nsame-sandbox")
	s.send("sleep 500\r")
	time.Sleep(300 * time.Millisecond)
	s.send("\x03")
	s.expect("second> $")
	s.send("exit 5\r")
	if code := s.end(); code != 5 {
		t.Errorf("exit %d", code)
	}
}

// terminalSignals ends sessions from outside.
func terminalSignals(t *testing.T, n *node.Node, ws string) {
	for _, c := range []struct {
		name string
		sig  syscall.Signal
		code int
	}{{"TERM", syscall.SIGTERM, 143}, {"HUP", syscall.SIGHUP, 129}} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, n, ws, 24, 80, "run", "--profile", "coding", "--", "sh", "-c", "echo up; exec sleep 1000")
			s.expect("up\r\n")
			need(t, s.cmd.Process.Signal(c.sig))
			if code := s.end(); code != c.code {
				t.Errorf("exit %d, want %d", code, c.code)
			}
		})
	}
}

// pipes shows that input and output that are no terminal stay what they are.
func pipes(t *testing.T, n *node.Node, ws string) {
	cmd := n.Command(t.Context(), "run", "--profile", "coding", "--", "sh", "-c", "cat; [ -t 0 ] || [ -t 1 ] || echo no-terminal; echo to-stderr >&2")
	cmd.Dir = ws
	cmd.Stdin = strings.NewReader("typed\x00\xff bytes\n")
	r := node.Finish(t, cmd)
	if r.Stdout != "typed\x00\xff bytes\nno-terminal\n" || r.Stderr != "to-stderr\n" || r.Code != 0 {
		t.Errorf("exit %d, %q, %q", r.Code, r.Stdout, r.Stderr)
	}
}
