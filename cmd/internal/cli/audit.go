// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/audit"
)

func (a *app) auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Verify the event log",
		Args:  args(cobra.NoArgs),
		RunE:  func(*cobra.Command, []string) error { return usagef("name what to do: ringfence audit verify") },
	}
	cmd.AddCommand(a.auditVerifyCommand())
	return cmd
}

func (a *app) auditVerifyCommand() *cobra.Command {
	var anchor string
	cmd := &cobra.Command{
		Use:   "verify [DIR]",
		Short: "Verify the hash chain of the event log and name the first bad record",
		Long: "Verify the hash chain of the event log: that of the daemon (root, or admin of org:*), or a copy in DIR\n" +
			"without the daemon. With --anchor, a head that an earlier run printed and that was\n" +
			"kept elsewhere, a rewritten or shortened log is found too. Exit code 1 when the log\n" +
			"is not what it should be.",
		Example: "  ringfence audit verify\n  ringfence audit verify /mnt/evidence/audit --anchor 1f0e...:5123:9ab4...",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, dirs []string) error {
			rep, err := a.verify(cmd, dirs, anchor)
			if err != nil {
				return err
			}
			if a.json() {
				err = show.JSON(a.out, rep)
			} else {
				err = a.printVerified(rep)
			}
			if err == nil && !rep.OK {
				return quiet(exitGeneric)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&anchor, "anchor", "", "a head that was kept elsewhere (needs DIR)")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) verify(cmd *cobra.Command, dirs []string, anchor string) (api.AuditReport, error) {
	if len(dirs) == 0 {
		if anchor != "" {
			return api.AuditReport{}, usagef("--anchor needs the directory of the log")
		}
		return a.client().VerifyAudit(cmd.Context())
	}
	var rep audit.Report
	var err error
	if anchor == "" {
		rep, err = audit.Verify(dirs[0])
	} else {
		var head audit.Head
		if head, err = audit.ParseHead(anchor); err != nil {
			return api.AuditReport{}, usagef("--anchor: %v", err)
		}
		rep, err = audit.VerifyAgainst(dirs[0], head)
	}
	if err != nil {
		return api.AuditReport{}, err
	}
	return api.NewAuditReport(dirs[0], rep), nil
}

func (a *app) printVerified(rep api.AuditReport) error {
	text := rep.Text
	if text == "" {
		text = fmt.Sprintf("%s up to record %d", rep.State, rep.LastSeq)
	}
	for line := range strings.SplitSeq(text, "\n") {
		if _, err := fmt.Fprintln(a.out, show.Text(line, 1000)); err != nil {
			return err
		}
	}
	return nil
}
