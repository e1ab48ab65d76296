// SPDX-License-Identifier: Apache-2.0

package top

import (
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/ringfence/ringfence/pkg/api"
)

func drafted() *node {
	n := newNode()
	n.drafts = []api.Draft{{ID: "draft-0011223344ff", Scope: "org:acme/team:shop/agent:npm", Destination: "evil\x1b.example:443", Count: 12, First: began.Add(-time.Hour), Last: began.Add(-time.Minute), Sandboxes: []string{"b0a1c2d3"}}}
	return n
}

// TestDraft: what was denied for want of a rule becomes one, the one that was
// shown.
func TestDraft(t *testing.T) {
	n := drafted()
	u := newUser(t, n)
	u.types("4")
	u.sees("[4 Drafts 1]", `evil\x1b.example:443`, "12", "org:acme/team:shop/agent:npm")
	u.types("a", "y")
	u.sees("A rule that stays?", "for        org:acme/team:shop/agent:npm", "allows     evil.example:443", "Policy approved of org:acme/team:shop, changed",
		"      - {id: a}", `  +   - {id: b, allow: "evil.example:443"} # \x1b[2J`, "read it first")
	u.tick()
	u.types("c", "w", "h", "y", "enter", "y", "y")
	if len(n.wrote) != 1 || n.wrote[0] != (api.LastingRequest{Apply: true, Expect: "digest of draft-0011223344ff", Comment: "why"}) {
		t.Errorf("%+v", n.wrote)
	}
	u.types("4", "enter")
	u.tick()
	n.refuse = api.Errorf(api.CodeConflict, "the documents have changed since")
	u.types("y")
	u.sees("Not taken", "the documents have changed since")
	u.types("esc", "enter")
	u.sees("the documents have changed since") // already when it is asked for
	u.tick()
	u.types("y")
	if len(n.wrote) != 1 {
		t.Errorf("%+v", n.wrote)
	}
}

// TestRuleIsReadAfterItCame: a page that only said that it asks is not what was
// agreed to.
func TestRuleIsReadAfterItCame(t *testing.T) {
	n := drafted()
	u := newUser(t, n)
	u.types("4")
	_, asks := u.Update(tea.KeyPressMsg{Code: 'a', Text: "a"})
	u.tick()
	u.types("y")
	u.answer(asks)
	u.types("y")
	u.sees("read it first")
	if len(n.wrote) != 0 {
		t.Errorf("%+v", n.wrote)
	}
}

// TestRequestBecomesRule: likewise of a request that waits.
func TestRequestBecomesRule(t *testing.T) {
	n := drafted()
	u := newUser(t, n)
	u.types("3", "P")
	u.sees("A rule that stays?")
	u.tick()
	u.types("y")
	u.sees("org:acme/team:shop/agent:npm may reach evil.example:443, revision 43")
	u.voted()
	if len(n.wrote) != 1 || n.wrote[0].Expect != "digest of 4be21f0a97c3d518" {
		t.Errorf("%+v", n.wrote)
	}
}

func TestChanged(t *testing.T) {
	for _, c := range []struct{ before, after, want string }{
		{"", "a\nb\n", "  + a|  + b"},
		{"a\nb\n", "", "  - a|  - b"},
		{"1\n2\n3\n4\n5\n", "1\n2\n3\n4\n5\n6\n", "    3|    4|    5|  + 6"},
		{"1\n2\n3\n4\n5\n", "1\nx\n3\n4\n5\n", "    1|  - 2|  + x|    3|    4|    5"},
		{"a\na\n", "a\na\na\n", "    a|    a|  + a"},
		{"same\n", "same\n", "    same"},
	} {
		var got []string
		for _, l := range changed(c.before, c.after, 80) {
			got = append(got, l[0].text)
		}
		if strings.Join(got, "|") != c.want {
			t.Errorf("%q -> %q: %q, want %q", c.before, c.after, got, c.want)
		}
	}
}
