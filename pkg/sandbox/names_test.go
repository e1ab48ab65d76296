// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func openNames(t *testing.T, path string) *Names {
	t.Helper()
	n, err := OpenNames(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func allocate(t *testing.T, n *Names, name string) netip.Addr {
	t.Helper()
	a, _, err := n.Allocate(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return a
}

func TestANameKeepsItsAddressAcrossKeepers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names")
	n := openNames(t, path)
	want := map[string]netip.Addr{}
	seen := map[netip.Addr]bool{}
	for i := range 50 {
		name := fmt.Sprintf("h%d.example", i)
		a := allocate(t, n, name)
		if seen[a] || !VirtualPrefix.Contains(a) || a == OwnAddr || a == RefusalAddr {
			t.Fatalf("%s got %s", name, a)
		}
		seen[a], want[name] = true, a
	}
	for round := range 3 {
		n = openNames(t, path)
		for name, a := range want {
			if got, fresh, err := n.Allocate(name); got != a || fresh || err != nil || n.Name(a) != name || !n.Has(name) {
				t.Errorf("%s: %s %v %v, was %s", name, got, fresh, err, a)
			}
		}
		name := fmt.Sprintf("later%d.example", round)
		a := allocate(t, n, name)
		if seen[a] {
			t.Errorf("%s belonged to another name", a)
		}
		seen[a], want[name] = true, a
	}
	if len(n.All()) != len(want) {
		t.Errorf("%d names, want %d", len(n.All()), len(want))
	}
}

// The keeper dies at any byte of a write.
func TestATornJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names")
	n := openNames(t, path)
	first := allocate(t, n, "first.example")
	second := allocate(t, n, "second.example")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	start := strings.IndexByte(string(whole), '\n') + 1
	for cut := start; cut < len(whole); cut++ {
		torn := filepath.Join(t.TempDir(), "names")
		if err := os.WriteFile(torn, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		n := openNames(t, torn)
		if a := allocate(t, n, "first.example"); a != first {
			t.Fatalf("cut at %d: first.example has %s", cut, a)
		}
		// The torn line's address may have been in the kernel's tables.
		if a := allocate(t, n, "third.example"); a == first || cut > start && a == second {
			t.Fatalf("cut at %d: third.example has %s", cut, a)
		}
		again := openNames(t, torn)
		if a, b := allocate(t, again, "third.example"), allocate(t, n, "third.example"); a != b {
			t.Fatalf("cut at %d: %s after a restart, %s before", cut, a, b)
		}
	}
}

func TestJournalsThatWereNotWrittenHere(t *testing.T) {
	good := `{"addr":"198.18.1.0","name":"a.example"}` + "\n"
	for name, text := range map[string]string{
		"garbage in the middle":      good + "garbage\n" + `{"addr":"198.18.1.1","name":"b.example"}` + "\n",
		"an address twice":           good + `{"addr":"198.18.1.0","name":"b.example"}` + "\n",
		"a name twice":               good + `{"addr":"198.18.1.1","name":"a.example"}` + "\n",
		"an address of the Internet": `{"addr":"1.1.1.1","name":"b.example"}` + "\n",
		"the address of lo":          `{"addr":"198.18.0.1","name":"b.example"}` + "\n",
		"the refusal address":        `{"addr":"198.18.0.2","name":"b.example"}` + "\n",
		"no address":                 `{"name":"b.example"}` + "\n",
		"IPv6":                       `{"addr":"::ffff:198.18.1.1","name":"b.example"}` + "\n",
		"binary":                     "\x00\x01\x02\n",
	} {
		path := filepath.Join(t.TempDir(), "names")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := OpenNames(path); err == nil {
			t.Errorf("%s was replayed: %v", name, n.All())
			n.Close()
		}
	}
}

func TestTheLimitOfNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names")
	n := openNames(t, path)
	for i := range MaxNames {
		allocate(t, n, fmt.Sprintf("h%d.example", i))
	}
	for range 2 {
		if _, _, err := n.Allocate("one-more.example"); !errors.Is(err, ErrNamesExhausted) {
			t.Errorf("got %v", err)
		}
		if a := allocate(t, n, "h0.example"); !a.IsValid() {
			t.Error("a known name is refused too")
		}
		n = openNames(t, path) // also for the next keeper
	}
}

// A full file system may take a part of a line.
func TestAJournalWithoutRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=8k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "names")
	n := openNames(t, path)
	given, failed := map[string]netip.Addr{}, 0
	for i := range 400 {
		name := strings.Repeat("x", i%60) + fmt.Sprintf("h%d.example", i)
		if a, _, err := n.Allocate(name); err == nil {
			given[name] = a
		} else if errors.Is(err, unix.ENOSPC) {
			failed++
		} else {
			t.Fatal(err)
		}
	}
	if failed == 0 {
		t.Fatal("the file system is not small")
	}
	n = openNames(t, path)
	if len(n.All()) != len(given) {
		t.Errorf("%d names after a restart, %d before", len(n.All()), len(given))
	}
	for name, a := range given {
		if n.Name(a) != name {
			t.Errorf("%s has lost %s", name, a)
		}
	}
}

// Restarts, torn writes and questions in any order: no address ever stands for
// two names.
func TestNoAddressIsEverUsedAgain(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 3))
		path := filepath.Join(t.TempDir(), "names")
		n := openNames(t, path)
		owner := map[netip.Addr]string{}
		for range 300 {
			switch rng.IntN(20) {
			case 0:
				n = openNames(t, path)
			case 1:
				f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.WriteString(`{"addr":"198.18.`); err != nil {
					t.Fatal(err)
				}
				f.Close()
				n = openNames(t, path)
			default:
				name := fmt.Sprintf("h%d.example", rng.IntN(100))
				a := allocate(t, n, name)
				if o, ok := owner[a]; ok && o != name {
					t.Fatalf("seed %d: %s is %s and was %s", seed, a, name, o)
				}
				owner[a] = name
			}
		}
	}
}
