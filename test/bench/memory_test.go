// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/test/node"
)

// BenchmarkMemory takes the memory of the node's processes without a sandbox
// and with ten idle detached ones, and of what each sandbox adds: its
// ringfence-init and the process that holds its output.
func BenchmarkMemory(b *testing.B) {
	t := &testbed{n: node.Start(b, node.Options{})}
	ws := t.n.Workspace(b)
	for _, sandboxes := range []int{0, 10} {
		b.Run(fmt.Sprintf("sandboxes=%d", sandboxes), func(b *testing.B) {
			for i := range sandboxes {
				r := t.n.CLIIn(b, ws, "run", "--detach", "--name", fmt.Sprint("idle", i), "--", "sleep", "600")
				if r.Code != 0 {
					b.Fatal(r.Stderr)
				}
			}
			r := rounds{}
			for b.Loop() {
				r.add("keeper-MB", resident(b, t.keeper(b)))
				r.add("gateway-MB", resident(b, t.gateway(b)))
				for _, pid := range t.inits(b) {
					r.add("init-pss-MB", pss(b, pid))
				}
				for _, pid := range t.processes(b, "hold-output") {
					r.add("holder-pss-MB", pss(b, pid))
				}
			}
			r.report(b)
		})
	}
}

// inits are the PID 1s of the running sandboxes.
func (t *testbed) inits(b *testing.B) []int {
	b.Helper()
	keeper := strconv.Itoa(t.keeper(b))
	var out []int
	procs, err := filepath.Glob(filepath.Join(t.n.Cgroup(b), "sb-*", "cgroup.procs"))
	need(b, err)
	for _, p := range procs {
		text, err := os.ReadFile(p)
		need(b, err)
		for f := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(f)
			need(b, err)
			if status(b, pid, "PPid") == keeper {
				out = append(out, pid)
			}
		}
	}
	return out
}
