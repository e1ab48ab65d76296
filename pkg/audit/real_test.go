// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
)

const writerEnv = "RINGFENCE_TEST_AUDIT_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		os.Exit(writeUntilKilled(dir))
	}
	os.Exit(m.Run())
}

// writeUntilKilled appends and says on stdout what is durable.
func writeUntilKilled(dir string) int {
	l, err := Open(Options{Dir: dir, SegmentBytes: 32 << 10, Node: testNode})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for i := 0; ; i++ {
		a, b := denial(i), denial(i)
		if _, err := l.Append(context.Background(), a, b); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Printf("ok %s %s\n", a.ID, b.ID)
	}
}

func TestKill9LosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	acked := map[string]bool{}
	for round := range 5 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), writerEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			f := strings.Fields(lines.Text())
			if len(f) != 3 || f[0] != "ok" {
				t.Errorf("writer: %s", lines.Text())
				break
			}
			acked[f[1]], acked[f[2]] = true, true
			if n == 20+13*round {
				cmd.Process.Kill()
			}
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
	l := openLog(t, Options{Dir: dir})
	for _, r := range readAll(t, l, Query{}) {
		h, err := event.PeekOCSF(r.Line)
		if err != nil {
			t.Fatal(err)
		}
		delete(acked, h.ID)
	}
	l.Close()
	if len(acked) > 0 {
		t.Errorf("%d acknowledged records are gone", len(acked))
	}
	if r := mustVerify(t, dir); r.Records < 200 {
		t.Errorf("%d records: the test shows nothing", r.Records)
	}
}

func TestRealFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=128k"); err != nil {
		if os.Getenv("RINGFENCE_CI") == "1" {
			t.Fatal(err)
		}
		t.Skipf("tmpfs cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, Options{Dir: dir, RetryDelay: 5 * time.Millisecond})
	full := 0
	for i := range 80 {
		_, err := l.Append(context.Background(), denial(i))
		if errors.Is(err, ErrFull) {
			full++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if full == 0 {
		t.Fatal("the disk did not fill up")
	}
	mustVerify(t, dir)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return l.Stats().Unsaid == 0 })
	if seq := mustAppend(t, l, denial(1)); seq != l.Head().Sequence {
		t.Errorf("sequence %d", seq)
	}
	var lost uint64
	for _, r := range readAll(t, l, Query{}) {
		e, err := event.ParseOCSF(r.Line)
		if err != nil {
			t.Fatal(err)
		}
		lost += e.Lost
	}
	if lost != uint64(full) {
		t.Errorf("%d refused, loss records say %d", full, lost)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, dir)
}

func TestActiveSegmentRemoved(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, Options{Dir: dir})
	mustAppend(t, l, denial(1))
	if err := os.Remove(segmentFiles(t, dir)[0]); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, denial(2))
	found := false
	for _, r := range readAll(t, l, Query{}) {
		e, err := event.ParseOCSF(r.Line)
		if err != nil {
			t.Fatal(err)
		}
		found = found || e.Kind == event.KindTamper && e.ReasonCode == "segment-removed"
	}
	if !found {
		t.Error("nothing was said about it")
	}
	l.Close()
	if r, err := Verify(dir); err != nil || r.State != Incomplete {
		t.Errorf("%s %v", r.String(), err)
	}
}

func TestFilesArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "log")
	l := openLog(t, Options{Dir: dir})
	mustAppend(t, l, denial(1))
	for path, want := range map[string]os.FileMode{dir: 0o700, segmentFiles(t, dir)[0]: 0o600} {
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v %v", path, st.Mode(), err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, batch := range []int{1, 64, 1024} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			l, err := Open(Options{Dir: b.TempDir(), Node: testNode})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			evs := make([]*event.Event, batch)
			for i := range evs {
				evs[i] = denial(i)
			}
			n := 0
			for b.Loop() {
				if _, err := l.Append(context.Background(), evs...); err != nil {
					b.Fatal(err)
				}
				n += batch
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func BenchmarkSeal(b *testing.B) {
	e := denial(1)
	e.ID, e.Sequence = recordID("0123456789abcdef", 1), 1
	var buf []byte
	var h Hash
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, h, err = appendSealed(buf[:0], e, testNode, "0123456789abcdef", h); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(buf)))
}
