// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/wire"
)

// Descriptors of a gateway process, after stdin, stdout and stderr.
const (
	FDKeeper    = 3 // connected SEQPACKET socket to the keeper
	FDReconnect = 4 // listening SEQPACKET socket: a restarted keeper connects here
	FDMetrics   = 5 // listening stream socket for /metrics
	FDSeccomp   = 6 // sealed file with the gateway's own system call filter
)

// GatewayOptions say how the gateway process is run.
type GatewayOptions struct {
	Binary   string   // path of ringfenced
	Dir      string   // root-only directory for its socket and pid
	CgroupFD *os.File // its cgroup, where its connect programs are attached
	UID, GID uint32
	Filter   *os.File                 // sealed seccomp filter
	Metrics  func() (*os.File, error) // opens the listening socket of a new process
	Config   any                      // marshalled to JSON for the gateway
	Outlive  time.Duration            // how long one of another build may go on while it has connections
	Handler  wire.Handler             // Desk.Handle
	// Takeover takes what only a gateway of a former keeper holds, before it is
	// replaced.
	Takeover func(ctx context.Context, p *wire.Peer) error
	// Feed hands a new connection everything the gateway must know, before it
	// counts as ready.
	Feed func(ctx context.Context, p *wire.Peer) error
	// Ready is called when a connection was fed and counts as ready: what
	// changed since Feed looked must be told again.
	Ready  func()
	Logger *slog.Logger
	// Changed reports starts and ends, for the event log.
	Changed func(what, detail string)
}

// Gateway owns the gateway process and the connection to it.
type Gateway struct {
	o GatewayOptions

	health health

	state      chan gatewayState // one element: the current connection
	unconfined []string          // changed only while state is taken
	other      time.Time         // likewise: when the present one, of another build, goes at the latest; zero for this build
}

type gatewayState struct {
	peer  *wire.Peer
	ready chan struct{} // closed when peer is fed; replaced on each loss
}

// NewGateway prepares; Run starts.
func NewGateway(o GatewayOptions) *Gateway {
	g := &Gateway{o: o, health: usualHealth, state: make(chan gatewayState, 1)}
	g.state <- gatewayState{ready: make(chan struct{})}
	return g
}

// Call sends one message to the gateway, waiting for it to be ready.
func (g *Gateway) Call(ctx context.Context, t wire.Type, payload []byte, fds ...*os.File) ([]byte, []*os.File, error) {
	for {
		s := <-g.state
		g.state <- s
		select {
		case <-s.ready:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("the gateway is not running: %w", ctx.Err())
		}
		s = <-g.state
		g.state <- s
		if s.peer == nil {
			continue
		}
		return s.peer.Call(ctx, t, payload, fds...)
	}
}

// Ready says whether a fed gateway is connected.
func (g *Gateway) Ready() bool {
	s := <-g.state
	g.state <- s
	select {
	case <-s.ready:
		return s.peer != nil
	default:
		return false
	}
}

// Run takes over a running gateway or starts one, and starts another whenever it
// ends, until ctx is done. The process itself lives on then; see Kill.
func (g *Gateway) Run(ctx context.Context, former *wire.Conn) error {
	conn, wait := former, func() {}
	backoff := 20 * time.Millisecond
	for ctx.Err() == nil {
		if conn == nil {
			var err error
			if conn, wait, err = g.start(); err != nil {
				g.o.Logger.Error("gateway did not start", "error", err)
				if !sleep(ctx, backoff) {
					return nil
				}
				backoff = min(2*backoff, time.Second)
				continue
			}
		}
		began := time.Now()
		err := g.serve(ctx, conn, former != nil && conn == former)
		if ctx.Err() != nil {
			return nil
		}
		g.killLeftover()
		wait()
		conn, wait = nil, func() {}
		if errors.Is(err, errOutdated) {
			continue
		}
		g.o.Changed("gateway-lost", fmt.Sprint("the gateway's connection ended: ", err))
		if time.Since(began) < time.Second {
			if !sleep(ctx, backoff) {
				return nil
			}
			backoff = min(2*backoff, time.Second)
		} else {
			backoff = 20 * time.Millisecond
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// serve runs one connection from feeding to its end.
func (g *Gateway) serve(ctx context.Context, conn *wire.Conn, former bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	peer := wire.NewPeer(conn, g.o.Handler, wire.Inflight)
	fed := make(chan error, 1)
	go func() {
		err := g.feed(ctx, peer, former)
		if err == nil {
			g.becomeReady(peer)
			if g.o.Ready != nil {
				g.o.Ready()
			}
			err = g.watch(ctx, peer)
		}
		if err != nil {
			cancel()
		}
		fed <- err
	}()
	err := peer.Serve(ctx)
	cancel()
	ferr := <-fed
	g.becomeLost()
	return errors.Join(ferr, err)
}

var errHung = errors.New("it did not answer any more")

// feedPatience bounds how long a gateway may take to be fed; one that hangs is
// replaced. The first feeding of a keeper takes over every living sandbox of the
// one before it, and perhaps moves each to another layout of the kernel's maps;
// the next one goes on with those that it did not reach.
const feedPatience = time.Minute

func (g *Gateway) feed(ctx context.Context, peer *wire.Peer, former bool) error {
	ctx, cancel := context.WithTimeout(ctx, feedPatience)
	defer cancel()
	is, err := g.configure(ctx, peer)
	switch {
	case err != nil:
		return fmt.Errorf("feed: %w", err)
	case is.why != "" && !former:
		return errors.New("the gateway that was just started is not what was wanted: " + is.why)
	case is.fit == stranger:
		g.o.Changed("gateway-outdated", "the gateway of a former keeper is replaced at once: "+is.why)
		return errOutdated
	case is.fit == outdated, is.fit == otherBuild && g.o.Outlive == 0:
		return g.retire(ctx, peer, is.why)
	}
	if err := g.o.Feed(ctx, peer); err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	g.goesOn(is)
	return nil
}

func (g *Gateway) becomeReady(p *wire.Peer) {
	s := <-g.state
	s.peer = p
	close(s.ready)
	g.state <- s
}

func (g *Gateway) becomeLost() {
	s := <-g.state
	if s.peer != nil {
		s = gatewayState{ready: make(chan struct{})}
	}
	g.other = time.Time{}
	g.state <- s
}

func (g *Gateway) socketPath() string { return filepath.Join(g.o.Dir, "keeper.sock") }
func (g *Gateway) pidPath() string    { return filepath.Join(g.o.Dir, "gateway.json") }

// start runs a new gateway process. wait reaps it.
func (g *Gateway) start() (conn *wire.Conn, wait func(), err error) {
	conn, theirs, err := wire.Pair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	again, err := g.listenReconnect()
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	defer again.Close()
	metrics, err := g.o.Metrics()
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	defer metrics.Close()
	cmd := exec.Command(g.o.Binary, "gateway")
	cmd.Args[0] = "ringfenced"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"}
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{theirs, again, metrics, g.o.Filter}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:      true,
		Credential:  &syscall.Credential{Uid: g.o.UID, Gid: g.o.GID},
		UseCgroupFD: true,
		CgroupFD:    int(g.o.CgroupFD.Fd()),
	}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("start the gateway: %w", err)
	}
	if err := g.notePID(cmd.Process.Pid); err != nil {
		conn.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, nil, err
	}
	g.o.Changed("gateway-start", fmt.Sprintf("pid %d, uid %d", cmd.Process.Pid, g.o.UID))
	return conn, func() { _ = cmd.Wait() }, nil // its status is told by killLeftover's signal or its own log line
}

func (g *Gateway) notePID(pid int) error {
	p, err := sandbox.ProcessOf(pid)
	if err != nil {
		return err
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(g.pidPath(), b, 0o600)
}

// Process returns the running gateway process, if there is one.
func (g *Gateway) Process() (sandbox.Process, bool) {
	var p sandbox.Process
	b, err := os.ReadFile(g.pidPath())
	if err != nil || json.Unmarshal(b, &p) != nil {
		return p, false
	}
	return p, p.Alive()
}

// killLeftover ends a gateway whose connection is gone: a half-dead one must
// not serve beside its successor.
func (g *Gateway) killLeftover() {
	if p, ok := g.Process(); ok {
		_ = syscall.Kill(p.PID, syscall.SIGKILL)
	}
}

// Kill ends the gateway process for good and removes its traces. Run must
// have returned.
func (g *Gateway) Kill() {
	g.killLeftover()
	for range 200 {
		p, ok := g.Process()
		if !ok {
			break
		}
		var ws syscall.WaitStatus
		_, _ = syscall.Wait4(p.PID, &ws, syscall.WNOHANG, nil) // ECHILD when a former keeper started it
		time.Sleep(5 * time.Millisecond)
	}
	os.Remove(g.socketPath())
	os.Remove(g.pidPath())
}

func (g *Gateway) listenReconnect() (*os.File, error) {
	if err := os.Remove(g.socketPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: g.socketPath(), Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("gateway socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	if err := os.Chmod(g.socketPath(), 0o600); err != nil {
		return nil, err
	}
	return l.File()
}

// Reconnect connects to the gateway that a former keeper left running, nil if
// there is none.
func (g *Gateway) Reconnect() *wire.Conn {
	if _, ok := g.Process(); !ok {
		return nil
	}
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: g.socketPath(), Net: "unixpacket"})
	if err != nil {
		g.killLeftover()
		return nil
	}
	return wire.FromUnix(c)
}
