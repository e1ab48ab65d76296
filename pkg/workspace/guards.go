// SPDX-License-Identifier: Apache-2.0

package workspace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Guard is a path of the workspace that must be bound onto itself inside the
// sandbox: a mount point cannot be renamed or removed, so nothing else can
// take its place while the agent runs.
type Guard struct {
	Path     string   // relative to the root; any bytes but NUL
	File     *os.File // O_PATH descriptor of what to bind; the caller closes it
	Dir      bool     // a directory, else a file
	ReadOnly bool     // bind read-only (hooks, git pointers)
}

// maxGuards bounds the mounts of one sandbox.
const maxGuards = 1024

// CloseGuards closes the descriptors of guards.
func CloseGuards(guards []Guard) {
	for _, g := range guards {
		g.File.Close()
	}
}

// Survey walks the workspace once before a run. It fails with a *LimitError
// when the workspace is larger than the limits: then nothing can be promised
// about it. Guards come parents first, in the order in which to mount them.
//
// A repository without a hooks directory gets an empty one, owned like the
// git directory, so that there is something to bind.
func Survey(ctx context.Context, root *os.File, l Limits) (*Baseline, []Guard, error) {
	t, err := openTree(root)
	if err != nil {
		return nil, nil, err
	}
	defer t.close()
	o := newObserver(ctx, t, l)
	if err := o.run(); err != nil {
		return nil, nil, err
	}
	guards, err := o.guards()
	if err != nil {
		return nil, nil, err
	}
	o.settle()
	return &Baseline{items: o.items}, guards, nil
}

// settle waits until the clock of change times is past all that was seen, so
// that whatever is changed from here on has another identity. That clock goes in
// ticks of up to 10 ms (CLOCK_REALTIME_COARSE, clock_gettime(2)); nothing waits
// for change times that lie in the future.
func (o *observer) settle() {
	for range 20 {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil || now.Nano() > o.changed {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// GitGuards is Survey for a caller that wants the guards alone.
func GitGuards(ctx context.Context, root *os.File) ([]Guard, error) {
	_, guards, err := Survey(ctx, root, Limits{})
	return guards, err
}

func (o *observer) guards() (out []Guard, err error) {
	defer func() {
		if err != nil {
			CloseGuards(out)
			out = nil
		}
	}()
	add := func(rel string, readOnly bool) error {
		if len(out) >= maxGuards {
			return fmt.Errorf("workspace: more than %d repository paths to guard", maxGuards)
		}
		f, err := o.tree.open(rel, unix.O_PATH)
		if err != nil {
			return fmt.Errorf("workspace: guard %q: %w", rel, err)
		}
		st, err := fstat(f)
		if err != nil {
			f.Close()
			return fmt.Errorf("workspace: guard %q: %w", rel, err)
		}
		out = append(out, Guard{rel, f, kindOf(&st) == unix.S_IFDIR, readOnly})
		return nil
	}
	for _, r := range o.repos {
		if r != "" { // the root is a mount of its own
			if err := add(r, false); err != nil {
				return out, err
			}
		}
		ok, err := o.hooksOf(r)
		if err != nil {
			return out, err
		}
		if ok {
			if err := add(join(r, "hooks"), true); err != nil {
				return out, err
			}
		}
	}
	for key, i := range o.items {
		if key.Kind == itemPointer && i.File && strings.EqualFold(path.Base(key.Path), ".git") {
			if err := add(key.Path, true); err != nil {
				return out, err
			}
		}
	}
	slices.SortFunc(out, func(a, b Guard) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// hooksOf says whether a git directory has a hooks directory to bind, and
// makes one if there is none.
func (o *observer) hooksOf(r string) (bool, error) {
	if _, link := o.items[itemKey{itemPointer, join(r, "hooks")}]; link {
		return false, nil
	}
	d, err := o.tree.openDir(r)
	if err != nil {
		return false, fmt.Errorf("workspace: open %q: %w", r, err)
	}
	defer d.Close()
	if names, err := d.Readdirnames(-1); err != nil || !slices.Contains(names, "config") {
		return false, err // a common directory at most, or not a repository at all
	}
	if st, err := lstat(d, "hooks"); err == nil {
		return kindOf(&st) == unix.S_IFDIR, nil
	}
	err = unix.Mkdirat(int(d.Fd()), "hooks", 0o755)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		return false, nil // then the agent cannot make one either
	}
	if err != nil {
		return false, fmt.Errorf("workspace: make %q: %w", join(r, "hooks"), err)
	}
	st, err := fstat(d)
	if err == nil {
		err = unix.Fchownat(int(d.Fd()), "hooks", int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return false, fmt.Errorf("workspace: own %q: %w", join(r, "hooks"), err)
	}
	return true, nil
}
