// SPDX-License-Identifier: Apache-2.0

//go:build !ringfence_next

package daemon

import (
	"log/slog"

	"github.com/ringfence/ringfence/pkg/stateformat"
)

// stateFormat is what this version writes into the state directory. Whoever
// changes it raises the number and adds the step that leads to it.
const stateFormat = 2

func stateSteps(version string, logger *slog.Logger) []stateformat.Step {
	return []stateformat.Step{intoStore(version, logger)}
}
