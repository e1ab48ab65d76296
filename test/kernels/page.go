// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// The compatibility tables of docs/KERNELS.md are written from testdata, so
// that what they say a kernel lacks is what a run compares with the kernel.
const (
	pageFile     = "docs/KERNELS.md"
	featuresMark = "<!-- what each kernel has: written by go run ./test/kernels -update -->\n"
	costsMark    = "<!-- what programs cost on each: written by go run ./test/kernels -update -->\n"
	endMark      = "<!-- end -->\n"
)

// column is one kernel of the tables.
type column struct {
	name string
	*expectation
}

func readColumns() ([]column, error) {
	var out []column
	for i := range matrix {
		e, err := readExpectation(&matrix[i])
		if err != nil {
			return nil, err
		}
		out = append(out, column{matrix[i].name, e})
	}
	return out, nil
}

// writePage puts the tables into the page.
func writePage() error {
	columns, err := readColumns()
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(pageFile)
	if err != nil {
		return err
	}
	page, err := render(string(raw), columns)
	if err != nil {
		return err
	}
	return os.WriteFile(pageFile, []byte(page), 0o644)
}

// render returns the page with both tables made anew.
func render(page string, columns []column) (string, error) {
	for _, t := range []struct{ mark, table string }{
		{featuresMark, features(columns)}, {costsMark, programCosts(columns)},
	} {
		head, rest, ok := strings.Cut(page, t.mark)
		_, tail, closed := strings.Cut(rest, endMark)
		if !ok || !closed {
			return "", fmt.Errorf("%s has no place for the table: %q", pageFile, t.mark)
		}
		page = head + t.mark + t.table + endMark + tail
	}
	return page, nil
}

// features is the table of what each kernel has.
func features(columns []column) string {
	yes := map[bool]string{true: "yes", false: "**no**"}
	names, kinds := map[string]bool{}, map[string]bool{}
	for _, c := range columns {
		for n := range c.Features {
			names[n] = true
		}
		for n := range c.Idmap {
			kinds[n] = true
		}
	}
	var b strings.Builder
	head(&b, "", columns, func(c column) string { return seriesOf(c.Release) })
	line := func(name string, cell func(c column) string) {
		b.WriteString("| " + name + " |")
		for _, c := range columns {
			b.WriteString(" " + cell(c) + " |")
		}
		b.WriteString("\n")
	}
	line("Debian's kernel", func(c column) string { return c.Release })
	line("Landlock ABI", func(c column) string { return fmt.Sprint(c.Landlock) })
	for _, n := range slices.Sorted(maps.Keys(names)) {
		line(n, func(c column) string { return yes[c.Features[n]] })
	}
	for _, n := range slices.Sorted(maps.Keys(kinds)) {
		line("idmapped mount of "+n, func(c column) string { return yes[c.Idmap[n]] })
	}
	line("required and missing", func(c column) string { return orNone(strings.Join(c.Missing, ", ")) })
	line("tests skipped", func(c column) string { return fmt.Sprint(len(c.skipped())) })
	b.WriteString("\n")
	for _, c := range columns {
		for _, s := range c.skipped() {
			fmt.Fprintf(&b, "- %s skips %s\n", seriesOf(c.Release), s)
		}
	}
	return b.String()
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// skipped lists tests with their reasons.
func (e *expectation) skipped() (out []string) {
	for _, pkg := range slices.Sorted(maps.Keys(e.Skips)) {
		for _, test := range slices.Sorted(maps.Keys(e.Skips[pkg])) {
			out = append(out, fmt.Sprintf("%s of %s: %s", test, pkg, e.Skips[pkg][test]))
		}
	}
	return out
}

// programCosts is the table of instructions that each verifier processes.
func programCosts(columns []column) string {
	names := map[string]bool{}
	for _, c := range columns {
		for n := range c.Costs {
			names[n] = true
		}
	}
	var b strings.Builder
	head(&b, "program", columns, func(c column) string { return seriesOf(c.Release) })
	for _, n := range slices.Sorted(maps.Keys(names)) {
		b.WriteString("| " + n + " |")
		for _, c := range columns {
			cell := "does not load"
			if v, ok := c.Costs[n]; ok {
				cell = fmt.Sprintf("%d, %d", v.Processed, v.Stack)
			}
			b.WriteString(" " + cell + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// head writes the first two lines of a table.
func head(b *strings.Builder, first string, columns []column, cell func(column) string) {
	b.WriteString("| " + first + " |")
	for _, c := range columns {
		b.WriteString(" " + cell(c) + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
}
