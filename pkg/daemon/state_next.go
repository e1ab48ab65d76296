// SPDX-License-Identifier: Apache-2.0

//go:build ringfence_next

package daemon

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/ringfence/ringfence/pkg/stateformat"
)

// stateFormat that tests upgrade to.
const stateFormat = 2

// stateSteps leads to it: a line more in each document.
func stateSteps() []stateformat.Step {
	return []stateformat.Step{{From: 1, What: "a line more in each document", Paths: []string{"documents"}, Do: func(dir string) error {
		docs, err := filepath.Glob(filepath.Join(dir, "documents", "*.yaml"))
		for _, p := range docs {
			b, rerr := os.ReadFile(p)
			err = errors.Join(err, rerr)
			if rerr == nil {
				err = errors.Join(err, os.WriteFile(p, append(b, "# of format 2\n"...), 0o600))
			}
		}
		return err
	}}}
}
