// SPDX-License-Identifier: Apache-2.0

package show

import (
	"bufio"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/creack/pty"
)

func TestFit(t *testing.T) {
	long := strings.Repeat("ü", 60)
	for width, want := range map[int]int{200: 143, 143: 143, 100: 100, 80: 80, 40: 43} { // no column is cut to nothing
		rows := [][]string{{"ID", "SCOPE", "N", "TARGET"}, {"0123456789abcdef", long, "1", long}}
		fit(rows, width)
		got := 0
		for _, c := range rows[1] {
			got += utf8.RuneCountInString(c)
		}
		if got += 3 * gap; got != want {
			t.Errorf("at %d a row is %d wide, want %d: %q", width, got, want, rows[1])
		}
		if rows[1][0] != "0123456789abcdef" || rows[1][2] != "1" {
			t.Errorf("at %d: %q", width, rows[1])
		}
		if cut := strings.HasSuffix(rows[1][1], "~"); cut != (width < 143) {
			t.Errorf("at %d: %q", width, rows[1][1])
		}
	}
	fit(nil, 10)
	fit([][]string{{"only a first column that is long"}}, 5)
}

// TestOnATerminal: a row is a line there, and whole anywhere else.
func TestOnATerminal(t *testing.T) {
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := pty.Setsize(master, &pty.Winsize{Rows: 24, Cols: 60}); err != nil {
		t.Fatal(err)
	}
	header, rows := []string{"ID", "WHAT"}, [][]string{{"1", strings.Repeat("x", 100)}}
	if err := Table(slave, header, rows); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	in := bufio.NewReader(master)
	for range 2 {
		line, err := in.ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); err != nil || len(line) > 60 {
			t.Errorf("%d characters: %q, %v", len(line), line, err)
		}
	}
	var b strings.Builder
	if err := Table(&b, header, rows); err != nil || !strings.Contains(b.String(), rows[0][1]) {
		t.Errorf("%q %v", b.String(), err)
	}
}
