// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/ca"
	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/wire"
)

// fence holds what a former keeper left; nothing can be adopted.
type fence struct {
	pinned, tables     []uint32
	forgotten, dropped []uint32
	shut               []uint32
}

var errNoFence = errors.New("not attached")

func (f *fence) Guard() (hooks, absent []string, err error) { return nil, nil, errors.New("none here") }

func (f *fence) AttachEmpty(string, uint32) (*kernel.Sandbox, error)     { return nil, errNoFence }
func (f *fence) TakeOverSandbox(string, uint32) (*kernel.Sandbox, error) { return nil, errNoFence }
func (f *fence) AttachRunning(string, kernel.State, kernel.Listening, func() error) (*kernel.Sandbox, error) {
	return nil, errNoFence
}
func (f *fence) TakeOverRunning(string, uint32) (*kernel.Sandbox, error) { return nil, errNoFence }
func (f *fence) Abandon(id uint32) error                                 { f.forgotten = append(f.forgotten, id); return nil }
func (f *fence) Shut(id uint32, _ uint64) error {
	f.shut = append(f.shut, id)
	return nil
}
func (f *fence) PutNames(uint32, []kernel.NameEntry) error                     { return nil }
func (f *fence) DeleteNames(uint32, []kernel.NameEntry) error                  { return nil }
func (f *fence) PutCIDRs(uint32, []kernel.CIDREntry) error                     { return nil }
func (*fence) RuleUses() (map[kernel.TableRule]kernel.RuleUse, error)          { return nil, nil }
func (*fence) TakeHits(func(uint32) bool) (map[kernel.TableRule]uint64, error) { return nil, nil }
func (f *fence) DropPolicy(t ...uint32) error                                  { f.dropped = append(f.dropped, t...); return nil }
func (f *fence) Pinned() ([]uint32, error)                                     { return f.pinned, nil }
func (f *fence) Tables() ([]uint32, error)                                     { return f.tables, nil }
func (f *fence) TableOf(uint32, uint64) (uint32, error)                        { return 0, nil }
func (f *fence) TableSizes() (map[uint32]kernel.TableSize, error)              { return nil, nil }
func (f *fence) Holds(kernel.Entry) (bool, error)                              { return true, nil }
func (f *fence) NewWalker() *kernel.Walker                                     { return nil }
func (f *fence) Forget(id uint32) error                                        { f.forgotten = append(f.forgotten, id); return nil }

// events keeps what is recorded, and refuses like the real log when the
// context has ended.
type events struct {
	mu  sync.Mutex
	all []event.Event
}

func (l *events) Append(ctx context.Context, evs ...*event.Event) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range evs {
		l.all = append(l.all, *e)
	}
	return uint64(len(l.all)), ctx.Err()
}

func (l *events) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

func (l *events) of(k event.Kind) (out []event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.all {
		if e.Kind == k {
			out = append(out, e)
		}
	}
	return out
}

// bench is a manager without a kernel and without a gateway.
type bench struct {
	*Manager
	fence *fence
	log   *events
}

func newBench(t *testing.T, docs string) *bench {
	t.Helper()
	parsed, problems := policy.Parse("test.yaml", []byte(docs))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	snap, problems := policy.Compile(1, parsed)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	b := &bench{fence: &fence{}, log: &events{}}
	var err error
	b.Manager, err = NewManager(Options{Dir: t.TempDir(), CgroupBase: t.TempDir(), Fence: b.fence, Log: b.log,
		Snapshot: func() *policy.Snapshot { return snap }, Logger: slog.New(slog.DiscardHandler), UIDs: UIDs{Dir: filepath.Join(t.TempDir(), "uids"), Range: UIDRange{1 << 30, 8}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// directory makes that of a sandbox that a former keeper left.
func (b *bench) directory(t *testing.T, id string) string {
	t.Helper()
	dir := filepath.Join(b.o.Dir, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// away puts a leftover away and waits until it is gone.
func (b *bench) away(t *testing.T, lo Leftover) {
	t.Helper()
	if err := b.PutAway(lo); err != nil {
		t.Fatal(err)
	}
	b.Severed()
	b.wg.Wait()
	if left := b.Ending(); len(left) != 0 {
		t.Fatalf("not gone: %v", left)
	}
}

func TestALaunchCutShortIsForgottenByTheKernel(t *testing.T) {
	b := newBench(t, "")
	b.directory(t, "0a0b0c0d")
	left, err := b.Leftovers()
	if err != nil || len(left) != 1 || left[0].Record.Number != 0x0a0b0c0d {
		t.Fatalf("leftovers %+v, %v", left, err)
	}
	if ok, err := b.TakeOver(t.Context(), left[0], nil); ok || err != nil {
		t.Errorf("adopted: %v, %v", ok, err)
	}
	b.away(t, left[0])
	if !slices.Equal(b.fence.forgotten, []uint32{0x0a0b0c0d}) {
		t.Errorf("forgotten: %x", b.fence.forgotten)
	}
	if n := len(b.log.of(event.KindSandboxStop)); n != 0 {
		t.Errorf("%d ends of a sandbox whose start was never recorded", n)
	}
	if left, _ := b.Leftovers(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

func TestARecordedStartHasItsEndAfterAKeeperWasKilled(t *testing.T) {
	b := newBench(t, "")
	dir := b.directory(t, "00000007")
	r := Record{ID: "00000007", Number: 7, Scope: "org:o/team:t/agent:a/sandbox:00000007", Created: time.Now()}
	if err := r.save(dir); err != nil {
		t.Fatal(err)
	}
	left, err := b.Leftovers()
	if err != nil || len(left) != 1 {
		t.Fatal(left, err)
	}
	b.away(t, left[0])
	if ends := b.log.of(event.KindSandboxStop); len(ends) != 1 || !strings.Contains(ends[0].Reason, "cut short") {
		t.Errorf("ends: %+v", ends)
	}
}

// A sandbox that lives is not touched while the gateway does not say what it
// holds, or when the time is up in the middle; the next round finds it as it
// was.
func TestWhatCannotBeTakenOverNowIsTakenOverLater(t *testing.T) {
	b := newBench(t, "")
	dir := b.directory(t, "00000007")
	self, err := ProcessOf(os.Getpid()) // lives, and would not survive being ended
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.New(dir, "00000007", time.Now()); err != nil {
		t.Fatal(err)
	}
	r := Record{ID: "00000007", Number: 7, Scope: "org:o/team:t/agent:a/sandbox:00000007", Started: true, Init: self, OwnUID: true, UID: 1 << 30}
	if err := r.save(dir); err != nil {
		t.Fatal(err)
	}
	left, err := b.Leftovers()
	if err != nil || len(left) != 1 || !left[0].Lives() {
		t.Fatal(left, err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for name, try := range map[string]func() (bool, error){
		"no answer": func() (bool, error) {
			return b.TakeOver(t.Context(), left[0], func(uint32) (*Listeners, error) { return nil, wire.ErrClosed })
		},
		"the time is up": func() (bool, error) {
			return b.TakeOver(over, left[0], func(uint32) (*Listeners, error) { return nil, nil })
		},
	} {
		ok, err := try()
		if ok || !errors.Is(err, ErrLater) {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
		if gone(dir) || len(b.Ending()) != 0 || len(b.fence.forgotten) != 0 || len(b.log.of(event.KindSandboxStop)) != 0 {
			t.Errorf("%s: something was done to it", name)
		}
		uid, err := b.o.UIDs.Take(1 << 30)
		if err != nil {
			t.Errorf("%s: the next round does not get its uid: %v", name, err)
		}
		uid.Release()
	}
	// The control: with an answer and time it is one that cannot be adopted.
	ok, err := b.TakeOver(t.Context(), left[0], func(uint32) (*Listeners, error) { return nil, nil })
	if ok || !errors.Is(err, errNoFence) {
		t.Errorf("%v, %v", ok, err)
	}
	b.Severed()
	b.wg.Wait()
	if !gone(dir) || len(b.log.of(event.KindSandboxStop)) != 1 {
		t.Error("it was not put away")
	}
}

// The uid of one whose workspace is not handed back is nobody else's.
func TestTheUIDOfAnEndedSandboxIsHeld(t *testing.T) {
	b := newBench(t, "")
	s := b.leftover(Leftover{dir: b.directory(t, "00000007"), Record: Record{ID: "00000007", Number: 7, OwnUID: true, UID: 1 << 30}})
	problems, err := b.sever(s)
	if err != nil || problems != nil {
		t.Fatal(problems, err)
	}
	if uid, err := b.o.UIDs.Take(1 << 30); err == nil {
		uid.Release()
		t.Error("its uid is free before its workspace was handed back")
	}
	b.clearAway(s, nil)
	uid, err := b.o.UIDs.Take(1 << 30)
	if err != nil {
		t.Fatalf("its uid is not free afterwards: %v", err)
	}
	uid.Release()
}

// No table goes while something of a former keeper is judged on one that
// nobody knows.
func TestSweepLeavesTheTablesOfWhatIsKept(t *testing.T) {
	for name, keep := range map[string]func(*bench){
		"adopted processes": func(b *bench) { b.kept = append(b.kept, place{"00000005", "/nowhere"}) },
		"processes that do not end": func(b *bench) {
			b.stuck = append(b.stuck, &Sandbox{Record: Record{ID: "00000005"}})
		},
	} {
		b := newBench(t, "")
		b.fence.pinned, b.fence.tables = []uint32{5}, []uint32{50}
		b.reserved[5] = teamName{}
		keep(b)
		if err := b.Sweep(); err != nil || len(b.fence.dropped) != 0 || len(b.fence.forgotten) != 0 {
			t.Errorf("%s: dropped %d, forgotten %d, %v", name, b.fence.dropped, b.fence.forgotten, err)
		}
	}
}

func TestSweepRemovesWhatNobodyOwns(t *testing.T) {
	b := newBench(t, "")
	b.fence.pinned, b.fence.tables = []uint32{5, 6, NodeOwn + 1}, []uint32{50, 60, NodeOwn + 1}
	b.reserved[5], b.tables[50] = teamName{}, true
	if err := b.Sweep(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(b.fence.forgotten, []uint32{6}) || !slices.Equal(b.fence.dropped, []uint32{60}) {
		t.Errorf("forgotten %d, dropped %d", b.fence.forgotten, b.fence.dropped)
	}
}

func TestALostWorkspaceIsReported(t *testing.T) {
	b := newBench(t, "")
	s := b.leftover(Leftover{dir: b.directory(t, "00000007"), Record: Record{ID: "00000007", Number: 7, Started: true, Handback: true,
		Scope: "org:o/team:t/agent:a/sandbox:00000007", Workspace: filepath.Join(t.TempDir(), "moved-away")}})
	if err := b.discard(s); err != nil {
		t.Fatal(err)
	}
	found := b.log.of(event.KindWorkspace)
	if len(found) != 1 || found[0].Severity != event.SeverityHigh || !strings.Contains(found[0].Path, "moved-away") {
		t.Errorf("events: %+v", found)
	}
}

func TestTheWildcardBudgetSurvivesTheKeeper(t *testing.T) {
	b := newBench(t, "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: org:o\negress:\n  - {id: w, allow: \"*.wild.example:443\"}\n  - {id: e, allow: \"exact.example:443\"}\n")
	dir := b.directory(t, "00000007")
	if _, err := ca.New(dir, "00000007", time.Now()); err != nil {
		t.Fatal(err)
	}
	names, err := OpenNames(filepath.Join(dir, "names"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"a.wild.example", "b.wild.example", "exact.example"} {
		if _, _, err := names.Allocate(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := names.Close(); err != nil {
		t.Fatal(err)
	}
	s := b.leftover(Leftover{dir: dir, Record: Record{ID: "00000007", Number: 7, Scope: "org:o/team:t/agent:a/sandbox:00000007"}})
	if err := s.restore(); err != nil {
		t.Fatal(err)
	}
	defer s.names.Close()
	if s.wildcards.total != 2 {
		t.Errorf("%d names counted, want 2", s.wildcards.total)
	}
}

func TestDiscardClosesTheConversationWithInit(t *testing.T) {
	b := newBench(t, "")
	conn, peer, err := confine.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	s := b.leftover(Leftover{dir: b.directory(t, "00000007"), Record: Record{ID: "00000007", Number: 7}})
	s.control = newControl(conn)
	if err := b.discard(s); err != nil {
		t.Fatal(err)
	}
	if n, err := peer.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("init still has a peer: %d, %v", n, err)
	}
}

func TestAGatewayThatFailsIsToldToForget(t *testing.T) {
	b := newBench(t, "")
	var removed []uint32
	b.o.Gateway = gatewayFunc(func(t wire.Type) error {
		if t == wire.TypeSandboxRemove {
			removed = append(removed, 1)
			return nil
		}
		return errors.New("took it, and then the connection broke")
	})
	names, err := OpenNames(filepath.Join(t.TempDir(), "names"))
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close()
	s := b.leftover(Leftover{Record: Record{ID: "00000007", Number: 7}})
	s.names, s.listeners = names, &Listeners{}
	l := &launch{founding: founding{m: b.Manager, s: s}}
	if err := l.gateway(t.Context()); err == nil {
		t.Fatal("no error")
	}
	for _, undo := range l.undo {
		undo()
	}
	if len(removed) != 1 {
		t.Errorf("removed %d times", len(removed))
	}
}

type gatewayFunc func(t wire.Type) error

func (f gatewayFunc) Call(_ context.Context, t wire.Type, _ []byte, _ ...*os.File) ([]byte, []*os.File, error) {
	return nil, nil, f(t)
}

// A gateway tells of sandboxes before they are taken over: they are not nobody's.
func TestLeftoversAreKnownAtOnce(t *testing.T) {
	b := newBench(t, "")
	dir := b.directory(t, "0a0b0c0d")
	r := &Record{ID: "0a0b0c0d", Number: 0x0a0b0c0d, Scope: "org:local/team:default/agent:a/sandbox:0a0b0c0d"}
	if err := r.save(dir); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.Principal("0a0b0c0d"); ok {
		t.Fatal("it is known already")
	}
	if _, err := b.Leftovers(); err != nil {
		t.Fatal(err)
	}
	if p, ok := b.Principal("0a0b0c0d"); !ok || p.String() != r.Scope {
		t.Errorf("%v %v", p, ok)
	}
}
