// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/wire"
)

// Descriptors of the denial reader beside FDKeeper.
const (
	FDAudit        = 4 // netlink socket of the audit log
	FDReaderFilter = 5 // sealed system call filter
)

// ReaderOptions say how the denial reader is run.
type ReaderOptions struct {
	Binary   string
	CgroupFD *os.File
	UID, GID uint32
	Filter   *os.File
	Audit    *os.File
	// Take gets each denial, bounded and marked; it finds the sandbox by the
	// process that made the Landlock domain (Event.PID).
	Take   func(*event.Event)
	Now    func() time.Time
	Logger *slog.Logger
}

// RunReader runs the process that parses audit records of file denials, and
// starts another when it ends, until ctx is done.
func RunReader(ctx context.Context, o ReaderOptions) {
	for ctx.Err() == nil {
		if err := runReader(ctx, &o); err != nil && ctx.Err() == nil {
			o.Logger.Error("denial reader", "error", err)
		}
		sleep(ctx, time.Second)
	}
}

func runReader(ctx context.Context, o *ReaderOptions) error {
	conn, theirs, err := wire.Pair()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, o.Binary, "read-denials")
	cmd.Env, cmd.Dir, cmd.Stderr = []string{}, "/", os.Stderr
	cmd.ExtraFiles = []*os.File{theirs, o.Audit, o.Filter}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Credential: &syscall.Credential{Uid: o.UID, Gid: o.GID},
		UseCgroupFD: true, CgroupFD: int(o.CgroupFD.Fd()), Pdeathsig: syscall.SIGKILL,
	}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		conn.Close()
		return fmt.Errorf("start: %w", err)
	}
	serr := wire.NewPeer(conn, o.handle, 4).Serve(ctx)
	_ = cmd.Process.Kill() // it ends with its connection; this is for one that does not
	if err := cmd.Wait(); err != nil && serr == nil && ctx.Err() == nil {
		return err
	}
	return serr
}

// readerKinds is all that the reader may say.
var readerKinds = map[event.Kind]bool{event.KindFile: true, event.KindLoss: true}

func (o *ReaderOptions) handle(_ context.Context, t wire.Type, payload []byte, fds []*os.File) ([]byte, []*os.File, error) {
	wire.CloseAll(fds)
	d := wire.NewDecoder(payload)
	if t != wire.TypeAppend || d.U16() != 1 || d.Err() != nil {
		return nil, nil, &wire.ProtocolError{Msg: "the denial reader may only report one denial at a time"}
	}
	e, rest, err := event.DecodeWire(d.Rest())
	if err != nil {
		return nil, nil, err
	}
	if len(rest) > 0 || !readerKinds[e.Kind] {
		return nil, nil, &wire.ProtocolError{Msg: "the denial reader may only report file denials"}
	}
	e.Source, e.Layer, e.Sequence, e.ID = "kernel", "landlock", 0, ""
	if now := o.Now(); e.Time.IsZero() || e.Time.After(now) {
		e.Time = now
	}
	e.Normalise()
	o.Take(&e)
	return nil, nil, nil
}
