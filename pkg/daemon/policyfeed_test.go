// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/event"
)

// TestPolicyEvents edits files and reads what the log would say.
func TestPolicyEvents(t *testing.T) {
	const good = "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: NAME}\nscope: org:local\negress:\n  - {id: a, allow: \"a.test:443\"}\n"
	dir := t.TempDir()
	var changes []documents.Change
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "NAME", strings.TrimSuffix(name, ".yaml"))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.yaml", good)
	lib, err := documents.Open(documents.Options{Dir: dir, StateDir: t.TempDir(), Store: newStore(t), Logger: slog.New(slog.DiscardHandler), OnChange: func(c documents.Change) { changes = append(changes, c) }})
	if err != nil {
		t.Fatal(err)
	}
	first := lib.Snapshot().Revision()
	bad := strings.Replace(good, "allow:", "alow:", 1)
	at := filepath.Join(dir, "a.yaml") + ":6:"
	for _, step := range []struct {
		name string
		do   func()
		want []string // activity, file names without .yaml, what the reason says
	}{
		{"a new one", func() { write("b.yaml", good) }, []string{"apply b policy revision "}},
		{"a typo", func() { write("a.yaml", bad) }, []string{"refuse a " + at, `unknown field "alow"`, "; its form of revision " + string(rune('0'+first)) + " stays in force"}},
		{"another while it stands", func() { write("c.yaml", good) }, []string{"apply c policy revision "}},
		{"removed while it stands", func() { _ = os.Remove(filepath.Join(dir, "b.yaml")) }, []string{"remove b removed"}},
		{"a new one with a typo", func() { write("d.yaml", bad) }, []string{"refuse d ", "; nothing of it is in force"}},
		{"all at once", func() {
			write("a.yaml", good)
			write("d.yaml", bad+" ")
			_ = os.Remove(filepath.Join(dir, "c.yaml"))
		}, []string{"refuse d ", "remove c ", "apply a "}},
	} {
		step.do()
		changes = nil
		if err := lib.Reload(); err != nil || len(changes) != 1 {
			t.Fatalf("%s: %v, %d changes", step.name, err, len(changes))
		}
		var got strings.Builder
		for _, e := range policyEvents(changes[0]) {
			files := strings.ReplaceAll(strings.ReplaceAll(e.Object, dir+"/", ""), ".yaml", "")
			got.WriteString(e.Activity + " " + files + " " + e.Reason + "\n")
			if (e.Verdict == event.Denied) != (e.Activity == "refuse") || e.Revision != lib.Snapshot().Revision() {
				t.Errorf("%s: %+v", step.name, e)
			}
		}
		for _, w := range step.want {
			if !strings.Contains(got.String(), w) {
				t.Errorf("%s: %q is not in\n%s", step.name, w, got.String())
			}
		}
		for _, other := range []string{"apply", "refuse", "remove"} {
			if strings.Contains(got.String(), other+" ") != strings.Contains(strings.Join(step.want, "\n"), other+" ") {
				t.Errorf("%s: %s in\n%s", step.name, other, got.String())
			}
		}
	}
}
