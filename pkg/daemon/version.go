// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/stateformat"
)

// IsOtherVersion says whether New refused because what it found belongs to
// another version of Ringfence. It changed nothing then, and the error says
// what to do.
func IsOtherVersion(err error) bool {
	return errors.As(err, new(*stateformat.NewerError)) || errors.As(err, new(*kernel.LayoutError))
}
