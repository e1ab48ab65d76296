// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxPeerGroups bounds SO_PEERGROUPS: NGROUPS_MAX of the kernel.
const maxPeerGroups = 65536

// readCaller asks the kernel who is behind c. operatorGID is the operator group;
// a negative one is none. What the caller may do is asked for each request; whether the peer lives in a sandbox is asked
// separately, of the Backend.
func readCaller(c *net.UnixConn, operatorGID int) (*Caller, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	caller := &Caller{}
	var ctlErr error
	err = rc.Control(func(fd uintptr) { ctlErr = caller.fill(int(fd)) })
	if err = errors.Join(err, ctlErr); err != nil {
		caller.close()
		return nil, fmt.Errorf("peer credentials: %w", err)
	}
	switch {
	case caller.UID == 0:
		caller.Role = RoleRoot
	case operatorGID >= 0 && caller.inGroup(uint32(operatorGID)):
		caller.Role = RoleMember
	}
	return caller, nil
}

// fill reads everything the socket tells. SO_PEERGROUPS exists since Linux
// 4.13, SO_PEERPIDFD since 6.5.
func (c *Caller) fill(fd int) error {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return fmt.Errorf("SO_PEERCRED: %w", err)
	}
	if cred.Pid <= 0 {
		return errors.New("the peer lives in a pid namespace that this node agent cannot see")
	}
	c.UID, c.GID, c.PID = cred.Uid, cred.Gid, int(cred.Pid)
	if c.Groups, err = peerGroups(fd); err != nil {
		return fmt.Errorf("SO_PEERGROUPS: %w", err)
	}
	c.PIDFD = peerPIDFD(fd, c.PID)
	if err := c.isSomebody(); err != nil {
		return err
	}
	c.Cgroup = c.readCgroup()
	return nil
}

// isSomebody refuses numbers that a person may take on beside its own: whoever has
// a range in /etc/subuid is as many uids as it likes in a user namespace, and
// keeps its groups there. A uid of another user namespace than ours has to have
// an account.
func (c *Caller) isSomebody() error {
	if c.UID == 0 {
		return nil
	}
	own, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return fmt.Errorf("own user namespace: %w", err)
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", c.PID))
	if err == nil && theirs == own {
		return nil
	}
	if _, err := user.LookupId(strconv.FormatUint(uint64(c.UID), 10)); err != nil {
		return fmt.Errorf("uid %d is a number of a user namespace and of no account on this machine: run the command outside of it", c.UID)
	}
	return nil
}

func (c *Caller) close() {
	if c.PIDFD != nil {
		_ = c.PIDFD.Close()
	}
}

func (c *Caller) inGroup(gid uint32) bool {
	return c.GID == gid || slices.Contains(c.Groups, gid)
}

// peerGroups reads the supplementary groups of the peer.
func peerGroups(fd int) ([]uint32, error) {
	size := uint32(64 * 4)
	for {
		buf := make([]uint32, size/4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE && size <= maxPeerGroups*4 && int(size/4) > len(buf):
			continue // size now says how much is needed
		case errno != 0:
			return nil, errno
		}
		return buf[:size/4], nil
	}
}

// peerPIDFD returns a descriptor of the peer, from the socket where the kernel
// can and from its number where it cannot; nil when neither works. The number
// may have been reused by then: readCgroup compares the owner.
func peerPIDFD(fd, pid int) *os.File {
	if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD); err == nil {
		unix.CloseOnExec(n)
		return os.NewFile(uintptr(n), "peer-pidfd")
	}
	if n, err := unix.PidfdOpen(pid, 0); err == nil {
		return os.NewFile(uintptr(n), "peer-pidfd")
	}
	return nil
}

// readCgroup returns the peer's path in the v2 hierarchy, or "" when it cannot
// be told for certain: then the peer is refused. What it runs is noted besides.
func (c *Caller) readCgroup() string {
	if c.PIDFD == nil {
		return ""
	}
	dir := "/proc/" + strconv.Itoa(c.PID)
	path := cgroupV2Path(dir + "/cgroup")
	exe, comm := program(dir)
	if path == "" || !ownedBy(dir, c.UID) {
		return ""
	}
	// Only if the peer is still alive did both files speak of it.
	alive := func(fd int) error { return unix.PidfdSendSignal(fd, 0, nil, 0) }
	if err := withFD(c.PIDFD, alive); err != nil && !errors.Is(err, unix.EPERM) {
		return ""
	}
	c.Exe, c.Comm = exe, comm
	return path
}

// program is what a process runs. Both are its own word: it is for the record,
// and nothing is decided on it.
func program(dir string) (exe, comm string) {
	exe, err := os.Readlink(dir + "/exe")
	if err != nil {
		exe = ""
	}
	b, err := os.ReadFile(dir + "/comm")
	if err != nil {
		return exe, ""
	}
	return exe, strings.TrimSuffix(string(b), "\n")
}

// cgroupV2Path reads the "0::" line of a /proc/PID/cgroup file.
func cgroupV2Path(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		if p, ok := strings.CutPrefix(sc.Text(), "0::"); ok && strings.HasPrefix(p, "/") {
			return p
		}
	}
	return ""
}

// ownedBy compares the real and effective uids in /proc/PID/status with uid:
// SO_PEERCRED reports the effective one at connect.
func ownedBy(dir string, uid uint32) bool {
	b, err := os.ReadFile(dir + "/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if f, ok := strings.CutPrefix(line, "Uid:"); ok {
			return slices.Contains(strings.Fields(f), strconv.FormatUint(uint64(uid), 10))
		}
	}
	return false
}
