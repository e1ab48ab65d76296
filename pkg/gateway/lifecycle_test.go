// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

// openRelay makes a relay that has carried bytes.
func openRelay(t *testing.T, r *rig, name string, port uint16) net.Conn {
	t.Helper()
	c := r.mustDial(name, port)
	_, _ = io.WriteString(c, "hi")
	if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	return c
}

func ended(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
	if _, err := io.ReadAll(c); !isReset(err) {
		t.Errorf("the connection ended with %v, want a reset", err)
	}
}

func TestRevokedConnectionsAreClosedAtOnce(t *testing.T) {
	allow := func(rules string) string {
		return docHead + "egress:\n" + rules + "  - {id: keep, allow: \"keep.test:22\", resolvesTo: [127.77.0.0/16]}\n"
	}
	both := allow("  - {id: db, allow: \"db.test:22\", resolvesTo: [127.77.0.0/16]}\n  - {id: web, allow: \"web.test:443\", http: {methods: [GET]}, resolvesTo: [127.77.0.0/16]}\n")
	r := newRig(t, both, rigOptions{})
	r.echo("db.test", 22, "")
	r.echo("keep.test", 22, "")
	cancelled := make(chan struct{}, 1)
	r.web("web.test", 443, func(w http.ResponseWriter, req *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-req.Context().Done()
		cancelled <- struct{}{}
	})
	gone, stays := openRelay(t, r, "db.test", 22), openRelay(t, r, "keep.test", 22)
	resp, err := r.inside(true).Get("https://web.test/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()

	r.setPolicy(2, allow(""))
	ended(t, gone)
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the stream ended in good order")
	}
	select {
	case <-cancelled:
	case <-time.After(3 * time.Second):
		t.Error("the upstream request lives on")
	}
	if _, err := io.WriteString(stays, "hi"); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(stays, make([]byte, 2)); err != nil {
		t.Errorf("an allowed connection was closed: %v", err)
	}
	if ev := r.denied(codeRevoked); ev.BytesIn == 0 && ev.Status == 0 {
		t.Errorf("event %+v", ev)
	}
	if _, err := r.lookup("db.test"); err == nil {
		t.Error("the revoked name resolves")
	}
}

func TestRelayEndsWhenItsAddressIsNoLongerAdmitted(t *testing.T) {
	doc := func(extra string) string {
		return docHead + "egress:\n  - {id: db, allow: \"db.test:22\", resolvesTo: [127.77.0.0/16]}\n" + extra
	}
	r := newRig(t, doc(""), rigOptions{})
	r.echo("db.test", 22, "")
	c := openRelay(t, r, "db.test", 22)
	r.setPolicy(2, doc("  - {id: no, deny: \"127.0.0.0/8\"}\n"))
	ended(t, c)
	r.denied(codeRevoked)
}

func TestRemovedSandboxLeavesNothing(t *testing.T) {
	r := newRig(t, relayPolicy, rigOptions{})
	r.echo("db.test", 22, "")
	time.Sleep(50 * time.Millisecond)
	before := runtime.NumGoroutine()
	c := openRelay(t, r, "db.test", 22)
	idle := r.mustDial("pass.test", 443)
	r.g.RemoveSandbox(1)
	ended(t, c)
	ended(t, idle)
	if _, err := r.ns.dial("tcp", "198.18.1.10:22"); err == nil {
		t.Error("still listening")
	}
	if n := r.g.conns.Load(); n != 0 || len(r.g.Sandboxes()) != 0 {
		t.Errorf("%d connections, sandboxes %v", n, r.g.Sandboxes())
	}
	r.g.RemoveSandbox(1)
	for deadline := time.Now().Add(3 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
	// The same number can be served again, names are learned anew.
	if err := r.g.AddSandbox(r.sandbox(1, false)); err != nil {
		t.Fatal(err)
	}
	openRelay(t, r, "db.test", 22)
	if err := r.g.AddSandbox(Sandbox{ID: 1}); err == nil {
		t.Error("added twice")
	}
}

func TestNamesGivenBeforehand(t *testing.T) {
	r := newRig(t, relayPolicy, rigOptions{})
	r.echo("db.test", 22, "")
	a := netip.MustParseAddr("198.18.9.9")
	r.wantReset("198.18.9.9:22")
	r.g.AddNames(1, map[netip.Addr]string{a: "db.test"})
	c, err := r.ns.dial("tcp", "198.18.9.9:22")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "x")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func TestDrainLetsRequestsFinish(t *testing.T) {
	r := newRig(t, httpPolicy, rigOptions{})
	step := make(chan struct{})
	r.web("any.test", 443, func(w http.ResponseWriter, req *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-step
		_, _ = io.WriteString(w, "done")
	})
	resp, err := r.inside(false).Get("https://any.test/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	drained := make(chan struct{})
	go func() { r.g.Drain(context.Background()); close(drained) }()
	time.Sleep(50 * time.Millisecond)
	if _, err := r.ns.dial("tcp", "198.18.1.10:443"); err == nil {
		t.Error("accepts while draining")
	}
	close(step)
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "done" {
		t.Errorf("%q, %v", b, err)
	}
	select {
	case <-drained:
	case <-time.After(5 * time.Second):
		t.Fatal("Drain did not return")
	}
	r.event("the request's event", func(e *event.Event) bool { return e.Kind == event.KindHTTP && e.Status == 200 })
}

func TestDrainEndsWithItsContext(t *testing.T) {
	r := newRig(t, relayPolicy, rigOptions{})
	r.echo("db.test", 22, "")
	c := openRelay(t, r, "db.test", 22)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	r.g.Drain(ctx)
	ended(t, c)
}

func TestConnectionsOfASandboxAreBounded(t *testing.T) {
	r := newRig(t, relayPolicy, rigOptions{limits: Limits{SandboxConns: 3}})
	r.echo("db.test", 22, "")
	for range 3 {
		openRelay(t, r, "db.test", 22)
	}
	r.wantReset("198.18.1.10:22")
	r.denied(codeConnections)
}

func TestIdleRelaysAreClosed(t *testing.T) {
	r := newRig(t, relayPolicy, rigOptions{limits: Limits{RelayIdle: 400 * time.Millisecond}})
	r.echo("db.test", 22, "")
	c := openRelay(t, r, "db.test", 22)
	busy := openRelay(t, r, "db.test", 22)
	for range 8 {
		time.Sleep(100 * time.Millisecond)
		if _, err := io.WriteString(busy, "x"); err != nil {
			t.Fatalf("a busy relay was closed: %v", err)
		}
	}
	ended(t, c)
	r.event("idle", func(e *event.Event) bool { return e.ReasonCode == codeIdle && e.Verdict == event.Allowed })
}

func TestLongRelaysAreToldBeforeTheyEnd(t *testing.T) {
	r := newRig(t, relayPolicy, rigOptions{limits: Limits{TellOpen: 20 * time.Millisecond}})
	r.echo("db.test", 22, "")
	c := openRelay(t, r, "db.test", 22)
	r.event("open", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.Activity == "open" && e.DstName == "db.test"
	})
	c.Close()
	r.event("close", func(e *event.Event) bool {
		return e.Kind == event.KindNetwork && e.Activity == "close" && e.BytesOut == 2
	})
}

// flakyListener fails with EMFILE a few times before it accepts.
type flakyListener struct {
	net.Listener
	failures int
}

func (l *flakyListener) Accept() (net.Conn, error) {
	if l.failures > 0 {
		l.failures--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestAcceptGoesOnAfterDescriptorsRanOut(t *testing.T) {
	r := newRig(t, relayPolicy, rigOptions{})
	r.g.RemoveSandbox(1)
	s := r.sandbox(1, false)
	s.TCP4 = &flakyListener{s.TCP4, 3}
	if err := r.g.AddSandbox(s); err != nil {
		t.Fatal(err)
	}
	r.echo("db.test", 22, "")
	openRelay(t, r, "db.test", 22)
	r.event("descriptors", func(e *event.Event) bool { return e.Kind == event.KindDaemon && e.ReasonCode == codeDescriptors })
}

func TestFullEventBufferRefusesNewWork(t *testing.T) {
	r := newRig(t, httpPolicy, rigOptions{limits: Limits{Events: 24, FoldWindow: time.Hour}}) // 3 places for one sandbox
	r.web("any.test", 443, hello)
	client := r.inside(false)
	if resp, _ := get(t, client, "GET", "https://any.test/", nil); resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	r.event("first", func(e *event.Event) bool { return e.Kind == event.KindHTTP })
	r.keeper.setDown(true)
	served, refused := 0, 0
	for i := range 20 {
		resp, _ := get(t, client, "GET", fmt.Sprintf("https://any.test/%d", i), nil)
		switch resp.StatusCode {
		case 200:
			served++
		case 503:
			refused++
		}
	}
	if served > 3 || served+refused != 20 {
		t.Errorf("served %d, refused %d", served, refused)
	}
	if _, err := r.lookup("api.test"); err == nil || !strings.Contains(err.Error(), "SERVFAIL") {
		t.Errorf("DNS with a full buffer: %v", err)
	}
	r.wantReset("198.18.1.10:443")
	r.keeper.setDown(false)
	loss := r.event("loss", func(e *event.Event) bool { return e.Kind == event.KindLoss })
	if loss.Lost < uint64(refused) {
		t.Errorf("%d lost, %d requests refused", loss.Lost, refused)
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		if resp, _ := get(t, client, "GET", "https://any.test/again", nil); resp.StatusCode == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("service did not come back")
		}
		time.Sleep(20 * time.Millisecond)
	}
	// Every served request is in the log.
	r.event("again", func(e *event.Event) bool { return strings.HasSuffix(e.URL, "/again") && e.Status == 200 })
	r.keeper.mu.Lock()
	defer r.keeper.mu.Unlock()
	logged := 0
	for _, e := range r.keeper.events {
		if e.Kind == event.KindHTTP && e.Status == 200 {
			logged++
		}
	}
	if logged != served+2 {
		t.Errorf("%d requests served, %d logged", served+2, logged)
	}
}

func TestSandboxesDoNotMeet(t *testing.T) {
	r := newRig(t, relayPolicy, rigOptions{})
	r.echo("db.test", 22, "")
	if _, err := r.lookup("db.test"); err != nil {
		t.Fatal(err)
	}
	other := *r
	other.ns = newNamespace(t)
	if err := r.g.AddSandbox(other.sandbox(2, false)); err != nil {
		t.Fatal(err)
	}
	other.wantReset("198.18.1.10:22") // the first sandbox's address of db.test
	r.event("unknown", func(e *event.Event) bool { return e.Sandbox == "sbx-2" && e.ReasonCode == codeUnknownAddr })
}

func BenchmarkRequest(b *testing.B) {
	r := newRig(b, httpPolicy, rigOptions{})
	r.web("web.test", 80, func(w http.ResponseWriter, req *http.Request) { _, _ = io.WriteString(w, "ok") })
	run := func(b *testing.B, c *http.Client, url string) {
		for b.Loop() {
			resp, err := c.Get(url)
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
	a, _ := r.hosts.Lookup(context.Background(), "web.test")
	b.Run("direct", func(b *testing.B) { run(b, &http.Client{Transport: &http.Transport{}}, "http://"+a[0].String()+"/") })
	b.Run("gateway", func(b *testing.B) { run(b, r.inside(false), "http://web.test/") })
}

func BenchmarkRelayRoundTrip(b *testing.B) {
	r := newRig(b, relayPolicy, rigOptions{})
	r.echo("db.test", 22, "")
	c := r.mustDial("db.test", 22)
	_ = c.SetDeadline(time.Time{})
	br := bufio.NewReader(c)
	for b.Loop() {
		if _, err := io.WriteString(c, "ping\n"); err != nil {
			b.Fatal(err)
		}
		if _, err := br.ReadString('\n'); err != nil {
			b.Fatal(err)
		}
	}
}
