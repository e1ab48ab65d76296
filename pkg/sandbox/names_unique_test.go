// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Of launches that begin at the same time one gets the name.
func TestOneLaunchGetsTheName(t *testing.T) {
	m := &Manager{reserved: map[uint32]string{}, byNumber: map[uint32]*Sandbox{}, byID: map[string]*Sandbox{}}
	var got atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			err := m.register(&Sandbox{Record: Record{Name: "nightly"}})
			switch {
			case err == nil:
				got.Add(1)
			case !strings.Contains(err.Error(), `named "nightly" already`):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got.Load() != 1 {
		t.Errorf("%d launches have the name", got.Load())
	}
	for range 2 { // no name is everybody's
		if err := m.register(&Sandbox{}); err != nil {
			t.Error(err)
		}
	}
}
