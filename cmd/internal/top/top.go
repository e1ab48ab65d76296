// SPDX-License-Identifier: Apache-2.0

// Package top is the terminal view of `ringfence top`: sandboxes, what was
// decided about them, and what waits for people, live. What it shows was chosen
// by others: everything is escaped before it meets the terminal.
package top

import (
	"context"
	"os"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/ringfence/ringfence/pkg/api"
)

// Run shows what the daemon behind c has until the user quits or ctx ends. Both
// in and out are a terminal; events are read from since on.
func Run(ctx context.Context, c *api.Client, in, out *os.File, color bool, since time.Time) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	st := newState()
	var wg sync.WaitGroup
	wg.Go(func() { (&feed{node: c, st: st, since: since}).run(ctx) })
	m := &model{ctx: ctx, node: c, st: st, now: time.Now, host: host, color: color, opened: since}
	p := tea.NewProgram(m, tea.WithInput(in), tea.WithOutput(out), tea.WithFPS(20), tea.WithoutSignalHandler())
	stop := context.AfterFunc(ctx, p.Quit) // and not as its context: a program that is killed leaves the terminal as it is
	_, err = p.Run()
	stop()
	cancel()
	wg.Wait()
	return err
}
