// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ringfence/ringfence/bpf"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/test/env"
)

// kernelTables is a fenced cgroup without any process whose tables are written as
// those of sandboxes are: whole under a new number, then the state is switched,
// then the old number is dropped.
type kernelTables struct {
	fence        *kernel.Fence
	box          *kernel.Sandbox
	names, cidrs *ebpf.Map
	table        uint32

	mu    sync.Mutex
	snaps map[uint64]*policy.Snapshot // for the names of rules
}

func newKernelTables(t *testing.T) *kernelTables {
	t.Helper()
	if os.Geteuid() != 0 {
		env.Lack(t, true, "root: loads programs into the kernel")
	}
	k := &kernelTables{snaps: map[uint64]*policy.Snapshot{}, table: 1}
	pin := t.TempDir()
	var err error
	if k.fence, err = kernel.Open(kernel.Options{PinDir: pin, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.fence.Remove(); err != nil {
			t.Error(err)
		}
	})
	root, err := kernel.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	cgroup, err := os.MkdirTemp(root, "ringfence-test-reload-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(cgroup); err != nil {
			t.Error(err)
		}
	})
	if k.box, err = k.fence.AttachSandbox(cgroup, kernel.State{Sandbox: 1, Policy: 1, Generation: 1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.box.Detach(); err != nil {
			t.Error(err)
		}
	})
	k.names, k.cidrs = pinned(t, pin, "names"), pinned(t, pin, "cidrs")
	return k
}

// pinned opens a map of the fence.
func pinned(t *testing.T, pin, name string) *ebpf.Map {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(pin, "*", "maps", name))
	if err != nil || len(found) != 1 {
		t.Fatalf("the pin of %s: %v %v", name, found, err)
	}
	m, err := ebpf.LoadPinnedMap(found[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// put brings a snapshot into the kernel.
func (k *kernelTables) put(t *testing.T, snap *policy.Snapshot) {
	k.mu.Lock()
	k.snaps[snap.Revision()] = snap
	k.mu.Unlock()
	view := snap.View(policy.QuizSandbox)
	var names []kernel.NameEntry
	for i, host := range policy.QuizHosts {
		names = append(names, sandbox.NameEntries(virtual(i), view.Name(host))...)
	}
	old := k.table
	k.table++
	err := errors.Join(k.fence.PutNames(k.table, names), k.fence.PutCIDRs(k.table, sandbox.CIDREntries(view)))
	if err == nil {
		err = k.box.SetState(kernel.State{Sandbox: 1, Policy: k.table, Generation: uint32(snap.Revision())})
	}
	if err = errors.Join(err, k.fence.DropPolicy(old)); err != nil {
		t.Error(err)
	}
}

// virtual is the address of the nth name.
func virtual(n int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 1, byte(n)}) }

// looked is how much of the tables was compared.
type looked struct{ entries, revisions int }

// watch compares the tables in force with the oracle until the load has ended,
// again and again. The returned function waits for that.
func (k *kernelTables) watch(t *testing.T, l *load) func() looked {
	var n looked
	var entries atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		last := uint64(0)
		for {
			select {
			case <-l.stop:
				return
			default:
			}
			rev, count, ok := k.look(t, l)
			if !ok {
				continue
			}
			entries.Add(int64(count))
			if rev != last {
				n.revisions++
			}
			last = rev
		}
	}()
	return func() looked {
		<-done
		n.entries = int(entries.Load())
		return n
	}
}

// look compares all entries of one table. What was read while the state left the
// table does not count: it is dropped then.
func (k *kernelTables) look(t *testing.T, l *load) (rev uint64, entries int, ok bool) {
	st, err := k.box.Enforced()
	if err != nil {
		t.Error(err)
		return 0, 0, false
	}
	rev = uint64(st.Generation)
	set, known := l.sets.Load(rev)
	if !known {
		return 0, 0, false // of the time before the first change
	}
	k.mu.Lock()
	snap := k.snaps[rev]
	k.mu.Unlock()
	var wrong []string
	for _, e := range l.quiz.Entries(set.(int)) {
		found, opens, num, err := k.lookup(st.Policy, e)
		ref, _, _ := snap.Rule(num)
		switch {
		case err != nil:
			wrong = append(wrong, err.Error())
		case opens != e.Opens, found && e.Rule != "" && ref.String() != e.Rule, !found && e.Host == "" && e.Rule != "":
			wrong = append(wrong, describe(e)+": the table has "+ref.String()+", the oracle "+e.Rule)
		}
		entries++
	}
	if now, err := k.box.Enforced(); err != nil || now != st {
		return 0, 0, false
	}
	for _, msg := range wrong {
		t.Errorf("revision %d in the kernel: %s", rev, msg)
	}
	return rev, entries, true
}

// lookup asks the maps as the programs do: the port's own group, then that of
// port 0.
func (k *kernelTables) lookup(table uint32, e policy.Entry) (found, opens bool, rule uint32, err error) {
	for _, port := range []uint16{e.Port, 0} {
		if e.Host != "" {
			var v bpf.FenceRfNameValue
			key := bpf.FenceRfNameKey{Policy: table, Addr: virtual(nth(e.Host)).As4(), Port: port, Proto: uint8(e.Proto)}
			err = k.names.Lookup(&key, &v)
			opens, rule = true, v.Rule
		} else {
			var v bpf.FenceRfCidrValue
			key := bpf.FenceRfCidrKey{Prefixlen: 64 + 128, Policy: table, Proto: uint8(e.Proto), Port: port, Addr: e.Addr.As16()}
			err = k.cidrs.Lookup(&key, &v)
			opens, rule = v.Allow == uint8(bpf.FenceRfVerdictKindRF_ALLOW), v.Rule
		}
		if err == nil {
			return true, opens, rule, nil
		}
		if !errors.Is(err, ebpf.ErrKeyNotExist) {
			return false, false, 0, err
		}
	}
	return false, false, 0, nil
}

func nth(host string) int {
	for i, h := range policy.QuizHosts {
		if h == host {
			return i
		}
	}
	return -1
}
