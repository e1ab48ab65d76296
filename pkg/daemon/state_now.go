// SPDX-License-Identifier: Apache-2.0

//go:build !ringfence_next

package daemon

import "github.com/ringfence/ringfence/pkg/stateformat"

// stateFormat is what this version writes into the state directory. Whoever
// changes it raises the number and adds the step that leads to it.
const stateFormat = 1

// stateSteps is empty: there was no other format yet.
func stateSteps() []stateformat.Step { return nil }
