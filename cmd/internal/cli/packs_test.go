// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"strings"
	"testing"
)

func TestPacksOf(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("locked-down", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args, scope     string
		packs, rest, is string // names of packs, what is left, an error
	}{
		{args: "coding-agent my.yaml ./coding-agent", packs: "coding-agent", rest: "my.yaml ./coding-agent"},
		{args: "pack:coding-agent", packs: "coding-agent"},
		{args: "coding-agnet", rest: "coding-agnet"}, // told where it is read
		{args: "pack:coding-agnet", is: "no pack is named"},
		{args: "locked-down", is: "write pack:locked-down or ./locked-down"},
		{args: "pack:locked-down", packs: "locked-down"},
		{args: "./locked-down", rest: "./locked-down"},
		{args: "coding-agent", scope: "org:acme/team:*/agent:web", packs: "coding-agent.org-acme.agent-web"},
		{args: "coding-agent my.yaml", scope: "org:acme", is: `"my.yaml" is none`},
		{args: "coding-agent", scope: "acme", is: "--scope"},
	} {
		packs, rest, err := packsOf(strings.Fields(c.args), c.scope)
		if c.is != "" {
			if err == nil || !strings.Contains(err.Error(), c.is) {
				t.Errorf("%s: %v", c.args, err)
			}
			continue
		}
		var names []string
		for _, p := range packs {
			names = append(names, p.Name)
		}
		if err != nil || strings.Join(names, " ") != c.packs || strings.Join(rest, " ") != c.rest {
			t.Errorf("%s: %q, %q, %v", c.args, names, rest, err)
		}
	}
}
