// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/ringfence/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

func (a *app) allowCommand() *cobra.Command {
	var r api.AllowRequest
	var once, always bool
	var dur time.Duration
	cmd := &cobra.Command{
		Use:   "allow HOST:PORT",
		Short: "Allow one destination for a sandbox or a scope",
		Long: "Add one rule for a running sandbox (--sandbox; the only one there is, if neither\n" +
			"is named) or for a scope (--scope), and show it. Without --once, --for or --always\n" +
			"the rule lasts until the sandbox stops; a scope needs one of them.",
		Example: "  ringfence allow api.github.com:443\n  ringfence allow db.internal:5432 --sandbox web --for 1h\n" +
			"  ringfence allow '*.npmjs.org:443' --scope org:local/team:default/agent:claude --always",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, dest []string) error {
			r.Destination, r.For = dest[0], api.Duration(dur)
			if err := a.allowTarget(cmd.Context(), &r); err != nil {
				return err
			}
			switch {
			case once:
				r.Mode = api.AllowOnce
			case always:
				r.Mode = api.AllowAlways
			case cmd.Flags().Changed("for"):
				r.Mode = api.AllowFor
			case r.Sandbox != "":
				r.Mode = api.AllowSandbox
			default:
				return usagef("a rule for a scope needs --once, --for DURATION or --always")
			}
			res, err := a.client().Allow(cmd.Context(), r)
			if err != nil {
				return err
			}
			return a.printAllowed(res)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&once, "once", false, "the next connection only")
	f.DurationVar(&dur, "for", 0, "how long, for example 1h")
	f.BoolVar(&always, "always", false, "keep the rule across restarts")
	f.StringVar(&r.Sandbox, "sandbox", "", "the sandbox: id or name")
	f.StringVar(&r.Scope, "scope", "", "the scope, for example org:local/team:default/agent:claude")
	cmd.MarkFlagsMutuallyExclusive("once", "for", "always")
	cmd.MarkFlagsMutuallyExclusive("sandbox", "scope")
	_ = cmd.RegisterFlagCompletionFunc("sandbox", a.completeSandboxes)
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// allowTarget fills in the only running sandbox when none was named.
func (a *app) allowTarget(ctx context.Context, r *api.AllowRequest) error {
	if r.Sandbox != "" || r.Scope != "" {
		return nil
	}
	list, err := a.client().Sandboxes(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, b := range list {
		if ended(b) {
			continue
		}
		r.Sandbox = b.ID
		name := b.ID
		if b.Name != "" {
			name = b.Name
		}
		names = append(names, name)
	}
	switch len(names) {
	case 1:
		return nil
	case 0:
		return usagef("no sandbox is running: name a scope with --scope and how long with --once, --for or --always")
	}
	return usagef("%d sandboxes are running: name one with --sandbox (%s)", len(names), strings.Join(names, ", "))
}

func (a *app) printAllowed(res api.AllowResult) error {
	if a.json() {
		if err := show.JSON(a.out, res); err != nil || res.Effective {
			return err
		}
		return quiet(exitDenied)
	}
	target := res.Sandbox
	if target == "" {
		target = res.Scope
	}
	until := ""
	if res.Expires != nil {
		until = " until " + res.Expires.Local().Format(time.DateTime)
	}
	rule := strings.TrimRight(res.Rule, "\n")
	for line := range strings.SplitSeq(rule, "\n") {
		_, _ = fmt.Fprintln(a.out, show.Text(line, 1000))
	}
	_, err := fmt.Fprintf(a.out, "added to %s for %s%s, revision %d\n", show.Text(res.Document, 200), show.Text(target, 200), until, res.Revision)
	if !res.Effective {
		_, _ = fmt.Fprintf(a.err, "ringfence: the rule has no effect: %s\n", show.Text(res.Note, 500))
		return quiet(exitDenied)
	}
	return err
}
