// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func (in *PlanInput) check() error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrPlan, fmt.Sprintf(format, args...))
	}
	switch {
	case len(in.Argv) == 0 || in.Argv[0] == "":
		return refuse("no command")
	case in.HostUID == 0 || in.HostGID == 0:
		return refuse("the sandbox would run as uid or gid 0 of the host")
	case !in.Identity.UserNS && (in.Identity.UID != in.HostUID || in.Identity.GID != in.HostGID):
		return refuse("uid inside and on the host differ without a user namespace")
	case in.Identity.UserNS && (in.Identity.UID != 0 || in.Identity.GID != 0 || len(in.Identity.Groups) > 0):
		return refuse("a user namespace maps only uid and gid 0")
	case len(in.SeccompFilter) == 0 || len(in.SeccompFilter)%8 != 0:
		return refuse("no system call filter")
	case in.Walls.Workspace != WorkspaceNone && in.Workspace == nil:
		return refuse("no workspace directory")
	case in.Dir != "" && !cleanAbs(in.Dir):
		return refuse("working directory %q is not an absolute path", in.Dir)
	}
	if in.Walls.Workspace != WorkspaceNone {
		if err := checkTarget(in.WorkspaceTarget); err != nil {
			return err
		}
	}
	for _, g := range in.Identity.Groups {
		if g == 0 {
			return refuse("supplementary group 0")
		}
	}
	if !in.TTY {
		for i, f := range in.Stdio {
			if err := checkStdio(i, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkTarget refuses places where a directory of the caller would hide or
// enter something that is ours.
func checkTarget(p string) error {
	if !cleanAbs(p) || p == "/" {
		return fmt.Errorf("%w: %q cannot be a workspace", ErrPlan, p)
	}
	for _, d := range []string{"/proc", "/sys", "/dev", "/etc", GuardDir} {
		if under(p, d) {
			return fmt.Errorf("%w: a workspace cannot lie in %s; use another directory, or --workspace DIR", ErrPlan, d)
		}
	}
	for _, d := range append([]string{"/tmp", "/run", "/var/tmp", Home}, defaultSystem...) {
		switch {
		case p == d:
			return fmt.Errorf("%w: %s cannot be a workspace: the sandbox has its own; use a directory below it, or --workspace DIR", ErrPlan, p)
		case under(d, p):
			return fmt.Errorf("%w: %s cannot be a workspace: it holds %s, which the sandbox has for itself; use a directory below it, or --workspace DIR", ErrPlan, p, d)
		}
	}
	return nil
}

// checkStdio admits what cannot be used to reach out of the sandbox: a pipe, a
// regular file, /dev/null. Sockets keep the cgroup they were made in, and a
// terminal could be typed into.
func checkStdio(i int, f *os.File) error {
	if f == nil {
		return fmt.Errorf("%w: no descriptor for stdio %d", ErrPlan, i)
	}
	fd, err := rawFD(f)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("confine: stdio %d: %w", i, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO, unix.S_IFREG:
		return nil
	case unix.S_IFCHR:
		if st.Rdev == unix.Mkdev(1, 3) {
			return nil
		}
	}
	return fmt.Errorf("%w: stdio %d is neither a pipe, a regular file nor /dev/null", ErrPlan, i)
}
