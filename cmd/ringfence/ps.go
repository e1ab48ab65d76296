// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/ringfence/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

func (a *app) psCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "ps",
		Short:   "List sandboxes",
		Long:    "List sandboxes. FENCE says whether every wall of the sandbox's profile is up;\na degraded one lists what is missing.",
		Example: "  ringfence ps\n  ringfence ps --all -o json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.client().Sandboxes(cmd.Context())
			if err != nil {
				return err
			}
			shown := []api.Sandbox{}
			for _, b := range list {
				if all || !ended(b) {
					shown = append(shown, b)
				}
			}
			if a.json() {
				return show.JSON(a.out, shown)
			}
			rows := make([][]string, len(shown))
			for i, b := range shown {
				rows[i] = psRow(b, time.Now())
			}
			return show.Table(a.out, []string{"ID", "NAME", "SCOPE", "PROFILE", "STATE", "AGE", "PID", "FENCE"}, rows)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those that have ended")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func ended(b api.Sandbox) bool { return b.State == api.StateStopped || b.State == api.StateFailed }

func psRow(b api.Sandbox, now time.Time) []string {
	state := b.State
	if b.ExitCode != nil {
		state += " (" + strconv.Itoa(*b.ExitCode) + ")"
	}
	pid := ""
	if b.PID > 0 {
		pid = strconv.Itoa(b.PID)
	}
	scope, _, _ := strings.Cut(b.Scope, "/sandbox:") // the id has its own column
	return []string{b.ID, b.Name, scope, b.Profile, state, show.Age(now.Sub(b.Created)), pid, fence(b)}
}

// maxPartName keeps a row readable; the whole name is in -o json.
const maxPartName = 32

func shortName(s string) string {
	s, _, _ = strings.Cut(s, " (")
	if len(s) > maxPartName {
		s = strings.ToValidUTF8(s[:maxPartName], "") + "..."
	}
	return s
}

// fence is the enforcement with the parts that are not up. No word from the
// daemon is no enforcement.
func fence(b api.Sandbox) string {
	word := b.Enforcement
	if word == "" {
		word = api.Unenforced
	}
	var missing []string
	for _, p := range b.Parts {
		if p.State != api.Enforced {
			missing = append(missing, shortName(p.Name))
		}
	}
	if len(missing) > 0 {
		word += " (" + strings.Join(missing, ", ") + ")"
	}
	return word
}
