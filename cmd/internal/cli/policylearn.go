// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/replay"
)

// learnFlags are the flags of policy learn.
type learnFlags struct {
	events, since string
	policies      []string
	port          uint16
	wildcard      bool
}

func (a *app) policyLearnCommand() *cobra.Command {
	var f learnFlags
	cmd := &cobra.Command{
		Use:   "learn [SANDBOX]",
		Short: "Write the rules that would have allowed what was refused for want of one",
		Long: "Write the smallest Policy documents that would have allowed what agents were refused because\n" +
			"no rule spoke of it, or reached all the same under `run --learn`: exact names and ports, and\n" +
			"exact requests where requests are decided.\n" +
			"Nothing is learned from what a rule refused, from addresses that are not public, and from\n" +
			"models. Read what is written before you apply it: an agent chose it.\n\n" +
			"The node's log is read, as far as you may see it, or --events. What is in force on the node,\n" +
			"or in --policy, is not written again.",
		Example:           "  ringfence policy learn web > learned.yaml\n  ringfence policy learn --since 1h --port 443 --policy ./policies --events events.jsonl",
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: a.completeOneSandbox,
		RunE: func(cmd *cobra.Command, sandbox []string) error {
			if err := toEvaluate(); err != nil {
				return err
			}
			q := api.EventQuery{Denied: true, Learned: true}
			if len(sandbox) == 1 {
				q.Sandbox = sandbox[0]
			}
			return a.learn(cmd.Context(), q, &f)
		},
	}
	cmd.Flags().StringVar(&f.events, "events", liveEvents, "event log: file of JSON lines, directory of a log, - or live")
	cmd.Flags().StringVar(&f.since, "since", "", "how far back: 10m, 2h, or a time as 2026-01-31T12:00:00Z")
	cmd.Flags().StringArrayVar(&f.policies, "policy", nil, "file, directory or pack that is in force, instead of what is on the node")
	cmd.Flags().Uint16Var(&f.port, "port", 0, "the port of names that were asked for and refused, of which none is known")
	cmd.Flags().BoolVar(&f.wildcard, "wildcard", false, "write *.x for several names with one label before x")
	return cmd
}

func (a *app) completeOneSandbox(cmd *cobra.Command, done []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(done) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeSandboxes(cmd, done, word)
}

func (a *app) learn(ctx context.Context, q api.EventQuery, f *learnFlags) error {
	var err error
	if q.Since, err = parseSince(f.since, time.Now()); err != nil {
		return err
	}
	l := &replay.Lesson{Port: f.port, Wildcard: f.wildcard}
	if l.Docs, err = a.known(ctx, f.policies); err != nil {
		return err
	}
	if err := a.pastEvents(ctx, f.events, q, l); err != nil {
		return err
	}
	rules, left, err := l.Rules()
	if err != nil {
		return err
	}
	text, err := replay.Document(rules, left, l.Beyond)
	if err != nil {
		return err
	}
	if len(rules) == 0 {
		_, _ = fmt.Fprintln(a.err, "ringfence: nothing that could be learned was refused, or let through by --learn, for want of a rule")
	}
	_, err = fmt.Fprint(a.out, text)
	return err
}

// known are the documents in force as far as the caller sees them, or those of
// files and packs.
func (a *app) known(ctx context.Context, policies []string) ([]policy.Document, error) {
	if len(policies) > 0 {
		return a.testedDocuments(policies)
	}
	v, err := a.client().Policy(ctx, "")
	if err != nil {
		return nil, err
	}
	return inForce(v)
}
