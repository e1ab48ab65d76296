// SPDX-License-Identifier: Apache-2.0

package top

import "slices"

// column is one column of a table. Where the screen is too narrow for all, the
// column with the highest rank goes first.
type column struct {
	title    string
	min, max int // cells; max 0: as wide as its cells
	rank     int
	number   bool // at the right edge
}

// layout chooses the columns that fit and their widths, by index. What is left
// goes to those that need more, from the left.
func layout(cols []column, rows [][]string, width int) (widths []int) {
	widths = make([]int, len(cols))
	order := make([]int, len(cols))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cols[a].rank - cols[b].rank })
	room := width + 1
	for _, i := range order {
		if need := cols[i].min + 1; need <= room {
			widths[i], room = cols[i].min, room-need
		}
	}
	for i, c := range cols {
		if widths[i] == 0 {
			continue
		}
		wants := cells(c.title)
		for _, r := range rows {
			wants = max(wants, cells(r[i]))
		}
		if c.max > 0 {
			wants = min(wants, c.max)
		}
		more := min(max(0, wants-widths[i]), room)
		widths[i] += more
		room -= more
	}
	return widths
}

// tableRow puts cells under their columns.
func tableRow(cols []column, widths []int, row []string) string {
	out := ""
	for i, w := range widths {
		if w == 0 {
			continue
		}
		if out != "" {
			out += " "
		}
		if cols[i].number {
			out += right(row[i], w)
		} else {
			out += fill(row[i], w)
		}
	}
	return out
}

func titles(cols []column) []string {
	var out []string
	for _, c := range cols {
		out = append(out, c.title)
	}
	return out
}
