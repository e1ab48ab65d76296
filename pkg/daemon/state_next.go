// SPDX-License-Identifier: Apache-2.0

//go:build ringfence_next

package daemon

import (
	"log/slog"
	"os"
	"path/filepath"

	"github.com/ringfence/ringfence/pkg/stateformat"
)

// stateFormat that tests upgrade to.
const stateFormat = 3

// stateSteps leads to it: a file beside the store.
func stateSteps(version string, logger *slog.Logger) []stateformat.Step {
	return []stateformat.Step{intoStore(version, logger), {From: 2, What: "a file beside the store", Paths: []string{storeDir}, Do: func(dir string) error {
		return os.WriteFile(filepath.Join(dir, storeDir, "of-format-3"), nil, 0o600)
	}}}
}
