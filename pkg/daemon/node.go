// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ringfence/ringfence/pkg/wire"
)

// nodeFacts is what sandboxes' traffic depends on and the machine may change
// while the daemon runs: a lease, a VPN, a new interface.
type nodeFacts struct {
	resolvers []netip.AddrPort
	own       []netip.Addr // without loopback
}

func (f nodeFacts) equal(o nodeFacts) bool {
	return slices.Equal(f.resolvers, o.resolvers) && slices.Equal(f.own, o.own)
}

func (f nodeFacts) message() wire.Node {
	m := wire.Node{OwnAddrs: f.own}
	for _, r := range f.resolvers {
		m.Resolvers = append(m.Resolvers, r.String())
	}
	return m
}

// resolvConf is where the machine's resolvers stand.
const resolvConf = "/etc/resolv.conf"

// readNode looks at the machine.
func readNode(configured []string, resolvConf string) (f nodeFacts, err error) {
	if f.resolvers, err = resolvers(configured, resolvConf); err != nil {
		return f, fmt.Errorf("resolvers: %w", err)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return f, fmt.Errorf("own addresses: %w", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLoopback() {
			f.own = append(f.own, p.Addr())
		}
	}
	slices.SortFunc(f.own, netip.Addr.Compare)
	f.own = slices.Compact(f.own)
	return f, nil
}

// resolvers are the configured ones or those of resolv.conf.
func resolvers(configured []string, resolvConf string) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, r := range configured {
		ap, err := netip.ParseAddrPort(r)
		if err != nil {
			return nil, fmt.Errorf("resolver %q: %w", r, err)
		}
		out = append(out, ap)
	}
	if len(out) > 0 {
		return out, nil
	}
	f, err := os.Open(resolvConf)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		w := strings.Fields(sc.Text())
		if len(w) < 2 || w[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(w[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	return out, nil
}

// node is what was last seen of the machine.
func (d *Daemon) node() nodeFacts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.facts
}

// lookAtNode looks again. What cannot be read stays as it was.
func (d *Daemon) lookAtNode() (changed bool) {
	f, err := readNode(d.cfg.Gateway.Resolvers, resolvConf)
	if err != nil {
		d.logger.Error("the machine's addresses and resolvers cannot be read; what was known stays in use", "error", err)
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	changed = !f.equal(d.facts)
	d.facts = f
	return changed
}

func (d *Daemon) sendNode(ctx context.Context, p caller) error {
	b, err := d.node().message().Encode()
	if err != nil {
		return err
	}
	if _, _, err := p.Call(ctx, wire.TypeNode, b); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	return nil
}

const (
	// nodeEvery is how often the machine is looked at without an occasion.
	nodeEvery = 15 * time.Second
	// nodePause gathers what comes together, and is the pause before the next
	// attempt to tell the gateway.
	nodePause = 500 * time.Millisecond
)

// watchNode tells kernel and gateway when resolvers or own addresses change.
func (d *Daemon) watchNode(ctx context.Context) {
	updates, done := make(chan netlink.AddrUpdate, 64), make(chan struct{})
	defer close(done)
	if err := netlink.AddrSubscribe(updates, done); err != nil {
		d.logger.Warn("changes of addresses are noticed late", "within", nodeEvery, "error", err)
		updates = nil
	}
	told := true
	for {
		wait := nodeEvery
		if !told {
			wait = nodePause
		}
		select {
		case <-ctx.Done():
			return
		case _, ok := <-updates:
			if !ok {
				updates = nil
			}
			if !settle(ctx, updates) {
				return
			}
		case <-time.After(wait):
		}
		if !d.lookAtNode() && told {
			continue
		}
		told = d.tellNode(ctx)
	}
}

// settle waits until a burst of changes is over.
func settle(ctx context.Context, updates <-chan netlink.AddrUpdate) bool {
	end := time.After(nodePause)
	for {
		select {
		case <-ctx.Done():
			return false
		case _, ok := <-updates:
			if !ok {
				updates = nil
			}
		case <-end:
			return true
		}
	}
}

// tellNode puts what was seen into use. A gateway that is not there gets it
// when it is fed, or with the next attempt.
func (d *Daemon) tellNode(ctx context.Context) bool {
	if err := d.openGatewayTable(); err != nil {
		d.logger.Error("policy of the gateway's cgroup", "error", err)
		return false
	}
	if !d.gateway.Ready() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := d.sendNode(ctx, d.gateway); err != nil {
		d.logger.Error("addresses and resolvers to the gateway", "error", err)
		return false
	}
	f := d.node()
	d.daemonEvent("node-change", fmt.Sprintf("resolvers %v, own addresses %v", f.resolvers, f.own))
	return true
}
