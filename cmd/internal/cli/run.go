// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/cli/internal/attach"
	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

// runFlags are the flags of run.
type runFlags struct {
	profile, as, workspace, user, name string
	policies, env                      []string
	detach, quiet, noTerminal, learn   bool
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARG...]",
		Short: "Run a program in a sandbox",
		Long: "Run a program in a sandbox, with the current directory as its workspace. It reaches\n" +
			"its model provider and what policy allows, and nothing else.\n\n" +
			"The exit code is the program's own, or 128+signal; 127 when it was not found, 126 when\n" +
			"it cannot be executed, 125 when nothing ran: then the message says what is missing.",
		Example: "  ringfence run -- python3 agent.py\n" +
			"  ringfence run --profile coding -- claude\n" +
			"  ringfence run --policy policy.yaml --env GITHUB_TOKEN --name web -- npm test\n" +
			"  ringfence run --detach --name nightly -- ./agent.sh",
		Args:        args(cobra.MinimumNArgs(1)),
		Annotations: map[string]string{annotLaunch: "yes"},
		RunE: func(cmd *cobra.Command, argv []string) error {
			return nothingRan(a.run(cmd.Context(), f, argv))
		},
	}
	fl := cmd.Flags()
	fl.SetInterspersed(false)
	fl.StringVar(&f.profile, "profile", "default", "the walls, a NAME or a FILE: default reads the workspace, coding writes it, strict is the narrowest")
	fl.StringArrayVar(&f.policies, "policy", nil, "a policy FILE for this sandbox (repeatable)")
	fl.StringVar(&f.as, "as", "", "whom it acts for: org:X/team:Y[/agent:Z] (default org:local/team:default/agent:COMMAND)")
	fl.StringVar(&f.workspace, "workspace", "", "the directory it works in, or none (default: the current one)")
	fl.StringArrayVarP(&f.env, "env", "e", nil, "pass K=V, or K with its value here (repeatable)")
	fl.StringVar(&f.user, "user", "", "the user it runs as (root only)")
	fl.StringVar(&f.name, "name", "", "a name for ps, stop and logs")
	fl.BoolVar(&f.learn, "learn", false, "let through and record what no rule speaks of, to learn what it needs (admins only)")
	fl.BoolVarP(&f.detach, "detach", "d", false, "run in the background and print the id")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "do not list at the end what was refused and what failed")
	fl.BoolVarP(&f.noTerminal, "no-terminal", "T", false, "give it pipes even if this is a terminal")
	_ = cmd.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions([]string{"default", "coding", "strict"}, cobra.ShellCompDirectiveDefault))
	return cmd
}

func (a *app) run(ctx context.Context, f runFlags, argv []string) error {
	req, err := a.launchRequest(f, argv)
	if err != nil {
		return err
	}
	ws, real, dir, err := openWorkspace(f.workspace)
	if err != nil {
		return err
	}
	if ws != nil {
		defer ws.Close() //nolint:errcheck // O_PATH
	}
	req.WorkspacePath, req.Dir = real, dir
	client := a.client()
	start := func(ctx context.Context, files *api.Files) (*api.Launched, error) {
		l, err := client.Launch(ctx, req, files)
		if err == nil && f.learn {
			_, _ = fmt.Fprintln(a.err, "ringfence: LEARNING: TCP to public addresses that no rule speaks of is let through and recorded; what rules refuse stays refused")
		}
		return l, err
	}
	if f.detach {
		r, err := detached(ctx, ws, start)
		if err == nil && r.Failure == nil {
			_, err = fmt.Fprintln(a.out, show.Text(r.ID, 64))
			return err
		}
		if err != nil {
			return err
		}
		return a.outcome(sayWhere(r, argv[0]))
	}
	stdio, err := attach.Open(a.in, a.out, a.err, !f.noTerminal)
	if err != nil {
		return err
	}
	req.Rows, req.Cols, req.TTY = stdio.TTY()
	began := time.Now()
	r, err := a.attached(ctx, stdio, ws, start)
	if err != nil {
		return err
	}
	if r.Exit != nil {
		printFindings(a.err, r.Exit.Findings)
	}
	if !f.quiet && r.ID != "" {
		a.printRefused(ctx, r, began)
	}
	if f.learn && r.ID != "" {
		_, _ = fmt.Fprintf(a.err, "ringfence: what it reached that no rule allows: ringfence events --learned --sandbox %[1]s; as a policy: ringfence policy learn %[1]s\n", show.Text(r.ID, 64))
	}
	return a.outcome(sayWhere(r, argv[0]))
}

// launchRequest builds the request from everything but descriptors.
func (a *app) launchRequest(f runFlags, argv []string) (*api.LaunchRequest, error) {
	req := &api.LaunchRequest{Argv: argv, Environ: environ(), Name: f.name, Detach: f.detach, Learn: f.learn}
	var err error
	if req.Env, err = explicitEnv(f.env); err != nil {
		return nil, err
	}
	if req.Scope, err = principal(f.as, argv); err != nil {
		return nil, err
	}
	if req.Identity, err = identity(f.user); err != nil {
		return nil, err
	}
	req.Profile = api.Document{Name: f.profile}
	if isFileName(f.profile) {
		text, err := a.readDocument(f.profile)
		if err != nil {
			return nil, fmt.Errorf("profile: %w", err)
		}
		req.Profile = api.Document{File: f.profile, Text: string(text)}
	}
	for _, name := range f.policies {
		text, err := a.readDocument(name)
		if err != nil {
			return nil, fmt.Errorf("policy: %w", err)
		}
		req.Policies = append(req.Policies, api.Document{File: name, Text: string(text)})
	}
	return req, nil
}

// sayWhere adds where the host has a program that the sandbox has not found.
func sayWhere(r attach.Result, program string) attach.Result {
	if r.Failure == nil || r.Code != 127 || r.Failure.Remedy != "" || strings.Contains(r.Failure.Message, "interpreter") {
		return r
	}
	at, err := exec.LookPath(program)
	if err == nil {
		at, err = filepath.Abs(at)
	}
	if err != nil {
		return r
	}
	f := *r.Failure
	f.Remedy = "on the host it is " + at + ", and the sandbox does not see that: install it for the system, or copy the profile and add its directory (docs/POLICY.md, Profiles)"
	if !strings.Contains(program, "/") && (strings.HasPrefix(at, "/usr/") || strings.HasPrefix(at, "/opt/")) {
		f.Remedy = "on the host it is " + at + ", which is not in the sandbox's PATH: name it by its path"
	}
	r.Failure = &f
	return r
}
