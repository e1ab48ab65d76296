// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"runtime"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/scope"
)

// waitsFor runs what must wait for the turn of an owner, and says what is so meanwhile.
func waitsFor(t *testing.T, d *Daemon, owner uint32, run func(), meanwhile func()) {
	t.Helper()
	done, passed := d.own.turn(owner), make(chan struct{})
	go func() {
		defer close(passed)
		run()
	}()
	for waiting := false; !waiting; runtime.Gosched() {
		select {
		case <-passed:
			t.Fatal("it does not wait for its turn")
		default:
		}
		d.own.mu.Lock()
		waiting = d.own.turns[owner].users == 2
		d.own.mu.Unlock()
	}
	meanwhile()
	done()
	<-passed
}

// What ends counts until it is out of force, and nobody of its owner counts in between.
func TestWhatEndsCountsUntilItIsOutOfForce(t *testing.T) {
	d, add := launcher(t)
	if err := add("a", 1000, ownText("p", 3, 0)); err != nil {
		t.Fatal(err)
	}
	here := func() (n int) {
		for _, it := range d.library.Items() {
			if strings.HasPrefix(it.Source, "sandbox:a/") {
				n++
			}
		}
		return n
	}
	waitsFor(t, d, 1000, func() { d.dropSandboxDocuments("a") }, func() {
		if owner, ok := d.own.ownerOf("a"); !ok || owner != 1000 || here() != 1 {
			t.Errorf("of user %d (%t), %d documents", owner, ok, here())
		}
	})
	if _, ok := d.own.ownerOf("a"); ok || here() != 0 {
		t.Errorf("%d documents are left, or whose they were", here())
	}
	if len(d.own.turns) != 0 {
		t.Errorf("turns are left: %v", d.own.turns)
	}
}

// What is allowed for one sandbox waits for its owner's turn, as a launch does: what fits
// twice by itself need not fit together.
func TestAllowWaitsForItsTurn(t *testing.T) {
	d, add := launcher(t)
	if err := add("a", 1000, ownText("p", 3, 0)); err != nil {
		t.Fatal(err)
	}
	p := scope.Principal{Org: "local", Team: "default", Agent: "a", Sandbox: "a"}
	s := &sandbox.Sandbox{Principal: p, Record: sandbox.Record{ID: "a", Owner: 1000}}
	doc := &policy.Document{Name: "allow-x", Raw: []byte(ownText("allow-x", 1, 0))}
	var err error
	before := d.library.Snapshot().Revision()
	waitsFor(t, d, 1000, func() {
		err = (&backend{d}).grant(context.Background(), asAuthor, &api.AllowRequest{Mode: api.AllowSandbox}, s, doc, &api.AllowResult{})
	}, func() {
		if d.library.Snapshot().Revision() != before {
			t.Error("it is in force already")
		}
	})
	if err != nil || d.library.Snapshot().Revision() == before {
		t.Errorf("it is not in force: %v", err)
	}
}
