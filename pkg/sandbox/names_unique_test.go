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
			err := takeName(m, "nightly")
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
		if err := takeName(m, ""); err != nil {
			t.Error(err)
		}
	}
}

func takeName(m *Manager, name string) error {
	s := &Sandbox{}
	if err := m.reserve(s); err != nil {
		return err
	}
	return m.name(s.Record.Number, name)
}
