// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

// Run serves until ctx ends. With stopSandboxes (or when there are none) it
// then removes everything; otherwise sandboxes and the gateway live on behind
// their pinned programs for the next daemon to take over.
func (d *Daemon) Run(ctx context.Context, stopSandboxes func() bool) error {
	work, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	d.daemonEvent("start", "ringfenced "+d.version)
	gwDone := make(chan struct{})
	gctx, stopGateway := context.WithCancel(context.Background())
	go func() { defer close(gwDone); _ = d.gateway.Run(gctx, d.gateway.Reconnect()) }() // it returns nil only
	d.startReading()
	wg.Go(func() { d.settle(work) })
	wg.Go(func() {
		select {
		case <-d.taken: // records of what a former daemon left belong to somebody from here on
			d.readRecords(work)
		case <-work.Done():
		}
	})
	wg.Go(func() {
		select {
		case <-d.settled: // what a former layout counted is told by then
			wg.Go(func() { d.noteTaken(work) })
			d.tellLosses(work)
		case <-work.Done():
		}
	})
	wg.Go(func() {
		select {
		case <-d.settled: // of which sandboxes live nothing is known before
			d.approvals.Run(work, func(err error) { d.logger.Error("approvals", "error", err) })
		case <-work.Done():
		}
	})
	d.sayRefusals()
	d.sayDestroy()
	wg.Go(func() { d.repeats.run(work) })
	wg.Go(func() { d.sweepBudgets(work) })
	wg.Go(func() { d.enforce(work) })
	wg.Go(func() { d.endRevoked(work) })
	wg.Go(func() { d.watchNode(work) })
	wg.Go(func() { d.attest(work) })
	wg.Go(func() { d.attestNode(work) })
	wg.Go(func() { d.sumUpCosts(work) })
	d.sendWebhooks(work, &wg)
	restoreAudit := d.readDenials(work, &wg)
	defer restoreAudit()
	wg.Go(func() {
		if err := d.library.Watch(work); err != nil {
			d.logger.Error("the policy directory is not watched; changes there need a restart", "error", err)
		}
	})
	err := d.serve(ctx)
	d.sandboxes.Close()
	stop := d.removes(stopSandboxes())
	if n := d.sandboxes.Keeps(); stop && n > 0 {
		d.daemonEvent("release", fmt.Sprintf("what was adopted and could not be taken over goes on without a fence: %d cgroups", n))
	}
	if stop {
		if serr := d.sandboxes.StopAll(2 * time.Second); serr != nil {
			err, stop = errors.Join(err, serr), false // their fences must stay
		}
	}
	d.daemonEvent("stop", "ringfenced "+d.version)
	stopGateway()
	<-gwDone
	if stop {
		d.gateway.Kill()
		d.endBudgets()
	}
	time.Sleep(20 * time.Millisecond) // last records of the kernel's rings
	cancel()
	wg.Wait()
	d.repeats.flush(time.Now(), "") // what the readers still took
	if isClosed(d.settled) {        // else the notes are of another daemon still
		d.lastTaken()
	}
	if stop {
		err = errors.Join(err, d.remove())
	}
	d.close()
	return err
}

// serve opens the operator API, once the gateway is there and nothing of a
// former daemon is in the kernel but what was taken over, and serves it.
func (d *Daemon) serve(ctx context.Context) error {
	if err := d.awaitGateway(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	srv, err := api.NewServer(api.Options{Backend: &backend{d}, Logger: d.logger, OperatorGID: d.operators, Audit: d.recordOperator})
	if err != nil {
		return err
	}
	l, err := d.listenAPI()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	d.sandboxes.Spare()
	d.notify("READY=1")
	if c := checkOpenFiles(sandbox.Room()); !c.OK {
		d.logger.Warn("the limit of open files is small", "have", c.Have, "need", c.Need, "remedy", c.Remedy)
	}
	d.logger.Info("ready", "socket", d.cfg.Socket, "policy", d.cfg.PolicyDir, "state", d.cfg.StateDir)
	select {
	case <-ctx.Done():
	case err = <-done:
	}
	d.notify("STOPPING=1")
	sctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	cerr := srv.Close(sctx)
	if errors.Is(cerr, context.DeadlineExceeded) { // a caller can draw out the closing of what it passed
		d.logger.Warn("a request of the API did not end in time")
		cerr = nil
	}
	return errors.Join(err, cerr)
}

// startPatience is for a gateway that starts and takes over what there is; it is
// less than what the unit's TimeoutStartSec= allows.
const startPatience = 90 * time.Second

func (d *Daemon) awaitGateway(ctx context.Context) error {
	deadline := time.NewTimer(startPatience)
	defer deadline.Stop()
	for !d.gateway.Ready() || !isClosed(d.settled) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			if !isClosed(d.taken) || d.gateway.Ready() {
				return fmt.Errorf("what the daemon before this one left was not taken over within %s; it goes on behind its fence, and the messages above say why: start again", startPatience)
			}
			return fmt.Errorf("the gateway did not become ready within %s; its own messages above say why", startPatience)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

func (d *Daemon) listenAPI() (*net.UnixListener, error) {
	if err := os.Remove(d.cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(d.cfg.Socket), 0o711); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.cfg.Socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	mode, gid := os.FileMode(0o600), d.operators
	if gid > 0 {
		mode = 0o660
		if err := os.Chown(d.cfg.Socket, 0, gid); err != nil {
			return nil, fmt.Errorf("socket: %w", err)
		}
	}
	if err := os.Chmod(d.cfg.Socket, mode); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	return l, nil
}

// notify tells systemd, if it runs us (sd_notify(3)).
func (d *Daemon) notify(state string) {
	addr := os.Getenv("NOTIFY_SOCKET")
	if addr == "" {
		return
	}
	c, err := net.Dial("unixgram", addr)
	if err != nil {
		d.logger.Warn("sd_notify", "error", err)
		return
	}
	defer c.Close()
	if _, err := c.Write([]byte(state)); err != nil {
		d.logger.Warn("sd_notify", "error", err)
	}
}

// readRecords turns the kernel's records into events.
func (d *Daemon) readRecords(ctx context.Context) {
	if err := d.fence.Records(ctx, d.take); err != nil {
		d.logger.Error("kernel records are no longer read; enforcement goes on", "error", err)
		d.append(&event.Event{Kind: event.KindLoss, Time: time.Now().UTC(), Source: "keeper", Activity: "reader",
			Reason: "the reader of kernel records failed: " + err.Error(), Severity: event.SeverityHigh, Version: d.version})
	}
}

// daemonEvent records the life of the daemon and its gateway.
func (d *Daemon) daemonEvent(what, detail string) {
	d.append(&event.Event{Kind: event.KindDaemon, Time: time.Now().UTC(), Source: "keeper", Verdict: event.Observed,
		Activity: what, Object: "ringfenced", Detail: detail, Reason: detail, Version: d.version})
}

// append makes an event durable; a log that refuses is told to the logger.
func (d *Daemon) append(e *event.Event) {
	if err := d.appendErr(e); err != nil {
		d.logger.Error("event not recorded", "kind", e.Kind.String(), "error", err)
	}
}

// appendErr returns nil when the event is durable.
func (d *Daemon) appendErr(e *event.Event) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := d.log.Append(ctx, e)
	return err
}

// holderPatience is how long the holders of output may take to write the last
// of it.
const holderPatience = 3 * time.Second

// remove takes away everything that would outlive the daemon.
func (d *Daemon) remove() error {
	var errs []error
	gateway := filepath.Join(d.cgroupBase, "gateway")
	errs = append(errs, sandbox.EmptyCgroup(gateway, holderPatience)) // what keeps output ends with its sandbox
	errs = append(errs, d.foreign.remove())
	errs = append(errs, d.gwFence.Detach(), d.fence.DropPolicy(gatewayTableA, gatewayTableB))
	errs = append(errs, sandbox.RemoveCgroup(gateway), sandbox.RemoveCgroup(d.cgroupBase))
	errs = append(errs, d.fence.Remove())
	d.fence = nil
	for _, p := range []string{d.cfg.Socket, filepath.Join(d.cfg.RunDir, "metrics.sock")} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, name := range []string{"gateway", "sandboxes", "bpf", lossFile, takenFile, "lock"} {
		errs = append(errs, os.RemoveAll(filepath.Join(d.cfg.RunDir, name)))
	}
	if err := os.Remove(d.cfg.RunDir); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EBUSY) {
		errs = append(errs, err) // somebody else's files, or a mount of systemd's, stay
	}
	return errors.Join(errs...)
}

// close gives up descriptors; pins stay unless remove was called.
func (d *Daemon) close() {
	if d.foreign != nil {
		d.foreign.close()
	}
	if d.fence != nil {
		if err := d.fence.Close(); err != nil {
			d.logger.Warn("close", "error", err)
		}
	}
	if d.log != nil {
		if err := d.log.Close(); err != nil {
			d.logger.Error("close the event log", "error", err)
		}
	}
	if d.store != nil {
		if err := d.store.Close(); err != nil {
			d.logger.Error("close the store", "error", err)
		}
	}
	if d.budgets != nil {
		d.budgets.close()
	}
	for _, f := range []*os.File{d.initFile, d.filter, d.gwCgroup, d.runLock} {
		if f != nil {
			f.Close()
		}
	}
}
