// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
)

// console is a terminal with the tool in it.
type console struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	cmd    *exec.Cmd

	mu  sync.Mutex
	got strings.Builder
}

func newConsole(t *testing.T, cmd *exec.Cmd) *console {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	c := &console{t: t, master: master, slave: slave, cmd: cmd}
	t.Cleanup(func() { _ = master.Close(); _ = slave.Close() })
	if err := pty.Setsize(master, &pty.Winsize{Rows: 33, Cols: 77}); err != nil {
		t.Fatal(err)
	}
	if cmd.Stdin == nil {
		cmd.Stdin = slave
	}
	cmd.Stdout, cmd.Stderr = slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			c.mu.Lock()
			c.got.Write(buf[:n])
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return c
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got.String()
}

func (c *console) expect(want string) {
	c.t.Helper()
	for range 500 {
		if strings.Contains(c.text(), want) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.t.Fatalf("%q did not come: %q", want, c.text())
}

func (c *console) send(s string) {
	c.t.Helper()
	if _, err := c.master.WriteString(s); err != nil {
		c.t.Fatal(err)
	}
}

func (c *console) termios() unix.Termios {
	c.t.Helper()
	tio, err := unix.IoctlGetTermios(int(c.slave.Fd()), unix.TCGETS)
	if err != nil {
		c.t.Fatal(err)
	}
	return *tio
}

func TestTerminal(t *testing.T) {
	n := startNode(t)
	c := newConsole(t, tool(t, n.socket, "run", "--", "sh", "-c",
		`tty; stty size; trap 'stty size; echo resized' WINCH; while :; do read x && echo "got:$x" && test "$x" = end && exit 7; done`))
	before := c.termios()
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.expect("33 77")
	if own := "\n" + c.slave.Name() + "\r"; strings.Contains("\n"+c.text(), own) {
		t.Errorf("the caller's terminal went in: %q", c.text())
	}
	if raw := c.termios(); raw.Lflag&unix.ECHO != 0 || raw.Lflag&unix.ISIG != 0 {
		t.Error("the caller's terminal is not raw")
	}
	c.send("one\r")
	c.expect("got:one")
	if err := pty.Setsize(c.master, &pty.Winsize{Rows: 40, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	c.send("\r") // sh runs traps between reads
	c.expect("40 100")
	c.send("end\r")
	_ = c.cmd.Wait()
	if got := c.cmd.ProcessState.ExitCode(); got != 7 {
		t.Errorf("exit %d", got)
	}
	if after := c.termios(); after != before {
		t.Errorf("the terminal was not restored: %+v, was %+v", after, before)
	}
}

func TestTerminalInterrupt(t *testing.T) {
	n := startNode(t)
	c := newConsole(t, tool(t, n.socket, "run", "--", "sh", "-c", "echo ready; exec sleep 20"))
	before := c.termios()
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.expect("ready")
	time.Sleep(50 * time.Millisecond)
	c.send("\x03")
	_ = c.cmd.Wait()
	if got := c.cmd.ProcessState.ExitCode(); got != 130 {
		t.Errorf("exit %d", got)
	}
	if after := c.termios(); after != before {
		t.Error("the terminal was not restored")
	}
	c.expect("\x1b[?25h") // a killed program cannot tidy up its screen
}

func TestTerminalIsRestoredWhenTheDaemonDies(t *testing.T) {
	n := startNode(t)
	c := newConsole(t, tool(t, n.socket, "run", "--", "sh", "-c", "echo ready; read x; exit 4"))
	before := c.termios()
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.expect("ready")
	n.kill()
	c.send("x\r")
	_ = c.cmd.Wait()
	if got := c.cmd.ProcessState.ExitCode(); got != 4 || c.termios() != before {
		t.Errorf("exit %d", got)
	}
}

// TestTerminalOutputWithoutTerminalInput is the mixed case: no terminal in the
// sandbox, and what it writes is filtered on its way to ours.
func TestTerminalOutputWithoutTerminalInput(t *testing.T) {
	n := startNode(t)
	cmd := tool(t, n.socket, "run", "--", "sh", "-c", `printf '\033[31mred\033[0m \033]0;evil\007 \033[2Jend\n'; test -t 1 || echo none`)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close() //nolint:errcheck
	cmd.Stdin = null
	c := newConsole(t, cmd)
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	c.expect("none")
	if got := c.text(); !strings.Contains(got, "\x1b[31mred\x1b[0m") || strings.Contains(got, "\x1b]") || strings.Contains(got, "\x1b[2J") {
		t.Errorf("%q", got)
	}
}

func TestColours(t *testing.T) {
	n := startNode(t)
	line := deniedLine(t, event.Event{Kind: event.KindNetwork, Proto: "tcp", DstName: "x.example", DstPort: 1, Reason: "r"})
	n.set(func() { n.events = [][]byte{line} })
	for _, tt := range []struct {
		name, env string
		color     bool
	}{{"terminal", "X=1", true}, {"NO_COLOR", "NO_COLOR=1", false}, {"dumb", "TERM=dumb", false}} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := tool(t, n.socket, "events")
			cmd.Env = append(cmd.Env, "TERM=xterm", "NO_COLOR=", tt.env)
			c := newConsole(t, cmd)
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			c.expect("DENIED")
			if got := strings.Contains(c.text(), "\x1b[31m"); got != tt.color {
				t.Errorf("coloured: %v, %q", got, c.text())
			}
		})
	}
	if r := finish(t, tool(t, n.socket, "events")); strings.Contains(r.out, "\x1b") {
		t.Errorf("colours in a pipe: %q", r.out)
	}
	t.Run("logs on a terminal", func(t *testing.T) {
		cmd := tool(t, n.socket, "logs", "web")
		c := newConsole(t, cmd)
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		c.expect("line")
		if strings.Contains(c.text(), "\x1b]") {
			t.Errorf("%q", c.text())
		}
	})
}
