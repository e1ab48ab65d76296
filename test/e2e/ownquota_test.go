// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/test/node"
)

// What a launch brings is bounded for who is not root: nothing runs, and the message
// says what is too much and what to do. With less it runs, and root's runs.
func TestALaunchBringsOnlySoManyRules(t *testing.T) {
	gid := memberGID(t)
	n := node.Start(t, node.Options{Config: "group: " + memberGroup + "\n"})
	member := newPerson(t, n, alice, gid)
	file := func(rules int) string {
		var b strings.Builder
		b.WriteString("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: own}\nscope: org:local\negress:\n")
		for i := range rules {
			fmt.Fprintf(&b, "  - {id: r%d, allow: \"h%d.example:443\"}\n", i, i)
		}
		path := filepath.Join(member.ws, fmt.Sprintf("own%d.yaml", rules))
		need(t, os.WriteFile(path, []byte(b.String()), 0o644))
		return path
	}
	large, small := file(4097), file(4096)
	member.refused(t, "with its own documents the sandbox would have 4097 rules, and 4096 are the limit", "run", "--policy", large, "--", "true")
	r := member.run(t, "run", "--policy", large, "--", "true")
	if r.Code != 125 || !strings.Contains(r.Stderr, "ringfence policy apply") {
		t.Errorf("exit %d: %s", r.Code, r.Stderr)
	}
	if r := member.run(t, "run", "--policy", small, "--", "true"); r.Code != 0 {
		t.Errorf("with as many as it may: exit %d: %s", r.Code, r.Stderr)
	}
	if r := n.CLIIn(t, n.Workspace(t), "run", "--policy", large, "--", "true"); r.Code != 0 {
		t.Errorf("root: exit %d: %s", r.Code, r.Stderr)
	}
}
