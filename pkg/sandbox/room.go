// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/wire"
)

// What descriptors of the keeper go to. The gateway, which is started with the
// same limit, has ten for each sandbox and keeps room for them (gateway.Limits).
const (
	// DescriptorsEach is what one sandbox takes while it lives: ten listeners,
	// init's socket, its pidfd and that of who holds its output, the cgroup, the
	// workspace, the names, the lock of its uid; and one to spare.
	DescriptorsEach = 18
	// DescriptorsAdopted is what counts for one that was adopted. It takes fewer
	// than 46 here, but has 38 listeners, all of them in the gateway too, whose
	// room for listeners is ten of eighteen.
	DescriptorsAdopted = (wire.RedirectedListeners + wire.DatagramListeners) * DescriptorsEach / wire.Listeners
	// DescriptorsOwn are for everything else: the node's programs and maps, the
	// event log, operators' connections, 256 maps of ids and 64 images of views
	// that are held on to, launches under way.
	DescriptorsOwn = 768
)

// descriptorRemedy is what to do about too few of them.
var descriptorRemedy = fmt.Sprintf("stop sandboxes, or start the daemon with a higher limit of open files (LimitNOFILE= of its unit, or `ulimit -Hn`): %d for each sandbox, %d for each adoption, and %d besides", DescriptorsEach, DescriptorsAdopted, DescriptorsOwn)

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

// noRoom refuses one more sandbox, or adoption, than there is room for beside
// so many of each.
func noRoom(sandboxes, adopted int, adopt bool) error {
	_, limit, err := Room()
	if err != nil {
		return err
	}
	next := DescriptorsEach
	if adopt {
		next = DescriptorsAdopted
	}
	if uint64(DescriptorsOwn+sandboxes*DescriptorsEach+adopted*DescriptorsAdopted+next) <= limit {
		return nil
	}
	return &LaunchError{Code: 125, Step: "number", Err: fmt.Errorf("%w: %d are not enough for one more than %d sandboxes and %d adoptions", ErrNoRoom, limit, sandboxes, adopted),
		Remedy: descriptorRemedy}
}

// adoptedLocked is how many of those that live were adopted.
func (m *Manager) adoptedLocked() (n int) {
	for _, s := range m.byNumber {
		if s.Record.Foreign != nil {
			n++
		}
	}
	return n
}
