// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"encoding/json"
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
		i, ok := tp.member(0, "model")
		if !ok {
			return
		}
		out, err := tp.patch(i, name)
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
