// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/wire"
)

var testNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// fakeLog keeps events; err refuses them.
type fakeLog struct {
	mu  sync.Mutex
	evs []*event.Event
	err error
}

func (l *fakeLog) Append(_ context.Context, evs ...*event.Event) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	l.evs = append(l.evs, evs...)
	return uint64(len(l.evs)), nil
}

func (l *fakeLog) take() []*event.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.evs
	l.evs = nil
	return out
}

// oneSandbox knows the principal of sandbox 0000002a and no living sandbox.
type oneSandbox struct{}

func (oneSandbox) Sandbox(uint32) (*sandbox.Sandbox, bool) { return nil, false }

func (oneSandbox) Principal(id string) (scope.Principal, bool) {
	return scope.Principal{Org: "o", Team: "t", Agent: "a", Sandbox: id}, id == "0000002a"
}

// batch is the payload of one Append.
func batch(evs ...event.Event) []byte {
	var e wire.Encoder
	e.U16(uint16(len(evs)))
	for i := range evs {
		e.B = evs[i].AppendWire(e.B)
	}
	return e.B
}

// forged is an event with everything in it that a process of ours could claim.
func forged(k event.Kind) event.Event {
	return event.Event{Kind: k, Time: testNow.Add(time.Hour), Source: "kernel", Severity: event.SeverityCritical, Verdict: event.Allowed,
		Activity: "fs.read_file", Sandbox: "0000002a", Scope: "org:other/team:x/agent:y", Reason: "lie", ReasonCode: "lie", Layer: "kernel",
		Rule: "doc/rule", RuleAt: "f:1", Revision: 7, Remedy: "ringfence allow evil", Actor: "uid=0", Object: "lie", Detail: "lie",
		PID: 77, PPID: 1, UID: 1, Exe: "/bin/sh", Comm: "sh", Args: "lie", Parents: "lie", Path: "/etc/shadow", Count: 3, Lost: 5,
		DstAddr: "192.0.2.1", DstPort: 443, URL: "http://lie", Version: "lie", RequestID: "lie", Duration: time.Hour}
}

// valid fails unless the event can be written.
func valid(t testing.TB, e *event.Event) {
	t.Helper()
	if _, err := e.AppendOCSF(nil, event.Node{UID: "n"}); err != nil {
		t.Errorf("%+v: %v", e, err)
	}
}
