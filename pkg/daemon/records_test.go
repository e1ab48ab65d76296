// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

func TestReadOnlyRemedy(t *testing.T) {
	reads := sandbox.Record{Workspace: "/src/a"}
	for _, c := range []struct {
		name, path, code string
		r                sandbox.Record
		want             bool
	}{
		{"relative", "x", "read-only", reads, true},
		{"absolute", "/src/a/b/x", "read-only", reads, true},
		{"the workspace", "/src/a", "read-only", reads, true},
		{"a neighbour", "/src/ab/x", "read-only", reads, false},
		{"the system", "/usr/x", "read-only", reads, false},
		{"out of it", "../x", "read-only", reads, false},
		{"out of it, absolute", "/src/a/../x", "read-only", reads, false},
		{"another reason", "x", "files", reads, false},
		{"one that it may write", "x", "read-only", sandbox.Record{Workspace: "/src/a", Handback: true}, false},
		{"none", "x", "read-only", sandbox.Record{}, false},
		{"a workspace of /", "/x", "read-only", sandbox.Record{Workspace: "/"}, true},
	} {
		if got := readOnlyRemedy(&event.Event{Path: c.path, ReasonCode: c.code}, &c.r) != ""; got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
