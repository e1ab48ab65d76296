// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/workspace"
)

type finding = workspace.Finding

// handback is what happens to a writable workspace when its sandbox ends.
type handback struct {
	root     *os.File
	sandbox  string
	baseline *workspace.Baseline
	binds    []workspace.Guard // open until the mounts are made
	who      actor
	watched  []string // guarded paths that did not exist before
}

// Files in the sandbox's directory.
const (
	baselineFile = "baseline"
	watchedFile  = "watched" // guarded paths that did not exist, JSON
)

// newHandback surveys the workspace before the run; it returns nil for one
// that the agent cannot write. The baseline is stored in dir for a restarted
// keeper.
func newHandback(ctx context.Context, root *os.File, dir string, r *Record, p *policy.Profile) (*handback, error) {
	if p.Workspace != policy.WorkspaceRW {
		return nil, nil
	}
	own, err := dup(root)
	if err != nil {
		return nil, err
	}
	h := &handback{root: os.NewFile(uintptr(own), "workspace"), sandbox: filepath.Base(dir)}
	if err := h.prepare(ctx, dir, r, p); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// prepare looks at the workspace and writes down what a restarted keeper needs.
func (h *handback) prepare(ctx context.Context, dir string, r *Record, p *policy.Profile) (err error) {
	if h.who, err = actorOf(h.root, r); err != nil {
		return err
	}
	if err := h.guardFiles(p.Files.Guard); err != nil {
		return err
	}
	b, err := json.Marshal(h.watched)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, watchedFile), b, 0o600)
	}
	if err != nil || !p.Git.Protect {
		return err
	}
	var binds []workspace.Guard
	if h.baseline, binds, err = workspace.Survey(ctx, h.root, workspace.Limits{}); err != nil {
		return err
	}
	h.binds = append(binds, h.binds...)
	if b, err = h.baseline.MarshalBinary(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, baselineFile), b, 0o600)
}

// guards are the binds that keep hooks from being replaced while it runs.
func (h *handback) guards(target string) ([]confine.Bind, error) {
	if h == nil {
		return nil, nil
	}
	out := make([]confine.Bind, 0, len(h.binds))
	for _, g := range h.binds {
		out = append(out, confine.Bind{Source: g.File, Target: path.Join(target, g.Path), ReadOnly: g.ReadOnly})
	}
	return out, nil
}

// run makes the workspace harmless again. Every process of the sandbox is
// dead.
func (h *handback) run() ([]finding, error) {
	defer h.close()
	findings, err := workspace.HandBack(context.Background(), h.root, workspace.Options{Baseline: h.baseline, Run: h.sandbox,
		UIDs: h.who.uids, GIDs: h.who.gids, Discreet: h.who.discreet})
	if err != nil {
		return findings, fmt.Errorf("hand back the workspace: %w", err)
	}
	return append(findings, h.appeared()...), nil
}

// guardFiles binds the profile's guarded files read-only, and remembers those
// that do not exist yet. What is there and cannot be bound, a symbolic link for
// one, is an error: the agent could replace it unseen.
func (h *handback) guardFiles(guarded []string) error {
	for _, rel := range guarded {
		f, err := openBeneath(h.root, rel)
		if absent(err) {
			h.watched = append(h.watched, rel)
			continue
		}
		var st os.FileInfo
		if err == nil {
			if st, err = f.Stat(); err == nil && !st.IsDir() && !st.Mode().IsRegular() {
				err = errors.New("is neither a file nor a directory")
			}
		}
		if err != nil {
			if f != nil {
				f.Close()
			}
			return &LaunchError{Code: 125, Step: "workspace", Err: fmt.Errorf("guarded path %s: %w", rel, err),
				Remedy: "replace the symbolic link by what it points to, or use a profile whose files.guard does not list " + rel}
		}
		h.binds = append(h.binds, workspace.Guard{Path: rel, File: f, Dir: st.IsDir(), ReadOnly: true})
	}
	return nil
}

// absent says that nothing is there: not even a link, and not out of reach.
func absent(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) }

// appeared reports guarded files that the run made.
func (h *handback) appeared() []finding {
	var out []finding
	for _, rel := range h.watched {
		f, err := openBeneath(h.root, rel)
		if absent(err) {
			continue
		}
		mine := !h.who.discreet
		if err == nil {
			var st unix.Stat_t
			mine = mine || unix.Fstat(int(f.Fd()), &st) == nil && slices.Contains(h.who.uids, st.Uid)
			f.Close()
		}
		if !mine {
			continue
		}
		out = append(out, finding{Kind: "guarded-file", Path: rel, Action: "reported",
			Why: "a file that makes tools on the host run programs appeared during the run"})
	}
	return out
}

// openBeneath opens a path below root that holds no symbolic link.
func openBeneath(root *os.File, rel string) (*os.File, error) {
	fd, err := unix.Openat2(int(root.Fd()), rel, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), rel), nil
}

// actor is as whom the files of a workspace could be changed.
type actor struct {
	uids, gids []uint32 // gids nil: any
	discreet   bool     // the launcher is not told of others' files
}

// actorOf: a sandbox has the rights of its user, and no others. Only root's
// workspaces are idmapped: there its files are those of the directory's owner.
func actorOf(root *os.File, r *Record) (actor, error) {
	if r.Owner != 0 {
		return actor{uids: []uint32{r.UID}, gids: append([]uint32{}, r.Groups...), discreet: true}, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return actor{}, fmt.Errorf("workspace: %w", err)
	}
	return actor{uids: []uint32{r.UID, st.Uid}}, nil
}

func (h *handback) close() {
	if h == nil {
		return
	}
	workspace.CloseGuards(h.binds)
	h.binds = nil
	h.root.Close()
}

// reopenHandback finds the workspace of an adopted sandbox again. This is the
// one place where the keeper opens a path that the launcher named, with its own
// rights: it does so only to compare, and uses the directory only if device and
// inode are those of the descriptor that the launcher handed over.
func reopenHandback(r Record, dir string) (*handback, error) {
	if !r.Handback {
		return nil, nil // never writable
	}
	h := &handback{sandbox: r.ID}
	b, err := os.ReadFile(filepath.Join(dir, baselineFile))
	switch {
	case errors.Is(err, os.ErrNotExist): // no git guards: only bits are looked for
	case err != nil:
		return nil, err
	default:
		h.baseline = &workspace.Baseline{}
		if err := h.baseline.UnmarshalBinary(b); err != nil {
			return nil, err
		}
	}
	if b, err = os.ReadFile(filepath.Join(dir, watchedFile)); err == nil {
		err = json.Unmarshal(b, &h.watched)
	}
	if err != nil {
		return nil, fmt.Errorf("guarded paths: %w", err)
	}
	fd, err := unix.Open(r.Workspace, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("workspace %s: %w", r.Workspace, err)
	}
	h.root = os.NewFile(uintptr(fd), "workspace")
	dev, ino, err := statOf(h.root)
	if err == nil {
		h.who, err = actorOf(h.root, &r)
	}
	if err == nil && (dev != r.WorkspaceDev || ino != r.WorkspaceIno) {
		err = fmt.Errorf("workspace %s: another directory stands there now", r.Workspace)
	}
	if err != nil {
		h.root.Close()
		return nil, err
	}
	return h, nil
}

// dup duplicates a descriptor without touching its blocking mode.
func dup(f *os.File) (int, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var derr error
	if err := rc.Control(func(p uintptr) { fd, derr = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return -1, err
	}
	return fd, derr
}
