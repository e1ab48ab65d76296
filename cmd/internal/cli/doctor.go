// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

// doctorAnswer is what doctor prints as JSON.
type doctorAnswer struct {
	api.DoctorReport
	Node api.Status `json:"node"`
}

func (a *app) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Probe what this node can enforce, with a remedy for each gap",
		Long:  "Probe what this node can enforce. Every feature is really tried by the daemon. Exit\ncode 7 when something that is needed is missing or a part of the node is degraded.",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			rep, err := a.client().Doctor(cmd.Context())
			if err != nil {
				return err
			}
			st, err := a.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if a.json() {
				err = show.JSON(a.out, doctorAnswer{rep, st})
			} else {
				err = a.printDoctor(rep, st)
			}
			if err == nil && (!rep.OK || st.State != api.Enforced) {
				return quiet(exitDegraded)
			}
			return err
		},
	}
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) printDoctor(rep api.DoctorReport, st api.Status) error {
	var rows [][]string
	var remedies []string
	add := func(name, state, detail, remedy string) {
		rows = append(rows, []string{name, state, detail})
		if remedy != "" && state != "ok" && state != api.Enforced {
			remedies = append(remedies, name+": "+remedy)
		}
	}
	for _, c := range rep.Checks {
		add(c.Name, checkState(c), checkDetail(c), c.Remedy)
	}
	for _, p := range st.Parts {
		add(p.Name, p.State, p.Detail, p.Remedy)
	}
	if err := show.Table(a.out, []string{"CHECK", "STATE", "DETAIL"}, rows); err != nil {
		return err
	}
	for i, r := range remedies {
		if i == 0 {
			_, _ = fmt.Fprintln(a.out, "\nWhat to do:")
		}
		_, _ = fmt.Fprintln(a.out, "  "+show.Text(r, 500))
	}
	return nil
}

func checkState(c api.Check) string {
	switch {
	case c.OK:
		return "ok"
	case c.State != "":
		return c.State
	case c.Optional:
		return "absent"
	}
	return "MISSING"
}

func checkDetail(c api.Check) string {
	s := c.Detail
	if c.Have != "" {
		s = join(s, "have "+c.Have)
	}
	if c.Need != "" && !c.OK {
		s = join(s, "need "+c.Need)
	}
	return s
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}
