// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"strings"
	"testing"
)

func TestCheckGroup(t *testing.T) {
	for _, c := range []struct {
		name           string
		started, now   int
		ok             bool
		detail, remedy string
	}{
		{"there", 50, 50, true, "its members", ""},
		{"none", -1, -1, true, "only root", ""},
		{"made later", -1, 50, false, "after the daemon had started", "restart"},
		{"removed", 50, -1, false, "after the daemon had started", "restart"},
	} {
		got := checkGroup("ops", c.started, c.now)
		if got.OK != c.ok || !got.Optional || !strings.Contains(got.Detail, c.detail) || !strings.Contains(got.Remedy, c.remedy) || (got.Remedy == "") != c.ok {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
