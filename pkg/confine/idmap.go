// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// maxIdmaps bounds how many user namespaces an Idmaps holds on to.
const maxIdmaps = 256

// Idmaps remembers the user namespaces behind idmapped workspaces. Making one
// takes a fork of the keeper (about 2 ms); a keeper that reuses its uids needs
// few. The zero value is ready; it is safe for concurrent use.
type Idmaps struct {
	mu  sync.Mutex
	all map[[4]uint32]*os.File
}

// get returns a descriptor that stays the Idmaps' own.
func (m *Idmaps) get(uid, gid, toUID, toGID uint32) (*os.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := [4]uint32{uid, gid, toUID, toGID}
	if f := m.all[key]; f != nil {
		return f, nil
	}
	f, err := idmapNS(uid, gid, toUID, toGID)
	if err != nil {
		return nil, err
	}
	if m.all == nil || len(m.all) >= maxIdmaps {
		// Files in use elsewhere are closed by their finaliser.
		m.all = map[[4]uint32]*os.File{}
	}
	m.all[key] = f
	return f, nil
}

// Close lets go of all namespaces. No Plan with this Idmaps may be in progress.
func (m *Idmaps) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.all {
		f.Close()
	}
	m.all = nil
}

// idmapNS returns a user namespace that maps one owner of files to one uid and
// gid: what belongs to (uid, gid) on disk shows as (toUID, toGID) in a mount
// with this map, and the other way round; every other owner shows as 65534.
func idmapNS(uid, gid, toUID, toGID uint32) (*os.File, error) {
	// The namespace needs a process to be born in. It is stopped by ptrace at
	// its first instruction and killed: it never runs.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: int(uid), HostID: int(toUID), Size: 1}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: int(gid), HostID: int(toGID), Size: 1}},
		GidMappingsEnableSetgroups: true,
		Ptrace:                     true,
		Pdeathsig:                  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("confine: user namespace for the idmapped workspace: %w", err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // "signal: killed" is what we asked for
	}()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	if err != nil {
		return nil, fmt.Errorf("confine: user namespace for the idmapped workspace: %w", err)
	}
	return ns, nil
}
