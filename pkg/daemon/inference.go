// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/wire"
)

// placeStates are the words for the states of wire.Place.
var placeStates = []string{"closed", "open", "half-open"}

// Inference asks the gateway how those are that answer model calls.
func (b *backend) Inference(ctx context.Context) (api.InferenceStatus, error) {
	if !b.d.gateway.Ready() {
		return api.InferenceStatus{}, api.Errorf(api.CodeUnavailable, "the gateway is not running")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	body, _, err := b.d.gateway.Call(ctx, wire.TypePlaces, nil)
	if err != nil {
		return api.InferenceStatus{}, api.Errorf(api.CodeUnavailable, "the gateway does not answer: %v", err)
	}
	list, err := wire.DecodePlaces(body)
	if err != nil {
		return api.InferenceStatus{}, api.Errorf(api.CodeUnavailable, "the gateway's answer is broken: %v", err)
	}
	var st api.InferenceStatus
	for i := range list {
		p := &list[i]
		st.Places = append(st.Places, api.InferencePlace{Provider: p.Provider, Model: p.Model, Key: p.Key, State: placeStates[p.State], Why: p.Why, Running: p.Running,
			ProbedIn: api.Duration(time.Duration(p.Until) * time.Millisecond), Latency: api.Duration(time.Duration(p.Latency) * time.Microsecond)})
	}
	return st, nil
}
