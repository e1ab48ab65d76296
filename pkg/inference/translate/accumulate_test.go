// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/openai/openai-go/v3"
	"github.com/tidwall/gjson"
)

// inSDK reads a request the way its SDK would write it.
func inSDK(t testing.TB, d Dialect, body []byte) {
	t.Helper()
	var err error
	if d == OpenAIChat {
		err = json.Unmarshal(body, &openai.ChatCompletionNewParams{})
	} else {
		// The SDK has lists alone where the API takes a string as well.
		err = json.Unmarshal(listed(t, body), &anthropic.MessageNewParams{})
	}
	if err != nil {
		t.Fatalf("the SDK of %s does not read %s: %v", d, body, err)
	}
}

// listed is an Anthropic request whose texts are lists of blocks.
func listed(t testing.TB, body []byte) []byte {
	t.Helper()
	r := anyJSON(t, body).(obj)
	list := func(o obj, name string) {
		if s, ok := o[name].(string); ok {
			o[name] = []any{obj{"type": "text", "text": s}}
		}
	}
	list(r, "system")
	for _, m := range r["messages"].([]any) {
		list(m.(obj), "content")
		blocks, _ := m.(obj)["content"].([]any)
		for _, b := range blocks {
			list(b.(obj), "content")
		}
	}
	out, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// event is one server-sent event.
type event struct{ name, data string }

// split reads events the plain way: whole text, blank lines.
func split(t testing.TB, text []byte) []event {
	t.Helper()
	var out []event
	for part := range strings.SplitSeq(string(text), "\n\n") {
		if part == "" {
			continue
		}
		var e event
		for line := range strings.SplitSeq(part, "\n") {
			switch key, value, _ := strings.Cut(line, ": "); key {
			case "event":
				e.name = value
			case "data":
				e.data += value
			default:
				t.Fatalf("no line of an event: %q", line)
			}
		}
		if e.data != "[DONE]" && !json.Valid([]byte(e.data)) {
			t.Fatalf("data is no JSON: %q", e.data)
		}
		out = append(out, e)
	}
	if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n\n")) {
		t.Fatalf("the last event has no end: %q", text[max(0, len(text)-80):])
	}
	return out
}

// accumulate gives a client's stream to its SDK and returns what the client sees.
func accumulate(t testing.TB, d Dialect, stream []byte) obj {
	t.Helper()
	if d == OpenAIChat {
		return accumulateChunks(t, stream)
	}
	var m anthropic.Message
	open := false
	for _, e := range split(t, stream) {
		var u anthropic.MessageStreamEventUnion
		if err := json.Unmarshal([]byte(e.data), &u); err != nil {
			t.Fatal(err)
		}
		if u.Type != e.name {
			t.Fatalf("event %q has data of type %q", e.name, u.Type)
		}
		if err := m.Accumulate(u); err != nil {
			t.Fatalf("%v at %s", err, e.data)
		}
		open = u.Type == "message_stop"
	}
	if !open {
		t.Fatal("no message_stop")
	}
	return seenMessage(t, m)
}

func accumulateChunks(t testing.TB, stream []byte) obj {
	t.Helper()
	var acc openai.ChatCompletionAccumulator
	events := split(t, stream)
	reasoning := ""
	var blocks []any
	for i, e := range events {
		if e.data == "[DONE]" {
			if i != len(events)-1 {
				t.Fatal("events after [DONE]")
			}
			break
		}
		var c openai.ChatCompletionChunk
		if err := json.Unmarshal([]byte(e.data), &c); err != nil {
			t.Fatal(err)
		}
		if !acc.AddChunk(c) {
			t.Fatalf("the accumulator refuses %s", e.data)
		}
		delta := gjson.Get(e.data, "choices.0.delta")
		reasoning += delta.Get("reasoning_content").String()
		for _, b := range delta.Get("thinking_blocks").Array() {
			blocks = append(blocks, b.Value())
		}
	}
	if events[len(events)-1].data != "[DONE]" {
		t.Fatal("no [DONE]")
	}
	// The accumulator of the SDK does not add up this count.
	acc.Usage.PromptTokensDetails.CacheWriteTokens = gjson.Get(events[len(events)-2].data, "usage.prompt_tokens_details.cache_write_tokens").Int()
	return seenCompletion(t, acc.ChatCompletion, reasoning, blocks)
}

// answered is what the client sees of an answer that is no stream.
func answered(t testing.TB, d Dialect, body []byte) obj {
	t.Helper()
	if d == OpenAIChat {
		var c openai.ChatCompletion
		if err := json.Unmarshal(body, &c); err != nil {
			t.Fatal(err)
		}
		m := gjson.GetBytes(body, "choices.0.message")
		var blocks []any
		for _, b := range m.Get("thinking_blocks").Array() {
			blocks = append(blocks, b.Value())
		}
		return seenCompletion(t, c, m.Get("reasoning_content").String(), blocks)
	}
	var m anthropic.Message
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	return seenMessage(t, m)
}

func seenCompletion(t testing.TB, c openai.ChatCompletion, reasoning string, blocks []any) obj {
	t.Helper()
	m := c.Choices[0].Message
	out := obj{"id": c.ID, "model": c.Model, "tier": string(c.ServiceTier), "content": m.Content, "refusal": m.Refusal,
		"finish": c.Choices[0].FinishReason, "reasoning": reasoning, "blocks": blocks,
		"prompt": c.Usage.PromptTokens, "completion": c.Usage.CompletionTokens, "total": c.Usage.TotalTokens,
		"cached": c.Usage.PromptTokensDetails.CachedTokens, "written": c.Usage.PromptTokensDetails.CacheWriteTokens,
		"thought": c.Usage.CompletionTokensDetails.ReasoningTokens}
	for i, call := range m.ToolCalls {
		out[fmt.Sprint("call", i)] = obj{"id": call.ID, "name": call.Function.Name, "arguments": anyJSON(t, []byte(call.Function.Arguments))}
	}
	return out
}

func seenMessage(t testing.TB, m anthropic.Message) obj {
	t.Helper()
	out := obj{"id": m.ID, "model": m.Model, "role": string(m.Role), "stop": string(m.StopReason), "tier": string(m.Usage.ServiceTier),
		"in": m.Usage.InputTokens, "out": m.Usage.OutputTokens, "read": m.Usage.CacheReadInputTokens, "written": m.Usage.CacheCreationInputTokens,
		"thought": m.Usage.OutputTokensDetails.ThinkingTokens}
	for i, b := range m.Content {
		seen := obj{"type": b.Type, "text": b.Text, "thinking": b.Thinking, "signature": b.Signature, "data": b.Data, "id": b.ID, "name": b.Name}
		if b.Type == "tool_use" {
			seen["input"] = anyJSON(t, b.Input)
		}
		out[fmt.Sprint("block", i)] = seen
	}
	return out
}

// translateStream runs a stream through in pieces.
func translateStream(t testing.TB, call *Translated, pieces ...[]byte) ([]byte, *Stream, error) {
	t.Helper()
	s := call.Stream()
	var out []byte
	var failed error
	for _, p := range pieces {
		var err error
		if out, err = s.Write(out, p); err != nil && failed == nil {
			failed = err
		}
	}
	out, err := s.End(out)
	if failed == nil {
		failed = err
	}
	return out, s, failed
}

// TestAStreamAddsUpToTheAnswer gives the same answer as a document and as a
// stream, cut at every byte and in two, and lets the client's official SDK add up.
func TestAStreamAddsUpToTheAnswer(t *testing.T) {
	compared := 0
	for _, g := range goldens(t) {
		answer, stream := g.read(t, "answer.json"), g.read(t, "stream.sse")
		if answer == nil || stream == nil {
			continue
		}
		compared++
		t.Run(g.dir, func(t *testing.T) {
			sameAnswer(t, g.client, withUsage(g.client, g.read(t, "request.json")), answer, stream)
		})
	}
	if compared < 14 {
		t.Errorf("only %d answers were compared", compared)
	}
}

// withUsage is the request of a client that wants the usage of its stream.
func withUsage(d Dialect, body []byte) []byte {
	if d == OpenAIChat && !bytes.Contains(body, []byte("stream_options")) {
		return bytes.Replace(body, []byte("{"), []byte(`{"stream_options":{"include_usage":true},`), 1)
	}
	return body
}

func sameAnswer(t *testing.T, client Dialect, request, answer, stream []byte) {
	t.Helper()
	call, err := Request(client, other(client), request, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	body, err := call.Response(answer)
	if err != nil {
		t.Fatal(err)
	}
	want := answered(t, client, body)
	whole, s, err := translateStream(t, call, stream)
	if err != nil || !s.Complete() {
		t.Fatalf("%v, complete: %v", err, s.Complete())
	}
	if got := accumulate(t, client, whole); !reflect.DeepEqual(got, want) {
		t.Fatalf("the stream adds up to\n%v\nthe answer is\n%v", got, want)
	}
	var bytewise [][]byte // cut at every byte
	for i := range stream {
		bytewise = append(bytewise, stream[i:i+1])
	}
	if out, _, err := translateStream(t, call, bytewise...); err != nil || !bytes.Equal(out, whole) {
		t.Fatalf("byte by byte: %v\n%s", err, out)
	}
	for i := 0; i < len(stream); i += 1 + len(stream)/50 {
		if out, _, err := translateStream(t, call, stream[:i], stream[i:]); err != nil || !bytes.Equal(out, whole) {
			t.Fatalf("cut at byte %d: %v\n%s", i, err, out)
		}
	}
}

// TestAStreamThatBreaksOffSaysSo ends the provider's stream after every byte:
// the client gets whole events, the last of which is an error, unless all of
// the answer was there.
func TestAStreamThatBreaksOffSaysSo(t *testing.T) {
	for _, g := range goldens(t) {
		stream := g.read(t, "stream.sse")
		if stream == nil || strings.Contains(g.dir, "error") {
			continue
		}
		call, err := Request(g.client, other(g.client), g.read(t, "request.json"), testOptions)
		if err != nil {
			t.Fatal(err)
		}
		finish := bytes.LastIndex(stream, []byte(`_reason":"`))
		if g.client == OpenAIChat {
			finish = bytes.LastIndex(stream, []byte(`"stop_reason": "`))
		}
		for i := range stream {
			out, s, err := translateStream(t, call, stream[:i])
			events := split(t, out)
			last := events[len(events)-1]
			isError := gjson.Get(last.data, "error").Exists()
			if s.Complete() == isError || (err == nil) == isError {
				t.Fatalf("%s cut at %d: complete %v, error %v, last event %q", g.dir, i, s.Complete(), err, last)
			}
			if s.Complete() && i < finish {
				t.Fatalf("%s cut at %d is called complete", g.dir, i)
			}
			if !isError {
				accumulate(t, g.client, out)
			}
		}
	}
}

// TestRandomStreamsAddUp does the same with random answers in random pieces.
func TestRandomStreamsAddUp(t *testing.T) {
	requests := map[Dialect][]byte{
		OpenAIChat:        []byte(`{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}`),
		AnthropicMessages: []byte(`{"model":"m","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`),
	}
	for seed := range uint64(120) {
		g := gen{rand.New(rand.NewPCG(seed, 2))}
		client := OpenAIChat
		answer, stream := g.message()
		if seed%2 == 1 {
			client = AnthropicMessages
			answer, stream = g.completion()
		}
		body, err := json.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		var sse bytes.Buffer
		end := []string{"\n", "\r\n", "\r"}[g.IntN(3)]
		for _, e := range stream {
			data, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			if kind, ok := e["type"].(string); ok {
				sse.WriteString("event: " + kind + end)
			}
			sse.WriteString("data: " + string(data) + end + ": a comment" + end + end)
		}
		if client == AnthropicMessages {
			sse.WriteString("data: [DONE]" + end + end)
		}
		sameAnswer(t, client, requests[client], body, sse.Bytes())
	}
}

// pieces cuts a text between its letters.
func (g gen) pieces(s string) []string {
	var out []string
	letters := []rune(s)
	for len(letters) > 0 {
		n := 1 + g.IntN(len(letters))
		out = append(out, string(letters[:n]))
		letters = letters[n:]
	}
	return out
}

// message makes an answer of Anthropic's and its stream.
func (g gen) message() (obj, []obj) {
	usage := obj{"input_tokens": g.IntN(99), "output_tokens": g.IntN(99), "cache_read_input_tokens": g.IntN(99), "cache_creation_input_tokens": g.IntN(99),
		"output_tokens_details": obj{"thinking_tokens": 1 + g.IntN(9)}}
	base := func(content []any, reason any) obj {
		return obj{"id": "msg_1", "type": "message", "role": "assistant", "model": "c", "content": content, "stop_reason": reason, "stop_sequence": nil, "usage": usage}
	}
	var content []any
	events := []obj{{"type": "message_start", "message": base([]any{}, nil)}}
	add := func(start obj, whole obj, deltas ...obj) {
		i := len(content)
		content = append(content, whole)
		events = append(events, obj{"type": "content_block_start", "index": i, "content_block": start})
		for _, d := range deltas {
			events = append(events, obj{"type": "content_block_delta", "index": i, "delta": d})
		}
		events = append(events, obj{"type": "content_block_stop", "index": i})
	}
	deltas := func(kind, name, text string) (out []obj) {
		for _, p := range g.pieces(text) {
			out = append(out, obj{"type": kind, name: p})
		}
		return out
	}
	g.some(0, 2, func(int) {
		s, sign := g.text(), g.text()
		d := append(deltas("thinking_delta", "thinking", s), deltas("signature_delta", "signature", sign)...)
		add(obj{"type": "thinking", "thinking": "", "signature": ""}, obj{"type": "thinking", "thinking": s, "signature": sign}, d...)
	})
	g.some(0, 2, func(int) {
		s := g.text()
		add(obj{"type": "text", "text": ""}, obj{"type": "text", "text": s}, deltas("text_delta", "text", s)...)
	})
	reason := g.one("end_turn", "max_tokens", "stop_sequence", "refusal")
	g.some(0, 3, func(i int) {
		reason = "tool_use"
		id, args := fmt.Sprint("toolu_", i), g.args()
		add(obj{"type": "tool_use", "id": id, "name": "f", "input": obj{}}, obj{"type": "tool_use", "id": id, "name": "f", "input": json.RawMessage(args)},
			deltas("input_json_delta", "partial_json", args)...)
	})
	events = append(events, obj{"type": "ping"}, obj{"type": "message_delta", "delta": obj{"stop_reason": reason, "stop_sequence": nil}, "usage": usage}, obj{"type": "message_stop"})
	return base(content, reason), events
}

// completion makes an answer of OpenAI's and its stream.
func (g gen) completion() (obj, []obj) {
	usage := obj{"prompt_tokens": 100 + g.IntN(99), "completion_tokens": g.IntN(99), "total_tokens": 1,
		"prompt_tokens_details": obj{"cached_tokens": g.IntN(50), "cache_write_tokens": g.IntN(50)}, "completion_tokens_details": obj{"reasoning_tokens": g.IntN(9)}}
	message := obj{"role": "assistant", "content": nil}
	chunk := func(choices ...any) obj {
		return obj{"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "g", "service_tier": "default", "choices": choices}
	}
	var stream []obj
	delta := func(d obj) {
		stream = append(stream, chunk(obj{"index": 0, "delta": d, "finish_reason": nil}))
	}
	delta(obj{"role": "assistant", "content": ""})
	text := func(name string) {
		if g.coin() {
			s := g.text()
			message[name] = s
			for _, p := range g.pieces(s) {
				delta(obj{name: p})
			}
		}
	}
	text("reasoning_content")
	text("content")
	text("refusal")
	finish := g.one("stop", "length", "content_filter")
	var calls []any
	g.some(0, 3, func(i int) {
		finish = g.one("tool_calls", "stop")
		args := g.args()
		call := obj{"type": "function", "function": obj{"name": "f", "arguments": args}}
		first := obj{"index": i, "type": "function", "function": obj{"name": "f", "arguments": ""}}
		if g.coin() {
			call["id"], first["id"] = fmt.Sprint("call_", i), fmt.Sprint("call_", i)
		}
		calls = append(calls, call)
		delta(obj{"tool_calls": []any{first}})
		for _, p := range g.pieces(args) {
			delta(obj{"tool_calls": []any{obj{"index": i, "function": obj{"arguments": p}}}})
		}
	})
	if calls != nil {
		message["tool_calls"] = calls
	}
	stream = append(stream, chunk(obj{"index": 0, "delta": obj{}, "finish_reason": finish}))
	last := chunk()
	last["choices"], last["usage"] = []any{}, usage
	stream = append(stream, last)
	return obj{"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "g", "service_tier": "default", "usage": usage,
		"choices": []any{obj{"index": 0, "message": message, "finish_reason": finish}}}, stream
}
