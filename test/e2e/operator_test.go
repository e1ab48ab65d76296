// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// waiting is an agent that asks for a page whenever told through a file, so
// that an operator can act in between.
const waiting = `
i=1
while :; do
  while [ ! -e ask-$i ]; do sleep 0.02; done
  curl -s -m 10 -o /dev/null -w '%{http_code}' --cacert server-ca.pem $(cat ask-$i) > new; echo " exit=$?" >> new
  mv new answer-$i; i=$((i+1))
done`

// agent is a running sandbox that asks when told.
type agent struct {
	n    *node.Node
	ws   string
	name string
	next int
}

func (w *world) waitingAgent(t *testing.T, n *node.Node, name string, flags ...string) *agent {
	t.Helper()
	a := &agent{n: n, ws: n.Workspace(t), name: name}
	put(t, a.ws, "server-ca.pem", string(w.ca.PEM()))
	args := append([]string{"run", "--profile", "coding", "--detach", "--name", name}, flags...)
	if r := n.CLIIn(t, a.ws, append(args, "--", "sh", "-c", waiting)...); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	return a
}

// ask lets the agent make one request and returns "status exit=code".
func (a *agent) ask(t *testing.T, url string) string {
	t.Helper()
	a.next++
	put(t, a.ws, "todo", url)
	i := string(rune('0' + a.next))
	need(t, os.Rename(filepath.Join(a.ws, "todo"), filepath.Join(a.ws, "ask-"+i)))
	var b []byte
	eventually(t, "an answer to "+url, func() bool {
		var err error
		b, err = os.ReadFile(filepath.Join(a.ws, "answer-"+i))
		return err == nil
	})
	return strings.TrimSpace(string(b))
}

// expect checks the status of one request.
func (a *agent) expect(t *testing.T, url, status string) {
	t.Helper()
	if got := a.ask(t, url); !strings.HasPrefix(got, status) {
		t.Errorf("%s asks for %s: %s, want %s", a.name, url, got, status)
	}
}

func TestOperator(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"one.test", "two.test", "three.test", "four.test"} {
		w.site(t, name, doubles.Page(name))
	}
	w.site(t, "five.test", http.HandlerFunc(slowly))
	w.site(t, "six.test", doubles.Page("six.test"))
	n := w.start(t, node.Options{})
	t.Run("allow", func(t *testing.T) { allowModes(t, w, n) })
	t.Run("explain", func(t *testing.T) { explain(t, w, n) })
	t.Run("follow", func(t *testing.T) { followEvents(t, w, n) })
	t.Run("life", func(t *testing.T) { life(t, n) })
}

// slowly answers over two seconds.
func slowly(w http.ResponseWriter, r *http.Request) {
	for range 20 {
		_, _ = w.Write([]byte("slowly\n"))
		_ = http.NewResponseController(w).Flush()
		if strings.HasPrefix(r.URL.Path, "/slow") {
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func allow(t *testing.T, n *node.Node, args ...string) api.AllowResult {
	t.Helper()
	r := n.CLI(t, append([]string{"allow", "-o", "json"}, args...)...)
	var res api.AllowResult
	if err := json.Unmarshal([]byte(r.Stdout), &res); r.Code != 0 || err != nil || !res.Effective {
		t.Fatalf("allow %v: exit %d %v %s%s", args, r.Code, err, r.Stdout, r.Stderr)
	}
	return res
}

func allowModes(t *testing.T, w *world, n *node.Node) {
	first := w.waitingAgent(t, n, "first")
	second := w.waitingAgent(t, n, "second", "--as", "org:local/team:other")
	first.expect(t, "https://one.test/", "000")

	// For one sandbox: there, and nowhere else.
	allow(t, n, "one.test:443", "--sandbox", "first")
	first.expect(t, "https://one.test/", "200")
	second.expect(t, "https://one.test/", "000")

	// Once: the first connection, and no other.
	allow(t, n, "two.test:443", "--sandbox", "first", "--once")
	first.expect(t, "https://two.test/", "200")
	eventually(t, "the grant is used up", func() bool { return !strings.Contains(documents(t, n), "two.test") })
	first.expect(t, "https://two.test/", "000")

	// Once, and still there: the connection that had it goes on.
	allow(t, n, "five.test:443", "--sandbox", "first", "--once")
	first.expect(t, "https://five.test/slow", "200 exit=0")
	first.expect(t, "https://five.test/slow", "000")

	// For a while.
	res := allow(t, n, "three.test:443", "--sandbox", "first", "--for", "3s")
	if res.Expires == nil || time.Until(*res.Expires) > 3*time.Second {
		t.Errorf("expires %v", res.Expires)
	}
	first.expect(t, "https://three.test/", "200")
	time.Sleep(time.Until(*res.Expires))
	eventually(t, "the grant is over", func() bool { return !strings.Contains(documents(t, n), "three.test") })
	first.expect(t, "https://three.test/", "000")

	// Always, for a scope: kept, shown, and taken by those in it alone.
	r := n.CLI(t, "allow", "four.test:443", "--scope", "org:local/team:other", "--always")
	if r.Code != 0 || !strings.Contains(r.Stdout, "four.test:443") || !strings.Contains(r.Stdout, "org:local/team:other") {
		t.Errorf("allow: exit %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	second.expect(t, "https://four.test/", "200")
	first.expect(t, "https://four.test/", "000")

	for _, bad := range [][]string{
		{"allow", "four.test", "--sandbox", "first"},
		{"allow", "api.openai.com:443", "--sandbox", "first"},
		{"allow", "x.test:443", "--sandbox", "no-such"},
		{"allow", "x.test:443", "--once", "--always", "--sandbox", "first"},
		{"allow", "x.test:443"}, // two are running
	} {
		if r := n.CLI(t, bad...); r.Code == 0 || r.Stderr == "" {
			t.Errorf("%v: exit %d %s", bad, r.Code, r.Stdout)
		}
	}
	for _, a := range []*agent{first, second} {
		if r := n.CLI(t, "stop", a.name, "--timeout", "0s"); r.Code != 0 {
			t.Errorf("stop: %s", r.Stderr)
		}
	}
	if strings.Contains(documents(t, n), "one.test") {
		t.Error("the rule of a stopped sandbox is still there")
	}
	if !strings.Contains(documents(t, n), "four.test") {
		t.Error("the rule that stays is gone")
	}
}

// documents is all policy in force.
func documents(t *testing.T, n *node.Node) string {
	t.Helper()
	r := n.CLI(t, "policy", "show", "-o", "json")
	if r.Code != 0 {
		t.Fatalf("policy show: %s", r.Stderr)
	}
	return r.Stdout
}

func explain(t *testing.T, w *world, n *node.Node) {
	ws := n.Workspace(t)
	n.WritePolicy(t, "deny.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: bans}\nscope: org:local\negress:\n  - {id: ban, deny: \"ban.test\", reason: \"banned\"}\n  - {id: ok, allow: \"six.test:443\"}\n")
	eventually(t, "the document is in force", func() bool { return strings.Contains(documents(t, n), "bans") })
	put(t, ws, "server-ca.pem", string(w.ca.PEM()))
	sandboxed(t, n, ws, "default", "curl -s https://ban.test/; curl -s https://none.test/; curl -s --cacert server-ca.pem https://six.test/")
	for _, c := range []struct {
		host string
		want []string
	}{
		{"ban.test", []string{"denied", "bans/ban", "deny.yaml:6", "banned"}},
		// The sandbox has ended: the short form of the command would need a running one.
		{"none.test", []string{"denied", "ringfence allow none.test:443 --scope org:local/team:default/agent:sh --always\n"}},
		{"six.test", []string{"allowed", "bans/ok", "deny.yaml:7"}},
	} {
		e := n.WaitEvent(t, "the event of "+c.host, func(e *event.Event) bool {
			return e.DstName == c.host && e.Scope != "" && strings.Contains(e.Scope, "team:default") && e.Kind != event.KindDNS
		})
		r := n.CLI(t, "explain", e.ID)
		if r.Code != 0 {
			t.Errorf("explain: %s", r.Stderr)
		}
		contains(t, "explain "+c.host, r.Stdout, append(c.want, e.ID)...)
	}
	living := w.waitingAgent(t, n, "explained")
	living.ask(t, "https://while-it-runs.test/")
	e := n.WaitEvent(t, "the refusal of a sandbox that runs", func(e *event.Event) bool { return e.DstName == "while-it-runs.test" && e.Remedy != "" })
	for _, c := range []struct{ does, want string }{
		{"", "to allow  ringfence allow while-it-runs.test:443\n"},
		{"stop", "to allow  ringfence allow while-it-runs.test:443 --scope org:local/team:default/agent:sh --always\n"},
	} {
		if c.does != "" {
			if r := n.CLI(t, c.does, "explained", "--timeout", "0s"); r.Code != 0 {
				t.Fatal(r.Stderr)
			}
		}
		contains(t, "explain "+c.does, n.CLI(t, "explain", e.ID).Stdout, c.want)
	}
	// What is allowed by now is not proposed again, of the name neither.
	question := n.WaitEvent(t, "the refused question", func(e *event.Event) bool { return e.DstName == "while-it-runs.test" && e.Kind == event.KindDNS })
	if r := n.CLI(t, "allow", "while-it-runs.test:443", "--scope", "org:local/team:default/agent:sh", "--always"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	for id, want := range map[string]string{e.ID: "allowed by allow-while-it-runs", question.ID: "it resolves: allow-while-it-runs"} {
		out := n.CLI(t, "explain", id).Stdout
		contains(t, "explain what is allowed by now", out, want)
		if strings.Contains(out, "to allow") {
			t.Errorf("explain proposes what is done: %s", out)
		}
	}
	if r := n.CLI(t, "explain", "no-such-event"); r.Code != 3 || r.Stderr == "" {
		t.Errorf("unknown event: exit %d %s", r.Code, r.Stderr)
	}
}

// followEvents shows an event while the reader waits for it.
func followEvents(t *testing.T, w *world, n *node.Node) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := n.Command(ctx, "events", "--follow", "--denied", "--since", "1s")
	out, err := cmd.StdoutPipe()
	need(t, err)
	need(t, cmd.Start())
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	sandboxed(t, n, n.Workspace(t), "default", "curl -s https://followed.test/")
	deadline := time.After(20 * time.Second)
	for found := false; !found; {
		select {
		case l := <-lines:
			found = strings.Contains(l, "followed.test")
		case <-deadline:
			t.Fatal("the event did not come")
		}
	}
	need(t, cmd.Process.Signal(syscall.SIGINT))
	for range lines {
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted: %v", err)
	}
}

func life(t *testing.T, n *node.Node) {
	ws := n.Workspace(t)
	r := n.CLIIn(t, ws, "run", "--profile", "coding", "--detach", "--name", "living", "--", "sh", "-c",
		`trap 'echo ending; exit 7' TERM; echo up; echo err >&2; while :; do sleep 0.05; done`)
	id := strings.TrimSpace(r.Stdout)
	if r.Code != 0 || id == "" {
		t.Fatalf("run: %s", r.Stderr)
	}
	if out := waitLog(t, n, "living", "err\n"); out != "up\nerr\n" {
		t.Errorf("log %q", out)
	}
	find := func() (sb api.Sandbox) {
		t.Helper()
		var list []api.Sandbox
		r := n.CLI(t, "ps", "--all", "-o", "json")
		if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil {
			t.Fatalf("ps: %v: %s%s", err, r.Stdout, r.Stderr)
		}
		for _, s := range list {
			if s.ID == id {
				sb = s
			}
		}
		return sb
	}
	if s := find(); s.Name != "living" || s.State != api.StateRunning || s.PID == 0 || s.UID == 0 || s.Profile != "coding" || s.Workspace != ws {
		t.Errorf("ps: %+v", s)
	}
	if r := n.CLI(t, "ps"); !strings.Contains(r.Stdout, "living") {
		t.Errorf("ps: %s", r.Stdout)
	}

	// exec joins the same walls.
	r = n.CLI(t, "exec", "living", "--", "sh", "-c", "pwd; id -u; cat /etc/shadow; curl -s -o /dev/null -w '%{http_code}' https://banned.test/; readlink /proc/1/exe /proc/self/ns/net; exit 9")
	if r.Code != 9 || !strings.HasPrefix(r.Stdout, ws+"\n") || !strings.Contains(r.Stdout, "403") || strings.Contains(r.Stdout, "root:") {
		t.Errorf("exec: exit %d, %q %s", r.Code, r.Stdout, r.Stderr)
	}
	if host, err := os.Readlink("/proc/self/ns/net"); err != nil || strings.Contains(r.Stdout, host) {
		t.Errorf("exec runs in the network namespace of the host: %s", r.Stdout)
	}
	if r := n.CLI(t, "exec", "living", "--", "no-such-program"); r.Code != 127 {
		t.Errorf("exec of nothing: exit %d %s", r.Code, r.Stderr)
	}
	if r := n.CLI(t, "exec", "--env", "A=b", "--dir", "/tmp", "living", "--", "sh", "-c", "echo $A $PWD"); r.Stdout != "b /tmp\n" {
		t.Errorf("exec: %q %s", r.Stdout, r.Stderr)
	}

	if r := n.CLI(t, "stop", id[:6]); r.Code != 0 {
		t.Errorf("stop: %s", r.Stderr)
	}
	s := find()
	if s.State != api.StateStopped || s.ExitCode == nil || *s.ExitCode != 7 {
		t.Errorf("ps after stop: %+v", s)
	}
	if r := n.CLI(t, "logs", id); !strings.HasSuffix(r.Stdout, "ending\n") {
		t.Errorf("the log after the end: %q", r.Stdout)
	}
	for _, args := range [][]string{{"stop", "living"}, {"exec", "living", "--", "true"}, {"logs", "no-such"}} {
		if r := n.CLI(t, args...); r.Code == 0 || r.Stderr == "" {
			t.Errorf("%v: exit %d %s", args, r.Code, r.Stdout)
		}
	}
}
