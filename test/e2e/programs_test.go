// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

const openPolicy = `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: open}
scope: org:local/team:open
egress:
  - {id: web, allow: "web.test:443", http: {methods: [GET, HEAD]}}
  - {id: pass, allow: "pass.test:443"}
  - {id: plain, allow: "web.test:80"}
  - {id: git, allow: "git.test:443", http: {methods: [GET, POST]}}
  - {id: npm, allow: "npm.test:443", http: {methods: [GET]}}
  - {id: mail, allow: "mail.test:2525"}
  - {id: db, allow: "db.internal:5432", resolvesTo: [10.20.0.0/16]}
---
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: public-only}
scope: org:local/team:public
egress:
  - {id: db, allow: "db.internal:5432"}
`

// workbench is a node with the services that everyday programs talk to.
type workbench struct {
	w   *world
	n   *node.Node
	ws  string
	npm *doubles.NPM
}

func TestEverydayPrograms(t *testing.T) {
	b := &workbench{w: newWorld(t), npm: doubles.NewNPM()}
	b.w.site(t, "web.test", doubles.Page("web"))
	b.w.site(t, "pass.test", doubles.Page("pass"))
	b.w.site(t, "npm.test", b.npm)
	need(t, b.npm.Add("@double/left", "1.2.3", "module.exports = 'left'", map[string]string{"right-double": "^1.0.0"}))
	need(t, b.npm.Add("right-double", "1.0.1", "module.exports = 'right'", nil))
	if g, err := doubles.NewGit(t.TempDir()); err == nil {
		b.w.site(t, "git.test", g)
	}
	b.mail(t)
	b.w.hosts["db.internal"] = privateAddr
	b.n = b.w.start(t, node.Options{Policies: map[string]string{"open.yaml": openPolicy}})
	b.ws = b.n.Workspace(t)

	t.Run("programs", b.programs)
	t.Run("pass-through shows the real certificate", b.passThrough)
	t.Run("git", b.git)
	t.Run("npm", b.npmInstall)
	t.Run("psql", b.psql)
	t.Run("server speaks first", b.serverFirst)
	t.Run("what a refusal says", b.refusal)
}

// mail is a server that speaks first.
func (b *workbench) mail(t *testing.T) {
	b.w.hosts["mail.test"] = b.w.address()
	b.w.answer(t, b.w.hosts["mail.test"]+":2525", func(c net.Conn) {
		_, _ = io.WriteString(c, "220 mail.test\r\n")
		discard(c)
	})
}

const javaFetch = `
import java.net.URI;
import javax.net.ssl.HttpsURLConnection;
public class Fetch {
  public static void main(String[] a) throws Exception {
    HttpsURLConnection c = (HttpsURLConnection) URI.create(a[0]).toURL().openConnection();
    System.out.println(c.getResponseCode() + " " + new String(c.getInputStream().readAllBytes()));
  }
}
`

// programs shows that each of them gets its page over a terminated connection
// without being told of any CA, in one team; and nothing in another.
func (b *workbench) programs(t *testing.T) {
	for _, c := range []struct {
		name string
		argv func(t *testing.T) string
	}{
		{"curl", func(t *testing.T) string { return tool(t, "curl") + " -sSf https://web.test/x" }},
		{"curl http2", func(t *testing.T) string { return tool(t, "curl") + " -sSf --http2 https://web.test/x" }},
		{"wget", func(t *testing.T) string { return tool(t, "wget") + " -q -O- https://web.test/x" }},
		{"openssl", func(t *testing.T) string {
			return `printf 'GET /x HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n' | ` + tool(t, "openssl") +
				` s_client -quiet -verify_return_error -connect web.test:443 -servername web.test -verify_hostname web.test`
		}},
		{"python", func(t *testing.T) string {
			return tool(t, "python3") + ` -c 'import urllib.request; print(urllib.request.urlopen("https://web.test/x").read())'`
		}},
		{"node", func(t *testing.T) string {
			return tool(t, "node") + ` -e 'fetch("https://web.test/x").then(r => { if (!r.ok) throw r.status; return r.text() }).then(console.log)'`
		}},
		{"node https", func(t *testing.T) string {
			return tool(t, "node") + ` -e 'require("https").get("https://web.test/x", r => { if (r.statusCode != 200) process.exit(1); r.pipe(process.stdout) })'`
		}},
		{"go", func(t *testing.T) string {
			return node.BuildInto(t, b.ws, "test/e2e/testdata/fetchgo") + " https://web.test/x"
		}},
		{"java", func(t *testing.T) string {
			java := tool(t, "java")
			put(t, b.ws, "Fetch.java", javaFetch)
			if out, err := exec.Command("sh", "-c", java+" --list-modules | grep jdk.compiler").CombinedOutput(); err != nil {
				missing(t, "the Java compiler: "+string(out))
			}
			return java + " Fetch.java https://web.test/x"
		}},
		{"deno", func(t *testing.T) string {
			return deno(t, b.ws) + ` eval 'const r = await fetch("https://web.test/x"); if (!r.ok) throw r.status; console.log(await r.text())'`
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := c.argv(t)
			r := sandboxed(t, b.n, b.ws, "open", cmd)
			if r.Code != 0 || !strings.Contains(r.Stdout, "server=web method=GET path=/x host=web.test") {
				t.Errorf("allowed: exit %d, %q\n%s", r.Code, r.Stdout, r.Stderr)
			}
			r = sandboxed(t, b.n, b.ws, "default", cmd)
			if strings.Contains(r.Stdout, "server=web") {
				t.Errorf("refused, but got %q", r.Stdout)
			}
			if r.Code == 0 && c.name != "openssl" { // s_client shows the 403 and is content
				t.Errorf("refused, but exit 0: %q %s", r.Stdout, r.Stderr)
			}
			contains(t, "the end of the run", r.Stderr, "ringfence allow web.test:443")
		})
	}
}

// deno finds Deno, or installs its npm package into the workspace.
func deno(t *testing.T, ws string) string {
	t.Helper()
	for _, p := range []string{"/usr/local/bin/deno", "/usr/bin/deno"} {
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			return p
		}
	}
	npm := tool(t, "npm")
	dir := filepath.Join(ws, "deno")
	put(t, dir, "package.json", `{"name":"deno-here","private":true}`)
	cmd := exec.Command(npm, "install", "--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline",
		"--fetch-retries=0", "--fetch-timeout=20000", "deno@2.9.6")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		missing(t, "deno, and npm does not get it: "+string(out))
	}
	bins, _ := filepath.Glob(filepath.Join(dir, "node_modules/@deno/linux-*-glibc/deno"))
	if len(bins) != 1 {
		missing(t, "deno for this machine")
	}
	return bins[0]
}

// passThrough shows that without HTTP rules nobody is in between: the client
// meets the server's own certificate.
func (b *workbench) passThrough(t *testing.T) {
	put(t, b.ws, "server-ca.pem", string(b.w.ca.PEM()))
	r := sandboxed(t, b.n, b.ws, "open", "curl -sS --cacert server-ca.pem https://pass.test/y; curl -sS https://pass.test/y; echo code=$?")
	contains(t, "pass-through", r.Stdout, "server=pass method=GET path=/y", "proto=HTTP/2.0", "code=60")
	r = sandboxed(t, b.n, b.ws, "default", "curl -sS --cacert server-ca.pem https://pass.test/y")
	if r.Code == 0 || strings.Contains(r.Stdout, "server=pass") {
		t.Errorf("refused, but exit %d: %s", r.Code, r.Stdout)
	}
	e := b.n.WaitEvent(t, "the relay", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.DstName == "pass.test" && e.Verdict == event.Allowed && e.Activity == "close"
	})
	if e.BytesIn == 0 || e.BytesOut == 0 || !strings.HasPrefix(e.PeerAddr, publicBase) || e.Rule != "open/pass" {
		t.Errorf("event %+v", e)
	}
}

func (b *workbench) git(t *testing.T) {
	tool(t, "git")
	if b.w.hosts["git.test"] == "" {
		missing(t, "git http-backend")
	}
	r := sandboxed(t, b.n, b.ws, "open", "git clone -q https://git.test/repo.git clone && cat clone/README && git -C clone log --oneline | wc -l")
	if r.Code != 0 || r.Stdout != "from the git double\n2\n" {
		t.Errorf("clone: exit %d, %q\n%s", r.Code, r.Stdout, r.Stderr)
	}
	r = sandboxed(t, b.n, b.ws, "default", "git clone -q https://git.test/repo.git refused")
	if r.Code == 0 || !strings.Contains(r.Stderr, "403") {
		t.Errorf("refused clone: exit %d, %s", r.Code, r.Stderr)
	}
	if _, err := os.Stat(filepath.Join(b.ws, "refused", "README")); err == nil {
		t.Error("the refused clone is there")
	}
}

func (b *workbench) npmInstall(t *testing.T) {
	tool(t, "npm")
	install := "mkdir -p %[1]s && cd %[1]s && echo '{\"name\":\"x\",\"version\":\"1.0.0\"}' > package.json && " +
		"npm install --no-audit --no-fund --no-update-notifier --fetch-retries=0 --registry https://npm.test @double/left && node -p 'require(\"right-double\")'"
	r := sandboxed(t, b.n, b.ws, "open", fmt.Sprintf(install, "npm-open"))
	if r.Code != 0 || !strings.HasSuffix(r.Stdout, "right\n") {
		t.Errorf("install: exit %d, %q\n%s", r.Code, r.Stdout, r.Stderr)
	}
	asked := len(b.npm.Asked())
	r = sandboxed(t, b.n, b.ws, "default", fmt.Sprintf(install, "npm-refused"))
	if r.Code == 0 || !strings.Contains(r.Stderr, "403") {
		t.Errorf("refused install: exit %d, %s", r.Code, r.Stderr)
	}
	if len(b.npm.Asked()) != asked {
		t.Error("the registry was asked")
	}
}

func (b *workbench) serverFirst(t *testing.T) {
	script := `exec 3<>/dev/tcp/mail.test/2525 && head -n1 <&3`
	r := sandboxed(t, b.n, b.ws, "open", "bash -c '"+script+"'")
	if r.Code != 0 || r.Stdout != "220 mail.test\r\n" {
		t.Errorf("exit %d, %q %s", r.Code, r.Stdout, r.Stderr)
	}
	if r = sandboxed(t, b.n, b.ws, "default", "bash -c '"+script+"'"); r.Code == 0 {
		t.Errorf("refused: exit %d, %q", r.Code, r.Stdout)
	}
}

// refusal compares the profiles: one explains, one has no such name.
func (b *workbench) refusal(t *testing.T) {
	script := "curl -s -m 10 -w '%{http_code}\\n' https://web.test/x; echo exit=$?"
	r := sandboxed(t, b.n, b.ws, "default", script)
	contains(t, "coding", r.Stdout, `"error": "no-rule"`, "agent_guidance", "ringfence allow web.test:443", "403", "exit=0")
	r = b.n.CLIIn(t, b.ws, "run", "--", "sh", "-c", script)
	contains(t, "default", r.Stdout, "exit=6")
	contains(t, "default, at the end", r.Stderr, "ringfence allow web.test:443")
}
