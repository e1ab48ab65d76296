// SPDX-License-Identifier: Apache-2.0

package workspace

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The quarantine lies in the workspace and belongs to its owner:
//
//	.ringfence-quarantine/<run>/index.txt        what came from where
//	.ringfence-quarantine/<run>/0001-pre-commit  the file itself, not executable
//
// It is flat, so nothing in it can be a repository, and every name is new.

// quarantineDir opens the folder of this run, made on first use.
func (h *handback) quarantineDir() (*os.File, error) {
	if h.qdir != nil {
		return h.qdir, nil
	}
	top, topName, err := h.makeDir(h.tree.root, quarantine, true)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	dir, name, err := h.makeDir(top, h.opts.Run, false)
	if err != nil {
		return nil, err
	}
	h.qdir, h.qname = dir, topName+"/"+name
	return dir, nil
}

// makeDir makes a directory owned like the root and opens it. When the name is
// taken (by something else than a directory, or at all if !reuse) it takes
// another one: what is there was put there by the agent.
func (h *handback) makeDir(parent *os.File, name string, reuse bool) (*os.File, string, error) {
	st, err := fstat(h.tree.root)
	if err != nil {
		return nil, "", fmt.Errorf("workspace: quarantine: %w", err)
	}
	try := name
	for range 5 {
		err = unix.Mkdirat(int(parent.Fd()), try, 0o700)
		if err == nil || reuse && errors.Is(err, unix.EEXIST) {
			made := err == nil
			var f *os.File
			if f, err = at(parent, try, unix.O_RDONLY|unix.O_DIRECTORY); err == nil {
				if made {
					err = f.Chown(int(st.Uid), int(st.Gid))
				}
				if err == nil {
					return f, try, nil
				}
				f.Close()
			}
		}
		try = name + "-" + strings.ToLower(rand.Text()[:8])
	}
	return nil, "", fmt.Errorf("workspace: make %s: %w", name, err)
}

// freshName returns an unused plain name for a file and notes where it came from.
func (h *handback) freshName(rel string) string {
	h.moved++
	_, base, _ := strings.Cut("/"+rel, "/")
	base = base[strings.LastIndexByte(base, '/')+1:]
	plain := strings.Map(func(r rune) rune {
		if r < 0x80 && (isKey(byte(r)) || r == '.' || r == '_') {
			return r
		}
		return '_'
	}, base)
	if len(plain) > 64 {
		plain = plain[:64]
	}
	name := fmt.Sprintf("%04d-%s", h.moved, plain)
	fmt.Fprintf(&h.index, "%s\t%q\n", name, rel)
	return name
}

// finish writes the index.
func (h *handback) finish() error {
	if h.qdir == nil {
		return nil
	}
	if err := h.write(h.qdir, "index.txt", []byte(h.index.String()), 0o600, h.tree.root); err != nil {
		return fmt.Errorf("workspace: quarantine index: %w", err)
	}
	return nil
}

// write makes a new file owned like another one.
func (h *handback) write(dir *os.File, name string, data []byte, mode uint32, like *os.File) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	st, err := fstat(like)
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Chown(int(st.Uid), int(st.Gid))
	}
	if err == nil {
		err = f.Chmod(os.FileMode(mode & 0o777))
	}
	return errors.Join(err, f.Close())
}

// move puts a file into quarantine and takes its execute bits.
func (h *handback) move(rel string) (string, string, error) {
	q, err := h.quarantineDir()
	if err != nil {
		return "", "", err
	}
	dir, name, err := h.tree.parent(rel)
	if err != nil {
		return "", "", err
	}
	defer dir.Close()
	to := h.freshName(rel)
	if err := unix.Renameat2(int(dir.Fd()), name, int(q.Fd()), to, unix.RENAME_NOREPLACE); err != nil {
		return "", "", err
	}
	if err := chmodFile(q, to, func(*unix.Stat_t) (uint32, error) { return 0o600, nil }); err != nil && !errors.Is(err, errNotRegular) {
		return "", "", err
	}
	return actionMoved, h.qname + "/" + to, nil
}

// edit comments settings out, keeping a copy; a file that cannot be edited
// safely is moved as a whole.
func (h *handback) edit(rel string, drop func(Setting) bool) (string, string, error) {
	dir, name, err := h.tree.parent(rel)
	if err != nil {
		return "", "", err
	}
	defer dir.Close()
	f, st, err := openRegular(dir, name)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	if !h.could(itemConfig, item{UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o777}) {
		return "", "", errNotOurs
	}
	data, err := readSmall(dir, name, configLimit)
	if err != nil {
		return "", "", err
	}
	all, err := ParseConfig(data)
	if err != nil {
		return h.move(rel)
	}
	edited, err := commentOut(data, all, drop)
	if err != nil {
		return h.move(rel)
	}
	q, err := h.quarantineDir()
	if err != nil {
		return "", "", err
	}
	copyName := h.freshName(rel)
	if err := h.write(q, copyName, data, 0o600, f); err != nil {
		return "", "", fmt.Errorf("keep a copy: %w", err)
	}
	temp := ".ringfence-" + strings.ToLower(rand.Text()[:16])
	if err := h.write(dir, temp, edited, st.Mode, f); err != nil {
		return "", "", err
	}
	if err := unix.Renameat(int(dir.Fd()), temp, int(dir.Fd()), name); err != nil {
		return "", "", errors.Join(err, unix.Unlinkat(int(dir.Fd()), temp, 0))
	}
	return actionEdited, h.qname + "/" + copyName, nil
}

// strip takes set-id bits from a regular file. Another name of the same file
// may have lost them already.
func (h *handback) strip(rel string) (string, string, error) {
	dir, name, err := h.tree.parent(rel)
	if err != nil {
		return "", "", err
	}
	defer dir.Close()
	err = chmodFile(dir, name, func(st *unix.Stat_t) (uint32, error) {
		if !slices.Contains(h.uids, st.Uid) { // another file stands there now
			return 0, errNotOurs
		}
		return st.Mode & 0o7777 &^ (unix.S_ISUID | unix.S_ISGID), nil
	})
	return actionStrip, "", err
}

// chmodFile changes the mode of a regular file through an O_PATH descriptor:
// neither its content nor a symlink is ever opened.
func chmodFile(dir *os.File, name string, change func(*unix.Stat_t) (uint32, error)) error {
	f, err := at(dir, name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := fstat(f)
	if err != nil {
		return err
	}
	if kindOf(&st) != unix.S_IFREG {
		return errNotRegular
	}
	mode, err := change(&st)
	if err != nil {
		return err
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), mode)
}

var errNotOurs = errors.New("it is somebody else's now")

func (h *handback) dropCaps(rel string) (string, string, error) {
	dir, name, err := h.tree.parent(rel)
	if err != nil {
		return "", "", err
	}
	defer dir.Close()
	err = unix.Lremovexattr(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name), "security.capability")
	return actionStrip, "", err
}

func (h *handback) remove(rel string) (string, string, error) {
	dir, name, err := h.tree.parent(rel)
	if err != nil {
		return "", "", err
	}
	defer dir.Close()
	return actionRemove, "", unix.Unlinkat(int(dir.Fd()), name, 0)
}
