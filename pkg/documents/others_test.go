// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What others can write is not policy: neither what it allows nor the absence
// of what its last good form denied.
func TestWhatOthersCanWriteIsNotPolicy(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("RINGFENCE_CI") != "" {
			t.Fatal("gives files away, which needs root, and CI has it")
		}
		t.Skip("needs root: gives files away")
	}
	file := func(r *rig) string { return filepath.Join(r.dir, "deny.yaml") }
	for _, c := range []struct {
		name        string
		spoil, mend func(r *rig) error
	}{
		{"everybody may write the file", func(r *rig) error { return os.Chmod(file(r), 0o666) }, func(r *rig) error { return os.Chmod(file(r), 0o644) }},
		{"the file is somebody's", func(r *rig) error { return os.Chown(file(r), 1234, 0) }, func(r *rig) error { return os.Chown(file(r), 0, 0) }},
		{"everybody may write the directory", func(r *rig) error { return os.Chmod(r.dir, 0o777) }, func(r *rig) error { return os.Chmod(r.dir, 0o755) }},
		{"the directory is somebody's", func(r *rig) error { return os.Chown(r.dir, 1234, 0) }, func(r *rig) error { return os.Chown(r.dir, 0, 0) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.write("open.yaml", openText)
			r.write("deny.yaml", denyText)
			r.reload()
			r.want("www.pastebin.com", false)
			r.want("free.example", true)
			if err := c.spoil(r); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(c.name, "directory") { // its owner writes what he likes
				if err := os.WriteFile(file(r), []byte(strings.Replace(openText, "name: open", "name: deny", 1)), 0o644); err != nil { // keeps owner and mode
					t.Fatal(err)
				}
			} else {
				r.write("evil.yaml", policyOf("evil", "deny", "free.example"))
			}
			changes := len(r.changes)
			r.reload()
			if len(r.changes) == changes || !slices.ContainsFunc(r.changes[changes].Problems, func(m Mistake) bool { return strings.Contains(m.Error(), "others can write it") }) {
				t.Errorf("nobody is told: %+v", r.changes[changes:])
			}
			for _, step := range []func(){func() {}, r.reload, r.reopen} {
				step()
				r.want("www.pastebin.com", false)
				r.want("free.example", true)
			}
			if err := os.Remove(filepath.Join(r.dir, "evil.yaml")); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			if err := c.mend(r); err != nil {
				t.Fatal(err)
			}
			r.write("deny.yaml", denyText)
			r.reload()
			if p := r.lib.Problems(); len(p) != 0 {
				t.Errorf("mended, and %v", p)
			}
		})
	}
}
