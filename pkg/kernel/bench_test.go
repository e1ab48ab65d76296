// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// BenchmarkConnect measures connect4 inside the kernel by the number of rules
// in the tables, by the kernel's own clock (bpf_stats, itself about 50 ns):
// the whole hook with its record, and with the record throttled away.
func BenchmarkConnect(b *testing.B) {
	for _, rules := range []int{10, 1000, 100000} {
		for _, kind := range []string{"name", "cidr", "denied"} {
			for _, recorded := range []bool{true, false} {
				b.Run(fmt.Sprintf("rules=%d/%s/recorded=%v", rules, kind, recorded), func(b *testing.B) {
					benchConnect(b, rules, kind, recorded)
				})
			}
		}
	}
}

func benchConnect(b *testing.B, rules int, kind string, recorded bool) {
	f := newFence(b)
	cgroup, ns := newCgroup(b), newNamespace(b)
	box, err := f.AttachSandbox(cgroup, State{Sandbox: testSandbox, Policy: testPolicy})
	if err != nil {
		b.Fatal(err)
	}
	fillTables(b, f, rules)
	if !recorded {
		// Without a budget every record is throttled.
		if err := f.maps.Rates.Delete(uint32(testSandbox)); err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = f.Records(ctx, func(Record) {}) }() // what nobody reads is soon not kept
	in := ns.spawn(b, cgroup)
	defer func() {
		in.end()
		if err := detachSoon(box); err != nil {
			b.Error(err)
		}
	}()
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	addr := map[string]string{"name": "198.18.0.5:443", "cidr": "10.0.5.1:443", "denied": "192.0.2.1:443"}[kind]
	const burst = 900 // below a sandbox's share of one window
	for b.Loop() {
		in.try(attempt{Op: "flood-connect", Addr: addr, N: burst})
		if recorded {
			time.Sleep(110 * time.Millisecond)
		}
	}
	st, err := f.progs[HookConnect4].Stats()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(st.Runtime.Nanoseconds())/float64(st.RunCount), "ns/hook")
	b.ReportMetric(0, "ns/op")
}

func fillTables(b *testing.B, f *Fence, rules int) {
	b.Helper()
	names := make([]NameEntry, 0, rules)
	cidrs := make([]CIDREntry, 0, rules)
	for i, a := 0, virtualRange.Addr(); i < rules; i, a = i+1, a.Next() {
		names = append(names, NameEntry{Addr: a, Port: 443, Proto: ProtoUDP, Rule: uint32(i)})
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(10 + i>>16), byte(i >> 8), byte(i), 0}), 24)
		cidrs = append(cidrs, CIDREntry{Prefix: p, Port: 443, Proto: ProtoUDP, Allow: true, Rule: uint32(i)})
	}
	if err := f.PutNames(testPolicy, names); err != nil {
		b.Fatal(err)
	}
	if err := f.PutCIDRs(testPolicy, cidrs); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkSandboxes measures connect4 and the packet hook inside the kernel by
// the number of sandboxes that are attached, each with 100 rules.
func BenchmarkSandboxes(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("sandboxes=%d", n), func(b *testing.B) { benchSandboxes(b, n) })
	}
}

func benchSandboxes(b *testing.B, n int) {
	f := newFence(b)
	cgroup, ns := newCgroup(b), newNamespace(b)
	var boxes []*Sandbox
	for i := range n {
		path := cgroup
		if i > 0 {
			path = newCgroup(b)
		}
		box, err := f.AttachSandbox(path, State{Sandbox: testSandbox + uint32(i), Policy: testPolicy + uint32(i), Flags: FlagLoopback})
		if err != nil {
			b.Fatal(err)
		}
		boxes = append(boxes, box)
		var names []NameEntry
		for j, a := 0, virtualRange.Addr(); j < 100; j, a = j+1, a.Next() {
			names = append(names, NameEntry{Addr: a, Port: 443, Proto: ProtoUDP, Rule: uint32(j)})
		}
		if err := f.PutNames(testPolicy+uint32(i), names); err != nil {
			b.Fatal(err)
		}
	}
	in := ns.spawn(b, cgroup)
	defer func() {
		in.end()
		for _, box := range boxes {
			if err := detachSoon(box); err != nil {
				b.Error(err)
			}
		}
	}()
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	for b.Loop() {
		in.try(attempt{Op: "flood-connect", Addr: "198.18.0.5:443", N: 5000})
		in.try(attempt{Op: "flood-send", Addr: "127.0.0.1:9", N: 5000})
	}
	for hook, unit := range map[Hook]string{HookConnect4: "ns/connect", HookEgress: "ns/packet"} {
		st, err := f.progs[hook].Stats()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(st.Runtime.Nanoseconds())/float64(st.RunCount), unit)
	}
	b.ReportMetric(0, "ns/op")
}
