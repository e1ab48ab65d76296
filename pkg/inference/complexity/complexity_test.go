// SPDX-License-Identifier: Apache-2.0

package complexity

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// Bands that routes are likely to be cut at.
const (
	easy = 150
	hard = 350
)

func TestPrompts(t *testing.T) {
	code := "```go\nfunc main() {\n\tfmt.Println(1)\n}\n```\n"
	for _, c := range []struct {
		f         Facts
		low, high int
	}{
		{Facts{}, 0, 0},
		{ask("hello"), 0, 0},
		{ask("What is the capital of France?"), 0, 0},
		{ask("Translate 'good morning' to German."), 0, 0},
		{ask("Rename the file a.txt to b.txt"), 0, 0},
		{ask("Why is the sky blue?"), 60, easy},
		{ask("请解释为什么天空是蓝色的"), 60, easy},
		{ask("Fix this:\n" + code), easy, hard},
		{ask("Explain step by step why this deadlocks, and compare two designs:\n" + code), hard, 600},
		{Facts{Text: 40_000, Newest: []byte("Summarise this."), Turns: 1}, 160, 160},
		{Facts{Text: 60_000, Newest: []byte("Analyse the design, prove it, and plan the steps.\n" + code), Turns: 20, Tools: 12, Output: 32_000, Image: true, Structure: true}, 800, 1000},
	} {
		if s := Of(&c.f); s.Total < c.low || s.Total > c.high {
			t.Errorf("%.60q: %s, want %d to %d", c.f.Newest, s, c.low, c.high)
		}
	}
}

func ask(s string) Facts { return Facts{Text: len(s), Newest: []byte(s), Turns: 1} }

func TestWeightsAreWhole(t *testing.T) {
	sum := 0
	for _, w := range weights {
		if w.name == "" || w.weight <= 0 {
			t.Errorf("%+v", w)
		}
		sum += w.weight
	}
	if sum != 1000 {
		t.Errorf("together %d", sum)
	}
}

// TestMoreIsNeverLess: what is added to a request never lowers its score, and the
// same request always has the same one.
func TestMoreIsNeverLess(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	words := []string{"hello", "why", "prove", "file", "x = f(1);", "\n```\ncode\n```\n", "analyse", "design", "步骤", "step"}
	for range 3000 {
		var b strings.Builder
		for range r.IntN(30) {
			b.WriteString(words[r.IntN(len(words))] + " ")
		}
		f := Facts{Text: r.IntN(50_000), Newest: []byte(b.String()), Turns: r.IntN(20), Tools: r.IntN(12), Output: r.IntN(20_000), Image: r.IntN(2) == 0, Structure: r.IntN(2) == 0}
		was := Of(&f)
		if again := Of(&f); again != was || was.Total < 0 || was.Total > 1000 {
			t.Fatalf("%s, then %s", was, again)
		}
		more := f
		switch r.IntN(7) {
		case 0:
			more.Text += r.IntN(10_000)
		case 1:
			more.Turns += r.IntN(5)
		case 2:
			more.Tools += r.IntN(5)
		case 3:
			more.Output += r.IntN(9000)
		case 4:
			more.Image, more.Structure = true, true
		default:
			more.Newest = append(bytes.Clone(f.Newest), []byte("\nfunc f() {\n} prove why;")...)
			more.Newest = bytes.Replace(more.Newest, []byte("} prove"), []byte("prove"), 1)
			if is := Of(&more); is.Of[Reasoning] < was.Of[Reasoning] {
				t.Fatalf("%q: %s, then %s", more.Newest, was, is)
			}
			continue
		}
		if is := Of(&more); is.Total < was.Total {
			t.Fatalf("%+v: %s, then %s", more, was, is)
		}
	}
}

func FuzzScore(f *testing.F) {
	f.Add([]byte("Explain why"), 10, 1, 0, 0)
	f.Add([]byte("```\n\n"), 1<<30, -5, 1000, -1)
	f.Fuzz(func(t *testing.T, newest []byte, text, turns, tools, output int) {
		s := Of(&Facts{Text: text, Newest: newest, Turns: turns, Tools: tools, Output: output})
		sum := 0
		for i, v := range s.Of {
			if v < 0 || v > weights[i].weight {
				t.Fatalf("%s", s)
			}
			sum += v
		}
		if sum != s.Total || s.Total > 1000 {
			t.Fatalf("%s", s)
		}
	})
}

func BenchmarkScore(b *testing.B) {
	for _, n := range []int{100, 4000, 100_000} {
		text := []byte(strings.Repeat("Please look at the design and say why it fails.\nx := f(1)\n", n/60+1))[:n]
		f := Facts{Text: n, Newest: text, Turns: 3, Tools: 2}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Of(&f)
			}
		})
	}
}
