// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/pkg/harden"
	"github.com/ringfence/ringfence/pkg/wire"
)

// Command is the argument of ringfenced that runs Main.
const Command = "send-webhooks"

// Descriptors that the sender inherits.
const (
	fdKeeper = 3
	fdFilter = 4
	fdTarget = 5 // a sealed Target
)

// Main is the process that sends. It ends with the keeper.
func Main(ctx context.Context, log *slog.Logger) error {
	conn, err := wire.FromFile(os.NewFile(fdKeeper, "keeper"))
	if err != nil {
		return fmt.Errorf("this is started by ringfenced, not by hand: %w", err)
	}
	if _, err := harden.Process(os.NewFile(fdFilter, "filter"), harden.Network(), log); err != nil {
		return fmt.Errorf("the sender of webhooks could not confine itself: %w", err)
	}
	p, err := readTarget(os.NewFile(fdTarget, "target"))
	if err != nil {
		return err
	}
	return wire.NewPeer(conn, p.handle, 1).Serve(ctx)
}

func readTarget(f *os.File) (*poster, error) {
	b, err := wire.ReadSealed(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	var t Target
	if err := json.Unmarshal(b, &t); err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	if err := t.Valid(); err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("system roots: %w", err)
	}
	if len(t.RootCAs) > 0 && !roots.AppendCertsFromPEM(t.RootCAs) {
		return nil, errors.New("webhook.rootCAs holds no certificate")
	}
	return newPoster(&t, roots, time.Now), nil
}

// handle is a wire.Handler.
func (p *poster) handle(ctx context.Context, t wire.Type, payload []byte, fds []*os.File) ([]byte, []*os.File, error) {
	wire.CloseAll(fds)
	var d wire.Webhook
	if t != wire.TypeWebhook {
		return nil, nil, &wire.ProtocolError{Msg: fmt.Sprintf("the sender of webhooks does not know message %d", t)}
	}
	if err := d.Decode(payload); err != nil {
		return nil, nil, err
	}
	r := p.post(ctx, d.ID, d.Body)
	return wire.WebhookReply{Outcome: uint8(r.Outcome), Status: r.Status}.Encode(), nil, nil
}

// Process says how the sender is run.
type Process struct {
	Binary   string
	UID, GID uint32
	Filter   *os.File // sealed system call filter
	Target   *Target
	Logger   *slog.Logger
	// Pause waits before another is started; false: ctx has ended. nil: time passes.
	Pause func(ctx context.Context, d time.Duration) bool

	down atomic.Bool
}

// Down says whether the sender has ended and the next is not started yet.
func (p *Process) Down() bool { return p.down.Load() }

// Run runs the sender, and another when it ends, until ctx is done: after a pause
// that grows while none of them lasts. use gets the way to send for as long as one
// lives.
func (p *Process) Run(ctx context.Context, use func(ctx context.Context, post func(context.Context, *Delivery) Result)) {
	if p.Pause == nil {
		p.Pause = pause
	}
	for wait := firstPause; ; wait = min(2*wait, maxPause) {
		began := time.Now()
		err := p.once(ctx, use)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) >= maxPause {
			wait = firstPause
		}
		p.Logger.Error("the sender of webhooks has ended; another is started", "after", wait, "error", err)
		p.down.Store(true)
		if !p.Pause(ctx, wait) {
			return
		}
		p.down.Store(false)
	}
}

func (p *Process) once(ctx context.Context, use func(context.Context, func(context.Context, *Delivery) Result)) error {
	b, err := json.Marshal(p.Target)
	if err != nil {
		return err
	}
	target, err := wire.Seal("webhook", b)
	if err != nil {
		return err
	}
	defer target.Close()
	conn, theirs, err := wire.Pair()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, p.Binary, Command)
	cmd.Env, cmd.Dir, cmd.Stderr = []string{}, "/", os.Stderr
	cmd.ExtraFiles = []*os.File{theirs, p.Filter, target}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: p.UID, Gid: p.GID}, Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("start: %w", err)
	}
	peer := wire.NewPeer(conn, nothingAsked, 1)
	ctx, cancel := context.WithCancel(ctx)
	used := make(chan struct{})
	go func() {
		defer close(used)
		use(ctx, func(ctx context.Context, d *Delivery) Result { return call(ctx, peer, d) })
	}()
	serr := peer.Serve(ctx)
	cancel()
	<-used
	_ = cmd.Process.Kill() // it ends with its connection; this is for one that does not
	if err := cmd.Wait(); err != nil && serr == nil {
		return err
	}
	return serr
}

// nothingAsked: the sender asks the keeper for nothing.
func nothingAsked(_ context.Context, _ wire.Type, _ []byte, fds []*os.File) ([]byte, []*os.File, error) {
	wire.CloseAll(fds)
	return nil, nil, errors.New("the sender of webhooks may ask for nothing")
}

// call has the sender make one attempt. It bounds its own time: one that does not
// answer is not waited for.
func call(ctx context.Context, peer *wire.Peer, d *Delivery) Result {
	ctx, cancel := context.WithTimeout(ctx, MaxTimeout+5*time.Second)
	defer cancel()
	b, err := wire.Webhook{ID: d.ID, Body: d.Body}.Encode()
	if err != nil {
		return Result{Outcome: Rejected}
	}
	b, _, err = peer.Call(ctx, wire.TypeWebhook, b)
	var r wire.WebhookReply
	if err != nil || r.Decode(b) != nil {
		return Result{}
	}
	return Result{Outcome(r.Outcome), r.Status}
}
