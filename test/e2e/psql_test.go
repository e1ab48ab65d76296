// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
)

// postgres runs a private cluster on the world's private address.
func (b *workbench) postgres(t *testing.T) {
	t.Helper()
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(bins) == 0 {
		missing(t, "PostgreSQL's server (initdb)")
	}
	bin := filepath.Dir(bins[len(bins)-1])
	dir, err := os.MkdirTemp("", "rfpg")
	need(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	const nobody = 65534 // the server refuses to run as root
	need(t, os.Chown(dir, nobody, nobody))
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "HOME=" + dir}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		var out []byte
		b.w.far.do(func() { out, err = cmd.CombinedOutput() })
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	data := filepath.Join(dir, "data")
	run("initdb", "-D", data, "-A", "trust", "-U", "agent", "--no-sync")
	need(t, os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte("host all all 0.0.0.0/0 trust\n"), 0o600))
	run("pg_ctl", "-D", data, "-w", "-l", filepath.Join(dir, "log"), "-o",
		"-c listen_addresses="+privateAddr+" -c port=5432 -c unix_socket_directories='' -c fsync=off", "start")
	t.Cleanup(func() { run("pg_ctl", "-D", data, "-m", "immediate", "stop") })
}

func (b *workbench) psql(t *testing.T) {
	tool(t, "psql")
	b.postgres(t)
	query := "psql -h db.internal -U agent -d postgres -Atc 'select 6*7'"
	r := sandboxed(t, b.n, b.ws, "open", query)
	if r.Code != 0 || strings.TrimSpace(r.Stdout) != "42" {
		t.Errorf("exit %d, %q\n%s", r.Code, r.Stdout, r.Stderr)
	}
	e := b.n.WaitEvent(t, "the connection to the database", func(e *event.Event) bool {
		return e.DstName == "db.internal" && e.Kind == event.KindNetwork && e.Verdict == event.Allowed
	})
	if e.PeerAddr != privateAddr+":5432" || e.Rule != "open/db" {
		t.Errorf("event %+v", e)
	}
	if r := sandboxed(t, b.n, b.ws, "default", query); r.Code == 0 {
		t.Errorf("no rule: exit 0, %q", r.Stdout)
	}
	// The name alone does not open a private address.
	if r := sandboxed(t, b.n, b.ws, "public", query); r.Code == 0 {
		t.Errorf("without resolvesTo: exit 0, %q", r.Stdout)
	}
	b.n.WaitEvent(t, "the refused private address", func(e *event.Event) bool {
		return e.DstName == "db.internal" && e.Verdict == event.Denied && strings.Contains(e.ReasonCode+e.Reason, "private")
	})
	// Nor does the address itself.
	if r := sandboxed(t, b.n, b.ws, "open", "psql -h "+privateAddr+" -U agent -d postgres -Atc 'select 1'"); r.Code == 0 {
		t.Errorf("literal address: exit 0, %q", r.Stdout)
	}
	// A command opens it, when it says which addresses.
	for _, more := range []struct {
		flags []string
		works bool
	}{{nil, false}, {[]string{"--resolves-to", "10.99.0.0/16"}, false}, {[]string{"--resolves-to", "10.20.0.0/16"}, true}} {
		if r := b.n.CLI(t, append([]string{"allow", "db.internal:5432", "--scope", "org:local/team:default", "--for", "10m"}, more.flags...)...); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
		if r := sandboxed(t, b.n, b.ws, "default", query); (r.Code == 0) != more.works {
			t.Errorf("allow %v: exit %d, %s", more.flags, r.Code, r.Stderr)
		}
	}
}
