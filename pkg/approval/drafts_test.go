// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"fmt"
	"testing"
	"time"
)

func all(string, string, uint32) bool { return true }

func find(list []Draft, sandbox, destination string) Draft {
	for _, d := range list {
		if d.Sandbox == sandbox && d.Destination == destination {
			return d
		}
	}
	return Draft{}
}

func TestDraftsFoldAndCount(t *testing.T) {
	var d Drafts
	for i := range 3 {
		d.Take("s1", "org:a/team:b/agent:c", 7, "x.test:443", 2, start.Add(time.Duration(i)*time.Minute))
	}
	d.Take("s2", "org:a/team:b/agent:c", 7, "x.test:443", 1, start)
	d.Take("s3", "org:a/team:b/agent:d", 7, "x.test:443", 1, start)
	one, two, three := find(d.List(all), "s1", "x.test:443"), find(d.List(all), "s2", "x.test:443"), find(d.List(all), "s3", "x.test:443")
	if one.Count != 6 || !one.First.Equal(start) || !one.Last.Equal(start.Add(2*time.Minute)) {
		t.Errorf("%+v", one)
	}
	if one.ID() != two.ID() || one.ID() == three.ID() {
		t.Errorf("%s %s %s", one.ID(), two.ID(), three.ID())
	}
	sees := func(sandbox, scope string, launcher uint32) bool {
		d.Take("s4", scope, launcher, "y.test:443", 1, start) // nobody's denial waits for whoever decides
		return sandbox == "s2" && scope == "org:a/team:b/agent:c" && launcher == 7
	}
	if left := d.List(sees); len(left) != 1 || left[0].Sandbox != "s2" {
		t.Errorf("%+v", left)
	}
	d.Take("s2", "org:a/team:b/agent:c", 7, "x.test:443", 1, start)
	for _, r := range []Draft{one, two, three} {
		d.Forget(&r)
	}
	if left := d.List(all); len(left) != 2 || find(left, "s2", "x.test:443").Count != 2 || find(left, "s4", "y.test:443").Count == 0 {
		t.Errorf("what was denied again is forgotten, or what is allowed is not: %+v", left)
	}
}

// TestDraftsDoNotCrowdOut: whatever one sandbox asks for, another's stay, and
// memory is bounded.
func TestDraftsDoNotCrowdOut(t *testing.T) {
	var d Drafts
	d.Take("quiet", "org:a/team:b/agent:c", 7, "mine.test:443", 1, start)
	for i := range 10_000 {
		d.Take("loud", "org:a/team:b/agent:c", 8, fmt.Sprintf("n%d.test:443", i), 1, start.Add(time.Minute))
	}
	list := d.List(all)
	if len(list) != MaxDrafts+1 || find(list, "quiet", "mine.test:443").Count != 1 || list[0].More != 10_000-MaxDrafts {
		t.Errorf("%d are left, %d more", len(list), list[0].More)
	}
	d.Take("loud", "org:a/team:b/agent:c", 8, "later.test:443", 1, start.Add(2*time.Hour)) // the others are stale
	if list = d.List(all); len(list) != MaxDrafts+1 || find(list, "loud", "later.test:443").Count != 1 {
		t.Errorf("%d are left", len(list))
	}
	d.End("quiet", start)
	for i := range 5 * MaxDraftsOver { // many short sandboxes of somebody else
		box := fmt.Sprintf("short%d", i)
		d.Take(box, "org:a/team:b/agent:c", 9, "x.test:443", 1, start)
		d.End(box, start.Add(time.Duration(i)*time.Second))
	}
	list = d.List(all)
	if find(list, "quiet", "mine.test:443").Count != 1 || find(list, "loud", "later.test:443").Count != 1 {
		t.Error("another's drafts are gone")
	}
	if len(d.of) != MaxDraftsOver+1 || find(list, "short0", "x.test:443").Count != 0 || find(list, fmt.Sprintf("short%d", 5*MaxDraftsOver-1), "x.test:443").Count != 1 {
		t.Errorf("%d sandboxes are remembered", len(d.of))
	}
}
