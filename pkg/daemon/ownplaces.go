// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

// refuseOwnPlaces refuses a workspace, and places that the profile lets the
// agent write, that hold or lie in a directory of this daemon. Those of root
// are shown to the agent as the directory's owner's: secrets, policy and the
// event log would be the agent's own files.
func (d *Daemon) refuseOwnPlaces(workspace *os.File, profile *policy.Profile) error {
	if workspace != nil {
		real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", workspace.Fd()))
		if err != nil {
			return fmt.Errorf("workspace: %w", err)
		}
		if err := d.refuseOwnPlace("workspace", real, "name a directory with --workspace that holds nothing of Ringfence"); err != nil {
			return err
		}
	}
	for _, e := range profile.Files.Write {
		real, err := filepath.EvalSymlinks(e.Path)
		if err != nil {
			continue // not there; the launch says so
		}
		if err := d.refuseOwnPlace("writable directory", real, "take it out of files.write of the profile, or name a smaller one"); err != nil {
			return err
		}
	}
	return nil
}

func (d *Daemon) refuseOwnPlace(what, real, remedy string) error {
	for _, own := range []string{d.cfg.RunDir, d.cfg.StateDir, d.cfg.PolicyDir, d.cfg.ProfileDir, d.cfg.LockDir} {
		if own == "" {
			continue
		}
		at, err := filepath.EvalSymlinks(own)
		if err != nil {
			continue // not there: nothing to hold
		}
		if within(real, at) || within(at, real) {
			return &sandbox.LaunchError{Code: 125, Step: what, Err: fmt.Errorf("%s cannot be a %s: the daemon keeps its files in %s", real, what, at), Remedy: remedy}
		}
	}
	return nil
}

// within says whether p is dir or lies below it.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}
