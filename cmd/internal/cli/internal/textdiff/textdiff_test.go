// SPDX-License-Identifier: Apache-2.0

package textdiff

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestUnified(t *testing.T) {
	for name, c := range map[string]struct{ a, b, want string }{
		"the same": {"x\n", "x\n", ""},
		"new":      {"", "x\ny\n", "--- a\n+++ b\n@@ -0,0 +1,2 @@\n+x\n+y\n"},
		"gone":     {"x\n", "", "--- a\n+++ b\n@@ -1,1 +0,0 @@\n-x\n"},
		"one line": {"1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nfive\n6\n7\n8\n9\n", "--- a\n+++ b\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"},
		"no end":   {"x", "x\n", "--- a\n+++ b\n@@ -1,1 +1,1 @@\n-x\n\\ No newline at end of file\n+x\n"},
		"two far":  {"a\n1\n2\n3\n4\n5\n6\n7\nb\n", "A\n1\n2\n3\n4\n5\n6\n7\nB\n", "--- a\n+++ b\n@@ -1,4 +1,4 @@\n-a\n+A\n 1\n 2\n 3\n@@ -6,4 +6,4 @@\n 5\n 6\n 7\n-b\n+B\n"},
	} {
		if got := Unified("a", "b", c.a, c.b); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

// patch applies a difference, strictly.
func patch(a, diff string) (string, error) {
	old, out := lines(a), []string{}
	at := 0
	ls := lines(diff)
	for i := 2; i < len(ls); i++ {
		var fromA, countA, fromB, countB int
		if n, err := fmt.Sscanf(ls[i], "@@ -%d,%d +%d,%d @@", &fromA, &countA, &fromB, &countB); err == nil && n == 4 {
			if countA == 0 {
				fromA++
			}
			if countB == 0 {
				fromB++
			}
			for at < fromA-1 {
				out, at = append(out, old[at]), at+1
			}
			if len(out) != fromB-1 {
				return "", fmt.Errorf("%q begins at line %d", ls[i], len(out)+1)
			}
			continue
		}
		text := ls[i][1:]
		if i+1 < len(ls) && strings.HasPrefix(ls[i+1], "\\") {
			text = strings.TrimSuffix(text, "\n")
		}
		switch ls[i][0] {
		case '\\':
		case '+':
			out = append(out, text)
		case '-', ' ':
			if at >= len(old) || old[at] != text {
				return "", fmt.Errorf("%q is not line %d", text, at+1)
			}
			if at++; ls[i][0] == ' ' {
				out = append(out, text)
			}
		}
	}
	return strings.Join(append(out, old[at:]...), ""), nil
}

func FuzzUnifiedLeadsFromOneToTheOther(f *testing.F) {
	f.Add("a\nb\nc\n", "a\nc\nd")
	f.Add("", "x")
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.ContainsAny(a+b, "\\@") { // what the strict reader above takes for its own
			return
		}
		got, err := patch(a, Unified("a", "b", a, b))
		if a == b {
			got, err = b, nil
		}
		if err != nil || got != b {
			t.Fatalf("%q to %q by\n%s\nis %q, %v", a, b, Unified("a", "b", a, b), got, err)
		}
	})
}

func TestUnifiedOfRandomTexts(t *testing.T) {
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 2))
		text := func() string {
			var b strings.Builder
			for range rng.IntN(40) {
				fmt.Fprintf(&b, "%d\n", rng.IntN(6))
			}
			return b.String()
		}
		a, b := text(), text()
		if a == b {
			continue
		}
		if got, err := patch(a, Unified("a", "b", a, b)); err != nil || got != b {
			t.Fatalf("seed %d: %q to %q: %q, %v", seed, a, b, got, err)
		}
	}
}

// What is too long for the table is shown whole, and right.
func TestLongTexts(t *testing.T) {
	a, b := strings.Repeat("x\ny\n", 2000)+"z\n", strings.Repeat("y\nx\n", 2000)
	if got, err := patch(a, Unified("a", "b", a, b)); err != nil || got != b {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
