// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRevisionsGrowAcrossRestarts(t *testing.T) {
	r := newRig(t)
	seen := r.lib.Snapshot().Revision()
	for i := range 5 {
		r.write("a.yaml", policyOf("a", "allow", fmt.Sprintf("h%d.example:443", i)))
		if i%2 == 0 {
			r.reopen()
		} else {
			r.reload()
		}
		if rev := r.lib.Snapshot().Revision(); rev <= seen {
			t.Errorf("revision %d after %d", rev, seen)
		} else {
			seen = rev
		}
	}
	if err := os.WriteFile(filepath.Join(r.api, ".revision"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(r.lib.o); err == nil {
		t.Error("a revision that cannot be read was taken for none: numbers would be given twice")
	}
}

// The revision must be durable before a policy is in force; what could not be
// stored is tried again.
func TestNothingComesIntoForceWithoutItsRevision(t *testing.T) {
	r := newRig(t)
	r.write("a.yaml", policyOf("a", "allow", "old.example:443"))
	r.write("gone.yaml", policyOf("gone", "allow", "gone.example:443"))
	r.reload()
	r.want("gone.example", true)
	rev := r.lib.Snapshot().Revision()
	file := filepath.Join(r.api, ".revision")
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file, 0o700); err != nil { // cannot be written, not even by root
		t.Fatal(err)
	}
	r.write("a.yaml", policyOf("a", "allow", "new.example:443"))
	if err := r.lib.Reload(); err == nil {
		t.Error("a revision that could not be stored is no error")
	}
	if err := r.lib.Put(byRoot, "b.yaml", policyOf("b", "allow", "api.example:443")); err == nil {
		t.Error("a document was acknowledged whose revision could not be stored")
	}
	if err := os.Remove(filepath.Join(r.dir, "gone.yaml")); err != nil {
		t.Fatal(err)
	}
	r.reload() // what only takes rules away waits for no disk, nor for what waits
	r.want("gone.example", false)
	rev++
	r.want("old.example", true)
	r.want("new.example", false)
	r.want("api.example", false)
	if got := r.lib.Snapshot().Revision(); got != rev {
		t.Errorf("revision %d, was %d", got, rev)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	r.reload() // without a further change of the file
	r.want("new.example", true)
	r.want("old.example", false)
	r.want("api.example", false)
}

// On a full disk a daemon starts and the policy directory counts; what the API
// would have to store is refused.
func TestAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small file system")
	}
	r := newRig(t)
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	r.api = t.TempDir()
	if err := unix.Mount("none", r.api, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(r.api, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	r.write("a.yaml", policyOf("a", "allow", "old.example:443"))
	r.reopen()
	rev := r.lib.Snapshot().Revision()
	fill := filepath.Join(r.api, "filler")
	if err := os.WriteFile(fill, make([]byte, 8<<20), 0o600); err == nil {
		t.Fatal("the file system is not small")
	}
	r.write("a.yaml", policyOf("a", "allow", "new.example:443"))
	r.reload()
	r.want("new.example", true)
	r.want("old.example", false)
	if err := r.lib.Put(byRoot, "b.yaml", policyOf("b", "allow", "api.example:443")); err == nil {
		t.Error("a document was acknowledged that could not be stored")
	}
	r.want("api.example", false)
	r.reopen()
	r.want("new.example", true)
	r.want("api.example", false)
	if got := r.lib.Snapshot().Revision(); got <= rev+1 {
		t.Errorf("revision %d after %d", got, rev+1)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	if err := r.lib.Put(byRoot, "b.yaml", policyOf("b", "allow", "api.example:443")); err != nil {
		t.Error(err)
	}
	r.want("api.example", true)
}

// A crash in the middle of a write leaves the number before it.
func TestATornRevision(t *testing.T) {
	r := newRig(t)
	for i := range 3 {
		r.write("a.yaml", policyOf("a", "allow", fmt.Sprintf("h%d.example:443", i)))
		r.reload()
	}
	rev := r.lib.Snapshot().Revision()
	whole, err := os.ReadFile(filepath.Join(r.api, ".revision"))
	if err != nil {
		t.Fatal(err)
	}
	width := len(slot(0))
	for i := range width {
		torn := []byte(string(whole))
		torn[int(rev%2)*width+i] ^= 0x15
		if err := os.WriteFile(filepath.Join(r.api, ".revision"), torn, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := numbersIn(r.api).read(); err != nil || got != rev-1 {
			t.Errorf("byte %d torn: %d, %v; want %d", i, got, err, rev-1)
		}
	}
}
