// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// Uids without an account.
const (
	alice, bob, mallory = 23101, 23102, 23103
	colleague           = 23104 // like bob, for what fills up
)

// peer is somebody on the host with the command line tool.
type peer struct {
	n      *node.Node
	uid    uint32
	groups []uint32
	ws     string
	lender string // the neighbour program, for dial
}

func newPeer(t *testing.T, n *node.Node, uid uint32, groups ...uint32) *peer {
	t.Helper()
	p := &peer{n: n, uid: uid, groups: groups, ws: n.Workspace(t), lender: filepath.Join(n.Dir, "neighbour")}
	need(t, os.Chown(p.ws, int(uid), int(uid)))
	return p
}

func (p *peer) as(cmd *exec.Cmd) *exec.Cmd {
	cmd.Dir = p.ws
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: p.uid, Gid: p.uid, Groups: p.groups}}
	return cmd
}

func (p *peer) run(t *testing.T, args ...string) node.Result {
	t.Helper()
	return node.Finish(t, p.as(p.n.Command(t.Context(), args...)))
}

// refused expects a refusal that says why, and a record of it that names the
// caller and what was asked for. path "" means that no record can exist.
func (p *peer) refused(t *testing.T, says, method, path string, args ...string) {
	t.Helper()
	began := time.Now()
	r := p.run(t, args...)
	if r.Code == 0 || r.Stdout != "" || !strings.Contains(r.Stderr, says) {
		t.Errorf("uid %d %v: exit %d, %q, %q; want %q", p.uid, args, r.Code, r.Stdout, r.Stderr, says)
	}
	if path != "" {
		p.recorded(t, began, method, path)
	}
}

func (p *peer) recorded(t *testing.T, began time.Time, method, path string) {
	t.Helper()
	actor := fmt.Sprintf("uid=%d", p.uid)
	p.n.WaitEvent(t, fmt.Sprintf("the refusal of %s %s for %s", method, path, actor), func(e *event.Event) bool {
		return e.Kind == event.KindOperator && e.Verdict == event.Denied && e.Actor == actor && e.UID == p.uid && e.Activity == method && e.Object == path && e.Reason != ""
	}, "--since", began.Add(-time.Second).Format(time.RFC3339Nano))
}

// TestPeers are callers of the operator API who want what is not theirs.
func TestPeers(t *testing.T) {
	n := node.Start(t, node.Options{Config: "group: " + group + "\n"})
	lender := filepath.Join(n.Dir, "neighbour")
	need(t, os.WriteFile(lender, neighbourProgram(t), 0o755))
	a, b := newPeer(t, n, alice, groupGID), newPeer(t, n, bob, groupGID)
	r := a.run(t, "run", "--profile", "coding", "--detach", "--name", "alices", "--", "sh", "-c", "echo private; getent hosts alices.test; sleep 1000")
	if r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	id := strings.TrimSpace(r.Stdout)
	n.WaitEvent(t, "alice's question", func(e *event.Event) bool { return e.DstName == "alices.test" })
	before := n.Sandbox(t, "alices")
	t.Run("outside the group", func(t *testing.T) { outsider(t, newPeer(t, n, mallory), id) })
	t.Run("another's sandbox", func(t *testing.T) { anothers(t, a, b, id) })
	t.Run("another's files", func(t *testing.T) { anothersFiles(t, a, b) })
	t.Run("root's files", func(t *testing.T) { rootsFiles(t, b) })
	t.Run("without the tool", func(t *testing.T) { bareRequests(t, a, b, id) })
	t.Run("descriptors", func(t *testing.T) { hostileFiles(t, newPeer(t, n, colleague, groupGID)) })
	t.Run("what does not let itself be closed", func(t *testing.T) { drawnOut(t, newPeer(t, n, colleague+1, groupGID)) })
	if s := n.Sandbox(t, "alices"); s.State != "running" || s.PID != before.PID {
		t.Errorf("alice's sandbox was %+v and is %+v", before, s)
	}
	if r := a.run(t, "stop", "alices", "--timeout", "0s"); r.Code != 0 {
		t.Errorf("control: its owner stops it: %s", r.Stderr)
	}
	for _, crash := range []string{"panic", "goroutine ", "DATA RACE"} {
		if strings.Contains(n.Log(), crash) {
			t.Errorf("%q in the daemon's log", crash)
		}
	}
}

// outsider: the socket's mode refuses who is not in the group; when it does
// not, the daemon does, whatever is asked.
func outsider(t *testing.T, m *peer, id string) {
	m.refused(t, "group", "", "", "ps")
	m.refused(t, "group", "", "", "run", "--", "true")
	need(t, os.Chmod(m.n.Socket, 0o666))
	defer func() { need(t, os.Chmod(m.n.Socket, 0o660)) }()
	const says = "may not use Ringfence on this node"
	for _, c := range []struct {
		method, path string
		args         []string
	}{
		{"GET", "/v1/sandboxes", []string{"ps"}},
		{"POST", "/v1/sandboxes", []string{"run", "--", "true"}},
		{"POST", "/v1/sandboxes", []string{"run", "--detach", "--", "true"}},
		{"POST", "/v1/sandboxes/alices/exec", []string{"exec", "alices", "--", "id"}},
		{"POST", "/v1/sandboxes/" + id + "/exec", []string{"exec", id, "--", "id"}},
		{"POST", "/v1/sandboxes/alices/stop", []string{"stop", "alices"}},
		{"GET", "/v1/sandboxes/alices/log", []string{"logs", "alices"}},
		{"GET", "/v1/events", []string{"events"}},
		{"GET", "/v1/events", []string{"events", "--sandbox", "alices"}},
		{"POST", "/v1/allow", []string{"allow", "x.test:443", "--sandbox", "alices"}},
		{"POST", "/v1/allow", []string{"allow", "x.test:443", "--scope", "org:local", "--always"}},
		{"GET", "/v1/inference", []string{"inference", "status"}},
		{"GET", "/v1/providers", []string{"provider", "list"}},
		{"GET", "/v1/audit/verify", []string{"audit", "verify"}},
	} {
		m.refused(t, says, c.method, c.path, c.args...)
	}
}

// anothers: a member and the sandbox of another one.
func anothers(t *testing.T, a, b *peer, id string) {
	for _, ref := range []string{"alices", id} {
		at := "/v1/sandboxes/" + ref
		for _, c := range []struct {
			method, path string
			args         []string
		}{
			{"POST", at + "/stop", []string{"stop", ref}},
			{"POST", at + "/stop", []string{"stop", "--timeout", "0s", ref}},
			{"POST", at + "/exec", []string{"exec", ref, "--", "touch", "bob-was-here"}},
			{"GET", at + "/log", []string{"logs", ref}},
			{"GET", at + "/log", []string{"logs", "--follow", ref}},
			{"GET", "/v1/events", []string{"events", "--sandbox", ref}},
			{"GET", "/v1/events", []string{"events", "--follow", "--sandbox", ref}},
			{"POST", "/v1/allow", []string{"allow", "x.test:443", "--sandbox", ref}},
			{"POST", "/v1/allow", []string{"allow", "x.test:443", "--always", "--sandbox", ref}},
		} {
			b.refused(t, "no sandbox", c.method, c.path, c.args...)
		}
	}
	b.refused(t, "no sandbox", "", "", "stop", id[:6]) // nor is it found by the beginning of its id
	mine := a.n.WaitEvent(t, "alice's question", func(e *event.Event) bool { return e.DstName == "alices.test" })
	b.refused(t, "no event", "GET", "/v1/events/"+mine.ID+"/explain", "explain", mine.ID)
	if r := b.run(t, "events", "-o", "json"); r.Code != 0 || strings.Contains(r.Stdout, id) || strings.Contains(r.Stdout, "alices") {
		t.Errorf("events of another: %+v", r)
	}
	if r := b.run(t, "ps", "--all"); strings.Contains(r.Stdout, "alices") {
		t.Errorf("ps: %s", r.Stdout)
	}
	// Their names do not take it over either.
	if r := b.run(t, "run", "--detach", "--name", "alices", "--", "sleep", "1000"); r.Code != 125 || !strings.Contains(r.Stderr, "named") {
		t.Errorf("a second of the name: %+v", r)
	}
	if r := b.run(t, "run", "--detach", "--name", id, "--profile", "coding", "--", "sleep", "1000"); r.Code == 0 {
		if r := a.run(t, "exec", id, "--", "id", "-u"); r.Stdout != fmt.Sprintln(alice) {
			t.Errorf("an id that is another's name: %+v", r)
		}
		if r := b.run(t, "stop", "--timeout", "0s", strings.TrimSpace(r.Stdout)); r.Code != 0 {
			t.Error(r.Stderr)
		}
	}
	if entries, err := os.ReadDir(a.ws); err != nil || len(entries) != 0 {
		t.Errorf("alice's workspace: %v %v", entries, err)
	}
	for _, args := range [][]string{{"logs", "alices"}, {"exec", "alices", "--", "true"}, {"events", "--sandbox", "alices"}, {"explain", mine.ID}, {"allow", "x.test:443", "--sandbox", "alices"}} {
		if r := a.run(t, args...); r.Code != 0 {
			t.Errorf("control: its owner: %v: %+v", args, r)
		}
	}
}
