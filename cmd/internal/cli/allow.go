// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// allowFlags say how long a rule lasts, or that it ends now.
type allowFlags struct {
	once, always, remove bool
	dur                  time.Duration
	durSet               bool
}

func (a *app) allowCommand() *cobra.Command {
	var r api.AllowRequest
	var f allowFlags
	cmd := &cobra.Command{
		Use:   "allow HOST:PORT",
		Short: "Allow one destination for a sandbox or a scope, or take that back",
		Long: "Add one rule for a running sandbox (--sandbox; the only one there is, if neither\n" +
			"is named) or for a scope (--scope), and show it. Without --once, --for or --always\n" +
			"the rule lasts until the sandbox stops; a scope needs one of them. HOST:PORT is\n" +
			"for TCP, HOST:PORT/udp for UDP. A name whose addresses are private or special needs\n" +
			"--resolves-to too (root, or the role policy-author).\n\n" +
			"--remove takes back what this command gave to exactly that sandbox or scope, and\n" +
			"nothing else; with --always only the rule that is kept.",
		Example: "  ringfence allow api.github.com:443\n  ringfence allow db.internal:5432 --sandbox web --for 1h\n" +
			"  ringfence allow warehouse.internal:5432 --resolves-to 10.20.0.0/16 --scope org:local --always\n" +
			"  ringfence allow ntp.example.org:123/udp --sandbox web\n" +
			"  ringfence allow '*.npmjs.org:443' --scope org:local/team:default/agent:claude --always\n" +
			"  ringfence allow --remove '*.npmjs.org:443' --scope org:local/team:default/agent:claude --always",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, dest []string) error {
			r.Destination, r.For = dest[0], api.Duration(f.dur)
			f.durSet = cmd.Flags().Changed("for")
			if err := checkAllow(&r); err != nil {
				return err
			}
			if err := a.allowTarget(cmd.Context(), &r, f.remove); err != nil {
				return err
			}
			if f.remove {
				return a.takeBack(cmd.Context(), r, f)
			}
			return a.allow(cmd.Context(), r, f)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.once, "once", false, "the next connection only, if it comes within ten minutes")
	fl.DurationVar(&f.dur, "for", 0, "how long, for example 1h")
	fl.BoolVar(&f.always, "always", false, "keep the rule across restarts")
	fl.BoolVar(&f.remove, "remove", false, "take the rule back")
	fl.StringSliceVar(&r.ResolvesTo, "resolves-to", nil, "addresses or prefixes that the name may have although they are private or special, for example 10.20.0.0/16")
	fl.StringVar(&r.Sandbox, "sandbox", "", "the sandbox: id or name")
	fl.StringVar(&r.Scope, "scope", "", "the scope, for example org:local/team:default/agent:claude")
	cmd.MarkFlagsMutuallyExclusive("once", "for", "always")
	cmd.MarkFlagsMutuallyExclusive("remove", "once")
	cmd.MarkFlagsMutuallyExclusive("remove", "for")
	cmd.MarkFlagsMutuallyExclusive("sandbox", "scope")
	cmd.MarkFlagsMutuallyExclusive("remove", "resolves-to")
	_ = cmd.RegisterFlagCompletionFunc("sandbox", a.completeSandboxes)
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) allow(ctx context.Context, r api.AllowRequest, f allowFlags) error {
	switch {
	case f.once:
		r.Mode = api.AllowOnce
	case f.always:
		r.Mode = api.AllowAlways
	case f.durSet:
		r.Mode = api.AllowFor
	case r.Sandbox != "":
		r.Mode = api.AllowSandbox
	default:
		return usagef("a rule for a scope needs --once, --for DURATION or --always")
	}
	res, err := a.client().Allow(ctx, r)
	if err != nil {
		return err
	}
	return a.printAllowed(res)
}

func (a *app) takeBack(ctx context.Context, r api.AllowRequest, f allowFlags) error {
	if f.always {
		if r.Scope == "" {
			return usagef("--always rules are for a scope: name it with --scope")
		}
		r.Mode = api.AllowAlways
	}
	res, err := a.client().TakeBack(ctx, r)
	if err != nil {
		return err
	}
	return a.printTakenBack(res)
}

// checkAllow finds what is wrong before the daemon is asked anything.
func checkAllow(r *api.AllowRequest) error {
	destination, _ := policy.CutProto(r.Destination)
	host, port, err := net.SplitHostPort(destination)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 {
		if err != nil {
			host = destination
		}
		if u, err := url.Parse(r.Destination); err == nil && u.Host != "" {
			host = u.Hostname()
		}
		if t, err := policy.ParseTarget(host); err != nil || t.Port != 0 || strings.Contains(host, ":") {
			host = "example.com"
		}
		return usagef("the destination %q is not HOST:PORT, for example %s:443, or HOST:PORT/udp", r.Destination, host)
	}
	if r.Scope != "" {
		if _, err := scope.ParseSelector(r.Scope); err != nil {
			return scopeError(r.Scope, err)
		}
	}
	return nil
}

// allowTarget fills in the only running sandbox when none was named.
func (a *app) allowTarget(ctx context.Context, r *api.AllowRequest, remove bool) error {
	if r.Sandbox != "" || r.Scope != "" {
		return nil
	}
	list, err := a.client().Sandboxes(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, b := range list {
		if b.HasEnded() {
			continue
		}
		r.Sandbox = b.ID
		name := b.ID
		if b.Name != "" {
			name = b.Name
		}
		names = append(names, name)
	}
	switch {
	case len(names) == 1:
		return nil
	case len(names) == 0 && remove:
		return usagef("no sandbox is running, and the rules of one end with it: name a scope with --scope for a rule that is kept")
	case len(names) == 0:
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
	if !res.Effective {
		_, _ = fmt.Fprintf(a.err, "ringfence: the rule has no effect and was not added: %s\n", show.Text(res.Note, 500))
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
	return err
}

func (a *app) printTakenBack(res api.TakenBack) error {
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
	var err error
	for _, g := range res.Rules {
		_, err = fmt.Fprintf(a.out, "removed %s (%s, %s) from %s, revision %d\n", show.Text(g.Document, 200), show.Text(g.Destination, 300),
			api.Lasts(g.Mode), show.Text(target, 200), res.Revision)
	}
	if !res.Effective {
		_, _ = fmt.Fprintf(a.err, "ringfence: it is still allowed: %s\n", show.Text(res.Note, 500))
		return quiet(exitDenied)
	}
	return err
}
