// SPDX-License-Identifier: Apache-2.0

package locks

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func root(t *testing.T) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("no file")
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// TestDocument: what THREATS.md says is what the table says.
func TestDocument(t *testing.T) {
	have, err := os.ReadFile(filepath.Join(root(t), "docs", "THREATS.md"))
	if err != nil {
		t.Fatal(err)
	}
	want, ok := Replace(string(have))
	switch {
	case !ok:
		t.Error("docs/THREATS.md has no place for the table")
	case want != string(have):
		t.Error("docs/THREATS.md is stale: run make docs")
	}
}

// TestRows: a row says how it is shown, and what it names exists.
func TestRows(t *testing.T) {
	seen := map[string]bool{}
	for _, w := range Ways() {
		if seen[w.Name] || w.Name == "" || w.Text == "" || strings.Contains(w.Text+w.Note, "|") {
			t.Errorf("%q: twice, or not complete", w.Name)
		}
		seen[w.Name] = true
		if len(w.Locks) == 0 {
			t.Errorf("%s has no lock", w.Name)
		}
		for i, l := range w.Locks {
			if len(w.Attempts) == 0 && len(l.Tests) == 0 {
				t.Errorf("%s: nothing shows %s", w.Name, l)
			}
			if slices.ContainsFunc(w.Locks[:i], func(o Lock) bool { return o.String() == l.String() }) {
				t.Errorf("%s counts %s twice", w.Name, l)
			}
		}
		for _, name := range w.tests() {
			if !exists(t, name) {
				t.Errorf("%s: there is no test %s", w.Name, name)
			}
		}
	}
}

// exists says whether PACKAGE.TestName is a test.
func exists(t *testing.T, name string) bool {
	t.Helper()
	i := strings.LastIndexByte(name, '.')
	files, err := filepath.Glob(filepath.Join(root(t), name[:i], "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^func ` + name[i+1:] + `\(t \*testing\.T\)`)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if line.Match(b) {
			return true
		}
	}
	return false
}

// TestTiers: counts come from the kernels of the layers.
func TestTiers(t *testing.T) {
	if got := strings.Join(Tiers(), " "); got != "5.19 6.7 6.12 7.1" {
		t.Errorf("tiers: %s", got)
	}
	w := Way{Locks: append(all(View, Unix, Scopes, UnixPaths), Lock{Layers: []Layer{Network, Unix}})}
	for version, want := range map[string]int{"5.19": 1, "6.1": 1, "6.7": 3, "6.12": 4, "6.18": 4, "7.1": 5} {
		if got := w.Count(version); got != want {
			t.Errorf("%s: %d locks, not %d", version, got, want)
		}
	}
	for l := Address; l <= Launch; l++ {
		if layers[l].name == "" || layers[l].since != "" && numbers(layers[l].since) == nil {
			t.Errorf("layer %d: %+v", l, layers[l])
		}
	}
}

// TestKernelsPage: the first kernels of Landlock's ABIs are those of
// docs/KERNELS.md, those of the hooks too.
func TestKernelsPage(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root(t), "docs", "KERNELS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| Landlock | 5.13 (ABI 1), " + layers[Landlock].since + " (ABI 2)", layers[Scopes].since + " (6)", layers[UnixPaths].since + " (9)",
		"| connect_unix, sendmsg_unix | " + layers[Unix].since + " |", "| sendmsg4, sendmsg6 | " + layers[Address].since + " |", "| sock_create, egress | " + layers[Egress].since + " |",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("docs/KERNELS.md does not say %q", want)
		}
	}
}

// TestNoSwitch: the product has no way to leave a layer out. Nothing of it is
// built from what tests are, and no build tag changes what it is but those that
// name a machine.
func TestNoSwitch(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for pkg := range strings.FieldsSeq(string(out)) {
		rel, ours := strings.CutPrefix(pkg, "github.com/ringfence/ringfence/")
		if !ours {
			continue
		}
		n++
		if strings.HasPrefix(rel, "test/") || strings.HasPrefix(rel, "tools/") {
			t.Errorf("the product is built with %s", rel)
		}
		tagged(t, rel)
	}
	if n < 20 {
		t.Errorf("only %d packages of ours: %s", n, out)
	}
}

var machines = strings.Fields("linux 386 amd64 arm arm64 loong64 mips64le mipsle ppc64le riscv64 wasm")

// Tags of builds that no release has, and that leave nothing out: the kernel layout
// that tests upgrade to, and the endpoint through which benchmarks of model calls look
// into the gateway. Who has that endpoint sees what a debugger would; it changes no
// decision.
var (
	otherBuilds = []string{"ringfence_next", "ringfence_probe"}
	probeFiles  = []string{"pkg/gatewayd/probe_on.go", "pkg/gatewayd/probe_off.go"}
)

// tagged complains about build tags of the files of a package, tests left out.
func tagged(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root(t), dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "package ") {
				break
			}
			tags, ok := strings.CutPrefix(line, "//go:build")
			for tag := range strings.FieldsFuncSeq(tags, func(r rune) bool { return strings.ContainsRune(" !()|&", r) }) {
				allowed := slices.Contains(otherBuilds, tag) && (tag != "ringfence_probe" || slices.ContainsFunc(probeFiles, func(p string) bool { return strings.HasSuffix(f, p) }))
				if ok && !allowed && !slices.Contains(machines, tag) {
					t.Errorf("%s depends on the build tag %s", f, tag)
				}
			}
		}
	}
}
