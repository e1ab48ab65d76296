// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"testing"

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
