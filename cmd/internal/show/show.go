// SPDX-License-Identifier: Apache-2.0

package show

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ringfence/ringfence/pkg/event"
)

// Text makes one value printable on one line, cut after limit bytes (0:
// never).
func Text(s string, limit int) string { return event.Printable(s, limit) }

// JSON writes v indented. Characters that a terminal could obey are escaped.
func JSON(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(SafeJSON(b), '\n'))
	return err
}

// SafeJSON replaces every character of a JSON text that is not printable
// (line breaks and tabs between the values aside) by its \u escape, and every
// byte that is not UTF-8 by the escape of U+FFFD.
func SafeJSON(in []byte) []byte {
	clean := true
	for _, c := range in {
		if c != '\n' && c != '\t' && (c < 0x20 || c >= 0x7f) {
			clean = false
			break
		}
	}
	if clean {
		return in
	}
	var out bytes.Buffer
	for len(in) > 0 {
		r, n := utf8.DecodeRune(in)
		switch {
		case r == utf8.RuneError && n == 1:
			out.WriteString(`\ufffd`)
		case r == '\n' || r == '\t' || unicode.IsPrint(r):
			out.Write(in[:n])
		case r > 0xffff:
			r1, r2 := surrogates(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, r1, r2)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
		in = in[n:]
	}
	return out.Bytes()
}

func surrogates(r rune) (hi, lo rune) {
	r -= 0x10000
	return 0xd800 + (r>>10)&0x3ff, 0xdc00 + r&0x3ff
}

// Age is a duration in one or two units: "5s", "3m", "2h5m", "4d".
func Age(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 24*time.Hour:
		s := fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
		return s
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}
