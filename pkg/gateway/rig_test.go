// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// fakeKeeper decides on the same snapshot and keeps what it was told.
type fakeKeeper struct {
	ca *testCA

	mu     sync.Mutex
	view   *policy.View
	byName map[string]netip.Addr
	next   byte
	events []event.Event
	down   bool // Append fails
	noLeaf bool
	asked  []string
	leaves int

	approval  func(q ApprovalQuestion) (ApprovalAnswer, error) // nil refuses
	questions []ApprovalQuestion
}

func (k *fakeKeeper) Approval(_ context.Context, q ApprovalQuestion) (ApprovalAnswer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.questions = append(k.questions, q)
	if k.approval == nil {
		return ApprovalAnswer{Reason: "needs an approval; ask ops", ReasonCode: policy.CodeApproval}, nil
	}
	a, err := k.approval(q)
	if !a.Released || a.Fingerprints != nil {
		return a, err
	}
	// Released on the policy of the moment, unless the test says otherwise.
	list := []policy.Decision{k.view.Egress(q.Name, q.Port)}
	if q.Dialect != "" {
		list[0] = k.view.Inference(q.Dialect, q.Model)
	}
	for _, t := range q.Tools {
		list = append(list, k.view.ProviderTool(t.Name))
	}
	for _, d := range list {
		f := [32]byte{}
		if d.Terms != nil {
			f = d.Terms.Fingerprint
		}
		a.Fingerprints = append(a.Fingerprints, f)
	}
	return a, err
}

func (k *fakeKeeper) Resolve(_ context.Context, _ uint32, name string) (Resolution, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, name)
	if strings.HasPrefix(name, "exhausted.") {
		return Resolution{Exhausted: true, Reason: "4,096 names"}, nil
	}
	n := k.view.Name(name)
	if !n.Resolves {
		return Resolution{Reason: n.Decision.Reason, ReasonCode: n.Decision.ReasonCode}, nil
	}
	return Resolution{Allowed: true, Addr: k.addrLocked(name)}, nil
}

func (k *fakeKeeper) addrLocked(name string) netip.Addr {
	a, ok := k.byName[name]
	if !ok {
		k.next++
		a = netip.AddrFrom4([4]byte{198, 18, 1, k.next})
		k.byName[name] = a
	}
	return a
}

func (k *fakeKeeper) Leaf(_ context.Context, _ uint32, name string, pub *ecdsa.PublicKey) ([]byte, []byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.noLeaf {
		return nil, nil, errors.New("no")
	}
	k.leaves++
	der, err := k.ca.sign(name, pub)
	return der, k.ca.cert.Raw, err
}

func (k *fakeKeeper) Append(_ context.Context, evs []event.Event) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.down {
		return errors.New("keeper is away")
	}
	k.events = append(k.events, evs...)
	return nil
}

func (k *fakeKeeper) Counters(context.Context) ([]Counter, error) {
	return []Counter{{Name: "ringfence_bpf_verdicts_total", Labels: []string{"connect4", "denied", "no-rule"}, Value: 7}, {Name: "ringfence_made_up", Value: 1}}, nil
}

func (k *fakeKeeper) setDown(down bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = down
}

// rig is a gateway with one sandbox.
type rig struct {
	tb     testing.TB
	ns     *namespace
	g      *Gateway
	keeper *fakeKeeper
	world  *testCA // signs upstream servers
	reg    *prometheus.Registry
	served chan error
	hosts  *hostTable
	p      scope.Principal
}

type rigOptions struct {
	limits    Limits
	explain   bool
	inference InferenceHandler
	own       []netip.Addr
	clock     func() time.Time
}

var loopNet struct {
	sync.Mutex
	n byte
}

// newRig starts a gateway for a policy. resolver looks names up in r.hosts.
func newRig(tb testing.TB, doc string, o rigOptions) *rig {
	tb.Helper()
	r := &rig{tb: tb, ns: newNamespace(tb), world: newTestCA(tb, "world"), reg: prometheus.NewRegistry(), served: make(chan error, 1),
		hosts: &hostTable{m: map[string][]netip.Addr{}}}
	r.keeper = &fakeKeeper{ca: newTestCA(tb, "sandbox"), byName: map[string]netip.Addr{}, next: 9}
	p, err := scope.ParsePrincipal("org:local/team:default/agent:test")
	if err != nil {
		tb.Fatal(err)
	}
	r.p = p
	if o.inference == nil {
		o.inference = inference.New(inference.Options{})
	}
	if o.limits.FoldWindow == 0 {
		o.limits.FoldWindow = 50 * time.Millisecond
	}
	r.g, err = New(Options{Keeper: r.keeper, Inference: o.inference, Resolver: r.hosts, RootCAs: r.world.pool(), Registerer: r.reg,
		Limits: o.limits, OwnAddrs: o.own, Clock: o.clock})
	if err != nil {
		tb.Fatal(err)
	}
	r.setPolicy(1, doc)
	if err := r.g.AddSandbox(r.sandbox(1, o.explain)); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { r.served <- r.g.Serve(ctx) }()
	tb.Cleanup(func() {
		cancel()
		select {
		case err := <-r.served:
			if err != nil {
				tb.Errorf("Serve: %v", err)
			}
		case <-time.After(10 * time.Second):
			tb.Error("Serve did not return")
		}
	})
	return r
}

// hostTable is the host's resolver; tests fill it.
type hostTable struct {
	mu sync.Mutex
	m  map[string][]netip.Addr
}

func (h *hostTable) set(host string, a ...netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.m[host] = a
}

// Lookup implements upstream.Resolver. For names below "mute" there is no
// answer.
func (h *hostTable) Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if strings.HasSuffix(host, ".mute") {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if a := h.m[host]; a != nil {
		return a, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func (r *rig) sandbox(id uint32, explain bool) Sandbox {
	r.tb.Helper()
	ports := []int{22, 80, 443, 5432, 8080, 8443}
	s := Sandbox{ID: id, Name: fmt.Sprintf("sbx-%d", id), Principal: r.p, Explain: explain,
		TCP4: listenPorts(r.tb, r.ns, "tcp4", "0.0.0.0", ports...), TCP6: listenPorts(r.tb, r.ns, "tcp6", "::", 443, 8080),
		DNSTCP4: listenPorts(r.tb, r.ns, "tcp4", "0.0.0.0", 53)}
	var err error
	r.ns.do(func() {
		s.DNSUDP4, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 53})
		if err == nil {
			s.DNSUDP6, err = net.ListenUDP("udp6", &net.UDPAddr{Port: 53})
		}
	})
	if err != nil {
		r.tb.Fatal(err)
	}
	r.addDatagrams(&s)
	return s
}

const docHead = "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: test}\nscope: org:local\n"

// closedPolicy allows nothing.
const closedPolicy = docHead + "egress:\n  - {id: closed, deny: \"closed.test\"}\n"

func compile(tb testing.TB, rev uint64, doc string) *policy.Snapshot {
	tb.Helper()
	docs, problems := policy.Parse("test.yaml", []byte(doc))
	if len(problems) > 0 {
		tb.Fatalf("policy: %v", problems)
	}
	s, problems := policy.Compile(rev, docs)
	if len(problems) > 0 {
		tb.Fatalf("policy: %v", problems)
	}
	return s
}

func (r *rig) setPolicy(rev uint64, doc string) {
	r.tb.Helper()
	s := compile(r.tb, rev, doc)
	r.keeper.mu.Lock()
	r.keeper.view = s.View(r.p)
	r.keeper.mu.Unlock()
	r.g.SetSnapshot(s)
	r.settled(rev)
}

// settled waits until what was open is decided on a revision, everywhere.
func (r *rig) settled(rev uint64) {
	r.tb.Helper()
	r.until(fmt.Sprintf("revision %d is settled", rev), func() bool {
		for _, on := range r.g.Revisions() {
			if on < rev {
				return false
			}
		}
		return true
	})
}

// host gives name an upstream address on loopback that no other test uses.
func (r *rig) host(name string) netip.Addr {
	loopNet.Lock()
	loopNet.n++
	a := netip.AddrFrom4([4]byte{127, 77, byte(os.Getpid()%250 + 1), loopNet.n})
	loopNet.Unlock()
	r.hosts.set(name, a)
	return a
}

// listen opens an upstream listener for name.
func (r *rig) listen(name string, port uint16) net.Listener {
	r.tb.Helper()
	a, err := r.hosts.Lookup(context.Background(), name)
	if err != nil {
		a = []netip.Addr{r.host(name)}
	}
	l, err := net.Listen("tcp", netip.AddrPortFrom(a[0], port).String())
	if err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() { l.Close() })
	return l
}

// web runs an upstream HTTP server for name: TLS on every port but 80 and 8080.
func (r *rig) web(name string, port uint16, h http.HandlerFunc) {
	r.tb.Helper()
	l := r.listen(name, port)
	srv := &http.Server{Handler: h, TLSConfig: r.world.server(r.tb, name), ErrorLog: nil}
	go func() {
		if port == 80 || port == 8080 {
			_ = srv.Serve(l)
			return
		}
		_ = srv.ServeTLS(l, "", "")
	}()
	r.tb.Cleanup(func() { srv.Close() })
}

// echo runs an upstream that sends a greeting and then what it receives.
func (r *rig) echo(name string, port uint16, greeting string) {
	r.tb.Helper()
	l := r.listen(name, port)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = c.Write([]byte(greeting))
				buf := make([]byte, 32<<10)
				for {
					n, err := c.Read(buf)
					if n > 0 {
						_, _ = c.Write(buf[:n])
					}
					if err != nil {
						return
					}
				}
			}()
		}
	}()
}

// ask sends one DNS question to server and returns the reply.
func (r *rig) ask(network, server string, m *dns.Msg) (*dns.Msg, error) {
	c, err := r.ns.dial(network, server)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	dc := &dns.Conn{Conn: c, UDPSize: 4096}
	if err := dc.WriteMsg(m); err != nil {
		return nil, err
	}
	return dc.ReadMsg()
}

// lookup resolves a name as a sandbox does.
func (r *rig) lookup(name string) (netip.Addr, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.TypeA)
	reply, err := r.ask("udp", "8.8.8.8:53", m)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, rr := range reply.Answer {
		if a, ok := rr.(*dns.A); ok {
			v, _ := netip.AddrFromSlice(a.A.To4())
			return v, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s: %s", name, dns.RcodeToString[reply.Rcode])
}

// dial connects to a name as a sandbox does.
func (r *rig) dial(name string, port uint16) (net.Conn, error) {
	a, err := r.lookup(name)
	if err != nil {
		return nil, err
	}
	return r.ns.dial("tcp", netip.AddrPortFrom(a, port).String())
}

func (r *rig) mustDial(name string, port uint16) net.Conn {
	r.tb.Helper()
	c, err := r.dial(name, port)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// client is an unmodified HTTP client inside the sandbox that trusts roots.
func (r *rig) client(roots *x509.CertPool, h2 bool) *http.Client {
	t := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: h2,
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			var p uint16
			if _, err := fmt.Sscan(port, &p); err != nil {
				return nil, err
			}
			return r.dial(host, p)
		}}
	r.tb.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// inside is a client that trusts the sandbox's CA and the world.
func (r *rig) inside(h2 bool) *http.Client {
	p := r.keeper.ca.pool()
	p.AddCert(r.world.cert)
	return r.client(p, h2)
}

// event waits for an event that match accepts.
func (r *rig) event(what string, match func(*event.Event) bool) event.Event {
	r.tb.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		r.keeper.mu.Lock()
		for i := range r.keeper.events {
			if match(&r.keeper.events[i]) {
				ev := r.keeper.events[i]
				r.keeper.mu.Unlock()
				return ev
			}
		}
		all := append([]event.Event(nil), r.keeper.events...)
		r.keeper.mu.Unlock()
		if time.Now().After(deadline) {
			for _, e := range all {
				r.tb.Logf("event: kind %d verdict %d %s %s:%d code=%s %s status=%d", e.Kind, e.Verdict, e.Method, e.DstName, e.DstPort, e.ReasonCode, e.Reason, e.Status)
			}
			r.tb.Fatalf("no event: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// denied waits for a refusal with a code.
func (r *rig) denied(code string) event.Event {
	r.tb.Helper()
	return r.event("denied "+code, func(e *event.Event) bool { return e.Verdict == event.Denied && e.ReasonCode == code })
}

// wantReset requires that a connection to addr is reset, now or at connect.
func (r *rig) wantReset(addr string) {
	r.tb.Helper()
	c, err := r.ns.dial("tcp", addr)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(3 * time.Second))
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !isReset(err) {
		r.tb.Errorf("%s: %v, want a reset", addr, err)
	}
}

// isReset tells whether err is how a refused connection looks to a client.
func isReset(err error) bool {
	return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNABORTED)
}
