// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"encoding/json"
	"testing"

	"github.com/ringfence/ringfence/pkg/policy"
)

func TestBoundOfGeminisOutput(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`{}`, `{"generationConfig":{"maxOutputTokens":9}}`},
		{` { "contents":[] }`, ` {"generationConfig":{"maxOutputTokens":9}, "contents":[] }`},
		{`{"generationConfig":{}}`, `{"generationConfig":{"maxOutputTokens":9}}`},
		{`{"generationConfig":{ "topK":1}}`, `{"generationConfig":{"maxOutputTokens":9, "topK":1}}`},
		{`{"generation_config":{"max_output_tokens":8}}`, `{"generation_config":{"max_output_tokens":8}}`},
		{`{"generation_config":{"max_output_tokens":10}}`, `{"generation_config":{"max_output_tokens":9}}`},
		{`{"generationConfig":{"max_output_tokens":"10"}}`, `{"generationConfig":{"max_output_tokens":9}}`},
		{`{"generationConfig":{"maxOutputTokens":-1}}`, `{"generationConfig":{"maxOutputTokens":9}}`},
		{`{"generationConfig":{"maxOutputTokens":1e9}}`, `{"generationConfig":{"maxOutputTokens":9}}`},
		{`{"generationConfig":null}`, `{"generationConfig":{"maxOutputTokens":9}}`},
		{`{"maxOutputTokens":99}`, `{"generationConfig":{"maxOutputTokens":9},"maxOutputTokens":99}`},
	} {
		tp, err := parse([]byte(c.body), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(tp.edited(tp.boundGemini(9))); got != c.want {
			t.Errorf("%s: %s, want %s", c.body, got, c.want)
		}
	}
}

// FuzzBoundGemini: what comes out is JSON that bounds the output, and no other member
// is changed.
func FuzzBoundGemini(f *testing.F) {
	for _, s := range []string{`{}`, `{"generationConfig":{"maxOutputTokens":10,"a":[1]},"b":2}`, `{"generation_config":{"max_output_tokens":"x"}}`, `{"generationConfig":[]}`} {
		f.Add(s, uint16(9))
	}
	f.Fuzz(func(t *testing.T, body string, n uint16) {
		tp, err := parse([]byte(body), nil, nil)
		if err != nil || tp.nodes[0].kind != kindObject || n == 0 {
			return
		}
		if inspect(&tp, &geminiRules, func(*walker) {}); tp.variant != 0 {
			return // refused before anything is changed
		}
		again, err := parse(tp.edited(tp.boundGemini(uint64(n))), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if asked := again.outputAsked(); again.count(again.geminiConfig("maxoutputtokens")) > uint64(n) || again.geminiConfig("maxoutputtokens") == 0 {
			t.Fatalf("%s asks for %d", again.src, asked)
		}
		var was, is map[string]json.RawMessage
		if json.Unmarshal([]byte(body), &was) != nil || json.Unmarshal(again.src, &is) != nil {
			t.Fatalf("%s", again.src)
		}
		for k, v := range was {
			if string(is[k]) != string(v) && k != "generationConfig" && k != "generation_config" && !tp.isConfig(k) {
				t.Fatalf("%s -> %s: %s changed", body, again.src, k)
			}
		}
	})
}

// isConfig says whether the document's generation config is called so.
func (t *tape) isConfig(key string) bool {
	i := t.named(0, "generationconfig")
	return i != 0 && t.key(i) == key
}

func TestGeminiFacts(t *testing.T) {
	for body, want := range map[string]struct {
		f   policy.Features
		out uint64
	}{
		`{"contents":[]}`: {},
		`{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":""}}]}],"generationConfig":{"maxOutputTokens":7}}`: {policy.FeatureVision, 7},
		`{"contents":[{"parts":[{"file_data":{"mime_type":"video/mp4"}}]}]}`:                                                    {f: policy.FeatureVision},
		`{"contents":[{"parts":[{"inlineData":{"mimeType":"audio/wav","data":""}}]}]}`:                                          {},
		`{"tools":[{"functionDeclarations":[]}],"generation_config":{"response_schema":{},"max_output_tokens":3}}`:              {policy.FeatureTools | policy.FeatureStructured, 3},
		`{"tools":[],"generationConfig":{"responseJsonSchema":{}}}`:                                                             {f: policy.FeatureStructured},
		`{"generationConfig":{"responseSchema":null}}`:                                                                          {},
	} {
		tp, err := parse([]byte(body), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, out := tp.geminiFeatures(), tp.outputAsked(); got != want.f || out != want.out {
			t.Errorf("%s: %v %d", body, got.Names(), out)
		}
	}
}
