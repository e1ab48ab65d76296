// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringfence/ringfence/test/env"
	"github.com/ringfence/ringfence/test/node"
)

// Sandboxes and flows of each kind in each. RINGFENCE_MANY asks for another
// number of sandboxes.
const (
	manyUsually = 24
	manyFlows   = 3
)

func many() int {
	if n, err := strconv.Atoi(os.Getenv("RINGFENCE_MANY")); err == nil {
		return n
	}
	return manyUsually
}

// echoUDP answers every datagram with itself.
func echoUDP(t *testing.T) int {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// flowEnd is the end of one flow as its client saw it.
type flowEnd struct {
	network, kind string
	at            time.Time
}

func flowEnds(t *testing.T, file string) (out []flowEnd) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), " ", 3)
		at, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, flowEnd{f[0], f[2], time.Unix(0, at)})
	}
	return out
}

// One document takes what many sandboxes have open, TCP and UDP: all of it ends
// as at an end, none of it is left when `policy apply --wait` is back, and
// whoever has nothing to do with it goes on meanwhile.
func TestRevocationOfMany(t *testing.T) {
	v := newRevocable(t)
	udp := echoUDP(t)
	open := fmt.Sprintf("  - {id: gone, allow: \"gone.example:%d\", resolvesTo: [127.0.0.1/32]}\n  - {id: gone-udp, allow: \"gone.example:%d/udp\", resolvesTo: [127.0.0.1/32]}\n", v.port, udp)
	v.apply(t, v.write(t, "many.yaml", open))
	ws := v.n.Workspace(t)
	node.BuildInto(t, ws, "test/faults/testdata/many")
	names := startMany(t, v, ws, udp)
	bystander := startLoad(t, v.n, "bystander", fmt.Sprintf("stream:stream:stays.example:%d", v.port))
	bystander.more(t, nil, 3, "stream")
	before := bystander.counts(t)

	began := time.Now()
	v.apply(t, v.deny)
	took := time.Since(began)
	var late, all []time.Duration
	for _, name := range names {
		file := filepath.Join(ws, name+".ended")
		eventually(t, name+": its flows end", func() bool { _, err := os.Stat(file); return err == nil })
		ends := flowEnds(t, file)
		if len(ends) != 2*manyFlows {
			t.Errorf("%s: %d flows have ended of %d", name, len(ends), 2*manyFlows)
		}
		for _, e := range ends {
			if !slices.Contains([]string{"ECONNABORTED", "ECONNRESET", "ECONNREFUSED", "EACCES"}, e.kind) {
				t.Errorf("%s: %s: %s", name, e.network, e.kind)
			}
			all = append(all, e.at.Sub(began))
			if d := e.at.Sub(began) - took; d > 0 {
				late = append(late, d)
			}
		}
	}
	slices.Sort(all)
	t.Logf("%d sandboxes, %d flows: apply --wait took %s; flows ended after %s (the first), %s (the median), %s (the last); %d of them after it was back",
		len(names), len(all), took, all[0], all[len(all)/2], all[len(all)-1], len(late))
	bystander.more(t, before, 10, "stream")
	if c := bystander.counts(t)["stream"]; c.Fail != before["stream"].Fail {
		t.Errorf("a flow that policy allows broke: %s", c.Last)
	}
}

// startMany starts the sandboxes and waits until their flows are open.
func startMany(t *testing.T, v *revocable, ws string, udp int) (names []string) {
	t.Helper()
	turn := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for i := range many() {
		name := fmt.Sprintf("many-%d", i)
		names = append(names, name)
		wg.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			r := v.n.CLIIn(t, ws, "run", "--detach", "--profile", "coding", "--name", name, "--", "./many", name, strconv.Itoa(manyFlows), v.at("gone"), fmt.Sprintf("gone.example:%d", udp))
			if r.Code != 0 {
				t.Errorf("%s: %d %s", name, r.Code, r.Stderr)
			}
		})
	}
	wg.Wait()
	for _, name := range names {
		for end := time.Now().Add(env.Wait(time.Minute)); ; time.Sleep(10 * time.Millisecond) {
			if _, err := os.Stat(filepath.Join(ws, name+".open")); err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s opens no flows: %s", name, v.n.CLI(t, "logs", name).Stdout)
			}
		}
	}
	return names
}
