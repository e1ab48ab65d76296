// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"strings"
	"testing"
)

func TestOwnersTakeTurns(t *testing.T) {
	var list []*Sandbox
	for _, b := range []struct {
		id    string
		owner uint32
	}{{"a1", 1}, {"a2", 1}, {"a3", 1}, {"b1", 2}, {"c1", 3}, {"c2", 3}} {
		list = append(list, &Sandbox{Record: Record{ID: b.id, Owner: b.owner}})
	}
	var got []string
	for _, s := range inTurns(list) {
		got = append(got, s.Record.ID)
	}
	if s := strings.Join(got, " "); s != "a1 b1 c1 a2 c2 a3" {
		t.Errorf("%q", s)
	}
}
