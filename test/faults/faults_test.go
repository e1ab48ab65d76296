// SPDX-License-Identifier: Apache-2.0

// Package faults kills, starves and lies to a real daemon on a real kernel,
// and demands that nothing passes policy, that nothing acknowledged is lost,
// and that service comes back.
package faults

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/env"
	"github.com/ringfence/ringfence/test/node"
)

// soon bounds every wait for something that takes milliseconds on a quiet
// machine.
const soon = 60 * time.Second

// world is what a sandbox can try to reach: doubles on loopback behind names,
// and one server that records and that nothing may reach.
type world struct {
	echo     *doubles.Echo   // echo.example, its port is allowed
	web      *doubles.Server // web.example, GET is allowed
	forbid   *doubles.Echo   // no rule allows its port, on any name or address
	own      netip.Addr      // an address of this machine that is not loopback
	gets     atomic.Int64
	posts    atomic.Int64
	probed   int // connections to forbid that the test itself made
	echoPort int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{own: ownAddress(t)}
	var err error
	if w.echo, err = doubles.NewEcho(nil); err != nil {
		t.Fatal(err)
	}
	all, err := net.Listen("tcp", ":0") //nolint:gosec // it must be reachable under every address of the machine
	if err != nil {
		t.Fatal(err)
	}
	if w.forbid, err = doubles.NewEcho(all); err != nil {
		t.Fatal(err)
	}
	w.web, err = doubles.Serve(nil, http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodGet {
			w.gets.Add(1)
		} else {
			w.posts.Add(1)
		}
		_, _ = fmt.Fprintln(rw, "web")
	}))
	if err != nil {
		t.Fatal(err)
	}
	w.echoPort = port(w.echo.Addr())
	t.Cleanup(func() {
		for _, c := range []interface{ Close() error }{w.echo, w.web, w.forbid} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	w.control(t)
	return w
}

// control shows that outside a sandbox the forbidden server is there.
func (w *world) control(t *testing.T) {
	t.Helper()
	for _, host := range []string{"127.0.0.1", w.own.String()} {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(host, fmt.Sprint(port(w.forbid.Addr()))), soon)
		if err != nil {
			t.Fatalf("control: %v", err)
		}
		c.Close()
		w.probed++
	}
	eventually(t, "the control connections are counted", func() bool { return w.forbid.Count() == w.probed })
}

func port(a net.Addr) int { return a.(*net.TCPAddr).Port }

// ownAddress is an address of this machine that sandboxes could dial.
func ownAddress(t *testing.T) netip.Addr {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr()
		}
	}
	return netip.MustParseAddr("127.0.0.1") // inside a sandbox this is its own loopback
}

func (w *world) config() string {
	return "gateway:\n  hosts:\n    echo.example: [127.0.0.1]\n    web.example: [127.0.0.1]\n    evil.example: [127.0.0.1]\n"
}

func (w *world) policy() string {
	return fmt.Sprintf(`apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: world}
scope: org:local
egress:
  - {id: echo, allow: "echo.example:%d", resolvesTo: [127.0.0.1/32]}
  - {id: web, allow: "web.example:%d", resolvesTo: [127.0.0.1/32], http: {methods: [GET]}}
`, w.echoPort, port(w.web.Addr))
}

func (w *world) options() node.Options {
	return node.Options{Config: w.config(), Policies: map[string]string{"world.yaml": w.policy()}}
}

// allowed and denied are what the load tries.
func (w *world) allowed() []string {
	return []string{
		fmt.Sprintf("echo:echo:echo.example:%d", w.echoPort),
		fmt.Sprintf("get:web:http://web.example:%d/", port(w.web.Addr)),
		"llm:llm:https://api.openai.com",
	}
}

// deniedKinds are the names of the attempts of denied.
var deniedKinds = []string{"literal", "port", "post", "name", "v6"}

func (w *world) denied() []string {
	p := port(w.forbid.Addr())
	return []string{
		fmt.Sprintf("tcp:literal:%s:%d", w.own, p),
		fmt.Sprintf("tcp:port:echo.example:%d", p),
		fmt.Sprintf("post:post:http://web.example:%d/", port(w.web.Addr)),
		"dns:name:evil.example",
		fmt.Sprintf("tcp:v6:[2001:db8::1]:%d", p),
	}
}

// nothingPassed fails the test if anything went past policy.
func (w *world) nothingPassed(t *testing.T, l *load) {
	t.Helper()
	c := l.counts(t)
	for _, k := range deniedKinds {
		if _, tried := c[k]; !tried {
			continue
		}
		if c[k].OK != 0 || c[k].Fail == 0 {
			t.Errorf("%s: %d attempts succeeded, %d were refused", k, c[k].OK, c[k].Fail)
		}
	}
	if n := w.forbid.Count(); n != w.probed && w.own.String() != "127.0.0.1" {
		t.Errorf("the forbidden server saw %d connections", n-w.probed)
	}
	if n := w.posts.Load(); n != 0 {
		t.Errorf("the web server saw %d requests that policy refuses", n)
	}
}

// count is what the load knows about one kind of attempt; see testdata/load.
type count struct {
	OK, Fail         int64
	LastOK, LastFail time.Time
	MaxGap           time.Duration
	Last             string
}

// load is a running load in a detached sandbox.
type load struct {
	n    *node.Node
	name string
	file string
	ws   string
}

var buildLoad = sync.OnceValues(func() (string, error) {
	if p := env.Built("load"); p != "" {
		return p, nil
	}
	bin := filepath.Join(os.TempDir(), fmt.Sprintf("ringfence-load-%d", os.Getpid()))
	cmd := exec.Command("go", "build", "-o", bin, "./testdata/load")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the load: %w\n%s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, err := buildLoad(); err == nil && env.Tree() == "" {
		_ = os.Remove(bin)
	}
	os.Exit(code)
}

// workspace holds the load program.
func workspace(t *testing.T, n *node.Node) string {
	t.Helper()
	bin, err := buildLoad()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	ws := n.Workspace(t)
	if err := os.WriteFile(filepath.Join(ws, "load"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	return ws
}

// startLoad runs attempts in a sandbox of their own.
func startLoad(t *testing.T, n *node.Node, name string, attempts ...string) *load {
	t.Helper()
	ws := workspace(t, n)
	l := &load{n: n, name: name, ws: ws, file: filepath.Join(ws, "counts")}
	args := append([]string{"run", "--profile", "coding", "--detach", "--name", name, "--", "./load", "counts"}, attempts...)
	if r := n.CLIIn(t, ws, args...); r.Code != 0 {
		t.Fatalf("start the load: %d %s", r.Code, r.Stderr)
	}
	return l
}

func (l *load) counts(t *testing.T) map[string]count {
	t.Helper()
	var out map[string]count
	eventually(t, "the load writes its counts", func() bool {
		b, err := os.ReadFile(l.file)
		return err == nil && json.Unmarshal(b, &out) == nil
	})
	return out
}

// more waits until each of the kinds succeeded n more times than in since.
func (l *load) more(t *testing.T, since map[string]count, n int64, kinds ...string) {
	t.Helper()
	deadline := time.Now().Add(env.Wait(soon))
	for {
		c := l.counts(t)
		var behind []string
		for _, k := range kinds {
			if c[k].OK < since[k].OK+n {
				behind = append(behind, fmt.Sprintf("%s: %d ok, %d failed, last: %s", k, c[k].OK-since[k].OK, c[k].Fail-since[k].Fail, c[k].Last))
			}
		}
		if len(behind) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no service: %s\nlog: %s", strings.Join(behind, "\n"), l.n.CLI(t, "logs", l.name).Stdout)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// tried waits until each denied kind was refused n more times than in since.
func (l *load) tried(t *testing.T, since map[string]count, n int64, kinds ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d more attempts of %v", n, kinds), func() bool {
		c := l.counts(t)
		for _, k := range kinds {
			if c[k].OK+c[k].Fail < since[k].OK+since[k].Fail+n {
				return false
			}
		}
		return true
	})
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(env.Wait(soon)); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
