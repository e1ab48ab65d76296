// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ringfence/ringfence/bpf"
)

// cost is what a program costs to load. All but the first is said by the
// kernel and differs from one to the next.
type cost struct {
	instructions int // in the object
	processed    int // by the verifier; the kernel's limit is a million
	stack        int // bytes of 512
}

// costs is the golden table, by program.
type costs struct {
	kernel string
	rows   map[string]cost
}

// costGrowth is how much more a program may cost than recorded, in percent.
const costGrowth = 10

const costsHead = `# What each program costs the verifier. The instructions must be these on every
# kernel, the rest may be up to 10 percent more on the kernel that is named.
# To write it anew: go test ./pkg/kernel -run '^TestVerifier$' -update
`

func (c *costs) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%skernel: %s\n\n%-20s %12s %9s %5s\n", costsHead, c.kernel, "program", "instructions", "processed", "stack")
	for _, name := range slices.Sorted(maps.Keys(c.rows)) {
		r := c.rows[name]
		fmt.Fprintf(&b, "%-20s %12d %9d %5d\n", name, r.instructions, r.processed, r.stack)
	}
	return b.String()
}

// markdown is the table as docs/KERNELS.md has it.
func (c *costs) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| program | instructions | processed on Linux %s | stack, bytes |\n|---|---|---|---|\n", c.kernel)
	for _, name := range slices.Sorted(maps.Keys(c.rows)) {
		r := c.rows[name]
		if r.processed == 0 {
			fmt.Fprintf(&b, "| %s | %d | | |\n", name, r.instructions)
			continue
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d |\n", name, r.instructions, r.processed, r.stack)
	}
	return b.String()
}

func parseCosts(text string) (*costs, error) {
	c := &costs{rows: make(map[string]cost)}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if v, ok := strings.CutPrefix(line, "kernel: "); ok {
			c.kernel = v
			continue
		}
		if line == "" || line[0] == '#' || strings.HasPrefix(line, "program ") {
			continue
		}
		var name string
		var r cost
		if n, err := fmt.Sscan(line, &name, &r.instructions, &r.processed, &r.stack); n != 4 {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		c.rows[name] = r
	}
	return c, nil
}

// exceeds lists how a program costs more than recorded. Instructions are in
// the object, which is the same everywhere: any change of them makes the table
// stale.
func exceeds(was, is cost, sameKernel bool) (out []string) {
	if is.instructions != was.instructions {
		out = append(out, fmt.Sprintf("%d instructions, %d recorded: the table is stale, write it with -update", is.instructions, was.instructions))
	}
	for _, v := range []struct {
		what    string
		was, is int
	}{{"instructions processed by the verifier", was.processed, is.processed}, {"bytes of stack", was.stack, is.stack}} {
		if sameKernel && 100*v.is > (100+costGrowth)*v.was {
			out = append(out, fmt.Sprintf("%d %s, %d recorded: %+.1f percent", v.is, v.what, v.was, 100*float64(v.is-v.was)/float64(v.was)))
		}
	}
	return out
}

var (
	reProcessed = regexp.MustCompile(`(?m)^processed (\d+) insns `)
	reStack     = regexp.MustCompile(`(?m)^stack depth (\d+(?:\+\d+)*)`)
	reFunction  = regexp.MustCompile(`(?m)^subprog \d+ .* stack (\d+)`)
)

// readLog takes the figures from the verifier's statistics. The stack is the
// sum over functions: "stack depth" separates them with "+", and newer kernels
// (7.3 does) have a line "subprog" for each instead.
func readLog(log string) (processed, stack int, err error) {
	p := reProcessed.FindStringSubmatch(log)
	var depths []string
	if s := reStack.FindStringSubmatch(log); s != nil {
		depths = strings.Split(s[1], "+")
	}
	for _, s := range reFunction.FindAllStringSubmatch(log, -1) {
		depths = append(depths, s[1])
	}
	if p == nil || len(depths) == 0 {
		return 0, 0, fmt.Errorf("no statistics in the verifier's log %q", log)
	}
	if processed, err = strconv.Atoi(p[1]); err != nil {
		return 0, 0, err
	}
	for _, d := range depths {
		n, err := strconv.Atoi(d)
		if err != nil {
			return 0, 0, err
		}
		stack += n
	}
	return processed, stack, nil
}

// measure takes the figures of one loaded program.
func measure(t *testing.T, name string, p *ebpf.Program, spec *ebpf.ProgramSpec) cost {
	t.Helper()
	processed, stack, err := readLog(p.VerifierLog)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	info, err := p.Info()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if n, ok := info.VerifiedInstructions(); ok && int(n) != processed {
		t.Errorf("%s: the log says %d processed instructions, the kernel %d", name, processed, n)
	}
	translated, _ := info.TranslatedSize()
	jited, _ := info.JitedSize()
	// An instruction of 64 bits of immediate is two.
	c := cost{int(spec.Instructions.Size()) / 8, processed, stack}
	// Where the test runs on several kernels, costs are recorded for each.
	t.Attr("verifier:"+name, fmt.Sprint(c.instructions, c.processed, c.stack))
	t.Logf("%-16s %4d instructions, %5d processed, stack %3d, translated %d bytes, machine code %d bytes",
		name, c.instructions, c.processed, c.stack, translated, jited)
	return c
}

// loadCosts loads every program that the daemon loads, as it does.
func loadCosts(t *testing.T) *costs {
	t.Helper()
	l, err := newLoader(Options{}, "")
	if err != nil {
		t.Fatal(err)
	}
	l.log = ebpf.LogLevelStats
	var all bpf.FenceMaps
	if err := l.loadMaps(&all); err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, m := range l.shared {
			m.Close()
		}
	}()
	c := &costs{kernel: kernelVersion(t), rows: make(map[string]cost)}
	optional := make(map[string]bool)
	for _, h := range hooks {
		optional[h.prog] = h.optional
	}
	redirect, listener, err := l.redirection()
	if err != nil {
		t.Fatal(err)
	}
	if err := new(redirection).openMaps(l, redirect); err != nil {
		t.Fatal(err)
	}
	for _, from := range []*ebpf.CollectionSpec{l.fence, l.process, l.refusal, redirect, listener} {
		for _, name := range slices.Sorted(maps.Keys(from.Programs)) {
			p, err := l.program("", "", from, name)
			if err != nil && optional[name] && os.Getenv("RINGFENCE_CI") != "1" {
				t.Logf("%s does not load here: %v", name, err)
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			c.rows[name] = measure(t, name, p, from.Programs[name])
			p.Close()
		}
	}
	guardCosts(t, l, c)
	steer, err := bpf.LoadSteer()
	if err != nil {
		t.Fatal(err)
	}
	var objs bpf.SteerObjects
	if err := bpf.LoadSteerObjects(&objs, &ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: l.log}}); err != nil {
		t.Fatal(err)
	}
	defer objs.Close()
	c.rows[bpf.SteerProgRfSteer] = measure(t, bpf.SteerProgRfSteer, objs.RfSteer, steer.Programs[bpf.SteerProgRfSteer])
	return c
}

// guardCosts adds the programs of the guard. The table has their instructions
// alone: where such programs do not load, what they cost the verifier is
// measured on other kernels.
func guardCosts(t *testing.T, l *loader, c *costs) {
	t.Helper()
	lsm := tryLSM()
	for _, h := range guardHooks {
		spec := l.guard.Programs[h.prog]
		c.rows[h.prog] = cost{instructions: int(spec.Instructions.Size()) / 8}
		if lsm != nil {
			continue
		}
		p, err := l.program("", "", l.guard, h.prog)
		if err != nil && h.kernel != "5.7" {
			t.Logf("%s does not load here: %v", h.prog, err)
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", h.prog, err)
		}
		measure(t, h.prog, p, spec)
		p.Close()
	}
}

// TestVerifier: a program that costs the verifier much more than it did is
// nearer to being refused by another kernel, and nobody saw it happen.
func TestVerifier(t *testing.T) {
	needRoot(t)
	file := filepath.Join("testdata", "verifier.golden")
	here := loadCosts(t)
	if *update && !t.Failed() {
		if err := os.WriteFile(file, []byte(here.String()), 0o644); err != nil { //nolint:gosec // part of the source tree
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; write it with -update", err)
	}
	golden, err := parseCosts(string(text))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	sameKernel := golden.kernel == here.kernel
	if !sameKernel {
		t.Logf("recorded on Linux %s, this is %s: only the instructions are compared", golden.kernel, here.kernel)
	}
	for name, is := range here.rows {
		was, ok := golden.rows[name]
		if !ok {
			t.Errorf("%s is not in %s; write it with -update", name, file)
			continue
		}
		for _, e := range exceeds(was, is, sameKernel) {
			t.Errorf("%s: %s", name, e)
		}
	}
	for name := range golden.rows {
		if _, ok := here.rows[name]; !ok && sameKernel {
			t.Errorf("%s is in %s and was not loaded", name, file)
		}
	}
	compareCostsPage(t, golden)
}

// compareCostsPage holds the table of docs/KERNELS.md to the golden file.
func compareCostsPage(t *testing.T, golden *costs) {
	t.Helper()
	const begin, end = "<!-- written by TestVerifier -update -->\n", "<!-- end -->\n"
	file := filepath.Join("..", "..", "docs", "KERNELS.md")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(raw), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", file)
	}
	page := head + begin + golden.markdown() + end + tail
	if page == string(raw) {
		return
	}
	if !*update {
		t.Errorf("the table in %s is not that of the golden file; write it with -update", file)
		return
	}
	if err := os.WriteFile(file, []byte(page), 0o644); err != nil { //nolint:gosec // part of the source tree
		t.Fatal(err)
	}
}

func TestVerifierTable(t *testing.T) {
	c := &costs{kernel: "6.18", rows: map[string]cost{"rf_a": {10, 20, 30}, "rf_b": {1, 2, 0}}}
	again, err := parseCosts(c.String())
	if err != nil || again.String() != c.String() {
		t.Errorf("read back: %v\n%s", err, again)
	}
	if _, err := parseCosts("rf_a 1 2\n"); err == nil {
		t.Error("a row with a figure missing was read")
	}
	for _, e := range []struct {
		is         cost
		sameKernel bool
		want       int
	}{
		{cost{100, 1100, 88}, true, 0},
		{cost{100, 1101, 88}, true, 1},
		{cost{100, 1000, 96}, true, 1},
		{cost{100, 500, 8}, true, 0},
		{cost{101, 1000, 80}, true, 1},
		{cost{100, 9000, 500}, false, 0},
		{cost{99, 9000, 500}, false, 1},
	} {
		if got := exceeds(cost{100, 1000, 80}, e.is, e.sameKernel); len(got) != e.want {
			t.Errorf("exceeds(%+v, %v) = %q", e.is, e.sameKernel, got)
		}
	}
	for log, want := range map[string]cost{
		"verification time 9 usec\nstack depth 88\nprocessed 322 insns (limit 1000000) max_states_per_insn 1\n":                                                                                    {0, 322, 88},
		"stack depth 88+16+0\nprocessed 7 insns (limit 1000000)\n":                                                                                                                                 {0, 7, 104},
		"verification time 9 usec\nsubprog 0 (rf_a) main insns_self 30 insns_total 37 stack 88\nsubprog 1 (rf_b) static insns_self 7 insns_total 7 stack 16\nprocessed 37 insns (limit 1000000)\n": {0, 37, 104},
	} {
		if p, s, err := readLog(log); err != nil || p != want.processed || s != want.stack {
			t.Errorf("readLog(%q) = %d, %d, %v", log, p, s, err)
		}
	}
	if _, _, err := readLog("0: (b7) r0 = 0\n"); err == nil {
		t.Error("a log without statistics was read")
	}
}
