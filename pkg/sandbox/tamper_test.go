// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/bpf"
	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/seccomp"
)

// letAll is a program that lets everything through, of the same type as ours.
func letAll(tb testing.TB, typ ebpf.ProgramType, attach ebpf.AttachType, before ...asm.Instruction) *ebpf.Program {
	tb.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "let_all", Type: typ, AttachType: attach, License: "Dual BSD/GPL",
		Instructions: append(before, asm.Mov.Imm(asm.R0, 1), asm.Return())})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { p.Close() })
	return p
}

// useStorage is code that uses the cgroup storage of the program on lnk: since
// Linux 7 (seen on 7.3) no program over other storage can take its place.
func useStorage(l *live, lnk link.Link) asm.Instructions {
	l.tb.Helper()
	about, err := lnk.Info()
	l.must(err)
	p, err := ebpf.NewProgramFromID(about.Program)
	l.must(err)
	defer p.Close()
	info, err := p.Info()
	l.must(err)
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		l.must(err)
		l.tb.Cleanup(func() { m.Close() })
		if m.Type() == ebpf.CGroupStorage {
			return asm.Instructions{asm.LoadMapPtr(asm.R1, m.FD()), asm.Mov.Imm(asm.R2, 0), asm.FnGetLocalStorage.Call()}
		}
	}
	l.tb.Fatal("the program on the link has no cgroup storage")
	return nil
}

// mend undoes a tampering; nil where that is not possible.
type mend func() error

// tamperings are what root can do to a sandbox behind the keeper's back, and
// where attestation finds it.
var tamperings = []struct {
	name  string
	layer string
	says  string
	do    func(l *live, s *Sandbox) mend
}{
	{"a link is detached", LayerNetwork, "connect4: the link was detached", func(l *live, s *Sandbox) mend {
		lnk := l.pinned(s.Record.Number, "connect4")
		defer lnk.Close()
		l.must(lnk.Detach())
		return nil
	}},
	{"a link runs another program", LayerNetwork, `("let_all", tag`, func(l *live, s *Sandbox) mend {
		lnk := l.pinned(s.Record.Number, "connect6")
		defer lnk.Close()
		l.must(lnk.Update(letAll(l.tb, ebpf.CGroupSockAddr, ebpf.AttachCGroupInet6Connect, useStorage(l, lnk)...)))
		return nil
	}},
	{"the packet hook is gone", LayerNetwork, "egress: the link was detached", func(l *live, s *Sandbox) mend {
		lnk := l.pinned(s.Record.Number, "egress")
		defer lnk.Close()
		l.must(lnk.Detach())
		return nil
	}},
	{"steering is detached", LayerNetwork, "steer: ", func(l *live, s *Sandbox) mend {
		lnk := l.pinned(s.Record.Number, "steer")
		defer lnk.Close()
		l.must(lnk.Detach())
		return nil
	}},
	{"steering runs another program", LayerNetwork, "steer: runs program", func(l *live, s *Sandbox) mend {
		lnk := l.pinned(s.Record.Number, "steer")
		defer lnk.Close()
		l.must(lnk.Update(letAll(l.tb, ebpf.SkLookup, ebpf.AttachSkLookup)))
		return nil
	}},
	{"the state is altered", LayerNetwork, "state: table 12345 ", func(l *live, s *Sandbox) mend {
		m := l.table("state")
		var old bpf.FenceRfState
		l.must(m.Lookup(s.Record.CgroupID, &old))
		other := old
		other.Policy = 12345
		l.must(m.Update(s.Record.CgroupID, other, ebpf.UpdateExist))
		return func() error { return m.Update(s.Record.CgroupID, old, ebpf.UpdateExist) }
	}},
	{"the generation is altered", LayerNetwork, "generation 77 ", func(l *live, s *Sandbox) mend {
		m := l.table("state")
		var old bpf.FenceRfState
		l.must(m.Lookup(s.Record.CgroupID, &old))
		other := old
		other.Generation = 77
		l.must(m.Update(s.Record.CgroupID, other, ebpf.UpdateExist))
		return func() error { return m.Update(s.Record.CgroupID, old, ebpf.UpdateExist) }
	}},
	{"the cgroup is not registered", LayerNetwork, "records: the cgroup is not registered", func(l *live, s *Sandbox) mend {
		m := l.table("members")
		l.must(m.Delete(s.Record.CgroupID))
		return func() error { return m.Put(s.Record.CgroupID, s.Record.Number) }
	}},
	{"an address rule is altered", LayerNetwork, `"deny 203.0.113.7/32 port 443 protocol 6" is not there any more`, func(l *live, s *Sandbox) mend {
		m, key, old := l.denial(s)
		other := old
		other.Allow = uint8(bpf.FenceRfVerdictKindRF_ALLOW)
		l.must(m.Update(key, other, ebpf.UpdateExist))
		return func() error { return m.Update(key, old, ebpf.UpdateExist) }
	}},
	{"a denial within an allowed prefix is removed", LayerNetwork, `"deny 203.0.113.7/32 port 443 protocol 6" is not there any more`, func(l *live, s *Sandbox) mend {
		m, key, old := l.denial(s)
		l.must(m.Delete(key))
		return func() error { return m.Put(key, old) }
	}},
	{"an address rule is added", LayerNetwork, `"allow 198.51.100.0/24 port 0 protocol 6" was not written`, func(l *live, s *Sandbox) mend {
		l.must(l.fence.PutCIDRs(s.table, []kernel.CIDREntry{{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Proto: kernel.ProtoTCP, Allow: true}}))
		m := l.table("cidrs")
		return func() error {
			return m.Delete(bpf.FenceRfCidrKey{Prefixlen: 64 + 96 + 24, Policy: s.table, Proto: 6, Addr: netip.MustParseAddr("198.51.100.0").As16()})
		}
	}},
	{"a name's address is added", LayerNetwork, `"allow 198.18.200.7 port 22 protocol 6" was not written`, func(l *live, s *Sandbox) mend {
		one := []kernel.NameEntry{{Addr: netip.MustParseAddr("198.18.200.7"), Port: 22, Proto: kernel.ProtoTCP}}
		l.must(l.fence.PutNames(s.table, one))
		return func() error { return l.fence.DeleteNames(s.table, one) }
	}},
	{"a foreign process is moved in", LayerCalls, "has no system call filter", func(l *live, s *Sandbox) mend {
		pid := l.sleeper()
		l.move(pid, s.Record.Cgroup)
		return func() error { l.move(pid, l.base); return nil }
	}},
	{"a foreign process is moved into a cgroup below", LayerNamespaces, "is in another mnt, net, pid, ipc, uts, cgroup namespace", func(l *live, s *Sandbox) mend {
		pid, below := l.sleeper(), filepath.Join(s.Record.Cgroup, "below")
		l.must(os.Mkdir(below, 0o755))
		l.move(pid, below)
		return func() error { l.move(pid, l.base); return nil }
	}},
	{"a foreign process whose first thread has ended", LayerCalls, "has no system call filter", func(l *live, s *Sandbox) mend {
		pid := l.headless(s)
		return func() error {
			err := syscall.Kill(pid, syscall.SIGKILL)
			l.until("it has ended", func() bool {
				tids, err := cgroupThreads(s.Record.Cgroup)
				return err == nil && !slices.ContainsFunc(tids, func(tid int) bool {
					st, err := readStatus(tid)
					return err == nil && st["Tgid"] == strconv.Itoa(pid)
				})
			})
			return err
		}
	}},
	{"a process is moved out", LayerProcesses, "is in the sandbox's pid, net, mnt namespace and not in its cgroup", func(l *live, s *Sandbox) mend {
		pid := l.agent(s)
		l.move(pid, l.base)
		return func() error { l.move(pid, s.Record.Cgroup); return nil }
	}},
	{"the first process is moved out", LayerProcesses, "is not in the cgroup", func(l *live, s *Sandbox) mend {
		pid := s.Record.Init.PID
		l.move(pid, l.base)
		return func() error { l.move(pid, s.Record.Cgroup); return nil }
	}},
}

// documents give a sandbox a denial within an allowed prefix, and a name.
const documents = `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: test}
scope: org:local
egress:
  - {id: net, allow: "203.0.113.0/24:443"}
  - {id: one, deny: "203.0.113.7/32", reason: "not this one"}
  - {id: name, allow: "api.example.com:443"}
`

// denial finds the denial of documents in a sandbox's table.
func (l *live) denial(s *Sandbox) (*ebpf.Map, bpf.FenceRfCidrKey, bpf.FenceRfCidrValue) {
	l.tb.Helper()
	m := l.table("cidrs")
	var k bpf.FenceRfCidrKey
	var v bpf.FenceRfCidrValue
	for it := m.Iterate(); it.Next(&k, &v); {
		if k.Policy == s.table && k.Prefixlen == 64+128 && k.Port == 443 && k.Proto == 6 && v.Allow == 0 {
			return m, k, v
		}
	}
	l.tb.Fatal("the table holds no such denial")
	return nil, k, v
}

func (l *live) must(err error) {
	l.tb.Helper()
	if err != nil {
		l.tb.Fatal(err)
	}
}

func (l *live) pinned(number uint32, name string) link.Link {
	l.tb.Helper()
	lnk, err := link.LoadPinnedLink(l.pin(number, name), nil)
	l.must(err)
	return lnk
}

func (l *live) table(name string) *ebpf.Map {
	l.tb.Helper()
	found, err := filepath.Glob(filepath.Join(l.pins, "ringfence-v*", "maps", name))
	if err != nil || len(found) != 1 {
		l.tb.Fatal(found, err)
	}
	m, err := ebpf.LoadPinnedMap(found[0], nil)
	l.must(err)
	l.tb.Cleanup(func() { m.Close() })
	return m
}

// round is one interval of attestation.
func (l *live) round() {
	list := l.List()
	l.attestMachine(list)
	l.attestKernelTables()
	for _, s := range list {
		l.attestOne(s, suspicions{})
	}
}

// attested are the events of attestation about one sandbox.
func (l *live) attested(s *Sandbox) (out []event.Event) {
	for _, e := range l.log.of(event.KindTamper) {
		if e.Sandbox == s.Record.ID && e.Activity == "attest" {
			out = append(out, e)
		}
	}
	return out
}

func state(s *Sandbox, layer string) Layer {
	all, _ := s.Layers()
	return all[slices.IndexFunc(all, func(l Layer) bool { return l.Name == layer })]
}

// With onDifference: report a tampered sandbox goes on, there is one critical
// event, the layer is broken until the cause is gone, and a sandbox beside it
// is not touched.
func TestTamperingIsReported(t *testing.T) {
	l := newLive(t, Attestation{ReportOnly: true}, documents)
	beside := l.idle()
	if _, err := beside.Resolve("api.example.com"); err != nil { // a name of its own in the tables
		t.Fatal(err)
	}
	for _, c := range tamperings {
		t.Run(c.name, func(t *testing.T) {
			s := l.idle()
			l.agent(s)
			l.round() // the control
			if evs := l.attested(s); len(evs) > 0 {
				t.Fatalf("before anything was done: %+v", evs)
			}
			undo := c.do(l, s)
			l.round()
			l.round() // it is told once
			evs := l.attested(s)
			if len(evs) != 1 || evs[0].Severity != event.SeverityCritical || !strings.Contains(evs[0].Detail, c.says) || evs[0].IsDenial() {
				t.Fatalf("events: %+v, want one that says %q", evs, c.says)
			}
			if got := state(s, c.layer); got.State != LayerBroken || !strings.Contains(got.Detail, c.says) {
				t.Errorf("layer: %+v", got)
			}
			if s.State() != Running {
				t.Errorf("it is %s", s.State())
			}
			if undo != nil {
				l.must(undo())
				l.round()
				if got := state(s, c.layer); got.State != LayerEnforced {
					t.Errorf("after it was undone: %+v", got)
				}
				if evs := l.attested(s); len(evs) != 2 || evs[1].ReasonCode != "attestation-restored" {
					t.Errorf("events after it was undone: %+v", evs)
				}
			}
			s.Stop(0)
			l.ended(s)
		})
	}
	if evs := l.attested(beside); len(evs) > 0 {
		t.Errorf("the sandbox beside them: %+v", evs)
	}
}

// By default a tampered sandbox is stopped.
func TestATamperedSandboxIsStopped(t *testing.T) {
	l := newLive(t, Attestation{}, documents)
	beside := l.idle()
	if _, err := beside.Resolve("api.example.com"); err != nil { // a name of its own in the tables
		t.Fatal(err)
	}
	for _, c := range tamperings {
		t.Run(c.name, func(t *testing.T) {
			s := l.idle()
			l.agent(s)
			c.do(l, s)
			l.round()
			l.ended(s)
			if evs := l.attested(s); len(evs) != 1 || evs[0].Severity != event.SeverityCritical || !evs[0].IsDenial() {
				t.Errorf("events: %+v", evs)
			}
			if why := s.Exit().Why; !strings.Contains(why, "walls") {
				t.Errorf("it ended for %q", why)
			}
		})
	}
	l.round()
	if beside.State() != Running || len(l.attested(beside)) > 0 {
		t.Errorf("the sandbox beside them is %s: %+v", beside.State(), l.attested(beside))
	}
}

// A program of somebody else on the sandbox's cgroup cannot open what ours
// closes by its verdict, but what it does is not ours to say: degraded, not
// stopped. On a cgroup above it is what machines have, and only named.
func TestAProgramOfSomebodyElseIsTolerated(t *testing.T) {
	l := newLive(t, Attestation{}, "")
	s := l.idle()
	above, err := link.AttachCgroup(link.CgroupOptions{Path: l.base, Attach: ebpf.AttachCGroupInet4Connect, Program: letAll(t, ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect)})
	l.must(err)
	defer above.Close()
	l.round()
	if got := state(s, LayerNetwork); got.State != LayerEnforced {
		t.Errorf("with one above: %+v", got)
	}
	on, err := link.AttachCgroup(link.CgroupOptions{Path: s.Record.Cgroup, Attach: ebpf.AttachCGroupInet4Connect, Program: letAll(t, ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect)})
	l.must(err)
	l.round()
	if got := state(s, LayerNetwork); got.State != LayerDegraded || !strings.Contains(got.Detail, "let_all") {
		t.Errorf("with one on it: %+v", got)
	}
	if evs := l.attested(s); len(evs) != 1 || evs[0].Severity != event.SeverityHigh || evs[0].ReasonCode != "attestation-degraded" {
		t.Errorf("events: %+v", evs)
	}
	l.must(on.Close())
	l.round()
	if got := state(s, LayerNetwork); got.State != LayerEnforced || s.State() != Running {
		t.Errorf("without it: %+v, %s", got, s.State())
	}
}

// Processes that come and go by the hundred make no difference.
func TestForksMakeNoFalseAlarm(t *testing.T) {
	l := newLive(t, Attestation{}, "")
	const storm = `while :; do (true) & (true | true) & wait; done`
	s := l.run("sh", "-c", `i=0; while [ $i -lt 4 ]; do sh -c '`+storm+`' & i=$((i+1)); done; wait`)
	l.agent(s)
	for range 100 {
		if d := s.attest(suspicions{}); len(d) > 0 { // not even a single look
			t.Fatal(d)
		}
	}
	for range 20 {
		l.round()
	}
	if evs := l.attested(s); len(evs) > 0 || s.State() != Running {
		t.Errorf("%s: %+v", s.State(), evs)
	}
}

// A process that ends is long on its way when it has much memory to give back.
// It leaves its namespaces before the list of its cgroup.
func TestALargeProcessThatEndsIsNoStray(t *testing.T) {
	l := newLive(t, Attestation{}, "")
	s := l.run("sh", "-c", `while :; do head -c 300000000 /dev/zero | tail -c 300000000 | true; done`)
	l.agent(s)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		l.round()
	}
	if evs := l.attested(s); len(evs) > 0 || s.State() != Running {
		t.Errorf("%s: %+v", s.State(), evs)
	}
}

// A launch whose probes are not refused is refused, with the layer's name.
func TestALaunchWithoutAWallIsRefused(t *testing.T) {
	all := func(errnos ...unix.Errno) (out []confine.ProbeResult) {
		for i, p := range confine.Probes() {
			out = append(out, confine.ProbeResult{Probe: p, Errno: errnos[i]})
		}
		return out
	}
	if err := judgeProbes(all(unix.EACCES, unix.EACCES, unix.EPERM)); err != nil {
		t.Errorf("all refused: %v", err)
	}
	for _, c := range []struct {
		results []confine.ProbeResult
		missing string
	}{
		{all(0, unix.EACCES, unix.EPERM), "network programs"}, {all(unix.ENETUNREACH, unix.EACCES, unix.EPERM), "network programs"},
		{all(unix.EACCES, 0, unix.EPERM), "Landlock"}, {all(unix.EACCES, unix.ENOENT, unix.EPERM), "Landlock"},
		{all(unix.EACCES, unix.EACCES, unix.EBADF), "system call filter"},
	} {
		err := judgeProbes(c.results)
		if le := (*LaunchError)(nil); !errors.As(err, &le) || le.Code != 125 || le.Missing != c.missing || le.Remedy == "" {
			t.Errorf("%+v: %v", c.results, err)
		}
	}
	for _, c := range []struct {
		noted    kernel.Noted
		recorded bool
		ok       bool
	}{{kernel.Noted{Denials: 1, Refusals: 2}, true, true}, {kernel.Noted{Denials: 1}, false, true}, {kernel.Noted{Denials: 1, Refusals: 1}, true, false}, {kernel.Noted{Refusals: 2}, true, false}} {
		if err := judgeNoted(c.noted, c.recorded); (err == nil) != c.ok {
			t.Errorf("%+v, recorded %v: %v", c.noted, c.recorded, err)
		}
	}
}

// A real launch whose programs are gone before init tries them is refused, and
// nothing is left of it. The control is every other launch.
func TestALaunchWhoseProgramsAreGoneIsRefused(t *testing.T) {
	l := newLive(t, Attestation{ReportOnly: true}, "") // a launch is refused all the same
	for _, c := range []struct{ link, missing string }{{"connect4", "network programs"}, {"egress", LayerNetwork}} {
		l.sabotage = func(number uint32) {
			lnk := l.pinned(number, c.link)
			defer lnk.Close()
			l.must(lnk.Detach())
		}
		_, err := l.Launch(t.Context(), l.request("true"))
		if le := (*LaunchError)(nil); !errors.As(err, &le) || le.Code != 125 || le.Step != "attestation" || le.Missing != c.missing {
			t.Errorf("without %s: %v", c.link, err)
		}
		if left, err := os.ReadDir(l.o.Dir); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
}

// What init tried is no refusal of the agent; the same tried by the agent is.
func TestProbesAreNoDenialsOfTheAgent(t *testing.T) {
	l := newLive(t, Attestation{}, "")
	s := l.run("true")
	l.ended(s)
	l.until("the records of the probes", func() bool { return l.probes.Load() == int64(len(confine.Probes())) })
	if n := l.shown.Load(); n > 0 {
		t.Errorf("%d refusals of an agent that did nothing", n)
	}
	s = l.run("cat", confine.ProbeFile)
	l.ended(s)
	l.until("the refusal of the agent", func() bool { return l.shown.Load() > 0 })
	if n := l.probes.Load(); n != 2*int64(len(confine.Probes())) {
		t.Errorf("%d records were taken for probes of two launches", n)
	}
}

// Only init's own record of exactly a probe is one, and only once.
func TestWhatIsTheRecordOfAProbe(t *testing.T) {
	b := newBench(t, "")
	const number, init = 7, 4711
	head := kernel.Head{Sandbox: number, PID: init}
	nr := func(call string) uint32 {
		n, ok := seccomp.Number(call)
		if !ok {
			t.Skipf("this architecture has no %s", call)
		}
		return n
	}
	verdict := kernel.Verdict{Head: head, Hook: kernel.HookConnect4, Dst: confine.ProbeAddr, Proto: uint16(kernel.ProtoUDP)}
	open := kernel.Refusal{Head: head, Call: nr("openat"), Errno: unix.EACCES, What: []byte(confine.ProbeFile)}
	call := kernel.Refusal{Head: head, Call: nr("setns"), Errno: unix.EPERM, Args: [6]uint64{0xffffffff}}
	if b.Probed(&verdict) {
		t.Error("before the launch")
	}
	b.expectProbes(number, init)
	no := func(name string, r kernel.Record) {
		t.Helper()
		if b.Probed(r) {
			t.Errorf("%s is taken for a probe", name)
		}
	}
	other := verdict
	other.PID = 4712
	no("another process's", &other)
	other = verdict
	other.Sandbox = 8
	no("another sandbox's", &other)
	other = verdict
	other.Dst = netip.AddrPortFrom(confine.ProbeAddr.Addr(), 10)
	no("another port", &other)
	other = verdict
	other.Proto = uint16(kernel.ProtoTCP)
	no("TCP", &other)
	other = verdict
	other.Allowed = true
	no("an allowed one", &other)
	for _, o := range []kernel.Refusal{
		{Head: head, Call: open.Call, Errno: unix.EACCES, What: []byte("/etc/shadow")}, {Head: head, Call: open.Call, Errno: unix.ENOENT, What: open.What},
		{Head: head, Call: call.Call, Errno: unix.EPERM, Args: [6]uint64{3}}, {Head: head, Call: nr("mount"), Errno: unix.EPERM},
	} {
		no("another call", &o)
	}
	no("an exec", &kernel.Exec{Head: head})
	for _, r := range []kernel.Record{&verdict, &open, &call} {
		if !b.Probed(r) {
			t.Errorf("not known as a probe: %+v", r)
		}
		no("a second one", r)
	}
}
