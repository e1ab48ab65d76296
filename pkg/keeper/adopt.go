// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/wire"
)

// BinaryID names the file behind a path as it is now. A gateway says it of
// itself, to keepers that still believe it.
func BinaryID(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return fmt.Sprintf("%d:%d:%d:%d", st.Dev, st.Ino, st.Size, st.Mtim.Nano()), nil
}

// errOutdated ends the connection to a gateway that was drained because it is
// not what this keeper would start.
var errOutdated = errors.New("the gateway of a former keeper was replaced")

// drainPatience is how long requests of an outdated gateway may take to
// finish. Connections that come meanwhile wait in the backlog.
const drainPatience = 5 * time.Second

// fit says how a gateway fits the keeper that meets it.
type fit uint8

const (
	fits       fit = iota
	otherBuild     // it may go on for a while
	outdated       // it must be replaced, and can hand over what it holds
	stranger       // it must be replaced, and cannot be spoken with
)

// standing is the fit with its reason, "" where it fits.
type standing struct {
	fit fit
	why string
}

// configure says hello: it sends version and configuration, and judges who
// answers. One that a former keeper started may be anything.
func (g *Gateway) configure(ctx context.Context, peer *wire.Peer) (standing, error) {
	conf, err := json.Marshal(g.o.Config)
	if err != nil {
		return standing{}, err
	}
	f, err := wire.Seal("gateway-config", conf)
	if err != nil {
		return standing{}, err
	}
	defer f.Close()
	b, _, err := peer.Call(ctx, wire.TypeConfig, wire.Config{Version: wire.Version}.Encode(), f)
	var refused *wire.Failure
	if errors.As(err, &refused) {
		return standing{stranger, "it refuses this keeper: " + refused.Msg}, nil
	}
	if err != nil {
		return standing{}, fmt.Errorf("config: %w", err)
	}
	var is wire.ConfigReply
	if err := is.Decode(b); err != nil {
		return standing{stranger, "its first answer is not understood"}, nil
	}
	if _, ok := wire.Speak(wire.Version, is.Version); !ok {
		return standing{stranger, fmt.Sprintf("it speaks version %d of the messages, this keeper %d", is.Version, wire.Version)}, nil
	}
	g.confined(is.Unconfined)
	sum := sha256.Sum256(conf)
	if !bytes.Equal(is.Config, sum[:]) {
		return standing{outdated, "it was started with another configuration"}, nil
	}
	return g.build(), nil
}

// build judges which program the gateway runs. It is not asked: one that was
// taken over would say what lets it outlive an upgrade.
func (g *Gateway) build() standing {
	p, ok := g.Process()
	if !ok {
		return standing{outdated, "the process that was started as the gateway has ended, and another one answers"}
	}
	same, err := executes(p, g.o.Binary)
	switch {
	case err != nil:
		return standing{outdated, "it cannot be told which build of ringfenced it runs: " + err.Error()}
	case !same:
		return standing{otherBuild, "it runs another build of ringfenced"}
	}
	return standing{}
}

// goesOn notes that a gateway was fed, and of which build it is.
func (g *Gateway) goesOn(is standing) {
	if is.fit != otherBuild {
		return
	}
	s := <-g.state
	g.other = time.Now().Add(g.o.Outlive)
	g.state <- s
	g.o.Changed("gateway-other-build", fmt.Sprintf("the gateway of a former keeper runs another build of ringfenced; it goes on while it has connections, for %s at most", g.o.Outlive))
}

// OtherBuild says until when a gateway of another build goes on at the latest;
// ok is false when the gateway is of this build.
func (g *Gateway) OtherBuild() (until time.Time, ok bool) {
	s := <-g.state
	defer func() { g.state <- s }()
	return g.other, !g.other.IsZero()
}

// due says why a gateway of another build is to go now, "" while it is not.
func (g *Gateway) due(ctx context.Context, peer *wire.Peer) string {
	until, other := g.OtherBuild()
	switch {
	case !other:
		return ""
	case !time.Now().Before(until):
		return "it runs another build of ringfenced, and its time is up"
	}
	ctx, cancel := context.WithTimeout(ctx, g.health.patience)
	defer cancel()
	b, _, err := peer.Call(ctx, wire.TypeConnections, nil)
	var n wire.Connections
	if err != nil || n.Decode(b) != nil || n > 0 { // one of version 1 does not know the question
		return ""
	}
	return "it runs another build of ringfenced, and has no connections"
}

// confined notes which walls the gateway lacks.
func (g *Gateway) confined(missing []string) {
	s := <-g.state
	told := g.unconfined != nil
	g.unconfined = append([]string{}, missing...)
	g.state <- s
	if len(missing) > 0 && !told {
		g.o.Changed("degraded", "the gateway could not put all walls around itself: "+strings.Join(missing, "; "))
	}
}

// Unconfined lists the walls that the gateway could not put around itself.
func (g *Gateway) Unconfined() []string {
	s := <-g.state
	defer func() { g.state <- s }()
	return append([]string(nil), g.unconfined...)
}

// retire takes over what only an outdated gateway still holds, lets its
// requests finish and returns errOutdated.
func (g *Gateway) retire(ctx context.Context, peer *wire.Peer, why string) error {
	if err := g.o.Takeover(ctx, peer); err != nil {
		return err
	}
	g.o.Changed("gateway-outdated", "the gateway of a former keeper is replaced: "+why)
	if _, _, err := peer.Call(ctx, wire.TypeDrain, nil); err != nil {
		return errOutdated // it is not worth waiting for
	}
	sleep(ctx, drainPatience) // ctx ends with the connection
	return errOutdated
}

// health says how a gateway that does not answer is noticed.
type health struct {
	every    time.Duration // pause between questions
	patience time.Duration // how long one answer may take
	misses   int           // answers in a row that may be missing
}

var usualHealth = health{every: 5 * time.Second, patience: 10 * time.Second, misses: 3}

// watch asks the gateway whether it is there until ctx ends. One that does not
// answer any more it kills, and one of another build it retires when that is
// due: the error says so, and Run starts another.
func (g *Gateway) watch(ctx context.Context, peer *wire.Peer) error {
	for missed := 0; sleep(ctx, g.health.every); {
		if why := g.due(ctx, peer); why != "" {
			g.becomeLost() // what is asked of the gateway waits for the next one
			return g.retire(ctx, peer, why)
		}
		qctx, cancel := context.WithTimeout(ctx, g.health.patience)
		_, _, err := peer.Call(qctx, wire.TypeSandboxes, nil)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			missed = 0 // a refusal is an answer, too; a lost connection ends Serve
			continue
		}
		if missed++; missed < g.health.misses {
			continue
		}
		g.o.Logger.Error("the gateway does not answer", "for", time.Duration(missed)*g.health.patience)
		g.o.Changed("gateway-hung", fmt.Sprintf("the gateway left %d questions in a row without an answer for %s each; it is killed and started again", missed, g.health.patience))
		if p, ok := g.Process(); ok {
			_ = syscall.Kill(p.PID, syscall.SIGKILL) // an error means that it has ended
		}
		return errHung
	}
	return nil
}
