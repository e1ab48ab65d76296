// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
)

// judge says what is wrong with an attempt: nothing, if the fence held and
// told of it.
func (p *place) judge(o *outcome) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	want, third := o.row.Expect, p.third && len(o.row.Third.Errnos) > 0
	if third {
		want = o.row.Third
	}
	switch r := o.result; {
	case r.OK && !want.Contained:
		say("ESCAPE: it succeeded")
	case !r.OK && !slices.Contains(want.Errnos, r.Errno):
		say("refused with %s, not with %v: %s", r.Errno, want.Errnos, r.Detail)
	}
	for _, e := range o.effects {
		say("ESCAPE: the world noticed: %s", e)
	}
	if !o.alive {
		say("ESCAPE: the victim is gone")
	}
	pid := started(o.events, o.row.Name)
	if pid == 0 {
		say("no event says that the program ran")
	}
	switch {
	case third && !o.refusedByThird(pid):
		say("no event of BPF LSM that ends %q among %d", o.row.Trace, len(o.events))
	case !third && o.row.Event != "none" && p.canTell(o) && !p.told(o, pid):
		say("no %s event that mentions %q and %s among %d", o.row.Event, o.row.Trace, o.result.Errno, len(o.events))
	}
	return wrong
}

// canTell says whether this kernel can record the refusal: file records need
// Landlock's audit (Linux 6.15) in the machine's own network namespace.
// A program that was refused did not start.
func (p *place) canTell(o *outcome) bool {
	switch o.row.Event {
	case "file":
		return o.audited
	case "exec":
		return o.result.OK
	case "refusal":
		return status(o.result.Errno) != 0
	}
	return true
}

// status is what an event of a refusal has as its status: the error number, or
// 128 and the signal that ended the process; 0 if nothing was refused.
func status(errno string) uint32 {
	if errno == "SIGSYS" {
		return 128 + uint32(unix.SIGSYS)
	}
	for e := unix.Errno(1); e < 134; e++ {
		if unix.ErrnoName(e) == errno {
			return uint32(e)
		}
	}
	return 0
}

// refusedByThird finds the event of the third lock, whose path has the last two
// parts of what was tried.
func (o *outcome) refusedByThird(pid uint32) bool {
	return slices.ContainsFunc(o.events, func(e event.Event) bool {
		return e.Layer == "bpf-lsm" && e.Verdict == event.Denied && e.PID == pid && e.Path != "" && strings.HasSuffix(o.row.Trace, "/"+e.Path) && e.Reason != ""
	})
}

// started finds the process that made an attempt, 0 if none is recorded.
func started(events []event.Event, name string) uint32 {
	for i := range events {
		if e := &events[i]; e.Kind == event.KindExec && strings.HasPrefix(e.Args, "/proc/self/exe "+name+" ") {
			return e.PID
		}
	}
	return 0
}

// told finds the event of a refusal.
func (p *place) told(o *outcome, pid uint32) bool {
	kinds := map[string]event.Kind{
		"network": event.KindNetwork, "kernel-denial": event.KindKernelDenial, "dns": event.KindDNS, "file": event.KindFile,
		"workspace": event.KindWorkspace, "exec": event.KindExec, "syscall": event.KindSyscall,
	}
	return slices.ContainsFunc(o.events, func(e event.Event) bool {
		if o.row.Event == "refusal" {
			ours := e.PID == pid || e.PPID == pid
			return e.IsDenial() && ours && e.Source == "kernel" && e.Status == status(o.result.Errno) && e.Layer != "" && e.Reason != "" &&
				mentions(strings.Join([]string{e.Object, e.Path, e.DstAddr, e.SocketInfo}, " "), o.row.Trace+" "+p.target(o.row))
		}
		if e.Kind != kinds[o.row.Event] {
			return false
		}
		const slack = 20 * time.Millisecond // audit knows the time to a few milliseconds
		inTime := e.Time.After(o.from.Add(-slack)) && e.Time.Before(o.to.Add(slack))
		switch text := strings.Join([]string{e.DstAddr, e.DstName, e.Path, e.Detail, e.Args, e.Object}, " "); e.Kind {
		case event.KindNetwork, event.KindKernelDenial, event.KindSyscall:
			if e.Source == "gateway" { // which knows no process
				return e.Verdict == event.Denied && inTime && mentions(text, o.row.Trace)
			}
			return e.Verdict == event.Denied && (e.PID == pid || e.PPID == pid) && mentions(text, o.row.Trace)
		case event.KindExec:
			return (e.PPID == pid || inTime) && mentions(text, o.row.Trace) // its parent may have ended meanwhile
		case event.KindWorkspace: // found when the sandbox was gone
			return mentions(text, o.row.Trace)
		default: // no process is named
			return e.Verdict == event.Denied && inTime && mentions(text, o.row.Trace)
		}
	})
}

// target is the last part of the path that a row on files reaches for.
func (p *place) target(a *attempt) string {
	if !strings.HasPrefix(a.Class, "file-") || len(a.Params) != 1 || a.Name == "symlink-to-secret" {
		return ""
	}
	if path := p.world.Params[a.Params[0]]; path != "" {
		return filepath.Base(path)
	}
	return ""
}

func mentions(text, trace string) bool {
	for word := range strings.FieldsSeq(trace) {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}

// canary are harmless attempts that succeed where no fence is.
var canary = []string{
	"tcp-literal4", "tcp-literal6", "tcp-metadata4", "udp-sendto4", "dns-own-server", "unix-stream", "unix-abstract", "read-ssh-key", "list-home",
	"write-create", "host-signal", "host-environ", "ipc-sysv-shm", "mount-list", "process-trace-child", "setid-chmod",
}

// TestSuiteNotices breaks the fence on purpose, by making attempts without
// one, and sees that the suite calls each an escape; and that it misses events
// which are not there.
func TestSuiteNotices(t *testing.T) {
	p := newPlace(t)
	for _, name := range canary {
		i := slices.IndexFunc(p.attempts, func(a attempt) bool { return a.Name == name })
		if i < 0 {
			t.Fatalf("no attempt %s", name)
		}
		t.Run(name, func(t *testing.T) { p.unfenced(t, &p.attempts[i]) })
	}
	t.Run("a victim that dies", func(t *testing.T) {
		o := &outcome{row: &p.attempts[0], result: result{Errno: "EACCES"}}
		if got := strings.Join(p.judge(o), "; "); !strings.Contains(got, "victim is gone") {
			t.Errorf("judged: %q", got)
		}
	})
}

func (p *place) unfenced(t *testing.T, a *attempt) {
	need(t, p.world.Reset())
	p.world.Effects()
	o := &outcome{row: a, from: time.Now()}
	cmd := exec.CommandContext(t.Context(), p.world.Params["suid"]+"-plain", append([]string{a.Name}, p.world.Args(nil)...)...)
	need(t, os.WriteFile(cmd.Path, p.program, 0o755))
	cmd.Dir = p.world.Params["ws"]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a.As == "user" {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: owner, Gid: owner}
	}
	var out []byte
	var err error
	p.do(func() { out, err = cmd.Output() })
	need(t, err)
	o.result = parse(t, out)
	if o.result.Errno == "ENOSYS" {
		t.Skipf("this kernel lacks the system call of %s", a.Name)
	}
	time.Sleep(20 * time.Millisecond)
	o.to, o.effects, o.alive = time.Now(), p.world.Effects(), p.world.VictimAlive()
	got := strings.Join(p.judge(o), "; ")
	if !strings.Contains(got, "ESCAPE: it succeeded") || !strings.Contains(got, "no event says that the program ran") {
		t.Errorf("judged: %q", got)
	}
	if a.Event != "none" && !strings.Contains(got, "no "+a.Event+" event") {
		t.Errorf("a missing event was not missed: %q", got)
	}
	if seen := strings.Contains(got, "the world noticed"); seen != leavesTraces(a) {
		t.Errorf("the world noticed: %v: %q", seen, got)
	}
}

func leavesTraces(a *attempt) bool {
	return slices.Contains([]string{"tcp", "udp", "dns", "unix", "file-write"}, a.Class)
}
