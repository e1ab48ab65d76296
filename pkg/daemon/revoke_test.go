// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/sandbox"
)

// Who waits for a change waits for a look that began after it, and the look for
// the gateway, but not for ever: one that hangs is not the flows' reprieve.
func TestALookWaitsForTheGatewayAMoment(t *testing.T) {
	m, err := sandbox.NewManager(sandbox.Options{Dir: t.TempDir(), CgroupBase: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{sandboxes: m, ender: newEnder(), logger: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	never, told := d.ender.after(make(chan struct{})), make(chan struct{})
	close(told)
	both := d.ender.after(told)
	select {
	case <-never:
		t.Error("it looked, and nobody runs")
	default:
	}
	go func() { defer close(done); d.endRevoked(ctx) }()
	for name, ended := range map[string]<-chan struct{}{"a gateway that hangs": never, "one that was told": both, "asked for again": d.ender.after(told)} {
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Errorf("%s: never looked", name)
		}
	}
	cancel()
	<-done
	// What a look failed for waits for the next one.
	first := d.ender.after(told)
	d.ender.back(d.ender.take())
	d.ender.after(told)
	if list := d.ender.take(); len(list) != 2 || (<-chan struct{})(list[0].ended) != first {
		t.Errorf("%d wait", len(list))
	}
}
