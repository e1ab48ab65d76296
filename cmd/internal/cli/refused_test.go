// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
)

const testScope = "org:local/team:default/agent:git/sandbox:1"

// Somebody who asks for a name and is led to the refusal address is told the
// port that was tried, not a guess.
func TestTheRemedyHasThePortThatWasTried(t *testing.T) {
	question := event.Event{Kind: event.KindDNS, DstName: "github.com", QueryType: "A", Reason: "no rule", Remedy: "ringfence allow github.com:443", Scope: testScope}
	attempt := event.Event{Kind: event.KindNetwork, Proto: "tcp", DstAddr: "198.18.0.2:22", DstPort: 22, Reason: "this virtual address stands for no name in this sandbox", Scope: testScope}
	list := fold(fold(nil, &question), &attempt)
	if len(list) != 1 || list[0].what != "tcp github.com:22" || list[0].reason != "no rule" ||
		list[0].remedy != "ringfence allow github.com:22 --scope org:local/team:default/agent:git --always" {
		t.Errorf("%+v", list)
	}
	if list = fold(list, &attempt); len(list) != 1 || list[0].count != 2 {
		t.Errorf("tried again: %+v", list)
	}
	second := question
	second.DstName, second.Remedy = "gitlab.com", "ringfence allow gitlab.com:443"
	if list = fold(fold(fold(nil, &question), &second), &attempt); len(list) != 3 {
		t.Errorf("of two names one was guessed: %+v", list)
	}
	other := attempt
	other.DstAddr, other.DstPort = "198.18.0.9:22", 22
	if list = fold(fold(nil, &question), &other); len(list) != 2 {
		t.Errorf("an address that is not the refusal's was taken for one: %+v", list)
	}
	if list = fold(nil, &attempt); len(list) != 1 || list[0].remedy != "" {
		t.Errorf("nothing was asked before: %+v", list)
	}
}

func TestRoutineRefusalsAreSetApart(t *testing.T) {
	for _, c := range []struct {
		name    string
		e       event.Event
		routine bool
	}{
		{"a look for a file", event.Event{Kind: event.KindFile, ReasonCode: "not-in-view"}, true},
		{"a file that is there", event.Event{Kind: event.KindFile, ReasonCode: "files"}, false},
		{"a read-only file", event.Event{Kind: event.KindFile, ReasonCode: "read-only"}, false},
		{"for want of a right", event.Event{Kind: event.KindSyscall, Layer: "capabilities"}, true},
		{"by the filter", event.Event{Kind: event.KindSyscall, Layer: "seccomp", Object: "unshare"}, false},
		{"Node's ring", event.Event{Kind: event.KindSyscall, Layer: "seccomp", Object: "io_uring_setup"}, true},
		{"a connection", event.Event{Kind: event.KindNetwork, Layer: "kernel"}, false},
		{"a socket", event.Event{Kind: event.KindKernelDenial, Layer: "seccomp"}, false},
	} {
		weighty, n := apart(fold(nil, &c.e))
		if (n == 1) != c.routine || (len(weighty) == 1) == c.routine {
			t.Errorf("%s: routine %d, listed %d", c.name, n, len(weighty))
		}
	}
}
