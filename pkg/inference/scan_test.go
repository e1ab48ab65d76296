// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func FuzzScanAndPatch(f *testing.F) {
	for _, s := range []string{
		`{"model":"m","messages":[{"role":"user","content":"hi"}]}`,
		"{ \"a\" : [1.0, -0, 1e+9, \"\\ud83d\\ude00\"] ,\n \"model\" : \"\\u006d\" }",
		`{"model":"m","model":"n"}`, `{"mod\u0065l":1,"model":2}`, `[]`, `{"a":{"b":[[[]]]}}`, "\xff", `{"a":"\ud800"}`, ``, `{"":""}`,
	} {
		f.Add([]byte(s), "vendor/Model-1")
	}
	f.Fuzz(func(t *testing.T, src []byte, name string) {
		tp, err := parse(src, nil, nil)
		if err != nil {
			return
		}
		if !json.Valid(src) {
			t.Fatalf("accepted what encoding/json refuses: %q", src)
		}
		if int(tp.nodes[0].next) != len(tp.nodes) {
			t.Fatalf("root does not span the tape")
		}
		inspect(&tp, &openAIRules, func(*walker) {})
		inspect(&tp, &anthropicRules, func(*walker) {})
		inspect(&tp, &geminiRules, func(*walker) {})
		i, ok := tp.member(0, "model")
		if !ok {
			return
		}
		out, err := tp.edited([]edit{tp.replace(i, mustJSON(name))}), error(nil)
		if err != nil {
			t.Fatal(err)
		}
		n := tp.nodes[i]
		tail := src[n.end:]
		if !bytes.HasPrefix(out, src[:n.start]) || !bytes.HasSuffix(out, tail) {
			t.Fatalf("bytes around the model changed: %q -> %q", src, out)
		}
		again, err := parse(out, nil, nil)
		if err != nil {
			t.Fatalf("patched document does not parse: %v: %q", err, out)
		}
		var want string
		if err := json.Unmarshal(out[n.start:len(out)-len(tail)], &want); err != nil {
			t.Fatal(err)
		}
		if got, _ := again.text(i); got != want {
			t.Fatalf("model is %q, want %q", got, want)
		}
	})
}

// FuzzVariants: what is listed of a request without a variant is the same for a
// reader of exact keys, to whom a key in other letters is nothing, and for one who
// takes it in any letters.
func FuzzVariants(f *testing.F) {
	for _, s := range []string{
		`{"tools":[{"Type":"function","type":"web_search","name":"x"}]}`, `{"tools":[{"type":"function","parameters":{"Type":{},"type":{}}}],"X":1}`,
		`{"m":[{"image_url":{"\u0055RL":"data:,","url":"https://x/"}}],"Y":{"URL":1}}`, `{"m":[{"source":{"Type":"base64","type":"url"}}]}`,
		`{"tools":[{"type":"shell","environment":{"type":"local"},"Environment":{}}]}`, `{"m":[{"type":"tool_use","input":{"Tools":[{"type":"mcp"}]}}]}`,
		`{"m":[{"type":"tool_addition","tool":{"definition":{"type":"x","Name":"y","tool\u017f":[]}}}],"Metadata":{"file_id":"f"},"container":{"Type":"x","type":"y"}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		for _, d := range dialects {
			tp, err := parse(src, nil, nil)
			if err != nil || tp.nodes[0].kind != kindObject {
				return
			}
			if d.rules.walk != nil {
				continue // see FuzzSpellings
			}
			want := inspect(&tp, d.rules, func(*walker) {})
			if tp.variant != 0 || slices.ContainsFunc(want, func(f finding) bool { return f.never != "" }) {
				continue
			}
			for reader, name := range map[string]func(i uint32) string{
				"exact keys": func(i uint32) string { return "zz" + strconv.Itoa(int(i)) },
				"any case":   func(i uint32) string { return string(tp.folded(i)) },
			} {
				as, err := parse(tp.renamed(name), nil, nil)
				if err != nil {
					continue // two of one name, where nothing was looked up
				}
				got := inspect(&as, d.rules, func(*walker) {})
				if len(got) != len(want) {
					t.Fatalf("%s: %q: %+v, not %+v", reader, src, got, want)
				}
				for i := range got {
					if got[i].tool != want[i].tool || got[i].what != want[i].what || !slices.Equal(got[i].at, want[i].at) {
						t.Fatalf("%s: %q: %+v, not %+v", reader, src, got[i], want[i])
					}
				}
			}
		}
	})
}

// renamed is the document with other names for all keys in other than lower case.
func (t *tape) renamed(name func(i uint32) string) []byte {
	var out []byte
	done := uint32(0)
	for i := range t.nodes {
		n := &t.nodes[i]
		if n.keyStart == 0 || string(t.folded(uint32(i))) == t.key(uint32(i)) {
			continue
		}
		key, _ := json.Marshal(name(uint32(i)))
		out = append(append(out, t.src[done:n.keyStart-1]...), key...)
		done = n.keyEnd + 1
	}
	return append(out, t.src[done:]...)
}

func TestScanAgreesWithEncodingJSON(t *testing.T) {
	for _, s := range []string{`1`, `-1.5E-3`, `01`, `1.`, `.5`, `-`, `1e`, `"a`, `"\x"`, `"\u12g4"`, "\"\t\"", `tru`, `nul`, `[1,]`, `[,1]`, `{"a"}`, `{"a":}`,
		`{a:1}`, `{"a":1 "b":2}`, `[1 2]`, `[`, `{`, ` [ ] `, `{"a":[{}]}`, `"\u00e9\ud83d\ude00"`, `nullx`} {
		_, err := parse([]byte(s), nil, nil)
		if want := json.Valid([]byte(s)); (err == nil) != want {
			t.Errorf("%s: %v, encoding/json says valid=%v", s, err, want)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"a*", "ab", true}, {"*b", "ab", true}, {"*x*", "axb", true}, {"*x*", "ab", false},
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"a*b", "ab", true}, {"a*b", "a", false}, {"aa*a", "aa", false},
	} {
		if glob(c.pattern, c.s) != c.want {
			t.Errorf("glob(%q, %q) != %v", c.pattern, c.s, c.want)
		}
	}
}

func TestScrubberAcrossChunks(t *testing.T) {
	const secret = "sk-secret"
	text := "a sk-secret b sk-sksk-secret c sk-secre"
	want := "a ********* b sk-sk********* c sk-secre"
	for size := 1; size <= len(text); size++ {
		s := scrubber{secrets: []string{secret}}
		var got []byte
		for i := 0; i < len(text); i += size {
			end := min(i+size, len(text))
			got = append(got, s.next([]byte(text[i:end]), end == len(text))...)
		}
		if string(got) != want {
			t.Fatalf("size %d: %q", size, got)
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	body := []byte(`{"model":"gpt-4o","messages":[{"role":"system","content":"` + strings.Repeat("Be brief. ", 40) + `"},{"role":"user","content":[{"type":"text","text":"` +
		strings.Repeat("What is it? ", 400) + `"}]}],"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":{"a":{"type":"string"}}}}}]}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	nodes := make([]node, 0, 256)
	for b.Loop() {
		t, err := parse(body, nodes, nil)
		if err != nil || len(inspect(&t, &openAIRules, func(*walker) {})) != 0 {
			b.Fatal(err)
		}
	}
}
