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

// attestGateway looks at the programs on the gateway's cgroup as often. It only
// tells: a gateway that is ended comes back into the same cgroup, and every
// sandbox depends on it.
func (d *Daemon) attestGateway(ctx context.Context) {
	tick := time.NewTicker(d.cfg.Attest.Interval)
	defer tick.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		found := ""
		if err := d.gwFence.Attested(); err != nil {
			found = err.Error()
		}
		if found != told {
			d.append(gatewayAttestation(found, d.version))
			d.logger.Error("attestation of the gateway's cgroup", "found", found)
		}
		told = found
	}
}

// gatewayAttestation is the event; found is "" when the programs stand again.
func gatewayAttestation(found, version string) *event.Event {
	e := &event.Event{Kind: event.KindTamper, Time: time.Now().UTC(), Source: "keeper", Verdict: event.Observed, Activity: "attest", Layer: "network",
		Object: "gateway", Version: version, Severity: event.SeverityCritical, ReasonCode: "attestation", Detail: found,
		Reason: "the programs on the gateway's cgroup no longer stand: it could reach addresses that no document lists",
		Remedy: "find out who changed it as root; SIGINT to the daemon and a new start build them again"}
	if found == "" {
		e.Severity, e.ReasonCode, e.Reason, e.Remedy = event.SeverityMedium, "attestation-restored", "the programs on the gateway's cgroup stand again", ""
	}
	return e
}
