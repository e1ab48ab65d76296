// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"

	"github.com/ringfence/ringfence/pkg/kernel"
)

// noteGuard writes down what the third lock is for this sandbox.
func (s *Sandbox) noteGuard() {
	hooks, _, err := s.m.o.Fence.Guard()
	s.Record.Guard = hooks
	if err != nil {
		s.Record.Unguarded = err.Error()
	}
}

// guard arms the third lock, where the kernel has one: init has built the walls
// and does none of what it refuses any more.
func (l *launch) guard(context.Context) error {
	s := l.s
	r := kernel.GuardRules{}
	if s.handback != nil { // the workspace can be written
		if l.r.Profile.Git.Protect {
			r.Entries = kernel.GitHooks()
		}
		for _, p := range l.r.Profile.Files.Guard {
			r.Entries = append(r.Entries, kernel.GuardedPath(p)...)
		}
	}
	if len(r.Entries) > 0 {
		r.Device = s.Record.WorkspaceDev
	}
	err := s.fence.Guard(r)
	if err == nil {
		return nil
	}
	// Nothing depends on it, but nobody is to believe that it is there.
	s.m.o.Logger.Warn("the third lock could not be armed", "sandbox", s.Record.ID, "error", err)
	s.Record.Guard, s.Record.Unguarded = nil, err.Error()
	return s.Record.save(s.dir)
}
