// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
)

// The table must not call anything fine that was let through, hung, or left no
// record.
func TestWhatIsNotAsItShouldBe(t *testing.T) {
	denial := event.Event{Kind: event.KindNetwork, Verdict: event.Denied, DstAddr: "1.1.1.1:443"}
	dns := event.Event{Kind: event.KindDNS, Verdict: event.Denied, DstName: "what-i-stole.attacker.example"}
	for _, c := range []struct {
		name   string
		saw    observation
		events []event.Event
		ok     bool
	}{
		{"refused and recorded", observation{ID: "ip", Error: "EACCES"}, []event.Event{denial}, true},
		{"refused without a record", observation{ID: "ip", Error: "EACCES"}, nil, false},
		{"recorded but let through", observation{ID: "ip", Saw: "sent"}, []event.Event{denial}, false},
		{"never answered", observation{ID: "ip", Error: "timeout"}, []event.Event{denial}, false},
		{"not tried", observation{ID: "other"}, []event.Event{denial}, false},
		{"answered with our address", observation{ID: "dns", Saw: "answered 198.18.0.2"}, []event.Event{dns}, true},
		{"answered by somebody else", observation{ID: "dns", Saw: "answered 198.18.0.2 203.0.113.9"}, []event.Event{dns}, false},
		{"raw socket refused without a record", observation{ID: "raw", Error: "EPERM"}, nil, false},
		{"raw socket opened", observation{ID: "raw", Saw: "opened"}, nil, false},
		{"model call failed", observation{ID: "openai", Status: 502}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := c.saw.ID
			if id == "other" {
				id = "ip"
			}
			rows := expectations([]observation{c.saw}, &world{outside: "/nonexistent/x"})
			match(rows, c.events, true)
			for i := range rows {
				if rows[i].want.id == id && rows[i].ok() != c.ok {
					t.Errorf("ok is %v: %s | %s", rows[i].ok(), rows[i].happened(), rows[i].reason())
				}
			}
		})
	}
}

func TestWrapKeepsEveryWordWithinTheColumn(t *testing.T) {
	text := "POST https://api.openai.com/v1/chat/completions and über alles"
	lines := wrap(text, 12)
	for _, l := range lines {
		if len([]rune(l)) > 12 {
			t.Errorf("%q is too long", l)
		}
	}
	if got := strings.Join(lines, ""); strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(text, " ", "") {
		t.Errorf("lost something: %q", got)
	}
}
