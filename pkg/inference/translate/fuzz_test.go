// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/tidwall/gjson"
)

func dialectOf(openAI bool) Dialect {
	if openAI {
		return OpenAIChat
	}
	return AnthropicMessages
}

// FuzzRequest: no panic; a request that is translated is one that the other
// SDK's types can say, and comes back from there or is refused by name.
func FuzzRequest(f *testing.F) {
	for _, g := range goldens(f) {
		f.Add(g.client == OpenAIChat, uint8(3), g.read(f, "request.json"))
		f.Add(g.client == OpenAIChat, uint8(0), g.read(f, "upstream.json"))
	}
	f.Fuzz(func(t *testing.T, openAI bool, reasoning uint8, body []byte) {
		from := dialectOf(openAI)
		o := testOptions
		o.Reasoning = Reasoning(reasoning % 4)
		call, err := Request(from, other(from), body, o)
		if err != nil {
			var r *Refusal
			if !errors.As(err, &r) || call != nil {
				t.Fatalf("no refusal: %v", err)
			}
			return
		}
		if !json.Valid(call.Body) {
			t.Fatalf("no JSON: %s", call.Body)
		}
		inSDK(t, other(from), call.Body)
		_, err = Request(other(from), from, call.Body, o)
		if r := (*Refusal)(nil); err != nil && !errors.As(err, &r) {
			t.Fatal(err)
		}
		var d document
		if _, err := d.parse(call.Body); err != nil {
			t.Fatalf("what was written is not strict: %v in %s", err, call.Body)
		}
	})
}

// FuzzResponse: no panic; an answer is valid JSON that the client's SDK reads.
func FuzzResponse(f *testing.F) {
	for _, g := range goldens(f) {
		if b := g.read(f, "answer.json"); b != nil {
			f.Add(g.client == OpenAIChat, 200, b)
		}
	}
	f.Add(true, 529, []byte(`{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`))
	f.Add(false, 429, []byte(`{"error":{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}}`))
	f.Fuzz(func(t *testing.T, openAI bool, status int, body []byte) {
		client := dialectOf(openAI)
		call, err := Request(client, other(client), with(client, ""), testOptions)
		if err != nil {
			t.Fatal(err)
		}
		out, err := call.Response(body)
		if err == nil {
			if !json.Valid(out) {
				t.Fatalf("no JSON: %s", out)
			}
			answered(t, client, out)
		} else if m := (*Malformed)(nil); !errors.As(err, &m) {
			t.Fatal(err)
		}
		status, out = Error(other(client), client, status, body)
		if status < 400 || status > 599 || !gjson.GetBytes(out, "error.message").Exists() || !json.Valid(out) {
			t.Fatalf("%d %s", status, out)
		}
	})
}

// FuzzStream: no panic; the client gets whole events of its dialect, which its
// SDK adds up, and an error at the end of what was not complete.
func FuzzStream(f *testing.F) {
	for _, g := range goldens(f) {
		if b := g.read(f, "stream.sse"); b != nil {
			f.Add(g.client == OpenAIChat, uint16(7), b)
		}
	}
	f.Fuzz(func(t *testing.T, openAI bool, cut uint16, raw []byte) {
		client := dialectOf(openAI)
		call, err := Request(client, other(client), with(client, ""), testOptions)
		if err != nil {
			t.Fatal(err)
		}
		n := min(int(cut), len(raw))
		out, s, err := translateStream(t, call, raw[:n], raw[n:])
		events := split(t, out)
		if len(events) == 0 {
			t.Fatal("not one event")
		}
		isError := gjson.Get(events[len(events)-1].data, "error.message").Exists()
		if s.Complete() == isError || isError != (err != nil) {
			t.Fatalf("complete %v, error %v, %s", s.Complete(), err, out)
		}
		whole, s2, _ := translateStream(t, call, raw)
		if string(whole) != string(out) || s2.Complete() != s.Complete() {
			t.Fatalf("cut at %d\n%s\nwhole\n%s", n, out, whole)
		}
	})
}
