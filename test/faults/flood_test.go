// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// flood runs testdata/flood in a sandbox of its own and returns what it counted
// itself, and what reads the sandbox's events.
func flood(t *testing.T, n *node.Node, name, kind string, times int) (own func() []event.Event, done int) {
	t.Helper()
	ws := n.Workspace(t)
	program := node.BuildInto(t, ws, "test/faults/testdata/flood")
	r := n.CLI(t, "run", "--profile", "coding", "--workspace", ws, "--name", name, "--", program, kind, fmt.Sprint(times))
	if _, err := fmt.Sscanf(r.Stdout[max(strings.LastIndex(r.Stdout, "done"), 0):], "done %d", &done); err != nil || r.Code != 0 {
		t.Fatalf("exit status %d, %v\n%s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	return func() (own []event.Event) {
		t.Helper()
		id := ""
		for _, e := range n.Events(t) {
			if e.Kind == event.KindSandboxStart && strings.Contains(e.Args, "flood "+kind+" "+fmt.Sprint(times)) {
				id = e.Sandbox
			}
			if id != "" && e.Sandbox == id {
				own = append(own, e)
			}
		}
		return own
	}, done
}

// accounts sums up what events and gap events say of one ring.
func accounts(evs []event.Event, kind event.Kind, ring string, mine func(*event.Event) bool) (events int, told, lost uint64) {
	for i := range evs {
		e := &evs[i]
		switch {
		case e.Kind == kind && mine(e):
			events++
			told += max(e.Count, 1)
		case e.Kind == event.KindLoss && e.Object == ring+" ring":
			lost += e.Lost
		}
	}
	return events, told, lost
}

// Whatever a sandbox tries, however often, is told to the last attempt: in
// events, in events that count several, or as a gap. The number of records it
// can make is bounded.
func TestFloodIsAccounted(t *testing.T) {
	n := node.Start(t, node.Options{})
	for _, c := range []struct {
		kind  string
		times int
		event event.Kind
		ring  string
		mine  func(*event.Event) bool
		most  int    // events of this kind
		other uint64 // attempts of the same ring that the program's own start may make
	}{
		{"connect", 40, event.KindNetwork, "denials", isConnect, 41, 0},
		{"connect", 1_000_000, event.KindNetwork, "denials", isConnect, 6500, 0},
		{"open", 300_000, event.KindFile, "refusals", func(e *event.Event) bool { return strings.HasSuffix(e.Path, "/mem") }, 1000, 100},
	} {
		t.Run(fmt.Sprintf("%s/%d", c.kind, c.times), func(t *testing.T) {
			own, done := flood(t, n, "flood", c.kind, c.times)
			if done != c.times {
				t.Errorf("%d of %d were refused", done, c.times)
			}
			// The end of a sandbox does not wait for ever for its records: on a busy
			// machine the last repeats are told some seconds later.
			var events int
			var told, lost uint64
			eventually(t, "every attempt is accounted for", func() bool {
				events, told, lost = accounts(own(), c.event, c.ring, c.mine)
				return told+lost >= uint64(c.times)
			})
			if all := told + lost; all < uint64(c.times) || all > uint64(c.times)+c.other {
				t.Errorf("%d are told in %d events and %d as lost, together %d of %d", told, events, lost, told+lost, c.times)
			}
			if events > c.most {
				t.Errorf("%d events", events)
			}
			if small := c.times < 1000; small && (lost > 0 || events != c.times) {
				t.Errorf("%d events and %d lost: a few must be told one by one", events, lost)
			} else if !small && lost == 0 {
				t.Error("nothing was throttled: this was no flood")
			}
			t.Logf("%d attempts: %d events tell of %d, gaps of %d", c.times, events, told, lost)
		})
	}
	m := n.Metrics(t)
	sum := m["ringfence_events_delivered_total"] + m["ringfence_events_waiting"]
	for name, v := range m {
		if strings.HasPrefix(name, "ringfence_events_dropped_total") {
			sum += v
		}
	}
	if m["ringfence_events_produced_total"] != sum || sum == 0 {
		t.Errorf("the log's balance: %v produced, %v delivered, dropped or waiting", m["ringfence_events_produced_total"], sum)
	}
	if r := n.CLI(t, "audit", "verify"); r.Code != 0 {
		t.Errorf("%s%s", r.Stdout, r.Stderr)
	}
}

func isConnect(e *event.Event) bool {
	return e.IsDenial() && strings.HasPrefix(e.DstAddr, "203.0.113.")
}

// A neighbour of a flooding sandbox has every record of its own.
func TestFloodHidesNoNeighbour(t *testing.T) {
	n := node.Start(t, node.Options{})
	ws := n.Workspace(t)
	program := node.BuildInto(t, ws, "test/faults/testdata/flood")
	for _, kind := range []string{"connect", "open", "spawn"} {
		r := n.CLI(t, "run", "--detach", "--name", "flood-"+kind, "--profile", "coding", "--workspace", ws, "--", program, kind, "1000000000")
		if r.Code != 0 {
			t.Fatal(r.Stderr)
		}
	}
	eventually(t, "the floods are throttled", func() bool {
		lost := map[string]bool{}
		for name, v := range n.Metrics(t) {
			for _, ring := range []string{"denials", "refusals"} {
				if strings.HasPrefix(name, "ringfence_bpf_records_lost_total") && strings.Contains(name, ring) && v > 0 {
					lost[ring] = true
				}
			}
		}
		return len(lost) == 2
	})
	const tries = 30
	r := n.CLI(t, "run", "--name", "quiet", "--workspace", "none", "--", "python3", "-c", fmt.Sprintf(`import socket, time
for i in range(%d):
    for s, call in ((socket.socket(), "connect"), (socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "connect")):
        try:
            s.connect(("192.0.2.%%d" %% i, 1000 + i)); print("PASSED")
        except PermissionError:
            pass
    try:
        open("/proc/1/mem").read(); print("PASSED")
    except OSError:
        pass
    time.sleep(0.02)
`, tries))
	if r.Code != 0 || r.Stdout != "" {
		t.Fatalf("%d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	// On a machine that the floods keep busy the records come behind.
	seen := map[string]uint64{}
	eventually(t, fmt.Sprintf("%d records of each kind", tries), func() bool {
		clear(seen)
		for _, e := range n.Events(t, "--sandbox", "quiet") {
			switch {
			case e.Kind == event.KindLoss:
				t.Fatalf("the neighbour lost records: %+v", e)
			case e.IsDenial() && strings.HasPrefix(e.DstAddr, "192.0.2."):
				seen[e.Proto] += max(e.Count, 1)
			case e.IsDenial() && strings.HasSuffix(e.Path, "/mem"):
				seen["mem"] += max(e.Count, 1)
			}
		}
		return seen["tcp"] >= tries && seen["udp"] >= tries && seen["mem"] >= tries
	})
	if seen["tcp"] != tries || seen["udp"] != tries || seen["mem"] != tries {
		t.Errorf("of %d each: %v", tries, seen)
	}
}

// The kernel's table of programs is one for all: a sandbox that executes more
// than it holds takes no program from the records of a neighbour.
func TestFloodOfProgramsHidesNoNeighbour(t *testing.T) {
	n := node.Start(t, node.Options{})
	ws := n.Workspace(t)
	quiet := n.CLI(t, "run", "--detach", "--name", "quiet", "--profile", "coding", "--workspace", ws, "--", "python3", "-c", `import os, socket, time
while not os.path.exists("go"):
    time.sleep(0.1)
try:
    socket.create_connection(("192.0.2.1", 443))
except OSError:
    pass
time.sleep(1000)`)
	if quiet.Code != 0 {
		t.Fatal(quiet.Stderr)
	}
	program := node.BuildInto(t, ws, "test/faults/testdata/flood")
	r := n.CLI(t, "run", "--profile", "coding", "--workspace", ws, "--", program, "spawn", "12000") // the table holds 8192
	if r.Code != 0 || !strings.Contains(r.Stdout, "done 12000") {
		t.Fatalf("%d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if err := os.WriteFile(filepath.Join(ws, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	e := n.WaitEvent(t, "the neighbour's denial", func(e *event.Event) bool { return e.IsDenial() && e.DstAddr == "192.0.2.1:443" })
	if !strings.Contains(e.Exe, "python3") || !strings.HasPrefix(e.Args, "python3 -c import os") {
		t.Errorf("the record names %q %q", e.Exe, e.Args)
	}
}
