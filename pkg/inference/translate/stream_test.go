// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

const (
	startEvent = `{"type":"message_start","message":{"id":"i","type":"message","role":"assistant","content":[],"usage":{"input_tokens":1}}}`
	textBegins = `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`
	callBegins = `{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"a","name":"f","input":{}}}`
	stopped    = `{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}`
	roleChunk  = `{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}`
)

func choice(delta string) string { return `{"id":"c","choices":[{"index":0,"delta":` + delta + `}]}` }

func toolDelta(call string) string { return choice(`{"tool_calls":[` + call + `]}`) }

// TestBrokenStreams end with an error event of the client's dialect, once, and
// translate nothing of what follows.
func TestBrokenStreams(t *testing.T) {
	for _, c := range []struct {
		name   string
		client Dialect
		events []string
		field  string
	}{
		{"no JSON", OpenAIChat, []string{startEvent, `{"type":`}, ""},
		{"no object", OpenAIChat, []string{`[]`}, ""},
		{"no type", OpenAIChat, []string{`{}`}, "type"},
		{"a delta before the start", OpenAIChat, []string{textBegins}, "type"},
		{"two starts", OpenAIChat, []string{startEvent, startEvent}, "type"},
		{"a block twice", OpenAIChat, []string{startEvent, textBegins, textBegins}, "index"},
		{"a delta of no block", OpenAIChat, []string{startEvent, `{"type":"content_block_delta","index":3,"delta":{"type":"text_delta","text":"x"}}`}, "index"},
		{"a delta of another kind", OpenAIChat, []string{startEvent, callBegins, `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}`}, "delta.type"},
		{"the end of no block", OpenAIChat, []string{startEvent, `{"type":"content_block_stop","index":0}`}, "index"},
		{"a stop inside of a block", OpenAIChat, []string{startEvent, callBegins, stopped}, "delta.stop_reason"},
		{"an end without a reason", OpenAIChat, []string{startEvent, `{"type":"message_stop"}`}, "stop_reason"},
		{"a call without a name", OpenAIChat, []string{startEvent, `{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"a"}}`}, "content_block"},
		{"text that is a number", OpenAIChat, []string{startEvent, textBegins, `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":7}}`}, "delta.text"},
		{"no JSON", AnthropicMessages, []string{roleChunk, `{"choices"`}, ""},
		{"a call without a name", AnthropicMessages, []string{toolDelta(`{"index":0,"id":"a","function":{"arguments":""}}`)}, "choices[0].delta.tool_calls[].function.name"},
		{"calls in turns", AnthropicMessages, []string{toolDelta(`{"index":0,"id":"a","function":{"name":"f"}}`), toolDelta(`{"index":1,"id":"b","function":{"name":"f"}}`), toolDelta(`{"index":0,"function":{"arguments":"{}"}}`)}, "choices[0].delta.tool_calls[].index"},
		{"arguments after text", AnthropicMessages, []string{toolDelta(`{"index":0,"id":"a","function":{"name":"f"}}`), choice(`{"content":"x"}`), toolDelta(`{"index":0,"function":{"arguments":"{}"}}`)}, "choices[0].delta.tool_calls[].index"},
		{"a tool of another kind", AnthropicMessages, []string{toolDelta(`{"index":0,"id":"a","type":"custom","custom":{}}`)}, "choices[0].delta.tool_calls[].type"},
		{"text that is a list", AnthropicMessages, []string{choice(`{"content":["x"]}`)}, "choices[0].delta.content"},
		{"done before the reason", AnthropicMessages, []string{choice(`{"content":"x"}`), `[DONE]`}, ""},
		{"done at once", AnthropicMessages, []string{`[DONE]`}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			call, err := Request(c.client, other(c.client), with(c.client, ""), testOptions)
			if err != nil {
				t.Fatal(err)
			}
			s := call.Stream()
			var out []byte
			for i, e := range c.events {
				if out, err = s.Feed(out, "", []byte(e)); (err != nil) != (i == len(c.events)-1) {
					t.Fatalf("event %d: %v", i, err)
				}
			}
			var m *Malformed
			if !errors.As(err, &m) || m.Field != c.field {
				t.Errorf("error %v, want one of %q", err, c.field)
			}
			events := split(t, out)
			last := events[len(events)-1]
			if !gjson.Get(last.data, "error.message").Exists() || (last.name == "error") != (c.client == AnthropicMessages) {
				t.Errorf("the last event is %v", last)
			}
			after, err := s.Feed(nil, "", []byte(roleChunk))
			if after, err2 := s.End(after); err != nil || err2 != nil || len(after) > 0 || s.Complete() {
				t.Errorf("after the error: %q, %v, %v", after, err, err2)
			}
		})
	}
}

// TestStreams is what the golden files do not show.
func TestStreams(t *testing.T) {
	usage := `{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}`
	fin := func(why string) string {
		return `{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"` + why + `"}]}`
	}
	for _, c := range []struct {
		name      string
		client    Dialect
		events    []string
		want, not string
	}{
		{"no usage asked", OpenAIChat, []string{startEvent, stopped, `{"type":"message_stop"}`}, `data: [DONE]`, `usage`},
		{"the end after the reason is an end", OpenAIChat, []string{startEvent, stopped}, `data: [DONE]`, `"error"`},
		{"an event of a new kind", OpenAIChat, []string{startEvent, `{"type":"weather","index":"x"}`, stopped}, `[DONE]`, "weather"},
		{"a block of a new kind", OpenAIChat, []string{startEvent, `{"type":"content_block_start","index":0,"content_block":{"type":"hologram"}}`, `{"type":"content_block_delta","index":0,"delta":{"type":"beam"}}`, `{"type":"content_block_stop","index":0}`, stopped}, `[DONE]`, "hologram"},
		{"a call that begins with its input", OpenAIChat, []string{startEvent, strings.Replace(callBegins, "{}", `{ "x":"\"" }`, 1), `{"type":"content_block_stop","index":0}`, stopped}, `"arguments":"{ \"x\":\"\\\"\" }"`, ""},
		{"the end after the reason is an end", AnthropicMessages, []string{choice(`{"content":"x"}`), fin("stop")}, `event: message_stop`, "event: error"},
		{"a first chunk without choices", AnthropicMessages, []string{`{"id":"","choices":[],"prompt_filter_results":[{}]}`, choice(`{"content":"x"}`), fin("stop"), usage}, `"id":"c"`, "filter"},
		{"calls all numbered 0", AnthropicMessages, []string{toolDelta(`{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}`), toolDelta(`{"index":0,"id":"b","function":{"name":"g","arguments":{"x":1}}}`), fin("stop")}, `"index":1,"delta":{"type":"input_json_delta","partial_json":"{\"x\":1}"}`, ""},
		{"an id on every piece", AnthropicMessages, []string{toolDelta(`{"index":0,"id":"a","function":{"name":"f","arguments":"{"}}`), toolDelta(`{"index":0,"id":"a","function":{"arguments":"}"}}`), fin("tool_calls")}, `"partial_json":"}"`, `"index":1`},
		{"a call without an id", AnthropicMessages, []string{toolDelta(`{"index":0,"function":{"name":"f"}}`), fin("tool_calls")}, `"id":"call_c_0"`, ""},
		{"two answers", AnthropicMessages, []string{choice(`{"content":"x"}`), `{"choices":[{"index":1,"delta":{"content":"second"}}]}`, fin("stop")}, `"text":"x"`, "second"},
		{"thinking that a gateway kept, in pieces", AnthropicMessages, []string{choice(`{"reasoning_content":"a","thinking_blocks":[{"type":"thinking","thinking":"a","signature":""}]}`), choice(`{"thinking_blocks":[{"type":"thinking","thinking":"","signature":"sig"}]}`), choice(`{"content":"x"}`), fin("stop")}, `"signature":"sig"`, UnsignedReasoning},
		{"thinking that a gateway kept, whole", AnthropicMessages, []string{choice(`{"thinking_blocks":[{"type":"thinking","thinking":"a","signature":"sig"},{"type":"redacted_thinking","data":"d"}]}`), choice(`{"content":"x"}`), fin("stop")}, `{"type":"redacted_thinking","data":"d"}`, UnsignedReasoning},
	} {
		t.Run(c.name, func(t *testing.T) {
			call, err := Request(c.client, other(c.client), with(c.client, ""), testOptions)
			if err != nil {
				t.Fatal(err)
			}
			s := call.Stream()
			var out []byte
			for _, e := range c.events {
				if out, err = s.Feed(out, "", []byte(e)); err != nil {
					t.Fatal(err)
				}
			}
			if out, err = s.End(out); err != nil || !s.Complete() {
				t.Fatal(err)
			}
			if !strings.Contains(string(out), c.want) || c.not != "" && strings.Contains(string(out), c.not) {
				t.Errorf("%s\nwant %s, not %s", out, c.want, c.not)
			}
			accumulate(t, c.client, out)
		})
	}
}

// TestAnErrorEventWithoutAnErrorField is how some compatible servers end a stream.
func TestAnErrorEventWithoutAnErrorField(t *testing.T) {
	call, err := Request(AnthropicMessages, OpenAIChat, with(AnthropicMessages, ""), testOptions)
	if err != nil {
		t.Fatal(err)
	}
	out, err := call.Stream().Feed(nil, "error", []byte(`{"message":"out of memory","code":500}`))
	if err == nil || string(out) != "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"out of memory\"}}\n\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// TestTheSplitterReadsEvents as the standard has them, cut at every byte.
func TestTheSplitterReadsEvents(t *testing.T) {
	for text, want := range map[string][]event{
		"event: a\ndata: 1\n\ndata: 2\n\n":                         {{"a", "1"}, {"", "2"}},
		"event: a\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n":               {{"a", "1"}, {"", "2"}},
		"event: a\rdata: 1\r\rdata: 2\r\r":                         {{"a", "1"}, {"", "2"}},
		"data: 1\ndata:2\ndata:  3\n\n":                            {{"", "1\n2\n 3"}},
		"\n\n: c\nid: 7\nretry: 1\nevent: a\n\nevent: b\ndata\n\n": {{"b", ""}},
		"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\n":           {{"", "1"}}, // the mark is of the stream, not of a line
		"data: 1\n": nil,
	} {
		for cut := range len(text) {
			var got []event
			var s splitter
			for _, piece := range []string{text[:cut], text[cut:]} {
				if err := s.feed([]byte(piece), func(name string, data []byte) { got = append(got, event{name, string(data)}) }); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%q cut at %d: %v, want %v", text, cut, got, want)
			}
		}
	}
}

// TestAnEndlessEventIsRefused feeds a line that never ends.
func TestAnEndlessEventIsRefused(t *testing.T) {
	call, err := Request(AnthropicMessages, OpenAIChat, with(AnthropicMessages, ""), testOptions)
	if err != nil {
		t.Fatal(err)
	}
	s := call.Stream()
	piece := []byte("data: " + strings.Repeat("x", 1<<20))
	for i := range 20 {
		out, err := s.Write(nil, piece)
		if err == nil {
			continue
		}
		if i < 7 || split(t, out)[0].name != "error" {
			t.Errorf("piece %d: %v, %s", i, err, out)
		}
		return
	}
	t.Error("20 MiB of one line were taken")
}
