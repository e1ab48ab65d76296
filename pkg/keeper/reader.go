// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strings"
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
	Log    Log // for messages that no reader of ours would send
	Now    func() time.Time
	Logger *slog.Logger
}

// RunReader runs the process that parses audit records of file denials, and
// starts another when it ends, until ctx is done.
func RunReader(ctx context.Context, o ReaderOptions) {
	desk := &readerDesk{o: &o}
	for ctx.Err() == nil {
		if err := desk.run(ctx); err != nil && ctx.Err() == nil {
			o.Logger.Error("denial reader", "error", err)
		}
		sleep(ctx, time.Second)
	}
}

func (d *readerDesk) run(ctx context.Context) error {
	o := d.o
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
	serr := wire.NewPeer(conn, d.handle, 4).Serve(ctx)
	_ = cmd.Process.Kill() // it ends with its connection; this is for one that does not
	if err := cmd.Wait(); err != nil && serr == nil && ctx.Err() == nil {
		return err
	}
	return serr
}

// readerDesk takes what the reader says. The reader parses bytes that sandboxes
// choose, so it is treated as hostile: it may say what was refused to which
// process, and nothing else.
type readerDesk struct {
	o       *ReaderOptions
	hostile hostile
}

// handle is a wire.Handler. A message that no reader of ours would send is
// refused and recorded.
func (d *readerDesk) handle(ctx context.Context, t wire.Type, payload []byte, fds []*os.File) ([]byte, []*os.File, error) {
	wire.CloseAll(fds)
	e, err := d.take(t, payload)
	d.hostile.look(ctx, d.o.Log, d.o.Now(), readerName, err)
	if err != nil {
		return nil, nil, err
	}
	d.o.Take(e)
	return nil, nil, nil
}

// readerName is the source of what the reader reports.
const readerName = "denial-reader"

func (d *readerDesk) take(t wire.Type, payload []byte) (*event.Event, error) {
	dec := wire.NewDecoder(payload)
	if n := dec.U16(); t != wire.TypeAppend || n != 1 || dec.Err() != nil {
		return nil, &wire.ProtocolError{Msg: fmt.Sprintf("message %d with %d events: the denial reader may only report one denial at a time", t, n)}
	}
	said, rest, err := event.DecodeWire(dec.Rest())
	if err != nil {
		return nil, &wire.ProtocolError{Msg: err.Error()}
	}
	copied := readerKinds[said.Kind]
	if copied == nil || len(rest) > 0 {
		return nil, &wire.ProtocolError{Msg: fmt.Sprintf("the denial reader may not report an event of kind %s with %d bytes behind it", said.Kind, len(rest))}
	}
	e, err := copied(&said)
	if err != nil {
		return nil, err
	}
	e.Kind, e.Source = said.Kind, readerName
	e.Time = said.Time
	if now := d.o.Now(); e.Time.IsZero() || e.Time.After(now) {
		e.Time = now
	}
	e.Normalise()
	return e, nil
}

// readerKinds is all that the reader may report: each entry copies what is the
// reader's to say; the rest is the keeper's.
var readerKinds = map[event.Kind]func(*event.Event) (*event.Event, error){
	event.KindFile:         fileDenial,
	event.KindSyscall:      reachDenial,
	event.KindKernelDenial: networkDenial,
	event.KindLoss:         readerLoss,
}

// denial is what every kind of Landlock denial has.
func denial(said *event.Event) (*event.Event, error) {
	if said.Activity == "" || strings.Trim(said.Activity, "abcdefghijklmnopqrstuvwxyz0123456789_.,") != "" {
		return nil, &wire.ProtocolError{Msg: "a denial without the names of what blocked it"}
	}
	return &event.Event{Verdict: event.Denied, Layer: "landlock", ReasonCode: "landlock", Activity: said.Activity,
		Count: said.Count, PID: said.PID, Exe: said.Exe, Comm: said.Comm, Truncated: said.Truncated}, nil
}

func fileDenial(said *event.Event) (*event.Event, error) {
	e, err := denial(said)
	if err != nil {
		return nil, err
	}
	e.Path, e.Reason = said.Path, "the file rules of the profile do not allow it"
	return e, nil
}

// reachDenial is a signal, a trace or an abstract socket.
func reachDenial(said *event.Event) (*event.Event, error) {
	e, err := denial(said)
	if err != nil {
		return nil, err
	}
	e.Object, _, _ = strings.Cut(said.Activity, ",")
	e.Reason = "it would reach a process or socket outside the sandbox"
	return e, nil
}

func networkDenial(said *event.Event) (*event.Event, error) {
	e, err := denial(said)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(said.DstAddr); err != nil && said.DstAddr != "" {
		return nil, &wire.ProtocolError{Msg: "a denial of an address that is none"}
	}
	e.Proto, e.DstAddr, e.DstPort = "tcp", said.DstAddr, said.DstPort
	e.Reason = "the network rules of the profile do not allow it"
	return e, nil
}

// readerLosses are the ways to lose a denial before the keeper has it.
var readerLosses = map[string]string{
	LossOverrun: "the kernel dropped audit records of file denials (the number of overruns is counted, not of records)",
	LossUnsent:  "file denials could not be handed over in time",
	LossBroken:  "audit records of file denials could not be parsed",
}

// Activities of the reader's loss records.
const (
	LossOverrun = "audit-overrun"
	LossUnsent  = "unsent"
	LossBroken  = "malformed"
)

func readerLoss(said *event.Event) (*event.Event, error) {
	why, ok := readerLosses[said.Activity]
	if !ok {
		return nil, &wire.ProtocolError{Msg: "a loss of no known kind"}
	}
	return &event.Event{Verdict: event.Observed, Layer: "landlock", Activity: said.Activity, Lost: said.Lost, Reason: why}, nil
}
