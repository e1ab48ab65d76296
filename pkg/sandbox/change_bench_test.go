// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

const (
	changeBoxes = 1000
	changeRules = 10 * changeBoxes
)

// BenchmarkPolicyChange puts a compiled policy into force in a thousand
// sandboxes (real programs on real cgroups, without a process in them). Ten
// thousand rules change: those for names go for all sandboxes, of which each has
// ten names in use; of those for addresses each sandbox has ten of its own. The
// kernel judges every sandbox on the new policy after effect-ms; then the former
// tables are dropped.
func BenchmarkPolicyChange(b *testing.B) {
	for _, c := range []struct {
		name string
		docs func(port int) string
	}{{"names", namesPolicy}, {"addresses", addressPolicy}} {
		b.Run(c.name, func(b *testing.B) {
			l := newLive(b, Attestation{}, "")
			snaps := make([]*policy.Snapshot, 2)
			for i := range snaps {
				snaps[i] = compiled(b, uint64(i+2), c.docs(443+i))
			}
			before := l.mapBytes(b)
			boxes := l.empty(b, snaps[0])
			bare := l.mapBytes(b)
			var effect, whole, used []float64
			for i := 0; b.Loop(); i++ {
				snap := compiled(b, uint64(i+4), c.docs(443+i%2))
				began, ran := time.Now(), cpu(b)
				if err := l.Apply(snap); err != nil {
					b.Fatal(err)
				}
				whole = append(whole, time.Since(began).Seconds()*1000)
				used = append(used, (cpu(b)-ran).Seconds()*1000)
				effect = append(effect, l.dropped.Load().Sub(began).Seconds()*1000)
			}
			names, cidrs := l.usage(b)
			b.ReportMetric(median(effect), "effect-ms")
			b.ReportMetric(median(whole), "whole-ms")
			b.ReportMetric(median(used), "cpu-ms")
			b.ReportMetric(float64(names+cidrs), "entries")
			b.ReportMetric((l.mapBytes(b)-bare)/float64(names+cidrs), "entry-bytes")
			b.ReportMetric((bare-before)/changeBoxes, "sandbox-bytes")
			b.ReportMetric(0, "ns/op")
			l.remove(b, boxes)
		})
	}
}

// namesPolicy has rules for names, for everybody.
func namesPolicy(port int) string {
	var s strings.Builder
	s.WriteString("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: org:local\negress:\n")
	for i := range changeRules {
		fmt.Fprintf(&s, "  - {id: r%d, allow: \"h%d.test:%d\"}\n", i, i, port)
	}
	return s.String()
}

// addressPolicy has rules for addresses, each for one agent.
func addressPolicy(port int) string {
	var s strings.Builder
	for box := range changeBoxes {
		fmt.Fprintf(&s, "---\napiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p%d}\nscope: org:local/team:default/agent:a%d\negress:\n", box, box)
		for i := range changeRules / changeBoxes {
			fmt.Fprintf(&s, "  - {id: r%d, allow: \"10.%d.%d.%d/32:%d\"}\n", i, box/200, box%200, i+1, port)
		}
	}
	return s.String()
}

func compiled(b *testing.B, revision uint64, docs string) *policy.Snapshot {
	b.Helper()
	b.StopTimer()
	defer b.StartTimer()
	parsed, problems := policy.Parse("p.yaml", []byte(docs))
	if len(problems) > 0 {
		b.Fatal(problems[0])
	}
	snap, problems := policy.Compile(revision, parsed)
	if len(problems) > 0 {
		b.Fatal(problems[0])
	}
	runtime.GC() // what compiling left is not part of the change
	return snap
}

// empty makes sandboxes in which nothing runs, each with ten names in use.
func (l *live) empty(b *testing.B, snap *policy.Snapshot) []*Sandbox {
	b.Helper()
	dir := b.TempDir()
	var out []*Sandbox
	for i := range changeBoxes {
		number := uint32(i + 1)
		s := &Sandbox{m: l.Manager, state: Running, open: nil,
			Principal: scope.Principal{Org: "local", Team: "default", Agent: fmt.Sprintf("a%d", i), Sandbox: IDOf(number)}}
		s.Record = Record{ID: IDOf(number), Number: number, Created: time.Unix(int64(i), 0), Cgroup: filepath.Join(l.base, fmt.Sprintf("box%d", i))}
		var err error
		if s.names, err = OpenNames(filepath.Join(dir, s.Record.ID)); err != nil {
			b.Fatal(err)
		}
		for n := range changeRules / changeBoxes {
			if _, _, err := s.names.Allocate(fmt.Sprintf("h%d.test", (i*10+n)%changeRules)); err != nil {
				b.Fatal(err)
			}
		}
		if err := os.Mkdir(s.Record.Cgroup, 0o755); err != nil {
			b.Fatal(err)
		}
		if s.table, err = l.newTable(snap); err != nil {
			b.Fatal(err)
		}
		if s.fence, err = l.fence.AttachSandbox(s.Record.Cgroup, kernel.State{Sandbox: number, Policy: s.table}); err != nil {
			b.Fatal(err)
		}
		s.view.Store(snap.View(s.Principal))
		out = append(out, s)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range out {
		l.byID[s.Record.ID] = s
	}
	return out
}

// remove undoes empty.
func (l *live) remove(b *testing.B, boxes []*Sandbox) {
	b.Helper()
	l.mu.Lock()
	for _, s := range boxes {
		delete(l.byID, s.Record.ID)
	}
	l.mu.Unlock()
	for _, s := range boxes {
		if err := s.fence.Detach(); err != nil {
			b.Error(err)
		}
		if err := os.Remove(s.Record.Cgroup); err != nil {
			b.Error(err)
		}
	}
}

func (l *live) usage(b *testing.B) (names, cidrs int) {
	b.Helper()
	u, err := l.fence.Usage()
	if err != nil {
		b.Fatal(err)
	}
	return u.Names, u.CIDRs
}

// mapBytes is the kernel memory of all maps.
func (l *live) mapBytes(b *testing.B) (n float64) {
	b.Helper()
	maps, err := l.fence.Memory()
	if err != nil {
		b.Fatal(err)
	}
	for _, m := range maps {
		n += float64(m.Bytes)
	}
	return n
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
