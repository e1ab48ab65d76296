// SPDX-License-Identifier: Apache-2.0

// Command ringfenced is the node agent. Run as it stands it is the keeper:
// root, without a network, owner of the kernel state. With `gateway` it is the
// unprivileged process that the keeper starts to meet the bytes of sandboxes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/pkg/daemon"
	"github.com/ringfence/ringfence/pkg/denialreader"
	"github.com/ringfence/ringfence/pkg/gatewayd"
	_ "github.com/ringfence/ringfence/pkg/policy/celexpr"
	"github.com/ringfence/ringfence/pkg/webhook"
)

// version is set by the linker.
var version = "dev"

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	var level slog.LevelVar // info
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: &level}))
	var err error
	switch {
	case len(args) == 1 && args[0] == "gateway":
		err = gateway(log.With("process", "gateway"))
	case len(args) == 1 && args[0] == "read-denials":
		err = denialreader.Main(context.Background(), log.With("process", "denial-reader"))
	case len(args) == 1 && args[0] == webhook.Command:
		err = webhook.Main(context.Background(), log.With("process", "webhooks"))
	case len(args) == 1 && args[0] == "open-listeners":
		err = daemon.OpenListeners(context.Background())
	default:
		err = keeper(args, log, &level)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, new(usageError)), daemon.IsOtherVersion(err): // trying again mends neither
		fmt.Fprintln(os.Stderr, "ringfenced:", err)
		return 2
	}
	fmt.Fprintln(os.Stderr, "ringfenced:", err)
	return 1
}

type usageError struct{ error }

// gateway ends with its keeper's word, not with signals of a terminal.
func gateway(log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	return gatewayd.Main(ctx, version, log)
}

func keeper(args []string, log *slog.Logger, level *slog.LevelVar) error {
	fs := flag.NewFlagSet("ringfenced", flag.ContinueOnError)
	var (
		file      = fs.String("config", "", "configuration `FILE`")
		runDir    = fs.String("run-dir", "", "`DIR` of sockets and running sandboxes")
		stateDir  = fs.String("state-dir", "", "`DIR` of the event log, secrets and documents of the API")
		policyDir = fs.String("policy-dir", "", "`DIR` of policy documents, watched")
		socket    = fs.String("socket", "", "`PATH` of the operator API")
		show      = fs.Bool("version", false, "print the version")
	)
	fs.TextVar(level, "log-level", level, "`LEVEL` of the daemon's own messages: debug, info, warn or error")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return usageError{err}
	}
	if fs.NArg() > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", fs.Arg(0))}
	}
	if *show {
		fmt.Println("ringfenced", version)
		return nil
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cfg := daemon.Default()
	if *file != "" {
		if err := cfg.ReadConfig(*file); err != nil {
			return usageError{err}
		}
	}
	for _, o := range []struct{ flag, field *string }{{runDir, &cfg.RunDir}, {stateDir, &cfg.StateDir}, {policyDir, &cfg.PolicyDir}, {socket, &cfg.Socket}} {
		if *o.flag != "" {
			*o.field = *o.flag
		}
	}
	if err := cfg.Complete(exe); err != nil {
		return usageError{err}
	}
	return serve(func() (*daemon.Daemon, error) { return daemon.New(cfg, version, log) })
}

// serve runs until SIGINT, which stops every sandbox too, or SIGTERM, which
// leaves running sandboxes to the next daemon. A later one of either ends it at
// once.
func serve(open func() (*daemon.Daemon, error)) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var stopSandboxes atomic.Bool
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	signal.Ignore(syscall.SIGHUP)
	go obey(signals, &stopSandboxes, cancel, func() { os.Exit(1) }, patience)
	d, err := open()
	if err != nil {
		return err
	}
	return d.Run(ctx, stopSandboxes.Load)
}

// patience is how long after the first signal another one is part of it: a
// terminal, `timeout` or a supervisor often sends two.
const patience = 3 * time.Second

// obey stops in order at the first signal, and at once at one that comes after
// patience: whoever asks again then does not want to wait. Sandboxes stay
// behind their pinned programs in that case.
func obey(signals <-chan os.Signal, stopSandboxes *atomic.Bool, stop, die func(), patience time.Duration) {
	if s := <-signals; s == syscall.SIGINT {
		stopSandboxes.Store(true)
	}
	stop()
	for began := time.Now(); ; {
		if <-signals; time.Since(began) >= patience {
			break
		}
	}
	die()
}
