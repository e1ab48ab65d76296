// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestSnakeCase(t *testing.T) {
	for camel, snake := range map[string]string{"tools": "tools", "fileUri": "file_uri", "parallelAiSearch": "parallel_ai_search", "responseJsonSchema": "response_json_schema", "": ""} {
		if got := snakeCase(camel); got != snake {
			t.Errorf("%s: %s", camel, got)
		}
	}
}

// FuzzSpellings: what is listed of a request without a variant is the same for every
// way to spell its known members that a reader of Protocol Buffers takes; and the same
// for one to whom no other spelling is anything.
func FuzzSpellings(f *testing.F) {
	for _, c := range []string{
		`{"tools":[{"googleSearch":{}},{"code_execution":{}}],"cachedContent":"x"}`,
		`{"contents":[{"parts":[{"fileData":{"fileUri":"https://x/"}},{"file_data":{"file_uri":"gs://x"}}]}]}`,
		`{"tools":[{"functionDeclarations":[{"parametersJsonSchema":{"fileUri":1,"file_uri":2}}]}],"X":{"sourceUri":"y"}}`,
		`{"generationConfig":{"routingConfig":{}},"tools":[{"T":1}],"labels":{"a_b":1,"aB":2}}`,
		`{"fileUri":"x","FILEURI":"y"}`, `{"a_b":1,"aB":2}`,
	} {
		f.Add([]byte(c))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		tp, err := parse(src, nil, nil)
		if err != nil || tp.nodes[0].kind != kindObject {
			return
		}
		want := inspect(&tp, &geminiRules, func(*walker) {})
		if tp.variant != 0 {
			return
		}
		for _, as := range []func(string) string{func(s string) string { return s }, snakeCase} {
			other, err := parse(tp.respelled(as), nil, nil)
			if err != nil {
				continue // two of one name in what is the client's own
			}
			got := inspect(&other, &geminiRules, func(*walker) {})
			if other.variant != 0 || !slices.EqualFunc(got, want, func(a, b finding) bool { return a.tool == b.tool && a.never == b.never && slices.Equal(a.at, b.at) }) {
				t.Fatalf("%q: %+v, not %+v (variant %d)", src, got, want, other.variant)
			}
		}
	})
}

// respelled is the document with the known members spelled in another way.
func (t *tape) respelled(as func(camel string) string) []byte {
	var out []byte
	done := uint32(0)
	for i := range t.nodes {
		n := &t.nodes[i]
		name := t.canonical(nil, uint32(i))
		m := geminiMembers[string(name)]
		if m == nil {
			m = geminiTools[string(name)]
		}
		if n.keyStart == 0 || m == nil || strings.ContainsAny(string(t.src[n.keyStart:n.keyEnd]), "\\") {
			continue
		}
		if key := t.key(uint32(i)); key != m.name && key != snakeCase(m.name) {
			continue // in what is the client's own
		}
		key, _ := json.Marshal(as(m.name))
		out = append(append(out, t.src[done:n.keyStart-1]...), key...)
		done = n.keyEnd + 1
	}
	return append(out, t.src[done:]...)
}
