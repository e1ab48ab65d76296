// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

func newTestBell(t *testing.T) *bell {
	t.Helper()
	needRoot(t)
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 4096})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	b, err := newBell(m.FD())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.close() })
	return b
}

// Nothing that somebody waits for is slept through: not what was there before,
// not a ring of the bell, whenever it comes.
func TestBell(t *testing.T) {
	b := newTestBell(t)
	const long = 10 * time.Minute
	ended := func(what string, act func(), something bool) {
		t.Helper()
		done := make(chan struct{})
		go func() { defer close(done); b.wait(long, func() bool { return something }) }()
		act()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: slept through", what)
		}
	}
	ended("something is there", func() {}, true)
	for range 500 { // before, in and after the first steps of waiting
		ended("rung", b.ring, false)
	}
	b.ring()
	ended("rung before", func() {}, false)
	b.wait(time.Millisecond, func() bool { return false }) // the time is up
	ended("closed", func() { b.close() }, false)
}

// Readers that wait occupy no thread in the kernel: the runtime would call that
// running.
func TestReadersWaitAsForSockets(t *testing.T) {
	f := newFence(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Records(ctx, func(Record) {}) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	caught := false
	for end := time.Now().Add(20 * time.Second); !caught && time.Now().Before(end); {
		step, stop := context.WithTimeout(ctx, 100*time.Millisecond)
		caught = f.CatchUp(step, Rings[:]...)
		stop()
	}
	if !caught {
		t.Fatal("nobody reads the rings")
	}
	in := []metrics.Sample{{Name: "/sched/goroutines/not-in-go:goroutines"}}
	var least uint64 = 1 << 32
	for range 200 {
		metrics.Read(in)
		if in[0].Value.Kind() != metrics.KindUint64 {
			t.Fatal("the runtime does not count goroutines in system calls (Go 1.26, which go.mod asks for, does)")
		}
		least = min(least, in[0].Value.Uint64())
		time.Sleep(time.Millisecond)
	}
	if least >= uint64(len(Rings)) {
		t.Errorf("%d goroutines wait in system calls, and there are %d rings", least, len(Rings))
	}
}
