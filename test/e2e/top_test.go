// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
	glass "github.com/ringfence/ringfence/test/screen"
)

// view is `ringfence top` before somebody.
type view struct {
	*screen
	rows, cols int
}

func openView(t *testing.T, cmd *exec.Cmd) *view {
	t.Helper()
	const rows, cols = 24, 80
	return &view{openCommand(t, cmd, rows, cols), rows, cols}
}

func (v *view) shows() *glass.Screen {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := glass.New(v.rows, v.cols)
	_, _ = s.Write(v.text.Bytes())
	return s
}

// sees waits until all of it is on the screen at once.
func (v *view) sees(want ...string) {
	v.t.Helper()
	text := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		text = v.shows().Text()
		if !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(text, w) }) {
			return
		}
	}
	v.t.Fatalf("%q is not on the screen:\n%s", want, text)
}

// insists presses a key until it has an effect: a "y" before a request has been
// drawn counts for nothing.
func (v *view) insists(key, want string) {
	v.t.Helper()
	for range 50 {
		v.send(key)
		time.Sleep(200 * time.Millisecond)
		if strings.Contains(v.shows().Text(), want) {
			return
		}
	}
	v.sees(want)
}

func (v *view) quit() {
	v.t.Helper()
	v.send("q")
	if code := v.end(); code != 0 {
		v.t.Errorf("exit %d", code)
	}
	<-v.done
	if s := v.shows(); s.Alt || s.Hidden || len(s.Unknown) > 0 {
		v.t.Errorf("left behind: alternate screen %v, cursor hidden %v, unknown %q", s.Alt, s.Hidden, s.Unknown)
	}
}

// TestTop: the view before a real daemon: what runs, what was refused, a
// connection that is approved on the screen while the agent waits for it, another
// that is denied, a daemon that is killed and comes back, and somebody who may
// only look.
func TestTop(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"asked.test", "open.test"} {
		w.site(t, name, doubles.Page(name))
	}
	n := w.start(t, node.Options{Config: "group: " + memberGroup + "\n", Policies: map[string]string{"ask.yaml": "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: eng}\nscope: org:local\negress:\n" +
		"  - {id: open, allow: \"open.test:443\"}\n  - {id: ask, to: \"asked.test:443\", action: require-approval, reason: \"ask first\"}\n"}})
	a := w.waitingAgent(t, n, "asker")
	box := n.Sandbox(t, "asker")
	v := openView(t, n.Command(t.Context(), "top"))
	v.sees("[1 Sandboxes 1]", box.ID+" asker", "enforced")

	a.expect(t, "https://open.test/", "200")
	a.expect(t, "https://nobody-allows.test/", "000") // refused under a certificate that it does not know
	v.send("2")
	v.sees("DENIED", "nobody-allows.test", "allowed", "open.test:443")
	v.send("1\r")
	v.sees("Sandbox "+box.ID, "Refused, newest first", "nobody-allows.test")
	v.send("/") // is no key of a page
	v.insists("j", `to: "asked.test:443"`)
	v.send("\x1b")
	v.sees("[1 Sandboxes 1]", "enter open")

	v.send("4")
	v.sees("nobody-allows.test:443", "a rule") // of what was refused, a draft
	v.send("a")
	v.sees("A rule that stays?", "allows     nobody-allows.test:443", "  + ", "y write")
	v.insists("y", "may reach nobody-allows.test:443, revision")
	eventually(t, "the rule in force", func() bool {
		return strings.Contains(n.CLI(t, "policy", "list").Stdout, "nobody-allows.test:443")
	})

	asks := func(want string, during func()) {
		t.Helper()
		done := make(chan string)
		go func() { done <- a.ask(t, "https://asked.test/") }()
		v.sees("[3 Approvals 1]", "asked.test:443/tcp", "a approve")
		during()
		if got := <-done; strings.HasPrefix(got, "200") != (want == "200") {
			t.Errorf("the agent that waited got %s", got)
		}
	}
	v.send("3")
	asks("200", func() {
		v.insists("a", "Approve request")
		v.sees("Approve request", "egress     asked.test:443/tcp", "sandbox "+box.ID+" (asker)", "runs       sh", "eng/ask ", "ask first", "1 of root, an approver or who launched it (1 lacking)", "one use of it")
		v.insists("y", "approved ")
	})
	v.sees("[3 Approvals 0]")
	asks("", func() {
		guest := newPerson(t, n, 64050, memberGID(t))
		access(t, n, guest.ws, "viewer", "org:local")
		looks := openView(t, guest.command(t, "top"))
		looks.send("3")
		looks.sees("[3 Approvals 1]", "asked.test:443/tcp")
		looks.send("d")
		looks.sees("Not taken", "you are not an approver of this request")
		looks.send("\x1b")
		looks.sees("[3 Approvals 1]", "a approve")
		looks.quit()
		v.insists("d", "[3 Approvals 0]") // the first is for nothing, if what was selected is over just now
	})

	n.KillDaemon(t)
	v.sees("NOT CONNECTED", "trying again")
	n.StartDaemon(t)
	v.sees("connected again: the daemon was restarted at", "enforced")
	a.expect(t, "https://nobody-allows-later.test/", "000")
	v.send("2")
	v.sees("nobody-allows-later.test")
	v.quit()
	if r := n.CLI(t, "stop", "asker", "--timeout", "0s"); r.Code != 0 {
		t.Error(r.Stderr)
	}
}

// quitTop is the exit code of a view that is left.
func quitTop(t *testing.T, n *node.Node) int {
	t.Helper()
	v := openView(t, n.Command(t.Context(), "top"))
	v.sees("[1 Sandboxes")
	v.send("q")
	return v.end()
}

// command is what run runs.
func (p *person) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := p.n.Command(t.Context(), args...)
	cmd.Path, cmd.Dir = p.cli, p.ws
	cmd.Env = append(cmd.Env, "HOME="+p.ws+"/home", "PWD="+p.ws)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: p.uid, Gid: p.uid, Groups: p.groups}}
	return cmd
}
