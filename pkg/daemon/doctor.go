// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/seccomp"
)

// Doctor really tries what sandboxes need.
func (b *backend) Doctor(context.Context) (api.DoctorReport, error) {
	rep := Examine()
	d := b.d
	rep.Checks = append(rep.Checks, d.checkGateway(), d.checkDisk(), checkOpenFiles(sandbox.Room()), checkGroup(d.cfg.Group, d.operators, groupID(d.cfg.Group)), d.checkController("memory"), d.checkController("pids"))
	for _, wall := range d.gateway.Unconfined() {
		rep.Checks = append(rep.Checks, api.Check{Name: "gateway's own walls", Optional: true, Detail: wall, Remedy: "boot a kernel with CONFIG_SECURITY_LANDLOCK and landlock in the lsm= list"})
	}
	if d.library.Owes() {
		rep.Checks = append(rep.Checks, api.Check{Name: "store", Detail: "a policy revision that is in force could not be stored: a restart may put back what was removed since", Remedy: "make room in " + d.cfg.StateDir + "; the daemon's log names the error, and it is tried again every second"})
	}
	for _, p := range d.library.Problems() {
		do := "ringfence policy check " + p.File
		if p.Origin == documents.FromAPI {
			do = "correct it, and apply it again"
		}
		rep.Checks = append(rep.Checks, api.Check{Name: api.CheckPolicy, State: "mistake", Detail: p.Error(), Remedy: p.Error() + ": " + do})
	}
	for _, p := range d.people.problems() { // it opens nothing
		rep.Checks = append(rep.Checks, api.Check{Name: api.CheckPolicy, Optional: true, State: "mistake", Detail: p.Error(), Remedy: p.Hint})
	}
	rep.Checks = append(rep.Checks, checkLearning(d.learning())...)
	rep.OK = allOK(rep.Checks)
	return rep, nil
}

// Examine checks the machine; it needs root but no running daemon.
func Examine() api.DoctorReport {
	var checks []api.Check
	for _, f := range kernel.Probe() {
		checks = append(checks, api.Check{Name: f.Name, OK: f.Have, Optional: f.Need != kernel.NeedRequired, Need: f.Kernel, Detail: f.Detail, Remedy: f.Remedy})
	}
	checks = append(checks, checkLandlock(), checkUnixSockets(), checkSeccomp(), checkIdmap())
	return api.DoctorReport{OK: allOK(checks), Checks: checks}
}

func allOK(checks []api.Check) bool {
	for _, c := range checks {
		if !c.OK && !c.Optional {
			return false
		}
	}
	return true
}

// leastLandlock is what the shipped profiles require.
const leastLandlock = 2

func checkLandlock() api.Check {
	abi := confine.LandlockABI()
	c := api.Check{Name: "landlock", OK: abi >= leastLandlock, Have: fmt.Sprintf("ABI %d", abi), Need: fmt.Sprintf("ABI %d (Linux 5.19)", leastLandlock), Detail: "files of a sandbox"}
	if !c.OK {
		c.Remedy = "boot a kernel with CONFIG_SECURITY_LANDLOCK and landlock in the lsm= list"
	}
	return c
}

// unixLandlock is where Landlock begins to judge unix sockets by path.
const unixLandlock = 9

// checkUnixSockets is about a gap that profiles with unixSockets tolerate.
func checkUnixSockets() api.Check {
	abi := confine.LandlockABI()
	c := api.Check{Name: "unix sockets by path", OK: abi >= unixLandlock, Optional: true, Have: fmt.Sprintf("Landlock ABI %d", abi),
		Need: fmt.Sprintf("Landlock ABI %d (Linux 7.1)", unixLandlock), Detail: "sockets that host programs keep inside a workspace"}
	if !c.OK {
		c.Remedy = "keep no sockets of host programs in a workspace, or use a profile without unixSockets, such as strict"
	}
	return c
}

func checkSeccomp() api.Check {
	c := api.Check{Name: "seccomp", OK: true, Have: "filter mode", Detail: "system calls of a sandbox"}
	if _, err := seccomp.Compile(seccomp.Strict()); err != nil {
		return api.Check{Name: "seccomp", Detail: err.Error(), Remedy: "install libseccomp 2.5 or newer"}
	}
	if err := unix.Prctl(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil {
		return api.Check{Name: "seccomp", Detail: err.Error(), Remedy: "boot a kernel with CONFIG_SECCOMP_FILTER"}
	}
	return c
}

// checkIdmap only says whether the kernel knows the call; whether the file
// system of a workspace does is found out at launch.
func checkIdmap() api.Check {
	c := api.Check{Name: "idmapped mounts", OK: true, Optional: true, Need: "Linux 5.12", Detail: "workspaces of sandboxes that root launches"}
	err := unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP})
	if err == unix.ENOSYS {
		c.OK, c.Remedy = false, "use Linux 5.12 or newer, or launch as an ordinary user"
	}
	return c
}

// checkController says whether a profile's limit can be enforced.
func (d *Daemon) checkController(name string) api.Check {
	c := api.Check{Name: name + " limit", OK: true, Optional: true, Need: "cgroup v2 controller " + name, Detail: "limits of a profile; a profile may tolerate its absence"}
	b, err := os.ReadFile(filepath.Join(d.cgroupBase, "cgroup.controllers"))
	if err != nil || !hasWord(string(b), name) {
		c.OK, c.Remedy = false, "boot with cgroup v2 alone (systemd.unified_cgroup_hierarchy=1), so that "+name+" is not taken by version 1"
	}
	return c
}

func (d *Daemon) checkGateway() api.Check {
	c := api.Check{Name: "gateway", OK: d.gateway.Ready(), Detail: "the process that meets the bytes of sandboxes"}
	if !c.OK {
		c.Remedy = "read the daemon's own log: it says why the gateway does not start"
	}
	if until, other := d.gateway.OtherBuild(); other && c.OK {
		c.Detail += "; it is of another build than the daemon, and is replaced when it has no connections, at " + until.UTC().Format(time.RFC3339) + " at the latest"
	}
	return c
}

// checkGroup compares the operator group of the start (-1: none) with the one
// that there is now: socket and API know only the first.
func checkGroup(name string, started, now int) api.Check {
	c := api.Check{Name: "operator group", OK: started == now, Optional: true, Have: name, Detail: "its members may use this daemon"}
	switch {
	case !c.OK:
		c.Have, c.Need = "", name
		c.Detail = "the group was made, changed or removed after the daemon had started"
		c.Remedy = "restart the daemon: end it with SIGTERM and start it, sandboxes go on"
	case now <= 0:
		c.Have, c.Detail = "", "only root may use this daemon: there is no group "+name
	}
	return c
}

// nodeSandboxes is how many sandboxes a node is made for.
const nodeSandboxes = 1000

// checkOpenFiles is about the limit that the daemon runs with: beyond what it is
// enough for, launches are refused.
func checkOpenFiles(room int, limit uint64, err error) api.Check {
	need := nodeSandboxes*sandbox.DescriptorsEach + sandbox.DescriptorsOwn
	c := api.Check{Name: "open files", OK: err == nil && room >= nodeSandboxes, Optional: true, Have: fmt.Sprintf("%d, for %d sandboxes", limit, room),
		Need: fmt.Sprintf("%d, for %d", need, nodeSandboxes), Detail: "the daemon's limit"}
	if err != nil {
		c.Detail = err.Error()
	}
	if !c.OK {
		c.Remedy = fmt.Sprintf("LimitNOFILE=1024:%d or more in the daemon's unit, or `ulimit -Hn`, and a restart, if that many are to run", need)
	}
	return c
}

// learning are the ids of the sandboxes that learn.
func (d *Daemon) learning() (ids []string) {
	for _, s := range d.sandboxes.List() {
		if s.Record.Learns {
			ids = append(ids, s.Record.ID)
		}
	}
	return ids
}

// checkLearning tells of the sandboxes that learn, if any does.
func checkLearning(ids []string) []api.Check {
	if len(ids) == 0 {
		return nil
	}
	return []api.Check{{Name: "sandboxes that learn", Optional: true, State: "open", Have: strings.Join(ids, " "), Detail: "TCP to public addresses that no rule speaks of is let through and recorded",
		Remedy: "write down what they need (ringfence policy learn ID), stop them, and run them without --learn"}}
}

// leastDisk is when doctor begins to warn.
const leastDisk = 256 << 20

func (d *Daemon) checkDisk() api.Check {
	var st unix.Statfs_t
	if err := unix.Statfs(d.cfg.StateDir, &st); err != nil {
		return api.Check{Name: "disk", Detail: err.Error(), Remedy: "check " + d.cfg.StateDir}
	}
	free := int64(st.Bavail) * st.Bsize
	c := api.Check{Name: "disk", OK: free > leastDisk, Have: fmt.Sprintf("%d MiB free", free>>20), Need: fmt.Sprintf("%d MiB", leastDisk>>20), Detail: "event log in " + d.cfg.StateDir}
	if !c.OK {
		c.Remedy = "free space: when the disk is full, new work is refused"
	}
	return c
}
