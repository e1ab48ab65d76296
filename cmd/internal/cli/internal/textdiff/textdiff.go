// SPDX-License-Identifier: Apache-2.0

// Package textdiff compares two texts line by line.
package textdiff

import (
	"fmt"
	"strings"
)

// context is how many lines that both have are shown around a difference.
const context = 3

// maxCells bounds the table of one comparison. What differs over more than that
// is shown as all of the one text and all of the other.
const maxCells = 4 << 20

// op is one line of the way from one text to the other.
type op struct {
	kind byte // ' ', '-' or '+'
	line string
}

// Unified is the difference in the unified format, "" if there is none. Applied
// to a it gives b, whatever the lines are.
func Unified(nameA, nameB, a, b string) string {
	if a == b {
		return ""
	}
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s\n", nameA, nameB)
	ops := script(lines(a), lines(b))
	for i := 0; i < len(ops); {
		if ops[i].kind == ' ' {
			i++
			continue
		}
		from, to := max(0, i-context), i
		for end := i; end < len(ops) && end-to <= 2*context; end++ {
			if ops[end].kind != ' ' {
				to = end + 1
			}
		}
		i = min(len(ops), to+context)
		hunk(&out, ops, from, i)
	}
	return out.String()
}

// hunk writes the lines from one to another under their place in both texts.
func hunk(out *strings.Builder, ops []op, from, to int) {
	lineA, lineB := 1, 1
	for _, o := range ops[:from] {
		if o.kind != '+' {
			lineA++
		}
		if o.kind != '-' {
			lineB++
		}
	}
	countA, countB := 0, 0
	for _, o := range ops[from:to] {
		if o.kind != '+' {
			countA++
		}
		if o.kind != '-' {
			countB++
		}
	}
	if countA == 0 {
		lineA-- // the format names the line before an empty range
	}
	if countB == 0 {
		lineB--
	}
	fmt.Fprintf(out, "@@ -%d,%d +%d,%d @@\n", lineA, countA, lineB, countB)
	for _, o := range ops[from:to] {
		out.WriteByte(o.kind)
		out.WriteString(strings.TrimSuffix(o.line, "\n"))
		out.WriteByte('\n')
		if !strings.HasSuffix(o.line, "\n") {
			out.WriteString("\\ No newline at end of file\n")
		}
	}
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	out := strings.SplitAfter(s, "\n")
	if out[len(out)-1] == "" {
		out = out[:len(out)-1]
	}
	return out
}

// script is the shortest way from a to b, by the longest common subsequence of
// what is left between what both begin and end with.
func script(a, b []string) (ops []op) {
	head := 0
	for head < min(len(a), len(b)) && a[head] == b[head] {
		ops = append(ops, op{' ', a[head]})
		head++
	}
	tail := 0
	for tail < min(len(a), len(b))-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	ops = append(ops, middle(a[head:len(a)-tail], b[head:len(b)-tail])...)
	for _, l := range a[len(a)-tail:] {
		ops = append(ops, op{' ', l})
	}
	return ops
}

func middle(a, b []string) (ops []op) {
	i, j := 0, 0
	if (len(a)+1)*(len(b)+1) <= maxCells {
		common := table(a, b)
		width := len(b) + 1
		for i < len(a) && j < len(b) {
			switch {
			case a[i] == b[j]:
				ops = append(ops, op{' ', a[i]})
				i, j = i+1, j+1
			case common[(i+1)*width+j] >= common[i*width+j+1]:
				ops = append(ops, op{'-', a[i]})
				i++
			default:
				ops = append(ops, op{'+', b[j]})
				j++
			}
		}
	}
	for ; i < len(a); i++ {
		ops = append(ops, op{'-', a[i]})
	}
	for ; j < len(b); j++ {
		ops = append(ops, op{'+', b[j]})
	}
	return ops
}

// table has, for each pair of ends of a and b, how many lines they have in common.
func table(a, b []string) []int32 {
	width := len(b) + 1
	common := make([]int32, (len(a)+1)*width)
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i*width+j] = common[(i+1)*width+j+1] + 1
			} else {
				common[i*width+j] = max(common[(i+1)*width+j], common[i*width+j+1])
			}
		}
	}
	return common
}
