// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// Uids without an account. The group is one that every Debian has.
const (
	alice, bob, mallory = 23001, 23002, 23003
	memberGroup         = "games"
)

// person runs the command line tool as somebody.
type person struct {
	n      *node.Node
	cli    string
	uid    uint32
	groups []uint32
	ws     string
}

func newPerson(t *testing.T, n *node.Node, uid uint32, groups ...uint32) *person {
	t.Helper()
	// A copy of the tool where everybody can reach it.
	cli := filepath.Join(n.Dir, "ringfence")
	for _, program := range []string{"ringfence", "ringfence-policy"} {
		to := filepath.Join(n.Dir, program)
		if _, err := os.Stat(to); err != nil {
			b, err := os.ReadFile(filepath.Join(n.Bin, program))
			need(t, err)
			need(t, os.WriteFile(to, b, 0o755))
		}
	}
	p := &person{n: n, cli: cli, uid: uid, groups: groups, ws: n.Workspace(t)}
	need(t, os.Chown(p.ws, int(uid), int(uid)))
	return p
}

func (p *person) run(t *testing.T, args ...string) node.Result {
	t.Helper()
	return node.Finish(t, p.command(t, args...))
}

// refused expects a clear refusal.
func (p *person) refused(t *testing.T, says string, args ...string) {
	t.Helper()
	r := p.run(t, args...)
	if r.Code == 0 || !strings.Contains(r.Stderr, says) || r.Stdout != "" {
		t.Errorf("uid %d %v: exit %d, %q, %q; want %q", p.uid, args, r.Code, r.Stdout, r.Stderr, says)
	}
}

// memberGID is the number of the group that may use Ringfence.
func memberGID(t *testing.T) uint32 {
	t.Helper()
	g, err := user.LookupGroup(memberGroup)
	if err != nil {
		missing(t, "the group "+memberGroup)
	}
	gid, err := strconv.ParseUint(g.Gid, 10, 32)
	need(t, err)
	return uint32(gid)
}

func TestUsers(t *testing.T) {
	gid := memberGID(t)
	n := node.Start(t, node.Options{Config: "group: " + memberGroup + "\n"})
	a, b := newPerson(t, n, alice, gid), newPerson(t, n, bob, gid)
	out := newPerson(t, n, mallory)
	t.Run("runs as itself", func(t *testing.T) { runsAsItself(t, a) })
	t.Run("only its own", func(t *testing.T) { onlyItsOwn(t, n, a, b) })
	t.Run("needs root", func(t *testing.T) { needsRoot(t, a) })
	t.Run("others", func(t *testing.T) { strangers(t, n, out) })
	t.Run("inside a sandbox", func(t *testing.T) { notFromInside(t, n, a) })
	t.Run("root", func(t *testing.T) { rootInside(t, n) })
}

func runsAsItself(t *testing.T, a *person) {
	r := a.run(t, "run", "--profile", "coding", "--", "sh", "-c", "id -u; id -G; echo made > made; cat /proc/self/uid_map | tr -s ' '; grep -E 'CapEff|NoNewPrivs' /proc/self/status")
	if r.Code != 0 {
		t.Fatalf("exit %d: %s", r.Code, r.Stderr)
	}
	// The group that may use Ringfence is not taken along.
	contains(t, "inside", r.Stdout, fmt.Sprintf("%d\n%d\n", alice, alice), "CapEff:\t0000000000000000", "NoNewPrivs:\t1")
	st, err := os.Stat(filepath.Join(a.ws, "made"))
	need(t, err)
	if uid := st.Sys().(*syscall.Stat_t).Uid; uid != alice {
		t.Errorf("the file belongs to %d", uid)
	}
	r = a.run(t, "run", "--", "curl", "-sS", "https://api.openai.com/v1/chat/completions", "-H", "content-type: application/json", "-d", `{"model":"m","messages":[]}`)
	contains(t, "a model call", r.Stdout+r.Stderr, "built-in trial provider")
	if r := a.run(t, "run", "--", "curl", "-sS", "https://example.com/"); r.Code != 6 {
		t.Errorf("a name that nothing allows: exit %d %s", r.Code, r.Stderr)
	}
	// Its own files elsewhere, and those of others, stay outside.
	need(t, os.WriteFile(filepath.Join(a.n.Dir, "diary"), []byte("dear diary"), 0o644))
	if r := a.run(t, "run", "--profile", "coding", "--", "cat", filepath.Join(a.n.Dir, "diary")); r.Code == 0 {
		t.Errorf("read %q", r.Stdout)
	}
	// The daemon does not lend its rights: a workspace that the caller cannot
	// enter is none.
	closed := filepath.Join(a.n.Dir, "closed")
	need(t, os.Mkdir(closed, 0o700))
	a.refused(t, closed, "run", "--workspace", filepath.Join(closed, "in"), "--", "true")
	key := filepath.Join(a.n.Dir, "key")
	need(t, os.WriteFile(key, []byte("root only"), 0o600))
	a.refused(t, "permission denied", "run", "--policy", key, "--", "true")
}

func (p *person) sandboxes(t *testing.T) (names string) {
	t.Helper()
	r := p.run(t, "ps", "--all", "-o", "json")
	var list []api.Sandbox
	if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil {
		t.Fatalf("ps: %v %s%s", err, r.Stdout, r.Stderr)
	}
	for _, s := range list {
		if s.Owner != p.uid {
			t.Errorf("uid %d sees a sandbox of %d", p.uid, s.Owner)
		}
		names += s.Name + " "
	}
	return names
}

func onlyItsOwn(t *testing.T, n *node.Node, a, b *person) {
	r := a.run(t, "run", "--profile", "coding", "--detach", "--name", "alices", "--", "sh", "-c", "curl -s https://refused.test; sleep 1000")
	if r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	id := strings.TrimSpace(r.Stdout)
	if r := n.CLIIn(t, n.Workspace(t), "run", "--profile", "coding", "--detach", "--name", "roots", "--", "sh", "-c", "curl -s https://roots.test; sleep 1000"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	rootsEvent := n.WaitEvent(t, "root's refusal", func(e *event.Event) bool { return e.DstName == "roots.test" })
	mine := n.WaitEvent(t, "the member's refusal", func(e *event.Event) bool { return e.DstName == "refused.test" })

	if got := a.sandboxes(t); !strings.Contains(got, "alices") {
		t.Errorf("sees %q", got)
	}
	if got := b.sandboxes(t); got != "" {
		t.Errorf("another member sees %q", got)
	}
	for _, args := range [][]string{
		{"stop", "alices"}, {"stop", id}, {"exec", "alices", "--", "id"}, {"exec", id, "--", "id"}, {"logs", "alices"},
		{"allow", "x.test:443", "--sandbox", "alices"}, {"allow", "x.test:443", "--sandbox", id}, {"explain", mine.ID},
		{"allow", "--remove", "x.test:443", "--sandbox", "alices"},
	} {
		b.refused(t, "ringfence: ", args...)
	}
	a.refused(t, "ringfence: ", "stop", "roots")
	a.refused(t, "ringfence: ", "explain", rootsEvent.ID)

	ev := a.run(t, "events", "-o", "json")
	if !strings.Contains(ev.Stdout, "refused.test") || strings.Contains(ev.Stdout, "roots.test") {
		t.Errorf("events of a member: %s", ev.Stdout)
	}
	if ev := b.run(t, "events", "-o", "json"); ev.Stdout != "" || ev.Code != 0 {
		t.Errorf("events of another member: %s%s", ev.Stdout, ev.Stderr)
	}
	for _, args := range [][]string{
		{"explain", mine.ID}, {"exec", "alices", "--", "true"}, {"allow", "x.test:443", "--sandbox", "alices"},
		{"allow", "--remove", "x.test:443", "--sandbox", "alices"}, {"logs", "alices"}, {"stop", "alices", "--timeout", "0s"},
	} {
		if r := a.run(t, args...); r.Code != 0 {
			t.Errorf("its own: %v: exit %d %s", args, r.Code, r.Stderr)
		}
	}
	if r := n.CLI(t, "stop", "roots", "--timeout", "0s"); r.Code != 0 {
		t.Error(r.Stderr)
	}
}

func needsRoot(t *testing.T, a *person) {
	a.refused(t, "needs root", "run", "--as", "org:acme/team:payments", "--", "true")
	a.refused(t, "needs root", "run", "--as", "org:local/team:other", "--", "true")
	a.refused(t, "needs root", "run", "--user", "root", "--", "true")
	a.refused(t, "needs root", "run", "--user", "nobody", "--", "true")
	a.refused(t, "root", "allow", "x.test:443", "--scope", "org:local/team:default", "--always")
	a.refused(t, "root", "allow", "--remove", "x.test:443", "--scope", "org:local/team:default", "--always")
	a.refused(t, "needs root", "provider", "list")
	a.refused(t, "needs root", "provider", "remove", "openai")
	a.refused(t, "needs root", "provider", "add", "openai", "--credential", "passthrough")
	a.refused(t, "needs root", "audit", "verify")
}

func strangers(t *testing.T, n *node.Node, p *person) {
	for _, args := range [][]string{{"ps"}, {"run", "--", "true"}, {"events"}, {"provider", "list"}} {
		r := p.run(t, args...)
		if r.Code == 0 || r.Stdout != "" || !strings.Contains(r.Stderr, memberGroup) && !strings.Contains(r.Stderr, "group") {
			t.Errorf("%v: exit %d, %q, %q", args, r.Code, r.Stdout, r.Stderr)
		}
	}
}

// notFromInside opens the API's socket to everybody and puts it, with the tool,
// into a member's workspace: the caller is refused for where it is, whoever it
// is.
func notFromInside(t *testing.T, n *node.Node, a *person) {
	st, err := os.Stat(n.Socket)
	need(t, err)
	need(t, os.Chmod(n.Socket, 0o666))
	defer func() { need(t, os.Chmod(n.Socket, st.Mode().Perm())) }()
	need(t, os.Link(n.Socket, filepath.Join(a.ws, "api.sock")))
	need(t, os.Link(a.cli, filepath.Join(a.ws, "tool")))
	if r := a.run(t, "--socket", "api.sock", "ps"); r.Code != 0 {
		t.Fatalf("control, outside: %s", r.Stderr)
	}
	for _, c := range []struct{ name, cmd string }{
		{"a question", "ps"},
		{"a launch", "run -- true"},
	} {
		r := a.run(t, "run", "--profile", "coding", "--", "sh", "-c", "./tool --socket api.sock "+c.cmd+"; echo code=$?")
		if !strings.Contains(r.Stdout, "code=") || strings.Contains(r.Stdout, "code=0") || !strings.Contains(r.Stderr, "sandbox") {
			t.Errorf("%s: %q %s", c.name, r.Stdout, r.Stderr)
		}
	}
}

// rootInside shows uid 0 inside that is nobody outside.
func rootInside(t *testing.T, n *node.Node) {
	for _, c := range []struct {
		name  string
		flags []string
		id    string
	}{{"root-inside", []string{"--user", "root"}, "0\n"}, {"of its own", nil, ""}} {
		t.Run(c.name, func(t *testing.T) {
			ws := n.Workspace(t)
			args := append([]string{"run", "--profile", "coding", "--detach", "--name", "who"}, c.flags...)
			r := n.CLIIn(t, ws, append(args, "--", "sh", "-c", "id -u; touch made && chown 0:0 made; mount -t tmpfs x /mnt; cat /etc/shadow; echo told; sleep 1000")...)
			if r.Code != 0 {
				t.Fatal(r.Stderr)
			}
			id := strings.TrimSpace(r.Stdout)
			out := waitLog(t, n, "who", "told\n")
			if !strings.HasPrefix(out, c.id) || c.id == "" && strings.HasPrefix(out, "0\n") || strings.Contains(out, "root:") {
				t.Errorf("inside: %q", out)
			}
			seen := 0
			need(t, filepath.WalkDir(n.Cgroup(t), func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.Name() != "cgroup.procs" || !strings.Contains(path, id) {
					return err
				}
				b, err := os.ReadFile(path)
				for pid := range strings.FieldsSeq(string(b)) {
					seen++
					status, _ := os.ReadFile("/proc/" + pid + "/status")
					if !strings.Contains(string(status), "\nUid:\t") || strings.Contains(string(status), "\nUid:\t0\t") {
						t.Errorf("process %s of the sandbox:\n%s", pid, status)
					}
				}
				return err
			}))
			if seen < 2 {
				t.Errorf("%d processes in the sandbox's cgroup", seen)
			}
			if r := n.CLI(t, "stop", "who", "--timeout", "0s"); r.Code != 0 {
				t.Error(r.Stderr)
			}
			ownedByOperator(t, ws)
		})
	}
}
