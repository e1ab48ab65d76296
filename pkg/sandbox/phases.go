// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"sync"
	"time"
)

// step is one part of a launch. It registers what undoes it.
type step struct {
	name string
	run  func(*launch, context.Context) error
	// ahead says that it needs no request, unless that wants a user namespace:
	// a spare has it behind it.
	ahead bool
}

// lane is a row of steps in order.
type lane []step

// phases of a launch in order. The lanes of one phase run at the same time:
// what they need was made in an earlier phase or before in the same lane, and
// what they write is their own.
var phases = [][]lane{
	{{
		{"number", (*launch).reserve, true},
		{"register", (*launch).register, false},
		{"identity", (*launch).identity, false},
		{"state directory", (*launch).directory, true},
		{"policy", (*launch).policy, false},
	}},
	{
		{
			{"cgroup and network programs", (*launch).fence, true},
			{"clone", (*launch).clone, true},
			{"network", (*launch).network, true},
			{"limits and tables", (*launch).govern, false},
		},
		{
			{"certificate", (*launch).certificate, true},
			{"output", (*launch).output, false},
			{"file and system call walls", (*launch).plan, false},
		},
	},
	{{{"record", (*launch).save, false}}},
	{
		{{"walls", (*launch).walls, false}},
		{{"gateway", (*launch).gateway, false}},
		{{"event log", (*launch).record, false}},
	},
	// Nothing of the agent runs before all of the above holds.
	{{
		{"attestation", (*launch).attest, false},
		{"third lock", (*launch).guard, false},
		{"newest policy", (*launch).catchUp, false},
		{"start", (*launch).start, false},
	}},
}

// together runs the lanes of a phase and waits for all of them, whatever
// happens to one: each ends by itself. It returns the first error in the
// order of the lanes.
func (l *launch) together(ctx context.Context, lanes []lane) error {
	errs := make([]error, len(lanes))
	var wg sync.WaitGroup
	for i, steps := range lanes[1:] {
		wg.Go(func() { errs[i+1] = l.inOrder(ctx, steps) })
	}
	errs[0] = l.inOrder(ctx, lanes[0])
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// inOrder runs the steps until one fails.
func (l *launch) inOrder(ctx context.Context, steps lane) error {
	for _, st := range steps {
		if st.ahead && l.ahead {
			continue
		}
		began := time.Now()
		err := st.run(l, ctx)
		l.m.o.Logger.Debug("launch", "step", st.name, "took", time.Since(began))
		if err != nil {
			return launchError(st.name, err)
		}
	}
	return nil
}
