// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/scope"
)

const cutShortPolicy = "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: org:local\negress:\n  - {id: n, allow: \"web.example:443\"}\n  - {id: a, allow: \"192.0.2.0/24:443\"}\n"

// here opens listeners in this process's cgroup: nobody is sent to them.
type here struct{}

func (here) Ready() (*os.File, error) { return nil, nil }
func (here) Open(_ context.Context, ns *os.File) (*Listeners, error) {
	return ListenForeign(context.Background(), ns)
}

// adoptees is a place with a process that can be adopted.
type adoptees struct {
	*live
	req *ForeignRequest
}

func newAdoptees(t *testing.T) *adoptees {
	t.Helper()
	l := newLive(t, Attestation{}, cutShortPolicy)
	l.o.Foreign = here{}
	root, err := kernel.CgroupRoot()
	l.must(err)
	cgroup, err := os.MkdirTemp(root, "ringfence-adoptee-")
	l.must(err)
	t.Cleanup(func() {
		if err := errors.Join(killCgroup(cgroup), RemoveCgroup(cgroup)); err != nil {
			t.Error(err)
		}
	})
	l.move(l.sleeper(), cgroup)
	return &adoptees{l, &ForeignRequest{Principal: scope.Principal{Org: "local", Team: "default", Agent: "test"}, Cgroup: cgroup, Caller: root, Direct: true}}
}

// another is another manager of the same places, as a daemon before or after.
func (a *adoptees) another() *Manager {
	a.tb.Helper()
	m, err := NewManager(a.o)
	a.must(err)
	return m
}

// nothing demands that nothing is left of any adoption.
func (a *adoptees) nothing(t *testing.T, m *Manager) {
	t.Helper()
	m.wg.Wait()
	pins, err := a.fence.Pinned()
	a.must(err)
	tables, err := a.fence.Tables()
	a.must(err)
	dirs, err := os.ReadDir(a.o.Dir)
	a.must(err)
	if len(pins)+len(tables)+len(dirs)+len(m.List())+m.Keeps()+len(m.reserved)+len(m.tables) != 0 {
		t.Errorf("left: pins %d, tables %d, directories %v, sandboxes %v, kept %d, numbers %v, table numbers %v", pins, tables, dirs, m.List(), m.Keeps(), m.reserved, m.tables)
	}
}

// ends are the ends in the log from the n-th event on.
func (a *adoptees) ends(n int) []event.Event {
	a.log.mu.Lock()
	defer a.log.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(a.log.all[n:]), func(e event.Event) bool { return e.Kind != event.KindSandboxStop })
}

// Whenever a daemon is killed during an adoption, the next one takes it back,
// and what may have its start in the log has its end there.
func TestAnAdoptionCutShortIsTakenBack(t *testing.T) {
	a := newAdoptees(t)
	steps := a.newFencing(a.req).steps()
	for i, last := range steps {
		whole := i == len(steps)-1 // the control
		t.Run(last.name, func(t *testing.T) { a.cutShort(t, i, whole, func(*Sandbox) {}) })
		if last.name == "network programs" {
			t.Run("not all network programs", func(t *testing.T) {
				a.cutShort(t, i, whole, func(s *Sandbox) { a.must(os.Remove(a.pin(s.Record.Number, "connect4"))) })
			})
		}
	}
}

// cutShort kills a daemon after the i-th step of an adoption.
func (a *adoptees) cutShort(t *testing.T, i int, whole bool, then func(*Sandbox)) {
	died, next, before := a.another(), a.another(), a.log.count()
	f := died.newFencing(a.req)
	for _, st := range f.steps()[:i+1] {
		if err := st.run(t.Context()); err != nil {
			t.Fatal(st.name, err)
		}
	}
	then(f.s)
	saved := f.s.dir != "" && exists(filepath.Join(f.s.dir, recordFile))
	f.s.letGo()
	a.inherit(t, next, whole)
	want := endHalf
	if whole {
		want = endRelease
		now := next.List()
		if len(now) != 1 || now[0].fence.State().Flags&kernel.FlagDirect == 0 {
			t.Fatalf("sandboxes %v", now)
		}
		a.must(now[0].Release(t.Context()))
	}
	a.nothing(t, next)
	ends := a.ends(before)
	if !saved {
		if len(ends) != 0 {
			t.Errorf("ends without a start: %+v", ends)
		}
		return
	}
	if len(ends) != 1 || ends[0].Scope != f.s.Record.Scope || ends[0].Reason != want {
		t.Errorf("ends: %+v", ends)
	}
	if p, ok := next.Principal(f.s.Record.ID); !ok || p.String() != f.s.Record.Scope {
		t.Errorf("it acted for %v, %t", p, ok)
	}
}

// inherit does what a daemon does with what the one before it left.
func (a *adoptees) inherit(t *testing.T, m *Manager, lives bool) {
	left, err := m.Leftovers()
	a.must(err)
	for _, lo := range left {
		if !lo.Lives() {
			a.must(m.PutAway(lo))
			continue
		}
		if ok, err := m.TakeOver(t.Context(), lo, func(uint32) (*Listeners, error) { return nil, nil }); err != nil || ok != lives {
			t.Errorf("taken over: %t, %v", ok, err)
		}
	}
	m.Severed()
	if err := m.Sweep(); err != nil {
		t.Error(err)
	}
}

// Whichever step of an adoption was the last one, undoing leaves nothing.
func TestAnAdoptionThatFailsLeavesNothing(t *testing.T) {
	a := newAdoptees(t)
	for i, last := range a.newFencing(a.req).steps() {
		t.Run(last.name, func(t *testing.T) {
			before := a.log.count()
			f := a.newFencing(a.req)
			for _, st := range f.steps()[:i+1] {
				if err := st.run(t.Context()); err != nil {
					t.Fatal(st.name, err)
				}
			}
			f.takeBack()
			why := errors.New("the next one failed")
			if err := f.failed(why); !errors.Is(err, why) {
				t.Error(err)
			}
			a.nothing(t, a.Manager)
			ends := a.ends(before)
			if !f.logged && len(ends) != 0 || f.logged && (len(ends) != 1 || ends[0].Scope != f.s.Record.Scope || ends[0].Reason != endFailed || !strings.Contains(ends[0].Detail, "the next one")) {
				t.Errorf("ends: %+v", ends)
			}
		})
	}
}

// nowhere opens no listeners.
type nowhere struct{ here }

func (nowhere) Open(context.Context, *os.File) (*Listeners, error) {
	return nil, errors.New("no listeners")
}

// Whichever step of taking over fails, everything is denied until a daemon can,
// and then what was opened is open again.
func TestWhatCannotBeTakenOverIsDeniedEverything(t *testing.T) {
	a := newAdoptees(t)
	for name, spoil := range map[string]func(m *Manager, s *Sandbox) (mend func() error){
		"early: its names": func(_ *Manager, s *Sandbox) func() error {
			path := filepath.Join(s.dir, "names")
			a.must(os.Rename(path, path+".away"))
			a.must(os.Mkdir(path, 0o700))
			return func() error { return errors.Join(os.Remove(path), os.Rename(path+".away", path)) }
		},
		"late: the listeners": func(m *Manager, _ *Sandbox) func() error {
			m.o.Foreign = nowhere{}
			return func() error { return nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			died, cannot, next := a.another(), a.another(), a.another()
			f := died.newFencing(a.req)
			for _, st := range f.steps() {
				if err := st.run(t.Context()); err != nil {
					t.Fatal(st.name, err)
				}
			}
			judged := func() kernel.State {
				var st kernel.State
				box, err := a.fence.TakeOverRunning(a.req.Cgroup, f.s.Record.Number)
				if err == nil {
					st, err = box.Enforced()
				}
				a.must(errors.Join(err, box.Close()))
				return st
			}
			if st := judged(); st.Policy == 0 || st.Flags&kernel.FlagDirect == 0 {
				t.Fatalf("before: %+v", st)
			}
			f.s.letGo()
			mend := spoil(cannot, f.s)
			left, err := cannot.Leftovers()
			a.must(err)
			if ok, err := cannot.TakeOver(t.Context(), left[0], func(uint32) (*Listeners, error) { return nil, nil }); ok || err == nil || !strings.Contains(err.Error(), "everything is denied") {
				t.Errorf("taken over: %t, %v", ok, err)
			}
			a.must(cannot.Sweep())
			if st := judged(); st != (kernel.State{Sandbox: f.s.Record.Number}) {
				t.Errorf("something is open: %+v", st)
			}
			a.must(mend())
			a.inherit(t, next, true)
			if st := judged(); st.Policy == 0 || st.Flags&kernel.FlagDirect == 0 {
				t.Errorf("taken over: %+v", st)
			}
			now := next.List()
			if len(now) != 1 {
				t.Fatalf("sandboxes: %v", now)
			}
			a.must(now[0].Release(t.Context()))
			a.nothing(t, next)
		})
	}
}

// logFunc is called with each event before it is recorded.
type logFunc struct {
	*events
	before func(*event.Event)
}

func (l logFunc) Append(ctx context.Context, evs ...*event.Event) (uint64, error) {
	for _, e := range evs {
		l.before(e)
	}
	return l.events.Append(ctx, evs...)
}

func TestAFailedAdoptionHasItsEndInTheLog(t *testing.T) {
	for name, c := range map[string]struct {
		ended bool // the context is over
		spoil func(a *adoptees, e *event.Event)
	}{
		"the client went away": {true, func(*adoptees, *event.Event) {}},
		"the record cannot be written": {false, func(a *adoptees, e *event.Event) {
			if e.Kind == event.KindSandboxStart {
				a.must(os.Mkdir(filepath.Join(a.o.Dir, e.Sandbox, ".record.new"), 0o700))
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAdoptees(t)
			a.o.Log = logFunc{a.log, func(e *event.Event) { c.spoil(a, e) }}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.ended {
				cancel()
			}
			if s, _, err := a.Adopt(ctx, a.req); err == nil {
				t.Fatalf("adopted: %+v", s.Record)
			}
			starts, ends := a.log.of(event.KindSandboxStart), a.log.of(event.KindSandboxStop)
			if len(starts) != 1 || len(ends) != 1 || starts[0].Sandbox != ends[0].Sandbox || ends[0].Scope == "" || ends[0].Reason != endFailed {
				t.Errorf("starts %+v, ends %+v", starts, ends)
			}
			a.nothing(t, a.Manager)
		})
	}
}

// An adoption whose cgroup went while no daemon ran ends for whom it acted.
func TestAnAdoptionWhoseCgroupWentHasItsEnd(t *testing.T) {
	b := newBench(t, "")
	who := "org:o/team:t/agent:a/sandbox:0a0b0c0d"
	lo := Leftover{Record: Record{ID: "0a0b0c0d", Number: 0x0a0b0c0d, Scope: who, Cgroup: filepath.Join(t.TempDir(), "gone"), CgroupID: 1, Started: true, Foreign: &Foreign{}}, dir: b.directory(t, "0a0b0c0d")}
	if ok, err := b.TakeOver(t.Context(), lo, func(uint32) (*Listeners, error) { return nil, nil }); ok || err != nil {
		t.Fatal(ok, err)
	}
	if ends := b.log.of(event.KindSandboxStop); len(ends) != 1 || ends[0].Scope != who || ends[0].Reason != endCgroup {
		t.Errorf("ends: %+v", ends)
	}
	if p, ok := b.Principal("0a0b0c0d"); !ok || p.String() != who {
		t.Errorf("it acted for %v, %t", p, ok)
	}
}

// That a fence stands no longer is told once, and that it stands again; what
// else is wrong stays said.
func TestAnAdoptedFenceThatStandsAgain(t *testing.T) {
	a := newAdoptees(t)
	s, _, err := a.Adopt(t.Context(), a.req)
	a.must(err)
	r, err := s.Resolve("web.example")
	a.must(err)
	s.mu.Lock()
	s.problems = []string{"something else"}
	entries, table := s.open[r.Addr], s.table
	s.mu.Unlock()
	for _, c := range []struct {
		what string
		do   func() error
		code string // "": nothing is told
		bad  int
	}{
		{"as it was", func() error { return nil }, "", 1},
		{"an entry is gone", func() error { return a.fence.DeleteNames(table, entries) }, "attestation", 2},
		{"still", func() error { return nil }, "", 2},
		{"it is back", func() error { return a.fence.PutNames(table, entries) }, "attestation-restored", 1},
		{"still back", func() error { return nil }, "", 1},
	} {
		a.must(c.do())
		before := len(a.log.of(event.KindTamper))
		s.attestForeignOnce(suspicions{})
		told := a.log.of(event.KindTamper)[before:]
		if n := len(told); c.code == "" && n != 0 || c.code != "" && (n != 1 || told[0].ReasonCode != c.code || told[0].Verdict != event.Observed) {
			t.Errorf("%s: told %+v", c.what, told)
		}
		if p := s.Problems(); len(p) != c.bad || p[0] != "something else" {
			t.Errorf("%s: problems %q", c.what, p)
		}
	}
}
