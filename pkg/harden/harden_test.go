// SPDX-License-Identifier: Apache-2.0

package harden

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
)

func TestAWallThatIsMissingIsSaid(t *testing.T) {
	real := landlockABI
	defer func() { landlockABI = real }()
	landlockABI = func() (int, error) { return 0, errors.New("function not implemented") }
	missing, err := restrictFiles(Files{}, slog.New(slog.DiscardHandler))
	if err != nil || !slices.Equal(missing, []string{NoLandlock}) {
		t.Errorf("%v, %v", missing, err)
	}
}
