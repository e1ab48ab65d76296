// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files and FIELDS.md")

// testOptions are the options of golden files and fuzz targets.
var testOptions = RequestOptions{DefaultMaxTokens: 4096, Created: 1741569952, SystemInMessages: true}

// other is the dialect that a client of d is translated to.
func other(d Dialect) Dialect {
	if d == OpenAIChat {
		return AnthropicMessages
	}
	return OpenAIChat
}

// golden is one directory of testdata: what the client sends and what the
// provider answers, after the providers' documented examples. The rest is what
// the translation made of it.
type golden struct {
	dir    string
	client Dialect
}

func (g golden) read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return b
}

func goldens(t testing.TB) []golden {
	t.Helper()
	var out []golden
	for name, d := range map[string]Dialect{"openai": OpenAIChat, "anthropic": AnthropicMessages} {
		dirs, err := filepath.Glob(filepath.Join("testdata", name, "*"))
		if err != nil || len(dirs) < 8 {
			t.Fatalf("testdata of %s: %d cases, %v", name, len(dirs), err)
		}
		for _, dir := range dirs {
			out = append(out, golden{dir, d})
		}
	}
	return out
}

// TestGolden translates the documented examples; go test -update writes what
// came out, to be read before it is committed.
func TestGolden(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(g.dir, func(t *testing.T) {
			o := testOptions
			o.Model = "upstream-model"
			call, err := Request(g.client, other(g.client), g.read(t, "request.json"), o)
			if err != nil {
				t.Fatal(err)
			}
			g.same(t, "upstream.json", indent(t, call.Body))
			if answer := g.read(t, "answer.json"); answer != nil {
				out, err := call.Response(answer)
				if err != nil {
					t.Fatal(err)
				}
				g.same(t, "client.json", indent(t, out))
			}
			if stream := g.read(t, "stream.sse"); stream != nil {
				s := call.Stream()
				out, err := s.Write(nil, stream)
				if err == nil {
					out, err = s.End(out)
				}
				var failed *streamError
				if wants := strings.Contains(g.dir, "error"); wants != errors.As(err, &failed) || !wants && err != nil {
					t.Errorf("the stream ended with %v", err)
				}
				g.same(t, "client.sse", out)
			}
			var notes bytes.Buffer
			for _, n := range call.Notes() {
				fmt.Fprintf(&notes, "%s: %s\n", n.Field, n.Why)
			}
			g.same(t, "notes.txt", notes.Bytes())
		})
	}
}

func (g golden) same(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(filepath.Join(g.dir, name), got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := g.read(t, name); !bytes.Equal(want, got) {
		t.Errorf("%s differs; got\n%s\nwant\n%s", name, got, want)
	}
}

func indent(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	out.WriteByte('\n')
	return out.Bytes()
}
