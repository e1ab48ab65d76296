// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"bufio"
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

	"github.com/ringfence/ringfence/test/env"
	"github.com/ringfence/ringfence/test/node"
)

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
		{"an exec with the name encoded", post("/v1/sandboxes/%61lices/exec", `{"argv":["id"]}`), 404, "/v1/sandboxes/alices/exec"},
		{"a log by HEAD", "HEAD /v1/sandboxes/alices/log HTTP/1.1\r\nHost: x\r\n\r\n", 404, "/v1/sandboxes/alices/log"},
		{"a path with dots", post("/v1/sandboxes/x/../alices/stop", `{}`), 0, ""},
		{"a path with slashes", post("//v1//sandboxes/alices/stop", `{}`), 0, ""},
		{"an encoded slash", post("/v1/sandboxes/alices%2fstop", `{}`), 0, ""},
		{"another method", "DELETE /v1/sandboxes/alices HTTP/1.1\r\nHost: x\r\n\r\n", 0, ""},
		{"a rule for everybody", post("/v1/allow", `{"destination":"x.test:443","mode":"always","scope":"org:local"}`), 403, "/v1/allow"},
		{"a rule for alice alone", post("/v1/allow", `{"destination":"x.test:443","mode":"always","scope":"org:local/team:default/agent:sh/sandbox:`+id+`"}`), 0, ""},
		{"an owner it is not", post("/v1/allow", fmt.Sprintf(`{"destination":"x.test:443","mode":"always","scope":"org:local/team:default","onlyOwner":%d}`, alice)), 0, ""},
		{"policy of the node", "GET /v1/policy HTTP/1.1\r\nHost: x\r\n\r\n", 403, "/v1/policy"},
		{"policy of alice's", "GET /v1/policy?sandbox=alices HTTP/1.1\r\nHost: x\r\n\r\n", 404, "/v1/policy"},
		{"alice's sandbox itself", "GET /v1/sandboxes/alices HTTP/1.1\r\nHost: x\r\n\r\n", 404, "/v1/sandboxes/alices"},
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
	left := 0
	for range 100 { // before the collector of garbage does it
		if left = node.FDs(t, b.n.PID()) - before; left <= 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if left > 0 {
		t.Errorf("the daemon keeps %d descriptors that it was sent", left)
	}
	// Control: the same with what a launch brings.
	if text := b.launchWith(t, 31, 5, all); !strings.Contains(text, `"established"`) {
		t.Errorf("control: %s", text)
	}
}

// drawnOut: closing what a caller passed can be made to last. It lasts for that
// caller, not for others, and not for the daemon's end.
func drawnOut(t *testing.T, b *peer) {
	for range 5 {
		one, two := unclosable(t)
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		need(t, err)
		good, err := os.OpenFile(b.ws, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		need(t, err)
		c := b.dial(t)
		need(t, c.SetDeadline(time.Now().Add(2*time.Second)))
		b.askLaunch(t, c)
		_, _, err = c.WriteMsgUnix([]byte("RFFD\x01\x1f\x00\x05"), unix.UnixRights(int(good.Fd()), one, two, int(null.Fd()), int(null.Fd())), nil)
		go unix.Close(two) //nolint:errcheck // it waits if it is the last
		go unix.Close(one) //nolint:errcheck // likewise
		need(t, err)
		_, _ = io.ReadAll(c) // nothing may come
		c.Close()
		null.Close()
		good.Close()
	}
	if r := b.n.CLI(t, "run", "--workspace", "none", "--", "true"); r.Code != 0 {
		t.Errorf("another caller: %+v", r)
	}
	began := time.Now()
	b.n.StopDaemon(t, syscall.SIGTERM) // fails when it ends with an error
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the daemon's end took %s", took)
	}
	if !strings.Contains(b.n.Log(), "did not end in time") {
		t.Error("control: nothing was drawn out")
	}
	b.n.StartDaemon(t)
}

// unclosable returns both ends of a connection. One is full and was told to
// linger: closing it waits until the other is closed.
func unclosable(t *testing.T) (full, other int) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	need(t, err)
	defer l.Close()
	full, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	need(t, err)
	need(t, unix.Connect(full, &unix.SockaddrInet4{Port: l.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}))
	c, err := l.Accept()
	need(t, err)
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	need(t, err)
	defer f.Close()
	other, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	need(t, err)
	need(t, unix.SetNonblock(full, true))
	for err = nil; err == nil; {
		_, err = unix.Write(full, make([]byte, 64<<10))
	}
	need(t, unix.SetNonblock(full, false))
	need(t, unix.SetsockoptLinger(full, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 600}))
	return full, other
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
	r := p.askLaunch(t, c)
	head := append([]byte("RFFD\x01"), mask)
	head = binary.BigEndian.AppendUint16(head, count)
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	_, _, err := c.WriteMsgUnix(head, unix.UnixRights(fds...), nil)
	need(t, err)
	line, _ := r.ReadString('}') // it may end without a word
	return line
}

// askLaunch asks for a launch up to where descriptors are expected.
func (p *peer) askLaunch(t *testing.T, c *net.UnixConn) *bufio.Reader {
	t.Helper()
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
	return r
}

// askAll is ask for an answer of any length.
func (p *peer) askAll(t *testing.T, request string) (status int, text string) {
	t.Helper()
	c := p.dial(t)
	defer c.Close()
	need(t, c.SetDeadline(time.Now().Add(time.Minute)))
	_, err := io.WriteString(c, request)
	need(t, err)
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	need(t, err)
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp.StatusCode, ""
	}
	b, err := io.ReadAll(resp.Body)
	need(t, err)
	return resp.StatusCode, string(b)
}

// following is an answer that goes on.
type following struct {
	resp *http.Response
	done chan struct{}
}

func (p *peer) follow(t *testing.T, path string) *following {
	t.Helper()
	c := p.dial(t)
	t.Cleanup(func() { _ = c.Close() })
	_, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
	need(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	need(t, err)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", path, resp.Status)
	}
	f := &following{resp: resp, done: make(chan struct{})}
	go func() { defer close(f.done); _, _ = io.Copy(io.Discard, resp.Body) }() // however it ends
	return f
}

// ends waits for the end and returns what the trailer says.
func (f *following) ends(t *testing.T) string {
	t.Helper()
	select {
	case <-f.done:
		return f.resp.Trailer.Get("Ringfence-Error")
	case <-time.After(env.Wait(30 * time.Second)):
		t.Fatal("it goes on")
		return ""
	}
}

func (f *following) ended() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}
