// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

// backend does what operators ask; see api.Backend.
type backend struct{ d *Daemon }

var _ api.Backend = (*backend)(nil)

// maxEnded is how many ended sandboxes are still listed.
const maxEnded = 256

// endedFor is how long an ended sandbox is still listed.
const endedFor = time.Hour

type endedSandbox struct {
	view api.Sandbox
	log  string // path of its kept output, "" if none
}

func (b *backend) InSandbox(_ context.Context, c *api.Caller) (bool, error) {
	if c.Cgroup == "" {
		return true, nil
	}
	return b.d.sandboxes.Contains(b.d.cgroupRoot, c.Cgroup), nil
}

func (b *backend) Version(context.Context) (api.VersionInfo, error) {
	return api.VersionInfo{Version: b.d.version, API: api.Version, Go: runtime.Version(), Kernel: kernelRelease()}, nil
}

func (b *backend) Status(context.Context) (api.Status, error) {
	d := b.d
	st := d.log.Stats()
	parts := []api.Part{{Name: "kernel", State: api.Enforced}, {Name: "gateway", State: api.Enforced}, {Name: "audit", State: api.Enforced}, {Name: "policy", State: api.Enforced}}
	if err := d.gwFence.Attested(); err != nil {
		parts[0] = api.Part{Name: "kernel", State: api.Unenforced, Detail: err.Error()}
	}
	if !d.gateway.Ready() {
		parts[1] = api.Part{Name: "gateway", State: api.Degraded, Detail: "not running: sandboxes reach nothing until it is back"}
	}
	if walls := d.gateway.Unconfined(); len(walls) > 0 && d.gateway.Ready() {
		parts[1] = api.Part{Name: "gateway", State: api.Degraded, Detail: strings.Join(walls, "; "), Remedy: "ringfence doctor"}
	}
	if st.Full {
		parts[2] = api.Part{Name: "audit", State: api.Degraded, Detail: "no space for the event log", Remedy: "free space in " + d.cfg.StateDir}
	}
	if ps := d.library.Problems(); len(ps) > 0 {
		parts[3] = api.Part{Name: "policy", State: api.Degraded, Detail: "mistakes in files: " + strconv.Itoa(len(ps)), Remedy: "ringfence policy list"}
	}
	if d.library.Owes() {
		parts[3] = api.Part{Name: "policy", State: api.Degraded, Detail: "a revision that is in force could not be stored yet", Remedy: "see the check named store"}
	}
	d.mu.Lock()
	secrets, unenforced := slices.Clone(d.loaded), d.unenforced
	d.mu.Unlock()
	if unenforced != "" {
		parts[3] = api.Part{Name: "policy", State: api.Degraded, Detail: "the newest revision is not in force everywhere; it is tried again: " + unenforced}
	}
	for _, s := range secrets {
		parts = append(parts, api.Part{Name: "secret", State: api.Degraded, Detail: s, Remedy: "ringfence provider add NAME --key-env VAR"})
	}
	switch {
	case d.hooks == nil:
	case d.hookSender.Down():
		parts = append(parts, api.Part{Name: "webhook", State: api.Degraded, Detail: "the sender does not run: nobody is told about approvals until it is back; it is started again within a minute", Remedy: "the daemon's log names the error"})
	case d.hooks.Failing():
		parts = append(parts, api.Part{Name: "webhook", State: api.Degraded, Detail: "the receiver does not take deliveries; they are tried again for an hour", Remedy: "look at the receiver; `ringfence events` says since when and why"})
	}
	out := api.Status{Version: d.version, Started: d.started, State: worst(parts), Revision: d.library.Snapshot().Revision(), Sandboxes: len(d.sandboxes.List()), Parts: parts}
	out.Counters = map[string]uint64{"events": st.Delivered}
	for reason, n := range st.Dropped {
		out.Counters["events_lost_"+reason] = n
	}
	return out, nil
}

func worst(parts []api.Part) string {
	state := api.Enforced
	rank := []string{api.Enforced, api.Degraded, api.Broken, api.Unenforced}
	for _, p := range parts {
		is := p.State
		if is == api.Absent {
			continue
		}
		if !slices.Contains(rank, is) { // not applied, or a word that we do not know
			is = api.Degraded
		}
		if slices.Index(rank, is) > slices.Index(rank, state) {
			state = is
		}
	}
	return state
}

func (b *backend) Sandboxes(context.Context) ([]api.Sandbox, error) {
	var living []api.Sandbox
	for _, s := range b.d.sandboxes.List() {
		living = append(living, describe(s))
	}
	for _, s := range b.d.sandboxes.Ending() {
		living = append(living, describeEnding(s))
	}
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	return listed(living, b.d.ended), nil
}

// listed is every sandbox once, by age. One that is just ending is among both.
func listed(living []api.Sandbox, ended []endedSandbox) []api.Sandbox {
	var out []api.Sandbox
	over := map[string]bool{}
	for _, e := range ended {
		out = append(out, e.view)
		over[e.view.ID] = true
	}
	for _, v := range living {
		if !over[v.ID] {
			out = append(out, v)
		}
	}
	slices.SortStableFunc(out, func(x, y api.Sandbox) int { return x.Created.Compare(y.Created) })
	return out
}

// describe is what operators see of a living sandbox.
func describe(s *sandbox.Sandbox) api.Sandbox {
	r := &s.Record
	v := api.Sandbox{
		ID: r.ID, Name: r.Name, Scope: r.Scope, Profile: r.Profile, State: string(s.State()), Enforcement: api.Enforced,
		Owner: r.Owner, UID: r.UID, PID: r.Init.PID, Argv: r.Argv, Workspace: r.Workspace, Detached: r.Detached, TTY: r.TTY, Learns: r.Learns,
		Created: r.Created, Denials: s.Denials(), Revision: s.View().Snapshot().Revision(),
	}
	if s.Record.Foreign != nil {
		describeForeign(&v, s)
	} else {
		describeLayers(&v, s)
	}
	v.Parts = append(v.Parts, guardPart(r))
	if r.Learns {
		v.Parts = append(v.Parts, api.Part{Name: "egress rules", State: api.Degraded, Detail: "it learns: TCP to public addresses that no rule speaks of is let through and recorded",
			Remedy: "ringfence policy learn " + r.ID + "; then run it without --learn"})
	}
	for _, note := range r.Degraded {
		v.Parts = append(v.Parts, api.Part{Name: note, State: api.Degraded, Detail: "not available on this machine; the profile tolerates it"})
	}
	for _, p := range s.Problems() {
		v.Parts = append(v.Parts, api.Part{Name: "attestation", State: api.Unenforced, Detail: p})
	}
	v.Enforcement = worst(v.Parts)
	return v
}

// describeEnding is what operators see of a sandbox that this daemon puts away.
func describeEnding(s *sandbox.Sandbox) api.Sandbox {
	r := &s.Record
	v := api.Sandbox{ID: r.ID, Name: r.Name, Scope: r.Scope, Profile: r.Profile, State: api.StateStopping, Owner: r.Owner, UID: r.UID, Argv: r.Argv,
		Workspace: r.Workspace, Detached: r.Detached, TTY: r.TTY, Created: r.Created}
	v.Parts = append(v.Parts, api.Part{Name: "end", State: api.Degraded, Detail: "it ended without a daemon, or was not taken over by this one: its workspace is not handed back yet"})
	for _, p := range s.Problems() {
		v.Parts = append(v.Parts, api.Part{Name: "end", State: api.Degraded, Detail: p})
	}
	v.Enforcement = worst(v.Parts)
	return v
}

// describeEnded is what operators see of a sandbox that has ended, or was
// released: of that nothing is fenced any more, whatever was.
func describeEnded(s *sandbox.Sandbox) api.Sandbox {
	v, x := describe(s), s.Exit()
	v.State, v.PID, v.Ended = api.StateStopped, 0, &x.At
	if x.Code >= 0 {
		v.ExitCode = &x.Code
	}
	if x.Released {
		v.State, v.Enforcement, v.Parts = api.StateReleased, api.Unenforced, nil
	}
	return v
}

// describeLayers is what operators see of the walls of what Ringfence started.
func describeLayers(v *api.Sandbox, s *sandbox.Sandbox) {
	layers, at := s.Layers()
	for _, l := range layers {
		part := api.Part{Name: l.Name, State: string(l.State), Detail: l.Detail}
		if l.State != sandbox.LayerEnforced {
			part.Remedy = "only root of this machine can do that: find out who did, and stop the sandbox if it still runs"
		}
		v.Parts = append(v.Parts, part)
	}
	if !at.IsZero() {
		v.Attested = &at
	}
}

// sandboxEnded keeps an ended sandbox listed for a while.
func (d *Daemon) sandboxEnded(s *sandbox.Sandbox) {
	d.dropSandboxDocuments(s.Record.ID)
	d.endApprovals(s.Record.ID)
	d.drafts.End(s.Record.ID, time.Now().UTC())
	d.losses.forget(s.Record.Number)
	d.lateInits.ended(s.Record.Init.PID, s.Record.ID, time.Now())
	if !s.Record.Started { // what is left of a launch that a former daemon did not finish
		return
	}
	v := describeEnded(s)
	log := ""
	if s.Record.Detached {
		log = d.outputPath(s.Record.ID)
	}
	d.mu.Lock()
	all := append(d.ended, endedSandbox{v, log})
	first := 0 // the oldest that is still listed
	for first < len(all) && (len(all)-first > maxEnded || time.Since(*all[first].view.Ended) > endedFor) {
		first++
	}
	gone := all[:first]
	d.ended = slices.Clone(all[first:])
	d.mu.Unlock()
	for _, e := range gone {
		d.removeOutput(e.log)
	}
}

// removeOutput deletes the kept output of a sandbox that nobody can ask for any
// more.
func (d *Daemon) removeOutput(path string) {
	if path == "" {
		return
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		d.logger.Warn("kept output", "error", err)
	}
}

// pruneOutput deletes what a former daemon kept and this one does not list.
func (d *Daemon) pruneOutput() {
	entries, err := os.ReadDir(filepath.Dir(d.outputPath("x")))
	if err != nil {
		return // nothing was kept
	}
	for _, e := range entries {
		id, _ := strings.CutSuffix(e.Name(), ".log")
		if _, _, known := (&backend{d}).Owner(context.Background(), id); known {
			continue
		}
		if st, err := e.Info(); err == nil && time.Since(st.ModTime()) > endedFor {
			d.removeOutput(d.outputPath(id))
		}
	}
}

func (b *backend) Owner(_ context.Context, id string) (uint32, string, bool) {
	if s, ok := b.d.sandboxes.ByID(id); ok {
		return s.Record.Owner, s.Record.Scope, true
	}
	for _, s := range b.d.sandboxes.Ending() {
		if s.Record.ID == id {
			return s.Record.Owner, s.Record.Scope, true
		}
	}
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	for _, e := range b.d.ended {
		if e.view.ID == id {
			return e.view.Owner, e.view.Scope, true
		}
	}
	return 0, "", false
}

func (b *backend) living(id string) (*sandbox.Sandbox, error) {
	s, ok := b.d.sandboxes.ByID(id)
	if !ok {
		return nil, api.Errorf(api.CodeConflict, "sandbox %s has ended", id)
	}
	return s, nil
}

func (b *backend) Stop(ctx context.Context, _ *api.Caller, id string, timeout time.Duration) (api.StopResult, error) {
	s, err := b.living(id)
	if err != nil {
		return api.StopResult{}, err
	}
	if s.Record.Foreign != nil {
		return api.StopResult{}, api.Errorf(api.CodeConflict, "sandbox %s was adopted: Ringfence did not start its processes and does not end them", id).
			WithRemedy("ringfence release " + id + " takes the fence away, and they go on without it")
	}
	go s.Stop(timeout)
	select {
	case <-s.Done():
	case <-ctx.Done():
		return api.StopResult{}, ctx.Err()
	}
	return api.StopResult{Sandbox: describeEnded(s), Findings: findings(s.Exit())}, nil
}

func findings(x sandbox.Exit) []api.Finding {
	out := make([]api.Finding, 0, len(x.Findings))
	for _, f := range x.Findings {
		what := f.Why
		if f.Key != "" {
			what = f.Key + ": " + what
		}
		out = append(out, api.Finding{Path: f.Path, What: what, Action: f.Action, Copy: f.Copy})
	}
	return out
}

func (d *Daemon) outputPath(id string) string {
	return filepath.Join(d.cfg.StateDir, "output", id+".log")
}

// Log returns kept output, of living and of ended sandboxes.
func (b *backend) Log(ctx context.Context, id string, follow bool) (io.ReadCloser, error) {
	s, alive := b.d.sandboxes.ByID(id)
	if alive && s.Record.Foreign != nil {
		return nil, api.Errorf(api.CodeConflict, "sandbox %s was adopted: its output goes where it always went", id)
	}
	if alive && !s.Record.Detached {
		return nil, api.Errorf(api.CodeConflict, "sandbox %s runs in the foreground: its output went to whoever started it", id)
	}
	var done <-chan struct{}
	if alive {
		done = s.Done()
	}
	return openOutput(ctx, b.d.outputPath(id), follow && alive, done)
}
