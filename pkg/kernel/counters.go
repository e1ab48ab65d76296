// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/ringfence/ringfence/bpf"
)

// Ring is one of the ways records take. Denials never share one with flow
// telemetry, nor verdicts one with refused system calls.
type Ring uint8

const (
	RingDenials   = Ring(bpf.FenceRfRingRF_RING_DENIALS)
	RingFlows     = Ring(bpf.FenceRfRingRF_RING_FLOWS)
	RingRefusals  = Ring(bpf.FenceRfRingRF_RING_REFUSALS)
	RingProcesses = Ring(bpf.FenceRfRingRF_RING_PROCESSES)
)

// Rings are all of them.
var Rings = [...]Ring{RingDenials, RingFlows, RingRefusals, RingProcesses}

// String returns the ring's name as it stands in metrics.
func (r Ring) String() string {
	switch r {
	case RingDenials:
		return "denials"
	case RingFlows:
		return "flows"
	case RingRefusals:
		return "refusals"
	case RingProcesses:
		return "processes"
	}
	return fmt.Sprintf("ring-%d", uint8(r))
}

// RingCounters tell what became of the records of one ring, of all sandboxes
// since the maps were made or of one since its beginning: Produced() = Kept +
// Full + Throttled, always.
type RingCounters struct {
	Ring      Ring
	Kept      uint64 // written to the ring
	Full      uint64 // lost: the ring had no room
	Throttled uint64 // lost: over a sandbox's share of the window
}

// Produced counts every record there should have been.
func (c RingCounters) Produced() uint64 { return c.Kept + c.Full + c.Throttled }

// Lost counts the records that were not kept.
func (c RingCounters) Lost() uint64 { return c.Full + c.Throttled }

// Losses returns the counters of all rings.
func (f *Fence) Losses() ([]RingCounters, error) { return ringCounters(f.maps.Outcomes) }

func ringCounters(outcomes *ebpf.Map) ([]RingCounters, error) {
	var out []RingCounters
	for _, r := range Rings {
		if uint32(r)*uint32(bpf.FenceRfOutcomeRF_OUTCOME_MAX) >= outcomes.MaxEntries() {
			break // of a layout that did not have it
		}
		c := RingCounters{Ring: r}
		for outcome, dst := range map[bpf.FenceRfOutcome]*uint64{
			bpf.FenceRfOutcomeRF_KEPT: &c.Kept, bpf.FenceRfOutcomeRF_FULL: &c.Full, bpf.FenceRfOutcomeRF_THROTTLED: &c.Throttled,
		} {
			n, err := sumCPUs(outcomes, uint32(r)*uint32(bpf.FenceRfOutcomeRF_OUTCOME_MAX)+uint32(outcome))
			if err != nil {
				return nil, fmt.Errorf("read losses: %w", err)
			}
			*dst = n
		}
		out = append(out, c)
	}
	return out, nil
}

// ErrNoSandbox says that no sandbox of this id is attached.
var ErrNoSandbox = errors.New("no such sandbox")

// LossesOf returns the counters of one sandbox, by [Ring]; 0 stands for cgroups
// without state. They end with the sandbox's Detach: ask before.
func (f *Fence) LossesOf(sandbox uint32) (out [len(Rings)]RingCounters, err error) {
	var rate bpf.FenceRfRate
	err = f.maps.Rates.Lookup(sandbox, &rate)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = ErrNoSandbox
	}
	if err != nil {
		return out, fmt.Errorf("read losses of sandbox %d: %w", sandbox, err)
	}
	for i, r := range Rings {
		n := rate.Ring[r].Outcomes
		out[i] = RingCounters{Ring: r, Kept: n[bpf.FenceRfOutcomeRF_KEPT], Full: n[bpf.FenceRfOutcomeRF_FULL],
			Throttled: n[bpf.FenceRfOutcomeRF_THROTTLED]}
	}
	return out, nil
}

// VerdictCount is how often a hook gave a verdict for a reason.
type VerdictCount struct {
	Hook    Hook
	Allowed bool
	Reason  Reason
	Count   uint64
}

// Verdicts returns every counter that is not zero.
func (f *Fence) Verdicts() ([]VerdictCount, error) {
	const (
		reasons = uint32(bpf.FenceRfReasonRF_REASON_MAX)
		kinds   = uint32(bpf.FenceRfVerdictKindRF_VERDICT_MAX)
	)
	var out []VerdictCount
	for slot := uint32(0); slot < f.maps.Verdicts.MaxEntries(); slot++ {
		n, err := sumCPUs(f.maps.Verdicts, slot)
		if err != nil {
			return nil, fmt.Errorf("read verdicts: %w", err)
		}
		if n == 0 {
			continue
		}
		out = append(out, VerdictCount{
			Hook:    Hook(slot / reasons / kinds),
			Allowed: slot/reasons%kinds == uint32(bpf.FenceRfVerdictKindRF_ALLOW),
			Reason:  Reason(slot % reasons),
			Count:   n,
		})
	}
	return out, nil
}

func sumCPUs(m *ebpf.Map, slot uint32) (uint64, error) {
	var per []uint64
	if err := m.Lookup(slot, &per); err != nil {
		return 0, err
	}
	var sum uint64
	for _, n := range per {
		sum += n
	}
	return sum, nil
}
