// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

const (
	hi     = `{"role":"user","content":"hi"}`
	openAI = `{"model":"m","max_tokens":9,"messages":[` + hi + `]}`
)

// with is a request with more members than the least; the last of a name wins.
func with(d Dialect, members string) []byte {
	names := map[string]string{"model": `"m"`, "max_tokens": "9", "messages": "[" + hi + "]"}
	for name := range names {
		if strings.HasPrefix(members, `"`+name+`"`) || strings.Contains(members, `,"`+name+`"`) {
			delete(names, name)
		}
	}
	body := "{" + members
	for _, name := range []string{"model", "max_tokens", "messages"} {
		if v, ok := names[name]; ok {
			if body != "{" {
				body += ","
			}
			body += `"` + name + `":` + v
		}
	}
	return []byte(body + "}")
}

// TestRefusedRequests is what no single row of the table can say.
func TestRefusedRequests(t *testing.T) {
	deep := strings.Repeat("[", 200) + strings.Repeat("]", 200)
	for _, c := range []struct {
		name, members, field string
		from                 Dialect
		o                    RequestOptions
	}{
		{"temperature that Anthropic does not have", `"temperature":1.2`, "temperature", OpenAIChat, testOptions},
		{"negative temperature", `"temperature":-1`, "temperature", AnthropicMessages, testOptions},
		{"two limits that differ", `"max_tokens":5,"max_completion_tokens":6`, "max_tokens", OpenAIChat, testOptions},
		{"a limit of nothing", `"max_tokens":0`, "max_tokens", OpenAIChat, testOptions},
		{"a call that fills a cache", `"max_tokens":0`, "max_tokens", AnthropicMessages, testOptions},
		{"no limit and no default", `"messages":[` + hi + `],"max_tokens":null`, "max_completion_tokens", OpenAIChat, RequestOptions{}},
		{"nothing but instructions", `"messages":[{"role":"system","content":"x"}]`, "messages", OpenAIChat, testOptions},
		{"no messages", `"messages":[]`, "messages", OpenAIChat, testOptions},
		{"instructions in the middle", `"messages":[` + hi + `,{"role":"developer","content":"x"}]`, "messages[1].role", OpenAIChat, RequestOptions{}},
		{"prefill", `"messages":[` + hi + `,{"role":"assistant","content":"The"}]`, "messages[1]", AnthropicMessages, testOptions},
		{"an answer at the end", `"messages":[` + hi + `,{"role":"assistant","content":"The"}]`, "messages[1]", OpenAIChat, testOptions},
		{"arguments that are no JSON", `"messages":[{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"a\""}}]},` + hi + `]`,
			"messages[0].tool_calls[0].function.arguments", OpenAIChat, testOptions},
		{"arguments that are no object", `"messages":[{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"[1]"}}]},` + hi + `]`,
			"messages[0].tool_calls[0].function.arguments", OpenAIChat, testOptions},
		{"a schema of another type", `"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"string"}}}]`, "tools[0].function.parameters.type", OpenAIChat, testOptions},
		{"a file URL as image", `"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}]}]`, "messages[0].content[0]", OpenAIChat, testOptions},
		{"an image in a form that Anthropic does not take", `"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/svg+xml;base64,AAAA"}}]}]`, "messages[0].content[0]", OpenAIChat, testOptions},
		{"a data URL that is no base64", `"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,A\"A"}}]}]`, "messages[0].content[0]", OpenAIChat, testOptions},
		{"an image without data", `"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,"}}]}]`, "messages[0].content[0]", OpenAIChat, testOptions},
		{"a file that is no PDF", `"messages":[{"role":"user","content":[{"type":"file","file":{"file_data":"data:text/html;base64,AAAA"}}]}]`, "messages[0].content[0]", OpenAIChat, testOptions},
		{"an ftp URL as image", `"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"ftp://x"}}]}]`, "messages[0].content[0].source", AnthropicMessages, testOptions},
		{"a media type that OpenAI does not take", `"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/x;base64,\"","data":"AAAA"}}]}]`, "messages[0].content[0].source", AnthropicMessages, testOptions},
		{"data that is no base64", `"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"\""}}]}]`, "messages[0].content[0].source", AnthropicMessages, testOptions},
		{"signed thinking to a provider that cannot keep it", `"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"x","signature":"s"}]},` + hi + `]`, "messages[0].content[0]", AnthropicMessages, testOptions},
		{"redacted thinking to a provider that cannot keep it", `"messages":[{"role":"assistant","content":[{"type":"redacted_thinking","data":"x"}]},` + hi + `]`, "messages[0].content[0]", AnthropicMessages, testOptions},
		{"disabled thinking with an effort", `"thinking":{"type":"disabled"},"output_config":{"effort":"low"}`, "output_config.effort", AnthropicMessages, testOptions},
		{"an effort of its own", `"reasoning_effort":"huge"`, "reasoning_effort", OpenAIChat, testOptions},
		{"an effort of its own", `"output_config":{"effort":"huge"}`, "output_config.effort", AnthropicMessages, testOptions},
		{"a tier of its own", `"service_tier":"flex"`, "service_tier", OpenAIChat, testOptions},
		{"a tier of its own", `"service_tier":"x"`, "service_tier", AnthropicMessages, testOptions},
		{"a choice of its own", `"tool_choice":"maybe"`, "tool_choice", OpenAIChat, testOptions},
		{"five stop sequences", `"stop_sequences":["1","2","3","4","5"]`, "stop_sequences", AnthropicMessages, testOptions},
		{"a role of its own", `"messages":[{"role":"root","content":"x"}]`, "messages[0].role", OpenAIChat, testOptions},
		{"a role that is no string", `"messages":[{"role":7,"content":"x"}]`, "messages[0].role", OpenAIChat, testOptions},
		{"no role", `"messages":[{"content":"x"}]`, "messages[0].role", AnthropicMessages, testOptions},
		{"a call in the user's message", `"messages":[{"role":"user","content":[{"type":"tool_use","id":"a","name":"f","input":{}}]}]`, "messages[0].content[0]", AnthropicMessages, testOptions},
		{"a key twice", `"top_p":1,"top_p":0.1`, "", OpenAIChat, testOptions},
		{"a key twice, once with an escape", `"top_p":1,"top\u005fp":0.1`, "", OpenAIChat, testOptions},
		{"a key twice, deep inside of a schema", `"tools":[{"name":"f","input_schema":{"a":{"b":1,"b":2}}}]`, "", AnthropicMessages, testOptions},
		{"nested too deep", `"tools":` + deep, "", OpenAIChat, testOptions},
		{"a number of a thousand digits as limit", `"max_tokens":` + strings.Repeat("9", 1000), "max_tokens", AnthropicMessages, testOptions},
		{"a limit with a fraction", `"max_tokens":1.0`, "max_tokens", AnthropicMessages, testOptions},
		{"an unknown name that is long and strange", `"` + strings.Repeat("é\\n", 100) + `":1`, `"` + strings.Repeat(`\u00e9\n`, 21) + `\xc3"`, OpenAIChat, testOptions},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := with(c.from, c.members)
			_, err := Request(c.from, other(c.from), body, c.o)
			if c.field == "" || !strings.Contains(c.field, `\xc3`) {
				wantRefusal(t, err, c.field)
				return
			}
			var r *Refusal
			if !errors.As(err, &r) || len(r.Field) > 400 {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestBodiesThatAreNoRequest do not panic and are refused as a whole.
func TestBodiesThatAreNoRequest(t *testing.T) {
	for _, body := range []string{"", "null", "[]", "7", `"x"`, "{", `{"a"}`, `{"a":}`, `{"a":1,}`, "{}{}", "\xff", `{"model":"\ud800`, `{"a":01}`, `{"a":+1}`, `{"a":"\x"}`, "{\"a\":\"\n\"}",
		strings.Repeat(`{"a":`, 1000), "[" + strings.Repeat("1,", maxNodes) + "1]"} {
		for _, d := range []Dialect{OpenAIChat, AnthropicMessages} {
			_, err := Request(d, other(d), []byte(body), testOptions)
			wantRefusal(t, err, "")
		}
	}
	if _, err := Request(OpenAIChat, OpenAIChat, []byte(openAI), testOptions); err == nil {
		t.Error("a dialect was translated to itself")
	}
	if _, err := Request(0, AnthropicMessages, []byte(openAI), testOptions); err == nil {
		t.Error("no dialect was translated")
	}
}

// TestChoices is what the options and single values do to the request.
func TestChoices(t *testing.T) {
	thinking := `"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"a\"b","signature":"s"},{"type":"text","text":"x"}]},` + hi + `]`
	unsigned := strings.Replace(thinking, `"s"`, `"`+UnsignedReasoning+`"`, 1)
	for _, c := range []struct {
		name, members, want, not, note string
		from                           Dialect
		o                              RequestOptions
	}{
		{"the route's model", ``, `"model":"up\"stream"`, `"m"`, "", OpenAIChat, RequestOptions{Model: `up"stream`}},
		{"the route's limit", `"messages":[` + hi + `],"max_tokens":null`, `"max_tokens":77`, "", "max_tokens", OpenAIChat, RequestOptions{DefaultMaxTokens: 77}},
		{"the client's limit", ``, `"max_tokens":9`, "77", "", OpenAIChat, RequestOptions{DefaultMaxTokens: 77}},
		{"a provider of max_tokens", ``, `"max_tokens":9`, "max_completion_tokens", "", AnthropicMessages, RequestOptions{MaxTokensOnly: true}},
		{"instructions in the middle", `"messages":[` + hi + `,{"role":"developer","content":"x"}]`, `{"role":"system","content":"x"}`, "", "", OpenAIChat, RequestOptions{SystemInMessages: true}},
		{"several instructions at the start", `"messages":[{"role":"system","content":"a"},{"role":"developer","content":"b"},` + hi + `]`, `"system":[{"type":"text","text":"a"},{"type":"text","text":"b"}]`, "", "", OpenAIChat, RequestOptions{}},
		{"signed thinking left out", thinking, `{"role":"assistant","content":"x"}`, "a\\\"b", "messages[]<assistant>.content[]<thinking>", AnthropicMessages, RequestOptions{Reasoning: ReasoningDropped}},
		{"signed thinking as text", thinking, `"reasoning_content":"a\"b"`, "thinking_blocks", "messages[]<assistant>.content[]<thinking>.signature", AnthropicMessages, RequestOptions{Reasoning: ReasoningText}},
		{"signed thinking whole", thinking, `"thinking_blocks":[{"type":"thinking","thinking":"a\"b","signature":"s"}]`, "", "", AnthropicMessages, RequestOptions{Reasoning: ReasoningBlocks}},
		{"our own thinking left out", unsigned, `{"role":"assistant","content":"x"}`, "a\\\"b", "messages[]<assistant>.content[]<thinking>", AnthropicMessages, RequestOptions{}},
		{"our own thinking as text", unsigned, `"reasoning_content":"a\"b"`, "unsigned", "", AnthropicMessages, RequestOptions{Reasoning: ReasoningText}},
		{"minimal effort", `"reasoning_effort":"minimal"`, `"effort":"low"`, "", "reasoning_effort", OpenAIChat, RequestOptions{}},
		{"no effort", `"reasoning_effort":"none"`, `"thinking":{"type":"disabled"}`, "output_config", "", OpenAIChat, RequestOptions{}},
		{"a small budget", `"thinking":{"type":"enabled","budget_tokens":4096}`, `"reasoning_effort":"low"`, "", "", AnthropicMessages, RequestOptions{}},
		{"a middle budget", `"thinking":{"type":"enabled","budget_tokens":4097}`, `"reasoning_effort":"medium"`, "", "", AnthropicMessages, RequestOptions{}},
		{"a large budget", `"thinking":{"type":"enabled","budget_tokens":16385}`, `"reasoning_effort":"high"`, "", "", AnthropicMessages, RequestOptions{}},
		{"an effort beside a budget", `"thinking":{"type":"enabled","budget_tokens":16385},"output_config":{"effort":"low"}`, `"reasoning_effort":"low"`, "high", "thinking.budget_tokens", AnthropicMessages, RequestOptions{}},
		{"adaptive thinking", `"thinking":{"type":"adaptive"}`, `"model"`, "reasoning", "thinking", AnthropicMessages, RequestOptions{}},
		{"a user beside an identifier", `"user":"u","safety_identifier":"s"`, `{"user_id":"s"}`, `"u"`, "user", OpenAIChat, RequestOptions{}},
		{"a long identifier", `"metadata":{"user_id":"` + strings.Repeat("x", 129) + `"}`, `"model"`, "xx", "metadata.user_id", AnthropicMessages, RequestOptions{}},
		{"parallel calls where none is made", `"tool_choice":"none","parallel_tool_calls":true`, `"tool_choice":{"type":"none"}`, "parallel", "parallel_tool_calls", OpenAIChat, RequestOptions{}},
		{"a result after text", `"messages":[{"role":"user","content":[{"type":"text","text":"t"},{"type":"tool_result","tool_use_id":"a","content":"r"}]}]`,
			`[{"role":"tool","tool_call_id":"a","content":"r"},{"role":"user","content":[{"type":"text","text":"t"}]}]`, "", "messages[]<user>.content[]<tool_result>", AnthropicMessages, RequestOptions{}},
		{"a failed tool without a word", `"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","is_error":true}]}]`, `"content":"[error] "`, "", "", AnthropicMessages, RequestOptions{}},
		{"a failed tool with blocks", `"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","is_error":true,"content":[{"type":"text","text":"t"},{"type":"text","text":"u"}]}]}]`,
			`[{"type":"text","text":"[error] t"},{"type":"text","text":"u"}]`, "", "", AnthropicMessages, RequestOptions{}},
		{"text after a call", `"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":{ "x" : 1 }},{"type":"text","text":"t"}]},` + hi + `]`,
			`"content":"t","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{ \"x\" : 1 }"}}]`, "", "messages[]<assistant>.content[]<text>", AnthropicMessages, RequestOptions{}},
		{"an empty answer", `"messages":[` + hi + `,{"role":"assistant","content":""},` + hi + `]`, `[{"role":"user","content":"hi"},{"role":"user","content":"hi"}]`, "assistant", "messages[]<assistant>", OpenAIChat, RequestOptions{}},
		{"a refusal of an earlier turn", `"messages":[{"role":"assistant","refusal":"No."},` + hi + `]`, `{"role":"assistant","content":[{"type":"text","text":"No."}]}`, "", "", OpenAIChat, RequestOptions{}},
		{"a key twice in a model's arguments", `"messages":[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":" {\"a\":1,\"a\":2} "}}]},` + hi + `]`,
			`"input":{"a":1,"a":2}}`, "", "", OpenAIChat, RequestOptions{}},
		{"a document without a name", `"messages":[{"role":"user","content":[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"AAAA"}}]}]`, `"filename":"document.pdf"`, "", "", AnthropicMessages, RequestOptions{}},
		{"a schema without a type", `"tools":[{"type":"function","function":{"name":"f","parameters":{"type":null,"a":[1]}}}]`, `"input_schema":{"type":"object","a":[1]}`, "", "", OpenAIChat, RequestOptions{}},
		{"the usage of a stream", `"stream":true`, `"stream":true,"stream_options":{"include_usage":true}`, "", "", AnthropicMessages, RequestOptions{}},
		{"no stream", `"stream":false`, `"stream":false`, "stream_options", "", AnthropicMessages, RequestOptions{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			call, err := Request(c.from, other(c.from), with(c.from, c.members), c.o)
			if err != nil {
				t.Fatal(err)
			}
			body := string(call.Body)
			if !strings.Contains(body, c.want) || c.not != "" && strings.Contains(body, c.not) {
				t.Errorf("%s: want %s, not %s", body, c.want, c.not)
			}
			if has := len(call.Notes()) > 0; has != (c.note != "") || has && call.Notes()[0].Field != c.note {
				t.Errorf("notes %v, want one of %q", call.Notes(), c.note)
			}
			anyJSON(t, call.Body)
		})
	}
}

// TestManyNotesAreCountedNotKept sends an answer full of fields that nobody knows.
func TestManyNotesAreCountedNotKept(t *testing.T) {
	call, err := Request(AnthropicMessages, OpenAIChat, with(AnthropicMessages, ""), testOptions)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, `"new%d":1,`, i)
	}
	if _, err := call.Response([]byte(`{` + b.String() + `"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}`)); err != nil {
		t.Fatal(err)
	}
	if n := call.Notes(); len(n) != maxNotes+1 || n[maxNotes].Field != "" {
		t.Errorf("%d notes", len(n))
	}
}

// TestAnswersOfTheWrongForm are errors that name the field, never half an answer.
func TestAnswersOfTheWrongForm(t *testing.T) {
	choice := func(m, more string) string {
		return `{"id":"c","choices":[{"index":0,"finish_reason":"stop","message":` + m + more + `}]}`
	}
	call := func(args string) string {
		return `{"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":` + args + `}}]}`
	}
	for _, c := range []struct {
		client      Dialect
		body, field string
	}{
		{OpenAIChat, ``, ""}, {OpenAIChat, `[]`, ""}, {OpenAIChat, `<html>`, ""}, {OpenAIChat, `{"id":"a","id":"b"}`, ""},
		{OpenAIChat, `{}`, "type"}, {OpenAIChat, `{"type":"error","error":{}}`, "type"},
		{OpenAIChat, `{"type":"message","content":[]}`, "stop_reason"},
		{OpenAIChat, `{"type":"message","content":7,"stop_reason":"end_turn"}`, "content"},
		{OpenAIChat, `{"type":"message","content":[7],"stop_reason":"end_turn"}`, "content[0]"},
		{OpenAIChat, `{"type":"message","content":[{"type":"text","text":7}],"stop_reason":"end_turn"}`, "content[0].text"},
		{OpenAIChat, `{"type":"message","content":[{"type":"text","text":"x"},{"type":"tool_use","id":"a","name":"f"}],"stop_reason":"end_turn"}`, "content[1].input"},
		{OpenAIChat, `{"type":"message","content":[{"type":"tool_use","id":"a","name":"f","input":"x"}],"stop_reason":"end_turn"}`, "content[0].input"},
		{OpenAIChat, `{"type":"message","content":[],"stop_reason":"end_turn","usage":{"input_tokens":"many"}}`, "usage.input_tokens"},
		{AnthropicMessages, `{}`, "choices"}, {AnthropicMessages, `{"choices":[]}`, "choices"},
		{AnthropicMessages, `{"choices":[{"index":0,"finish_reason":"stop"}]}`, "choices[0].message"},
		{AnthropicMessages, `{"choices":[{"index":0,"message":{}}]}`, "choices[0].finish_reason"},
		{AnthropicMessages, choice(`{"content":[]}`, ""), "choices[0].message.content"},
		{AnthropicMessages, choice(call(`"{"`), ""), "choices[0].message.tool_calls[0].function.arguments"},
		{AnthropicMessages, choice(call(`"7"`), ""), "choices[0].message.tool_calls[0].function.arguments"},
		{AnthropicMessages, choice(`{"tool_calls":[{"id":"a","type":"custom","custom":{"name":"f","input":"x"}}]}`, ""), "choices[0].message.tool_calls[0].type"},
		{AnthropicMessages, choice(`{"tool_calls":[{"id":"a"}]}`, ""), "choices[0].message.tool_calls[0].function.name"},
	} {
		call, err := Request(c.client, other(c.client), with(c.client, ""), testOptions)
		if err != nil {
			t.Fatal(err)
		}
		out, err := call.Response([]byte(c.body))
		var m *Malformed
		if !errors.As(err, &m) || m.Field != c.field || out != nil {
			t.Errorf("%s: %s, %v; want an error of %q", c.body, out, err, c.field)
		}
	}
}

// TestAnswers is what the golden files do not show.
func TestAnswers(t *testing.T) {
	msg := func(content, reason string) string {
		return `{"type":"message","id":"i","content":` + content + `,"stop_reason":"` + reason + `","usage":{"input_tokens":1,"output_tokens":2}}`
	}
	comp := func(m, finish string) string {
		return `{"id":"c-1","choices":[{"index":0,"finish_reason":"` + finish + `","message":` + m + `}],"usage":{"prompt_tokens":10,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":8,"cache_write_tokens":7}}}`
	}
	for _, c := range []struct {
		name             string
		client           Dialect
		body, want, note string
	}{
		{"a full window", OpenAIChat, msg(`[]`, "model_context_window_exceeded"), `"finish_reason":"length"`, ""},
		{"a pause", OpenAIChat, msg(`[]`, "pause_turn"), `"finish_reason":"stop"`, "stop_reason"},
		{"a new kind of block", OpenAIChat, msg(`[{"type":"hologram","text":"h"},{"type":"text","text":"t"}]`, "end_turn"), `"content":"t"`, "content[].type"},
		{"a new field", OpenAIChat, msg(`[{"type":"text","text":"t","new":1}]`, "end_turn"), `"content":"t"`, "content[0].new"},
		{"two texts", OpenAIChat, msg(`[{"type":"text","text":"a"},{"type":"text","text":"b"}]`, "end_turn"), `"content":"ab"`, ""},
		{"calls that stop", AnthropicMessages, comp(`{"tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]}`, "stop"), `{"type":"tool_use","id":"call_c-1_0","name":"f","input":{"a":1}}],"stop_reason":"tool_use"`, "usage.prompt_tokens_details"},
		{"more in the cache than there is", AnthropicMessages, comp(`{"content":"x"}`, "stop"), `"input_tokens":0,"cache_creation_input_tokens":2,"cache_read_input_tokens":8`, "usage.prompt_tokens_details"},
		{"arguments cut off by the limit", AnthropicMessages, comp(`{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{\"a\":"}}]}`, "length"), `"input":{}}],"stop_reason":"max_tokens"`, "usage.prompt_tokens_details"},
		{"an odd reason", AnthropicMessages, comp(`{"content":"x"}`, "eos"), `"stop_reason":"end_turn"`, "usage.prompt_tokens_details"},
		{"filtered", AnthropicMessages, comp(`{"content":"x"}`, "content_filter"), `"stop_reason":"refusal"`, "usage.prompt_tokens_details"},
		{"thinking that a gateway kept", AnthropicMessages, comp(`{"reasoning_content":"r","thinking_blocks":[{"type":"thinking","thinking":"r","signature":"s"}],"content":"x"}`, "stop"), `[{"type":"thinking","thinking":"r","signature":"s"},{"type":"text"`, "usage.prompt_tokens_details"},
		{"no usage", AnthropicMessages, `{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}`, `"input_tokens":0`, "usage"},
	} {
		t.Run(c.name, func(t *testing.T) {
			call, err := Request(c.client, other(c.client), with(c.client, ""), testOptions)
			if err != nil {
				t.Fatal(err)
			}
			out, err := call.Response([]byte(c.body))
			if err != nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%v, %s; want %s", err, out, c.want)
			}
			if n := call.Notes(); c.note == "" && len(n) > 0 || c.note != "" && !slices.ContainsFunc(n, func(n Note) bool { return n.Field == c.note }) {
				t.Errorf("notes %v, want %q", n, c.note)
			}
		})
	}
}
