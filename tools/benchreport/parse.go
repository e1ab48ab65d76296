// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// row is one benchmark with its figures by unit: one for each of its runs.
type row struct {
	name    string
	figures map[string][]float64
}

// procs is the number of CPUs that go puts behind a name.
var procs = regexp.MustCompile(`-\d+$`)

// parse reads the result lines of go test -bench. Runs of one benchmark are
// one row.
func parse(out []byte) []row {
	var rows []row
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 4 || len(f)%2 != 0 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		if _, err := strconv.Atoi(f[1]); err != nil {
			continue
		}
		name := strings.TrimPrefix(procs.ReplaceAllString(f[0], ""), "Benchmark")
		i := slices.IndexFunc(rows, func(r row) bool { return r.name == name })
		if i < 0 {
			i = len(rows)
			rows = append(rows, row{name, map[string][]float64{}})
		}
		for k := 2; k+1 < len(f); k += 2 {
			if v, err := strconv.ParseFloat(f[k], 64); err == nil {
				rows[i].figures[f[k+1]] = append(rows[i].figures[f[k+1]], v)
			}
		}
	}
	return rows
}

// notes are the reasons of what was skipped.
func notes(out []byte) []string {
	var found []string
	skipped := false
	for line := range strings.Lines(string(out)) {
		t := strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(t, "--- SKIP: "); ok {
			name, _, _ = strings.Cut(name, " ")
			found, skipped = append(found, strings.TrimPrefix(procs.ReplaceAllString(name, ""), "Benchmark")+" was skipped"), true
			continue
		}
		if _, why, ok := strings.Cut(t, ".go:"); skipped && ok {
			_, why, _ = strings.Cut(why, ": ")
			found[len(found)-1] += ": " + why
		}
		skipped = false
	}
	return found
}

// cell is a row's figure with its spread: what the benchmark reported as
// UNIT-mad, or else the deviation of its runs.
func (r row) cell(unit string) string {
	vs := r.figures[unit]
	if len(vs) == 0 {
		return ""
	}
	m := median(vs)
	spread := 0.0
	if mads := r.figures[unit+"-mad"]; len(mads) > 0 {
		spread = median(mads)
	} else {
		off := make([]float64, len(vs))
		for i, v := range vs {
			off[i] = max(v-m, m-v)
		}
		spread = median(off)
	}
	if spread == 0 {
		return number(m)
	}
	return number(m) + " ± " + number(spread)
}

func median(vs []float64) float64 {
	c := slices.Sorted(slices.Values(vs))
	return (c[(len(c)-1)/2] + c[len(c)/2]) / 2
}

// number has three significant digits and no exponent.
func number(v float64) string {
	switch {
	case v >= 100 || v == float64(int(v)):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// all is one table of every figure.
func all(rows []row) []column {
	var cols []column
	for _, r := range rows {
		for unit, vs := range r.figures {
			c := column{strings.Replace(unit, "-", " ", 1), unit}
			if !strings.HasSuffix(unit, "-mad") && median(vs) != 0 && !slices.Contains(cols, c) {
				cols = append(cols, c)
			}
		}
	}
	slices.SortFunc(cols, func(a, b column) int { return strings.Compare(a.unit, b.unit) })
	return cols
}

// render writes the section's tables.
func (s *section) render(w io.Writer, rows []row, skipped []string) {
	if len(rows) == 0 && len(skipped) == 0 {
		return
	}
	fmt.Fprintf(w, "\n## %s\n\n%s\n\n`%s`\n", s.title, s.text, s.command())
	tables := s.tables
	if tables == nil {
		tables = [][]column{all(rows)}
	}
	for _, cols := range tables {
		renderTable(w, cols, rows)
	}
	for _, n := range skipped {
		fmt.Fprintf(w, "\n%s.\n", n)
	}
}

// renderTable leaves out rows without a figure.
func renderTable(w io.Writer, cols []column, rows []row) {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r row) bool {
		return !slices.ContainsFunc(cols, func(c column) bool { return len(r.figures[c.unit]) > 0 })
	})
	if len(rows) == 0 {
		return
	}
	fmt.Fprint(w, "\n| |")
	for _, c := range cols {
		fmt.Fprintf(w, " %s |", c.head)
	}
	fmt.Fprint(w, "\n|---|"+strings.Repeat("---|", len(cols))+"\n")
	for _, r := range rows {
		fmt.Fprintf(w, "| %s |", r.name)
		for _, c := range cols {
			fmt.Fprintf(w, " %s |", r.cell(c.unit))
		}
		fmt.Fprintln(w)
	}
}
