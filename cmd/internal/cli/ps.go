// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

func (a *app) psCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "ps",
		Short:   "List sandboxes",
		Long:    "List sandboxes. FENCE says whether every wall of the sandbox's profile is up (enforced, degraded or\nbroken), and how many are not; which ones stands below the table, and what to do in\n`ringfence doctor`. An extra layer that not every kernel has, and nothing depends on, has\na line of its own. With -o json each wall is listed with what it is or why it is not,\nand with the time at which the kernel was last asked.",
		Example: "  ringfence ps\n  ringfence ps --all -o json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.client().Sandboxes(cmd.Context())
			if err != nil {
				return err
			}
			shown := []api.Sandbox{}
			for _, b := range list {
				if all || !b.HasEnded() {
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
			if err := show.Table(a.out, []string{"ID", "NAME", "SCOPE", "PROFILE", "STATE", "AGE", "PID", "FENCE"}, rows); err != nil {
				return err
			}
			return errors.Join(printLearning(a.out, shown), printBroken(a.out, shown), printMissing(a.out, shown), printAdopted(a.out, shown), printExtras(a.out, shown))
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those that have ended")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

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

// fence is the enforcement with how many parts are not up. No word from the
// daemon is no enforcement.
func fence(b api.Sandbox) string {
	word := b.Enforcement
	if b.Adopted && b.HasEnded() {
		return "-" // its processes may go on, without one
	}
	if b.Adopted && word == api.Degraded && len(missing(b)) == 0 {
		return "network only"
	}
	if b.Learns {
		word = "LEARNING"
	}
	if word == "" {
		word = api.Unenforced
	}
	if n := len(missing(b)); n > 0 {
		word += " (" + strconv.Itoa(n) + ")"
	}
	return word
}

// missing names the parts that are not up.
func missing(b api.Sandbox) (out []string) {
	for _, p := range b.Parts {
		if p.State != api.Enforced && p.State != api.NotApplied && p.State != api.Absent {
			out = append(out, p.Name)
		}
	}
	return out
}

// printLearning names the sandboxes that rules do not close.
func printLearning(w io.Writer, list []api.Sandbox) error {
	for _, b := range list {
		if !b.Learns || b.HasEnded() {
			continue
		}
		if _, err := fmt.Fprintf(w, "\nLEARNING: %[1]s reaches what no rule speaks of (run --learn). What it needs: ringfence policy learn %[1]s; then run it without.\n", show.Text(b.ID, 64)); err != nil {
			return err
		}
	}
	return nil
}

// printBroken says which walls no longer stand, and why.
func printBroken(w io.Writer, list []api.Sandbox) error {
	for _, b := range list {
		for _, p := range b.Parts {
			if p.State != api.Broken {
				continue
			}
			if _, err := fmt.Fprintf(w, "\nBroken: %s\n", show.Text(b.ID+" "+p.Name+": "+p.Detail, 1000)); err != nil {
				return err
			}
		}
	}
	return nil
}

// printAdopted names the walls that what was adopted does not have, and says
// what is weak about the one it has: of that no doctor knows.
func printAdopted(w io.Writer, list []api.Sandbox) error {
	for _, b := range list {
		var walls []string
		for _, p := range b.Parts {
			if p.State == api.NotApplied {
				walls = append(walls, p.Name)
			}
		}
		if len(walls) == 0 {
			continue
		}
		lines := []string{"\n" + b.ID + ": " + strings.Join(walls, ", ") + ": not applied (adopted)"}
		for _, p := range b.Parts {
			switch _, more, _ := strings.Cut(p.Detail, "; "); {
			case p.State == api.Degraded, p.State == api.Unenforced:
				lines = append(lines, "  "+p.Name+": "+p.Detail)
			case p.State == api.NotApplied && more != "":
				lines = append(lines, "  "+p.Name+": "+more)
			}
		}
		for _, l := range lines {
			if _, err := fmt.Fprintln(w, l[:len(l)-len(strings.TrimLeft(l, "\n "))]+show.Text(strings.TrimLeft(l, "\n "), 1000)); err != nil {
				return err
			}
		}
	}
	return nil
}

// printExtras says of every extra layer whether it is there: nothing depends on
// one, and it is the same for most sandboxes of a daemon.
func printExtras(w io.Writer, list []api.Sandbox) error {
	said := map[string]bool{}
	for _, b := range list {
		for _, p := range b.Parts {
			if p.Name != thirdLock || said[p.State+p.Detail] || b.Adopted || b.HasEnded() {
				continue
			}
			said[p.State+p.Detail] = true
			if _, err := fmt.Fprintf(w, "\nThird lock (BPF LSM), an extra beside the walls of FENCE: %s: %s\n", p.State, show.Text(p.Detail, 300)); err != nil {
				return err
			}
		}
	}
	return nil
}

// thirdLock is the name of the part that a daemon reports for BPF LSM.
const thirdLock = "bpf_lsm"

// printMissing names what the sandboxes of the table lack: most lack the same.
func printMissing(w io.Writer, list []api.Sandbox) error {
	var order []string
	who := map[string][]string{}
	for _, b := range list {
		what := strings.Join(missing(b), ", ")
		if what == "" || b.HasEnded() || b.Adopted {
			continue
		}
		if who[what] == nil {
			order = append(order, what)
		}
		who[what] = append(who[what], b.ID)
	}
	for i, what := range order {
		if i == 0 {
			_, _ = fmt.Fprintln(w, "\nNot up (see `ringfence doctor`):")
		}
		whose := ""
		if len(order) > 1 {
			whose = strings.Join(who[what], " ") + ": "
		}
		if _, err := fmt.Fprintln(w, "  "+show.Text(whose+what, 1000)); err != nil {
			return err
		}
	}
	return nil
}
