// SPDX-License-Identifier: Apache-2.0

// Package gateway is the data path of a node: every byte that leaves a sandbox
// arrives here, on listeners that the keeper opened inside the sandbox's
// network namespace. The local address of an accepted connection is the
// address that the sandbox asked for; the gateway knows which name that
// address stands for, decides on the policy snapshot it was given, resolves
// the name on the host's side and connects to an address it has judged.
//
// The package needs no privileges and knows the keeper only as the [Keeper]
// interface. Deny is the default of every path: an unknown address, a missing
// snapshot, a full event buffer or a keeper that does not answer all end in a
// refusal.
//
// What is decided where:
//
//	dns.go       names become virtual addresses; no question leaves the host
//	route.go     which treatment a destination gets
//	dispatch.go  one accepted connection, from its address to its treatment
//	relay.go     bytes that policy does not look into (TLS pass-through, other protocols)
//	datagrams.go UDP: datagrams of a sandbox; association.go: what they belong to; packet.go: answers
//	http.go      terminated connections: Host check, one decision per request
//	straight.go  plain HTTP/1.1 requests, which need no HTTP server; attempt.go: one of them
//	forward.go   the other requests' way to the upstream; begun.go: what straight leaves to it
//	refusal.go   the answers that say why not
//	judging.go   what is open is decided again, in turns; edge.go: when time alone changes what policy says
//	record.go    events; a full buffer refuses new work
package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/gateway/upstream"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// Addresses with a meaning of their own inside a sandbox.
var (
	// SelfAddr is the sandbox's own address on lo.
	SelfAddr = netip.MustParseAddr("198.18.0.1")
	// RefusalAddr answers 403 with the reason on ports 80 and 443.
	RefusalAddr = netip.MustParseAddr("198.18.0.2")
)

// Keeper is what the gateway asks of the process that owns the state. Its
// methods are called concurrently.
type Keeper interface {
	// Resolve decides whether a sandbox may resolve name (lower case, no
	// trailing dot) and which virtual address stands for it. The kernel lets
	// the address through before Resolve returns.
	Resolve(ctx context.Context, sandbox uint32, name string) (Resolution, error)
	// Leaf signs a certificate for name with the sandbox's own CA.
	Leaf(ctx context.Context, sandbox uint32, name string, pub *ecdsa.PublicKey) (certDER, caDER []byte, err error)
	// Approval says at once whether people have let a connection pass that
	// policy has them decide.
	Approval(ctx context.Context, q ApprovalQuestion) (ApprovalAnswer, error)
	// Append returns nil when the events are durable.
	Append(ctx context.Context, evs []event.Event) error
	// Counters returns the keeper's own counters for /metrics.
	Counters(ctx context.Context) ([]Counter, error)
}

// Resolution is the keeper's word on a name. The zero value refuses it.
type Resolution struct {
	Allowed    bool
	Exhausted  bool       // the sandbox has used up its names: SERVFAIL
	Addr       netip.Addr // the virtual address, when Allowed
	Reason     string     // why not, for people
	ReasonCode string
	Rule       string // "document/rule-id"
	RuleAt     string // "file:line"
	Revision   uint64
}

// Counter is one sample of the keeper for /metrics: a row of the table in
// package metrics, with the label values in the order of that row.
type Counter struct {
	Name   string
	Labels []string
	Value  float64
}

// InferenceHandler answers requests to provider hosts. *inference.Redirector
// is one.
type InferenceHandler interface {
	ServeHTTP(w http.ResponseWriter, r *http.Request, c inference.Call)
}

// Sandbox is one sandbox and its listeners, all open in its own network
// namespace. The gateway owns the listeners from AddSandbox on; nil ones are
// left out. DNS sockets are bound to the wildcard address.
type Sandbox struct {
	ID        uint32
	Name      string // as it appears in events
	Principal scope.Principal
	Owner     uint32 // uid of who launched it: what is shared is shared out by owner
	Explain   bool   // refused names resolve to RefusalAddr
	// Redirected says that the namespace is not ours: the local address of an
	// accepted connection is a listener's, and the kernel is asked what the
	// client asked for. One that it does not know is reset.
	Redirected bool
	Learns     bool // see policy.View.Learning

	TCP4, TCP6       net.Listener
	DNSTCP4, DNSTCP6 net.Listener
	DNSUDP4, DNSUDP6 *net.UDPConn

	// UDP4 and UDP6 get the datagrams that are steered; Reply4 and Reply6 are
	// raw sockets of IPPROTO_RAW for the answers. Each pair is complete or nil.
	UDP4, UDP6     *net.UDPConn
	Reply4, Reply6 *net.IPConn

	// Datagrams are, where Redirected, the listeners of datagrams other than DNS.
	// They must have SO_RCVMARK.
	Datagrams []*net.UDPConn

	// Kept says that whoever adds the sandbox closes all of these sockets, when
	// it was removed or not taken. Until then the gateway reads from them, and it
	// closes none: what it does not accept any more stays for another.
	Kept bool

	// Names are the virtual addresses that are already given out.
	Names map[netip.Addr]string
}

// Options configure a [Gateway].
type Options struct {
	Keeper    Keeper           // required
	Inference InferenceHandler // required
	Resolver  upstream.Resolver
	OwnAddrs  []netip.Addr     // the node's own addresses, closed like loopback
	RootCAs   *x509.CertPool   // roots for upstream TLS; nil = the host's
	Logger    *slog.Logger     // nil discards
	Clock     func() time.Time // what conditions of rules take for now; nil = time.Now

	// Registerer takes the gateway's metrics; nil = none are registered.
	Registerer prometheus.Registerer
	Limits     Limits
}

// Gateway serves sandboxes. Make one with [New], run it with Serve.
type Gateway struct {
	// Immutable after New.
	opt     Options
	log     *slog.Logger
	dialer  *upstream.Dialer
	rec     *recorder
	metrics *counters
	key     *ecdsa.PrivateKey // of every leaf; lives as long as the process
	http    *http.Server
	handoff *handoff
	ending  atomic.Bool     // Drain has begun
	ctx     context.Context // ends when the gateway is to stop at once
	cancel  context.CancelFunc

	secrets      atomic.Pointer[map[string]string]
	conns        atomic.Int64 // connections being served
	held         atomic.Int64 // of them, those that wait for people
	owners       owners
	grants       grants
	buffers      lender
	straightIn   inPool
	straightBufs sync.Pool // of *straightBufs
	watcher      watcher
	onlyServer   bool // tests: nothing is served straight
	pipes        pipes

	judges *judges

	// changing is held by whoever puts epochs in force, one at a time, and taken
	// before mu. It guards what follows.
	changing sync.Mutex
	judged   time.Time   // by opt.Clock, when what runs was last decided
	edge     *time.Timer // looks for windows that begin or end; nil without any

	// mu guards what follows. Nobody decides anything under it.
	mu        sync.Mutex
	snapshot  *policy.Snapshot
	sandboxes map[uint32]*sandbox
	served    atomic.Pointer[map[uint32]*sandbox] // a copy, for questions that must not wait
	serving   bool
	draining  bool
}

// New returns a gateway that denies everything until SetSnapshot.
func New(o Options) (*Gateway, error) {
	if o.Keeper == nil || o.Inference == nil {
		return nil, errors.New("gateway: Options.Keeper and Options.Inference are required")
	}
	if o.Resolver == nil {
		r, err := upstream.NewResolver(upstream.ResolverConfig{})
		if err != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
		o.Resolver = r
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	o.Limits = o.Limits.withDefaults()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("gateway: leaf key: %w", err)
	}
	m, err := newCounters(o.Registerer, o.Keeper)
	if err != nil {
		return nil, fmt.Errorf("gateway: metrics: %w", err)
	}
	g := &Gateway{opt: o, log: o.Logger, key: key, metrics: m, sandboxes: map[uint32]*sandbox{}, judges: newJudges(),
		dialer: upstream.NewDialer(upstream.DialerConfig{Resolver: o.Resolver, OwnAddrs: o.OwnAddrs, Timeout: o.Limits.Dial}),
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.rec = newRecorder(o.Keeper, o.Limits, m, o.Logger)
	m.pending = g.rec.pending
	g.publishLocked()
	g.handoff = newHandoff()
	g.http = g.newHTTPServer()
	g.secrets.Store(&map[string]string{})
	return g, nil
}

// Serve runs the gateway until ctx ends or Drain has finished; then every
// connection is closed and what was recorded is handed to the keeper, for at
// most Limits.Flush.
func (g *Gateway) Serve(ctx context.Context) error {
	g.mu.Lock()
	if g.serving {
		g.mu.Unlock()
		return errors.New("gateway: Serve called twice")
	}
	g.serving = true
	for _, sb := range g.sandboxes {
		sb.start()
	}
	g.mu.Unlock()
	recorded := make(chan struct{})
	recCtx, stopRec := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRec()
	go func() { defer close(recorded); g.rec.run(recCtx) }()
	served := make(chan error, 1)
	go func() { served <- g.http.Serve(g.handoff) }()

	var err error
	select {
	case <-ctx.Done():
	case <-g.ctx.Done(): // drained
	case err = <-served:
		if errors.Is(err, http.ErrServerClosed) { // draining
			select {
			case <-ctx.Done():
			case <-g.ctx.Done():
			}
		}
	}
	g.stop()
	g.rec.flush(g.opt.Limits.Flush)
	stopRec()
	<-recorded
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("gateway: %w", err)
	}
	return nil
}

// stop closes everything and waits for it.
func (g *Gateway) stop() {
	g.cancel()
	g.changing.Lock()
	g.forgetEdgeLocked()
	g.changing.Unlock()
	g.mu.Lock()
	g.draining = true
	all := make([]*sandbox, 0, len(g.sandboxes))
	for id, sb := range g.sandboxes {
		all = append(all, sb)
		delete(g.sandboxes, id)
	}
	g.publishLocked()
	g.mu.Unlock()
	for _, sb := range all {
		sb.close(codeShutdown)
	}
	g.http.Close()
	for _, sb := range all {
		sb.wg.Wait()
	}
	g.pipes.close()
}

// Drain stops accepting, lets what runs finish until ctx ends, then makes
// Serve return. Connections that arrive meanwhile wait in the backlog of
// listeners that are Kept, here or by the keeper.
func (g *Gateway) Drain(ctx context.Context) {
	g.mu.Lock()
	g.draining = true
	all := make([]*sandbox, 0, len(g.sandboxes))
	for _, sb := range g.sandboxes {
		all = append(all, sb)
	}
	g.mu.Unlock()
	for _, sb := range all {
		sb.stopListening()
	}
	g.ending.Store(true)
	shut := make(chan struct{})
	go func() { // idle connections end, HTTP/2 clients are told to go away
		defer close(shut)
		_ = g.http.Shutdown(ctx)
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := 0; g.conns.Load() > 0 && ctx.Err() == nil; i++ {
		if i%10 == 0 {
			for _, sb := range all {
				sb.endIdle()
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	g.cancel()
	<-shut
}

// AddSandbox starts to serve a sandbox. Unless they are Kept it takes the
// listeners even when it fails.
func (g *Gateway) AddSandbox(s Sandbox) error {
	sb := newSandbox(g, s)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.draining:
		sb.close(codeShutdown)
		return errors.New("gateway: shutting down")
	case g.sandboxes[s.ID] != nil:
		sb.close(codeShutdown)
		return fmt.Errorf("gateway: sandbox %d is already served", s.ID)
	}
	if err := sb.prepare(); err != nil {
		sb.close(codeShutdown)
		return err
	}
	if g.snapshot != nil {
		sb.setSnapshot(g.snapshot)
		sb.settled.Store(g.snapshot.Revision()) // nothing is open yet
	}
	g.sandboxes[s.ID] = sb
	g.publishLocked()
	if g.serving {
		sb.start()
	}
	return nil
}

// RemoveSandbox ends listening for a sandbox and its connections, and waits
// until nothing of it is left. Unknown numbers are fine.
func (g *Gateway) RemoveSandbox(id uint32) {
	g.mu.Lock()
	sb := g.sandboxes[id]
	delete(g.sandboxes, id)
	g.publishLocked()
	g.mu.Unlock()
	if sb != nil {
		sb.close(codeStopped)
		sb.wg.Wait()
		g.rec.settle(id, settleTime)
	}
}

// settleTime bounds how long the end of a sandbox waits for its events.
const settleTime = 250 * time.Millisecond

// publishLocked renews the copy.
func (g *Gateway) publishLocked() {
	c := maps.Clone(g.sandboxes)
	g.served.Store(&c)
}

// Sandboxes lists the numbers of the sandboxes being served. It is what a keeper
// asks to know that the gateway is alive, and never waits for policy.
func (g *Gateway) Sandboxes() []uint32 { return slices.Collect(maps.Keys(*g.served.Load())) }

// Connections is how many connections of sandboxes are being served.
func (g *Gateway) Connections() int { return int(g.conns.Load()) }

// Revisions says on which policy revision, or a later one, everything of each
// sandbox was decided, what was open before it too; 0: none yet.
func (g *Gateway) Revisions() map[uint32]uint64 {
	served := *g.served.Load()
	out := make(map[uint32]uint64, len(served))
	for id, sb := range served {
		out[id] = sb.settled.Load()
	}
	return out
}

// SetSnapshot puts a policy revision in force: when it returns, new connections
// and requests are decided on it. Running connections that it does not allow are
// closed from then on, each owner's beside the others'; Revisions tells for which
// sandboxes that is done.
func (g *Gateway) SetSnapshot(s *policy.Snapshot) {
	g.changing.Lock()
	defer g.changing.Unlock()
	g.mu.Lock()
	g.snapshot = s
	g.mu.Unlock()
	g.judgeLocked(false)
}

// AddNames tells the gateway of virtual addresses that it did not learn from
// Resolve.
func (g *Gateway) AddNames(id uint32, names map[netip.Addr]string) {
	if sb := (*g.served.Load())[id]; sb != nil {
		for a, n := range names {
			sb.names.learn(a, n)
		}
	}
}

// SetSecrets replaces the provider secrets. Values never leave the process
// except in the header sent to the provider.
func (g *Gateway) SetSecrets(secrets map[string]string) {
	m := make(map[string]string, len(secrets))
	for k, v := range secrets {
		m[k] = v
	}
	g.secrets.Store(&m)
}

func (g *Gateway) secret(name string) (string, bool) {
	v, ok := (*g.secrets.Load())[name]
	return v, ok
}
