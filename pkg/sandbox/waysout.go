// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"io"
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

// wayOut says how a thread may have its process leave the cgroup, "" if it may
// not. Whoever moves a process needs write access to cgroup.procs of the cgroup
// that both places have above them (cgroups(7), "Delegation containment"), and
// of the new place: so it takes one ancestor whose file it may write and whose
// hierarchy it sees mounted writable. Capabilities in a user namespace of its
// own count as if they were the machine's: rather named once too often.
func (m *mayDo) wayOut(pid, tid int, who identity) (string, error) {
	for _, f := range m.above {
		if !who.mayWrite(f) {
			continue
		}
		roots, err := m.writableCgroups(threadDir(pid, tid))
		if err != nil {
			return "", err
		}
		if slices.ContainsFunc(roots, func(r string) bool { return within(f.path, strings.TrimSuffix(r, "/")+"/") }) {
			return fmt.Sprintf("process %d (uid %d) may write cgroup.procs of %s (owner %d, mode %#o): it can leave its cgroup", pid, who.uids[0], f.path, f.uid, f.mode), nil
		}
	}
	return "", nil
}

// procsAbove are the cgroup.procs of the cgroups above one.
func procsAbove(cgroup string) (above []procsFile, err error) {
	root, err := kernel.CgroupRoot()
	if err != nil {
		return nil, err
	}
	for dir := filepath.Dir(cgroup); within(dir, root); dir = filepath.Dir(dir) {
		f, err := procsOf(dir)
		if err != nil {
			return nil, err
		}
		f.path = strings.TrimPrefix(dir, root) + "/"
		above = append(above, f)
	}
	return above, nil
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

// identityIn reads that of a thread in its status.
func identityIn(st map[string]string, caps uint64) (i identity, err error) {
	i.override = caps&(1<<capDACOverride) != 0
	for _, f := range []struct {
		text string
		to   *[]uint32
	}{{st["Uid"], &i.uids}, {st["Gid"] + " " + st["Groups"], &i.gids}} {
		for word := range strings.FieldsSeq(f.text) {
			n, err := strconv.ParseUint(word, 10, 32)
			if err != nil {
				return i, fmt.Errorf("identity: %w", err)
			}
			*f.to = append(*f.to, uint32(n))
		}
	}
	if len(i.uids) == 0 {
		return i, errors.New("identity: the status names no user")
	}
	return i, nil
}

// mountView is what decides which mounts /proc shows of a thread: its namespace
// and its root in it (proc_pid_mountinfo(5)).
type mountView struct {
	namespace, root string
	mount           uint64 // of the root; 0 before Linux 5.8
}

// mountViewOf asks no file system: one of the process's own may never answer.
func mountViewOf(thread string) (v mountView, err error) {
	if v.namespace, err = os.Readlink(thread + "/ns/mnt"); err != nil {
		return v, err
	}
	if v.root, err = os.Readlink(thread + "/root"); err != nil {
		return v, err
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, thread+"/root", unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st); err != nil {
		return v, err
	}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		v.mount = st.Mnt_id
	}
	return v, nil
}

// mountinfoLimit is how much of a thread's mounts is read. A machine with
// containers has some 10 kB; a process may make 100,000 mounts.
const mountinfoLimit = 1 << 20

// writableCgroups are the cgroups that a thread sees as roots of writable
// mounts of the cgroup v2 hierarchy, as the reader's cgroup namespace names
// them. More mounts than are read may hold any.
func (m *mayDo) writableCgroups(thread string) ([]string, error) {
	view, err := mountViewOf(thread)
	if errors.Is(noThread(err), fs.ErrNotExist) {
		return nil, nil // it has ended
	}
	if err != nil {
		return nil, err
	}
	if roots, known := m.mounts[view]; known {
		return roots, nil
	}
	text, err := m.mountinfo(thread)
	if errors.Is(noThread(err), fs.ErrNotExist) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	roots := writableMounts(text, "cgroup2")
	if len(text) > mountinfoLimit {
		roots = []string{"/"}
	}
	m.mounts[view] = roots
	return roots, nil
}

// mountinfo reads at most a little more than the limit, while there is time.
func (m *mayDo) mountinfo(thread string) (string, error) {
	f, err := os.Open(thread + "/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	var out []byte
	buf := make([]byte, 64<<10)
	for len(out) <= mountinfoLimit && !m.bounds.late() {
		n, err := f.Read(buf)
		out = append(out, buf[:n]...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
	}
	return string(out), nil
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
