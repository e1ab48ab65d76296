// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoCgroup2 says that no cgroup v2 hierarchy is mounted.
var ErrNoCgroup2 = errors.New("no cgroup2 file system is mounted (mount -t cgroup2 none /sys/fs/cgroup)")

// ErrPopulated says that a cgroup holds processes where it must not.
var ErrPopulated = errors.New("cgroup holds processes")

// CgroupRoot returns where the cgroup v2 hierarchy is mounted, be it alone or
// beside version 1. It reads the caller's mount table and assumes no path.
func CgroupRoot() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find cgroup2: %w", err)
	}
	defer f.Close()
	mounts, err := parseMountinfo(f)
	if err != nil {
		return "", fmt.Errorf("find cgroup2: %w", err)
	}
	for _, m := range mounts {
		// A bind mount of a part is no root to build below.
		if m.fstype == "cgroup2" && m.root == "/" {
			return m.target, nil
		}
	}
	return "", ErrNoCgroup2
}

// mount is one line of mountinfo, unescaped.
type mount struct {
	root, target, fstype, source string
}

// parseMountinfo reads proc_pid_mountinfo(5).
func parseMountinfo(r io.Reader) ([]mount, error) {
	var out []mount
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		head, tail, ok := strings.Cut(sc.Text(), " - ")
		left, right := strings.Fields(head), strings.Fields(tail)
		if !ok || len(left) < 5 || len(right) < 2 {
			return nil, fmt.Errorf("mountinfo: unexpected line %q", sc.Text())
		}
		out = append(out, mount{unescape(left[3]), unescape(left[4]), right[0], unescape(right[1])})
	}
	return out, sc.Err()
}

// unescape undoes the octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// cgroupDir is an open cgroup directory. It stays the same cgroup whatever
// happens to its path.
type cgroupDir struct {
	file *os.File
	id   uint64 // kernfs id: the inode number on 64-bit kernels
}

func openCgroup(path string) (*cgroupDir, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		f.Close()
		return nil, fmt.Errorf("open cgroup %s: %w", path, err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		f.Close()
		return nil, fmt.Errorf("open cgroup %s: not in a cgroup2 file system", path)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, fmt.Errorf("open cgroup %s: %w", path, err)
	}
	return &cgroupDir{file: f, id: st.Ino}, nil
}

// path names the open directory itself.
func (c *cgroupDir) path() string {
	return fmt.Sprintf("/proc/self/fd/%d", c.file.Fd())
}

// populated reports whether the cgroup or one below holds a live process. A
// removed cgroup holds none.
func (c *cgroupDir) populated() (bool, error) {
	b, err := os.ReadFile(filepath.Join(c.path(), "cgroup.events"))
	if errors.Is(err, unix.ENODEV) || errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read cgroup.events: %w", err)
	}
	return bytes.Contains(b, []byte("populated 1")), nil
}

// alive reports whether the cgroup was not removed.
func (c *cgroupDir) alive() bool {
	_, err := os.Stat(filepath.Join(c.path(), "cgroup.events"))
	return err == nil
}

// cgroupExists asks for a cgroup by its id. Links tell the same, but only some
// time after the cgroup was removed.
func cgroupExists(id uint64) (bool, error) {
	root, err := CgroupRoot()
	if err != nil {
		return false, err
	}
	dir, err := os.Open(root)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	const fileidKernfs = 0xfe // FILEID_KERNFS of linux/exportfs.h, since 5.5
	handle := unix.NewFileHandle(fileidKernfs, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(int(dir.Fd()), handle, unix.O_PATH)
	if errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up cgroup %d: %w", id, err)
	}
	return true, unix.Close(fd)
}

func (c *cgroupDir) close() error { return c.file.Close() }
