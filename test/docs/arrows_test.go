// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/test/node"
)

// drawnPackages reads the arrows of ARCHITECTURE.md: NAME words -> imports, which
// go on in lines that are indented further; names before "import nothing of
// ours" have none.
func drawnPackages(t *testing.T) map[string][]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(node.Root(), "docs", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(raw), "## Packages")
	if !ok {
		t.Fatal("no section Packages")
	}
	rest, _, _ = strings.Cut(rest, "\n```\n\n")
	out := map[string][]string{}
	last := ""
	for line := range strings.Lines(rest) {
		left, right, arrow := strings.Cut(line, "->")
		list := strings.FieldsFunc(right, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' })
		switch {
		case strings.Contains(line, "import nothing of ours"):
			left, _, _ = strings.Cut(line, "import nothing")
			for _, name := range strings.Fields(left) {
				out[name] = []string{}
			}
		case arrow:
			last = strings.Fields(left)[0]
			out[last] = without(list, "(frames", "only)")
		case last != "" && strings.HasPrefix(line, "      "):
			out[last] = append(out[last], strings.Fields(line)...)
		}
	}
	return out
}

func without(list []string, drop ...string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return slices.Contains(drop, s) })
}

// TestArrows: the packages and arrows drawn are those of the code.
func TestArrows(t *testing.T) {
	drawn := drawnPackages(t)
	const module = "github.com/ringfence/ringfence/"
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./cmd/...", "./pkg/...")
	cmd.Dir = node.Root()
	list, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	short := func(path string) string {
		return strings.TrimPrefix(strings.TrimPrefix(path, module), "pkg/")
	}
	for line := range strings.Lines(string(list)) {
		words := strings.Fields(line)
		name := short(words[0])
		if inner(name) {
			continue // part of its command
		}
		var have []string
		for _, w := range words[1:] {
			if strings.HasPrefix(w, module) && !inner(short(w)) {
				have = append(have, short(w))
			}
		}
		want, ok := drawn[name]
		if !ok {
			if len(have) > 0 && !drawnBelow(drawn, name) {
				t.Errorf("package %s -> %v is not drawn in ARCHITECTURE.md", name, have)
			}
			continue
		}
		slices.Sort(have)
		slices.Sort(want)
		if !slices.Equal(have, want) {
			t.Errorf("ARCHITECTURE.md draws %s -> %v; the code imports %v", name, want, have)
		}
	}
}

// inner says that a package is part of another one; what commands share is not.
func inner(name string) bool {
	return strings.Contains(strings.TrimPrefix(name, "cmd/internal/"), "/internal/")
}

// drawnBelow says that name is a folder of a package that is drawn.
func drawnBelow(drawn map[string][]string, name string) bool {
	for p := range drawn {
		if strings.HasPrefix(name, p+"/") {
			return true
		}
	}
	return false
}
