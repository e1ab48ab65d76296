// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"reflect"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
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
	ahead := r.lib.ReadAhead(map[string]string{"good.yaml": good, "new.yaml": policyOf("new", "allow", "free.example:443")})
	if ahead["good.yaml"].read || len(ahead["new.yaml"].docs) != 1 {
		t.Errorf("read ahead: %+v", ahead)
	}
	if err := r.lib.Put(Act{}, "good.yaml", policyOf("good", "allow", "other.example:443")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.lib.PutRead(Act{}, ahead); err != nil {
		t.Fatal(err)
	}
	r.want("other.example", false)
	r.want("good.example", true)
	r.want("free.example", true)
}

// What was read is not read again, by whoever hands it down: what is in force is what was
// made of the text then.
func TestWhatWasReadIsNotReadAgain(t *testing.T) {
	for name, put := range map[string]func(l *Library, files map[string]Reading) error{
		"put": func(l *Library, files map[string]Reading) error {
			_, _, err := l.PutRead(Act{}, files)
			return err
		},
		"restored": func(l *Library, files map[string]Reading) error {
			_, _, err := l.RestoreRead(Act{}, files)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			read := Read("Policy", "p", policyOf("p", "allow", "read.example:443"))
			read.text = policyOf("p", "allow", "text.example:443") // as no caller can have it
			if err := put(r.lib, map[string]Reading{"applied-policy-p.yaml": read}); err != nil {
				t.Fatal(err)
			}
			r.want("read.example", true)
			r.want("text.example", false)
		})
	}
}

// A Policy document that is handed down is that of its text.
func TestAPolicyIsHandedDownAsItIsRead(t *testing.T) {
	text := policyOf("p", "allow", "a.example:443")
	docs, problems := policy.Parse("elsewhere.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	text = string(docs[0].Raw)
	if got, want := ReadPolicy(docs[0]), Read("Policy", "p", text); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
