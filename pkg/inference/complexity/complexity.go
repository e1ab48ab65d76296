// SPDX-License-Identifier: Apache-2.0

// Package complexity scores how hard a request to a model is, from what can be
// counted in it: no model, no network, nothing learned. Equal requests score
// equally, and no part ever lowers the score.
//
// The score is a sum of parts, each a number from 0 to 1 times its weight:
//
//	part       weight  grows with
//	length      0.16   characters of text, on a logarithmic scale: none up to 200, all of it at 40,000
//	code        0.20   the share of text in code fences, and lines that look like code outside of them
//	reasoning   0.20   words that ask for reasoning or many steps, each one once; all of it at three
//	tools       0.14   tools that are offered; all of it at eight
//	depth       0.10   turns of the conversation; all of it at twelve
//	output      0.10   tokens that are asked for; none up to 500, all of it at 16,000
//	images      0.06   whether there is one
//	structure   0.04   whether the answer has to fit a schema
//
// Only the newest text that a user wrote is looked at for words and code; length
// counts everything.
package complexity

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Facts are what is counted of a request.
type Facts struct {
	Text      int    // bytes of all its text
	Newest    []byte // the newest text of a user; read only, and not kept
	Turns     int    // messages of the conversation
	Tools     int    // offered
	Output    int    // tokens asked for; 0 = nothing is said
	Image     bool
	Structure bool
}

// Part is one of the score's.
type Part uint8

// The parts, in the order of their weights' table.
const (
	Length Part = iota
	Code
	Reasoning
	Tools
	Depth
	Output
	Images
	Structure
	parts
)

// weights are in thousandths; together 1000.
var weights = [parts]struct {
	name   string
	weight int
}{
	Length: {"length", 160}, Code: {"code", 200}, Reasoning: {"reasoning", 200}, Tools: {"tools", 140},
	Depth: {"depth", 100}, Output: {"output", 100}, Images: {"images", 60}, Structure: {"structure", 40},
}

// Score is in thousandths, with what each part gave to it.
type Score struct {
	Total int // 0 to 1000
	Of    [parts]int
}

// String is "0.413 (code 0.2, length 0.213)": the parts that gave something.
func (s Score) String() string {
	var b strings.Builder
	b.WriteString(decimal(s.Total))
	sep := " ("
	for i, v := range s.Of {
		if v > 0 {
			b.WriteString(sep + weights[i].name + " " + decimal(v))
			sep = ", "
		}
	}
	if sep == ", " {
		b.WriteString(")")
	}
	return b.String()
}

func decimal(v int) string { return strconv.FormatFloat(float64(v)/1000, 'f', -1, 64) }

// maxNewest bounds the text that words and code are looked for in: what a sandbox
// sends must not decide how long this takes.
const maxNewest = 16 << 10

// Of scores a request.
func Of(f *Facts) (s Score) {
	text := f.Newest[:min(len(f.Newest), maxNewest)]
	give := func(p Part, share float64) {
		s.Of[p] = int(math.Round(min(max(share, 0), 1) * float64(weights[p].weight)))
		s.Total += s.Of[p]
	}
	give(Length, between(f.Text, 200, 40_000))
	give(Code, codeShare(text))
	give(Reasoning, float64(markers(text))/3)
	give(Tools, float64(f.Tools)/8)
	give(Depth, float64(f.Turns-1)/11)
	give(Output, between(f.Output, 500, 16_000))
	give(Images, truth(f.Image))
	give(Structure, truth(f.Structure))
	return s
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// between is 0 up to low and 1 from high on, logarithmic in between.
func between(n, low, high int) float64 {
	if n <= low {
		return 0
	}
	return math.Log(float64(n)/float64(low)) / math.Log(float64(high)/float64(low))
}

// codeShare is the share of the text's bytes that is code, twice: half of code is
// all there is to it.
func codeShare(text []byte) float64 {
	code, all, fenced := 0, 0, false
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		text = rest
		all += len(line) + 1
		switch trimmed := bytes.TrimSpace(line); {
		case bytes.HasPrefix(trimmed, []byte("```")), bytes.HasPrefix(trimmed, []byte("~~~")):
			fenced = !fenced
			code += len(line) + 1
		case fenced, looksLikeCode(trimmed):
			code += len(line) + 1
		}
	}
	if all == 0 {
		return 0
	}
	return 2 * float64(code) / float64(all)
}

// codeEnds and codeStarts are how lines of common languages end and begin.
var (
	codeEnds   = [][]byte{[]byte("{"), []byte("};"), []byte(");"), []byte("=>"), []byte("):"), []byte(",\\")}
	codeStarts = [][]byte{
		[]byte("def "), []byte("func "), []byte("class "), []byte("import "), []byte("from "), []byte("#include"), []byte("package "),
		[]byte("SELECT "), []byte("const "), []byte("let "), []byte("var "), []byte("public "), []byte("fn "), []byte("$ "),
		[]byte("diff --git"), []byte("@@ "), []byte("Traceback "), []byte("at "),
	}
)

func looksLikeCode(line []byte) bool {
	for _, e := range codeEnds {
		if bytes.HasSuffix(line, e) {
			return true
		}
	}
	for _, b := range codeStarts {
		if bytes.HasPrefix(line, b) && bytes.ContainsAny(line, "({=;:*<\"'.") {
			return true
		}
	}
	return false
}

// marked are words and beginnings of words that ask for reasoning, in English,
// German, French, Spanish, and Chinese. A beginning ends with "*".
var marked = []string{
	"why", "prove", "proof", "derive", "explain*", "analy*", "compar*", "design*", "architect*", "debug*", "optimi*", "refactor*",
	"reason*", "step", "steps", "plan", "strateg*", "trade-off*", "tradeoff*", "evaluat*", "root-cause", "diagnos*", "investigat*", "concurren*", "algorithm*", "complexity",
	"warum", "beweis*", "erkläre*", "vergleich*", "entwirf", "schritt*", "begründe*",
	"pourquoi", "démontre*", "expliqu*", "étape*", "conçois",
	"demuestra*", "explica*", "diseña*", "paso", "pasos",
	"为什么", "证明", "分析", "设计", "步骤",
}

// mark is an entry of the list.
type mark struct {
	text string
	open bool // a beginning of words
	han  bool // stands without spaces around it
}

// byFirst are the entries by their first byte, in both cases.
var byFirst = func() (t [256][]mark) {
	for _, m := range marked {
		text, open := strings.CutSuffix(m, "*")
		r, _ := utf8.DecodeRuneInString(text)
		e := mark{text, open, unicode.Is(unicode.Han, r)}
		t[text[0]] = append(t[text[0]], e)
		if up := text[0] &^ 0x20; text[0] >= 'a' && text[0] <= 'z' {
			t[up] = append(t[up], e)
		}
	}
	return t
}()

// markers counts the words of the list that are in the text, each once.
func markers(text []byte) int {
	var seen [8]string
	n := 0
	for len(text) > 0 && n < len(seen) {
		word, rest := nextWord(text)
		text = rest
		if m := markOf(word); m != "" && !slices.Contains(seen[:n], m) {
			seen[n] = m
			n++
		}
	}
	return n
}

// markOf is the entry of the list that a word is, or, where words are not apart,
// one that is in it; "" if there is none.
func markOf(word []byte) string {
	for i := 0; i < len(word); i++ {
		for _, m := range byFirst[word[i]] {
			if m.han && bytes.HasPrefix(word[i:], []byte(m.text)) {
				return m.text
			}
			if i == 0 && !m.han && len(word) >= len(m.text) && (m.open || len(word) == len(m.text)) && bytes.EqualFold(word[:len(m.text)], []byte(m.text)) {
				return m.text
			}
		}
		if word[i] < utf8.RuneSelf {
			break // Latin words are found at their beginning
		}
	}
	return ""
}

// nextWord cuts the next run of letters and hyphens off.
func nextWord(text []byte) (word, rest []byte) {
	start := -1
	for i := 0; i < len(text); {
		n, letter := 1, text[i]|0x20 >= 'a' && text[i]|0x20 <= 'z' || text[i] == '-' && start >= 0
		if text[i] >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(text[i:])
			n, letter = size, unicode.IsLetter(r)
		}
		switch {
		case letter && start < 0:
			start = i
		case !letter && start >= 0:
			return text[start:i], text[i:]
		}
		i += n
	}
	if start < 0 {
		return nil, nil
	}
	return text[start:], nil
}
