// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"testing"

	"github.com/ringfence/ringfence/pkg/policy"
)

const hitPolicy = `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: p}
scope: org:local
egress:
  - {id: far, allow: "203.0.113.0/24:7/udp"}
`

// The counts of a sandbox go over into those of its rules when its policy
// changes and when it ends, and the kernel keeps none of them.
func TestHitsOutliveTheirTables(t *testing.T) {
	l := newLive(t, Attestation{}, hitPolicy)
	const script = `for i in 1 2 3; do echo x >/dev/udp/203.0.113.5/7; done; sleep 100000`
	s := l.run("bash", "-c", script)
	far := RuleKey{Rule: "p/far", At: "test.yaml:6"}
	hits := func(want uint64, sandboxes int) {
		t.Helper()
		var u RuleUse
		l.until("the hits", func() bool {
			uses, err := l.RuleUses()
			l.must(err)
			u = uses[far]
			return u.Hits == want
		})
		if u.Sandboxes != sandboxes || (u.CIDRs > 0) != (sandboxes > 0) {
			t.Errorf("%+v, want %d sandboxes", u, sandboxes)
		}
	}
	hits(3, 1)
	docs, problems := policy.Parse("test.yaml", []byte(hitPolicy))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	next, problems := policy.Compile(2, docs)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	l.must(l.Apply(next))
	kept := func(want uint64) {
		t.Helper()
		if n := l.hits[far]; n != want { // nothing else changes it here
			t.Errorf("%d hits were kept, want %d", n, want)
		}
		left, err := l.fence.TakeHits(func(uint32) bool { return true })
		if err != nil || len(left) > 0 {
			t.Errorf("the kernel has %v still, %v", left, err)
		}
	}
	kept(3)
	hits(3, 1)
	s.Stop(0)
	l.ended(s)
	<-s.Done()
	other := l.run("bash", "-c", script)
	hits(6, 1)
	other.Stop(0)
	l.ended(other)
	<-other.Done()
	kept(6)
	hits(6, 0)
	if len(l.compiled) > 0 {
		t.Errorf("%d tables are remembered", len(l.compiled))
	}
}
