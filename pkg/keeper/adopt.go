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

// BinaryID names the file behind a path as it is now: another build has
// another one.
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

// configure sends the configuration. outdated says why a gateway that was
// adopted must be replaced, "" if it need not.
func (g *Gateway) configure(ctx context.Context, peer *wire.Peer) (outdated string, err error) {
	conf, err := json.Marshal(g.o.Config)
	if err != nil {
		return "", err
	}
	f, err := wire.Seal("gateway-config", conf)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, _, err := peer.Call(ctx, wire.TypeConfig, nil, f)
	if err != nil {
		return "", fmt.Errorf("config: %w", err)
	}
	var is wire.ConfigReply
	if err := is.Decode(b); err != nil {
		return "it speaks another version of the protocol", nil
	}
	want, err := BinaryID(g.o.Binary)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(conf)
	switch {
	case is.Binary != want:
		return "it runs another build of ringfenced", nil
	case !bytes.Equal(is.Config, sum[:]):
		return "it was started with another configuration", nil
	}
	g.confined(is.Unconfined)
	return "", nil
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

// watch asks the gateway whether it is there until ctx ends, and kills one
// that does not answer any more: Run starts another.
func (g *Gateway) watch(ctx context.Context, peer *wire.Peer) (hung bool) {
	for missed := 0; sleep(ctx, g.health.every); {
		qctx, cancel := context.WithTimeout(ctx, g.health.patience)
		_, _, err := peer.Call(qctx, wire.TypeSandboxes, nil)
		cancel()
		if ctx.Err() != nil {
			return false
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
		return true
	}
	return false
}
