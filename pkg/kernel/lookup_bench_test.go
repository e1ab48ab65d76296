// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// BenchmarkLookup measures one lookup in the real tables by the number of
// rules, without the hook around it: a program that makes a key and looks it
// up, less the same program without the lookup, both repeated by the kernel
// (BPF_PROG_TEST_RUN), so that no clock is read per run. "hot" asks for one
// entry again and again, "random" for any of them: with many rules that is
// the time of missing the processor's caches.
func BenchmarkLookup(b *testing.B) {
	for _, rules := range []int{10, 1000, 100000} {
		f := newFence(b)
		fillTables(b, f, rules)
		for _, t := range []struct {
			name  string
			table *ebpf.Map
			key   func(first, span int) (asm.Instructions, int16)
		}{
			{"name", f.maps.Names, nameKeyCode},
			{"cidr", f.maps.Cidrs, cidrKeyCode},
		} {
			b.Run(fmt.Sprintf("rules=%d/%s/hot", rules, t.name), func(b *testing.B) {
				code, at := t.key(rules/2, 1)
				benchLookup(b, lookupProgram(b, code, at, nil), lookupProgram(b, code, at, t.table))
			})
			b.Run(fmt.Sprintf("rules=%d/%s/random", rules, t.name), func(b *testing.B) {
				code, at := t.key(0, rules)
				benchLookup(b, lookupProgram(b, code, at, nil), lookupProgram(b, code, at, t.table))
			})
		}
	}
}

func benchLookup(b *testing.B, empty, lookup *ebpf.Program) {
	const repeat = 200_000
	var nets []float64
	for b.Loop() {
		nets = append(nets, perRun(b, lookup, repeat)-perRun(b, empty, repeat))
	}
	slices.Sort(nets)
	mid := nets[len(nets)/2]
	off := make([]float64, len(nets))
	for i, v := range nets {
		off[i] = max(v-mid, mid-v)
	}
	slices.Sort(off)
	b.ReportMetric(mid, "ns/lookup")
	b.ReportMetric(off[len(off)/2], "ns/lookup-mad")
	b.ReportMetric(0, "ns/op")
}

// perRun is the mean time of one run in nanoseconds. The program's answer is 1
// only where a lookup found its entry.
func perRun(b *testing.B, p *ebpf.Program, repeat int) float64 {
	b.Helper()
	ret, d, err := p.Benchmark(make([]byte, 64), repeat, nil)
	if err != nil {
		b.Fatal(err)
	}
	if ret != 1 {
		b.Fatal("the key is not in the table: a miss was measured")
	}
	return float64(d.Nanoseconds())
}

// lookupProgram makes a key at the stack offset at, and looks it up in table
// if there is one.
func lookupProgram(b *testing.B, key asm.Instructions, at int16, table *ebpf.Map) *ebpf.Program {
	b.Helper()
	code := append(slices.Clone(key), asm.Mov.Imm(asm.R0, 1))
	if table != nil {
		code = append(code,
			asm.LoadMapPtr(asm.R1, table.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, int32(at)),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.Mov.Imm(asm.R0, 1),
		)
	}
	code = append(code, asm.Return().WithSymbol("out"))
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "bench_lookup", Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: code})
	if err != nil {
		b.Fatalf("%+v", err)
	}
	b.Cleanup(func() { _ = p.Close() })
	return p
}

// randomEntry leaves base plus the shifted number of a random entry below span
// in R6 in network byte order.
func randomEntry(span int, shift int32, base uint32) asm.Instructions {
	return asm.Instructions{
		asm.FnGetPrandomU32.Call(),
		asm.Mov.Reg32(asm.R6, asm.R0),
		asm.Mod.Imm32(asm.R6, int32(span)),
		asm.LSh.Imm32(asm.R6, shift),
		asm.Add.Imm32(asm.R6, int32(base)),
		asm.HostTo(asm.BE, asm.R6, asm.Word),
	}
}

// nameKeyCode writes the struct rf_name_key of an entry of fillTables: one of
// span entries from first on.
func nameKeyCode(first, span int) (asm.Instructions, int16) {
	const at = -16
	return append(randomEntry(span, 0, 198<<24|18<<16+uint32(first)),
		asm.StoreImm(asm.RFP, at, testPolicy, asm.Word),
		asm.StoreMem(asm.RFP, at+4, asm.R6, asm.Word),
		asm.StoreImm(asm.RFP, at+8, 443, asm.Half),
		asm.StoreImm(asm.RFP, at+10, int64(ProtoUDP), asm.Half)), at
}

// cidrKeyCode writes the struct rf_cidr_key of an address in a prefix of
// fillTables.
func cidrKeyCode(first, span int) (asm.Instructions, int16) {
	const at = -32
	const bits = 64 + 128 // RF_CIDR_HEAD_BITS and the whole address
	return append(randomEntry(span, 8, 10<<24|1+uint32(first)<<8),
		asm.StoreImm(asm.RFP, at, bits, asm.Word),
		asm.StoreImm(asm.RFP, at+4, testPolicy, asm.Word),
		asm.StoreImm(asm.RFP, at+8, int64(ProtoUDP), asm.Half),
		asm.StoreImm(asm.RFP, at+10, 443, asm.Half),
		asm.StoreImm(asm.RFP, at+12, 0, asm.Word),
		asm.StoreImm(asm.RFP, at+16, 0, asm.Word),
		asm.StoreImm(asm.RFP, at+20, -1<<16, asm.Word),
		asm.StoreMem(asm.RFP, at+24, asm.R6, asm.Word)), at
}
