// SPDX-License-Identifier: Apache-2.0

// Package screen is a terminal without glass: it obeys what a full-screen
// program writes, as xterm does (ECMA-48 and xterm's ctlseqs), and tells tests
// what would be seen. What it does not know is listed, not guessed at.
package screen

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

// Screen is a terminal of a fixed size.
type Screen struct {
	Unknown []string // sequences that it does not know
	Styles  []string // parameters of SGR that were used, in the order of their first use
	Alt     bool     // the alternate screen is on
	Hidden  bool     // the cursor is hidden

	cells    [][]string // "" is the second cell of a wide character
	row, col int
	fixed    bool // what is written past the right edge stays at it
	from, to int  // the region that scrolls, inclusive
	wrap     bool // the next character begins a new row
	held     []byte
}

// New returns an empty screen.
func New(rows, cols int) *Screen {
	s := &Screen{}
	s.Resize(rows, cols)
	return s
}

// Resize empties the screen as it changes its size.
func (s *Screen) Resize(rows, cols int) {
	s.cells = make([][]string, rows)
	for i := range s.cells {
		s.cells[i] = blank(cols)
	}
	s.from, s.to = 0, rows-1
	s.row, s.col = min(s.row, rows-1), min(s.col, cols-1)
}

func blank(cols int) []string {
	row := make([]string, cols)
	for i := range row {
		row[i] = " "
	}
	return row
}

// Text is what is seen, without the blanks at the ends of rows.
func (s *Screen) Text() string {
	var b strings.Builder
	for _, row := range s.cells {
		b.WriteString(strings.TrimRight(strings.Join(row, ""), " "))
		b.WriteByte('\n')
	}
	return b.String()
}

// Write obeys p. It never fails.
func (s *Screen) Write(p []byte) (int, error) {
	in := append(s.held, p...)
	s.held = nil
	for len(in) > 0 {
		n := s.step(in)
		if n == 0 {
			s.held = slices.Clone(in)
			break
		}
		in = in[n:]
	}
	return len(p), nil
}

// step obeys the first unit and returns its length; 0 asks for more.
func (s *Screen) step(in []byte) int {
	switch c := in[0]; {
	case c == 0x1b:
		return s.escape(in)
	case c == '\r':
		s.col, s.wrap = 0, false
	case c == '\n':
		s.down()
	case c == '\b':
		s.col, s.wrap = max(0, s.col-1), false
	case c == '\t':
		s.col = min((s.col/8+1)*8, len(s.cells[0])-1)
	case c < 0x20 || c == 0x7f:
		s.Unknown = append(s.Unknown, strconv.Quote(string(in[:1])))
	default:
		if !utf8.FullRune(in) {
			return 0
		}
		r, n := utf8.DecodeRune(in)
		s.put(r)
		return n
	}
	return 1
}

func (s *Screen) put(r rune) {
	width := ansi.StringWidthWc(string(r))
	if width < 1 {
		s.Unknown = append(s.Unknown, strconv.QuoteRune(r))
		return
	}
	cols := len(s.cells[0])
	if s.wrap || s.col+width > cols {
		s.col, s.wrap = 0, false
		s.down()
	}
	s.cells[s.row][s.col] = string(r)
	if width == 2 {
		s.cells[s.row][s.col+1] = ""
	}
	s.col += width
	if s.col >= cols {
		s.col, s.wrap = cols-1, !s.fixed
	}
}

func (s *Screen) down() {
	if s.row == s.to {
		s.scroll(s.from, 1)
		return
	}
	s.row = min(s.row+1, len(s.cells)-1)
}

// scroll moves the rows from top to the end of the region up by n, or down.
func (s *Screen) scroll(top, n int) {
	for ; n > 0; n-- {
		copy(s.cells[top:s.to], s.cells[top+1:s.to+1])
		s.cells[s.to] = blank(len(s.cells[0]))
	}
	for ; n < 0; n++ {
		copy(s.cells[top+1:s.to+1], s.cells[top:s.to])
		s.cells[top] = blank(len(s.cells[0]))
	}
}

func (s *Screen) escape(in []byte) int {
	if len(in) < 2 {
		return 0
	}
	switch in[1] {
	case '[':
		for i := 2; i < len(in); i++ {
			if in[i] >= 0x40 && in[i] <= 0x7e {
				s.control(string(in[2:i]), in[i], string(in[:i+1]))
				return i + 1
			}
		}
		return 0
	case 'M':
		if s.row == s.from {
			s.scroll(s.from, -1)
		} else {
			s.row = max(0, s.row-1)
		}
		return 2
	case '7', '8', '=', '>': // the cursor kept and brought back around the whole; the keypad
		return 2
	}
	s.Unknown = append(s.Unknown, strconv.Quote(string(in[:2])))
	return 2
}

// control obeys one control sequence.
func (s *Screen) control(params string, final byte, whole string) {
	arg := func(i, missing int) int {
		parts := strings.Split(params, ";")
		if i < len(parts) {
			if n, err := strconv.Atoi(parts[i]); err == nil && n > 0 {
				return n
			}
		}
		return missing
	}
	rows, cols := len(s.cells), len(s.cells[0])
	private := strings.HasPrefix(params, "?") || strings.HasPrefix(params, ">") || strings.HasPrefix(params, "<") || strings.HasPrefix(params, "=")
	switch {
	case private:
		s.private(params, final, whole)
		return
	case final == 'm':
		for _, p := range strings.Split(params, ";") {
			if !slices.Contains(s.Styles, p) {
				s.Styles = append(s.Styles, p)
			}
		}
		return
	}
	s.wrap = false
	row := s.cells[s.row]
	switch final {
	case 'H':
		s.row, s.col = min(arg(0, 1), rows)-1, min(arg(1, 1), cols)-1
	case 'A':
		s.row = max(0, s.row-arg(0, 1))
	case 'B':
		s.row = min(rows-1, s.row+arg(0, 1))
	case 'C':
		s.col = min(cols-1, s.col+arg(0, 1))
	case 'D':
		s.col = max(0, s.col-arg(0, 1))
	case 'G':
		s.col = min(arg(0, 1), cols) - 1
	case 'd':
		s.row = min(arg(0, 1), rows) - 1
	case 'X':
		copy(row[s.col:min(cols, s.col+arg(0, 1))], blank(cols))
	case '@':
		s.cells[s.row] = slices.Insert(row, s.col, blank(arg(0, 1))...)[:cols]
	case 'P':
		n := min(arg(0, 1), cols-s.col)
		s.cells[s.row] = append(slices.Delete(row, s.col, s.col+n), blank(n)...)
	case 'L':
		s.scroll(s.row, -min(arg(0, 1), rows))
	case 'M':
		s.scroll(s.row, min(arg(0, 1), rows))
	case 'S':
		s.scroll(s.from, min(arg(0, 1), rows))
	case 'T':
		s.scroll(s.from, -min(arg(0, 1), rows))
	case 'Z':
		s.col = max(0, (s.col-1)/8*8)
	case 'r':
		s.from, s.to = arg(0, 1)-1, min(arg(1, rows), rows)-1
		s.row, s.col = 0, 0
	case 'K', 'J':
		s.erase(params, final)
	default:
		s.Unknown = append(s.Unknown, strconv.Quote(whole))
	}
}

func (s *Screen) erase(params string, final byte) {
	cols := len(s.cells[0])
	if final == 'K' {
		switch params {
		case "1":
			copy(s.cells[s.row][:s.col+1], blank(cols))
		case "2":
			s.cells[s.row] = blank(cols)
		default:
			copy(s.cells[s.row][s.col:], blank(cols))
		}
		return
	}
	from, to := s.row+1, len(s.cells)
	switch params {
	case "1":
		copy(s.cells[s.row][:s.col+1], blank(cols))
		from, to = 0, s.row
	case "2":
		from = 0
	default:
		copy(s.cells[s.row][s.col:], blank(cols))
	}
	for i := from; i < to; i++ {
		s.cells[i] = blank(cols)
	}
}

// private obeys what only terminals like xterm know.
func (s *Screen) private(params string, final byte, whole string) {
	on := final == 'h'
	switch {
	case final == 'u', final == 'm', params == "?2026$" || params == "?2027$": // keyboard and questions
	case params == "?5" && final == 'W': // tab stops
	case (final == 'h' || final == 'l') && params == "?1049":
		s.Alt = on
		if on {
			s.Resize(len(s.cells), len(s.cells[0]))
		}
	case (final == 'h' || final == 'l') && params == "?7":
		s.fixed = !on
	case (final == 'h' || final == 'l') && params == "?25":
		s.Hidden = !on
	case (final == 'h' || final == 'l') && params == "?2004": // pasting
	default:
		s.Unknown = append(s.Unknown, strconv.Quote(whole))
	}
}
