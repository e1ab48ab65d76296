// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Resolver finds the addresses of a name on the host's side.
type Resolver interface {
	// Lookup returns every address of host, an error when there is none.
	Lookup(ctx context.Context, host string) ([]netip.Addr, error)
}

// ResolverConfig says where names are looked up.
type ResolverConfig struct {
	// Servers are "ip:port" or "ip" of name servers, asked in turn. None means
	// the host's own resolver configuration.
	Servers []string
	// Hosts are fixed answers that come before any question.
	Hosts map[string][]netip.Addr
	// CacheFor is how long an answer is kept, 0 = 5 s. A judged address is what
	// is dialled, so a kept answer is never a way around the judgement.
	CacheFor time.Duration
}

const (
	cacheFor  = 5 * time.Second
	cacheSize = 4096
)

type cached struct {
	addrs []netip.Addr
	until time.Time
}

// HostResolver asks the configured servers through the Go resolver, which
// retries, falls back to TCP and asks for A and AAAA together.
type HostResolver struct {
	hosts    map[string][]netip.Addr
	net      *net.Resolver
	cacheFor time.Duration
	servers  atomic.Pointer[[]string] // none: those of the host
	next     atomic.Uint32

	mu    sync.Mutex
	cache map[string]cached
}

// NewResolver returns the resolver for a configuration.
func NewResolver(c ResolverConfig) (*HostResolver, error) {
	r := &HostResolver{hosts: map[string][]netip.Addr{}, net: &net.Resolver{PreferGo: true},
		cacheFor: c.CacheFor, cache: map[string]cached{}}
	if r.cacheFor <= 0 {
		r.cacheFor = cacheFor
	}
	for name, addrs := range c.Hosts {
		r.hosts[strings.ToLower(strings.TrimSuffix(name, "."))] = addrs
	}
	r.net.Dial = r.dial
	return r, r.SetServers(c.Servers)
}

// SetServers replaces the name servers and forgets what the old ones answered.
func (r *HostResolver) SetServers(list []string) error {
	servers := make([]string, 0, len(list))
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			s = netip.AddrPortFrom(a, 53).String()
		}
		if _, err := netip.ParseAddrPort(s); err != nil {
			return fmt.Errorf("upstream: name server %q is not an address", s)
		}
		servers = append(servers, s)
	}
	r.servers.Store(&servers)
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.cache)
	return nil
}

func (r *HostResolver) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if servers := *r.servers.Load(); len(servers) > 0 {
		addr = servers[int(r.next.Add(1)-1)%len(servers)]
	}
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}

// Lookup implements Resolver.
func (r *HostResolver) Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, ok := r.hosts[host]; ok {
		return a, nil
	}
	now := time.Now()
	r.mu.Lock()
	c, ok := r.cache[host]
	r.mu.Unlock()
	if ok && now.Before(c.until) {
		return c.addrs, nil
	}
	// The trailing dot keeps the host's search domains out of it.
	addrs, err := r.net.LookupNetIP(ctx, "ip", host+".")
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", host, err)
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("resolve %s: %w", host, errors.New("no address"))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.cache) >= cacheSize {
		clear(r.cache)
	}
	r.cache[host] = cached{addrs, now.Add(r.cacheFor)}
	return addrs, nil
}
