// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

// attest looks at the walls of sandboxes from when nothing of a former daemon is
// in the kernel but what was taken over: it would wonder at the rest.
func (d *Daemon) attest(ctx context.Context) {
	select {
	case <-d.settled:
		d.sandboxes.Attest(ctx)
	case <-ctx.Done():
	}
}

// attestNode looks as often at the programs on the node's own cgroups. It only
// tells: a gateway that is ended comes back into the same cgroup, and every
// sandbox depends on it.
func (d *Daemon) attestNode(ctx context.Context) {
	tick := time.NewTicker(d.cfg.Attest.Interval)
	defer tick.Stop()
	told := map[string]string{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, c := range []ownCgroup{
			{"gateway", "it could reach addresses that no document lists", d.gwFence.Attested},
			{"listeners", "whoever can reach the loopback of what was adopted could use its listeners", d.foreign.attested},
		} {
			found := ""
			if err := c.attested(); err != nil {
				found = err.Error()
			}
			if found != told[c.name] {
				d.append(c.attestation(found, d.version))
			}
			told[c.name] = found
		}
	}
}

// ownCgroup is one of the node itself.
type ownCgroup struct {
	name     string
	fallen   string // what it means if its programs do not stand
	attested func() error
}

// attestation is the event; found is "" when the programs stand again.
func (c ownCgroup) attestation(found, version string) *event.Event {
	e := &event.Event{Kind: event.KindTamper, Time: time.Now().UTC(), Source: "keeper", Verdict: event.Observed, Activity: "attest", Layer: "network",
		Object: c.name, Version: version, Severity: event.SeverityCritical, ReasonCode: "attestation", Detail: found,
		Reason: "the programs on the cgroup of the " + c.name + " no longer stand: " + c.fallen,
		Remedy: "find out who changed it as root; SIGINT to the daemon and a new start build them again"}
	if found == "" {
		e.Severity, e.ReasonCode, e.Reason, e.Remedy = event.SeverityMedium, "attestation-restored", "the programs on the cgroup of the "+c.name+" stand again", ""
	}
	return e
}
