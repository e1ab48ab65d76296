// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/confine/self"
	"golang.org/x/sys/unix"
)

// lock loads the system call filter on every thread and then checks, by asking
// the kernel, that this process has no more rights than the agent may have.
func lock(spec *confine.Spec) error {
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark descriptors close-on-exec: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("become non-dumpable: %w", err)
	}
	if err := self.LoadFilter(spec.SeccompFD); err != nil {
		return err
	}
	return attest()
}

// attest asks the kernel what is in force, so that Ready is never a hope.
func attest() error {
	var caps [2]unix.CapUserData
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return fmt.Errorf("attest: capabilities: %w", err)
	}
	for _, c := range caps {
		if c.Effective|c.Permitted|c.Inheritable != 0 {
			return errors.New("attest: capabilities are left")
		}
	}
	for _, want := range []struct {
		what   string
		option int
		value  int
	}{
		{"no_new_privs", unix.PR_GET_NO_NEW_PRIVS, 1},
		{"seccomp mode", unix.PR_GET_SECCOMP, unix.SECCOMP_MODE_FILTER},
		{"dumpable", unix.PR_GET_DUMPABLE, 0},
	} {
		got, err := unix.PrctlRetInt(want.option, 0, 0, 0, 0)
		if err != nil {
			return fmt.Errorf("attest: %s: %w", want.what, err)
		}
		if got != want.value {
			return fmt.Errorf("attest: %s is %d, not %d", want.what, got, want.value)
		}
	}
	return nil
}
