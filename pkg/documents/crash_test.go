// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ringfence/ringfence/pkg/store"
	"github.com/ringfence/ringfence/pkg/store/sqlite"
)

// What the child of the crash tests is told.
const (
	crashDir  = "RINGFENCE_CRASH_DIR"
	crashAt   = "RINGFENCE_CRASH_AT" // the commit, counted from 1; 0: none
	crashWhen = "RINGFENCE_CRASH_WHEN"
)

// scenario is what the child does, one step an acknowledged change. Each says
// what of the API and of the directory is kept after it.
var scenario = []struct {
	name string
	do   func(r *rig) error
	kept string
}{
	{"apply", func(r *rig) error { return put(r, "a", "one") }, "a=one"},
	{"apply another", func(r *rig) error { return put(r, "b", "two") }, "a=one b=two"},
	{"replace", func(r *rig) error { return put(r, "a", "three") }, "a=three b=two"},
	{"a file", func(r *rig) error { return file(r, "d", "four") }, "a=three b=two d=four"},
	{"a rule of a sandbox", func(r *rig) error { return r.lib.SetMemory("m", hostOf("m", "five")) }, "a=three b=two d=four"},
	{"delete", func(r *rig) error { _, err := r.lib.RemoveBy(byRoot, "api/b.yaml"); return err }, "a=three d=four"},
	{"edit", func(r *rig) error { return file(r, "d", "six") }, "a=three d=six"},
	{"two at once", func(r *rig) error {
		_, _, err := r.lib.PutAll(byRoot, map[string]string{"b.yaml": hostOf("b", "seven"), "c.yaml": hostOf("c", "eight")})
		return err
	}, "a=three b=seven c=eight d=six"},
	{"roll back", func(r *rig) error {
		_, _, err := r.lib.Restore(byRoot, map[string]string{"a.yaml": hostOf("a", "one"), "b.yaml": hostOf("b", "two")})
		return err
	}, "a=one b=two d=six"},
	{"a large one", func(r *rig) error {
		return r.lib.Put(byRoot, "c.yaml", hostOf("c", "nine")+strings.Repeat("# "+strings.Repeat("x", 98)+"\n", 400))
	}, "a=one b=two c=nine d=six"},
	{"delete the last", func(r *rig) error { _, err := r.lib.RemoveBy(byRoot, "api/a.yaml"); return err }, "b=two c=nine d=six"},
}

func hostOf(name, host string) string { return policyOf(name, "allow", host+".example:443") }

func put(r *rig, name, host string) error {
	return r.lib.Put(byRoot, name+".yaml", hostOf(name, host))
}

func file(r *rig, name, host string) error {
	r.write(name+".yaml", hostOf(name, host))
	return r.lib.Reload()
}

// crashChild is what the crash tests run, by way of TestKilledAtEveryCommit, and
// kill.
func crashChild(t *testing.T) {
	dir := os.Getenv(crashDir)
	r := &rig{t: t, dir: filepath.Join(dir, "policy"), api: filepath.Join(dir, "state")}
	commits := 0
	hook := func(m sqlite.Moment) {
		if m == sqlite.BeforeCommit {
			commits++
		}
		if fmt.Sprint(commits) == os.Getenv(crashAt) && fmt.Sprint(m) == os.Getenv(crashWhen) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
	st, err := sqlite.Open(context.Background(), sqlite.Options{Dir: filepath.Join(r.api, "store"), Version: "1", Logger: discard, AtCommit: hook})
	if err != nil {
		t.Fatal(err)
	}
	if r.lib, err = Open(Options{Dir: r.dir, StateDir: r.api, Store: st, Logger: discard}); err != nil {
		t.Fatal(err)
	}
	fmt.Println("ack start 0")
	for i, step := range scenario {
		fmt.Printf("try %d %d\n", i+1, r.lib.Snapshot().Revision())
		if err := step.do(r); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		log, err := os.Stat(filepath.Join(r.api, "store", "ringfence.db-wal"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("ack %d %d %d %d\n", i+1, r.lib.Snapshot().Revision(), log.Size(), commits)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // a clean end would empty the log
}

// acked is what the child had acknowledged.
type acked struct {
	step     int
	revision uint64
	log      int64 // the length of the store's log then
	commits  int
}

// crash runs the child to its end.
func crash(t *testing.T, dir string, at int, when sqlite.Moment) []acked {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "policy"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKilledAtEveryCommit$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir, fmt.Sprintf("%s=%d", crashAt, at), fmt.Sprintf("%s=%d", crashWhen, when))
	out, err := cmd.Output()
	if ee := (*exec.ExitError)(nil); !errors.As(err, &ee) || ee.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child was not killed: %v\n%s", err, out)
	}
	list := []acked{{}}
	sc := bufio.NewScanner(strings.NewReader(string(out)))
	for sc.Scan() {
		var a acked
		if n, _ := fmt.Sscanf(sc.Text(), "ack %d %d %d %d", &a.step, &a.revision, &a.log, &a.commits); n == 4 {
			list = append(list, a)
		}
	}
	return list
}

// reopened opens what a child left.
func reopened(t *testing.T, dir string) *rig {
	t.Helper()
	r := &rig{t: t, dir: filepath.Join(dir, "policy"), api: filepath.Join(dir, "state")}
	r.reopen()
	return r
}

// keptIn is what the store has, as the scenario writes it.
func keptIn(t *testing.T, st store.Revisions) string {
	t.Helper()
	docs, err := st.Documents(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, d := range docs {
		_, host, _ := strings.Cut(d.Text, `allow: "`)
		host, _, _ = strings.Cut(host, ".")
		parts = append(parts, d.Name+"="+host)
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

func kept(step int) string {
	if step == 0 {
		return ""
	}
	return scenario[step-1].kept
}

// numbersGrow makes one more change and looks at its number.
func numbersGrow(t *testing.T, r *rig, than uint64) {
	t.Helper()
	rev, _, err := r.lib.PutAll(byRoot, map[string]string{"z.yaml": hostOf("z", "z")})
	if err != nil || rev <= than {
		t.Errorf("revision %d after %d, %v", rev, than, err)
	}
	list, err := r.store.History(context.Background(), store.RevisionQuery{})
	for i := range list {
		if i > 0 && list[i].Number >= list[i-1].Number {
			err = fmt.Errorf("revision %d after %d", list[i-1].Number, list[i].Number)
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// Killed before and after every commit: what was acknowledged is there, what was
// not committed is not, and no number is given twice.
func TestKilledAtEveryCommit(t *testing.T) {
	if os.Getenv(crashDir) != "" {
		crashChild(t)
		return
	}
	all := crash(t, t.TempDir(), 0, 0)
	commits := all[len(all)-1].commits
	if len(all) != len(scenario)+1 || commits < 10 {
		t.Fatalf("%d steps with %d commits", len(all)-1, commits)
	}
	for n := 1; n <= commits; n++ { // the first makes the schema
		for _, when := range []sqlite.Moment{sqlite.BeforeCommit, sqlite.AfterCommit} {
			dir := t.TempDir()
			list := crash(t, dir, n, when)
			last := list[len(list)-1]
			next := min(last.step+1, len(scenario))
			for next < len(scenario) && scenario[next-1].kept == kept(last.step) {
				next++ // a step that needs no commit
			}
			want := kept(last.step)
			if when == sqlite.AfterCommit && n > 1 {
				want = kept(next)
			}
			st := openStore(t, filepath.Join(dir, "state", "store"))
			if got := keptIn(t, st); got != want {
				t.Errorf("killed at commit %d, moment %d, in step %d: kept is %q, want %q", n, when, next, got, want)
			}
			if err := st.Close(); err != nil {
				t.Fatal(err)
			}
			r := reopened(t, dir)
			numbersGrow(t, r, last.revision)
			if err := r.store.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The store's log is cut off at every 512 bytes, as a crash or a bad copy can
// leave it: a cut behind what was acknowledged loses nothing of it. One before
// that is refused instead of forgotten; and who goes on without gets whole
// revisions and new numbers.
func TestALogCutOffAnywhere(t *testing.T) {
	dir := t.TempDir()
	list := crash(t, dir, 0, 0)
	last := list[len(list)-1]
	log := filepath.Join("state", "store", "ringfence.db-wal")
	whole, err := os.Stat(filepath.Join(dir, log))
	if err != nil || whole.Size() != last.log {
		t.Fatalf("%v, %v", whole, err)
	}
	if err := os.Remove(filepath.Join(dir, "state", "store", "reserve")); err != nil { // only makes the copies large
		t.Fatal(err)
	}
	refused := 0
	for _, size := range append(cuts(last.log), last.log) {
		cut := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(cut, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(cut, log), size); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(cut, "policy"), 0o755); err != nil {
			t.Fatal(err)
		}
		there := acked{} // whose commit is wholly before the cut
		for _, a := range list {
			if a.log <= size {
				there = a
			}
		}
		st := openStore(t, filepath.Join(cut, "state", "store"))
		if size < last.log {
			refusedAfterCut(t, cut, st, size, &refused)
			if err := os.Remove(filepath.Join(cut, "state", ".stored")); err != nil {
				t.Fatal(err)
			}
		}
		if got := keptIn(t, st); got != kept(there.step) {
			t.Errorf("cut at %d: kept is %q, want %q", size, got, kept(there.step))
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		if size%4096 != 0 && size != last.log { // every page is enough for the slow part
			continue
		}
		r := reopened(t, cut)
		numbersGrow(t, r, last.revision)
		if err := r.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
	t.Logf("%d cuts, %d refused", len(cuts(last.log)), refused)
}

func cuts(size int64) (out []int64) {
	for at := int64(0); at < size; at += 512 {
		out = append(out, at)
	}
	return out
}

// refusedAfterCut: the library does not begin with less than was acknowledged.
func refusedAfterCut(t *testing.T, dir string, st store.Revisions, size int64, refused *int) {
	t.Helper()
	_, err := Open(Options{Dir: filepath.Join(dir, "policy"), StateDir: filepath.Join(dir, "state"), Store: st, Logger: discard})
	if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "put the whole store back") {
		t.Errorf("cut at %d: %v", size, err)
		return
	}
	*refused++
}
