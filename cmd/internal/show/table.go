// SPDX-License-Identifier: Apache-2.0

package show

import (
	"io"
	"os"
	"text/tabwriter"
	"unicode/utf8"

	"golang.org/x/term"
)

const (
	maxCell = 120 // bytes
	minCell = 10  // characters; the widest columns are cut to no less
	gap     = 2
)

// Table writes rows of cells under a header, aligned by spaces. Every cell is
// escaped and at most 120 bytes; an empty one is "-". On a terminal the longest
// cells are cut, and end in "~", so that a row is one line; those of the first
// column, which commands are given, are not.
func Table(w io.Writer, header []string, rows [][]string) error {
	all := make([][]string, 0, len(rows)+1)
	for _, r := range append([][]string{header}, rows...) {
		cells := make([]string, len(r))
		for i, c := range r {
			if cells[i] = Text(c, maxCell); c == "" {
				cells[i] = "-"
			}
		}
		all = append(all, cells)
	}
	if width := terminalWidth(w); width > 0 {
		fit(all, width)
	}
	tw := tabwriter.NewWriter(w, 0, 8, gap, ' ', 0)
	for _, r := range all {
		for i, c := range r {
			if i > 0 {
				c = "\t" + c
			}
			_, _ = io.WriteString(tw, c)
		}
		_, _ = io.WriteString(tw, "\n")
	}
	return tw.Flush()
}

// terminalWidth is that of the terminal that w is, 0 for anything else.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// fit cuts the cells of the widest columns until a row is no longer than width, or
// nothing is left to cut.
func fit(rows [][]string, width int) {
	var columns []int // the width of each
	for _, r := range rows {
		for i, c := range r {
			if i == len(columns) {
				columns = append(columns, 0)
			}
			columns[i] = max(columns[i], utf8.RuneCountInString(c))
		}
	}
	over := -gap - width
	for _, c := range columns {
		over += c + gap
	}
	for ; over > 0; over-- {
		widest := 0
		for i := 1; i < len(columns); i++ {
			if widest == 0 || columns[i] >= columns[widest] {
				widest = i
			}
		}
		if widest == 0 || columns[widest] <= minCell {
			break
		}
		columns[widest]--
	}
	for _, r := range rows {
		for i, c := range r {
			if runes := []rune(c); len(runes) > columns[i] {
				r[i] = string(runes[:columns[i]-1]) + "~"
			}
		}
	}
}
