// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const defaultTmpfs = 512 << 20

// ErrPlan is wrapped by errors about the request itself, as opposed to errors
// of the system.
var ErrPlan = errors.New("confine: launch refused")

// region says what kind of place a part of the view is.
type region uint8

const (
	regionRoot    region = iota // the root tmpfs: read-only at the end
	regionHost                  // read-only bind of the host's directory
	regionOverlay               // host directory with our files laid over
	regionTmpfs                 // private tmpfs that the agent may write
	regionShared                // host directory that the agent may write (the workspace)
	regionKernel                // /proc, /sys, /dev
)

// area is one place in the view. Host is the path on the host behind it.
type area struct {
	at     string
	kind   region
	access string // Landlock access granted for all of it, "" = none
	host   *os.File
}

// planner collects the view; its areas are looked up by longest prefix.
type planner struct {
	in      PlanInput
	p       *Prepared
	areas   []area
	links   map[string]string // symbolic links of the view: target -> where it points
	guarded []string          // decoys, which no rule may grant
	// elsewhere are guarded paths that are links to a decoy below GuardDir.
	elsewhere []string
	files     map[string]bool     // targets of our own files
	blobs     map[string][][]byte // content of the large ones, which lie below ownDir
	seen      map[string]bool     // directories of a private tmpfs already planned
	maps      Idmaps              // when the caller keeps none
	images    Images              // likewise
	kept      []*os.File          // closed when the plan is done
}

// Plan turns a request into a specification and the descriptors it needs. It
// looks at the host's file system, writes nothing, and leaves nothing behind
// but the descriptors of the result. Every path that the profile names and
// that is missing is an error that names it.
func Plan(in PlanInput) (*Prepared, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	pl := &planner{
		in: in, p: &Prepared{}, links: map[string]string{}, files: map[string]bool{}, seen: map[string]bool{},
		blobs: map[string][][]byte{},
	}
	defer func() {
		pl.maps.Close()
		pl.images.Close()
		for _, f := range pl.kept {
			f.Close()
		}
	}()
	if err := pl.build(); err != nil {
		pl.p.Close()
		return nil, err
	}
	return pl.p, nil
}

func (pl *planner) build() error {
	steps := []func() error{
		pl.planSystem, pl.planPrivate, pl.planDevices, pl.planShared, pl.planGuarded, pl.planOwnFiles, pl.planRules, pl.planImages, pl.planProcess,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (pl *planner) mount(m Mount) { pl.p.Spec.Mounts = append(pl.p.Spec.Mounts, m) }

// area finds the place that p lies in.
func (pl *planner) area(p string) area {
	best := area{at: "/", kind: regionRoot}
	for _, a := range pl.areas {
		if under(p, a.at) && len(a.at) >= len(best.at) {
			best = a
		}
	}
	return best
}

// canon follows the view's own symbolic links (/bin, /var/run) in p.
func (pl *planner) canon(p string) string {
	for range 8 {
		changed := false
		for from, to := range pl.links {
			if under(p, from) {
				if !path.IsAbs(to) {
					to = path.Join(path.Dir(from), to)
				}
				p, changed = path.Clean(to+strings.TrimPrefix(p, from)), true
			}
		}
		if !changed {
			break
		}
	}
	return p
}

func (pl *planner) planSystem() error {
	system := pl.in.Walls.System
	if system == nil {
		system = defaultSystem
	}
	for _, name := range system {
		p, err := pl.expandHome(name)
		if err != nil {
			return err
		}
		if !cleanAbs(p) || p == "/" || under(p, "/proc") || under(p, "/sys") || under(p, "/dev") {
			return fmt.Errorf("%w: %q cannot be a system directory", ErrPlan, p)
		}
		to, err := pl.systemLink(p)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && pl.in.Caller != nil {
			continue // the caller is not told which
		}
		if err != nil {
			return fmt.Errorf("confine: system directory: %w", err)
		}
		if to != "" {
			pl.links[p] = to
			pl.mount(Mount{Kind: MountSymlink, Target: p, Data: to})
			continue
		}
		if pl.shown(p) {
			continue
		}
		// Even a system directory is opened as the caller: the list may come
		// from the caller's own profile.
		err = pl.bindHost(p, p, pl.in.Caller, p != "/etc")
		if errors.Is(err, fs.ErrPermission) {
			pl.note("%s is left out: the caller may not read it", p)
			continue
		}
		if err != nil {
			return err
		}
		if rest, ok := strings.CutPrefix(name, "~/"); ok {
			pl.homeLink(rest, p)
		}
	}
	return nil
}

// systemLink says, as the caller, where p points; "" if it is no symbolic link.
func (pl *planner) systemLink(p string) (to string, err error) {
	err = withRights(pl.in.Caller, func() error {
		fi, err := os.Lstat(p)
		if err == nil && fi.Mode()&fs.ModeSymlink != 0 {
			to, err = os.Readlink(p)
		}
		return err
	})
	return to, err
}

// shown says whether an earlier system directory holds p.
func (pl *planner) shown(p string) bool {
	for _, a := range pl.areas {
		if under(p, a.at) {
			return true
		}
	}
	return false
}

func (pl *planner) note(format string, args ...any) {
	pl.p.Notes = append(pl.p.Notes, fmt.Sprintf(format, args...))
}

// bindHost shows the host's path p read-only at target, opened with the rights
// of as.
func (pl *planner) bindHost(p, target string, as *Credential, exec bool) error {
	f, err := openPath(p, as)
	if err != nil {
		return fmt.Errorf("confine: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("confine: %w", err)
	}
	if !fi.IsDir() && !fi.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is neither a directory nor a regular file", ErrPlan, p)
	}
	m, err := detach(f, attrs{readOnly: true, exec: exec, recursive: true})
	if err != nil {
		return err
	}
	kind, reg, access := MountFD, regionHost, "r"
	if exec {
		access = "rx"
	}
	if target == "/etc" {
		kind, reg = MountOverlay, regionOverlay
	}
	host, err := pl.keep(f)
	if err != nil {
		m.Close()
		return err
	}
	pl.mount(Mount{Kind: kind, Target: target, FD: pl.p.add(m), IsFile: !fi.IsDir(), ReadOnly: true, Exec: exec})
	pl.areas = append(pl.areas, area{at: target, kind: reg, access: access, host: host})
	return nil
}

func (pl *planner) planPrivate() error {
	w, id := pl.in.Walls, pl.in.Identity
	tmp, shm, home := w.TmpBytes, w.ShmBytes, w.HomeBytes
	for _, size := range []*int64{&tmp, &shm, &home} {
		if *size <= 0 {
			*size = defaultTmpfs
		}
	}
	runtimeDir := fmt.Sprintf("/run/user/%d", id.UID)
	for _, m := range []Mount{
		{Kind: MountTmpfs, Target: "/tmp", Size: tmp, Mode: 0o1777, Exec: true},
		{Kind: MountTmpfs, Target: "/var/tmp", Size: tmp, Mode: 0o1777, Exec: true},
		{Kind: MountTmpfs, Target: "/run", Size: 16 << 20, Mode: 0o755, UID: id.UID, GID: id.GID},
		{Kind: MountDir, Target: runtimeDir, Mode: 0o700, UID: id.UID, GID: id.GID},
		{Kind: MountDir, Target: "/run/lock", Mode: 0o1777},
		{Kind: MountSymlink, Target: "/var/run", Data: "/run"},
		{Kind: MountSymlink, Target: "/var/lock", Data: "/run/lock"},
		{Kind: MountTmpfs, Target: Home, Size: home, Mode: 0o700, UID: id.UID, GID: id.GID, Exec: true},
		{Kind: MountDir, Target: GuardDir, Mode: 0o755},
		{Kind: MountDir, Target: "/var/lib", Mode: 0o755},
		{Kind: MountProc, Target: "/proc", Data: "invisible"},
		{Kind: MountSysfs, Target: "/sys", ReadOnly: true},
		{Kind: MountTmpfs, Target: "/dev", Size: 64 << 10, Mode: 0o755, ReadOnly: true},
		{Kind: MountTmpfs, Target: "/dev/shm", Size: shm, Mode: 0o1777},
		{Kind: MountDevpts, Target: "/dev/pts"},
		{Kind: MountMqueue, Target: "/dev/mqueue"},
	} {
		pl.mount(m)
	}
	pl.links["/var/run"], pl.links["/var/lock"] = "/run", "/run/lock"
	pl.areas = append(pl.areas,
		area{at: "/tmp", kind: regionTmpfs, access: "rwx"}, area{at: "/var/tmp", kind: regionTmpfs, access: "rwx"},
		area{at: "/run", kind: regionTmpfs, access: "rw"}, area{at: Home, kind: regionTmpfs, access: "rwx"},
		area{at: "/proc", kind: regionKernel, access: "r"}, area{at: "/sys", kind: regionKernel, access: "r"},
		area{at: "/dev", kind: regionKernel}, area{at: "/dev/shm", kind: regionTmpfs, access: "rwx"},
		area{at: "/dev/pts", kind: regionKernel, access: "dev"}, area{at: "/dev/mqueue", kind: regionTmpfs, access: "rw"},
	)
	pl.seen[Home], pl.seen["/run"], pl.seen[runtimeDir] = true, true, true
	pl.decoy(ProbeFile, 0o444)
	return nil
}

func (pl *planner) planDevices() error {
	devices := pl.in.Walls.Devices
	if devices == nil {
		devices = defaultDevices
	}
	for _, name := range devices {
		p := path.Clean("/dev/" + strings.TrimPrefix(name, "/dev/"))
		if !under(p, "/dev") || p == "/dev" {
			return fmt.Errorf("%w: %q is not a device below /dev", ErrPlan, name)
		}
		f, err := os.OpenFile(p, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("confine: device: %w", err)
		}
		fi, err := f.Stat()
		if err == nil && fi.Mode()&fs.ModeCharDevice == 0 {
			err = fmt.Errorf("%w: %s is not a character device", ErrPlan, p)
		}
		var m *os.File
		if err == nil {
			m, err = detach(f, attrs{readOnly: true, dev: true})
		}
		f.Close()
		if err != nil {
			return err
		}
		pl.mount(Mount{Kind: MountFD, Target: p, FD: pl.p.add(m), IsFile: true, ReadOnly: true, Dev: true})
		pl.areas = append(pl.areas, area{at: p, kind: regionKernel, access: "dev"})
	}
	for name, to := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		pl.mount(Mount{Kind: MountSymlink, Target: "/dev/" + name, Data: to})
	}
	return nil
}

// homeLink makes ~/rel in the private home a symbolic link.
func (pl *planner) homeLink(rel, to string) {
	target := path.Join(Home, rel)
	if !under(target, Home) || target == Home || pl.files[target] {
		return
	}
	pl.privateDirs(path.Dir(target))
	pl.files[target] = true
	pl.mount(Mount{Kind: MountSymlink, Target: target, Data: to})
}

// privateDirs makes dir and its parents inside a private tmpfs the agent's own.
func (pl *planner) privateDirs(dir string) {
	if pl.seen[dir] || pl.area(dir).kind != regionTmpfs || pl.area(dir).at == dir {
		return
	}
	pl.seen[dir] = true
	pl.privateDirs(path.Dir(dir))
	id := pl.in.Identity
	pl.mount(Mount{Kind: MountDir, Target: dir, Mode: 0o700, UID: id.UID, GID: id.GID})
}

func (pl *planner) planProcess() error {
	s, in := &pl.p.Spec, pl.in
	s.SandboxID, s.Hostname = in.SandboxID, in.Walls.Hostname
	if s.Hostname == "" {
		s.Hostname = "ringfence"
	}
	s.Argv, s.Identity = slices.Clone(in.Argv), in.Identity
	s.Dir = in.Dir
	if s.Dir == "" {
		s.Dir = Home
		if in.Walls.Workspace != WorkspaceNone {
			s.Dir = in.WorkspaceTarget
		}
	}
	s.Env = Environment(in)
	s.Rlimits = append(slices.DeleteFunc(slices.Clone(in.Walls.Rlimits),
		func(r Rlimit) bool { return r.Resource == unix.RLIMIT_CORE }), Rlimit{Resource: unix.RLIMIT_CORE})
	filter, err := Sealed("seccomp-filter", in.SeccompFilter)
	if err != nil {
		return err
	}
	s.SeccompFD = pl.p.add(filter)
	s.TTY, s.Rows, s.Cols = in.TTY, in.Rows, in.Cols
	s.StdioFDs = [3]int{-1, -1, -1}
	if !in.TTY {
		for i, f := range in.Stdio {
			if s.StdioFDs[i], err = pl.p.addDup(f); err != nil {
				return err
			}
		}
	}
	if s.StatusFD, err = pl.p.addDup(in.Status); err != nil {
		return err
	}
	if s.ListenFD, err = pl.p.addDup(in.Listener); err != nil {
		return err
	}
	if n := len(pl.p.FDs); n > MaxFDs {
		return fmt.Errorf("%w: the profile needs %d descriptors, more than %d", ErrPlan, n, MaxFDs)
	}
	return nil
}
