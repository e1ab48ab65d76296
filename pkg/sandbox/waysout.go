// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/kernel"
)

const wayRemedy = "run it where nothing above its cgroup is its own (a system service instead of one of a user's), or without a writable cgroup file system"

// waysOut says which of the processes may leave the cgroup. Whoever moves a
// process needs write access to cgroup.procs of the cgroup that both places
// have above them (cgroups(7), "Delegation containment"), and of the new place:
// so it takes one ancestor whose file it may write and whose hierarchy it sees
// mounted writable. Capabilities in a user namespace of its own count as if
// they were the machine's: rather named once too often.
func waysOut(cgroup string, pids []int) ([]string, error) {
	root, err := kernel.CgroupRoot()
	if err != nil {
		return nil, err
	}
	var above []procsFile
	for dir := filepath.Dir(cgroup); within(dir, root); dir = filepath.Dir(dir) {
		f, err := procsOf(dir)
		if err != nil {
			return nil, err
		}
		f.path = strings.TrimPrefix(dir, root) + "/"
		above = append(above, f)
	}
	for _, pid := range pids {
		who, err := identityOf(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, f := range above {
			if !who.mayWrite(f) {
				continue
			}
			roots, err := writableCgroups(pid)
			if err != nil {
				return nil, err
			}
			if slices.ContainsFunc(roots, func(r string) bool { return within(f.path, strings.TrimSuffix(r, "/")+"/") }) {
				return []string{fmt.Sprintf("process %d (uid %d) may write cgroup.procs of %s (owner %d, mode %#o): it can leave its cgroup", pid, who.uids[0], f.path, f.uid, f.mode)}, nil
			}
		}
	}
	return nil, nil
}

// procsFile is the cgroup.procs of one cgroup.
type procsFile struct {
	path     string // of the cgroup below the hierarchy, with a slash at the end
	uid, gid uint32
	mode     uint32
}

func procsOf(dir string) (procsFile, error) {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "cgroup.procs"), &st); err != nil {
		return procsFile{}, fmt.Errorf("who may write cgroup.procs of %s: %w", dir, err)
	}
	return procsFile{uid: st.Uid, gid: st.Gid, mode: st.Mode & 0o7777}, nil
}

// identity is as whom a process may act.
type identity struct {
	uids, gids []uint32 // real, effective, saved and of the file system; of groups also the others
	override   bool     // CAP_DAC_OVERRIDE
}

func (i identity) mayWrite(f procsFile) bool {
	if i.override || slices.Contains(i.uids, f.uid) { // its owner may change the mode
		return true
	}
	if slices.Contains(i.gids, f.gid) { // what others may do is not for the group
		return f.mode&0o020 != 0
	}
	return f.mode&0o002 != 0
}

// capDACOverride is CAP_DAC_OVERRIDE of linux/capability.h.
const capDACOverride = 1

func identityOf(pid int) (i identity, err error) {
	st, err := readStatus(pid)
	if err != nil {
		return i, err
	}
	if i.override, err = hasCapability(pid, capDACOverride); err != nil {
		return i, err
	}
	for _, f := range []struct {
		text string
		to   *[]uint32
	}{{st["Uid"], &i.uids}, {st["Gid"] + " " + st["Groups"], &i.gids}} {
		for word := range strings.FieldsSeq(f.text) {
			n, err := strconv.ParseUint(word, 10, 32)
			if err != nil {
				return i, fmt.Errorf("identity of process %d: %w", pid, err)
			}
			*f.to = append(*f.to, uint32(n))
		}
	}
	if len(i.uids) == 0 {
		return i, fs.ErrNotExist // it has ended
	}
	return i, nil
}

// writableCgroups are the cgroups that a process sees as roots of writable
// mounts of the cgroup v2 hierarchy, as the reader's cgroup namespace names
// them (proc_pid_mountinfo(5)).
func writableCgroups(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, nil // it has ended
	}
	if err != nil {
		return nil, err
	}
	return writableMounts(string(b), "cgroup2"), nil
}

// writableMounts are the roots of mounts of one type that are not read-only.
// One whose name cannot be read as it is counts as the whole.
func writableMounts(mountinfo, fstype string) (out []string) {
	for line := range strings.Lines(mountinfo) {
		mount, file, ok := strings.Cut(line, " - ")
		m, f := strings.Fields(mount), strings.Fields(file)
		if !ok || len(m) < 6 || len(f) < 1 || f[0] != fstype {
			continue
		}
		if readOnly(m[5]) || len(f) > 2 && readOnly(f[2]) {
			continue
		}
		if root := m[3]; strings.ContainsAny(root, `\`) || strings.HasPrefix(root, "/..") {
			out = append(out, "/")
		} else {
			out = append(out, root)
		}
	}
	return out
}

func readOnly(options string) bool { return slices.Contains(strings.Split(options, ","), "ro") }
