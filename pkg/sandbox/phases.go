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
}

// lane is a row of steps in order.
type lane []step

// phases of a launch in order. The lanes of one phase run at the same time:
// what they need was made in an earlier phase or before in the same lane, and
// what they write is their own.
var phases = [][]lane{
	{{
		{"register", (*launch).register},
		{"identity", (*launch).identity},
		{"state directory", (*launch).directory},
		{"policy", (*launch).policy},
	}},
	{
		{
			{"cgroup and network programs", (*launch).fence},
			{"clone", (*launch).clone},
			{"network", (*launch).network},
		},
		{
			{"certificate", (*launch).certificate},
			{"output", (*launch).output},
			{"file and system call walls", (*launch).plan},
		},
	},
	{{{"record", (*launch).save}}},
	{
		{{"walls", (*launch).walls}},
		{{"gateway", (*launch).gateway}},
		{{"event log", (*launch).record}},
	},
	// Nothing of the agent runs before all of the above holds.
	{{
		{"attestation", (*launch).attest},
		{"third lock", (*launch).guard},
		{"newest policy", (*launch).catchUp},
		{"start", (*launch).start},
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
		began := time.Now()
		err := st.run(l, ctx)
		l.m.o.Logger.Debug("launch", "step", st.name, "took", time.Since(began))
		if err != nil {
			return launchError(st.name, err)
		}
	}
	return nil
}
