// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// watch is a place where a cgroup's programs may be asked, whether or not the
// fence has a program there.
type watch struct {
	name   string
	typ    ebpf.ProgramType
	attach ebpf.AttachType
	kernel string // first kernel with it
}

var watches = []watch{
	{"sock_create", ebpf.CGroupSock, ebpf.AttachCGroupInetSockCreate, "4.10"},
	{"bind4", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Bind, "4.17"},
	{"bind6", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet6Bind, "4.17"},
	{"post_bind4", ebpf.CGroupSock, ebpf.AttachCGroupInet4PostBind, "4.17"},
	{"post_bind6", ebpf.CGroupSock, ebpf.AttachCGroupInet6PostBind, "4.17"},
	{"connect4", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect, "4.17"},
	{"connect6", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet6Connect, "4.17"},
	{"sendmsg4", ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP4Sendmsg, "4.18"},
	{"sendmsg6", ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP6Sendmsg, "4.18"},
	{"egress", ebpf.CGroupSKB, ebpf.AttachCGroupInetEgress, "4.10"},
	{"connect_unix", ebpf.CGroupSockAddr, ebpf.AttachCgroupUnixConnect, "6.7"},
	{"sendmsg_unix", ebpf.CGroupSockAddr, ebpf.AttachCgroupUnixSendmsg, "6.7"},
}

// counters are programs that count how often they were asked and allow all.
type counters struct {
	counts *ebpf.Map // one value: a counter per watch
	progs  map[string]*ebpf.Program
}

// loadCounters loads and attaches each program once, to tell what the kernel
// has. A hook that is missing on a kernel new enough for it is an error.
func loadCounters(t *testing.T) *counters {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(8 * len(watches)), MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	c := &counters{counts: m, progs: make(map[string]*ebpf.Program)}
	t.Cleanup(func() {
		m.Close()
		for _, p := range c.progs {
			p.Close()
		}
	})
	cgroup := newCgroup(t)
	for i, w := range watches {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: w.typ, AttachType: w.attach, License: "Dual BSD/GPL",
			Instructions: asm.Instructions{
				asm.LoadMapValue(asm.R1, m.FD(), uint32(8*i)),
				asm.Mov.Imm(asm.R2, 1),
				asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
				asm.Mov.Imm(asm.R0, 1),
				asm.Return(),
			},
		})
		if err == nil {
			c.progs[w.name] = p
			var l link.Link
			if l, err = link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: w.attach, Program: p}); err == nil {
				l.Close()
				continue
			}
			p.Close()
			delete(c.progs, w.name)
		}
		if atLeast(kernelRelease(t), w.kernel) {
			t.Errorf("kernel %s lacks %s: %v", kernelRelease(t), w.name, err)
		}
		t.Logf("%s is not compared: %v", w.name, err)
	}
	return c
}

// watch attaches the programs for the length of a test and starts at zero.
func (c *counters) watch(t *testing.T, cgroup string) {
	t.Helper()
	for _, w := range watches {
		p := c.progs[w.name]
		if p == nil {
			continue
		}
		l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: w.attach, Program: p})
		if err != nil {
			t.Fatalf("attach %s: %v", w.name, err)
		}
		t.Cleanup(func() { l.Close() })
	}
	if err := c.counts.Put(uint32(0), make([]uint64, len(watches))); err != nil {
		t.Fatal(err)
	}
}

// fired returns the hooks that were asked since watch.
func (c *counters) fired(t *testing.T) []string {
	t.Helper()
	n := make([]uint64, len(watches))
	if err := c.counts.Lookup(uint32(0), &n); err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for i, w := range watches {
		if n[i] != 0 {
			out = append(out, w.name)
		}
	}
	return out
}

// visibility is the golden table. An operation with a nil list is one that the
// kernel lacks; one with an empty list is seen by no hook.
type visibility struct {
	kernel string
	hooks  []string // that were there when it was made
	rows   map[string][]string
}

const visibilityHead = `# Which hooks of a cgroup see an operation of a process in it: "none" of them,
# or "-" where the kernel that was asked lacks the operation.
# To write it anew: go test ./pkg/kernel -run '^TestVisibility$' -update
`

func (v *visibility) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%skernel: %s\nhooks: %s\n\n", visibilityHead, v.kernel, strings.Join(v.hooks, " "))
	for _, name := range slices.Sorted(maps.Keys(v.rows)) {
		fmt.Fprintf(&b, "%-48s -> %s\n", name, hooksText(v.rows[name]))
	}
	return b.String()
}

func hooksText(hooks []string) string {
	switch {
	case hooks == nil:
		return "-"
	case len(hooks) == 0:
		return "none"
	}
	return strings.Join(hooks, " ")
}

func parseVisibility(text string) (*visibility, error) {
	v := &visibility{rows: make(map[string][]string)}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		name, hooks, row := strings.Cut(line, "->")
		key, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "" || line[0] == '#':
		case row:
			list := strings.Fields(hooks)
			switch strings.TrimSpace(hooks) {
			case "-":
				list = nil
			case "none":
				list = []string{}
			}
			v.rows[strings.TrimSpace(name)] = list
		case key == "kernel":
			v.kernel = value
		case key == "hooks":
			v.hooks = strings.Fields(value)
		default:
			return nil, fmt.Errorf("unexpected line %q", line)
		}
	}
	return v, nil
}

// differ says how an answer differs from the table in the hooks that both
// kernels have, or returns "".
func differ(golden, here []string, both []string) string {
	var diff []string
	for _, h := range both {
		switch was, is := slices.Contains(golden, h), slices.Contains(here, h); {
		case was && !is:
			diff = append(diff, "-"+h)
		case is && !was:
			diff = append(diff, "+"+h)
		}
	}
	if diff == nil {
		return ""
	}
	return fmt.Sprintf("golden  %s\nhere    %s\nchange  %s", hooksText(golden), hooksText(here), strings.Join(diff, " "))
}

// TestVisibility asks the kernel which hooks see what a process does. The
// fence rests on these answers: an operation that a new kernel takes past a
// hook is a hole, whatever the fence's own tests say.
func TestVisibility(t *testing.T) {
	needRoot(t)
	file := filepath.Join("testdata", "visibility-"+runtime.GOARCH+".golden")
	text, err := os.ReadFile(file)
	if err != nil && !*update {
		t.Fatalf("%v; write it with -update", err)
	}
	golden, err := parseVisibility(string(text))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	c, st := loadCounters(t), newStage(t)
	here := &visibility{kernel: kernelVersion(t), rows: make(map[string][]string)}
	var both []string
	for _, w := range watches {
		if c.progs[w.name] != nil {
			here.hooks = append(here.hooks, w.name)
			if slices.Contains(golden.hooks, w.name) {
				both = append(both, w.name)
			}
		}
	}
	known := make(map[string]bool)
	for _, op := range operations() {
		if known[op.name] {
			t.Errorf("two operations %q", op.name)
		}
		known[op.name] = true
		if was, ok := golden.rows[op.name]; ok {
			here.rows[op.name] = was // stays if -run leaves the operation out
		}
		t.Run(op.name, func(t *testing.T) {
			here.rows[op.name] = st.play(t, c, op)
			if !*update {
				compareRow(t, golden, here, op.name, both)
			}
		})
	}
	for name := range golden.rows {
		if !known[name] && !*update {
			t.Errorf("%s has a row %q that is no operation of this test", file, name)
		}
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(file, []byte(here.String()), 0o644); err != nil { //nolint:gosec // part of the source tree
			t.Fatal(err)
		}
	}
}

func compareRow(t *testing.T, golden, here *visibility, name string, both []string) {
	t.Helper()
	was, recorded := golden.rows[name]
	is := here.rows[name]
	switch {
	case !recorded:
		t.Errorf("no row in the golden file; here %s", hooksText(is))
	case was == nil && is == nil:
		t.Skip("neither this kernel nor the golden file's has it")
	case is == nil:
		if os.Getenv("RINGFENCE_CI") == "1" && golden.kernel == here.kernel {
			t.Errorf("this kernel lacks it; golden %s", hooksText(was))
		}
		t.Skipf("this kernel lacks it; golden %s", hooksText(was))
	case was == nil:
		t.Logf("the golden file's kernel lacked it, nothing to compare with; here %s", hooksText(is))
	default:
		if d := differ(was, is, both); d != "" {
			t.Errorf("Linux %s differs from the golden file of %s:\n%s", kernelRelease(t), golden.kernel, d)
		}
	}
}

// kernelRelease is the release as uname has it, kernelVersion its first two
// numbers.
func kernelRelease(t testing.TB) string {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(uts.Release[:])
}

func kernelVersion(t testing.TB) string {
	t.Helper()
	var major, minor int
	if _, err := fmt.Sscanf(kernelRelease(t), "%d.%d", &major, &minor); err != nil {
		t.Fatalf("release %q: %v", kernelRelease(t), err)
	}
	return fmt.Sprintf("%d.%d", major, minor)
}

// The comparison itself: what is missing on one side is not compared.
func TestVisibilityTable(t *testing.T) {
	for _, h := range hooks {
		if !slices.ContainsFunc(watches, func(w watch) bool { return w.attach == h.attach && w.kernel == h.kernel }) {
			t.Errorf("TestVisibility does not watch the fence's hook %s", h.name)
		}
	}
	v := &visibility{kernel: "6.1", hooks: []string{"connect4", "egress"}, rows: map[string][]string{
		"a": nil, "b": {}, "c": {"connect4", "egress"},
	}}
	again, err := parseVisibility(v.String())
	if err != nil {
		t.Fatal(err)
	}
	if again.String() != v.String() || again.rows["a"] != nil || again.rows["b"] == nil {
		t.Errorf("read back:\n%s", again)
	}
	if _, err := parseVisibility("connect4\n"); err == nil {
		t.Error("a line that is no row was read")
	}
	for _, c := range []struct {
		golden, here, both []string
		want               string
	}{
		{[]string{"connect4", "connect_unix"}, []string{"connect4"}, []string{"connect4"}, ""},
		{[]string{"connect4"}, []string{}, []string{"connect4"}, "-connect4"},
		{[]string{}, []string{"egress"}, []string{"egress"}, "+egress"},
	} {
		if got := differ(c.golden, c.here, c.both); (c.want == "") != (got == "") || !strings.HasSuffix(got, c.want) {
			t.Errorf("differ(%v, %v, %v) = %q", c.golden, c.here, c.both, got)
		}
	}
}
