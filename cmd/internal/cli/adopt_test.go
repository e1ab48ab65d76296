// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
)

// What has lost its fence is said, whatever happens to the others.
func TestReleaseSaysWhatItReleased(t *testing.T) {
	n := startNode(t)
	for name, args := range map[string][]string{
		"the last fails": {"web", "nosuch"}, "the first fails": {"nosuch", "web"}, "two fail": {"nosuch", "web", "neither"},
	} {
		r := finish(t, tool(t, n.socket, append([]string{"release", "-o", "json"}, args...)...))
		var released []api.Sandbox
		if err := json.Unmarshal([]byte(r.out), &released); err != nil || r.code != exitNotFound || len(released) != 1 || released[0].ID != "b0a1c2d3" {
			t.Errorf("%s: exit %d, %v, %s", name, r.code, err, r.out)
		}
		for _, ref := range args {
			if ref != "web" && !strings.Contains(r.errOut, ref) {
				t.Errorf("%s: nothing is said of %s: %s", name, ref, r.errOut)
			}
		}
	}
	if r := finish(t, tool(t, n.socket, "release", "web")); r.code != 0 || r.out != "b0a1c2d3\n" {
		t.Errorf("one: exit %d, %q %s", r.code, r.out, r.errOut)
	}
}

// Whoever has a fence around their processes learns its id, also when the
// certificate cannot be written.
func TestAdoptSaysTheIDFirst(t *testing.T) {
	n := startNode(t)
	file := filepath.Join(t.TempDir(), "missing", "ca.pem")
	for _, output := range []string{"table", "json"} {
		r := finish(t, tool(t, n.socket, "adopt", "--cgroup", "/x", "--ca", file, "-o", output))
		if r.code != exitGeneric || !strings.Contains(r.out, "eeee0005") || !strings.Contains(r.errOut, "ringfence release eeee0005") {
			t.Errorf("%s: exit %d, %s%s", output, r.code, r.out, r.errOut)
		}
	}
	if r := finish(t, tool(t, n.socket, "adopt", "--cgroup", "/x", "--ca", filepath.Join(t.TempDir(), "ca.pem"))); r.code != 0 || !strings.HasPrefix(r.out, "eeee0005\n") {
		t.Errorf("control: exit %d, %s%s", r.code, r.out, r.errOut)
	}
}
