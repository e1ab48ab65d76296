// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for range 400 {
		if f() {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Errorf("never: %s", what)
}

func TestWatchSeesWhatEditorsDo(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.lib.Watch(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	r.write("a.yaml", policyOf("a", "allow", "one.example:443"))
	eventually(t, "a new file", func() bool { return r.allows("one.example") })
	if err := os.WriteFile(filepath.Join(r.dir, "a.yaml"), []byte(policyOf("a", "allow", "two.example:443")), 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a file written in place", func() bool { return r.allows("two.example") && !r.allows("one.example") })
	r.remove("a.yaml")
	eventually(t, "a removed file", func() bool { return !r.allows("two.example") })

	// The directory itself is replaced, as configuration management does.
	old := r.dir + ".old"
	if err := os.Rename(r.dir, old); err != nil {
		t.Fatal(err)
	}
	time.Sleep(150 * time.Millisecond)
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.write("b.yaml", policyOf("b", "allow", "three.example:443"))
	eventually(t, "a file in a new directory", func() bool { return r.allows("three.example") })
	r.write("b.yaml", policyOf("b", "allow", "four.example:443"))
	eventually(t, "a change in the new directory", func() bool { return r.allows("four.example") })
	if err := os.RemoveAll(old); err != nil {
		t.Fatal(err)
	}
}

func TestWatchReadsADirectoryThatIsNeverQuiet(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.lib.Watch(ctx) }()
	r.write("a.yaml", policyOf("a", "allow", "one.example:443"))
	noise := filepath.Join(r.dir, "noise")
	for range 1000 {
		if r.allows("one.example") {
			break
		}
		if err := os.WriteFile(noise, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	r.want("one.example", true)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
