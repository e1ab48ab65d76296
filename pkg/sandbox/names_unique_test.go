// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Of launches that begin at the same time one gets the name.
func TestOneLaunchGetsTheName(t *testing.T) {
	m := &Manager{reserved: map[uint32]teamName{}, byNumber: map[uint32]*Sandbox{}, byID: map[string]*Sandbox{}}
	var got atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			err := takeName(m, "t", "nightly")
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
	if err := takeName(m, "other", "nightly"); err != nil {
		t.Errorf("another team is told what this one uses: %v", err)
	}
	if err := takeName(m, "other", "nightly"); err == nil {
		t.Error("control: the name is the other team's now too")
	}
	for range 2 { // no name is everybody's
		if err := takeName(m, "t", ""); err != nil {
			t.Error(err)
		}
	}
}

func takeName(m *Manager, team, name string) error {
	s := &Sandbox{}
	if err := m.reserve(s); err != nil {
		return err
	}
	return m.name(s.Record.Number, scope.Principal{Org: "o", Team: team, Agent: "a"}, name)
}
