// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/store"
	"github.com/ringfence/ringfence/pkg/store/sqlite"
)

// step is one act of the recorded scenario; each that changes something is one
// commit.
type step struct {
	what string
	do   func(d *desk) string // what the caller is told
}

func said(v any, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	return fmt.Sprint(v)
}

func asks(n byte) step {
	return step{"ask " + strconv.Itoa(int(n)), func(d *desk) string {
		c := someCall(n)
		a, err := d.Ask(context.Background(), &c)
		return said(fmt.Sprint(a.Outcome, " ", a.ID), err)
	}}
}

// asksAll asks for several calls together.
func asksAll(list ...byte) step {
	return step{fmt.Sprint("ask all of ", list), func(d *desk) string {
		a, err := d.AskAll(context.Background(), callsOf(list...))
		return said(fmt.Sprint(a.Outcome, " ", a.IDs), err)
	}}
}

func callsOf(list ...byte) (out []*Call) {
	for _, n := range list {
		c := someCall(n)
		out = append(out, &c)
	}
	return out
}

func voting(nth int, p Person, yes bool, tt Terms) step {
	return step{fmt.Sprintf("%s votes %v on the newest but %d", p.Name, yes, nth), func(d *desk) string {
		list, err := d.all()
		if err != nil {
			return said(nil, err)
		}
		r, err := d.Vote(context.Background(), list[nth].ID, p, yes, tt, "as recorded")
		return said(r.ID+" "+r.State.String(), err)
	}}
}

// scenario has every state in it, grants of every kind, and uses of them.
func scenario() []step {
	life := Terms{Lasts: LastsSandbox, Covers: CoversTarget}
	return []step{
		asks(0), voting(0, launcher, true, Terms{}), asks(0), // used
		asks(0), voting(0, root, true, Terms{}), asks(0), asks(0), // used again, by a second approval; and a third
		asks(2), voting(0, root, false, Terms{}), asks(2), // denied, and it stands
		asks(1), asks(1), // of another sandbox, twice
		asks(16), voting(0, people[2], true, Terms{}), voting(0, people[3], true, Terms{}), // a quorum; 0 is superseded by it
		asks(16), asks(16),
		asks(50), voting(0, root, true, Terms{Lasts: LastsFor, For: time.Minute}), voting(0, launcher, true, Terms{}), voting(0, people[4], true, life),
		asks(50),
		asks(6), voting(0, root, true, life), asks(6), asks(10),
		asksAll(8, 12), voting(0, root, true, Terms{}), asksAll(8, 12), // one of two: nothing is used up
		voting(1, root, true, Terms{}), asksAll(12, 8), asksAll(8, 12), // both are, together; and then none is left
		voting(0, root, true, Terms{Lasts: LastsFor, For: time.Minute, Covers: CoversArguments, Args: []Pattern{{"amount", "1*"}}}), asksAll(8, 12), voting(1, root, true, Terms{}),
		asksAll(0, 8, 12), asksAll(8, 12),
		{"time passes", func(d *desk) string { d.pass(20 * time.Minute); return said("swept", d.Sweep(context.Background())) }},
		asks(5), voting(0, root, true, Terms{}), asks(9),
		{"a sandbox ends", func(d *desk) string { return said("ended", d.End(context.Background(), "00000001")) }},
		asks(6),
	}
}

// perform does the scenario, and says what each step came to. Steps are two
// seconds apart, so that each count is written.
func perform(d *desk, say func(n int, what string)) {
	for n, s := range scenario() {
		d.pass(2 * time.Second)
		say(n, s.do(d))
	}
}

// rows is everything that the store holds.
func rows(t testing.TB, s store.Approvals) string {
	t.Helper()
	list, err := s.Approvals(context.Background(), store.ApprovalQuery{})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, a := range list {
		fmt.Fprintf(&b, "%s %s v%d %d %d %s\n", a.ID, a.State, a.Version, a.Created, a.Ended, a.Body)
	}
	return b.String()
}

// begin forgets what is old, which is done once an hour and is a commit too.
func begin(t *testing.T, d *desk) {
	t.Helper()
	if err := d.Sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// recording is the scenario without any accident.
type recording struct {
	answers []string
	held    []string // rows after each step; the first is before all of them
	wal     []int64  // the length of the store's log then
	commits int
	dir     string
}

func record(t *testing.T) *recording {
	r := &recording{dir: t.TempDir()}
	d := openDesk(t, r.dir, func(m sqlite.Moment) {
		if m == sqlite.AfterCommit {
			r.commits++
		}
	})
	begin(t, d)
	r.commits = 0 // not those of making the store
	log := func() {
		st, err := os.Stat(filepath.Join(r.dir, "ringfence.db-wal"))
		if err != nil {
			t.Fatal(err)
		}
		r.held, r.wal = append(r.held, rows(t, d.store)), append(r.wal, st.Size())
	}
	log()
	perform(d, func(n int, what string) {
		if strings.HasPrefix(what, "error") {
			t.Fatalf("step %d: %s", n, what)
		}
		r.answers = append(r.answers, what)
		log()
	})
	for _, state := range stateNames {
		if !slices.ContainsFunc(r.held, func(s string) bool { return strings.Contains(s, " "+state+" v") }) {
			t.Errorf("nothing is ever %s", state)
		}
	}
	// The files as they are now, before closing moves the log into the store.
	copied := t.TempDir()
	copyStore(t, r.dir, copied, -1)
	r.dir = copied
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}

// copyStore copies the files of a store, of the log only so many bytes.
func copyStore(t *testing.T, from, to string, log int64) {
	t.Helper()
	for _, name := range []string{"ringfence.db", "ringfence.db-wal"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "-wal") && log >= 0 {
			b = b[:log]
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// after opens what an accident has left, and returns what it holds. What was
// looked at before is not used again.
func after(t *testing.T, dir, before string) string {
	t.Helper()
	d := openDesk(t, dir, nil)
	defer d.store.Close() //nolint:errcheck // only read
	held := rows(t, d.store)
	if held != before {
		onceOnly(t, d)
	}
	return held
}

// onceOnly asks for everything again and again: what is for one time is used
// once at most, and not at all if it was used before.
func onceOnly(t *testing.T, d *desk) {
	t.Helper()
	d.pass(2 * time.Minute)
	list, err := d.all()
	if err != nil {
		t.Fatal(err)
	}
	was, used := map[string]Request{}, map[string]int{}
	for _, r := range list {
		was[r.ID] = r
	}
	d.o.NewID = newID
	for n := range 21 {
		c := someCall([]byte{0, 1, 2, 6, 10, 16, 50}[n%7])
		a, err := d.Ask(context.Background(), &c)
		if err != nil {
			t.Fatal(err)
		}
		var by []string
		if a.Outcome == Released {
			by = append(by, a.ID)
		}
		if n < 4 {
			all, err := d.AskAll(context.Background(), callsOf([][]byte{{8, 12}, {0, 8}}[n%2]...))
			if err != nil {
				t.Fatal(err)
			}
			if all.Outcome == Released {
				by = append(by, all.IDs...)
			}
		}
		for _, id := range by {
			r := was[id]
			if used[id]++; r.State != Approved || r.Grant.Lasts == LastsOnce && used[id] > 1 {
				t.Errorf("%s, which is %s, was used for the %dth time", id, r.State, used[id])
			}
		}
	}
}

const crashVar = "RINGFENCE_TEST_CRASH"

// crashChild is the process that is killed: DIR, which commit, which moment.
func crashChild(t *testing.T) {
	var dir string
	var nth, moment int
	if _, err := fmt.Sscan(os.Getenv(crashVar), &dir, &nth, &moment); err != nil {
		t.Fatal(err)
	}
	n, ready := 0, false
	d := openDesk(t, dir, func(m sqlite.Moment) {
		if !ready {
			return
		}
		if m == sqlite.BeforeCommit {
			n++
		}
		if n == nth && int(m) == moment {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {} // until it arrives
		}
	})
	begin(t, d)
	ready = true
	perform(d, func(n int, what string) { fmt.Printf("step %d %s\n", n, what) })
}

func TestKilledAtEveryCommit(t *testing.T) {
	if os.Getenv(crashVar) != "" {
		crashChild(t)
		return
	}
	r := record(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for nth := 1; nth <= r.commits; nth++ {
		for _, m := range []sqlite.Moment{sqlite.BeforeCommit, sqlite.AfterCommit} {
			dir := t.TempDir()
			cmd := exec.Command(exe, "-test.run", "^TestKilledAtEveryCommit$", "-test.v")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", crashVar, dir, nth, m))
			out, err := cmd.Output()
			if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
				t.Fatalf("commit %d: the child was not killed: %v\n%s", nth, err, out)
			}
			done := acknowledged(t, r, string(out))
			held := after(t, dir, "")
			want := r.held[done]
			if m == sqlite.AfterCommit {
				want = r.held[done+1]
			}
			if held != want {
				t.Errorf("killed at commit %d (moment %d), after step %d was acknowledged:\n%s\nnot\n%s", nth, m, done-1, held, want)
			}
		}
	}
	t.Logf("%d steps, %d commits", len(r.answers), r.commits)
}

// acknowledged counts the steps that a child has reported, as recorded.
func acknowledged(t *testing.T, r *recording, out string) (n int) {
	t.Helper()
	sc := bufio.NewScanner(strings.NewReader(out))
	for sc.Scan() {
		var at int
		if _, err := fmt.Sscanf(sc.Text(), "step %d", &at); err != nil {
			continue
		}
		if want := fmt.Sprintf("step %d %s", n, r.answers[n]); at != n || sc.Text() != want {
			t.Fatalf("the child says %q, recorded was %q", sc.Text(), want)
		}
		n++
	}
	return n
}

// TestLogCutAtEverySector cuts the store's log as a disk that lost power may:
// what was acknowledged before that length is all there.
func TestLogCutAtEverySector(t *testing.T) {
	r := record(t)
	whole := r.wal[len(r.wal)-1]
	held := ""
	for cut := r.wal[0]; ; cut = min(cut+512, whole) {
		dir := t.TempDir()
		copyStore(t, r.dir, dir, cut)
		last := 0
		for n, size := range r.wal {
			if size <= cut {
				last = n
			}
		}
		if held = after(t, dir, held); held != r.held[last] {
			t.Fatalf("the log was cut at %d: it holds\n%s\nand not what it held after step %d:\n%s", cut, held, last-1, r.held[last])
		}
		if cut == whole {
			break
		}
	}
	t.Logf("%d lengths", (whole-r.wal[0])/512)
}
