// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"
)

// TestASenderThatDoesNotLastIsStartedEverLessOften: and it is said to be down
// meanwhile.
func TestASenderThatDoesNotLastIsStartedEverLessOften(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p := &Process{Binary: "/bin/false", UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Filter: null, Target: target("https://a.test/"), Logger: slog.New(slog.DiscardHandler)}
	var pauses []time.Duration
	p.Pause = func(_ context.Context, d time.Duration) bool {
		if !p.Down() {
			t.Error("it is not said to be down")
		}
		pauses = append(pauses, d)
		return len(pauses) < 8
	}
	p.Run(context.Background(), func(ctx context.Context, _ func(context.Context, *Delivery) Result) {
		if p.Down() {
			t.Error("one that runs is said to be down")
		}
		<-ctx.Done()
	})
	if want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}; !slices.EqualFunc(pauses, want, func(a, b time.Duration) bool { return a == b*time.Second }) {
		t.Errorf("paused %v", pauses)
	}
}
