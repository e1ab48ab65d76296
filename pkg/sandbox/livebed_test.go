// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/refusal"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/wire"
	"github.com/ringfence/ringfence/profiles"
	"github.com/ringfence/ringfence/test/env"
)

// live is a manager with a real fence and real sandboxes, and without a
// gateway: nothing that policy allows would be answered.
type live struct {
	*Manager
	tb     testing.TB
	pins   string
	fence  *kernel.Fence
	log    *events
	base   string       // cgroup
	shown  atomic.Int64 // records of the kernel that were not of probes
	probes atomic.Int64 // and those that were

	sabotage func(number uint32)
	dropped  atomic.Pointer[time.Time] // when a former table was last given up
}

// sabotaged is a fence to which something is done as soon as it is attached.
type sabotaged struct {
	*kernel.Fence
	l *live
}

func (f sabotaged) AttachEmpty(cgroup string, number uint32) (*kernel.Sandbox, error) {
	s, err := f.Fence.AttachEmpty(cgroup, number)
	if err == nil && f.l.sabotage != nil {
		f.l.sabotage(number)
	}
	return s, err
}

func (f sabotaged) DropPolicy(tables ...uint32) error {
	now := time.Now()
	f.l.dropped.Store(&now)
	return f.Fence.DropPolicy(tables...)
}

type noGateway struct{}

func (noGateway) Call(context.Context, wire.Type, []byte, ...*os.File) ([]byte, []*os.File, error) {
	return nil, nil, nil
}

// initBinary builds ringfence-init once.
var initBinary = sync.OnceValues(func() (*os.File, error) {
	if built := env.Built("ringfence-init"); built != "" {
		return confine.InitBinary(built)
	}
	dir, err := os.MkdirTemp("", "rf-init")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // what is used is a sealed copy
	path := filepath.Join(dir, "ringfence-init")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/ringfence/ringfence/cmd/ringfence-init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build init: %w\n%s", err, out)
	}
	return confine.InitBinary(path)
})

func newLive(tb testing.TB, a Attestation, docs string) *live {
	tb.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("RINGFENCE_CI") == "1" {
			tb.Fatal("needs root, and CI has it")
		}
		tb.Skip("needs root: real sandboxes")
	}
	parsed, problems := policy.Parse("test.yaml", []byte(docs))
	if len(problems) > 0 {
		tb.Fatal(problems)
	}
	snap, problems := policy.Compile(1, parsed)
	if len(problems) > 0 {
		tb.Fatal(problems)
	}
	bin, err := initBinary()
	if err != nil {
		tb.Fatal(err)
	}
	root, err := kernel.CgroupRoot()
	if err != nil {
		tb.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "rf") // short: it holds unix sockets
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	l := &live{tb: tb, pins: filepath.Join(dir, "bpf"), log: &events{}}
	if l.base, err = os.MkdirTemp(root, "ringfence-attest-"); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := RemoveCgroup(l.base); err != nil {
			tb.Error(err)
		}
	})
	logger := slog.New(slog.DiscardHandler)
	if l.fence, err = kernel.Open(kernel.Options{PinDir: l.pins, Logger: logger, Refusals: refusal.Table(nil)}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := l.fence.Remove(); err != nil {
			tb.Error(err)
		}
	})
	l.Manager, err = NewManager(Options{Dir: filepath.Join(dir, "sandboxes"), CgroupBase: l.base, Fence: sabotaged{l.fence, l}, Gateway: noGateway{}, Log: l.log, Init: bin,
		UIDs: UIDs{Dir: filepath.Join(dir, "uids"), Range: UIDRange{1 << 30, 2048}}, UnixHooks: true, Operators: 77, Attestation: a,
		Snapshot: func() *policy.Snapshot { return snap }, Logger: logger})
	if err != nil {
		tb.Fatal(err)
	}
	l.read()
	tb.Cleanup(func() {
		if err := l.StopAll(0); err != nil {
			tb.Error(err)
		}
	})
	return l
}

// read takes the kernel's records as the daemon does.
func (l *live) read() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- l.fence.Records(ctx, func(r kernel.Record) {
			switch r := r.(type) {
			case *kernel.Verdict:
				if r.Allowed {
					return
				}
			case *kernel.Refusal:
			default:
				return
			}
			if l.Probed(r) {
				l.probes.Add(1)
				return
			}
			if r, ok := r.(*kernel.Refusal); ok {
				if _, is := refusal.Event(r); !is {
					return
				}
			}
			l.shown.Add(1)
		})
	}()
	l.tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			l.tb.Error(err)
		}
	})
}

func (l *live) request(argv ...string) *Request {
	l.tb.Helper()
	file, data, err := profiles.Read("default")
	if err != nil {
		l.tb.Fatal(err)
	}
	docs, problems := policy.Parse(file, data)
	if len(problems) > 0 {
		l.tb.Fatal(problems)
	}
	docs[0].Profile.UnixSockets = false // whatever hooks this kernel has
	r := &Request{Principal: scope.Principal{Org: "local", Team: "default", Agent: "test"}, Profile: docs[0].Profile, Argv: argv}
	for i := range r.Stdio {
		if r.Stdio[i], err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
			l.tb.Fatal(err)
		}
	}
	return r
}

func (l *live) run(argv ...string) *Sandbox {
	l.tb.Helper()
	s, err := l.Launch(context.Background(), l.request(argv...))
	if err != nil {
		l.tb.Fatal(err)
	}
	return s
}

// idle is a sandbox whose agent does nothing.
func (l *live) idle() *Sandbox { return l.run("sleep", "100000") }

const leaderless = "RINGFENCE_TEST_LEADERLESS"

// With the variable set this program says a line, waits for one, and ends its
// first thread; the others go on.
func init() {
	if os.Getenv(leaderless) == "" {
		return
	}
	go func() {
		for {
			time.Sleep(time.Hour)
		}
	}()
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0) // of this thread alone; init runs on the first
}

// headless is a process of the host in a sandbox's cgroup whose first thread
// has ended.
func (l *live) headless(s *Sandbox) int {
	l.tb.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), leaderless+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := c.StdinPipe()
	l.must(err)
	out, err := c.StdoutPipe()
	l.must(err)
	l.must(c.Start())
	l.tb.Cleanup(func() {
		_ = c.Process.Kill() // it may have been ended with the sandbox
		_ = c.Wait()
	})
	_, err = out.Read(make([]byte, 1))
	l.must(err)
	l.move(c.Process.Pid, s.Record.Cgroup)
	_, err = in.Write([]byte("\n"))
	l.must(err)
	l.until("its first thread ends", func() bool {
		st, err := readStatus(c.Process.Pid)
		return err == nil && st["State"][0] == 'Z'
	})
	return c.Process.Pid
}

// sleeper is a process of the host in no sandbox.
func (l *live) sleeper() int {
	l.tb.Helper()
	c := exec.Command("sleep", "100000")
	if err := c.Start(); err != nil {
		l.tb.Fatal(err)
	}
	l.tb.Cleanup(func() {
		_ = c.Process.Kill() // it may have been ended with a sandbox
		_ = c.Wait()
	})
	return c.Process.Pid
}

// agent is the pid of the sandbox's agent on the host.
func (l *live) agent(s *Sandbox) int {
	l.tb.Helper()
	for end := time.Now().Add(env.Wait(20 * time.Second)); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		pids, err := cgroupPIDs(s.Record.Cgroup)
		if err != nil {
			l.tb.Fatal(err)
		}
		for _, p := range pids {
			if p != s.Record.Init.PID {
				return p
			}
		}
	}
	l.tb.Fatal("the agent is not there")
	return 0
}

// move puts a process of the host into a cgroup.
func (l *live) move(pid int, cgroup string) {
	l.tb.Helper()
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(fmt.Sprint(pid)), 0); err != nil {
		l.tb.Fatal(err)
	}
}

// ended waits until nothing runs in a sandbox any more.
func (l *live) ended(s *Sandbox) {
	l.tb.Helper()
	select {
	case <-s.Ended():
	case <-time.After(env.Wait(30 * time.Second)):
		l.tb.Fatal("the sandbox goes on")
	}
}

var errNoPin = errors.New("no pin of the sandbox")

// pin is where something of a sandbox is pinned.
func (l *live) pin(number uint32, name string) string {
	l.tb.Helper()
	found, err := filepath.Glob(filepath.Join(l.pins, "ringfence-v*", "sandbox", fmt.Sprint(number), name))
	if err != nil || len(found) != 1 {
		l.tb.Fatal(errNoPin, name, found, err)
	}
	return found[0]
}

// until waits for something that takes a moment.
func (l *live) until(what string, ok func() bool) {
	l.tb.Helper()
	for end := time.Now().Add(env.Wait(20 * time.Second)); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	l.tb.Fatalf("never seen: %s", what)
}
