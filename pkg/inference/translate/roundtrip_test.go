// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

// gen makes random parts of requests and answers.
type gen struct{ *rand.Rand }

type obj = map[string]any

var words = []string{"a", "two words", "“é”", "\"quoted\"", "back\\slash", "line\nfeed", "\u0001", "\U0001F44B", "<b>&</b>", "  "}

func (g gen) text() string { return words[g.IntN(len(words))] + fmt.Sprint(g.IntN(1000)) }
func (g gen) coin() bool   { return g.IntN(2) == 0 }

// some calls f between low and high times.
func (g gen) some(low, high int, f func(i int)) {
	for i := range low + g.IntN(high-low+1) {
		f(i)
	}
}

// maybe sets a member half of the time.
func (g gen) maybe(o obj, name string, value any) {
	if g.coin() {
		o[name] = value
	}
}

func (g gen) one(of ...any) any { return of[g.IntN(len(of))] }

func (g gen) schema() obj {
	return obj{"type": "object", "properties": obj{g.text(): obj{"type": "string", "enum": []any{g.text()}}}, "required": []any{}}
}

func (g gen) parts() []any {
	var out []any
	g.some(2, 3, func(int) { out = append(out, obj{"type": "text", "text": g.text()}) })
	return out
}

func (g gen) args() string {
	b, _ := json.Marshal(obj{g.text(): g.text(), "n": g.IntN(9), "o": obj{"x": []any{nil, true, 1.5}}})
	return string(b)
}

// openAIRequest makes a request in the form that comes back unchanged: of all
// ways to say the same, the one that the translation writes.
func (g gen) openAIRequest() obj {
	r := obj{"model": "m", "max_completion_tokens": 1 + g.IntN(1000)}
	g.maybe(r, "temperature", float64(g.IntN(5))/4)
	g.maybe(r, "top_p", 0.5)
	g.maybe(r, "stop", []any{g.text(), g.text()})
	g.maybe(r, "safety_identifier", g.text())
	g.maybe(r, "service_tier", g.one("auto", "default"))
	g.maybe(r, "reasoning_effort", g.one("none", "low", "medium", "high", "xhigh", "max"))
	g.maybe(r, "response_format", obj{"type": "json_schema", "json_schema": obj{"name": "output", "strict": true, "schema": g.schema()}})
	if g.coin() {
		r["stream"], r["stream_options"] = true, obj{"include_usage": true}
	}
	if g.coin() {
		var tools []any
		g.some(1, 3, func(i int) {
			f := obj{"name": fmt.Sprint("f", i), "parameters": g.schema()}
			g.maybe(f, "description", g.text())
			g.maybe(f, "strict", g.coin())
			tools = append(tools, obj{"type": "function", "function": f})
		})
		r["tools"] = tools
		if g.coin() {
			r["tool_choice"] = g.one("auto", "none", "required", obj{"type": "function", "function": obj{"name": "f0"}})
			if r["tool_choice"] != "none" {
				g.maybe(r, "parallel_tool_calls", g.coin())
			}
		}
	}
	r["messages"] = g.openAIMessages()
	return r
}

func (g gen) openAIMessages() []any {
	var m []any
	if g.coin() {
		m = append(m, obj{"role": "system", "content": g.one(g.text(), g.parts())})
	}
	n := 0
	g.some(1, 4, func(int) {
		content := g.one(g.text(), g.userParts())
		if n > 0 { // after results: the blocks of one message come back as parts
			content = g.userParts()
		}
		m = append(m, obj{"role": "user", "content": content})
		if g.coin() {
			m = append(m, obj{"role": "system", "content": g.text()})
		}
		a := obj{"role": "assistant", "content": g.one(g.text(), g.parts())}
		var calls, results []any
		g.some(0, 3, func(int) {
			n++
			id := fmt.Sprint("call_", n)
			calls = append(calls, obj{"id": id, "type": "function", "function": obj{"name": "f0", "arguments": g.args()}})
			results = append(results, obj{"role": "tool", "tool_call_id": id, "content": g.one(g.text(), g.parts())})
		})
		if g.coin() {
			a["reasoning_content"] = "why"
			a["thinking_blocks"] = []any{obj{"type": "thinking", "thinking": "why", "signature": g.text()}, obj{"type": "redacted_thinking", "data": g.text()}}
		}
		if calls != nil {
			a["tool_calls"] = calls
			if g.coin() {
				a["content"] = nil
			}
		}
		m = append(append(m, a), results...)
	})
	return append(m, obj{"role": "user", "content": g.userParts()})
}

func (g gen) userParts() []any {
	p := g.parts()
	if g.coin() {
		p = append(p, obj{"type": "image_url", "image_url": obj{"url": g.one("https://example.com/"+fmt.Sprint(g.IntN(99)), "data:image/png;base64,iVBORw0=")}})
	}
	if g.coin() {
		p = append(p, obj{"type": "file", "file": obj{"file_data": "data:application/pdf;base64,JVBERg==", "filename": g.text()}})
	}
	return p
}

// anthropicRequest is the same for the other dialect.
func (g gen) anthropicRequest() obj {
	r := obj{"model": "m", "max_tokens": 1 + g.IntN(1000)}
	g.maybe(r, "temperature", float64(g.IntN(5))/4)
	g.maybe(r, "top_p", 0.5)
	g.maybe(r, "stop_sequences", []any{g.text(), g.text()})
	g.maybe(r, "metadata", obj{"user_id": g.text()})
	g.maybe(r, "service_tier", g.one("auto", "standard_only"))
	g.maybe(r, "stream", g.coin())
	g.maybe(r, "system", g.one(g.text(), g.parts()))
	out := obj{}
	switch g.IntN(3) {
	case 0:
		r["thinking"] = obj{"type": "disabled"}
	case 1:
		out["effort"] = g.one("low", "medium", "high", "xhigh", "max")
	}
	g.maybe(out, "format", obj{"type": "json_schema", "schema": g.schema()})
	if len(out) > 0 {
		r["output_config"] = out
	}
	if g.coin() {
		var tools []any
		g.some(1, 3, func(i int) {
			f := obj{"name": fmt.Sprint("f", i), "input_schema": g.schema()}
			g.maybe(f, "description", g.text())
			g.maybe(f, "strict", g.coin())
			tools = append(tools, f)
		})
		r["tools"] = tools
		c := g.one(obj{"type": "auto"}, obj{"type": "any"}, obj{"type": "tool", "name": "f0"}, obj{"type": "none"}).(obj)
		if c["type"] != "none" {
			g.maybe(c, "disable_parallel_tool_use", g.coin())
		}
		g.maybe(r, "tool_choice", c)
	}
	r["messages"] = g.anthropicMessages()
	return r
}

func (g gen) anthropicMessages() []any {
	var m, results []any
	n := 0
	g.some(1, 4, func(int) {
		if results == nil && g.coin() {
			m = append(m, obj{"role": "user", "content": g.text()})
		} else {
			m = append(m, obj{"role": "user", "content": append(results, g.userBlocks()...)})
		}
		results = nil
		if g.coin() {
			m = append(m, obj{"role": "system", "content": g.text()})
		}
		if g.coin() {
			m = append(m, obj{"role": "assistant", "content": g.text()})
			return
		}
		var b []any
		if g.coin() {
			b = append(b, obj{"type": "thinking", "thinking": g.text(), "signature": g.text()}, obj{"type": "redacted_thinking", "data": g.text()})
		}
		b = append(b, g.parts()...)
		g.some(0, 3, func(int) {
			n++
			id := fmt.Sprint("toolu_", n)
			b = append(b, obj{"type": "tool_use", "id": id, "name": "f0", "input": json.RawMessage(g.args())})
			results = append(results, obj{"type": "tool_result", "tool_use_id": id, "content": g.one(g.text(), g.parts())})
		})
		m = append(m, obj{"role": "assistant", "content": b})
	})
	return append(m, obj{"role": "user", "content": append(results, g.userBlocks()...)})
}

func (g gen) userBlocks() []any {
	p := g.parts()
	if g.coin() {
		p = append(p, obj{"type": "image", "source": g.one(obj{"type": "url", "url": "https://example.com/x"}, obj{"type": "base64", "media_type": "image/webp", "data": "UklGRg=="})})
	}
	if g.coin() {
		p = append(p, obj{"type": "document", "source": obj{"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}, "title": g.text()})
	}
	return p
}

// TestThereAndBack translates random requests to the other dialect and back:
// what the table calls carried, and what it transforms both ways, is the same.
func TestThereAndBack(t *testing.T) {
	o := testOptions
	o.Reasoning = ReasoningBlocks
	for seed := range uint64(1000) {
		g := gen{rand.New(rand.NewPCG(seed, 1))}
		from, r := OpenAIChat, g.openAIRequest()
		if seed%2 == 1 {
			from, r = AnthropicMessages, g.anthropicRequest()
		}
		body, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		there, err := Request(from, other(from), body, o)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, body)
		}
		back, err := Request(other(from), from, there.Body, o)
		if err != nil {
			t.Fatalf("seed %d: back: %v\n%s", seed, err, there.Body)
		}
		if want, got := anyJSON(t, body), anyJSON(t, back.Body); !reflect.DeepEqual(want, got) {
			t.Fatalf("seed %d\nsent  %s\nthere %s\nback  %s", seed, body, there.Body, back.Body)
		}
		inSDK(t, other(from), there.Body)
	}
}

func anyJSON(t testing.TB, b []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return v
}
