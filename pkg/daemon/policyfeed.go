// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
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
	select {
	case f.wake <- struct{}{}:
	default:
	}
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

// enforce puts changes into force until ctx ends: the kernel first, so that
// what is no longer allowed is closed before anything else is told.
func (d *Daemon) enforce(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.policy.wake:
		}
		changes, repeat := d.policy.take()
		snap := d.library.Snapshot()
		d.mu.Lock()
		missed := repeat && d.fed != snap.Revision()
		d.mu.Unlock()
		if len(changes) == 0 && !missed {
			continue
		}
		if len(changes) > 0 {
			snap = changes[len(changes)-1].Snapshot
			if err := d.sandboxes.Apply(snap); err != nil {
				d.logger.Error("policy in the kernel", "error", err)
			}
			if err := d.openGatewayTable(snap); err != nil {
				d.logger.Error("policy of the gateway's cgroup", "error", err)
			}
		}
		if d.gateway.Ready() { // a new gateway gets the snapshot when it is fed
			gctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			if err := d.sendSecrets(gctx, d.gateway); err != nil {
				d.logger.Error("secrets to the gateway", "error", err)
			}
			if err := sendSnapshot(gctx, d.gateway, snap); err != nil {
				d.logger.Error("policy to the gateway", "error", err)
			}
			cancel()
		}
		for _, c := range changes {
			d.recordPolicy(c)
		}
		if len(changes) > 0 {
			d.policy.done(snap.Revision())
		}
	}
}

// recordPolicy writes what a change did to the event log.
func (d *Daemon) recordPolicy(c documents.Change) {
	e := &event.Event{Kind: event.KindPolicy, Time: time.Now().UTC(), Source: "keeper", Verdict: event.Observed,
		Activity: "apply", Object: strings.Join(append(c.Loaded, c.Removed...), ", "), Revision: c.Snapshot.Revision(), Version: d.version}
	e.Reason = fmt.Sprintf("policy revision %d is in force", c.Snapshot.Revision())
	if len(c.Problems) > 0 {
		e.Activity, e.Severity = "refuse", event.SeverityMedium
		e.Verdict = event.Denied
		e.Reason = fmt.Sprintf("%d mistakes; the last good form of these documents stays in force", len(c.Problems))
		e.Detail = policy.Problems(c.Problems).Error()
	}
	d.append(e)
}
