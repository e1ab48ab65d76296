// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/ringfence/ringfence/pkg/scope"
)

const (
	denyText = `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: deny}
scope: org:local
egress:
  - {id: no-paste, deny: "**.pastebin.com", mandatory: true}
`
	openText = `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: open}
scope: org:local
egress:
  - {id: all, allow: "**:443"}
`
)

// A file that went while no daemon ran is gone: one of its name that comes later
// with a mistake does not bring back what the former said.
func TestAFileThatWentUnseenIsForgotten(t *testing.T) {
	r := newRig(t)
	r.write("a.yaml", policyOf("a", "allow", "a.example:443"))
	r.reload()
	r.want("a.example", true)
	r.remove("a.yaml")
	r.reopen()
	r.want("a.example", false)
	r.write("a.yaml", "kind: [")
	r.reload()
	r.want("a.example", false)
	r.reopen()
	r.want("a.example", false)
}

func TestMistakeAtStartDoesNotOpenWhatTheFileDenied(t *testing.T) {
	dir := t.TempDir()
	st := openStore(t, filepath.Join(dir, "store"))
	defer st.Close() //nolint:errcheck // only read from here on
	o := Options{Dir: filepath.Join(dir, "policy"), StateDir: filepath.Join(dir, "state"), Store: st, Logger: slog.New(slog.DiscardHandler)}
	file := filepath.Join(o.Dir, "deny.yaml")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(file, denyText)
	write(filepath.Join(o.Dir, "open.yaml"), openText)
	p, err := scope.ParsePrincipal("org:local/team:default/agent:x")
	if err != nil {
		t.Fatal(err)
	}
	denied := func(l *Library) bool { return !l.Snapshot().View(p).Egress("www.pastebin.com", 443).Allowed() }
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if !denied(l) {
		t.Fatal("the deny is not in force")
	}
	write(file, denyText+"  - {id: broken, alow: \"x:1\"}\n")
	if l, err = Open(o); err != nil {
		t.Fatal(err)
	}
	if !denied(l) || len(l.Problems()) == 0 {
		t.Errorf("after a restart with a mistake: denied %v, %d problems", denied(l), len(l.Problems()))
	}
	// Control: the file is really what denies, and removing it counts.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if l, err = Open(o); err != nil {
		t.Fatal(err)
	}
	if denied(l) {
		t.Error("a removed file is still in force")
	}
}
