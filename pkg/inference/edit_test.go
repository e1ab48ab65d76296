// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestBoundOfTheOutput(t *testing.T) {
	for _, c := range []struct{ body, name, want string }{
		{`{}`, "max_tokens", `{"max_tokens":9}`},
		{` { "model":"m" }`, "max_tokens", ` {"max_tokens":9, "model":"m" }`},
		{`{"max_tokens":8,"a":1}`, "max_tokens", `{"max_tokens":8,"a":1}`},
		{`{"max_tokens":10,"a":1}`, "max_tokens", `{"max_tokens":9,"a":1}`},
		{`{"max_tokens":10}`, "max_completion_tokens", `{"max_tokens":9}`},
		{`{"max_completion_tokens":null}`, "max_completion_tokens", `{"max_completion_tokens":9}`},
		{`{"max_tokens":10,"max_completion_tokens":99999999999999999999}`, "max_completion_tokens", `{"max_tokens":9,"max_completion_tokens":9}`},
		{`{"max_output_tokens":1}`, "max_completion_tokens", `{"max_completion_tokens":9,"max_output_tokens":1}`},
		{`{"max_tokens":1}`, "max_output_tokens", `{"max_output_tokens":9,"max_tokens":1}`},
		{`{"max_tokens":-1}`, "max_tokens", `{"max_tokens":9}`},
		{`{"max_tokens":1e3}`, "max_tokens", `{"max_tokens":9}`},
		{`{"nested":{"max_tokens":99}}`, "max_tokens", `{"max_tokens":9,"nested":{"max_tokens":99}}`},
	} {
		tp, err := parse([]byte(c.body), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(tp.edited(tp.bound(c.name, 9))); got != c.want {
			t.Errorf("%s: %s, want %s", c.body, got, c.want)
		}
	}
}

// FuzzBound: what comes out is JSON that bounds the output, and every other member
// is as it was.
func FuzzBound(f *testing.F) {
	for _, s := range []string{`{}`, `{"max_tokens":10,"a":[1]}`, `{"max_completion_tokens":"x"}`, ` {"model":"m","max_output_tokens":7}`} {
		for which := range outputKeys {
			f.Add(s, uint8(which), uint16(9))
		}
	}
	f.Fuzz(func(t *testing.T, body string, which uint8, n uint16) {
		tp, err := parse([]byte(body), nil, nil)
		if err != nil || tp.nodes[0].kind != kindObject || n == 0 {
			return
		}
		name := outputKeys[int(which)%len(outputKeys)]
		out := tp.edited(tp.bound(name, uint64(n)))
		var was, is map[string]json.RawMessage
		if err := json.Unmarshal(out, &is); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		_ = json.Unmarshal([]byte(body), &was)
		if tp.variant != 0 {
			return // refused before anything is changed
		}
		bounded := false
		for _, k := range outputKeys {
			if v, ok := is[k]; ok {
				var got uint64
				if err := json.Unmarshal(v, &got); err != nil || got > uint64(n) {
					t.Fatalf("%s: %s is %s", out, k, v)
				}
				bounded = true
			}
			delete(was, k)
			delete(is, k)
		}
		if !bounded || len(was) != len(is) {
			t.Fatalf("%s became %s", body, out)
		}
		for k, v := range was {
			if string(v) != string(is[k]) && !strings.EqualFold(string(v), string(is[k])) {
				t.Fatalf("%s became %s at %q", body, out, k)
			}
		}
	})
}
