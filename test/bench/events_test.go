// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// BenchmarkDenialLatency takes how long after a refused connect its record is
// printed by `events --follow`. The record's time is in whole milliseconds, so
// up to one of them is not latency.
func BenchmarkDenialLatency(b *testing.B) {
	n := node.Start(b, node.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	follow := n.Command(ctx, "events", "--follow", "--denied", "-o", "json")
	out, err := follow.StdoutPipe()
	need(b, err)
	need(b, follow.Start())
	b.Cleanup(func() { cancel(); _ = follow.Wait() })
	late := make(chan time.Duration, 1024)
	go func() {
		for sc := bufio.NewScanner(out); sc.Scan(); {
			now := time.Now()
			if e, err := event.ParseOCSF(sc.Bytes()); err == nil && strings.HasPrefix(e.DstAddr, "192.0.2.") {
				late <- now.Sub(e.Time)
			}
		}
	}()
	const each = 20
	r := rounds{}
	for b.Loop() {
		res := n.CLIIn(b, b.TempDir(), "run", "--workspace", "none", "--", "python3", "-c", fmt.Sprintf(`import socket, time
for i in range(%d):
    try: socket.socket().connect(("192.0.2.1", 1000 + i))
    except OSError: pass
    time.sleep(0.03)`, each))
		if res.Code != 0 {
			b.Fatal(res.Stderr)
		}
		var of series
		for range each {
			of = append(of, float64(<-late)/1e6)
		}
		r.add("median-ms", of.median())
		r.add("slowest-ms", maxOf(of))
	}
	r.report(b)
}

func maxOf(s series) (m float64) {
	for _, v := range s {
		m = max(m, v)
	}
	return m
}

// BenchmarkFlood lets one sandbox make a million refused connects as fast as it
// can, and adds up what the log tells of them.
func BenchmarkFlood(b *testing.B) {
	n := node.Start(b, node.Options{})
	ws := n.Workspace(b)
	program := node.BuildInto(b, ws, "test/faults/testdata/flood")
	const times = 1_000_000
	r := rounds{}
	for b.Loop() {
		before := cpuTime(b, n.PID())
		name := fmt.Sprint("flood", len(r["attempts/s"]))
		begin := time.Now()
		res := n.CLI(b, "run", "--name", name, "--workspace", ws, "--", program, "connect", fmt.Sprint(times))
		took := time.Since(begin)
		if res.Code != 0 || !strings.Contains(res.Stdout, fmt.Sprint("done ", times)) {
			b.Fatal(res.Stdout, res.Stderr)
		}
		r.add("keeper-cpu-ms", float64(cpuTime(b, n.PID())-before)/1e6)
		r.add("attempts/s", times/took.Seconds())
		var told, lost, records float64
		for _, e := range n.Events(b, "--sandbox", name) {
			switch {
			case e.Kind == event.KindNetwork && e.IsDenial():
				told += float64(max(e.Count, 1))
				records++
			case e.Kind == event.KindLoss && e.Object == "denials ring":
				lost += float64(e.Lost)
			}
		}
		r.add("records", records)
		r.add("unaccounted", times-told-lost)
	}
	r.report(b)
}
