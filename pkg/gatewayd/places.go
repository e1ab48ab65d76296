// SPDX-License-Identifier: Apache-2.0

package gatewayd

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/inference/health"
	"github.com/ringfence/ringfence/pkg/wire"
)

// onPlaces tells what is known of who answers model calls: first those that are set
// aside, as many as one message holds.
func (p *process) onPlaces([]byte, []*os.File) ([]byte, []*os.File, error) {
	list := p.inference.Places()
	slices.SortFunc(list, func(a, b health.Look) int {
		return cmp.Or(-cmp.Compare(min(a.State, 1), min(b.State, 1)), cmp.Compare(a.Place.Provider, b.Place.Provider),
			cmp.Compare(a.Place.Model, b.Place.Model), cmp.Compare(a.Place.Key, b.Place.Key))
	})
	list = list[:min(len(list), wire.MaxPlaces)]
	out := make([]wire.Place, len(list))
	for i, l := range list {
		out[i] = wire.Place{Provider: bounded(l.Place.Provider), Model: bounded(l.Place.Model), Key: bounded(l.Place.Key), State: uint8(l.State),
			Latency: uint64(l.Latency.Microseconds()), Running: uint32(l.Running), Why: bounded(l.Why)}
		if l.State == health.Open {
			out[i].Until = uint64(max(time.Until(l.Until), 0).Milliseconds())
		}
	}
	b, err := wire.EncodePlaces(out)
	return b, nil, err
}

// bounded is a text within the bounds of the message.
func bounded(s string) string { return strings.ToValidUTF8(s[:min(len(s), 200)], "?") }
