// SPDX-License-Identifier: Apache-2.0

package show

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestFilterLeavesNothingATerminalObeys(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"text", "hello\n", "hello\n"},
		{"utf-8", "größer 日本\n", "größer 日本\n"},
		{"progress", "50%\r100%\x1b[K\n", "50%\r100%\x1b[K\n"},
		{"colour", "\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"},
		{"title", "\x1b]0;evil\a", `\x1b]0;evil` + "\a"},
		{"clipboard", "\x1b]52;c;cm0=\x1b\\", `\x1b]52;c;cm0=\x1b\`},
		{"clear screen", "\x1b[2J", `\x1b[2J`},
		{"cursor up", "\x1b[A", `\x1b[A`},
		{"report", "\x1b[6n\x1b[c", `\x1b[6n\x1b[c`},
		{"private colour", "\x1b[>4;1m", `\x1b[>4;1m`},
		{"endless parameters", "\x1b[" + strings.Repeat("1;", 100) + "m", `\x1b[` + strings.Repeat("1;", 100) + "m"},
		{"C1 CSI", "\u009b2J", `\u009b2J`},
		{"raw C1", "\x9b2J", `\x9b2J`},
		{"bidi override", "a\u202eb", `a\u202eb`},
		{"NUL and DEL", "\x00\x7f", `\x00\x7f`},
		{"cut escape", "x\x1b", `x\x1b`},
		{"cut CSI", "x\x1b[3", `x\x1b[3`},
		{"cut rune", "x\xe6\x97", `x\xe6\x97`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 3, 1000} { // however the bytes are cut
				var out bytes.Buffer
				f := NewFilter(&out)
				for in := []byte(tt.in); len(in) > 0; {
					n := min(size, len(in))
					if m, err := f.Write(in[:n]); m != n || err != nil {
						t.Fatal(m, err)
					}
					in = in[n:]
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				if out.String() != tt.want {
					t.Errorf("in pieces of %d: %q, want %q", size, out.String(), tt.want)
				}
			}
		})
	}
}

func FuzzFilter(f *testing.F) {
	f.Add([]byte("\x1b[31mx\x1b]0;t\a\x9b"), 1)
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		if size < 1 {
			size = 1
		}
		var out bytes.Buffer
		w := NewFilter(&out)
		for p := in; len(p) > 0; {
			n := min(size, len(p))
			_, _ = w.Write(p[:n])
			p = p[n:]
		}
		_ = w.Close()
		rest := out.String()
		if !utf8.ValidString(rest) {
			t.Fatalf("%q", rest)
		}
		for len(rest) > 0 {
			if rest[0] == 0x1b {
				n, ok := harmless([]byte(rest))
				if !ok {
					t.Fatalf("%q", rest)
				}
				rest = rest[n:]
				continue
			}
			r, n := utf8.DecodeRuneInString(rest)
			if !unicode.IsPrint(r) && !strings.ContainsRune("\n\t\r\b\a", r) {
				t.Fatalf("%q", rest)
			}
			rest = rest[n:]
		}
	})
}

func TestSafeJSONKeepsTheValue(t *testing.T) {
	for _, s := range []string{"plain", "ü日", "\u009b2J", "\x1b[2J", "\u202e", "\U000e0041", "a\u007fb", "tab\tline\n"} {
		b, err := json.Marshal(map[string]string{"k": s})
		if err != nil {
			t.Fatal(err)
		}
		safe := SafeJSON(b)
		for _, r := range string(safe) {
			if !unicode.IsPrint(r) {
				t.Errorf("%q is left in %q", r, safe)
			}
		}
		var back map[string]string
		if err := json.Unmarshal(safe, &back); err != nil || back["k"] != s {
			t.Errorf("%q came back as %q, %v", s, back["k"], err)
		}
	}
}

func TestTableEscapesCells(t *testing.T) {
	var b bytes.Buffer
	if err := Table(&b, []string{"A", "B"}, [][]string{{"x\x1b[2J", ""}, {"long\tcell\nline", "y"}}); err != nil {
		t.Fatal(err)
	}
	want := "A                 B\nx\\x1b[2J          -\nlong\\tcell\\nline  y\n"
	if b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{-1: "0s", 5 * time.Second: "5s", 3 * time.Minute: "3m", 125 * time.Minute: "2h5m", 100 * time.Hour: "4d"} {
		if got := Age(d); got != want {
			t.Errorf("%s: %s", d, got)
		}
	}
}
