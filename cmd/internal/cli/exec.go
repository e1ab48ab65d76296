// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/cli/internal/attach"
	"github.com/ringfence/ringfence/pkg/api"
)

func (a *app) execCommand() *cobra.Command {
	var env []string
	var dir string
	var noTerminal bool
	cmd := &cobra.Command{
		Use:               "exec [flags] SANDBOX -- COMMAND [ARG...]",
		Short:             "Run one more program in a sandbox",
		Long:              "Run one more program behind the walls of a running sandbox. Exit codes are as of run.",
		Example:           "  ringfence exec web -- sh\n  ringfence exec --dir /tmp web -- ls -l",
		Args:              args(cobra.MinimumNArgs(2)),
		Annotations:       map[string]string{annotLaunch: "yes"},
		ValidArgsFunction: a.completeSandboxes,
		RunE: func(cmd *cobra.Command, argv []string) error {
			argv = append([]string(nil), argv...)
			ref, argv := argv[0], argv[1:]
			if argv[0] == "--" { // flags end at SANDBOX, so the dashes are still there
				argv = argv[1:]
			}
			if len(argv) == 0 {
				return nothingRan(usagef("no command was given"))
			}
			return nothingRan(a.exec(cmd.Context(), ref, &api.ExecRequest{Argv: argv, Dir: dir}, env, noTerminal))
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringArrayVarP(&env, "env", "e", nil, "pass K=V, or K with its value here (repeatable)")
	f.StringVar(&dir, "dir", "", "working directory inside (default: as the agent's)")
	f.BoolVarP(&noTerminal, "no-terminal", "T", false, "give it pipes even if this is a terminal")
	return cmd
}

func (a *app) exec(ctx context.Context, ref string, req *api.ExecRequest, env []string, noTerminal bool) error {
	var err error
	if req.Env, err = explicitEnv(env); err != nil {
		return err
	}
	stdio, err := attach.Open(a.in, a.out, a.err, !noTerminal)
	if err != nil {
		return err
	}
	req.Rows, req.Cols, req.TTY = stdio.TTY()
	client := a.client()
	r, err := a.attached(ctx, stdio, nil, func(ctx context.Context, files *api.Files) (*api.Launched, error) {
		return client.Exec(ctx, ref, req, files)
	})
	if err != nil {
		return err
	}
	return a.outcome(r)
}
