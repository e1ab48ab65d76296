// SPDX-License-Identifier: Apache-2.0

package costs

import (
	"bufio"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/audit"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/store"
	"github.com/ringfence/ringfence/pkg/store/sqlite"
)

// diskLog is the real log.
type diskLog struct{ *audit.Log }

func (l diskLog) Last() uint64 { return l.Head().Sequence }

func (l diskLog) Calls(ctx context.Context, from uint64, other func(uint64)) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		q := audit.Query{FromSeq: from, Follow: true, Match: func(h *event.Header) bool {
			if h.Kind != event.KindInference {
				other(h.Sequence)
			}
			return h.Kind == event.KindInference
		}}
		for r, err := range l.Read(ctx, q) {
			if !yield(Record{r.Seq, r.Line}, err) {
				return
			}
		}
	}
}

func openBoth(t testing.TB, dir string) (*audit.Log, *sqlite.Store) {
	l, err := audit.Open(audit.Options{Dir: filepath.Join(dir, "events")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(t.Context(), sqlite.Options{Dir: filepath.Join(dir, "store"), Version: "1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return l, s
}

const killedDir = "RINGFENCE_TEST_COSTS_DIR"

// TestKilledChild is the process of the test below: it records calls and sums them
// up until it is killed.
func TestKilledChild(t *testing.T) {
	dir := os.Getenv(killedDir)
	if dir == "" {
		return // only a process of the test below
	}
	l, s := openBoth(t, dir)
	go New(Options{Store: s, Log: diskLog{l}, Every: time.Millisecond, Tell: func(bool, string) {}}).Run(context.Background())
	for i := 0; ; i++ {
		ev := call(fmt.Sprint("a", i%3), fmt.Sprint("m", i%5), uint64(i%97+1), noon.Add(time.Duration(i%50)*time.Hour))
		if i%4 == 0 {
			ev.Kind = event.KindHTTP
		}
		if _, err := l.Append(context.Background(), &ev); err != nil {
			t.Fatal(err)
		}
		fmt.Println(i)
	}
}

func TestSumsSurviveBeingKilled(t *testing.T) {
	dir := t.TempDir()
	for round := range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledChild$")
		cmd.Env = append(os.Environ(), killedDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(out)
		for n := 0; n < 40+37*round && sc.Scan(); n++ {
		}
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
	}
	l, s := openBoth(t, dir)
	want, last := map[store.CostKey]store.CostSums{}, uint64(0)
	for r, err := range l.Read(t.Context(), audit.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		ev, err := event.ParseOCSF(r.Line)
		if err != nil {
			t.Fatal(err)
		}
		if ev.Kind == event.KindInference {
			k, one := Of(&ev)
			all := want[k]
			all.Add(&one)
			want[k], last = all, r.Seq
		}
	}
	before, err := s.CostCursor(t.Context())
	if err != nil || before.Sequence == 0 {
		t.Fatalf("no process came to sum anything up: %+v, %v", before, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		New(Options{Store: s, Log: diskLog{l}, Every: time.Millisecond, Tell: func(bool, string) {}}).Run(ctx)
	}()
	for {
		if c, err := s.CostCursor(t.Context()); err != nil || c.Sequence >= last {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	rows, err := s.Costs(t.Context(), store.CostQuery{})
	if err != nil || len(rows) != len(want) || last < 1000 {
		t.Fatalf("%d rows, want %d, of %d records: %v", len(rows), len(want), last, err)
	}
	for _, r := range rows {
		if want[r.CostKey] != r.CostSums {
			t.Errorf("%+v: %+v, want %+v", r.CostKey, r.CostSums, want[r.CostKey])
		}
	}
	if c, err := s.CostCursor(t.Context()); err != nil || c.Missed != 0 || c.Chain != l.Chain() {
		t.Errorf("%+v %v", c, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
