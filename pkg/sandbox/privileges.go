// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// undoing are capabilities with which a process can get around a fence that
// consists of programs on its cgroup, by their numbers (linux/capability.h).
var undoing = []struct {
	bit  uint
	name string
	does string
}{
	{13, "CAP_NET_RAW", "can send packets that no hook sees (packet sockets)"},
	{12, "CAP_NET_ADMIN", "can change the routes and packet filters of its network namespace"},
	{21, "CAP_SYS_ADMIN", "can leave its cgroup or take the programs away"},
	{19, "CAP_SYS_PTRACE", "can act through other processes that it sees"},
}

// mayDo finds out what adopted processes may do besides their fence, by their
// threads: each has credentials and namespaces of its own (credentials(7)).
type mayDo struct {
	bounds bounds
	above  []procsFile
	mounts map[mountView][]string // roots of writable cgroup mounts
	powers map[uint]string        // the first process with each capability
	way    string                 // by which the first one may leave its cgroup
	gains  string                 // the first one that set-user-ID programs give rights
}

func newMayDo(cgroup string, b bounds) (*mayDo, error) {
	above, err := procsAbove(cgroup)
	return &mayDo{bounds: b, above: above, mounts: map[mountView][]string{}, powers: map[uint]string{}}, err
}

// all looks at the processes in the given order until the bounds are reached;
// it returns how many it has been through.
func (m *mayDo) all(pids []int) (done int, err error) {
	for _, pid := range pids {
		err := eachThread(pid, &m.bounds, func(tid int) (bool, error) { return false, m.thread(pid, tid) })
		if err != nil {
			return done, fmt.Errorf("what process %d may do: %w", pid, err)
		}
		if m.bounds.reached() {
			return done, nil
		}
		done++
	}
	return done, nil
}

func (m *mayDo) thread(pid, tid int) error {
	st, err := statusOf(pid, tid)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	caps, err := capabilitiesIn(st)
	if err != nil {
		return err
	}
	for _, c := range undoing {
		if m.powers[c.bit] == "" && caps&(1<<c.bit) != 0 {
			m.powers[c.bit] = fmt.Sprintf("process %d has %s: it %s", pid, c.name, c.does)
		}
	}
	if m.gains == "" && st["NoNewPrivs"] == "0" {
		m.gains = fmt.Sprintf("process %d gets the rights of set-user-ID programs that it runs (no_new_privs is not set)", pid)
	}
	if m.way != "" {
		return nil
	}
	who, err := identityIn(st, caps)
	if err == nil {
		m.way, err = m.wayOut(pid, tid, who)
	}
	return err
}

// into writes down what was found, in the order of the list, and keeps what an
// earlier look found if this one has not seen everything.
func (m *mayDo) into(at *Sighting, before Sighting) {
	for _, c := range undoing {
		power := m.powers[c.bit]
		if i := slices.IndexFunc(before.Powers, func(p string) bool { return strings.Contains(p, " has "+c.name+":") }); power == "" && m.bounds.reached() && i >= 0 {
			power = before.Powers[i]
		}
		if power != "" {
			at.Powers = append(at.Powers, power)
		}
	}
	if at.Gains = m.gains; at.Gains == "" && m.bounds.reached() {
		at.Gains = before.Gains
	}
	switch {
	case m.way != "":
		at.Ways = []string{m.way}
	case m.bounds.reached():
		at.Ways = before.Ways
	}
}

// capabilitiesIn are those that a thread has or may take.
func capabilitiesIn(status map[string]string) (caps uint64, err error) {
	for _, set := range []string{"CapEff", "CapPrm"} {
		v, err := strconv.ParseUint(status[set], 16, 64)
		if err != nil {
			return 0, fmt.Errorf("capabilities: %w", err)
		}
		caps |= v
	}
	return caps, nil
}
