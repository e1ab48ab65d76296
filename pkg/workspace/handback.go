// SPDX-License-Identifier: Apache-2.0

package workspace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Kind says what was found. The strings are stable: events carry them.
type Kind string

const (
	KindSetID    Kind = "set-id"          // a set-user-ID or set-group-ID file
	KindCaps     Kind = "file-capability" // a file with capabilities
	KindDevice   Kind = "device-node"     // a block or character device
	KindHook     Kind = "git-hook"        // a new or changed hook
	KindSetting  Kind = "git-setting"     // a setting that runs a program
	KindBroken   Kind = "git-unreadable"  // a git configuration nobody can judge
	KindPointer  Kind = "git-pointer"     // .git, commondir or config that leads out of the workspace
	KindModules  Kind = "git-modules"     // a dangerous setting in .gitmodules
	KindUnseen   Kind = "not-scanned"     // a part that could not be looked at
	actionMoved       = "quarantined"
	actionEdited      = "commented-out"
	actionStrip       = "stripped"
	actionRemove      = "removed"
	actionReport      = "reported"
	maxFindings       = 10_000
	valueShown        = 512
	quarantine        = ".ringfence-quarantine"
)

// Finding is one thing that a run left behind. Path, Key and Value are bytes
// chosen by the agent: escape them before a terminal or a log sees them.
type Finding struct {
	Kind   Kind
	Path   string // relative to the workspace
	Key    string // git setting, in canonical form
	Value  string // its value, shortened
	Why    string
	Action string // "quarantined", "commented-out", "stripped", "removed" or "reported"
	Copy   string // where in the workspace the original is now, if it was moved or edited
	Err    string // why the action failed; then Action is "reported"
}

// Options say how to hand back a workspace.
type Options struct {
	Run      string    // names the quarantine folder: letters, digits, "._-"
	Baseline *Baseline // from Survey; nil means that nothing was there before
	Limits   Limits
	// UIDs are the host uids that the sandbox could create files as; nil means
	// the owner of the root. GIDs are the groups it was in; nil means any.
	// Files of other owners that the sandbox could not write are reported,
	// never changed: the caller of a privileged keeper must not be able to
	// point it at somebody else's files.
	UIDs, GIDs []uint32
	// Discreet keeps them out of the findings, too: the caller may not be
	// allowed to know of them.
	Discreet bool
}

var runName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,100}$`)

// HandBack looks at a workspace after a run and makes it safe to use on the
// host. Every process of the sandbox must be dead. root may be an O_PATH
// descriptor; nothing outside of it is touched. When the walk hits a limit the
// repositories of the baseline are still looked at, and a finding of kind
// "not-scanned" says so. An error means that the workspace was not looked at.
func HandBack(ctx context.Context, root *os.File, opts Options) ([]Finding, error) {
	if !runName.MatchString(opts.Run) {
		return nil, fmt.Errorf("workspace: %q is not a run name", opts.Run)
	}
	t, err := openTree(root)
	if err != nil {
		return nil, err
	}
	defer t.close()
	h := &handback{tree: t, opts: opts, uids: opts.UIDs}
	defer h.close()
	if h.uids == nil {
		st, err := fstat(t.root)
		if err != nil {
			return nil, fmt.Errorf("workspace: %w", err)
		}
		h.uids = []uint32{st.Uid}
	}
	h.seen = newObserver(ctx, t, opts.Limits)
	var limit *LimitError
	err = h.seen.run()
	switch {
	case errors.As(err, &limit):
		h.unseen(limit.Path, limit.Error())
		h.known()
	case err != nil:
		return nil, err
	}
	h.all()
	return h.found, h.finish()
}

type handback struct {
	tree  *tree
	opts  Options
	uids  []uint32
	seen  *observer
	found []Finding
	qdir  *os.File // the run's quarantine folder, nil until needed
	qname string
	moved int
	index strings.Builder
}

func (h *handback) close() {
	if h.qdir != nil {
		h.qdir.Close()
	}
}

func (h *handback) before(key itemKey) (item, bool) {
	if h.opts.Baseline == nil {
		return item{}, false
	}
	i, ok := h.opts.Baseline.items[key]
	return i, ok
}

// known looks once more, directly, at the directories in which the baseline
// had something: a flood of other names must not hide them.
func (h *handback) known() {
	if h.opts.Baseline == nil {
		return
	}
	o := newObserver(h.seen.ctx, h.tree, Limits{Entries: 100_000})
	o.items, o.flat = h.seen.items, true
	done := map[string]bool{}
	for key := range h.opts.Baseline.items {
		dir := dirOf(key.Path)
		if done[dir] || key.Kind != itemConfig && key.Kind != itemHook {
			continue
		}
		done[dir] = true
		f, err := h.tree.openDir(dir)
		if err != nil {
			continue
		}
		// A limit here is the limit already reported.
		_ = o.dir(f, dir, 0, key.Kind == itemHook)
		f.Close()
		if key.Kind == itemConfig {
			_ = o.hookDir(join(dir, "hooks"))
		}
	}
}

// all judges every item, in the order of paths.
func (h *handback) all() {
	keys := make([]itemKey, 0, len(h.seen.items))
	for key := range h.seen.items {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b itemKey) int {
		return strings.Compare(fmt.Sprintf("%s\x00%d", a.Path, a.Kind), fmt.Sprintf("%s\x00%d", b.Path, b.Kind))
	})
	for _, key := range keys {
		now := h.seen.items[key]
		old, had := h.before(key)
		same := had && old.Digest == now.Digest && (!now.Outside || old.Outside)
		if same && key.Kind != itemDeep {
			continue
		}
		if len(h.found) >= maxFindings {
			h.unseen(key.Path, "too many findings; the rest is not listed and not changed")
			return
		}
		h.judge(key, old, now)
	}
}

// unseen says that something was not looked at.
func (h *handback) unseen(rel, why string) {
	if h.opts.Discreet {
		rel, why = ".", "not all of it was looked through: there is too much"
	}
	h.found = append(h.found, Finding{Kind: KindUnseen, Path: rel, Why: why, Action: actionReport})
}

func (h *handback) judge(key itemKey, old, now item) {
	if h.opts.Discreet && !h.could(key.Kind, now) {
		return
	}
	switch key.Kind {
	case itemSetID:
		h.act(key, now, Finding{Kind: KindSetID, Why: "a program with somebody else's rights"}, h.strip)
	case itemCaps:
		h.act(key, now, Finding{Kind: KindCaps, Why: "a program with capabilities"}, h.dropCaps)
	case itemDevice:
		h.act(key, now, Finding{Kind: KindDevice, Why: "reaches hardware"}, h.remove)
	case itemHook:
		h.act(key, now, Finding{Kind: KindHook, Why: "git runs it without being asked"}, h.move)
	case itemPointer:
		if now.Outside {
			h.act(key, now, Finding{Kind: KindPointer, Value: shorten(now.Target), Why: "leads git out of the workspace, or nowhere"}, h.move)
		}
	case itemConfig:
		h.config(key, KindSetting, old, now)
	case itemModules:
		h.config(key, KindModules, old, now)
	case itemDeep:
		why := "deeper than the scan goes"
		if now.Err != "" {
			why = now.Err
		}
		h.found = append(h.found, Finding{Kind: KindUnseen, Path: key.Path, Why: why, Action: actionReport})
	}
}

func (h *handback) config(key itemKey, kind Kind, old, now item) {
	if now.Err != "" {
		act := h.move
		if kind == KindModules { // git ignores it with a warning; it is the user's tracked file
			act = nil
		}
		h.act(key, now, Finding{Kind: KindBroken, Why: "cannot be judged: " + now.Err}, act)
		return
	}
	var fresh []Setting
	for _, s := range now.Settings {
		if !old.has(s) {
			fresh = append(fresh, s)
		}
	}
	if len(fresh) == 0 {
		return
	}
	first := len(h.found)
	for _, s := range fresh {
		why := h.seen.judge(s, key.Path)
		if kind == KindModules {
			why = dangerousModule(s)
		}
		h.found = append(h.found, Finding{Kind: kind, Path: key.Path, Key: s.Key, Value: shorten(s.Value), Why: why, Action: actionReport})
	}
	if !h.could(key.Kind, now) {
		h.refuse(h.found[first:])
		return
	}
	action, to, err := h.edit(key.Path, func(s Setting) bool {
		return slices.ContainsFunc(fresh, func(f Setting) bool { return f.Key == s.Key && f.Value == s.Value && f.Bare == s.Bare })
	})
	for i := range h.found[first:] {
		f := &h.found[first+i]
		f.Copy = to
		if err != nil {
			f.Err = err.Error()
		} else {
			f.Action = action
		}
	}
}

// act appends a finding and carries out what belongs to it. do returns the
// action done and where the original went.
func (h *handback) act(key itemKey, now item, f Finding, do func(rel string) (action, to string, err error)) {
	f.Path, f.Action = key.Path, actionReport
	h.found = append(h.found, f)
	last := h.found[len(h.found)-1:]
	switch {
	case do == nil:
	case !h.could(key.Kind, now):
		h.refuse(last)
	default:
		action, to, err := do(key.Path)
		last[0].Copy = to
		if err != nil {
			last[0].Err = err.Error()
			return
		}
		last[0].Action = action
	}
}

// could says whether the sandbox could have done it. Its own files it made or
// changed; of another's it wrote what it may write, and no more: only an owner
// sets bits, and a node that is another's is no node of the sandbox's.
func (h *handback) could(k itemKind, i item) bool {
	if slices.Contains(h.uids, i.UID) {
		return true
	}
	switch k {
	case itemSetID, itemCaps, itemDevice, itemDeep:
		return false
	}
	group := h.opts.GIDs == nil || slices.Contains(h.opts.GIDs, i.GID)
	return i.Mode&0o002 != 0 || i.Mode&0o020 != 0 && group
}

func (h *handback) refuse(list []Finding) {
	for i := range list {
		list[i].Err = "belongs to somebody the sandbox could not act as; left alone"
	}
}

func shorten(s string) string {
	if len(s) > valueShown {
		return s[:valueShown] + "..."
	}
	return s
}
