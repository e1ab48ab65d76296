// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/scope"
)

func (a *app) approvalsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "approvals",
		Short: "Decide what sandboxes ask people for",
		Long: "Where a rule demands approval, what a sandbox wants waits for people. These commands\n" +
			"show what waits and decide it. Root sees everything; a viewer what the sandboxes of the\n" +
			"scope ask for, and an approver decides it, where the rule names nobody else; everybody\n" +
			"sees what their own sandboxes ask for, and what a rule names them an approver of.",
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return usagef("name what to do: ringfence approvals list|show|approve|deny|watch")
		},
	}
	cmd.AddCommand(a.approvalsListCommand(), a.approvalsShowCommand(), a.approvalsApproveCommand(), a.approvalsDenyCommand(), a.approvalsWatchCommand())
	return cmd
}

var approvalHeader = []string{"ID", "STATE", "WHO", "KIND", "TARGET", "TIMES", "AGE", "NEEDS"}

func approvalRow(p *api.Approval, now time.Time) []string {
	in, _, _ := strings.Cut(p.Scope, "/sandbox:")
	return []string{p.ID, p.State, in + " " + p.Called(), p.Kind, oneLine(p.Target, p.Arguments), strconv.FormatUint(p.Count, 10), show.Age(now.Sub(p.Created)), approvalNeeds(p)}
}

// oneLine is what is asked for, with as much of the arguments as a table has
// room for.
func oneLine(target, arguments string) string {
	if arguments == "" {
		return target
	}
	return target + " " + show.Text(arguments, 60)
}

// approvalNeeds says who has to agree still, or why it is over.
func approvalNeeds(p *api.Approval) string {
	if p.State != "pending" {
		return p.Why
	}
	return p.Needs
}

func (a *app) approvalsListCommand() *cobra.Command {
	var all, drafts bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List what waits for approval, and what is approved",
		Long:    "List what waits for approval and what is approved and may be used still, newest first.\nNEEDS says who has to agree. Asked for alike it is one item: TIMES counts.\n\n--drafts lists what sandboxes were denied because no rule is about it, the last first:\nnobody was asked, and nothing waits. `approve` makes a rule of one.",
		Example: "  ringfence approvals list\n  ringfence approvals list --all -o json\n  ringfence approvals list --drafts",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if drafts {
				return a.printDrafts(cmd.Context())
			}
			list, err := a.client().Approvals(cmd.Context(), all)
			if err != nil {
				return err
			}
			if a.json() {
				return show.JSON(a.out, list)
			}
			rows := make([][]string, len(list))
			for i := range list {
				rows[i] = approvalRow(&list[i], time.Now())
			}
			return show.Table(a.out, approvalHeader, rows)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those that are over, for a week")
	cmd.Flags().BoolVar(&drafts, "drafts", false, "instead what was denied because no rule is about it, since the daemon started")
	cmd.MarkFlagsMutuallyExclusive("all", "drafts")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) approvalsShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "show ID",
		Short:             "Show everything about one request for approval",
		Example:           "  ringfence approvals show 4be21f0a97c3d518",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeApprovals,
		RunE: func(cmd *cobra.Command, ids []string) error {
			if api.IsDraft(ids[0]) {
				return a.showDraft(cmd.Context(), ids[0])
			}
			p, err := a.client().Approval(cmd.Context(), ids[0])
			if err != nil {
				return err
			}
			return a.printApproval(&p)
		},
	}
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// printApproval escapes everything: target and arguments are a sandbox's words,
// comments another person's.
func (a *app) printApproval(p *api.Approval) error {
	if a.json() {
		return show.JSON(a.out, p)
	}
	lines := [][2]string{{"approval", p.ID}, {"state", p.State}, {"why", p.Why}, {"sandbox", p.Called()}, {"scope", p.Scope},
		{"runs", p.Program}, {"workspace", p.Workspace}, {"profile", p.Profile}, {"launched by", scope.Operator(p.Launcher, "")},
		{p.Kind, p.Target}, {"arguments", p.Arguments}}
	for _, g := range p.Args {
		value := "=" + g.Text
		if !g.Kept {
			value = " (not shown)"
		}
		lines = append(lines, [2]string{"argument", g.Path + value})
	}
	lines = append(lines, [2]string{"asked for", plural(int(p.Count), "time", "times") + ", first " + stamp(p.Created)})
	if p.State == "pending" {
		lines = append(lines, [2]string{"expires", stamp(p.Expires) + ", which denies it"})
	}
	for _, d := range p.Demands {
		lacks := ""
		if d.Lacks > 0 && p.State == "pending" {
			lacks = fmt.Sprintf(" (%d lacking)", d.Lacks)
		}
		lines = append(lines, [2]string{"rule", strings.TrimSpace(d.Rule + " " + d.RuleAt)}, [2]string{"says", d.Reason}, [2]string{"needs", fmt.Sprintf("%d of %s%s", d.Quorum, d.Who, lacks)})
	}
	for _, v := range p.Votes {
		word := "denied"
		if v.Approve {
			word = "approved"
		}
		lines = append(lines, [2]string{word, strings.TrimSpace(scope.Operator(v.UID, v.Name) + " " + stamp(v.At) + "  " + strings.TrimSpace(v.Gives+"  "+v.Comment))})
	}
	if g := p.Grant; g != nil {
		until := ""
		if g.Until != nil {
			until = ", until " + stamp(*g.Until)
		}
		lines = append(lines, [2]string{"given", g.Says + until})
	}
	if p.MayVote {
		lines = append(lines, [2]string{"approve", "ringfence approvals approve " + p.ID}, [2]string{"deny", "ringfence approvals deny " + p.ID})
	}
	if p.MayLast {
		lines = append(lines, [2]string{"make it a rule", "ringfence approvals approve " + p.ID + " --persist"})
	}
	return a.printLines(lines)
}

// printLines leaves out what has nothing to say.
func (a *app) printLines(lines [][2]string) error {
	for _, l := range lines {
		if l[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(a.out, "%-14s  %s\n", show.Text(l[0], 200), show.Text(l[1], 0)); err != nil {
			return err
		}
	}
	return nil
}

func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

func (a *app) approvalsApproveCommand() *cobra.Command {
	v := api.VoteRequest{Approve: true}
	var once, sandbox bool
	var last lastFlags
	cmd := &cobra.Command{
		Use:   "approve ID",
		Short: "Approve one request, or make a rule of it or of a draft",
		Long: "Approve one request. It is for one use of what was asked for, unless --for or --sandbox\n" +
			"says otherwise: then that sandbox may use the destination, or the model, for so long,\n" +
			"whatever it sends there: not only what was asked for. A tool it may use with the same\n" +
			"arguments only; --args PATH=GLOB frees one of those that `show` lists, to be whatever\n" +
			"GLOB says (* is any text). When a rule wants several people, it is given when enough of\n" +
			"them have approved, and then the least that one of them gave.\n\n" +
			"--persist makes a destination a rule that stays, for all sandboxes of the agent, in a\n" +
			"document approved-SCOPE beside each rule that asks, or in the draft's scope. It shows\n" +
			"what would change, and changes it with --yes: a revision that `policy history` has and\n" +
			"`policy rollback` takes back. It needs policy-author in the scope of every such rule.",
		Example: "  ringfence approvals approve 4be21f0a97c3d518\n  ringfence approvals approve 4be21f0a97c3d518 --for 1h --comment 'release day'\n" +
			"  ringfence approvals approve 4be21f0a97c3d518 --args 'max_uses=*' --for 1h\n" +
			"  ringfence approvals approve 4be21f0a97c3d518 --persist\n  ringfence approvals approve draft-4be21f0a97c3 --yes",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeApprovals,
		RunE: func(cmd *cobra.Command, ids []string) error {
			switch lasting, err := last.lasting(cmd, ids[0]); {
			case err != nil:
				return err
			case lasting:
				return a.last(cmd.Context(), ids[0], v.Comment, last.yes)
			case cmd.Flags().Changed("for"):
				v.Lasts = api.ApproveFor
			case sandbox:
				v.Lasts = api.ApproveSandbox
			case once:
				v.Lasts = api.ApproveOnce
			}
			if len(v.Args) > 0 && !sandbox && v.Lasts != api.ApproveFor {
				return usagef("--args goes with --for or --sandbox: one use is for the call that was asked for")
			}
			return a.vote(cmd.Context(), ids[0], v)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&once, "once", false, "one use (the default)")
	fl.DurationVar((*time.Duration)(&v.For), "for", 0, "how long, for example 1h")
	fl.BoolVar(&sandbox, "sandbox", false, "until the sandbox ends")
	fl.StringArrayVar(&v.Args, "args", nil, "PATH=GLOB: this argument of a tool may be what GLOB says (again for more)")
	fl.StringVar(&v.Comment, "comment", "", "why, for the record")
	cmd.MarkFlagsMutuallyExclusive("once", "for", "sandbox")
	cmd.MarkFlagsMutuallyExclusive("once", "args")
	last.add(cmd)
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) approvalsDenyCommand() *cobra.Command {
	var v api.VoteRequest
	cmd := &cobra.Command{
		Use:               "deny ID",
		Short:             "Deny one request",
		Long:              "Deny one request. One denial is enough. The agent is told that people said no, not who and\nnot the comment. The same thing asked for again by the same sandbox within five minutes is\ndenied without asking.",
		Example:           "  ringfence approvals deny 4be21f0a97c3d518 --comment 'not for this job'",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeApprovals,
		RunE: func(cmd *cobra.Command, ids []string) error {
			if api.IsDraft(ids[0]) {
				return usagef("a draft was denied already, and nothing waits for it")
			}
			return a.vote(cmd.Context(), ids[0], v)
		},
	}
	cmd.Flags().StringVar(&v.Comment, "comment", "", "why, for the record")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) vote(ctx context.Context, id string, v api.VoteRequest) error {
	p, err := a.client().Vote(ctx, id, v)
	if err != nil {
		return err
	}
	if a.json() {
		return show.JSON(a.out, p)
	}
	line := p.State + " " + p.ID + ": " + p.Kind + " " + p.Target + " of " + p.Scope
	if p.Grant != nil {
		line += ", " + p.Grant.Says
	}
	if p.State == "pending" {
		line = "your approval of " + p.ID + " counts; it needs " + approvalNeeds(&p)
	}
	_, err = fmt.Fprintln(a.out, show.Text(line, 1000))
	return err
}

func (a *app) approvalsWatchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "watch",
		Short:   "Show what waits for approval as it comes",
		Long:    "Show what waits for approval and what is approved, then each that changes, one on a\nline, until interrupted. -o json is one object on each line.",
		Example: "  ringfence approvals watch",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := interruptible(cmd.Context())
			defer cancel()
			err := a.client().WatchApprovals(ctx, func(p api.Approval) error {
				if a.json() {
					return a.jsonLine(p)
				}
				return a.printWatched(&p)
			})
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) jsonLine(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "%s\n", show.SafeJSON(b))
	return err
}

func (a *app) printWatched(p *api.Approval) error {
	row := approvalRow(p, time.Now())
	_, err := fmt.Fprintf(a.out, "%s  %-10s  %s  %s  %s\n", show.Text(p.ID, 0), show.Text(p.State, 0), show.Text(row[2], 200), show.Text(p.Kind+" "+row[4], 300), show.Text(row[7], 300))
	return err
}

// completeApprovals offers the ids of what waits.
func (a *app) completeApprovals(cmd *cobra.Command, done []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
	defer cancel()
	list, err := a.client().Approvals(ctx, false)
	if err != nil || len(done) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, p := range list {
		if p.State == "pending" {
			out = append(out, p.ID+"\t"+show.Text(p.Kind+" "+p.Target, 80))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
