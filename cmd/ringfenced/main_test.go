// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestALaterSignalEndsAtOnce(t *testing.T) {
	for _, first := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		signals := make(chan os.Signal)
		stopped, died := make(chan struct{}), make(chan struct{})
		var sandboxes atomic.Bool
		go obey(signals, &sandboxes, func() { close(stopped) }, func() { close(died) }, 50*time.Millisecond)
		signals <- first
		<-stopped
		if sandboxes.Load() != (first == syscall.SIGINT) {
			t.Errorf("%v: sandboxes stop: %v", first, sandboxes.Load())
		}
		select {
		case <-died:
			t.Errorf("%v: it died of the first signal", first)
		default:
		}
		signals <- first // of the same press
		select {
		case <-died:
			t.Errorf("%v: it died of the same signal, sent twice", first)
		case <-time.After(60 * time.Millisecond):
		}
		signals <- syscall.SIGTERM
		select {
		case <-died:
		case <-time.After(5 * time.Second):
			t.Errorf("%v: it still waits after the second", first)
		}
	}
}
