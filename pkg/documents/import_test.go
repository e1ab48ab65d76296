// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/store"
)

func TestImport(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	st := openStore(t, filepath.Join(dir, "store"))
	defer st.Close() //nolint:errcheck // only read from here on
	var log bytes.Buffer
	run := func() []string {
		t.Helper()
		if err := Import(context.Background(), dir, st, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
			t.Fatal(err)
		}
		docs, err := st.Documents(context.Background(), 0)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, d := range docs {
			if d.Owner != store.OwnerAPI {
				t.Errorf("%+v", d.Key)
			}
			names = append(names, d.File+" "+d.Name)
		}
		if left, err := filepath.Glob(filepath.Join(dir, "*.yaml")); err != nil || len(left) > 0 {
			t.Errorf("%v, %v", left, err)
		}
		return names
	}
	if names := run(); len(names) != 0 {
		t.Errorf("%v", names)
	}
	if err := numbersIn(dir).write(41); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"applied-policy-one.yaml": "# by uid 0\n" + hostOf("one", "one"), "allow-x-1234.yaml": hostOf("allow-x", "x"),
		"hand.yaml": hostOf("two", "two") + "---\n" + strings.Replace(hostOf("two", "three"), "org:local", "org:acme", 1)}
	for name, text := range files {
		write(name, text, 0o600)
	}
	write("anybody.yaml", hostOf("anybody", "anybody"), 0o666)
	write("broken.yaml", "kind: [", 0o600)
	want := []string{"allow-x-1234.yaml allow-x", "applied-policy-one.yaml one", "applied-policy-two-2.yaml two", "applied-policy-two.yaml two"}
	for range 2 { // the second time nothing is to be done
		if names := run(); !slices.Equal(names, want) {
			t.Errorf("%v", names)
		}
		for name, text := range files {
			write(name, text, 0o600)
		}
	}
	if said := log.String(); !strings.Contains(said, "anybody.yaml") || !strings.Contains(said, "broken.yaml") {
		t.Errorf("%s", said)
	}
	// Somebody went back to the version before, which changed its files.
	if err := os.Remove(filepath.Join(dir, "hand.yaml")); err != nil {
		t.Fatal(err)
	}
	write("applied-policy-one.yaml", hostOf("one", "changed"), 0o600)
	if names := run(); !slices.Equal(names, want[:2]) {
		t.Errorf("%v", names)
	}
	list, err := st.History(context.Background(), store.RevisionQuery{})
	if err != nil || len(list) != 2 || list[len(list)-1].Number != 42 || list[0].Number <= 42 {
		t.Errorf("%+v, %v", list, err)
	}
	if docs, err := st.Documents(context.Background(), 0); err != nil || !strings.Contains(docs[1].Text, "changed.example") {
		t.Errorf("%v, %v", docs, err)
	}
}
