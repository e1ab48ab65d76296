// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/store"
	"github.com/ringfence/ringfence/pkg/store/sqlite"
)

// What the tests of reloading pace themselves to. A machine that does not reach
// it tests the same, more slowly: only a wrong answer fails.
const (
	decisionRate = 100_000 // a second, of all together
	changeRate   = 10
	changesMade  = 40
	setsDrawn    = 24
	batch        = 250 // decisions between two looks at the clock
)

// load takes decisions on whatever is in force, as fast as decisionRate, while a
// test changes it.
type load struct {
	quiz  *policy.Quiz
	sets  sync.Map // revision -> set; each is there before the revision can be seen
	taken atomic.Int64
	seen  sync.Map // revisions that a decision named
	said  sync.Map // effects, with how many
	stop  chan struct{}
	all   sync.WaitGroup
	begun time.Time
}

// start lets goroutines decide on what current returns, each call of it.
func (l *load) start(t *testing.T, current ...func() *policy.Snapshot) {
	l.stop, l.begun = make(chan struct{}), time.Now()
	workers := max(2, runtime.GOMAXPROCS(0))
	for w := range workers {
		l.all.Go(func() { l.decide(t, w, workers, current) })
	}
}

func (l *load) decide(t *testing.T, worker, workers int, current []func() *policy.Snapshot) {
	n := worker
	effects := map[policy.Effect]int64{}
	defer func() {
		for e, k := range effects {
			count, _ := l.said.LoadOrStore(e, &atomic.Int64{})
			count.(*atomic.Int64).Add(k)
		}
	}()
	for due := time.Duration(0); ; due += time.Second * batch * time.Duration(workers) / decisionRate {
		select {
		case <-l.stop:
			return
		case <-time.After(due - time.Since(l.begun)):
		}
		for range batch {
			n++
			d := l.quiz.Ask(t, current[n%len(current)](), n%l.quiz.Len())
			effects[d.Effect]++
			if msg := l.wrong(d, n%l.quiz.Len()); msg != "" {
				t.Errorf("revision %d: %s", d.Revision, msg)
				return
			}
		}
		l.taken.Add(batch)
	}
}

// wrong compares a decision with the oracle's for the revision that it names.
func (l *load) wrong(d policy.Decision, n int) string {
	set, ok := l.sets.Load(d.Revision)
	if !ok {
		return "nobody made this revision"
	}
	l.seen.LoadOrStore(d.Revision, true)
	return l.quiz.Wrong(set.(int), n, d)
}

// change makes changes at changeRate. After each it waits until decisions were
// taken, so that none goes by unseen on a slow machine.
func (l *load) change(t *testing.T, apply func(n, set int)) {
	t.Helper()
	tick := time.NewTicker(time.Second / changeRate)
	defer tick.Stop()
	for n := range changesMade {
		apply(n, (n*7+1)%len(l.quiz.Sets))
		for before := l.taken.Load(); l.taken.Load() < before+2*batch && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		<-tick.C
	}
}

// end stops deciding, and says what was reached.
func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.all.Wait()
	took := time.Since(l.begun)
	revisions := 0
	l.seen.Range(func(any, any) bool { revisions++; return true })
	total := l.taken.Load()
	t.Logf("%d decisions, %.0f a second, while policy changed %.1f times a second; %d revisions were decided on",
		total, float64(total)/took.Seconds(), changesMade/took.Seconds(), revisions)
	if revisions < changesMade/2 && !t.Failed() {
		t.Errorf("decisions named %d revisions of %d: too few to mean anything", revisions, changesMade)
	}
	for _, e := range []policy.Effect{policy.Block, policy.RequireApproval, policy.Allow} {
		count, _ := l.said.LoadOrStore(e, &atomic.Int64{})
		if k := count.(*atomic.Int64).Load(); k*200 < total && !t.Failed() {
			t.Errorf("%d of %d decisions were %s: too few to mean anything", k, total, e)
		}
	}
}

// The whole language: snapshots are swapped, and the same ones as the gateway
// gets them, encoded and decoded again.
func TestReloadUnderLoad(t *testing.T) {
	l := &load{quiz: policy.NewQuiz(t, 1, setsDrawn, false)}
	var compiled, decoded atomic.Pointer[policy.Snapshot]
	apply := func(n, set int) {
		rev := uint64(n + 1)
		var docs []policy.Document
		for name, text := range l.quiz.Sets[set] {
			d, problems := policy.ParseWhole(name+".yaml", []byte(text))
			if len(problems) > 0 {
				t.Fatal(policy.Problems(problems))
			}
			docs = append(docs, d...)
		}
		snap, problems := policy.Compile(rev, docs)
		if len(problems) > 0 {
			t.Fatal(policy.Problems(problems))
		}
		l.sets.Store(rev, set)
		compiled.Store(snap)
		b, err := snap.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if snap, err = policy.UnmarshalSnapshot(b); err != nil {
			t.Fatal(err)
		}
		decoded.Store(snap)
	}
	apply(-1, 0)
	l.start(t, compiled.Load, decoded.Load)
	l.change(t, apply)
	l.end(t)
}

// What may come into force, through the library, with a store below it and the
// kernel's tables behind it: each decision and each entry of the tables is what
// the oracle says for the revision that it names.
func TestReloadUnderLoadDownToTheKernel(t *testing.T) {
	l := &load{quiz: policy.NewQuiz(t, 2, setsDrawn, true)}
	state := t.TempDir()
	st, err := sqlite.Open(context.Background(), sqlite.Options{Dir: filepath.Join(state, "store"), Version: "1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	k := newKernelTables(t)
	lib, err := documents.Open(documents.Options{Dir: t.TempDir(), StateDir: state, Store: st, Logger: slog.New(slog.DiscardHandler),
		OnChange: func(ch documents.Change) { k.put(t, ch.Snapshot) }})
	if err != nil {
		t.Fatal(err)
	}
	act := documents.Act{Author: store.Author{Name: "root"}, Action: "apply"}
	apply := func(_, set int) {
		files := map[string]string{}
		for name, text := range l.quiz.Sets[set] {
			files[name+".yaml"] = text
		}
		next := lib.Snapshot().Revision() + 1
		l.sets.Store(next, set)
		changed, rev, err := lib.Restore(act, files)
		if err != nil {
			t.Fatal(err)
		}
		if len(changed) == 0 || rev != next {
			t.Fatalf("%d documents changed in revision %d, not in %d", len(changed), rev, next)
		}
	}
	apply(-1, 0)
	l.start(t, lib.Snapshot)
	looks := k.watch(t, l)
	l.change(t, apply)
	l.end(t)
	n := looks()
	t.Logf("%d entries of the kernel's tables were compared, in %d revisions", n.entries, n.revisions)
	if (n.entries < 1000 || n.revisions < changesMade/4) && !t.Failed() {
		t.Error("too few to mean anything")
	}
}

// describe is one entry for people.
func describe(e policy.Entry) string {
	if e.Host != "" {
		return fmt.Sprintf("%s:%d/%d", e.Host, e.Port, e.Proto)
	}
	return strings.TrimSpace(fmt.Sprintf("%s port %d/%d", e.Addr, e.Port, e.Proto))
}
