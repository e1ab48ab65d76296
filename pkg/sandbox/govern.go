// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
)

// fence makes the cgroup and attaches the programs while it is still empty.
// They deny everything until govern.
func (l *launch) fence(context.Context) (err error) {
	s, o := l.s, l.m.o
	s.Record.Cgroup = filepath.Join(o.CgroupBase, cgroupPrefix+s.Record.ID)
	if l.cgroup, s.Record.CgroupID, err = makeCgroup(s.Record.Cgroup); err != nil {
		return err
	}
	l.undoes(func() {
		if err := RemoveCgroup(s.Record.Cgroup); err != nil {
			o.Logger.Error("undo of a launch", "error", err)
		}
	})
	if s.fence, err = o.Fence.AttachEmpty(s.Record.Cgroup, s.Record.Number); err != nil {
		return err
	}
	l.undoes(func() {
		if err := errors.Join(endProcesses(s.Record.Cgroup, l.m.patience), s.fence.Detach()); err != nil {
			o.Logger.Error("undo of a launch", "error", err)
		}
	})
	return nil
}

// govern puts limits and policy into force.
func (l *launch) govern(context.Context) error {
	s, o := l.s, l.m.o
	if err := l.limits(); err != nil {
		return err
	}
	if s.Record.Unix && !o.UnixHooks && !l.r.Profile.IsOptional(policy.FeatureUnixHooks) {
		return &LaunchError{Code: 125, Step: "unix sockets", Missing: "cgroup unix socket hooks (kernel 6.7)",
			Err:    errors.New("the profile allows unix sockets and this kernel cannot watch them"),
			Remedy: "use a newer kernel, a profile without unixSockets, or list unixHooks under optional"}
	}
	if err := l.tables(); err != nil {
		return err
	}
	return s.fence.Begin(s.kernelState())
}

// limits sets what the cgroup controllers of this machine can limit.
func (l *launch) limits() error {
	res := l.r.Profile.Resources
	for _, c := range []struct {
		file    string
		value   int64
		feature string
	}{{"memory.max", res.Memory, policy.FeatureMemoryLimit}, {"pids.max", res.PIDs, policy.FeaturePIDsLimit}} {
		if c.value == 0 {
			continue
		}
		have, err := limit(l.s.Record.Cgroup, c.file, c.value)
		if err != nil {
			return err
		}
		if have {
			continue
		}
		if !l.r.Profile.IsOptional(c.feature) {
			return &LaunchError{Code: 125, Step: "resource limits", Missing: "cgroup v2 controller for " + c.file,
				Err:    fmt.Errorf("the profile limits it and the controller is not there"),
				Remedy: fmt.Sprintf("enable the controller for cgroup v2, or list %s under optional in the profile", c.feature)}
		}
		l.missing = append(l.missing, c.feature)
	}
	return nil
}

func (s *Sandbox) kernelState() kernel.State {
	st := kernel.State{Sandbox: s.Record.Number, Policy: s.table, Generation: uint32(s.View().Snapshot().Revision()), Flags: kernel.FlagDNS}
	if s.Record.Loopback {
		st.Flags |= kernel.FlagLoopback
	}
	if s.Record.Unix {
		st.Flags |= kernel.FlagUnix
	}
	if f := s.Record.Foreign; f != nil && f.Direct {
		st.Flags |= kernel.FlagDirect
	}
	if f := s.Record.Foreign; f != nil && f.Inbound {
		st.Flags |= kernel.FlagInbound
	}
	return st
}
