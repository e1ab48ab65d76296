// SPDX-License-Identifier: Apache-2.0

package doubles

import (
	"encoding/json"
	"strings"
)

type obj = map[string]any

// shapes are the answers by method and path: one document, or the events of a
// stream. Token figures are fixed so that tests can name them: 11 in (3 of
// them cached), 7 out.
var shapes = map[string]func(a answer) []string{
	"POST /v1/chat/completions":      chatShape,
	"POST /v1/completions":           completionShape,
	"POST /v1/responses":             responsesShape,
	"POST /v1/embeddings":            embeddingShape,
	"POST /v1/moderations":           moderationShape,
	"POST /v1/messages":              messagesShape,
	"POST /v1/messages/count_tokens": func(answer) []string { return []string{`{"input_tokens":11}`} },
	"GET /v1/models":                 modelsShape,
}

func js(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func event(name string, v any) string {
	if name == "" {
		return "data: " + js(v) + "\n\n"
	}
	return "event: " + name + "\ndata: " + js(v) + "\n\n"
}

func chatShape(a answer) []string {
	usage := obj{"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18, "prompt_tokens_details": obj{"cached_tokens": 3}}
	base := func(object string) obj {
		return obj{"id": "chatcmpl-double", "object": object, "created": 1, "model": a.model, "x_unknown": obj{"kept": true}}
	}
	if !a.stream {
		o := base("chat.completion")
		o["choices"] = []obj{{"index": 0, "finish_reason": "stop", "message": obj{"role": "assistant", "content": a.text}}}
		if a.usage {
			o["usage"] = usage
		}
		return []string{js(o)}
	}
	var out []string
	chunk := func(choices []obj, u any) {
		o := base("chat.completion.chunk")
		o["choices"] = choices
		if u != nil {
			o["usage"] = u
		}
		out = append(out, event("", o))
	}
	for _, word := range strings.SplitAfter(a.text, " ") {
		chunk([]obj{{"index": 0, "delta": obj{"content": word}, "finish_reason": nil}}, nil)
	}
	chunk([]obj{{"index": 0, "delta": obj{}, "finish_reason": "stop"}}, nil)
	if a.reqUsage && a.usage {
		chunk([]obj{}, usage)
	}
	return append(out, "data: [DONE]\n\n")
}

func completionShape(a answer) []string {
	return []string{js(obj{"id": "cmpl-double", "object": "text_completion", "created": 1, "model": a.model,
		"choices": []obj{{"index": 0, "text": a.text, "finish_reason": "stop", "logprobs": nil}},
		"usage":   obj{"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}})}
}

func responsesShape(a answer) []string {
	item := obj{"id": "msg_double", "type": "message", "role": "assistant", "status": "completed",
		"content": []obj{{"type": "output_text", "text": a.text, "annotations": []any{}}}}
	resp := func(status string, output []obj, usage any) obj {
		return obj{"id": "resp_double", "object": "response", "created_at": 1, "status": status, "model": a.model, "output": output,
			"usage": usage, "error": nil, "parallel_tool_calls": true, "tool_choice": "auto", "tools": []any{}}
	}
	var usage any
	if a.usage {
		usage = obj{"input_tokens": 11, "output_tokens": 7, "total_tokens": 18, "input_tokens_details": obj{"cached_tokens": 3},
			"output_tokens_details": obj{"reasoning_tokens": 0}}
	}
	if !a.stream {
		return []string{js(resp("completed", []obj{item}, usage))}
	}
	out := []string{event("response.created", obj{"type": "response.created", "sequence_number": 0, "response": resp("in_progress", []obj{}, nil)})}
	for i, word := range strings.SplitAfter(a.text, " ") {
		out = append(out, event("response.output_text.delta", obj{"type": "response.output_text.delta", "sequence_number": i + 1,
			"item_id": "msg_double", "output_index": 0, "content_index": 0, "delta": word}))
	}
	return append(out, event("response.completed", obj{"type": "response.completed", "sequence_number": len(out),
		"response": resp("completed", []obj{item}, usage)}))
}

func embeddingShape(a answer) []string {
	return []string{js(obj{"object": "list", "model": a.model, "data": []obj{{"object": "embedding", "index": 0, "embedding": []float64{0.5, -0.25}}},
		"usage": obj{"prompt_tokens": 11, "total_tokens": 11}})}
}

func moderationShape(a answer) []string {
	return []string{js(obj{"id": "modr-double", "model": a.model, "results": []obj{{"flagged": false, "categories": obj{}, "category_scores": obj{}}}})}
}

func messagesShape(a answer) []string {
	msg := func(content []obj, stop any, out int) obj {
		m := obj{"id": "msg_double", "type": "message", "role": "assistant", "model": a.model, "content": content, "stop_reason": stop, "stop_sequence": nil}
		if a.usage {
			m["usage"] = obj{"input_tokens": 6, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 3, "output_tokens": out}
		}
		return m
	}
	if !a.stream {
		return []string{js(msg([]obj{{"type": "text", "text": a.text}}, "end_turn", 7))}
	}
	out := []string{
		event("message_start", obj{"type": "message_start", "message": msg([]obj{}, nil, 1)}),
		event("content_block_start", obj{"type": "content_block_start", "index": 0, "content_block": obj{"type": "text", "text": ""}}),
		event("ping", obj{"type": "ping"}),
	}
	for _, word := range strings.SplitAfter(a.text, " ") {
		out = append(out, event("content_block_delta", obj{"type": "content_block_delta", "index": 0, "delta": obj{"type": "text_delta", "text": word}}))
	}
	delta := obj{"type": "message_delta", "delta": obj{"stop_reason": "end_turn", "stop_sequence": nil}}
	if a.usage {
		delta["usage"] = obj{"output_tokens": 7}
	}
	return append(out, event("content_block_stop", obj{"type": "content_block_stop", "index": 0}),
		event("message_delta", delta), event("message_stop", obj{"type": "message_stop"}))
}

func modelsShape(answer) []string {
	return []string{js(obj{"object": "list", "data": []obj{{"id": "double-1", "object": "model", "type": "model", "display_name": "Double 1",
		"created": 1, "created_at": "2026-01-01T00:00:00Z", "owned_by": "double"}}, "has_more": false, "first_id": "double-1", "last_id": "double-1"})}
}

func modelShape(a answer) []string {
	return []string{js(obj{"id": "double-1", "object": "model", "type": "model", "display_name": "Double 1", "created": 1,
		"created_at": "2026-01-01T00:00:00Z", "owned_by": "double"})}
}
