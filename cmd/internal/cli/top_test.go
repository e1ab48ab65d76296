// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"iter"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/screen"
)

// liveNode is a fake node whose streams last, and that can be restarted.
type liveNode struct {
	*fakeNode
	live   *api.Server
	asks   []api.Approval      // guarded by fakeNode.mu, as what follows
	heard  []chan api.Approval // of who watches
	refuse error               // a vote
	starts int
}

func startLive(t *testing.T) *liveNode {
	t.Helper()
	n := &liveNode{fakeNode: startNode(t), asks: approvals()}
	n.asks[0].Expires = time.Now().Add(time.Hour)
	n.socket += "live" // the other's end removes its own
	n.restart(t)
	return n
}

// restart ends the daemon and starts another at the same socket.
func (n *liveNode) restart(t *testing.T) {
	t.Helper()
	n.stop()
	_ = os.Remove(n.socket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: n.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if n.live, err = api.NewServer(api.Options{Backend: n, OperatorGID: os.Getegid()}); err != nil {
		t.Fatal(err)
	}
	n.set(func() { n.starts++ })
	done := make(chan struct{})
	go func(s *api.Server) { defer close(done); _ = s.Serve(l) }(n.live)
	t.Cleanup(func() { n.stop(); <-done })
}

// stop ends the daemon.
func (n *liveNode) stop() {
	if n.live == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = n.live.Close(ctx)
}

func (n *liveNode) Status(ctx context.Context) (api.Status, error) {
	st, err := n.fakeNode.Status(ctx)
	n.set(func() { st.Started = created.Add(time.Duration(n.starts) * time.Hour) })
	return st, err
}

func (n *liveNode) Events(ctx context.Context, q api.EventQuery) iter.Seq2[api.EventRecord, error] {
	return func(yield func(api.EventRecord, error) bool) {
		for sent := 0; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			lines := n.lines()
			for _, line := range lines[sent:] {
				h, _ := event.PeekOCSF(line)
				if !yield(api.EventRecord{Sandbox: h.Sandbox, Scope: h.Scope, Line: line}, nil) {
					return
				}
			}
			if sent = len(lines); !q.Follow {
				return
			}
		}
	}
}

func (n *liveNode) Approvals(context.Context, *api.Caller, bool) iter.Seq2[api.Approval, error] {
	var list []api.Approval
	n.set(func() { list = slices.Clone(n.asks) })
	return func(yield func(api.Approval, error) bool) {
		for _, a := range list {
			if a.Named = true; !yield(a, nil) {
				return
			}
		}
	}
}

func (n *liveNode) Approval(ctx context.Context, c *api.Caller, id string) (api.Approval, error) {
	for a := range n.Approvals(ctx, c, true) {
		if a.ID == id {
			return a, nil
		}
	}
	return api.Approval{}, api.Errorf(api.CodeNotFound, "none")
}

func (n *liveNode) WatchApprovals(ctx context.Context, _ *api.Caller) iter.Seq2[api.Approval, error] {
	return func(yield func(api.Approval, error) bool) {
		c := make(chan api.Approval, 10)
		n.set(func() {
			n.heard = append(n.heard, c)
			for _, a := range n.asks {
				c <- a
			}
		})
		for {
			select {
			case a := <-c:
				a.Named = true
				if !yield(a, nil) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

func (n *liveNode) Vote(_ context.Context, _ *api.Caller, id string, r *api.VoteRequest) (out api.Approval, err error) {
	n.set(func() {
		if err = n.refuse; err != nil {
			return
		}
		n.votes = append(n.votes, *r)
		for i := range n.asks {
			if n.asks[i].ID != id {
				continue
			}
			n.asks[i].State = "denied"
			if r.Approve {
				n.asks[i].State = "approved"
			}
			out = n.asks[i]
			for _, c := range n.heard {
				c <- out
			}
		}
	})
	return out, err
}

// viewer is top on a terminal.
type viewer struct {
	*console
	rows, cols, from int
}

func view(t *testing.T, socket string, rows, cols int, environ ...string) *viewer {
	t.Helper()
	cmd := tool(t, socket, "top")
	cmd.Env = append(append(cmd.Env, "TERM=xterm", "NO_COLOR="), environ...)
	v := &viewer{console: newConsole(t, cmd)}
	v.resize(rows, cols)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return v
}

// resize changes the size; the program draws all of it again.
func (v *viewer) resize(rows, cols int) {
	v.t.Helper()
	if err := pty.Setsize(v.master, &pty.Winsize{Rows: uint16(rows), Cols: uint16(cols)}); err != nil {
		v.t.Fatal(err)
	}
	v.rows, v.cols, v.from = rows, cols, len(v.text())
}

// screen is what is seen.
func (v *viewer) screen() *screen.Screen {
	s := screen.New(v.rows, v.cols)
	_, _ = s.Write([]byte(v.text()[v.from:]))
	return s
}

// sees waits until all of it is on the screen at once.
func (v *viewer) sees(want ...string) {
	v.t.Helper()
	text := ""
	for range 1000 {
		text = v.screen().Text()
		missing := slices.DeleteFunc(slices.Clone(want), func(w string) bool { return strings.Contains(text, w) })
		if len(missing) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	v.t.Fatalf("%q is not on the screen:\n%s", want, text)
}

// insists presses a key until all of it is on the screen: a "y" before a
// request has been drawn is one that was typed ahead.
func (v *viewer) insists(key string, want ...string) {
	v.t.Helper()
	for range 50 {
		v.send(key)
		time.Sleep(200 * time.Millisecond)
		if text := v.screen().Text(); strings.Contains(text, want[0]) {
			break
		}
	}
	v.sees(want...)
}

// end waits for the end, after which the terminal is as it was.
func (v *viewer) end() int {
	v.t.Helper()
	_ = v.cmd.Wait()
	var s *screen.Screen
	for range 500 { // what it wrote last may still be on its way
		s = screen.New(v.rows, v.cols)
		_, _ = s.Write([]byte(v.text()))
		if !s.Alt && !s.Hidden {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if s.Alt || s.Hidden {
		v.t.Errorf("the terminal is not as it was: alternate screen %v, cursor hidden %v", s.Alt, s.Hidden)
	}
	if len(s.Unknown) > 0 {
		v.t.Errorf("sequences that xterm does not know: %q", s.Unknown)
	}
	return v.cmd.ProcessState.ExitCode()
}

func TestTop(t *testing.T) {
	n := startLive(t)
	v := view(t, n.socket, 24, 80)
	before := v.termios()
	v.sees("revision 4  DEGRADED", "gateway degraded: restarting", "b0a1c2d3 web", "degraded (1)")

	line := deniedLine(t, event.Event{Kind: event.KindNetwork, Proto: "tcp", DstName: "evil.example", DstPort: 443, Comm: "c\x1b[2Jurl", PID: 7, Reason: "漢字"})
	n.set(func() { n.events = append(n.events, line) })
	v.sees("denied 1")
	v.send("2")
	v.sees(`tcp evil.example:443 (c\x1b[2Jurl 7)`, "漢字")

	v.send("3a")
	v.sees("Approve request 4be21f0a97c3d518?", "server:bank/tool:pay", `to: \x1b[2Jmallory \u202e`, "y approve")
	n.set(func() {
		n.refuse = api.Errorf(api.CodeDenied, "rule eng/money counts group:sre, and you are not in it")
	})
	v.insists("y", "Not taken: 4be21f0a97c3d518", "rule eng/money counts group:sre, and you are not in it")
	n.set(func() { n.refuse = nil })
	v.send("\x1b")
	v.sees("a approve")
	v.send("Dnot today\r")
	v.sees("denied 4be21f0a97c3d518: tool server:bank/tool:pay", "[3 Approvals 0]")
	v.send("1\r")
	v.sees("Sandbox b0a1c2d3", "Refused, newest first", `evil.example:443`)

	v.send("\x1b")
	v.sees("enter open")
	v.send("4a")
	v.sees("A rule that stays?", "allows     example.com:443", "  + b: \\x1b[2J")
	v.insists("y", "org:local/team:default/agent:npm may reach example.com:443, revision 7")

	v.send("q")
	if code := v.end(); code != 0 || v.termios() != before {
		t.Errorf("exit %d", code)
	}
	n.set(func() {
		if len(n.lasting) != 2 || n.lasting[1] != "draft-0011223344ff "+proposalDigest+" " {
			t.Errorf("rules: %q", n.lasting)
		}
		if len(n.votes) != 1 || n.votes[0].Approve || n.votes[0].Comment != "not today" {
			t.Errorf("votes: %+v", n.votes)
		}
	})
}

// TestTopApproves, and the approval is what was confirmed.
func TestTopApproves(t *testing.T) {
	n := startLive(t)
	v := view(t, n.socket, 24, 80)
	v.sees("3 Approvals 1")
	v.send("3a")
	v.sees("y approve")
	v.send("t")
	v.sees("it for an hour")
	v.insists("y", "approved 4be21f0a97c3d518: tool server:bank/tool:pay")
	v.send("\x03")
	if code := v.end(); code != 0 {
		t.Errorf("exit %d", code)
	}
	n.set(func() {
		if want := (api.VoteRequest{Approve: true, Lasts: api.ApproveFor, For: api.Duration(time.Hour)}); len(n.votes) != 1 || !reflect.DeepEqual(n.votes[0], want) {
			t.Errorf("votes: %+v", n.votes)
		}
	})
}

// TestTopOnTerminals: any size, without colours, and a signal in the middle.
func TestTopOnTerminals(t *testing.T) {
	n := startLive(t)
	red := deniedLine(t, event.Event{Kind: event.KindFile, Path: "/x"})
	n.set(func() { n.events = append(n.events, red) })
	for _, c := range []struct {
		name       string
		rows, cols int
		environ    string
		color      bool
		sees       string
	}{
		{"colours", 24, 80, "", true, "> b0a1c2d3 web"},
		{"NO_COLOR", 24, 80, "NO_COLOR=1", false, "> b0a1c2d3 web"},
		{"vt220", 24, 80, "TERM=vt220", true, "> b0a1c2d3 web"},
		{"linux", 12, 50, "TERM=linux", true, "> b0a1c2d3 web"},
		{"tiny", 5, 30, "", false, "ringfence top"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := view(t, n.socket, c.rows, c.cols, c.environ)
			before := v.termios()
			if v.sees(c.sees); c.rows > 10 {
				v.sees("denied 1")
			}
			styles := v.screen().Styles
			if got := slices.ContainsFunc(styles, func(s string) bool { return strings.HasPrefix(s, "3") }); got != c.color {
				t.Errorf("styles %q", styles)
			}
			v.resize(4, 20)
			v.sees("The terminal is", "20x4; ringfence top")
			v.resize(24, 80)
			v.sees("[1 Sandboxes 1]")
			_ = v.cmd.Process.Signal(syscall.SIGTERM)
			if code := v.end(); code != 0 || v.termios() != before {
				t.Errorf("exit %d", code)
			}
		})
	}
}

// TestTopReconnects: a daemon that is away is said, and so is its return.
func TestTopReconnects(t *testing.T) {
	n := startLive(t)
	v := view(t, n.socket, 24, 80)
	v.sees("DEGRADED", "b0a1c2d3")
	n.stop()
	v.sees("NOT CONNECTED", "lost at", "trying again", "b0a1c2d3")
	n.restart(t)
	v.sees("connected again: the daemon was restarted at", "DEGRADED")
	v.send("3")
	v.sees("server:bank/tool:pay")
	v.send("q")
	if code := v.end(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// TestTopElsewhere: where there is no screen, what to use instead is said.
func TestTopElsewhere(t *testing.T) {
	n := startNode(t)
	const instead = "ringfence ps, ringfence events --follow, ringfence approvals watch"
	r := finish(t, tool(t, n.socket, "top"))
	if r.code != 2 || r.out != "" || !strings.Contains(r.errOut, "needs a terminal") || !strings.Contains(r.errOut, instead) {
		t.Errorf("no terminal: exit %d, %q", r.code, r.errOut)
	}
	for _, c := range []struct {
		name, socket, environ, says string
		code                        int
	}{
		{"dumb", n.socket, "TERM=dumb", instead, 2}, {"no TERM", n.socket, "TERM=", instead, 2}, {"no daemon", "/nonexistent", "", "cannot be reached", 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := view(t, c.socket, 24, 120, c.environ)
			v.expect(c.says)
			if code := v.end(); code != c.code || strings.Contains(v.text(), "\x1b") {
				t.Errorf("exit %d, %q", code, v.text())
			}
		})
	}
}
