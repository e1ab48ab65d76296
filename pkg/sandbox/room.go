// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// What descriptors of the keeper go to. The gateway, which is started with the
// same limit, has ten for each sandbox and keeps room for them (gateway.Limits).
const (
	// DescriptorsEach is what one sandbox takes while it lives: ten listeners,
	// init's socket, its pidfd and that of who holds its output, the cgroup, the
	// workspace, the names, the lock of its uid; and one to spare.
	DescriptorsEach = 18
	// DescriptorsOwn are for everything else: the node's programs and maps, the
	// event log, operators' connections, 256 maps of ids and 64 images of views
	// that are held on to, launches under way.
	DescriptorsOwn = 768
)

// descriptorRemedy is what to do about too few of them.
var descriptorRemedy = fmt.Sprintf("stop sandboxes, or start the daemon with a higher limit of open files (LimitNOFILE= of its unit, or `ulimit -Hn`): %d for each sandbox and %d besides", DescriptorsEach, DescriptorsOwn)

// ErrNoRoom says that more sandboxes would leave the keeper without
// descriptors, and with it those that live.
var ErrNoRoom = errors.New("the daemon's limit of open files is reached")

// Room is how many sandboxes this process has descriptors for under its limit.
func Room() (sandboxes int, limit uint64, err error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, 0, fmt.Errorf("limit of open files: %w", err)
	}
	n := min(r.Cur, 1<<30) // unlimited is a number too large for int on no machine
	if n < DescriptorsOwn {
		return 0, r.Cur, nil
	}
	return int(n-DescriptorsOwn) / DescriptorsEach, r.Cur, nil
}

// noRoom refuses one more sandbox than there is room for.
func noRoom(have int) error {
	room, limit, err := Room()
	if err != nil || have < room {
		return err
	}
	return &LaunchError{Code: 125, Step: "number", Err: fmt.Errorf("%w: %d are enough for %d sandboxes, and there are %d", ErrNoRoom, limit, room, have),
		Remedy: descriptorRemedy}
}
