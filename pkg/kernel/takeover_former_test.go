// SPDX-License-Identifier: Apache-2.0

//go:build !ringfence_next

package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/bpf"
)

// layout2Maps are what layout 2 had of that which is taken over, in its own
// forms.
var layout2Maps = map[string]ebpf.MapSpec{
	bpf.FenceMapState:    {Type: ebpf.CGroupStorage, KeySize: 8, ValueSize: 16},
	bpf.FenceMapNames:    {Type: ebpf.Hash, KeySize: 12, ValueSize: 4, MaxEntries: 16},
	bpf.FenceMapCidrs:    {Type: ebpf.LPMTrie, KeySize: 28, ValueSize: 8, MaxEntries: 16, Flags: unix.BPF_F_NO_PREALLOC},
	bpf.FenceMapDenials:  {Type: ebpf.RingBuf, MaxEntries: 1 << 16},
	bpf.FenceMapOutcomes: {Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 3 * uint32(bpf.FenceRfOutcomeRF_OUTCOME_MAX)},
}

// layout2Tree fences a cgroup with programs that deny every connect over IPv4,
// with a record that no later version reads, and judge nothing else.
func layout2Tree(t *testing.T, pin, cgroup string) (dir string) {
	t.Helper()
	dir = filepath.Join(pin, layoutPrefix+"2")
	box := filepath.Join(dir, "sandbox", strconv.Itoa(testSandbox))
	if err := errors.Join(ensureBPFFS(pin), os.MkdirAll(box, 0o700), os.MkdirAll(filepath.Join(dir, "maps"), 0o700)); err != nil {
		t.Fatal(err)
	}
	maps := map[string]*ebpf.Map{}
	for name, spec := range layout2Maps {
		m, err := ebpf.NewMap(&spec)
		if err == nil {
			t.Cleanup(func() { m.Close() })
			err = m.Pin(filepath.Join(dir, "maps", name))
		}
		if err != nil {
			t.Fatal(name, err)
		}
		maps[name] = m
	}
	spec, err := bpf.LoadFence()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hooks {
		ours := spec.Programs[h.prog]
		body := asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}
		if h.attach == ebpf.AttachCGroupInet4Connect {
			body = asm.Instructions{
				asm.LoadMapPtr(asm.R1, maps[bpf.FenceMapState].FD()), asm.Mov.Imm(asm.R2, 0), asm.FnGetLocalStorage.Call(),
				asm.Mov.Imm(asm.R3, 2), asm.StoreMem(asm.RFP, -8, asm.R3, asm.DWord),
				asm.LoadMapPtr(asm.R1, maps[bpf.FenceMapDenials].FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -8),
				asm.Mov.Imm(asm.R3, 8), asm.Mov.Imm(asm.R4, 0), asm.FnRingbufOutput.Call(),
				asm.Mov.Imm(asm.R0, 0), asm.Return(),
			}
		}
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "rf_former", Type: ours.Type, AttachType: ours.AttachType, License: "Dual BSD/GPL", Instructions: body})
		if err != nil {
			if h.optional {
				continue
			}
			t.Fatal(h.name, err)
		}
		l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: h.attach, Program: p})
		if err == nil {
			err = errors.Join(l.Pin(filepath.Join(box, h.name)), l.Close())
		}
		if err = errors.Join(err, p.Close()); err != nil {
			t.Fatal(h.name, err)
		}
	}
	cg, err := openCgroup(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer cg.close()
	// 198.18.0.2:443 by name, 203.0.113.7:80 by address.
	name := []byte{testPolicy, 0, 0, 0, 198, 18, 0, 2, 0xbb, 0x01, 6, 0}
	cidr := append([]byte{64 + 128, 0, 0, 0, testPolicy, 0, 0, 0, 6, 0, 80, 0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 7)
	kept := make([]uint64, ebpf.MustPossibleCPU())
	kept[0] = 17
	if err := errors.Join(
		maps[bpf.FenceMapNames].Put(name, []byte{9, 0, 0, 0}),
		maps[bpf.FenceMapCidrs].Put(cidr, []byte{8, 0, 0, 0, 1, 0, 0, 0}),
		maps[bpf.FenceMapOutcomes].Put(uint32(RingDenials)*uint32(bpf.FenceRfOutcomeRF_OUTCOME_MAX)+uint32(bpf.FenceRfOutcomeRF_KEPT), kept),
		maps[bpf.FenceMapState].Update(cg.id, []byte{testSandbox, 0, 0, 0, testPolicy, 0, 0, 0, 5, 0, 0, 0, byte(FlagLoopback), 0, 0, 0}, ebpf.UpdateExist),
	); err != nil {
		t.Fatal(err)
	}
	return dir
}

// What ran behind layout 2 goes on behind this one, on the same tables and
// state. Its records cannot be read, and are counted.
func TestTakeOverFromLayout2(t *testing.T) {
	needRoot(t)
	pin, cgroup := t.TempDir(), newCgroup(t)
	dir := layout2Tree(t, pin, cgroup)
	in := newNamespace(t).spawn(t, cgroup)
	byName, byAddress := attempt{Op: "tcp", Addr: "198.18.0.2:443"}, attempt{Op: "tcp", Addr: "203.0.113.7:80"}
	for _, a := range []attempt{byName, byAddress, denied} {
		if got := in.try(a); got.Errno != errnoFor(unix.EPERM) {
			t.Fatalf("behind the former programs, %s: %+v", a.Addr, got)
		}
	}
	f := openFence(t, pin)
	defer func() {
		if err := f.Remove(); err != nil {
			t.Error(err)
		}
	}()
	box, err := f.TakeOverSandbox(cgroup, testSandbox)
	if err != nil {
		t.Fatal(err)
	}
	want := State{Sandbox: testSandbox, Policy: testPolicy, Generation: 5, Flags: FlagLoopback}
	if got, err := box.Enforced(); err != nil || got != want {
		t.Errorf("state %+v, %v", got, err)
	}
	if err := box.Attested(); err != nil {
		t.Error(err)
	}
	end, err := f.LeaveFormer(func(r Record) { t.Errorf("a record of layout 2 was read: %+v", r) })
	if err != nil || end.Layout != 2 || end.Unread != 3 || len(end.Counters) != 3 || end.Counters[0].Kept != 17 {
		t.Errorf("left %+v, %v", end, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the former tree: %v", err)
	}
	recs := collect(t, f)
	for _, a := range []attempt{byName, byAddress} { // nobody listens: it is refused, and not denied
		if got := in.try(a); got.Errno == errnoFor(unix.EACCES) || got.Errno == errnoFor(unix.EPERM) {
			t.Errorf("allowed %s: %+v", a.Addr, got)
		}
	}
	if got := in.try(denied); got.Errno != errnoFor(unix.EACCES) {
		t.Errorf("denied: %+v", got)
	}
	find(t, recs, "a record of our programs", func(v *Verdict) bool { return !v.Allowed && v.Generation == 5 && v.Dst.String() == denied.Addr })
	in.end()
	if err := detachSoon(box); err != nil {
		t.Error(err)
	}
}
