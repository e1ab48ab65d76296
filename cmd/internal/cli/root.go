// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ringfence/ringfence/pkg/api"
)

// app is what every command works with.
type app struct {
	version      string // the linker's
	view         View   // of top, nil if another program has it
	in, out, err *os.File
	socket       string // --socket
	output       string // -o
}

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, version string, view View, args []string, in, out, errOut *os.File) int {
	a := &app{version: version, view: view, in: in, out: out, err: errOut}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	err = a.classify(cmd, err)
	printError(errOut, err, a.output == "json")
	return exitCode(err)
}

// classify turns the errors of cobra, which have no type, into usage errors
// with one line that says where help is.
func (a *app) classify(cmd *cobra.Command, err error) error {
	var usage *usageError
	isUsage := errors.As(err, &usage)
	for _, words := range []string{"unknown command", "required flag", "if any flags in the group", "at least one of the flags in the group"} {
		isUsage = isUsage || strings.HasPrefix(err.Error(), words)
	}
	if !isUsage {
		return err
	}
	code := exitUsage
	if cmd.Annotations[annotLaunch] != "" {
		code = exitNothingRan
	}
	msg, rest, _ := strings.Cut(err.Error(), "\n")
	if _, near, ok := strings.Cut(rest, "\t"); ok { // cobra's suggestion
		near, _, _ = strings.Cut(near, "\n")
		msg += ", did you mean " + near + "?"
	}
	return &exitError{Code: code, Err: fmt.Errorf("%s (see `%s --help`)", ownWords(cmd, msg), cmd.CommandPath())}
}

// annotLaunch marks commands of which every failure before the start of the
// program has exit code 125.
const annotLaunch = "launch"

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "ringfence",
		Short: "Run AI agents you do not trust behind a fence, and see what they tried",
		Long: "Ringfence runs programs in sandboxes whose network is closed in the kernel, whose\n" +
			"model calls go through a gateway, and whose every refused attempt is recorded.",
		Example:           "  ringfence run -- claude\n  ringfence events --follow --denied\n  ringfence allow api.github.com:443 --for 1h",
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
		Version:           versionLine(a.clientVersion()),
	}
	root.SetVersionTemplate("ringfence {{.Version}}\n")
	socket := os.Getenv(api.SocketEnv)
	if socket == "" {
		socket = api.DefaultSocket
	}
	root.PersistentFlags().StringVar(&a.socket, "socket", socket, "the daemon's socket (environment: "+api.SocketEnv+")")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddGroup(&cobra.Group{ID: "box", Title: "Sandboxes:"}, &cobra.Group{ID: "see", Title: "What happened:"},
		&cobra.Group{ID: "may", Title: "What is allowed:"}, &cobra.Group{ID: "node", Title: "The node:"})
	for _, c := range []struct {
		group string
		cmd   *cobra.Command
	}{
		{"box", a.runCommand()}, {"box", a.psCommand()}, {"box", a.execCommand()}, {"box", a.stopCommand()}, {"box", a.logsCommand()},
		{"box", a.adoptCommand()}, {"box", a.releaseCommand()},
		{"see", a.topCommand()}, {"see", a.eventsCommand()}, {"see", a.explainCommand()}, {"see", a.costCommand()}, {"see", a.auditCommand()},
		{"may", a.allowCommand()}, {"may", a.approvalsCommand()}, {"may", a.budgetsCommand()}, {"may", a.policyCommand()}, {"may", a.providerCommand()}, {"may", a.inferenceCommand()}, {"may", a.pricesCommand()},
		{"node", a.doctorCommand()}, {"node", a.versionCommand()},
	} {
		c.cmd.GroupID = c.group
		root.AddCommand(c.cmd)
	}
	return root
}

// client returns a client for the chosen socket.
func (a *app) client() *api.Client { return api.NewClient(a.socket) }

// outputFlag adds -o with the formats that a command knows; the first is the
// default.
func (a *app) outputFlag(cmd *cobra.Command, formats ...string) {
	cmd.Flags().StringVarP(&a.output, "output", "o", formats[0], "format: "+strings.Join(formats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	inner := cmd.Args
	cmd.Args = func(c *cobra.Command, list []string) error {
		if !c.Flags().Changed("output") {
			a.output = formats[0] // the field is every command's
		}
		for _, f := range formats {
			if a.output == f {
				if inner == nil {
					return nil
				}
				return inner(c, list)
			}
		}
		return &usageError{fmt.Errorf("unknown format %q for -o: %s", a.output, strings.Join(formats, ", "))}
	}
}

func (a *app) json() bool { return a.output == "json" }

// color reports whether f is a terminal that wants colours (no-color.org).
func (a *app) color(f *os.File) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

// interruptible ends the context with the first INT or TERM.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
}

// completeSandboxes offers the names and ids of sandboxes.
func (a *app) completeSandboxes(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
	defer cancel()
	list, err := a.client().Sandboxes(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, b := range list {
		if b.Name != "" {
			out = append(out, b.Name)
		}
		out = append(out, b.ID)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
