// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/test/node"
)

// TestLaunchLinksNoCEL: a launch starts ringfence, and CEL with its protocol
// buffers starts slower than all the rest of it. What decides must have it.
func TestLaunchLinksNoCEL(t *testing.T) {
	for program, want := range map[string]bool{"ringfence": false, "ringfence-init": false, "ringfence-policy": true, "ringfenced": true} {
		cmd := exec.Command("go", "list", "-deps", "./cmd/"+program)
		cmd.Dir = node.Root()
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, of := range []string{"cel.dev/cel-go/cel\n", "google.golang.org/protobuf/proto\n"} {
			if got := strings.Contains(string(out), of); got != want {
				t.Errorf("%s links %s: %v", program, strings.TrimSpace(of), got)
			}
		}
	}
}
