// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/ca"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/wire"
)

// founding is what a launch and an adoption of running processes have in
// common: steps that make a sandbox, and what undoes each.
type founding struct {
	m *Manager
	s *Sandbox

	mu   sync.Mutex // guards what follows: steps may run at the same time
	undo []func()
	free []func() // what a process of the sandbox may use: after everything in undo

	logged bool // the start is in the event log, or may be
}

func (f *founding) undoes(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.undo = append(f.undo, fn)
}

func (f *founding) frees(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = append(f.free, fn)
}

// takeBack undoes what was done: no process is left when what it may use is
// given to others.
func (f *founding) takeBack() {
	for _, fs := range [][]func(){f.undo, f.free} {
		for _, fn := range slices.Backward(fs) {
			fn()
		}
	}
}

// reserve gives the sandbox its number and id.
func (f *founding) reserve(context.Context) error {
	s := f.s
	if err := f.m.reserve(s); err != nil {
		return err
	}
	f.frees(func() {
		s.mu.Lock()
		s.state = Stopped
		s.mu.Unlock()
		f.m.unregister(s)
		close(s.done)
	})
	return nil
}

// actsFor says for whom the sandbox acts, and gives it a name if it has none.
func (f *founding) actsFor(p scope.Principal) error {
	s := f.s
	s.Principal = p
	s.Principal.Sandbox = s.Record.ID
	s.Record.Scope = s.Principal.String()
	if n := len(s.Record.Scope); n > wire.MaxScope {
		return &LaunchError{Code: 125, Step: "register", Err: fmt.Errorf("the scope has %d bytes, at most %d can be recorded: it begins with %.80s", n, wire.MaxScope, s.Record.Scope),
			Remedy: "use shorter names for org, team and agent"}
	}
	if s.Record.Name == "" {
		s.Record.Name = p.Agent + "-" + s.Record.ID[:4]
	}
	return nil
}

func (f *founding) directory(context.Context) (err error) {
	s := f.s
	s.dir = filepath.Join(f.m.o.Dir, s.Record.ID)
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return err
	}
	f.frees(func() { os.RemoveAll(s.dir) })
	if s.names, err = OpenNames(filepath.Join(s.dir, "names")); err != nil {
		return err
	}
	f.frees(func() { s.names.Close() })
	return nil
}

func (f *founding) certificate(context.Context) (err error) {
	f.s.authority, err = ca.New(f.s.dir, f.s.Record.ID, time.Now())
	return err
}

// view decides which policy applies, with what prepare adds for this sandbox
// alone. prepare may be nil, see Request.
func (f *founding) view(prepare func(id string, p scope.Principal) ([]string, error)) error {
	if prepare != nil {
		docs, err := prepare(f.s.Record.ID, f.s.Principal)
		if err != nil {
			return err
		}
		f.s.Record.Documents = docs
	}
	f.s.view.Store(f.s.viewOf(f.m.o.Snapshot()))
	return nil
}

// tables writes what the kernel is to judge on; no state names it yet.
func (f *founding) tables() (err error) {
	s := f.s
	if s.table, err = f.m.newTable(s.View().Snapshot()); err != nil {
		return err
	}
	f.undoes(func() {
		if err := f.m.dropTables(s.table); err != nil {
			f.m.o.Logger.Error("undo of a start", "sandbox", s.Record.ID, "error", err)
		}
	})
	addrs := CIDREntries(s.View())
	if !s.fitAddrs(len(addrs)) {
		return fmt.Errorf("%w (%d entries)", ErrNoAddrRoom, len(addrs))
	}
	if err := s.fill(s.table, s.refusal(), addrs); err != nil {
		return err
	}
	s.addrs, s.written = s.m.digest(addrs), true
	return nil
}

func (f *founding) gateway(ctx context.Context) error {
	if err := f.m.publish(f.s); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// Before the announcement: one that fails may have been taken all the same.
	f.undoes(f.s.forget)
	if err := f.s.announce(ctx, f.m.o.Gateway); err != nil {
		return fmt.Errorf("the gateway did not take the sandbox: %w", err)
	}
	return nil
}

// catchUp applies a policy that came into force before the sandbox was
// published; from then on every one is applied to it as to any other. So what
// is in it never runs under an older one than that of its start.
func (f *founding) catchUp(context.Context) error {
	snap := f.m.o.Snapshot()
	if f.s.View().Snapshot().Revision() == snap.Revision() {
		return nil
	}
	return f.s.enforce(snap)
}

func launchError(step string, err error) error {
	var le *LaunchError
	if errors.As(err, &le) {
		return le
	}
	le = &LaunchError{Code: 125, Step: step, Err: err}
	if errors.Is(err, unix.EMFILE) {
		le.Remedy = descriptorRemedy
	}
	return le
}

// started makes it a running sandbox, for a keeper after this one too.
func (s *Sandbox) started() error {
	s.Record.Started = true
	if err := s.Record.save(s.dir); err != nil {
		return err
	}
	s.mu.Lock()
	s.state = Running
	s.mu.Unlock()
	return nil
}

// gone is the end of what is known of it here, after everything that it held.
func (s *Sandbox) gone() {
	s.mu.Lock()
	s.state = Stopped
	s.mu.Unlock()
	if s.m.o.Ended != nil {
		s.m.o.Ended(s)
	}
	s.m.unregister(s)
	close(s.done)
}
