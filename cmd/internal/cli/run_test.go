// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/event"
)

// exitGraceForTest is more than the tool waits for the daemon's word.
const exitGraceForTest = 5 * time.Second

var deniedEventForGolden = []byte(`{"not":"ours\u001b"}`)

func TestStandardDescriptors(t *testing.T) {
	n := startNode(t)
	big := strings.Repeat("0123456789abcdef", 1<<14) // more than a pipe holds

	t.Run("pipes", func(t *testing.T) {
		cmd := tool(t, n.socket, "run", "--", "sh", "-c", "cat; echo err >&2")
		cmd.Stdin = strings.NewReader(big)
		if r := finish(t, cmd); r.out != big || r.errOut != "err\n" {
			t.Errorf("%d bytes, %q", len(r.out), r.errOut)
		}
	})
	t.Run("regular files", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/in", []byte(big), 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := os.Open(dir + "/in")
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close() //nolint:errcheck
		out, err := os.Create(dir + "/out")
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close() //nolint:errcheck
		cmd := tool(t, n.socket, "run", "--", "cat")
		cmd.Stdin, cmd.Stdout = in, out
		finish(t, cmd)
		if got, _ := os.ReadFile(dir + "/out"); string(got) != big {
			t.Errorf("%d bytes", len(got))
		}
	})
	t.Run("the program's own descriptors are blocking", func(t *testing.T) {
		cmd := tool(t, n.socket, "run", "--", "sh", "-c", "grep flags /proc/self/fdinfo/1")
		a, b := socketPair(t)
		cmd.Stdout = b
		r := finish(t, cmd)
		_ = b.Close()
		got, _ := io.ReadAll(a)
		if r.code != 0 || strings.Contains(string(got), "4001") || !strings.Contains(string(got), "flags") {
			t.Errorf("%d %q %q", r.code, got, r.errOut)
		}
	})
	t.Run("sockets are relayed", func(t *testing.T) {
		a, b := socketPair(t)
		cmd := tool(t, n.socket, "run", "--", "sh", "-c", "readlink /proc/self/fd/1; head -c 5")
		cmd.Stdin, cmd.Stdout = b, b
		if _, err := a.Write([]byte("hello more")); err != nil {
			t.Fatal(err)
		}
		r := finish(t, cmd)
		_ = b.Close()
		got, _ := io.ReadAll(a)
		if r.code != 0 || !strings.HasPrefix(string(got), "pipe:") || !strings.HasSuffix(string(got), "hello") {
			t.Errorf("%d %q %q", r.code, got, r.errOut)
		}
	})
	t.Run("closed descriptors", func(t *testing.T) {
		cmd := tool(t, n.socket)
		cmd.Args = []string{"sh", "-c", `exec "$0" run -- cat <&- `, cmd.Path}
		cmd.Path = "/bin/sh"
		if r := finish(t, cmd); r.code != 0 || r.out != "" {
			t.Errorf("%d %q %q", r.code, r.out, r.errOut)
		}
	})
	t.Run("input that nobody reads", func(t *testing.T) {
		a, b := socketPair(t)
		defer a.Close() //nolint:errcheck
		cmd := tool(t, n.socket, "run", "--", "true")
		cmd.Stdin = b
		if r := finish(t, cmd); r.code != 0 {
			t.Errorf("%d %q", r.code, r.errOut)
		}
	})
}

func socketPair(t *testing.T) (a, b *os.File) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, b = os.NewFile(uintptr(p[0]), "a"), os.NewFile(uintptr(p[1]), "b")
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

func TestWhatRunAsksFor(t *testing.T) {
	n := startNode(t)
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/ws/sub", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"p.yaml": "profile text", "pol.yaml": "policy text"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := tool(t, n.socket, "run", "--profile", dir+"/p.yaml", "--policy", dir+"/pol.yaml", "--as", "org:acme/team:x",
		"--workspace", dir+"/ws", "--env", "A=1", "-e", "B", "--name", "n1", "--", "true", "--flag")
	cmd.Dir = dir + "/ws/sub"
	cmd.Env = append(cmd.Env, "B=2")
	if r := finish(t, cmd); r.code != 0 {
		t.Fatalf("%d %s", r.code, r.errOut)
	}
	q := n.lastLaunch()
	if q.Profile.Text != "profile text" || len(q.Policies) != 1 || q.Policies[0].Text != "policy text" {
		t.Errorf("documents: %+v %+v", q.Profile, q.Policies)
	}
	if q.Scope != "org:acme/team:x/agent:true" || q.Name != "n1" || q.Dir != "sub" || q.WorkspacePath != dir+"/ws" {
		t.Errorf("%q %q %q %q", q.Scope, q.Name, q.Dir, q.WorkspacePath)
	}
	if len(q.Env) != 2 || q.Env[0] != "A=1" || q.Env[1] != "B=2" || len(q.Argv) != 2 {
		t.Errorf("%q %q", q.Env, q.Argv)
	}
	t.Run("home is no workspace by accident", func(t *testing.T) {
		cmd := tool(t, n.socket, "run", "--", "true")
		cmd.Env = append(cmd.Env, "HOME="+cmd.Dir)
		if r := finish(t, cmd); r.code != 125 || !strings.Contains(r.errOut, "--workspace") {
			t.Errorf("%d %q", r.code, r.errOut)
		}
		cmd = tool(t, n.socket, "run", "--workspace", ".", "--", "true")
		cmd.Env = append(cmd.Env, "HOME="+cmd.Dir)
		if r := finish(t, cmd); r.code != 0 {
			t.Errorf("control: %d %q", r.code, r.errOut)
		}
	})
	t.Run("detached", func(t *testing.T) {
		r := finish(t, tool(t, n.socket, "run", "--detach", "--", "true"))
		if r.code != 0 || r.out != "b0a1c2d3\n" {
			t.Errorf("%d %q %q", r.code, r.out, r.errOut)
		}
		if r := finish(t, tool(t, n.socket, "run", "--detach", "--", "missing-feature")); r.code != 125 {
			t.Errorf("%d", r.code)
		}
	})
}

func TestSignalsAreForwarded(t *testing.T) {
	// Under nohup(1) a child would inherit that SIGHUP is ignored; a handler here
	// gives it the default again.
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	defer signal.Stop(c)
	n := startNode(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		t.Run(sig.String(), func(t *testing.T) {
			cmd := tool(t, n.socket, "run", "--", "sh", "-c", "echo ready; exec sleep 20")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond) // sh becomes sleep
			_ = cmd.Process.Signal(sig)
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != 128+int(sig) {
				t.Errorf("exit %d, want %d", got, 128+int(sig))
			}
		})
	}
}

func TestTheExitStatusOutlivesTheDaemon(t *testing.T) {
	n := startNode(t)
	cmd := tool(t, n.socket, "run", "--", "sh", "-c", "echo ready; read line; exit 42")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	n.kill()
	_, _ = io.WriteString(in, "go\n")
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 42 {
		t.Errorf("exit %d", got)
	}
}

// TestHostileInit lets the sandbox's side of the status socket misbehave: the
// tool ends with a status and prints nothing that a terminal obeys.
func TestHostileInit(t *testing.T) {
	null := func() *os.File { f, _ := os.Open(os.DevNull); return f }
	tests := []struct {
		name string
		init func(c *confine.Conn)
		code int
	}{
		{"silence", func(*confine.Conn) {}, 9}, // the daemon's word
		{"status above 255", func(c *confine.Conn) { _ = c.Send(confine.Frame{Type: confine.FrameExited, Status: 1 << 20}, nil) }, 1},
		{"negative status", func(c *confine.Conn) { _ = c.Send(confine.Frame{Type: confine.FrameExited, Status: -3}, nil) }, 1},
		{"two ends", func(c *confine.Conn) {
			_ = c.Send(confine.Frame{Type: confine.FrameExited, Status: 3}, nil)
			_ = c.Send(confine.Frame{Type: confine.FrameExited, Status: 4}, nil)
		}, 3},
		{"failure with escapes", func(c *confine.Conn) {
			_ = c.Send(confine.Frame{Type: confine.FrameFailed, Status: 0}, []byte("\x1b[2Jgone\n\n"))
		}, 125},
		{"a terminal that is none", func(c *confine.Conn) {
			f := null()
			defer f.Close() //nolint:errcheck
			_ = c.Send(confine.Frame{Type: confine.FramePtyMaster}, nil, f, f, f)
		}, 9},
		{"unknown frames", func(c *confine.Conn) {
			for i := range 200 {
				_ = c.Send(confine.Frame{Type: confine.FrameType(100 + i%100)}, []byte("x"))
			}
			_ = c.Send(confine.Frame{Type: confine.FrameExited, Status: 6}, nil)
		}, 6},
		{"an end that is none", func(c *confine.Conn) {
			_ = c.Send(confine.Frame{Type: confine.FrameExited, Status: 5}, nil)
			time.Sleep(exitGraceForTest)
		}, 5},
		{"no frame at all", func(c *confine.Conn) {
			rc, _ := c.SyscallConn()
			_ = rc.Write(func(fd uintptr) bool { _, _ = unix.Write(int(fd), []byte("hello")); return true })
		}, 9},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := startNode(t)
			n.set(func() { n.hostile = tt.init })
			r := finish(t, tool(t, n.socket, "run", "--", "x"))
			if tt.name == "an end that is none" && !strings.Contains(r.errOut, "ringfence stop b0a1c2d3") {
				t.Errorf("nothing said: %q", r.errOut)
			}
			if r.code != tt.code || strings.Contains(r.errOut, "\x1b") {
				t.Errorf("%d %q, want %d", r.code, r.errOut, tt.code)
			}
		})
	}
}

func TestRefusalsAreListed(t *testing.T) {
	n := startNode(t)
	dns := event.Event{Kind: event.KindDNS, DstName: "example.com", QueryType: "A", RCode: "NXDOMAIN", Reason: "no rule allows it"}
	conn := event.Event{Kind: event.KindNetwork, Proto: "tcp", DstName: "example.com", DstPort: 443, DstAddr: "198.18.0.2:443", Reason: "no rule allows it", Remedy: "ringfence allow example.com:443"}
	events := [][]byte{
		deniedLine(t, dns), deniedLine(t, dns), deniedLine(t, conn), deniedLine(t, conn), deniedLine(t, dns),
		deniedLine(t, event.Event{Kind: event.KindNetwork, Proto: "tcp", DstAddr: "192.0.2.7:22", DstPort: 22, Reason: "no rule allows it"}),
		deniedLine(t, event.Event{Kind: event.KindInference, Provider: "openai", Model: "gpt-x", Reason: "no rule allows it", Remedy: `add to a Policy document: inference: [{id: ID, allow: "gpt-x"}]`}),
		deniedLine(t, event.Event{Kind: event.KindFile, Activity: "open", Path: "/etc/shadow\x1b[2J", Reason: "not in the profile"}),
		deniedLine(t, event.Event{Kind: event.KindNetwork, Proto: "tcp", DstName: "x$(reboot).example", DstPort: 443, Reason: "r", Remedy: "ringfence allow x$(reboot).example:443"}),
	}
	n.set(func() { n.events = events })
	r := finish(t, tool(t, n.socket, "run", "--", "sh", "-c", "exit 3"))
	golden(t, "refused.txt", r.errOut)
	if r.code != 3 || strings.Contains(r.errOut, "\x1b") || strings.Contains(r.errOut, "allow x$(") {
		t.Errorf("%d %q", r.code, r.errOut)
	}
	if r := finish(t, tool(t, n.socket, "run", "--quiet", "--", "true")); r.errOut != "" {
		t.Errorf("--quiet: %q", r.errOut)
	}
	for i := range 20 {
		events = append(events, deniedLine(t, event.Event{Kind: event.KindNetwork, Proto: "udp", DstAddr: fmt.Sprintf("192.0.2.7:%d", 1000+i), DstPort: uint16(1000 + i), Reason: "r"}))
	}
	n.set(func() { n.events = events })
	r = finish(t, tool(t, n.socket, "run", "--", "true"))
	if lines := strings.Count(r.errOut, "\n"); lines > 14 || !strings.Contains(r.errOut, "more: ringfence events --denied --sandbox b0a1c2d3") {
		t.Errorf("%d lines:\n%s", lines, r.errOut)
	}
}

// TestFailuresAreListed: what was allowed and did not work is no refusal, and
// has no command that would help.
func TestFailuresAreListed(t *testing.T) {
	n := startNode(t)
	refused := event.Event{Kind: event.KindNetwork, Proto: "tcp", DstName: "db.example", DstPort: 5432, DstAddr: "198.18.0.9:5432", Reason: "policy allowed it, but the destination refused the connection", Detail: "dial tcp 192.0.2.1:5432: connect: connection refused"}
	events := [][]byte{
		failedLine(t, refused), failedLine(t, refused),
		failedLine(t, event.Event{Kind: event.KindHTTP, Method: "GET", URL: "https://example.com/", Status: 502, DstName: "example.com", Reason: "policy allows it, but the certificate of example.com did not verify: \x1b[2Jexpired"}),
		failedLine(t, event.Event{Kind: event.KindInference, Provider: "openai", Operation: "chat", Model: "m", Status: 502, Reason: `the provider "openai" could not be reached`, Detail: "dial tcp: lookup llm.example: no such host"}),
		eventLine(t, event.Event{Kind: event.KindNetwork, Proto: "tcp", DstName: "fine.example", DstPort: 443, Verdict: event.Allowed, Reason: "the policy allows it"}),
	}
	n.set(func() { n.events = events })
	r := finish(t, tool(t, n.socket, "run", "--", "sh", "-c", "exit 3"))
	golden(t, "failed.txt", r.errOut)
	if r.code != 3 || strings.Contains(r.errOut, "\x1b") {
		t.Errorf("%d %q", r.code, r.errOut)
	}
	if r := finish(t, tool(t, n.socket, "run", "--quiet", "--", "true")); r.errOut != "" {
		t.Errorf("--quiet: %q", r.errOut)
	}
	if r := finish(t, tool(t, n.socket, "events", "--failed")); strings.Count(r.out, " failed ") != 4 || strings.Count(r.out, "\n") != 4 {
		t.Errorf("events --failed: %q", r.out)
	}
	for i := range 20 {
		refused.DstPort = uint16(1000 + i)
		refused.DstAddr = fmt.Sprintf("198.18.0.9:%d", refused.DstPort)
		events = append(events, failedLine(t, refused))
	}
	events = append(events, deniedLine(t, event.Event{Kind: event.KindNetwork, Proto: "tcp", DstAddr: "192.0.2.7:22", DstPort: 22, Reason: "no rule allows it"}))
	n.set(func() { n.events = events })
	r = finish(t, tool(t, n.socket, "run", "--", "true"))
	if !strings.Contains(r.errOut, "1 thing was refused:\n  tcp 192.0.2.7:22") || !strings.Contains(r.errOut, "23 things were allowed but failed:\n  tcp db.example:5432") ||
		!strings.Contains(r.errOut, "  ... and 19 more: ringfence events --failed --sandbox b0a1c2d3\n") || strings.Count(r.errOut, "\n") > 9 {
		t.Errorf("%s", r.errOut)
	}
}

func TestRefusedByTheDaemon(t *testing.T) {
	// A socket that answers no HTTP, and one whose mode refuses us.
	dir := t.TempDir()
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, bytes.NewReader([]byte("220 smtp\x1b[2J ready\r\n\r\n")))
			_ = c.Close()
		}
	}()
	r := finish(t, tool(t, dir+"/s", "ps"))
	if r.code == 0 || strings.Contains(r.errOut, "\x1b") {
		t.Errorf("%d %q", r.code, r.errOut)
	}
	if r := finish(t, tool(t, dir+"/s", "run", "--", "true")); r.code != 125 {
		t.Errorf("%d %q", r.code, r.errOut)
	}
}

var _ api.Backend = (*fakeNode)(nil)
