// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// passAll passes a stream in the pieces that a reader gives.
func passAll(e *wholeEvents, r io.Reader) (parts []string, end error) {
	buf := make([]byte, 512)
	for {
		n, err := r.Read(buf)
		out, err := e.pass(buf[:n], err)
		if len(out) > 0 {
			parts = append(parts, string(out))
		}
		if err != nil {
			return parts, err
		}
	}
}

func TestStreamsEndBetweenEvents(t *testing.T) {
	ends := []string{"[DONE]"}
	for name, c := range map[string]struct {
		in, out string
		whole   bool
	}{
		"a whole one":                           {"data: {}\n\ndata: [DONE]\n\n", "data: {}\n\ndata: [DONE]\n\n", true},
		"other ends of lines":                   {"data: {}\r\n\r\ndata: 1\r\rdata: 2\n\r\ndata: [DONE]\r\n\r\n", "data: {}\r\n\r\ndata: 1\r\rdata: 2\n\r\ndata: [DONE]\r\n\r\n", true},
		"no blank line after the last event":    {"data: {}\n\ndata: [DONE]\n", "data: {}\n\ndata: [DONE]\n", true},
		"no end of the last line":               {"data: {}\n\ndata: [DONE]", "data: {}\n\ndata: [DONE]", true},
		"half an event":                         {"data: {}\n\ndata: {\"a", "data: {}\n\n", false},
		"half of the end":                       {"data: {}\n\ndata: [DO", "data: {}\n\n", false},
		"the name of an event":                  {"data: {}\n\nevent: x\n", "data: {}\n\n", false},
		"no end":                                {"data: {}\n\n", "data: {}\n\n", false},
		"nothing":                               {"", "", false},
		"an error is an end":                    {"data: {\"error\":{\"message\":\"x\"}}\n\n", "data: {\"error\":{\"message\":\"x\"}}\n\n", true},
		"an event that is too large to be held": {"data: \"" + strings.Repeat("x", holdBytes+1000), "data: \"" + strings.Repeat("x", holdBytes+1000), false},
		"a large event, and the end":            {"data: \"" + strings.Repeat("x", 2*holdBytes) + "\"\n\ndata: [DONE]\n\n", "data: \"" + strings.Repeat("x", 2*holdBytes) + "\"\n\ndata: [DONE]\n\n", true},
	} {
		for way, r := range map[string]io.Reader{"at once": strings.NewReader(c.in), "byte by byte": iotest.OneByteReader(strings.NewReader(c.in)),
			"with the end": iotest.DataErrReader(strings.NewReader(c.in))} {
			parts, err := passAll(&wholeEvents{ends: ends}, r)
			got := strings.Join(parts, "")
			if strings.Contains(name, "too large") {
				if !strings.HasPrefix(c.out, got) || len(got) <= holdBytes || err == io.EOF {
					t.Errorf("%s, %s: %d bytes, %v", name, way, len(got), err)
				}
				continue
			}
			if got != c.out || (err == io.EOF) != c.whole {
				t.Errorf("%s, %s: %q, %v", name, way, got[:min(len(got), 200)], err)
			}
		}
	}
}

func TestNoCompleteEventIsHeldBack(t *testing.T) {
	e := &wholeEvents{}
	for _, c := range []struct{ in, out string }{
		{"data: 1\n\n", "data: 1\n\n"}, {"data: 2", ""}, {"\n", ""}, {"\ndata: 3\n\nda", "data: 2\n\ndata: 3\n\n"}, {"ta: 4\n\n", "data: 4\n\n"},
		{"data: 5\r\n", ""}, {"\r", "data: 5\r\n\r"}, {"\n: c\n\n", "\n: c\n\n"}, {"data: 6\n\ndata: 7\n", "data: 6\n\n"}, {"\n", "data: 7\n\n"},
	} {
		if out, err := e.pass([]byte(c.in), nil); err != nil || string(out) != c.out {
			t.Errorf("after %q: %q, want %q (%v)", c.in, out, c.out, err)
		}
	}
}

func TestErrorsInsideAStreamAreSeen(t *testing.T) {
	for in, want := range map[string]bool{
		"event: error\ndata: {\"type\":\"error\",\"error\":{}}\n\n":                                     true,
		"data: {\"type\":\"error\",\"message\":\"x\"}\n\n":                                              true,
		"data: {\"error\":{\"message\":\"x\"}}\n\n":                                                     true,
		"data: {\"type\":\"response.failed\",\"response\":{\"error\":{}}}\n\n":                          true,
		"data: {\"choices\":[{\"delta\":{\"content\":\"event: error\\ndata: {\\\"error\\\":{\"}}]}\n\n": false,
		"data: {\"type\":\"response.created\",\"response\":{\"error\":null}}\n\n":                       false,
	} {
		e := &wholeEvents{}
		if _, err := passAll(e, strings.NewReader(in)); e.failed != want || err != io.EOF {
			t.Errorf("%q: failed %v, %v", in, e.failed, err)
		}
	}
}

// However a stream is cut into pieces, the same bytes pass, in order, and what has
// passed ends with a blank line while nothing has ended it.
func FuzzWholeEvents(f *testing.F) {
	f.Add([]byte("data: {}\r\n\r\ndata: [DONE]\n\n"), uint8(3))
	f.Add([]byte("data: {\n\ndata: }\r\r: x\n"), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		e, all := &wholeEvents{}, []byte(nil)
		for rest := in; len(rest) > 0; {
			n := min(int(step)%16+1, len(rest))
			out, err := e.pass(bytes.Clone(rest[:n]), nil)
			if err != nil {
				t.Fatal(err)
			}
			all, rest = append(all, out...), rest[n:]
			if len(all) > 0 && !e.open && lastBlank(all) != len(all) {
				t.Fatalf("%q ends inside an event: %q", in, all)
			}
		}
		out, err := e.pass(nil, io.EOF)
		all = append(all, out...)
		if !bytes.HasPrefix(in, all) || err == io.EOF && len(all) != len(in) {
			t.Fatalf("%q became %q: %v", in, all, err)
		}
	})
}
