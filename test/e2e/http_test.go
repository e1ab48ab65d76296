// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

const largeBytes = 100 << 20

// hub is a web service with everything that is hard on a proxy.
type hub struct {
	large []byte
	gone  chan string // paths of streams whose client went away
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/ws":
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				h.gone <- r.URL.Path
				return
			}
			if c.Write(r.Context(), kind, append([]byte("echo "), b...)) != nil {
				return
			}
		}
	case "/stream":
		w.Header().Set("Content-Type", "text/event-stream")
		for i := 0; ; i++ {
			_, _ = fmt.Fprintf(w, "data: tick %d\n\n", i)
			if http.NewResponseController(w).Flush() != nil {
				break
			}
			select {
			case <-r.Context().Done():
				h.gone <- r.Host
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	case "/large":
		http.ServeContent(w, r, "large", time.Time{}, strings.NewReader(string(h.large)))
	case "/upload":
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		_, _ = fmt.Fprintf(w, "got %d %x %v\n", n, sum.Sum(nil), err)
	default:
		_, _ = fmt.Fprintf(w, "%s %s %s %s\n", r.Method, r.URL.EscapedPath(), r.Host, r.Proto)
	}
}

const webPolicy = `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: web}
scope: org:local/team:web
egress:
  - {id: read, allow: "api.test:443", http: {methods: [GET, HEAD], paths: ["/", "/v1/**", "/large"]}}
  - {id: write, allow: "api.test:443", http: {methods: [POST, PUT], paths: ["/v1/items", "/upload"]}}
  - {id: secret, deny: "api.test:443", http: {paths: ["/v1/secret/**"]}, reason: "secrets stay where they are"}
  - {id: socket, allow: "api.test:443", http: {paths: ["/ws", "/stream"]}}
  - {id: raw, allow: "raw.test:443"}
`

func TestHTTP(t *testing.T) {
	w := newWorld(t)
	h := &hub{large: make([]byte, largeBytes), gone: make(chan string, 64)}
	_, _ = rand.Read(h.large)
	w.site(t, "api.test", h)
	w.site(t, "raw.test", h)
	n := w.start(t, node.Options{Policies: map[string]string{"web.yaml": webPolicy}})
	ws := n.Workspace(t)
	put(t, ws, "server-ca.pem", string(w.ca.PEM()))
	t.Run("rules", func(t *testing.T) { httpRules(t, n, ws) })
	t.Run("protocols", func(t *testing.T) { httpProtocols(t, n, ws) })
	t.Run("websocket", func(t *testing.T) { webSocket(t, n, ws, h) })
	t.Run("large bodies", func(t *testing.T) { largeBodies(t, n, ws, h) })
	t.Run("a running stream is cut", func(t *testing.T) { cutStreams(t, n, ws, h) })
}

func httpRules(t *testing.T, n *node.Node, ws string) {
	for _, c := range []struct {
		method, path string
		status       string
	}{
		{"GET", "/", "200"},
		{"HEAD", "/", "200"},
		{"GET", "/v1/items", "200"},
		{"GET", "/v1/items/7?q=secret", "200"},
		{"POST", "/v1/items", "200"},
		{"PUT", "/v1/items", "200"},
		{"POST", "/v1/items/7", "403"},
		{"DELETE", "/v1/items", "403"},
		{"PATCH", "/v1/items", "403"},
		{"GET", "/v2/items", "403"},
		{"GET", "/v1/secret/key", "403"},
		{"GET", "/v1/items/../secret/key", "403"},
		{"GET", "/v1/%2e%2e/admin", "403"},
		{"GET", "/v1//secret/key", "403"},
		{"GET", "/v1/secre%74/key", "403"},
		{"POST", "/", "403"},
		{"PROPFIND", "/v1/items", "403"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			flags := "-X " + c.method
			if c.method == "HEAD" {
				flags = "-I"
			}
			r := sandboxed(t, n, ws, "web", "curl -sS --path-as-is "+flags+" -w 'status=%{http_code}\\n' 'https://api.test"+c.path+"'")
			contains(t, "curl", r.Stdout, "status="+c.status)
			if c.status == "403" && (c.method == "HEAD" || !strings.Contains(r.Stdout, "agent_guidance")) {
				t.Errorf("the refusal does not say why: %s", r.Stdout)
			}
		})
	}
	e := n.WaitEvent(t, "the refused secret", func(e *event.Event) bool {
		return e.Kind == event.KindHTTP && e.Verdict == event.Denied && e.Rule == "web/secret"
	})
	if e.Reason != "secrets stay where they are" || !strings.Contains(e.RuleAt, "web.yaml:8") || e.Method != "GET" || e.Status != 403 {
		t.Errorf("event %+v", e)
	}
	e = n.WaitEvent(t, "the allowed request", func(e *event.Event) bool {
		return e.Kind == event.KindHTTP && e.URL == "https://api.test/v1/items/7" && e.Method == "GET"
	})
	if e.Verdict != event.Allowed || e.Status != 200 || strings.Contains(e.URL, "secret") || e.Rule != "web/read" {
		t.Errorf("event %+v", e)
	}
}

func httpProtocols(t *testing.T, n *node.Node, ws string) {
	r := sandboxed(t, n, ws, "web", `
		curl -sS --http2 -w 'v=%{http_version}\n' https://api.test/
		curl -sS --http1.1 -w 'v=%{http_version}\n' https://api.test/
		curl -sS --http2 -w '%{num_connects}\n' -o /dev/null https://api.test/ -o /dev/null https://api.test/v1/items | tr '\n' ' '
		curl -sS -H 'Host: other.test' -w 'fronting=%{http_code}\n' -o /dev/null https://api.test/
		curl -sS --http1.1 -H 'X-HTTP-Method-Override: DELETE' -w 'override=%{http_code}\n' -o /dev/null https://api.test/`)
	contains(t, "protocols", r.Stdout, "HTTP/2.0\nv=2\n", "v=1.1\n", "1 0 ", "fronting=421", "override=403")
}

// webSocket opens one through a terminated and one through a passed connection.
func webSocket(t *testing.T, n *node.Node, ws string, h *hub) {
	bin := node.BuildInto(t, ws, "test/e2e/testdata/wsgo")
	r := sandboxed(t, n, ws, "web", bin+" wss://api.test/ws hello && "+bin+" wss://api.test/v1/ws hello; echo code=$?")
	contains(t, "terminated", r.Stdout, "echo hello\n", "code=1")
	r = sandboxed(t, n, ws, "web", "SSL_CERT_FILE=server-ca.pem "+bin+" wss://raw.test/ws hello")
	contains(t, "passed through", r.Stdout, "echo hello\n")
	n.WaitEvent(t, "the open WebSocket", func(e *event.Event) bool {
		return e.Kind == event.KindHTTP && e.Verdict == event.Allowed && e.Status == 101 && strings.HasSuffix(e.URL, "/ws")
	})
	for len(h.gone) > 0 {
		<-h.gone
	}
}

func largeBodies(t *testing.T, n *node.Node, ws string, h *hub) {
	want := sha256.Sum256(h.large)
	sum := hex.EncodeToString(want[:])
	need(t, os.WriteFile(filepath.Join(ws, "large"), h.large, 0o644))
	defer os.Remove(filepath.Join(ws, "large"))
	for _, c := range []struct{ name, host, flags string }{
		{"terminated http/1.1", "api.test", "--http1.1"},
		{"terminated http/2", "api.test", "--http2"},
		{"passed through", "raw.test", "--cacert server-ca.pem"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := sandboxed(t, n, ws, "web", "curl -sS "+c.flags+" https://"+c.host+"/large | sha256sum")
			contains(t, "download", r.Stdout, sum)
			r = sandboxed(t, n, ws, "web", "curl -sS "+c.flags+" -X POST -T large https://"+c.host+"/upload")
			contains(t, "upload", r.Stdout, fmt.Sprintf("got %d %s <nil>", largeBytes, sum))
		})
	}
	e := n.WaitEvent(t, "the upload", func(e *event.Event) bool {
		return e.Kind == event.KindHTTP && e.Method == "POST" && strings.HasSuffix(e.URL, "/upload")
	})
	if e.BytesOut < largeBytes {
		t.Errorf("the event counts %d bytes out", e.BytesOut)
	}
}

// cutStreams takes a rule away while its flows run: they end at once, and the
// far side notices.
func cutStreams(t *testing.T, n *node.Node, ws string, h *hub) {
	bin := node.BuildInto(t, ws, "test/e2e/testdata/wsgo")
	for _, c := range []struct{ name, cmd, gone string }{
		{"terminated", "curl -sSN https://api.test/stream", "api.test"},
		{"terminated http/1.1", "curl -sSN --http1.1 https://api.test/stream", "api.test"},
		{"passed through", "curl -sSN --cacert server-ca.pem https://raw.test/stream", "raw.test"},
		{"websocket", bin + " wss://api.test/ws tick wait", "/ws"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n.WritePolicy(t, "web.yaml", webPolicy)
			for len(h.gone) > 0 {
				<-h.gone
			}
			eventually(t, "the policy is back", func() bool { return sandboxed(t, n, ws, "web", "curl -sSf https://api.test/").Code == 0 })
			seq := lastSequence(t, n)
			cmd := n.Command(t.Context(), "run", "--quiet", "--profile", "coding", "-T", "--as", "org:local/team:web", "--", "sh", "-c", c.cmd)
			cmd.Dir = ws
			out, err := cmd.StdoutPipe()
			need(t, err)
			var errOut strings.Builder
			cmd.Stderr = &errOut
			need(t, cmd.Start())
			lines := bufio.NewScanner(out)
			for i := 0; i < 3 && lines.Scan(); i++ {
			}
			need(t, os.Remove(filepath.Join(n.PolicyDir, "web.yaml")))
			began := time.Now()
			for lines.Scan() {
			}
			if err := cmd.Wait(); err == nil {
				t.Errorf("the client ended content: %s", errOut.String())
			}
			select {
			case who := <-h.gone:
				if who != c.gone {
					t.Errorf("%s ended", who)
				}
			case <-time.After(20 * time.Second):
				t.Error("the far side still holds the stream")
			}
			t.Logf("cut %v after the rule was removed", time.Since(began).Round(time.Millisecond))
			n.WaitEvent(t, "the cut", func(e *event.Event) bool {
				return e.Sequence > seq && e.Verdict == event.Denied && e.ReasonCode == "revoked" && (e.DstName == "api.test" || e.DstName == "raw.test")
			})
		})
	}
}

func lastSequence(t *testing.T, n *node.Node) (seq uint64) {
	t.Helper()
	for _, e := range n.Events(t) {
		seq = max(seq, e.Sequence)
	}
	return seq
}
