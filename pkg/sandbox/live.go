// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/event"
)

// live follows a running sandbox to its end and cleans up after it.
func (s *Sandbox) live() {
	if s.control != nil {
		go s.control.serve()
	}
	code := s.await()
	s.teardown(code)
}

// await blocks until init has ended and returns the exit code, -1 if it cannot
// be known.
func (s *Sandbox) await() int {
	code := -1
	if p, err := os.FindProcess(s.Record.Init.PID); err == nil {
		if st, err := p.Wait(); err == nil {
			code = exitCode(st)
		} else {
			code = awaitForeign(s.Record.Init)
		}
	}
	if s.control != nil {
		select {
		case <-s.control.ended: // init has ended: all it said has been read
		case <-time.After(5 * time.Second):
		}
		select {
		case code = <-s.control.exited: // the agent's own, which init passes on
		default:
		}
	}
	return code
}

func exitCode(st *os.ProcessState) int {
	ws, ok := st.Sys().(syscall.WaitStatus)
	if !ok {
		return -1
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// awaitForeign waits for a process that is not our child (its parent was a
// former keeper) through a pidfd.
func awaitForeign(p Process) int {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil || !p.Alive() {
		if err == nil {
			unix.Close(fd)
		}
		return -1
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err == nil {
			return -1
		} else if !errors.Is(err, unix.EINTR) {
			return -1
		}
	}
}

// teardown removes everything the sandbox held, in the order that never opens
// anything: processes, network, mounts (with the last process), then names.
func (s *Sandbox) teardown(code int) {
	s.mu.Lock()
	s.state = Stopping
	s.mu.Unlock()
	log := s.m.o.Logger.With("sandbox", s.Record.ID)
	// The last process is gone before the programs are detached.
	if err := killCgroup(s.Record.Cgroup); err != nil {
		log.Error("kill the rest of the sandbox", "error", err)
	}
	waitEmpty(s.Record.Cgroup)
	var errs []error
	exit := Exit{Code: code, At: time.Now().UTC()}
	var told sync.WaitGroup
	told.Go(s.forget) // the gateway hands over what it has recorded of this sandbox
	if s.handback != nil {
		findings, err := s.handback.run()
		exit.Findings = findings
		errs = append(errs, err)
		s.recordFindings(findings)
	}
	told.Wait()
	if s.m.o.Drain != nil {
		s.m.o.Drain(s)
	}
	s.mu.Lock()
	s.exit = exit
	s.mu.Unlock()
	close(s.ended)
	s.listeners.Close()
	errs = append(errs, s.fence.Detach(), s.m.dropTables(s.table), RemoveCgroup(s.Record.Cgroup), s.names.Close())
	s.m.releaseUID(s.uid)
	errs = append(errs, os.RemoveAll(s.dir))
	if err := errors.Join(errs...); err != nil {
		log.Error("clean up", "error", err)
	}
	s.recordStop(code, errors.Join(errs...))
	s.mu.Lock()
	s.state = Stopped
	s.mu.Unlock()
	if s.m.o.Ended != nil {
		s.m.o.Ended(s)
	}
	s.m.unregister(s)
	close(s.done)
}

// waitEmpty waits until the kernel has let go of every killed process.
func waitEmpty(cgroup string) {
	for range 2000 {
		if !populated(cgroup) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *Sandbox) recordStop(code int, problems error) {
	e := s.event(event.KindSandboxStop)
	e.Verdict, e.Activity = event.Observed, "stop"
	e.Status = uint32(max(code, 0))
	e.Reason = fmt.Sprintf("exit status %d", code)
	if code < 0 {
		e.Reason = "exit status unknown: the daemon was away when it ended"
	}
	e.Count = 1
	e.Duration = time.Since(s.Record.Created)
	if problems != nil {
		e.Detail = problems.Error()
	}
	s.append(e)
}

func (s *Sandbox) recordFindings(findings []finding) {
	for _, f := range findings {
		e := s.event(event.KindWorkspace)
		e.Verdict, e.Activity = event.Observed, f.Action
		e.Severity = event.SeverityHigh
		e.Path, e.Reason, e.ReasonCode = f.Path, f.Why, string(f.Kind)
		if f.Key != "" {
			e.Detail = f.Key + " = " + f.Value
		}
		if f.Copy != "" {
			e.Remedy = "review " + f.Copy
		}
		s.append(e)
	}
}

// append records an event about this sandbox; a log that refuses is told to
// the operator's log instead, since nothing waits for this record.
func (s *Sandbox) append(e *event.Event) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := s.m.o.Log.Append(ctx, e); err != nil {
		s.m.o.Logger.Error("event not recorded", "sandbox", s.Record.ID, "kind", e.Kind, "error", err)
	}
}

// Exec runs one more program inside the walls.
func (s *Sandbox) Exec(ctx context.Context, r *ExecRequest) (*ExecProcess, error) {
	s.mu.Lock()
	c, st := s.control, s.state
	s.mu.Unlock()
	if st != Running || c == nil {
		return nil, &LaunchError{Code: 125, Step: "exec", Err: fmt.Errorf("the sandbox is %s", st)}
	}
	dir := r.Dir
	if dir == "" {
		dir = s.Record.Dir
	}
	spec := &confine.Spec{SandboxID: s.Record.ID, Argv: r.Argv, Env: mergeEnv(s.Record.Env, r.Env), Dir: dir, TTY: r.TTY, Rows: r.Rows, Cols: r.Cols,
		SeccompFD: -1, StdioFDs: [3]int{-1, -1, -1}, StatusFD: -1, ListenFD: -1}
	var fds []*os.File
	for i, f := range r.Stdio {
		if f != nil {
			spec.StdioFDs[i] = len(fds)
			fds = append(fds, f)
		}
	}
	if r.Status != nil {
		spec.StatusFD = len(fds)
		fds = append(fds, r.Status)
	}
	return c.exec(ctx, spec, fds)
}

// mergeEnv lets later settings win.
func mergeEnv(base, more []string) []string {
	set := map[string]bool{}
	for _, kv := range more {
		k, _, _ := strings.Cut(kv, "=")
		set[k] = true
	}
	out := slices.DeleteFunc(slices.Clone(base), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return set[k]
	})
	return append(out, more...)
}

// ExecRequest is one more program in a sandbox. Descriptors stay with the
// caller.
type ExecRequest struct {
	Argv, Env  []string
	Dir        string
	TTY        bool
	Rows, Cols uint16
	Stdio      [3]*os.File
	Status     *os.File
}
