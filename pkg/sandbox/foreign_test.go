// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
)

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		path, dir string
		want      bool
	}{
		{"/a/b", "/a", true}, {"/a", "/a", true}, {"/a", "/", true},
		{"/ab", "/a", false}, {"/a", "/a/b", false}, {"/b", "/a", false},
	} {
		if got := within(c.path, c.dir); got != c.want {
			t.Errorf("within(%q, %q) = %t", c.path, c.dir, got)
		}
	}
}

// Sandboxes of another daemon are known by where they lie.
func TestOfAnother(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"daemon/gateway", "daemon/sb-0a1b2c3d/below", "daemon/other", "elsewhere/sb-0a1b2c3d"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]bool{
		"daemon/gateway": true, "daemon/sb-0a1b2c3d": true, "daemon/sb-0a1b2c3d/below": true,
		"daemon/other": false, "elsewhere/sb-0a1b2c3d": false, "daemon": false,
	} {
		if got := ofAnother(root, filepath.Join(root, path)); got != want {
			t.Errorf("%s: %t", path, got)
		}
	}
}

// What a process holds is read from the kernel's words.
func TestPrivileges(t *testing.T) {
	root, err := kernel.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	got := mayDoOf(t, root, newBounds(), os.Getpid()).Powers
	st, err := readStatus(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if none := st["CapEff"] == "0000000000000000" && st["CapPrm"] == "0000000000000000"; none != (len(got) == 0) {
		t.Errorf("CapEff %s: %q", st["CapEff"], got)
	}
	if got := mayDoOf(t, root, newBounds(), 1<<30).Powers; len(got) != 0 {
		t.Errorf("a process that has ended: %q", got)
	}
}

// To what a keeper cannot take over everything is denied, whatever was in the
// way.
func TestKeptProcessesAreShut(t *testing.T) {
	b := newBench(t, "")
	cgroup := t.TempDir()
	id, err := cgroupID(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	lo := Leftover{Record: Record{ID: "0a0b0c0d", Number: 0x0a0b0c0d, Cgroup: cgroup, CgroupID: id, Started: true, Foreign: &Foreign{}}, dir: b.directory(t, "0a0b0c0d")}
	if ok, err := b.TakeOver(t.Context(), lo, func(uint32) (*Listeners, error) { return nil, nil }); ok || err == nil {
		t.Errorf("adopted: %v, %v", ok, err)
	}
	if !slices.Equal(b.fence.shut, []uint32{0x0a0b0c0d}) {
		t.Errorf("%x were shut", b.fence.shut)
	}
	if b.Keeps() != 1 {
		t.Error("it is not kept")
	}
}

// A look waits for its turn in a goroutine of its own, one for each adoption.
func TestLooksTakeNobodysTurn(t *testing.T) {
	b := newBench(t, "")
	s := &Sandbox{m: b.Manager, ended: make(chan struct{})}
	close(s.ended) // it would find that it is over
	for range looksAtOnce {
		b.looks <- struct{}{}
	}
	looking := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.looking
	}
	for range 3 { // returns, although others look
		s.lookSoon()
	}
	if !looking() {
		t.Error("no look is under way")
	}
	for range looksAtOnce {
		<-b.looks
	}
	for looking() {
		time.Sleep(time.Millisecond)
	}
	if n := len(b.looks); n != 0 {
		t.Errorf("%d turns are taken", n)
	}
}

// A look that does not end, or does not begin, is told once.
func TestLateLooksAreTold(t *testing.T) {
	b := newBench(t, "")
	told := func(since time.Duration, calls int) int {
		s := &Sandbox{m: b.Manager, ended: make(chan struct{}), looking: true, lookSince: time.Now().Add(-since)}
		n := len(b.log.of(event.KindTamper))
		for range calls {
			s.lookSoon()
		}
		return len(b.log.of(event.KindTamper)) - n
	}
	if n := told(DefaultAttestation, 3); n != 0 {
		t.Errorf("control: told %d times", n)
	}
	if n := told(3*DefaultAttestation, 3); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// What a look found is told once, and how much more there is.
func TestSightingsAreToldOnce(t *testing.T) {
	b := newBench(t, "")
	var often []*event.Event
	b.o.Often = func(e *event.Event) { often = append(often, e) }
	s := &Sandbox{m: b.Manager}
	a, c := LooseSocket{PID: 1, FD: 3, Comm: "a", inode: 9}, LooseSocket{PID: 1, FD: 4, inode: 10}
	first := Sighting{Loose: []LooseSocket{a}, More: 2, Cut: "too many", Ways: []string{"a way"}}
	s.tellSighting(Sighting{}, first)
	codes := func() (out []string) {
		for _, e := range often {
			out = append(out, e.ReasonCode)
			if e.Verdict != event.Observed { // it goes on: nothing was refused
				t.Errorf("%s: verdict %v", e.ReasonCode, e.Verdict)
			}
		}
		often = nil
		return out
	}
	if got := codes(); !slices.Equal(got, []string{"loose-socket", "loose-socket", "look-cut", "cgroup-writable"}) {
		t.Errorf("first: %q", got)
	}
	a.PID, a.Comm = 2, "another worker that has it"
	second := first
	second.Loose = []LooseSocket{a, c}
	s.tellSighting(first, second)
	if got := codes(); !slices.Equal(got, []string{"loose-socket"}) {
		t.Errorf("then: %q", got)
	}
	if s.tellSighting(second, second); len(codes()) > 0 {
		t.Error("told again")
	}
}

// What the kernel cannot tell of datagrams is said, and nothing else.
func TestForeignWithoutDatagrams(t *testing.T) {
	f := &Foreign{}
	if why := f.NoDatagrams(); !strings.Contains(why, "5.19") {
		t.Errorf("without listeners for them: %q", why)
	}
	f.Listening.UDP4[0] = 4000
	if why := f.NoDatagrams(); why != "" {
		t.Errorf("with them: %q", why)
	}
}
