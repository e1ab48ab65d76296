// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// A launch that meets the limit of descriptors, of the daemon or in one of its
// steps, says what to do.
func TestTooFewDescriptors(t *testing.T) {
	room, limit, err := Room()
	if err != nil || limit == 0 {
		t.Fatalf("room %d, limit %d, %v", room, limit, err)
	}
	const swaps = 4
	less := room - swaps*DescriptorsAdopted/DescriptorsEach - 1
	for _, c := range []struct {
		sandboxes, adopted int
		adopt, fits        bool
	}{{room - 1, 0, false, true}, {room, 0, false, false}, {room - 1, 0, true, false}, {less - DescriptorsAdopted/DescriptorsEach, swaps, true, true}, {less + 2, swaps, false, false}} {
		if err := noRoom(c.sandboxes, c.adopted, c.adopt); (err == nil) != c.fits {
			t.Errorf("%+v: %v", c, err)
		}
	}
	err = noRoom(room, 0, false)
	if !errors.Is(err, ErrNoRoom) {
		t.Errorf("one more than there is room for: %v", err)
	}
	step := launchError("network", fmt.Errorf("open: %w", unix.EMFILE))
	for _, err := range []error{err, step} {
		var le *LaunchError
		if !errors.As(err, &le) || le.Code != 125 || le.Remedy != descriptorRemedy {
			t.Errorf("%#v", err)
		}
	}
	var other *LaunchError
	if errors.As(launchError("network", unix.ENOENT), &other); other.Remedy != "" {
		t.Errorf("another error has the remedy of this one: %+v", other)
	}
}
