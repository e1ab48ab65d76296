// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
			b.refused(t, "is not yours", c.method, c.path, c.args...)
		}
	}
	b.refused(t, "no sandbox", "", "", "stop", id[:6]) // nor is it found by the beginning of its id
	mine := a.n.WaitEvent(t, "alice's question", func(e *event.Event) bool { return e.DstName == "alices.test" })
	b.refused(t, "not of a sandbox of yours", "GET", "/v1/events/"+mine.ID+"/explain", "explain", mine.ID)
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

// repository writes what git on the host would obey, as somebody's.
func repository(t *testing.T, dir string, uid int) {
	t.Helper()
	for _, d := range []string{"", ".git", ".git/hooks", ".git/objects", ".git/refs"} {
		need(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
		need(t, os.Chown(filepath.Join(dir, d), uid, uid))
	}
	for name, text := range map[string]string{".git/HEAD": "ref: refs/heads/main\n", ".git/config": "[core]\n\tbare = false\n"} {
		need(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		need(t, os.Chown(filepath.Join(dir, name), uid, uid))
	}
}

// changes are what somebody does to a repository of their own.
func changes(t *testing.T, dir string, uid int) (paths []string) {
	t.Helper()
	for name, text := range map[string]string{".git/hooks/post-commit": "#!/bin/sh\n", ".git/config": "[core]\n\tbare = false\n\tsshCommand = secretly\n", "tool": "x"} {
		path := filepath.Join(dir, name)
		need(t, os.WriteFile(path, []byte(text), 0o755))
		need(t, os.Chown(path, uid, uid))
		paths = append(paths, path)
	}
	need(t, os.Chmod(filepath.Join(dir, "tool"), 0o4755|os.ModeSetuid))
	return paths
}

func identities(t *testing.T, paths []string) (out []string) {
	t.Helper()
	for _, p := range paths {
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			out = append(out, p+": "+err.Error())
			continue
		}
		out = append(out, fmt.Sprintf("%s: %o %d %d", p, st.Mode, st.Ino, st.Size))
	}
	return out
}

// anothersFiles: a directory of somebody else as the workspace. The daemon,
// which looks a workspace through when it comes back, neither changes what is
// theirs nor tells of it.
func anothersFiles(t *testing.T, a, b *peer) {
	open, private := filepath.Join(a.n.Dir, "alice"), filepath.Join(a.n.Dir, "alice", "private")
	repository(t, open, alice)
	repository(t, private, alice)
	need(t, os.Chmod(private, 0o700))
	if r := b.run(t, "run", "--profile", "coding", "--workspace", private, "--", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "permission denied") {
		t.Errorf("a workspace that is closed to the caller: %+v", r)
	}
	during := func(p *peer, does func()) node.Result {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := p.as(p.n.Command(ctx, "run", "--quiet", "--profile", "coding", "--workspace", open, "--name", fmt.Sprintf("in-%d", p.uid), "--", "sleep", "3"))
		var r node.Result
		done := make(chan struct{})
		go func() { defer close(done); r = node.Finish(t, cmd) }()
		eventually(t, "it runs", func() bool {
			return slices.ContainsFunc(p.n.Events(t), func(e event.Event) bool {
				return e.Kind == event.KindSandboxStart && e.Object == fmt.Sprintf("in-%d", p.uid)
			})
		})
		does()
		<-done
		return r
	}
	var paths []string
	var before []string
	r := during(b, func() {
		paths = append(changes(t, open, alice), changes(t, private, alice)...)
		before = identities(t, paths)
	})
	if after := identities(t, paths); !slices.Equal(before, after) {
		t.Errorf("files of another were changed:\n%s\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if _, err := os.Lstat(filepath.Join(open, ".ringfence-quarantine")); err == nil {
		t.Error("something was quarantined in another's directory")
	}
	if strings.Contains(r.Stderr, "private") || strings.Contains(r.Stderr, "secretly") || strings.Contains(r.Stderr, "post-commit") {
		t.Errorf("the caller was told of another's files: %s", r.Stderr)
	}
	if ev := b.run(t, "events", "-o", "json"); strings.Contains(ev.Stdout, "secretly") || strings.Contains(ev.Stdout, "post-commit") {
		t.Error("the events tell of another's files")
	}
	// Control: in the owner's own run the same is found and made harmless.
	for _, p := range paths {
		need(t, os.Remove(p))
	}
	repository(t, open, alice)
	repository(t, private, alice)
	r = during(a, func() { changes(t, open, alice) })
	if _, err := os.Lstat(filepath.Join(open, ".git/hooks/post-commit")); err == nil || !strings.Contains(r.Stderr, "post-commit") {
		t.Errorf("control: the owner's own run: %s", r.Stderr)
	}
}

// rootsFiles: the same with what makes a machine work. The profile takes no
// note of what was there before the run.
func rootsFiles(t *testing.T, b *peer) {
	dir := filepath.Join(b.n.Dir, "system")
	need(t, os.Mkdir(dir, 0o755))
	var paths []string
	for name, mode := range map[string]uint32{"su": 0o4755, "wall": 0o2755, "odd": 0o4777} {
		paths = append(paths, filepath.Join(dir, name))
		need(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o755))
		need(t, unix.Chmod(filepath.Join(dir, name), mode))
	}
	null := filepath.Join(dir, "null")
	need(t, unix.Mknod(null, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	need(t, unix.Chmod(null, 0o666))
	paths = append(paths, null)
	text, err := os.ReadFile(filepath.Join(node.Root(), "profiles", "coding.yaml"))
	need(t, err)
	profile := filepath.Join(b.ws, "forgetful.yaml")
	need(t, os.WriteFile(profile, []byte(strings.Replace(string(text), "protect: true", "protect: false", 1)), 0o644))
	before := identities(t, paths)
	if r := b.run(t, "run", "--profile", profile, "--workspace", dir, "--", "true"); r.Code != 0 || r.Stderr != "" {
		t.Errorf("%+v", r)
	}
	if after := identities(t, paths); !slices.Equal(before, after) {
		t.Errorf("root's files were changed by a member's run:\n%s\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	// Control: in root's own run they count as what it left.
	if r := b.n.CLI(t, "run", "--profile", profile, "--workspace", dir, "--", "true"); r.Code != 0 || !strings.Contains(r.Stderr, "su: ") {
		t.Errorf("control: %+v", r)
	}
	if after := identities(t, paths); slices.Equal(before, after) {
		t.Error("control: nothing was done")
	}
}

// bareRequests speak HTTP to the socket: what the tool would never ask.
func bareRequests(t *testing.T, a, b *peer, id string) {
	for _, c := range []struct {
		name, request string
		status        int
		recorded      string // path of the record, "" for none
	}{
		{"an identity that is root's", launchRequest(`{"argv":["id"],"profile":{"name":"coding"},"identity":{"uid":0,"gid":0}}`), 403, "/v1/sandboxes"},
		{"an identity that is alice's", launchRequest(fmt.Sprintf(`{"argv":["id"],"profile":{"name":"coding"},"identity":{"uid":%d,"gid":%d}}`, alice, alice)), 403, "/v1/sandboxes"},
		{"a scope of others", launchRequest(`{"argv":["id"],"scope":"org:acme/team:x/agent:y"}`), 403, "/v1/sandboxes"},
		{"the scope of alice's sandbox", launchRequest(`{"argv":["id"],"scope":"org:local/team:default/agent:sh/sandbox:` + id + `"}`), 400, ""},
		{"an exec with the name encoded", post("/v1/sandboxes/%61lices/exec", `{"argv":["id"]}`), 403, "/v1/sandboxes/alices/exec"},
		{"a log by HEAD", "HEAD /v1/sandboxes/alices/log HTTP/1.1\r\nHost: x\r\n\r\n", 403, "/v1/sandboxes/alices/log"},
		{"a path with dots", post("/v1/sandboxes/x/../alices/stop", `{}`), 0, ""},
		{"a path with slashes", post("//v1//sandboxes/alices/stop", `{}`), 0, ""},
		{"an encoded slash", post("/v1/sandboxes/alices%2fstop", `{}`), 0, ""},
		{"another method", "DELETE /v1/sandboxes/alices HTTP/1.1\r\nHost: x\r\n\r\n", 0, ""},
		{"a rule for everybody", post("/v1/allow", `{"destination":"x.test:443","mode":"always","scope":"org:local"}`), 403, "/v1/allow"},
		{"a rule for alice alone", post("/v1/allow", `{"destination":"x.test:443","mode":"always","scope":"org:local/team:default/agent:sh/sandbox:`+id+`"}`), 0, ""},
		{"an owner it is not", post("/v1/allow", fmt.Sprintf(`{"destination":"x.test:443","mode":"always","scope":"org:local/team:default","onlyOwner":%d}`, alice)), 0, ""},
		{"policy of the node", "GET /v1/policy HTTP/1.1\r\nHost: x\r\n\r\n", 403, "/v1/policy"},
		{"policy of alice's", "GET /v1/policy?sandbox=alices HTTP/1.1\r\nHost: x\r\n\r\n", 403, "/v1/policy"},
		{"alice's sandbox itself", "GET /v1/sandboxes/alices HTTP/1.1\r\nHost: x\r\n\r\n", 403, "/v1/sandboxes/alices"},
		{"no HTTP", "\x00\x01\x02\x03 hello\r\n\r\n", 400, ""},
		{"a header without end", "GET /v1/sandboxes HTTP/1.1\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", 431, ""},
		{"two lengths", "POST /v1/allow HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\n{}", 400, ""},
		{"a body that is too long", "POST /v1/allow HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n{" + strings.Repeat(" ", 1<<21), 0, ""},
	} {
		began := time.Now()
		status, text := b.ask(t, c.request)
		if status != c.status && c.status != 0 || status >= 200 && status < 300 || status >= 500 {
			t.Errorf("%s: %d, want %d: %s", c.name, status, c.status, text)
		}
		if c.recorded != "" {
			b.recorded(t, began, strings.Fields(c.request)[0], c.recorded)
		}
	}
	if r := a.n.CLI(t, "policy", "show"); strings.Contains(r.Stdout, "x.test") && !strings.Contains(r.Stdout, id) {
		t.Errorf("a rule of bob's is in force: %s", r.Stdout)
	}
}

func post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

func launchRequest(body string) string {
	return strings.Replace(post("/v1/sandboxes", body), "Host: x\r\n", "Host: x\r\nConnection: Upgrade\r\nUpgrade: ringfence-fds\r\n", 1)
}

// ask sends bytes and reads the status of the answer, 0 when the connection
// ended without one.
func (p *peer) ask(t *testing.T, request string) (status int, text string) {
	t.Helper()
	c := p.dial(t)
	defer c.Close()
	need(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	go func() { _, _ = io.WriteString(c, request) }() // it may be refused half-way
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // it may end early
	return resp.StatusCode, string(b)
}

// dial connects as the peer: a process of its uid makes the connection and
// lends it. It lives as long as the test, for the daemon may look at it.
func (p *peer) dial(t *testing.T) *net.UnixConn {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	need(t, err)
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "lend")
	cmd := p.as(exec.CommandContext(t.Context(), p.lender, "lend", p.n.Socket))
	cmd.ExtraFiles, cmd.Stderr = []*os.File{theirs}, os.Stderr
	_, err = cmd.StdinPipe() // closed by Wait
	need(t, err)
	need(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // it was killed
	need(t, theirs.Close())
	oob := make([]byte, unix.CmsgSpace(4))
	_, oobn, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	need(t, err)
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	need(t, err)
	if len(msgs) != 1 {
		t.Fatal("nothing was lent")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	need(t, err)
	f := os.NewFile(uintptr(fds[0]), "api")
	defer f.Close()
	c, err := net.FileConn(f)
	need(t, err)
	return c.(*net.UnixConn)
}

// hostileFiles: what a launch may not bring. Nothing of it stays open.
func hostileFiles(t *testing.T, b *peer) {
	secret := filepath.Join(b.n.Dir, "secret")
	need(t, os.WriteFile(secret, nil, 0o600))
	mem, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	need(t, err)
	defer mem.Close()
	dir, err := os.Open("/")
	need(t, err)
	defer dir.Close()
	a, peerEnd, err := os.Pipe()
	need(t, err)
	defer a.Close()
	defer peerEnd.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	need(t, err)
	defer tcp.Close()
	sock, err := tcp.(*net.TCPListener).File()
	need(t, err)
	defer sock.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	need(t, err)
	status := os.NewFile(uintptr(pair[0]), "status")
	defer status.Close()
	defer unix.Close(pair[1])
	good, err := os.OpenFile(b.ws, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	need(t, err)
	defer good.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	need(t, err)
	defer null.Close()

	before := node.FDs(t, b.n.PID())
	all := []*os.File{good, null, null, null, status}
	with := func(i int, f *os.File) []*os.File {
		out := slices.Clone(all)
		out[i] = f
		return out
	}
	many := slices.Repeat([]*os.File{null}, 200)
	for name, c := range map[string]struct {
		mask  byte
		count uint16
		files []*os.File
	}{
		"memory as input":                   {31, 5, with(1, mem)},
		"a directory as output":             {31, 5, with(2, dir)},
		"a socket as output":                {31, 5, with(3, sock)},
		"a workspace that is no O_PATH":     {31, 5, with(0, dir)},
		"a workspace that is a pipe":        {31, 5, with(0, a)},
		"a status socket that is a pipe":    {31, 5, with(4, a)},
		"a status socket that is TCP":       {31, 5, with(4, sock)},
		"fewer than announced":              {31, 5, all[:3]},
		"more than announced":               {1, 1, all},
		"two hundred":                       {31, 5, many},
		"an unknown bit":                    {255, 5, all},
		"no status socket":                  {15, 4, all[:4]},
		"the daemon's own socket as status": {31, 5, with(4, b.apiSocket(t))},
	} {
		for range 3 {
			if text := b.launchWith(t, c.mask, c.count, c.files); !strings.Contains(text, `"failed"`) && text != "" {
				t.Errorf("%s: %s", name, text)
			}
		}
	}
	eventually(t, "the daemon closes what it was sent", func() bool { return node.FDs(t, b.n.PID()) <= before })
	// Control: the same with what a launch brings.
	if text := b.launchWith(t, 31, 5, all); !strings.Contains(text, `"established"`) {
		t.Errorf("control: %s", text)
	}
}

// apiSocket is a connection to the API.
func (p *peer) apiSocket(t *testing.T) *os.File {
	t.Helper()
	c := p.dial(t)
	defer c.Close()
	f, err := c.File()
	need(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// launchWith asks for a launch and sends a descriptor message of its own. It
// returns the first frame of the answer.
func (p *peer) launchWith(t *testing.T, mask byte, count uint16, files []*os.File) string {
	t.Helper()
	c := p.dial(t)
	defer c.Close()
	need(t, c.SetDeadline(time.Now().Add(30*time.Second)))
	body, err := json.Marshal(map[string]any{"argv": []string{"true"}, "profile": map[string]string{"name": "coding"}, "workspacePath": p.ws})
	need(t, err)
	_, err = io.WriteString(c, launchRequest(string(body)))
	need(t, err)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	need(t, err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		t.Fatalf("the launch was not admitted: %d %s", resp.StatusCode, b)
	}
	head := append([]byte("RFFD\x01"), mask)
	head = binary.BigEndian.AppendUint16(head, count)
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	_, _, err = c.WriteMsgUnix(head, unix.UnixRights(fds...), nil)
	need(t, err)
	line, _ := r.ReadString('\n') // it may end without a word
	return line
}
