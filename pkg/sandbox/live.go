// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/event"
)

// live follows a running sandbox to its end and cleans up after it.
func (s *Sandbox) live() {
	if s.control != nil {
		go s.listen()
	}
	code := s.await()
	s.teardown(code, nil)
}

// listen hears init out. An init that says what none says, or stops talking
// while it lives, is in the agent's hands: the sandbox is ended.
func (s *Sandbox) listen() {
	err := s.control.serve()
	if errors.Is(err, io.EOF) {
		if leaving(s.Record.Init) {
			return
		}
		err = fmt.Errorf("%w: it closed its socket and lives", errHostile)
	}
	if isHostile(err) {
		s.recordHostile(err)
		s.Stop(0)
	}
}

// recordHostile reports an init that was taken over.
func (s *Sandbox) recordHostile(why error) {
	s.m.o.Logger.Error("ringfence-init was taken over; the sandbox is ended", "sandbox", s.Record.ID, "error", why)
	s.CountDenial(1)
	s.mu.Lock()
	s.why = "its first process did what no ringfence-init does, as if it was taken over"
	s.mu.Unlock()
	e := s.event(event.KindTamper)
	e.Verdict, e.Severity, e.Activity, e.Layer = event.Denied, event.SeverityCritical, "ringfence-init", "keeper" // it is ended
	e.Reason, e.ReasonCode = "the sandbox's first process said what no ringfence-init says; the sandbox is ended", "protocol"
	e.Detail = why.Error()
	s.append(e)
}

// await blocks until init has ended and returns the exit code, -1 if it cannot
// be known.
func (s *Sandbox) await() int {
	code := s.Record.Init.Await()
	if s.control != nil {
		select {
		case <-s.control.ended: // init has ended: all it said has been read
		case <-time.After(5 * time.Second):
			// Somebody outside its namespace has the other end.
			s.control.conn.Close()
		}
		select {
		case code = <-s.control.exited: // the agent's own, which init passes on
		default:
		}
	}
	return code
}

// abort ends a sandbox whose launch failed after its agent was let go: what it
// did meanwhile is dealt with as at the end of any other.
func (s *Sandbox) abort(why error) {
	if err := killCgroup(s.Record.Cgroup); err != nil {
		s.m.o.Logger.Error("kill a sandbox", "sandbox", s.Record.ID, "error", err)
	}
	go s.control.serve() //nolint:errcheck // why is why it ends
	s.await()
	s.teardown(-1, why)
}

// teardown removes everything the sandbox held, in the order that never opens
// anything: processes, network, mounts (with the last process), then names.
// why is nil unless the launch failed.
//
// While a process may live nothing of this happens: the programs stay
// attached, the workspace is not handed back and the uid is nobody else's.
func (s *Sandbox) teardown(code int, why error) {
	s.mu.Lock()
	s.state = Stopping
	s.mu.Unlock()
	log := s.m.o.Logger.With("sandbox", s.Record.ID)
	for {
		err := endProcesses(s.Record.Cgroup, s.m.patience)
		if err == nil {
			break
		}
		s.stuck(err)
	}
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
	exit.Why = s.why
	s.exit = exit
	s.torn = true // from here on no policy is put into force for it
	table := s.table
	s.mu.Unlock()
	close(s.ended)
	s.listeners.Close()
	errs = append(errs, s.fence.Detach(), s.m.dropTables(table), RemoveCgroup(s.Record.Cgroup), s.names.Close())
	s.m.releaseUID(s.uid)
	errs = append(errs, os.RemoveAll(s.dir))
	if err := errors.Join(errs...); err != nil {
		log.Error("clean up", "error", err)
	}
	s.recordStop(code, why, errors.Join(errs...))
	s.gone()
}

// stuck reports, once, a sandbox whose processes do not end.
func (s *Sandbox) stuck(err error) {
	s.mu.Lock()
	again := s.stuckSaid
	s.stuckSaid = true
	if !again {
		s.problems = append(s.problems, err.Error())
	}
	s.mu.Unlock()
	if again {
		return
	}
	s.m.o.Logger.Error("a sandbox cannot be ended; its fence stays and its workspace is not handed back", "sandbox", s.Record.ID, "error", err)
	e := s.event(event.KindTamper)
	e.Verdict, e.Severity, e.Activity, e.Layer = event.Observed, event.SeverityCritical, "stop", "keeper"
	e.Reason, e.ReasonCode = "processes of the sandbox do not end; its fence stays attached and its workspace is not handed back until they do", "not-ended"
	e.Detail = err.Error()
	e.Remedy = "look for processes in uninterruptible sleep in " + s.Record.Cgroup
	s.append(e)
}

// recordStop puts the end into the log. why is nil unless the launch failed.
func (s *Sandbox) recordStop(code int, why, problems error) {
	e := s.event(event.KindSandboxStop)
	e.Verdict, e.Activity = event.Observed, "stop"
	e.Status = uint32(max(code, 0))
	e.Reason = fmt.Sprintf("exit status %d", code)
	if code < 0 {
		e.Reason = "exit status unknown: the daemon was away when it ended"
	}
	if why != nil {
		e.Reason, e.Status = why.Error(), uint32(failureStatus(why))
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
	if s.Record.Foreign != nil {
		return nil, &LaunchError{Code: 125, Step: "exec", Err: errors.New("it was adopted: Ringfence starts programs only in what it started itself"),
			Remedy: "start it in the cgroup " + s.Record.Cgroup + ": it is behind the same fence there"}
	}
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
