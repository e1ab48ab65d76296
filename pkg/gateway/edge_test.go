// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	_ "github.com/ringfence/ringfence/pkg/policy/celexpr"
)

// handClock is moved by the test. The gateway looks at it every few
// milliseconds.
type handClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *handClock) set(clock string) {
	t, err := time.Parse("2006-01-02 15:04", "2026-03-02 "+clock)
	if err != nil {
		panic(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

const office = `when: {windows: [{from: "08:00", to: "18:00"}]}`

// When a window closes, what it let in ends, and nothing else does; the name
// goes on resolving, and who connects is refused until the window opens again.
func TestFlowsEndWithTheirWindow(t *testing.T) {
	doc := docHead + fmt.Sprintf(`egress:
  - {id: db, allow: "db.test:22", resolvesTo: [127.77.0.0/16], %[1]s}
  - {id: web, allow: "web.test:443", http: {methods: [GET]}, resolvesTo: [127.77.0.0/16], %[1]s}
  - {id: post, allow: "post.test:443", resolvesTo: [127.77.0.0/16], when: {expression: "method == 'GET'", windows: [{from: "08:00", to: "18:00"}]}}
  - {id: keep, allow: "keep.test:22", resolvesTo: [127.77.0.0/16]}
  - {id: shut, deny: "keep.test:22", when: {windows: [{from: "20:00", to: "21:00"}]}}
`, office)
	clock := &handClock{}
	clock.set("17:59")
	r := newRig(t, doc, rigOptions{clock: clock.Now, limits: Limits{ClockLook: 2 * time.Millisecond}})
	r.echo("db.test", 22, "")
	r.echo("keep.test", 22, "")
	cancelled := make(chan string, 2)
	stream := func(w http.ResponseWriter, req *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-req.Context().Done()
		cancelled <- req.Host
	}
	r.web("web.test", 443, stream)
	r.web("post.test", 443, stream)
	gone, stays := openRelay(t, r, "db.test", 22), openRelay(t, r, "keep.test", 22)
	for _, url := range []string{"https://web.test/", "https://post.test/"} {
		resp, err := r.inside(true).Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
	}

	clock.set("18:00")
	ended(t, gone)
	for range 2 {
		select {
		case <-cancelled:
		case <-time.After(3 * time.Second):
			t.Error("an upstream request lives on")
		}
	}
	r.event("the end of the relay", func(e *event.Event) bool {
		return e.DstName == "db.test" && e.ReasonCode == codeRevoked && e.Verdict == event.Denied
	})
	if _, err := io.WriteString(stays, "hi"); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(stays, make([]byte, 2)); err != nil {
		t.Errorf("a connection without a window was closed: %v", err)
	}
	if c, err := r.dial("db.test", 22); err == nil {
		ended(t, c)
	} else if !isReset(err) {
		t.Errorf("after the window: %v, want a reset", err)
	}
	r.event("the refusal", func(e *event.Event) bool {
		return e.DstName == "db.test" && e.Kind == event.KindNetwork && e.ReasonCode == "no-rule"
	})

	clock.set("20:30")
	ended(t, stays)
	clock.set("19:00") // set back: nobody waits for 21:00
	openRelay(t, r, "keep.test", 22)
	clock.set("08:00")
	openRelay(t, r, "db.test", 22)
}

func TestDatagramsEndWithTheirWindow(t *testing.T) {
	clock := &handClock{}
	clock.set("17:59")
	r := newRig(t, datagramPolicy, rigOptions{limits: Limits{ClockLook: 2 * time.Millisecond}, clock: clock.Now})
	peers := r.answers("a.test", datagramPort)
	r.setPolicy(2, docHead+"egress:\n  - {id: a, allow: \"a.test:7007/udp\", resolvesTo: [127.77.0.0/16], "+office+"}\n")
	c := r.udp("udp4", "", r.virtual("a.test").String())
	if got, err := askOnce(c, "1"); got != "a.test 1" {
		t.Fatalf("%q, %v", got, err)
	}
	clock.set("18:00")
	r.event("the end of the flow", func(e *event.Event) bool { return e.DstName == "a.test" && e.ReasonCode == codeRevoked })
	if got, err := askOnce(c, "2"); err == nil {
		t.Errorf("%q after the window", got)
	}
	clock.set("08:00")
	time.Sleep(2 * refusedFor) // what was refused stays refused for that long
	if got, err := askOnce(r.udp("udp4", "", r.virtual("a.test").String()), "3"); got != "a.test 3" {
		t.Errorf("%q, %v", got, err)
	}
	if n := len(peers); n != 2 {
		t.Errorf("%d datagrams came out", n)
	}
}

// Requests are decided one by one at their own time, in place and by the HTTP
// server.
func TestRequestsAreDecidedAtTheirTime(t *testing.T) {
	clock := &handClock{}
	clock.set("10:00")
	r := newRig(t, docHead+`egress:
  - {id: get, allow: "web.test:443", resolvesTo: [127.77.0.0/16], when: {expression: "method == 'GET'"}}
  - {id: put, allow: "web.test:443", resolvesTo: [127.77.0.0/16], when: {expression: "method == 'PUT' && path.startsWith('/up/')", windows: [{from: "08:00", to: "18:00"}]}}
`, rigOptions{clock: clock.Now, limits: Limits{ClockLook: 2 * time.Millisecond}})
	r.web("web.test", 443, func(w http.ResponseWriter, req *http.Request) { _, _ = io.WriteString(w, req.Method) })
	for _, h2 := range []bool{false, true} {
		c := r.inside(h2)
		for _, q := range []struct {
			at, method, path string
			want             int
		}{
			{"10:00", "GET", "/", 200}, {"10:00", "PUT", "/up/a", 200}, {"10:00", "PUT", "/down", 403}, {"10:00", "DELETE", "/up/a", 403},
			{"19:00", "PUT", "/up/a", 403}, {"19:00", "GET", "/", 200}, {"10:00", "PUT", "/up/a", 200},
		} {
			clock.set(q.at)
			req, _ := http.NewRequestWithContext(context.Background(), q.method, "https://web.test"+q.path, nil)
			resp, err := c.Do(req)
			if err != nil {
				t.Fatalf("%+v: %v", q, err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != q.want {
				t.Errorf("h2 %v %+v: %d", h2, q, resp.StatusCode)
			}
		}
	}
}

// An edge of one's rules is nothing to others: what they keep stays.
func TestAnEdgeConcernsOnlyWhoHasTheRule(t *testing.T) {
	clock := &handClock{}
	clock.set("17:59")
	r := newRig(t, docHead+`egress:
  - {id: web, allow: "web.test:443"}
  - {id: theirs, allow: "db.test:22", for: "org:local/team:other", when: {windows: [{from: "08:00", to: "18:00"}]}}
`, rigOptions{clock: clock.Now, limits: Limits{ClockLook: 2 * time.Millisecond}})
	other := Sandbox{ID: 2, Name: "theirs", Principal: r.p}
	other.Principal.Team = "other"
	if err := r.g.AddSandbox(other); err != nil {
		t.Fatal(err)
	}
	r.g.mu.Lock()
	mine, theirs := r.g.sandboxes[1], r.g.sandboxes[2]
	r.g.mu.Unlock()
	before, theirsBefore := mine.epoch.Load(), theirs.epoch.Load()
	clock.set("18:00")
	for i := 0; theirs.epoch.Load() == theirsBefore; i++ {
		if i > 2000 {
			t.Fatal("the edge was not noticed")
		}
		time.Sleep(time.Millisecond)
	}
	if mine.epoch.Load() != before {
		t.Error("a sandbox without such a rule was decided again")
	}
}

// Model calls are decided at their own time too, and shadow rules told of.
func TestModelCallsAreDecidedAtTheirTime(t *testing.T) {
	clock := &handClock{}
	clock.set("10:00")
	r := newRig(t, docHead+`inference:
  - {id: nights, deny: "gpt-*", when: {windows: [{from: "20:00", to: "06:00"}]}}
  - {id: large, deny: "gpt-large", when: {expression: "model.endsWith('large') && dialect == 'openai'"}}
  - {id: trial, model: "gpt-5", action: require-approval, mode: shadow}
`, rigOptions{clock: clock.Now})
	for _, q := range []struct {
		at, model string
		want      int
	}{{"10:00", "gpt-5", 200}, {"10:00", "gpt-large", 403}, {"21:00", "gpt-5", 403}, {"06:00", "gpt-5", 200}} {
		clock.set(q.at)
		resp, err := r.inside(true).Post("https://api.openai.com/v1/chat/completions", "application/json",
			strings.NewReader(`{"model":"`+q.model+`","messages":[{"role":"user","content":"hi"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != q.want {
			t.Errorf("%+v: %d", q, resp.StatusCode)
		}
	}
	r.event("what the rule in shadow mode would ask", func(e *event.Event) bool {
		return e.Kind == event.KindInference && e.Verdict == event.Allowed && e.Shadow == "require-approval by test/trial"
	})
	r.event("the refusal at night", func(e *event.Event) bool {
		return e.Kind == event.KindInference && e.Verdict == event.Denied && e.Rule == "test/nights" && e.Shadow == ""
	})
}

// A rule in shadow mode is told of, counted and otherwise nothing: it has no
// connection looked into either.
func TestShadowRulesAreRecordedOnly(t *testing.T) {
	r := newRig(t, docHead+`egress:
  - {id: web, allow: "web.test:443", resolvesTo: [127.77.0.0/16], http: {methods: [GET, PUT]}}
  - {id: no-put, deny: "web.test:443", http: {methods: [PUT]}, mode: shadow}
  - {id: db, allow: "db.test:22", resolvesTo: [127.77.0.0/16]}
  - {id: no-db, deny: "db.test:22", mode: shadow}
  - {id: pass, allow: "pass.test:443", resolvesTo: [127.77.0.0/16]}
  - {id: look, deny: "pass.test:443", http: {paths: ["/x"]}, mode: shadow}
  - {id: new, allow: "new.test:443", mode: shadow}
`, rigOptions{})
	r.web("web.test", 443, func(http.ResponseWriter, *http.Request) {})
	r.web("pass.test", 443, func(http.ResponseWriter, *http.Request) {})
	r.echo("db.test", 22, "")
	c := r.inside(false)
	for _, method := range []string{"GET", "PUT"} {
		req, _ := http.NewRequestWithContext(context.Background(), method, "https://web.test/", nil)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("%s: %d", method, resp.StatusCode)
		}
	}
	r.event("the PUT", func(e *event.Event) bool {
		return e.Method == "PUT" && e.Verdict == event.Allowed && e.Rule == "test/web" && e.Shadow == "block by test/no-put"
	})
	r.event("the GET", func(e *event.Event) bool { return e.Method == "GET" && e.Verdict == event.Allowed && e.Shadow == "" })

	openRelay(t, r, "db.test", 22).Close()
	r.event("the relay", func(e *event.Event) bool {
		return e.DstName == "db.test" && e.Kind == event.KindNetwork && e.Verdict == event.Allowed && e.Shadow == "block by test/no-db"
	})

	if _, err := r.lookup("new.test"); err == nil {
		t.Error("a rule in shadow mode lets a name resolve")
	}
	r.event("the question", func(e *event.Event) bool {
		return e.Kind == event.KindDNS && e.DstName == "new.test" && e.Verdict == event.Denied && e.Shadow == "allow by test/new"
	})

	tc := tls.Client(r.mustDial("pass.test", 443), &tls.Config{RootCAs: r.world.pool(), ServerName: "pass.test"})
	if err := tc.Handshake(); err != nil {
		t.Errorf("a rule in shadow mode has the connection terminated: %v", err)
	}
	tc.Close()

	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "ringfence_shadow_decisions_total" {
			continue
		}
		for _, m := range f.Metric {
			key := ""
			for _, l := range m.Label {
				key += l.GetValue() + " "
			}
			counted[key] += m.GetCounter().GetValue()
		}
	}
	if counted["block http allowed "] != 1 || counted["block network allowed "] != 1 || counted["allow dns denied "] != 1 {
		t.Errorf("counted %v", counted)
	}
}

// TestWallClock: a monotonic reading would hide that the clock was set back.
func TestWallClock(t *testing.T) {
	g := &Gateway{opt: Options{Clock: time.Now}}
	if now := g.wall(); now != now.Round(0) {
		t.Errorf("%v compares by the monotonic clock", now)
	}
}

// TestQuestionsDoNotWaitForPolicy: a keeper ends a gateway that does not say what
// it serves. However long judging flows takes, it says so meanwhile.
func TestQuestionsDoNotWaitForPolicy(t *testing.T) {
	g := &Gateway{sandboxes: map[uint32]*sandbox{7: {}}}
	g.publishLocked()
	g.mu.Lock() // as while flows are judged
	defer g.mu.Unlock()
	if got := g.Sandboxes(); len(got) != 1 || got[0] != 7 {
		t.Errorf("%v", got)
	}
	if got := g.Revisions(); len(got) != 1 || got[7] != 0 {
		t.Errorf("%v", got)
	}
}
