// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// printer writes for people.
type printer struct {
	color bool
	width int
}

func (p printer) line(format string, args ...any) { fmt.Printf(format+"\n", args...) }

func (p printer) paint(code, s string) string {
	if !p.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// table prints the rows and returns how many are not as they should be.
func (p printer) table(rows []row) int {
	room := p.width - 6 // mark and gaps
	w := [3]int{room * 31 / 100, room * 34 / 100, room - room*31/100 - room*34/100}
	p.cells(w, "  ", [3]string{"what the agent tried", "what happened", "what the event log says"}, "1")
	fmt.Println(strings.Repeat("-", p.width))
	wrong := 0
	for i := range rows {
		r := &rows[i]
		mark, code := "ok", "32"
		if !r.ok() {
			mark, code = "!!", "31"
			wrong++
		}
		p.cells(w, mark, [3]string{r.saw.Tried, r.happened(), r.reason()}, code)
	}
	fmt.Println()
	return wrong
}

// cells prints one row with its texts wrapped, the first column painted.
func (p printer) cells(w [3]int, mark string, text [3]string, code string) {
	var lines [3][]string
	height := 0
	for i := range text {
		lines[i] = wrap(text[i], w[i])
		height = max(height, len(lines[i]))
	}
	for n := range height {
		var out strings.Builder
		for i := range lines {
			s := ""
			if n < len(lines[i]) {
				s = lines[i][n]
			}
			out.WriteString(s + strings.Repeat(" ", w[i]-utf8.RuneCountInString(s)+1))
		}
		if n > 0 {
			mark = "  "
		}
		fmt.Println(p.paint(code, mark) + " " + strings.TrimRight(out.String(), " "))
	}
}

// wrap breaks a text at spaces, and words that are longer than a line.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width {
			line += " " + word
			continue
		}
		if line != "" {
			lines = append(lines, line)
		}
		r := []rune(word)
		for len(r) > width {
			lines = append(lines, string(r[:width]))
			r = r[width:]
		}
		line = string(r)
	}
	return append(lines, line)
}

// next names what to try now.
func (p printer) next() {
	fmt.Print(p.paint("1", "Next") + `

  make start                          # a daemon in the background; it prints the two variables to export
  ringfence run --profile coding -- claude      # a real coding agent, in this directory: any command works
  ringfence events --follow --denied            # in another terminal: what it tries and may not
  ringfence allow api.github.com:443 --for 1h   # open one host for the running sandbox
  ringfence provider add openai --key-env OPENAI_API_KEY       # real answers; the agent never sees the key
  ringfence provider add anthropic --credential passthrough    # or: the agent's own log-in
  ringfence explain EVENT-ID                    # which rule decided, and what would change it
  ringfence doctor                              # what this kernel offers
  make stop
`)
}
