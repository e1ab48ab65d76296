// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
)

// policyFeed carries changes of the documents to where they are enforced.
// Changes that come while one is put into force are folded into the next.
type policyFeed struct {
	wake chan struct{}

	mu      sync.Mutex // guards what follows
	pending []documents.Change
	repeat  bool // a new gateway is ready
	applied uint64
	changed chan struct{} // closed and replaced whenever applied grows
}

func newPolicyFeed() *policyFeed {
	return &policyFeed{wake: make(chan struct{}, 1), changed: make(chan struct{})}
}

// put is the library's OnChange: it only notes the change.
func (f *policyFeed) put(c documents.Change) {
	f.mu.Lock()
	f.pending = append(f.pending, c)
	f.mu.Unlock()
	f.look()
}

// look wakes the enforcer.
func (f *policyFeed) look() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// again makes the enforcer tell the gateway what is in force: one that has
// just become ready may have been told an older revision.
func (f *policyFeed) again() {
	f.mu.Lock()
	f.repeat = true
	f.mu.Unlock()
	f.look()
}

func (f *policyFeed) take() (changes []documents.Change, repeat bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changes, repeat = f.pending, f.repeat
	f.pending, f.repeat = nil, false
	return changes, repeat
}

func (f *policyFeed) done(revision uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = max(f.applied, revision)
	close(f.changed)
	f.changed = make(chan struct{})
}

// wait blocks until a revision is in force everywhere on this node.
func (f *policyFeed) wait(ctx context.Context, revision uint64) error {
	for {
		f.mu.Lock()
		applied, changed := f.applied, f.changed
		f.mu.Unlock()
		if applied >= revision {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("policy revision %d is stored but not in force everywhere yet: %w", revision, ctx.Err())
		}
	}
}

// enforceAgain bounds the pause before a policy that could not be put into
// force everywhere is tried again.
const enforceAgain = 2 * time.Second

// enforce puts changes into force until ctx ends. A change counts as in force
// only when the kernel and the gateway have it; until then it is tried again.
// Who waits for it waits until what it denies has ended, too.
func (d *Daemon) enforce(ctx context.Context) {
	var open []documents.Change // not in force everywhere yet
	var retry <-chan time.Time  // nil while there is nothing to try again
	pause := 20 * time.Millisecond
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.policy.wake:
		case <-retry:
		}
		retry = nil
		changes, repeat := d.policy.take()
		open = append(open, changes...)
		snap := d.library.Snapshot()
		d.mu.Lock()
		missed := repeat && d.fed != snap.Revision()
		d.mu.Unlock()
		if len(open) == 0 && !missed {
			continue
		}
		ended, err := d.enforceOnce(ctx, snap)
		if err != nil {
			d.setUnenforced(err.Error())
			d.logger.Error("the policy is not in force everywhere; trying again", "revision", snap.Revision(), "error", err)
			retry = time.After(pause)
			pause = min(2*pause, enforceAgain)
			continue
		}
		d.setUnenforced("")
		pause = 20 * time.Millisecond
		for _, c := range open {
			d.recordPolicy(c)
		}
		open = nil
		go func() {
			select {
			case <-ended:
				d.policy.done(snap.Revision())
			case <-ctx.Done():
			}
		}()
	}
}

// enforceOnce tells everybody: the kernel first, so that what is no longer
// allowed is closed before anything else. What is open and denied is ended
// beside that, by the gateway and a moment later by the kernel; ended is closed
// then. A gateway that is not there is not waited for, and gets the snapshot when
// it is fed.
func (d *Daemon) enforceOnce(ctx context.Context, snap *policy.Snapshot) (ended <-chan struct{}, err error) {
	errs := []error{d.sandboxes.Apply(snap)}
	told := make(chan struct{})
	ended = d.ender.after(told)
	defer func() { go d.tellSettled(ctx, snap.Revision(), told) }()
	errs = append(errs, d.openGatewayTable())
	if d.gateway.Ready() {
		gctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		errs = append(errs, d.sendSecrets(gctx, d.gateway), sendSnapshot(gctx, d.gateway, snap))
	}
	return ended, errors.Join(errs...)
}

// settledEvery is how often the gateway is asked whether it has ended what a revision
// denies.
const settledEvery = 5 * time.Millisecond

// tellSettled closes told when the gateway has ended all that a revision denies, or has
// had its start: who looks into the kernel then does not wait longer.
func (d *Daemon) tellSettled(ctx context.Context, revision uint64, told chan<- struct{}) {
	defer close(told)
	ctx, cancel := context.WithTimeout(ctx, gatewayStart)
	defer cancel()
	for {
		served, err := d.gatewayRevisions(ctx)
		if err != nil || !slices.ContainsFunc(slices.Collect(maps.Values(served)), func(on uint64) bool { return on < revision }) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(settledEvery):
		}
	}
}

// setUnenforced notes why the newest policy is not in force, "" when it is.
func (d *Daemon) setUnenforced(why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unenforced = why
}

// recordPolicy writes what a change did to the event log.
func (d *Daemon) recordPolicy(c documents.Change) {
	for _, e := range policyEvents(c) {
		e.Time, e.Version, e.Actor = time.Now().UTC(), d.version, actor(c.Act)
		d.append(e)
	}
	for _, m := range mistakesOf(c) {
		d.logger.Warn("policy mistake", "at", m.Error())
	}
}

// mistakesOf are the mistakes in files that a change brought. Those of other
// files were told with theirs.
func mistakesOf(c documents.Change) (out []documents.Mistake) {
	for _, m := range c.Problems {
		if slices.Contains(c.Loaded, m.In) {
			out = append(out, m)
		}
	}
	return out
}

// policyEvents are one event for what was refused, what is gone, and what is
// new, as far as there is any.
func policyEvents(c documents.Change) (out []*event.Event) {
	rev, why := c.Snapshot.Revision(), ""
	if c.Act.Action == "rollback" {
		why = " (rollback to " + c.Act.Comment + ")"
	}
	add := func(activity string, files []string, reason string) *event.Event {
		e := &event.Event{Kind: event.KindPolicy, Source: "keeper", Verdict: event.Observed,
			Activity: activity, Object: strings.Join(files, ", "), Revision: rev, Reason: reason}
		out = append(out, e)
		return e
	}
	var bad []string
	mistakes := mistakesOf(c)
	for _, m := range mistakes {
		if !slices.Contains(bad, m.In) {
			bad = append(bad, m.In)
		}
	}
	if len(mistakes) > 0 {
		e := add("refuse", bad, mistakes[0].Error())
		var all []string
		for _, m := range mistakes {
			all = append(all, m.Error())
		}
		if n := len(all) - 1; n > 0 {
			e.Reason += fmt.Sprintf(" (and %d more in the detail)", n)
		}
		e.Verdict, e.Severity, e.Detail = event.Denied, event.SeverityMedium, strings.Join(all, "\n")
	}
	if len(c.Removed) > 0 {
		add("remove", c.Removed, fmt.Sprintf("removed; policy revision %d is in force%s", rev, why))
	}
	good := slices.DeleteFunc(slices.Clone(c.Loaded), func(f string) bool { return slices.Contains(bad, f) })
	if len(good) > 0 || len(out) == 0 {
		add("apply", good, fmt.Sprintf("policy revision %d is in force%s", rev, why))
	}
	return out
}
