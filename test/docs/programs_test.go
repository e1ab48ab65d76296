// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/test/node"
)

// TestLaunchLinksNoView: likewise of the terminal library, which costs a launch
// 0.2 ms and 1.9 MB.
func TestLaunchLinksNoView(t *testing.T) {
	for program, want := range map[string]bool{"ringfence": false, "ringfence-init": false, "ringfenced": false, "ringfence-policy": true} {
		links(t, program, want, "charm.land/bubbletea/v2\n")
	}
}

// TestLaunchLinksNoCEL: a launch starts ringfence, and CEL with its protocol
// buffers starts slower than all the rest of it. What decides must have it.
func TestLaunchLinksNoCEL(t *testing.T) {
	for program, want := range map[string]bool{"ringfence": false, "ringfence-init": false, "ringfence-policy": true, "ringfenced": true} {
		links(t, program, want, "cel.dev/cel-go/cel\n", "google.golang.org/protobuf/proto\n")
	}
}

func links(t *testing.T, program string, want bool, packages ...string) {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "./cmd/"+program)
	cmd.Dir = node.Root()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range packages {
		if got := strings.Contains("\n"+string(out), "\n"+of); got != want {
			t.Errorf("%s links %s: %v", program, strings.TrimSpace(of), got)
		}
	}
}
