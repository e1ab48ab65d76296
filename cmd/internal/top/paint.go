// SPDX-License-Identifier: Apache-2.0

package top

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"

	"github.com/ringfence/ringfence/pkg/event"
)

// style is how a piece of a line looks: parameters of SGR (ECMA-48 8.3.117).
type style string

const (
	plain   style = ""
	bold    style = "1"
	reverse style = "7"
	red     style = "31"
	green   style = "32"
	yellow  style = "33"
)

// mono is the style where there are no colours: nothing that is said by a
// colour is said by it alone.
func (s style) mono() style {
	if s == bold || s == reverse {
		return s
	}
	return plain
}

// span is printable text in one style; line is one row of the screen.
type span struct {
	text  string
	style style
}

type line []span

func text(s string) line { return line{{s, plain}} }

// paint cuts a line to width cells and adds the styles. A reversed line reaches
// to the edge.
func (l line) paint(width int, color bool) string {
	var b strings.Builder
	room := width
	for _, s := range l {
		t := cut(s.text, room)
		room -= cells(t)
		st := s.style
		if !color {
			st = st.mono()
		}
		if t == "" {
			continue
		}
		if st == plain {
			b.WriteString(t)
			continue
		}
		b.WriteString("\x1b[" + string(st) + "m" + t + "\x1b[m")
	}
	return b.String()
}

// safe makes text that others chose printable, as [event.Printable] does, and
// escapes besides what makes a row look like something else than it is: marks
// that stand on or over their neighbours, letters of scripts that run from right
// to left, which turn the digits and signs around them, and text of which
// terminals do not agree how wide it is.
func safe(s string, limit int) string {
	s = event.Printable(s, limit)
	if ascii(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if r < utf8.RuneSelf || steady(r) {
			b.WriteRune(r)
			continue
		}
		b.WriteString(escaped(r))
	}
	if s = b.String(); ansi.StringWidth(s) == ansi.StringWidthWc(s) {
		return s
	}
	b.Reset()
	for _, r := range s {
		if r < utf8.RuneSelf {
			b.WriteRune(r)
			continue
		}
		b.WriteString(escaped(r))
	}
	return b.String()
}

func ascii(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func escaped(r rune) string {
	q := strconv.QuoteRuneToASCII(r)
	return q[1 : len(q)-1]
}

// steady says whether a character fills its own cells and stays where it is.
// The ranges are those that Unicode reserves for right-to-left scripts
// (DerivedBidiClass.txt, @missing lines).
func steady(r rune) bool {
	switch {
	case unicode.Is(unicode.M, r), ansi.StringWidthWc(string(r)) < 1, r >= 0x1f1e6 && r <= 0x1f1ff: // the last: two of them may be one flag
		return false
	case r >= 0x0590 && r <= 0x08ff, r >= 0xfb1d && r <= 0xfdff, r >= 0xfe70 && r <= 0xfeff, r >= 0x10800 && r <= 0x10fff, r >= 0x1e800 && r <= 0x1efff:
		return false
	}
	return true
}

// cells is the width of printable text.
func cells(s string) int {
	if ascii(s) {
		return len(s)
	}
	return ansi.StringWidthWc(s)
}

// cut shortens printable text to width cells; "~" says that there was more.
func cut(s string, width int) string {
	if cells(s) <= width {
		return s
	}
	if width <= 0 {
		return ""
	}
	head, _ := split(s, width-1)
	return head + "~"
}

// split takes as many characters as fit into width cells.
func split(s string, width int) (head, rest string) {
	used := 0
	for i, r := range s {
		w := 1
		if r >= utf8.RuneSelf {
			w = ansi.StringWidthWc(string(r))
		}
		if used+w > width {
			return s[:i], s[i:]
		}
		used += w
	}
	return s, ""
}

// fill cuts or fills up to exactly width cells.
func fill(s string, width int) string {
	s = cut(s, width)
	return s + strings.Repeat(" ", max(0, width-cells(s)))
}

// right is fill with the text at the right edge.
func right(s string, width int) string {
	s = cut(s, width)
	return strings.Repeat(" ", max(0, width-cells(s))) + s
}

// wrap breaks printable text into rows of width cells, after a space where one
// is near the end: all of it is shown, and nothing is moved.
func wrap(s string, width int) []string {
	var out []string
	for {
		head, rest := split(s, width)
		if head == "" && rest != "" { // one cell, and a character of two
			return append(out, "~")
		}
		if i := strings.LastIndexByte(head, ' ') + 1; rest != "" && i > len(head)*2/3 {
			head, rest = s[:i], s[i:]
		}
		out = append(out, head)
		if rest == "" {
			return out
		}
		s = rest
	}
}

// field is a name and a value that goes on below itself.
func field(name, value string, width int, st style) []line {
	const indent = 11
	var out []line
	for i, part := range wrap(value, max(1, width-indent)) {
		if i > 0 {
			name = ""
		}
		out = append(out, line{{fill(name, indent), bold}, {part, st}})
	}
	return out
}

// count is a number in at most five characters.
func count(n uint64) string {
	units := []struct {
		of   uint64
		name string
	}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}}
	for _, u := range units {
		if n >= 10*u.of {
			return strconv.FormatUint(n/u.of, 10) + u.name
		}
	}
	return strconv.FormatUint(n, 10)
}

func plural(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}
