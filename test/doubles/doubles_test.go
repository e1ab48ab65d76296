// SPDX-License-Identifier: Apache-2.0

package doubles_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/ringfence/ringfence/test/doubles"
)

func need(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("RINGFENCE_CI") == "1" {
		t.Fatal(what + " must be present in CI")
	}
	t.Skip(what + " is not installed")
}

func TestEcho(t *testing.T) {
	e, err := doubles.NewEcho(nil)
	need(t, err)
	defer e.Close()
	c, err := net.Dial("tcp", e.Addr().String())
	need(t, err)
	defer c.Close()
	_, err = c.Write([]byte("ping"))
	need(t, err)
	b := make([]byte, 4)
	_, err = io.ReadFull(c, b)
	need(t, err)
	if string(b) != "ping" || e.Count() != 1 {
		t.Fatalf("echo %q, %d connections", b, e.Count())
	}
}

func TestPageOverTLS(t *testing.T) {
	ca, err := doubles.NewCA()
	need(t, err)
	s, err := ca.Serve(nil, doubles.Page("web"), "web.example", "127.0.0.1")
	need(t, err)
	defer s.Close()
	tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: nil, DialContext: func(ctx context.Context, n, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, n, s.Addr.String())
	}}
	tr.TLSClientConfig = clientTLS(ca)
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("https://web.example/a")
	need(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	need(t, err)
	if want := "server=web method=GET path=/a host=web.example proto=HTTP/2.0 body=0\n"; string(b) != want {
		t.Fatalf("got %q", b)
	}
}

func TestDNS(t *testing.T) {
	d, err := doubles.NewDNS("", map[string][]netip.Addr{"db.internal": {netip.MustParseAddr("10.20.0.5"), netip.MustParseAddr("fd00::5")}})
	need(t, err)
	defer d.Close()
	for _, network := range []string{"udp", "tcp"} {
		c := dns.Client{Net: network, Timeout: 5 * time.Second}
		m, _, err := c.Exchange(new(dns.Msg).SetQuestion("db.internal.", dns.TypeA), d.Addr)
		need(t, err)
		if len(m.Answer) != 1 || !strings.Contains(m.Answer[0].String(), "10.20.0.5") {
			t.Fatalf("%s: %v", network, m.Answer)
		}
		m, _, err = c.Exchange(new(dns.Msg).SetQuestion("other.internal.", dns.TypeA), d.Addr)
		need(t, err)
		if m.Rcode != dns.RcodeNameError {
			t.Fatalf("%s: rcode %d", network, m.Rcode)
		}
	}
	if got := d.Asked(); len(got) != 4 || got[0] != "db.internal. A" {
		t.Fatalf("asked %q", got)
	}
}

func TestGitClone(t *testing.T) {
	g, err := doubles.NewGit(t.TempDir())
	if errors.Is(err, doubles.ErrNoGit) {
		missing(t, "git http-backend")
	}
	need(t, err)
	s, err := doubles.Serve(nil, g)
	need(t, err)
	defer s.Close()
	dst := filepath.Join(t.TempDir(), "clone")
	cmd := exec.Command("git", "clone", "-q", "http://"+s.Addr.String()+"/repo.git", dst)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GIT_TERMINAL_PROMPT=0"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dst, "README"))
	need(t, err)
	if string(b) != "from the git double\n" {
		t.Fatalf("README %q", b)
	}
}

func TestNPMInstall(t *testing.T) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		missing(t, "npm")
	}
	n := doubles.NewNPM()
	need(t, n.Add("@double/left", "1.2.3", "module.exports = 'left'", map[string]string{"right-double": "^1.0.0"}))
	need(t, n.Add("right-double", "1.0.1", "module.exports = 'right'", nil))
	s, err := doubles.Serve(nil, n)
	need(t, err)
	defer s.Close()
	dir := t.TempDir()
	need(t, os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"name":"x","version":"1.0.0"}`), 0o644))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "install", "--no-audit", "--no-fund", "--no-update-notifier", "--registry", "http://"+s.Addr.String(), "@double/left")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "node_modules", "right-double", "index.js"))
	need(t, err)
	if string(b) != "module.exports = 'right'" {
		t.Fatalf("index.js %q", b)
	}
}
func clientTLS(ca *doubles.CA) *tls.Config { return &tls.Config{RootCAs: ca.Pool()} }
