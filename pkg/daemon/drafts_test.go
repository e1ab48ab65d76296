// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// A destination that some rule opens at other times is no draft: there is a rule
// about it. Without a rule, or with one in shadow mode, it is.
func TestWhatIsDeniedByDefault(t *testing.T) {
	docs, problems := policy.Parse("p.yaml", []byte(`apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: p}
scope: org:local
egress:
  - {id: a, allow: "timed.test:443", when: {windows: [{from: "08:00", to: "08:01"}]}}
  - {id: b, deny: "blocked.test"}
  - {id: c, allow: "shadow.test:443", mode: shadow}
  - {id: d, allow: "192.0.2.0/24:443", when: {windows: [{from: "08:00", to: "08:01"}]}}
`))
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	s, problems := policy.Compile(1, docs)
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	v := s.View(scope.Principal{Org: "local", Team: "default", Agent: "a"})
	for target, want := range map[string]bool{"timed.test:443": false, "timed.test:80": true, "blocked.test:443": false, "shadow.test:443": true, "other.test:443": true, "192.0.2.7:443": false, "192.0.3.7:443": true} {
		x, err := policy.ParseTarget(target)
		if err != nil {
			t.Fatal(err)
		}
		if byDefault(v, x) != want {
			t.Errorf("%s: by default is not %v", target, want)
		}
	}
}

// Of what a caller does not see nothing is decided: what is allowed meanwhile goes
// when somebody who sees it looks.
func TestDraftsOfOthersAreNotDecided(t *testing.T) {
	b, _ := inbox(t)
	rules(t, b, "house org:local   - {id: a, allow: \"open.test:443\"}\n")
	for i, box := range []string{"00000001", "00000002"} {
		for _, to := range []string{"open.test:443", "x.test:443"} {
			b.d.drafts.Take(box, "org:local/team:default/agent:x", uint32(64001+i), to, 1, time.Now())
		}
	}
	all := func(string, string, uint32) bool { return true }
	list, err := b.Drafts(context.Background(), func(launcher uint32, in string) bool {
		return launcher == 64001 && in == "org:local/team:default/agent:x/sandbox:00000001"
	}, "")
	if err != nil || len(list) != 1 || list[0].Destination != "x.test:443" || list[0].Sandboxes[0] != "00000001" {
		t.Errorf("%+v %v", list, err)
	}
	if n := len(b.d.drafts.List(all)); n != 3 {
		t.Errorf("%d are left", n)
	}
	one, err := b.Drafts(context.Background(), func(uint32, string) bool { return true }, list[0].ID)
	if err != nil || len(one) != 2 || one[1].ID != list[0].ID {
		t.Errorf("%+v %v", one, err)
	}
}
