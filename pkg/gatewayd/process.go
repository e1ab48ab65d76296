// SPDX-License-Identifier: Apache-2.0

// Package gatewayd is the gateway process: it confines itself, speaks the
// gateway's end of the socket pair and runs the data path of package gateway.
// It is started by the keeper with its own unprivileged uid, in its own cgroup,
// with nothing but inherited descriptors.
package gatewayd

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ringfence/ringfence/pkg/gateway"
	"github.com/ringfence/ringfence/pkg/gateway/upstream"
	"github.com/ringfence/ringfence/pkg/harden"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/inference/rates"
	"github.com/ringfence/ringfence/pkg/keeper"
	"github.com/ringfence/ringfence/pkg/limit"
	"github.com/ringfence/ringfence/pkg/wire"
)

// Config travels as JSON in the keeper's first message. It holds for the life
// of the process: a keeper with another one starts another gateway. What
// changes meanwhile is in wire.Node.
type Config struct {
	Hosts   map[string][]netip.Addr `json:"hosts"`
	RootCAs []byte                  `json:"rootCAs"` // PEM, added to the system's

	// What the process is started with, here so that one that was started with
	// something else is noticed.
	UID     uint32 `json:"uid"`
	GID     uint32 `json:"gid"`
	Metrics string `json:"metrics"`
}

// Main runs the process of that version of Ringfence until the keeper says drain or a signal ends ctx. It
// returns an error when the process could not confine itself: then it has
// served nothing.
func Main(ctx context.Context, version string, log *slog.Logger) error {
	fds, err := inherit()
	if err != nil {
		return err
	}
	binary, err := keeper.BinaryID("/proc/self/exe")
	if err != nil {
		return err
	}
	missing, err := harden.Process(fds.filter, harden.Network(), log)
	if err != nil {
		return fmt.Errorf("the gateway could not confine itself: %w", err)
	}
	// Never touched, so no memory: the collector runs when as much as what
	// lives has become garbage, and what lives is a few megabytes, this and
	// whatever policy and connections add.
	heap := make([]byte, heapLeast)
	defer runtime.KeepAlive(heap)
	p := &process{log: log, version: version, is: wire.ConfigReply{Binary: binary, Unconfined: missing}, link: newLink(), drain: make(chan struct{}), configured: make(chan struct{})}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go p.link.run(ctx, fds.keeper, fds.reconnect, p.handle, log)
	select {
	case <-p.configured:
	case <-ctx.Done():
		return nil
	case <-time.After(time.Minute):
		return errors.New("no configuration from the keeper within a minute")
	}
	go p.serveMetrics(ctx, fds.metrics)
	go func() {
		select {
		case <-p.drain:
			dctx, stop := context.WithTimeout(ctx, 10*time.Second)
			defer stop()
			p.gw.Drain(dctx)
		case <-ctx.Done():
		}
	}()
	go p.money.till.Run(ctx, func(err error) { log.Warn("the keeper does not take what calls cost; trying again", "error", err) })
	err = p.gw.Serve(ctx)
	p.money.finish(ctx, log)
	return err
}

// heapLeast is half of what the heap may at least grow to. Without it a fifth of
// the CPU time of small requests went to collecting a heap of a few megabytes.
const heapLeast = 16 << 20

type descriptors struct {
	keeper    *wire.Conn
	reconnect *net.UnixListener
	metrics   net.Listener
	filter    *os.File
}

func inherit() (*descriptors, error) {
	conn, err := wire.FromFile(os.NewFile(keeper.FDKeeper, "keeper"))
	if err != nil {
		return nil, fmt.Errorf("this is started by ringfenced, not by hand: %w", err)
	}
	again, err := net.FileListener(os.NewFile(keeper.FDReconnect, "reconnect"))
	if err != nil {
		return nil, fmt.Errorf("reconnect socket: %w", err)
	}
	ul, ok := again.(*net.UnixListener)
	if !ok {
		return nil, errors.New("reconnect socket is not a unix socket")
	}
	ul.SetUnlinkOnClose(false)
	metrics, err := net.FileListener(os.NewFile(keeper.FDMetrics, "metrics"))
	if err != nil {
		return nil, fmt.Errorf("metrics socket: %w", err)
	}
	if mu, ok := metrics.(*net.UnixListener); ok {
		mu.SetUnlinkOnClose(false)
	}
	return &descriptors{keeper: conn, reconnect: ul, metrics: metrics, filter: os.NewFile(keeper.FDSeccomp, "filter")}, nil
}

// process is the state behind the messages of the keeper.
type process struct {
	log        *slog.Logger
	version    string
	link       *link
	gw         *gateway.Gateway // set before configured is closed
	inference  *inference.Redirector
	resolver   *upstream.HostResolver
	is         wire.ConfigReply
	registry   *prometheus.Registry
	configured chan struct{}
	drain      chan struct{}
	money      *money // set before configured is closed
	pending    pendingNames
	listeners  kept
	prices     prices
}

// configure builds the data path on the first configuration; a restarted
// keeper sends it again, and learns from the answer that it is another.
func (p *process) configure(f *os.File) error {
	select {
	case <-p.configured:
		return nil
	default:
	}
	b, err := wire.ReadSealed(f)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	p.is.Config = sum[:]
	var c Config
	if err := json.Unmarshal(b, &c); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return fmt.Errorf("system roots: %w", err)
	}
	if len(c.RootCAs) > 0 && !roots.AppendCertsFromPEM(c.RootCAs) {
		return errors.New("gateway.rootCAs holds no certificate")
	}
	p.resolver, err = upstream.NewResolver(upstream.ResolverConfig{Hosts: c.Hosts})
	if err != nil {
		return err
	}
	p.registry = prometheus.NewRegistry()
	p.money = newMoney(p.link, p.prices.most, reported)
	p.inference = inference.New(inference.Options{Version: p.version, Tolls: []inference.Toll{rates.New(limit.Options{}), p.money.toll}, Prices: p.prices.book.Load, Price: p.prices.most})
	gw, err := gateway.New(gateway.Options{
		Keeper: p.link, Inference: p.inference, Resolver: p.resolver,
		RootCAs: roots, Logger: p.log, Registerer: p.registry,
	})
	if err != nil {
		return err
	}
	p.gw = gw
	close(p.configured)
	return nil
}

// serveMetrics serves /metrics. It holds no policy and no secrets.
func (p *process) serveMetrics(ctx context.Context, l net.Listener) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	probe(mux)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 20 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		p.log.Error("metrics", "error", err)
	}
}
