// SPDX-License-Identifier: Apache-2.0

// Command examine prints what the running kernel has for Ringfence: the checks
// of `ringfence doctor` that need no daemon, and more that docs/KERNELS.md
// speaks of. It needs root.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/daemon"
	"github.com/ringfence/ringfence/test/kernels/fact"
)

func main() {
	r, err := examine()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "examine:", err)
		os.Exit(1)
	}
}

// examine does all of it; what the kernel lacks is a finding and no error.
func examine() (*fact.Report, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, err
	}
	lsm, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil {
		return nil, err
	}
	r := &fact.Report{
		Release: unix.ByteSliceToString(uts.Release[:]), LSM: strings.TrimSpace(string(lsm)), Details: map[string]string{},
		Kernel: fact.Kernel{Landlock: confine.LandlockABI(), Features: map[string]bool{}, Idmap: map[string]bool{}, Missing: []string{}},
	}
	report := daemon.Examine()
	for _, c := range report.Checks {
		r.Kernel.Features[c.Name] = c.OK
		if !c.OK {
			r.Details[c.Name] = c.Detail
		}
		if !c.OK && !c.Optional {
			r.Kernel.Missing = append(r.Kernel.Missing, c.Name)
		}
	}
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return nil, err
	}
	for _, c := range []string{"memory", "pids"} {
		r.Kernel.Features[c+" limit"] = slices.Contains(strings.Fields(string(controllers)), c)
	}
	err = peerPidFD()
	r.Kernel.Features["SO_PEERPIDFD"] = err == nil
	if err != nil {
		r.Details["SO_PEERPIDFD"] = err.Error()
	}
	for _, kind := range []string{"ext4", "tmpfs", "overlay"} {
		err := idmap(kind)
		r.Kernel.Idmap[kind] = err == nil
		if err != nil {
			r.Details["idmapped mount of "+kind] = err.Error()
		}
	}
	return r, nil
}
