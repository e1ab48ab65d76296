// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// StartOptions says where and as whom init is born.
type StartOptions struct {
	Init     *os.File // of InitBinary
	CgroupFD int      // directory of the sandbox's cgroup (v2); programs must already be attached
	// UserNS clones init in a user namespace that maps 0 to HostUID, HostGID.
	UserNS           bool
	HostUID, HostGID uint32
	Stderr           *os.File // for init's own last words; nil = /dev/null
}

// Init is a started ringfence-init that waits for its Spec.
type Init struct {
	Conn    *Conn
	Process *os.Process
}

// Start clones init into its cgroup and its own namespaces. The caller sends
// the Spec, waits for Ready, says Go, and reaps Process. Closing Conn before Go
// makes init exit without having started anything.
func Start(o StartOptions) (*Init, error) {
	if o.HostUID == 0 && o.UserNS {
		return nil, errors.New("confine: a sandbox must not map to host uid 0")
	}
	conn, peer, err := Pair()
	if err != nil {
		return nil, err
	}
	defer peer.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("confine: start init: %w", err)
	}
	defer null.Close()
	stderr := o.Stderr
	if stderr == nil {
		stderr = null
	}
	attr := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWCGROUP | syscall.CLONE_NEWNET,
		UseCgroupFD: true,
		CgroupFD:    o.CgroupFD,
		Setsid:      true,
	}
	if o.UserNS {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(o.HostUID), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(o.HostGID), Size: 1}}
		attr.GidMappingsEnableSetgroups = true
		attr.Credential = &syscall.Credential{}
	}
	fd, err := rawFD(o.Init)
	if err != nil {
		conn.Close()
		return nil, err
	}
	p, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", fd), []string{"ringfence-init"}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"GOMAXPROCS=1", "GOGC=off"}, // the first run only builds, then replaces itself
		Files: []*os.File{null, null, stderr, peer, o.Init},
		Sys:   attr,
	})
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("confine: start init: %w", err)
	}
	return &Init{Conn: conn, Process: p}, nil
}
