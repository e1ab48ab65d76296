// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Reading what somebody wrote takes as long as they like: nobody's lock is held
// meanwhile, so that a text with mistakes is refused while the library is busy.
func TestTextsAreReadOutsideOfTheLock(t *testing.T) {
	r := newRig(t)
	p := scope.Principal{Org: "local", Team: "default", Agent: "a", Sandbox: "b"}
	const bad = "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: x}\nscope: org:local\negress:\n  - {id: a, alow: \"x.example:443\"}\n"
	for name, put := range map[string]func() error{
		"of a sandbox": func() error { return r.lib.SetSandbox("sandbox:b/0", bad, p) },
		"of a moment":  func() error { return r.lib.SetMemory("sandbox:b/1", bad) },
	} {
		t.Run(name, func(t *testing.T) {
			r.lib.mu.Lock()
			defer r.lib.mu.Unlock()
			done := make(chan error, 1)
			go func() { done <- put() }()
			select {
			case err := <-done:
				if err == nil {
					t.Error("it was taken")
				}
			case <-time.After(20 * time.Second):
				t.Error("it waits for the library")
			}
		})
	}
}

// What is put has the same outcome whether it was read ahead or, since it changed
// meanwhile, under the lock.
func TestWhatChangedMeanwhileIsReadAgain(t *testing.T) {
	r := newRig(t)
	good := policyOf("good", "allow", "good.example:443")
	if err := r.lib.Put(Act{}, "good.yaml", good); err != nil {
		t.Fatal(err)
	}
	ahead := r.lib.readAhead(map[string]string{"good.yaml": good, "new.yaml": policyOf("new", "allow", "free.example:443")})
	if _, ok := ahead["good.yaml"]; ok || len(ahead["new.yaml"].docs) != 1 {
		t.Errorf("read ahead: %+v", ahead)
	}
	r.lib.mu.Lock()
	_, err := r.lib.changeLocked(Act{}, map[string]string{"good.yaml": policyOf("good", "allow", "other.example:443"), "new.yaml": policyOf("new", "allow", "free.example:443")}, nil, ahead)
	r.lib.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	r.want("other.example", true)
	r.want("good.example", false)
	r.want("free.example", true)
}
