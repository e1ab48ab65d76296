// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ringfence/ringfence/pkg/sandbox"
)

// refuseOwnPlaces refuses a workspace that holds, or lies in, a directory of
// this daemon. The workspace of root is shown to the agent as the directory's
// owner's: secrets, policy and the event log would be the agent's own files.
func (d *Daemon) refuseOwnPlaces(workspace *os.File) error {
	if workspace == nil {
		return nil
	}
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", workspace.Fd()))
	if err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	for _, own := range []string{d.cfg.RunDir, d.cfg.StateDir, d.cfg.PolicyDir, d.cfg.ProfileDir, d.cfg.LockDir} {
		if own == "" {
			continue
		}
		at, err := filepath.EvalSymlinks(own)
		if err != nil {
			continue // not there: nothing to hold
		}
		if within(real, at) || within(at, real) {
			return &sandbox.LaunchError{Code: 125, Step: "workspace", Err: fmt.Errorf("%s cannot be a workspace: the daemon keeps its files in %s", real, at),
				Remedy: "name a directory with --workspace that holds nothing of Ringfence"}
		}
	}
	return nil
}

// within says whether p is dir or lies below it.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}
