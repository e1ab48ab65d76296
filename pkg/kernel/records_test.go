// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/test/env"
)

func TestExecAndExit(t *testing.T) {
	r := newRig(t, 0)
	got := r.in.try(attempt{Op: "exec", Addr: "exec /bin/sh -c 'exit 7' padding " + strings.Repeat("x", 400)})
	var pid, code int
	if _, err := fmt.Sscan(got.Reply, &pid, &code); err != nil || code != 7 {
		t.Fatalf("%+v: %v", got, err)
	}
	e := find(t, r.recs, "exec", func(e *Exec) bool { return int(e.PID) == pid && len(e.Args) > 2 && e.Args[2] == "exit 7" })
	if e.Sandbox != testSandbox || e.Filename != "/bin/sh" || e.UID != uint32(os.Geteuid()) || !e.ArgsCut {
		t.Errorf("exec %+v", e)
	}
	if len(e.Ancestors) < 2 || int(e.Ancestors[0].PID) != got.PID || int(e.Ancestors[1].PID) != os.Getpid() || e.Ancestors[1].Comm == "" {
		t.Errorf("ancestors %+v, want %d, %d ...", e.Ancestors, got.PID, os.Getpid())
	}
	x := find(t, r.recs, "exit", func(x *Exit) bool { return int(x.PID) == pid })
	if !x.Status.Exited() || x.Status.ExitStatus() != 7 || int(x.PPID) != got.PID || x.Started.After(x.Time) {
		t.Errorf("exit %+v", x)
	}
	if d := time.Since(x.Time); d < 0 || d > time.Minute {
		t.Errorf("exit at %v", x.Time)
	}
	// The control: the same outside is not recorded.
	got = r.out.try(attempt{Op: "exec", Addr: "exit 7"})
	r.in.try(attempt{Op: "exec", Addr: "exit 8"})
	find(t, r.recs, "exit 8", func(x *Exit) bool { return x.Status.ExitStatus() == 8 })
	fmt.Sscan(got.Reply, &pid, &code)
	for _, rec := range r.recs.all() {
		if e, ok := rec.(*Exec); ok && int(e.PID) == pid {
			t.Errorf("recorded a process outside: %+v", e)
		}
	}
}

// What is produced is delivered or counted as lost, to the last record.
func TestEveryRecordIsAccounted(t *testing.T) {
	r := newRig(t, FlagDNS)
	const n = 20000
	before := losses(t, r.fence)
	got := r.in.try(attempt{Op: "flood-connect", Addr: "8.8.8.8:443", N: n})
	if got.Reply != fmt.Sprint(n) {
		t.Fatalf("%+v", got)
	}
	got = r.in.try(attempt{Op: "flood-connect", Addr: "8.8.8.8:53", N: n})
	if got.Reply != "0" {
		t.Fatalf("%+v", got)
	}
	after := losses(t, r.fence)
	for ring, allowed := range map[Ring]bool{RingDenials: false, RingFlows: true} {
		c := RingCounters{Kept: after[ring].Kept - before[ring].Kept, Full: after[ring].Full - before[ring].Full, Throttled: after[ring].Throttled - before[ring].Throttled}
		if c.Produced() != n {
			t.Errorf("%v: produced %d of %d: %+v", ring, c.Produced(), n, c)
		}
		if c.Throttled == 0 {
			t.Errorf("%v: a flood was not throttled: %+v", ring, c)
		}
		var delivered uint64
		for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline) && delivered < c.Kept; time.Sleep(10 * time.Millisecond) {
			delivered = 0
			for _, rec := range r.recs.all() {
				if v, ok := rec.(*Verdict); ok && v.Allowed == allowed && v.Hook == HookConnect4 {
					delivered++
				}
			}
		}
		if delivered != c.Kept {
			t.Errorf("%v: delivered %d, kept %d", ring, delivered, c.Kept)
		}
		if own := lossesOf(t, r.fence, testSandbox)[ring]; own != after[ring] {
			t.Errorf("the only sandbox's %+v are not the node's %+v", own, after[ring])
		}
	}
	var denied uint64
	counts, err := r.fence.Verdicts()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range counts {
		if v.Hook == HookConnect4 && !v.Allowed && v.Reason == ReasonNoRule {
			denied += v.Count
		}
	}
	if denied != n {
		t.Errorf("counted %d denials of %d", denied, n)
	}
}

// A ring that nobody reads loses records, counts them, and changes no verdict.
// Who fills it leaves room for those that say little.
func TestFullRingStillDenies(t *testing.T) {
	needRoot(t)
	f, err := Open(Options{PinDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler), DenialRing: uint32(os.Getpagesize())})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Remove()
	cgroup := newCgroup(t)
	box, err := f.AttachSandbox(cgroup, State{Sandbox: testSandbox, Policy: testPolicy})
	if err != nil {
		t.Fatal(err)
	}
	in := newNamespace(t).spawn(t, cgroup)
	if got := in.try(attempt{Op: "flood-connect", Addr: "8.8.8.8:443", N: 500}); got.Reply != "500" {
		t.Errorf("%+v", got)
	}
	if c := losses(t, f)[RingDenials]; c.Lost() == 0 || c.Produced() != 500 {
		t.Errorf("%+v", c)
	}
	beside := newCgroup(t)
	second, err := f.AttachSandbox(beside, State{Sandbox: testSandbox + 1, Policy: testPolicy})
	if err != nil {
		t.Fatal(err)
	}
	quiet := newNamespace(t).spawn(t, beside)
	for range 2 {
		if got := quiet.try(attempt{Op: "tcp", Addr: "8.8.8.8:443"}); got.Errno == 0 {
			t.Errorf("%+v", got)
		}
	}
	if c := lossesOf(t, f, testSandbox+1)[RingDenials]; c.Kept != 2 || c.Lost() != 0 {
		t.Errorf("the neighbour of a flood: %+v", c)
	}
	for range 20 { // the rest of it is full in the end, whoever fills it
		quiet.try(attempt{Op: "tcp", Addr: "8.8.8.8:443"})
	}
	if c := lossesOf(t, f, testSandbox+1)[RingDenials]; c.Lost() == 0 || c.Produced() != 22 {
		t.Errorf("%+v", c)
	}
	in.end()
	quiet.end()
	if err := detachSoon(second); err != nil {
		t.Error(err)
	}
	if err := detachSoon(box); err != nil {
		t.Error(err)
	}
}

func lossesOf(t *testing.T, f *Fence, sandbox uint32) [len(Rings)]RingCounters {
	t.Helper()
	c, err := f.LossesOf(sandbox)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Programs that start and end have a share of their own: a flood of them is
// counted to the last one and pushes out no denial.
func TestProcessFlood(t *testing.T) {
	r := newRig(t, 0)
	before := losses(t, r.fence)
	const n = 4000
	begin := time.Now()
	r.in.try(attempt{Op: "exec", Addr: fmt.Sprintf("i=0; while [ $i -lt %d ]; do (:); i=$((i+1)); done", n)})
	r.in.try(attempt{Op: "tcp", Addr: "192.0.2.1:443"})
	find(t, r.recs, "a verdict", func(v *Verdict) bool { return !v.Allowed && v.Dst.Port() == 443 })
	after := losses(t, r.fence)
	c := after[RingProcesses]
	if made := c.Produced() - before[RingProcesses].Produced(); made < n {
		t.Errorf("%d records of %d processes", made, n)
	}
	windows := uint64(time.Since(begin)/(100*time.Millisecond)) + 2
	if most := windows * 500; c.Kept-before[RingProcesses].Kept > most {
		t.Errorf("%+v: more than the share of %d", c, most)
	}
	if d := after[RingDenials]; d.Lost() != 0 {
		t.Errorf("it took denials along: %+v", d)
	}
}

// A denial names its process for good: program, command and the chain above,
// also of a child that executed nothing itself.
func TestOrigin(t *testing.T) {
	r := newRig(t, 0)
	const inAFork = "( : <>/dev/tcp/192.0.2.7/99 ) 2>/dev/null; true"
	got := r.in.try(attempt{Op: "exec", Addr: "exec bash -c '" + inAFork + "' marked"})
	if got.Errno != 0 {
		t.Fatalf("%+v", got)
	}
	v := find(t, r.recs, "a denial", func(v *Verdict) bool { return v.Dst.Port() == 99 })
	p, ok, err := r.fence.ProgramOf(v.PID, &v.Origin, nil)
	if err != nil || !ok || !strings.HasSuffix(p.Filename, "bash") || len(p.Args) != 4 || p.Args[3] != "marked" {
		t.Errorf("program %+v, %v, %v", p, ok, err)
	}
	if len(v.Ancestors) < 3 || v.Ancestors[0].Comm != "bash" || int(v.Ancestors[1].PID) != got.PID || v.PPID() != v.Ancestors[0].PID {
		t.Errorf("ancestors %+v, want bash, %d ...", v.Ancestors, got.PID)
	}
	// Where the kernel has forgotten it, somebody else may know.
	if err := r.fence.maps.Programs.Delete(v.Ancestors[0].PID); err != nil {
		t.Fatal(err)
	}
	remembered := func(start uint64) func(uint32) (Ran, bool) {
		return func(pid uint32) (Ran, bool) {
			return Ran{Program: Program{Filename: "remembered"}, Start: start}, pid == v.Ancestors[0].PID
		}
	}
	if p, _, _ := r.fence.ProgramOf(v.PID, &v.Origin, remembered(v.Start)); p.Filename != "remembered" {
		t.Errorf("%+v", p)
	}
	for what, forgotten := range map[string]func(uint32) (Ran, bool){"nobody": nil, "of a later process": remembered(v.Start + 1)} {
		if p, _, _ := r.fence.ProgramOf(v.PID, &v.Origin, forgotten); p.Filename == "remembered" || len(p.Args) == 4 {
			t.Errorf("%s: %+v", what, p)
		}
	}
	// A later process with that number is another one.
	o := v.Origin
	o.Start++
	o.Ancestors = nil
	if p, ok, _ := r.fence.ProgramOf(v.Ancestors[1].PID, &o, nil); ok {
		t.Errorf("a process that began later has the program %+v", p)
	}
}

// The process of a record and the eight above it are those that /proc shows, by
// pid, start and whole name.
func TestOriginIsWhatProcShows(t *testing.T) {
	r := newRig(t, 0)
	dir := t.TempDir()
	shell, err := exec.LookPath("bash")
	if err != nil {
		env.Lack(t, true, "bash")
	}
	name := filepath.Join(dir, "fifteen-letters")
	if err := os.Symlink(shell, name); err != nil {
		t.Fatal(err)
	}
	const script = `
		down() { # so many processes below this one
			if [ $1 -gt 0 ]; then ( down $(($1 - 1)); true ); return; fi
			true <>/dev/tcp/192.0.2.7/98
			p=$BASHPID
			while [ $p -gt 0 ]; do
				stat=$(cat /proc/$p/stat) && set -- ${stat##*)} && start=${20}
				echo $p $start "$(cat /proc/$p/comm)"
				p=$2
			done >$0
		}
		down 6 2>/dev/null`
	shown := filepath.Join(dir, "shown")
	got := r.in.try(attempt{Op: "exec", Addr: fmt.Sprintf("exec %s -c '%s' %s", name, script, shown)})
	v := find(t, r.recs, "a denial", func(v *Verdict) bool { return v.Dst.Port() == 98 })
	text, err := os.ReadFile(shown)
	if err != nil {
		t.Fatalf("%+v: %v", got, err)
	}
	chain := slices.Insert(v.Ancestors, 0, Ancestor{PID: v.PID, Comm: v.Comm})
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) < 9 || len(chain) != 9 {
		t.Fatalf("a chain of %d, of %d in the record", len(lines), len(chain))
	}
	for i, a := range chain {
		f := strings.SplitN(lines[i], " ", 3)
		if f[0] != fmt.Sprint(a.PID) || f[2] != a.Comm {
			t.Errorf("%d above it: %+v, /proc shows %q", i, a, lines[i])
		}
	}
	if v.Comm != "fifteen-letters" {
		t.Errorf("a name of %q", v.Comm)
	}
	const tick = 10 * time.Millisecond // USER_HZ
	if ticks := fmt.Sprint(v.Start / uint64(tick)); ticks != strings.Fields(lines[0])[1] {
		t.Errorf("it began at tick %s, /proc shows %q", ticks, lines[0])
	}
}

func losses(t *testing.T, f *Fence) map[Ring]RingCounters {
	t.Helper()
	cs, err := f.Losses()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[Ring]RingCounters)
	for _, c := range cs {
		out[c.Ring] = c
	}
	return out
}

func TestDecodeRefusesShortRecords(t *testing.T) {
	var clock bootClock
	for n := range 200 {
		b := make([]byte, n)
		if n > 16 {
			b[16] = byte(n % 5)
		}
		if rec, err := decode(b, &clock); err == nil && n < 56 {
			t.Errorf("%d bytes: %+v", n, rec)
		}
	}
}

func TestEmbedded(t *testing.T) {
	for in, want := range map[string]string{
		"1.2.3.4": "1.2.3.4", "::ffff:1.2.3.4": "1.2.3.4", "64:ff9b::102:304": "1.2.3.4", "2002:102:304:5::6": "1.2.3.4",
		"64:ff9b:1::102:304": "64:ff9b:1::102:304", "2003:102:304::": "2003:102:304::", "::1": "::1",
	} {
		if got := Embedded(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("Embedded(%s) = %v, want %s", in, got, want)
		}
	}
}
