// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/store"
)

// faultSteps is the recorded scenario: revisions, and the life of approvals, with
// the log moved into the file and begun anew in between.
var faultSteps = []struct {
	name string
	do   func(s *Store) error
}{
	{"a revision", func(s *Store) error { return addErr(s, 1, "", "one") }},
	{"asked", func(s *Store) error { return putErr(s, approvalOf("a", "b1", "pending", 1)) }},
	{"approved", func(s *Store) error { return putErr(s, approvalOf("a", "b1", "approved", 2)) }},
	{"a large revision", func(s *Store) error { return addErr(s, 4, "one", strings.Repeat("two", 7000)) }},
	{"used", func(s *Store) error { return putErr(s, approvalOf("a", "b1", "consumed", 3)) }},
	{"the log into the file", checkpoint},
	{"asked again, and another is superseded", func(s *Store) error {
		return putErr(s, approvalOf("c", "b2", "pending", 1), approvalOf("c", "b2", "superseded", 2), approvalOf("d", "b2", "pending", 1))
	}},
	{"a removal", func(s *Store) error { return addErr(s, 7, strings.Repeat("two", 7000), "") }},
	{"denied", func(s *Store) error { return putErr(s, approvalOf("d", "b2", "denied", 2)) }},
	{"costs", func(s *Store) error { return addCosts(s, 0, 9, costOn("2026-11-30", "a", "m", 5)) }},
	{"granted", func(s *Store) error { return putErr(s, approvalOf("e", "b3", "approved", 1)) }},
	{"the log into the file, again", checkpoint},
	{"the grant is used", func(s *Store) error { return putErr(s, approvalOf("e", "b3", "consumed", 2)) }},
	{"prices", func(s *Store) error {
		return s.PutPrices(context.Background(), store.PriceTable{Version: "v", Text: "t"})
	}},
	{"more costs", func(s *Store) error {
		return addCosts(s, 9, 12, costOn("2026-11-30", "a", "m", 5), costOn("2026-12-01", "a", "m", 5))
	}},
	{"no prices", func(s *Store) error { return s.DeletePrices(context.Background(), "v") }},
	{"an account and a lease", func(s *Store) error { return budgetErr(s, leaseChange()) }},
	{"spent", func(s *Store) error { return budgetErr(s, spentChange()) }},
	{"given back", func(s *Store) error { return budgetErr(s, backChange()) }},
	{"the last revision", func(s *Store) error { return addErr(s, 9, "", "three") }},
}

func addErr(s *Store, number uint64, before, after string) error {
	r, texts := revisionOf(number, before, after)
	return s.AddRevision(context.Background(), r, texts, false)
}

func putErr(s *Store, list ...store.Approval) error {
	return s.PutApprovals(context.Background(), list...)
}

// checkpoint changes nothing that can be asked for, and SQLite keeps its failure
// to itself where it makes one by itself, after a commit.
func checkpoint(s *Store) error {
	_, _ = s.db.Exec("PRAGMA wal_checkpoint(RESTART)")
	return nil
}

// openOn opens a store on a disk.
func openOn(d *disk) (*Store, error) {
	return Open(context.Background(), Options{Dir: d.dir, Version: "1", Logger: slog.New(slog.DiscardHandler), vfs: vfsName, synced: d.synced})
}

// holds is everything that a store has.
func holds(s *Store) (string, error) {
	ctx := context.Background()
	var b strings.Builder
	docs, err := s.Documents(ctx, 0)
	history, herr := s.History(ctx, store.RevisionQuery{})
	asked, aerr := s.Approvals(ctx, store.ApprovalQuery{})
	money, merr := s.BudgetState(ctx)
	for _, d := range docs {
		fmt.Fprintf(&b, "%s: %d bytes of %.5q since %d\n", d.Name, len(d.Text), d.Text, d.Since)
	}
	for _, r := range history {
		fmt.Fprintf(&b, "revision %d %s\n", r.Number, r.Comment)
	}
	for _, a := range asked {
		fmt.Fprintf(&b, "approval %s %s v%d\n", a.ID, a.State, a.Version)
	}
	spent, serr := s.Costs(ctx, store.CostQuery{})
	for _, c := range spent {
		fmt.Fprintf(&b, "%s %d calls for %d\n", c.Day, c.Calls, c.Nano)
	}
	at, cerr := s.CostCursor(ctx)
	tables, perr := s.Prices(ctx)
	for _, p := range tables {
		fmt.Fprintf(&b, "prices %s\n", p.Version)
	}
	fmt.Fprintf(&b, "summed up to %d\n", at.Sequence)
	fmt.Fprintf(&b, "budgets %+v\n", money)
	return b.String(), errors.Join(err, herr, aerr, serr, cerr, perr, merr)
}

// held is what a store must have after each step; the first is before all.
func held(t *testing.T) []string {
	t.Helper()
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	var out []string
	look := func() {
		now, err := holds(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, now)
	}
	look()
	for _, step := range faultSteps {
		if err := step.do(s); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		look()
	}
	return out
}

// has opens what is in a directory, on a disk without faults, and compares.
func has(t *testing.T, dir, how string, want ...string) {
	t.Helper()
	s, err := Open(context.Background(), Options{Dir: dir, Version: "1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Errorf("%s: %v", how, err)
		return
	}
	defer closeStore(t, s)
	now, err := holds(s)
	for _, w := range want {
		if err == nil && now == w {
			return
		}
	}
	t.Errorf("%s: %v; it holds\n%s\nwanted\n%s", how, err, now, strings.Join(want, "\nor\n"))
}

// The power fails after every write and every sync: what was acknowledged is
// there, and of what was not all or nothing, whatever the disk kept of what was
// not synced, in whole writes or in sectors.
func TestPowerIsLostAnywhere(t *testing.T) {
	want := held(t)
	d := newDisk(t, memoryDir(t))
	acked, points, losses := 0, 0, 0
	d.onChange = func() {
		points++
		variants := []struct {
			what string
			keep
		}{{"nothing", keepNone}, {"some sectors", keepSome(uint64(points))}, {"most writes", keepWrites(uint64(points))}, {"everything", keepAll}}
		for _, v := range []int{0, 1 + points%3} {
			to := filepath.Join(d.dir, fmt.Sprintf("loss-%d", diskDirs.Add(1)))
			if err := os.Mkdir(to, 0o700); err != nil {
				t.Fatal(err)
			}
			d.powerLoss(t, to, variants[v].keep)
			how := fmt.Sprintf("power lost at change %d, in step %d, %s of what was not synced is kept", points, acked+1, variants[v].what)
			has(t, to, how, want[acked], want[min(acked+1, len(faultSteps))])
			losses++
			if err := os.RemoveAll(to); err != nil {
				t.Fatal(err)
			}
		}
	}
	s, err := openOn(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range faultSteps {
		if err := step.do(s); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		acked++
	}
	closeStore(t, s)
	t.Logf("%d changes, %d losses of power", points, losses)
	if points < 100 {
		t.Error("too few to mean anything")
	}
}

// Every read, write and sync of the scenario fails once, or from then on: what
// fails is not acknowledged and has changed nothing; after a failed sync nothing
// more is taken until the store is opened again; in the end everything is done
// once, and survives a loss of power.
func TestEveryInputAndOutputFails(t *testing.T) {
	want := held(t)
	for kind := range faults {
		t.Run(kind.String(), func(t *testing.T) {
			failed, refused := 0, 0
			for n := 1; ; n++ {
				if !failsAt(t, want, kind, n, false, &failed, &refused) {
					break
				}
				if n%3 == 1 || kind == faultSync {
					failsAt(t, want, kind, n, true, &failed, &refused)
				}
			}
			t.Logf("%d steps failed, %d were refused after a failed sync", failed, refused)
			if failed < 4 || kind == faultSync && refused < 5 {
				t.Error("too few to mean anything")
			}
		})
	}
}

// failsAt does the scenario with one fault; false if there were not so many.
func failsAt(t *testing.T, want []string, kind fault, n int, forGood bool, failed, refused *int) bool {
	t.Helper()
	d := newDisk(t, memoryDir(t))
	first, broken := d, true
	d.fail = func(k fault, i int) bool { return broken && k == kind && (i == n || forGood && i > n) }
	how := fmt.Sprintf("the %dth %s fails (for good: %v)", n, kind, forGood)
	s, err := openOn(d)
	if err != nil {
		*failed++
		broken = false
		if s, err = openOn(d); err != nil {
			t.Errorf("%s while opening, and then: %v", how, err)
			return true
		}
	}
	for i, step := range faultSteps {
		at := fmt.Sprintf("%s, in step %d (%s)", how, i+1, step.name)
		if err = step.do(s); err == nil {
			continue
		}
		*failed++
		if forGood {
			broken = false // the operator has replaced the cable
		}
		if now, rerr := holds(s); rerr != nil || now != want[i] {
			t.Errorf("%s: %v; it changed all the same (%v):\n%s", at, err, rerr, now)
		}
		again := step.do(s)
		if errors.Is(err, store.ErrUnsynced) != errors.Is(again, store.ErrUnsynced) {
			t.Errorf("%s: %v, and then %v", at, err, again)
		}
		if !errors.Is(again, store.ErrUnsynced) {
			if again != nil {
				t.Errorf("%s: %v, and then %v", at, err, again)
			}
			continue
		}
		*refused++
		s, d = reopenedOn(t, d, s, at, want[i], want[i+1], step.do)
	}
	to := memoryDir(t)
	d.powerLoss(t, to, keepNone)
	has(t, to, how+"; then the power is lost", want[len(faultSteps)])
	closeStore(t, s)
	has(t, d.dir, how, want[len(faultSteps)])
	return first.done[kind] >= n
}

// reopenedOn is the restart after a failed sync: by a process that is killed, so
// nothing is moved or cut off. What failed may be there, whole; else it is done.
func reopenedOn(t *testing.T, d *disk, s *Store, at, without, with string, do func(*Store) error) (*Store, *disk) {
	t.Helper()
	if err := s.PutApprovals(context.Background(), approvalOf("z", "z", "pending", 1)); !errors.Is(err, store.ErrUnsynced) || !strings.Contains(err.Error(), "restart ringfenced") {
		t.Errorf("%s: a change after a failed sync: %v", at, err)
	}
	killed := newDisk(t, memoryDir(t))
	for _, name := range []string{fileName, fileName + "-wal"} {
		b, err := os.ReadFile(filepath.Join(d.dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(killed.dir, name), b, 0o600)
		}
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	killed.files = d.files // what the disk has of it
	d.files = map[string]*platter{}
	_ = s.Close() // of the process that is gone
	next, err := openOn(killed)
	if err != nil {
		t.Fatalf("%s: opened again: %v", at, err)
	}
	now, err := holds(next)
	if err != nil || now != without && now != with {
		t.Errorf("%s: opened again, %v, it holds\n%s", at, err, now)
	}
	if now == without && without != with {
		if err := do(next); err != nil {
			t.Errorf("%s: opened again: %v", at, err)
		}
	}
	return next, killed
}

// Every read of opening a store that has something in its file and in its log
// fails: it is refused, or opened with everything; and nothing is harmed.
func TestEveryReadOfOpeningFails(t *testing.T) {
	want := held(t)
	full := newDisk(t, memoryDir(t))
	s, err := openOn(full)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range faultSteps {
		if err := step.do(s); err != nil {
			t.Fatal(err)
		}
	}
	refused := 0
	for n := 1; ; n++ {
		d := newDisk(t, memoryDir(t))
		full.powerLoss(t, d.dir, keepNone)
		d.fail = func(k fault, i int) bool { return k == faultRead && i == n }
		next, err := openOn(d)
		if err != nil {
			if refused++; !strings.Contains(err.Error(), "look at dmesg") {
				t.Errorf("the %dth read fails: %v", n, err)
			}
		} else {
			if now, err := holds(next); err == nil && now != want[len(faultSteps)] {
				t.Errorf("the %dth read fails: it holds\n%s", n, now)
			}
			closeStore(t, next)
		}
		d.fail = nil
		has(t, d.dir, fmt.Sprintf("after the %dth read failed", n), want[len(faultSteps)])
		if d.done[faultRead] < n {
			break
		}
	}
	closeStore(t, s)
	if t.Logf("%d openings were refused", refused); refused < 5 {
		t.Error("too few to mean anything")
	}
}
