// SPDX-License-Identifier: Apache-2.0

package inference

type fields = map[string]any

func trialChat(x *exchange) [][]byte {
	in, out := x.trialUsage()
	usage := fields{"prompt_tokens": in, "completion_tokens": out, "total_tokens": in + out,
		"prompt_tokens_details":     fields{"cached_tokens": 0, "audio_tokens": 0},
		"completion_tokens_details": fields{"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}}
	id, created := trialID("chatcmpl-trial-"), x.start.Unix()
	if !x.asked.stream {
		return object(fields{"id": id, "object": "chat.completion", "created": created, "model": x.asked.model,
			"choices": []fields{{"index": 0, "finish_reason": "stop", "logprobs": nil,
				"message": fields{"role": "assistant", "content": x.trialText(), "refusal": nil, "annotations": []any{}}}},
			"usage": usage, "service_tier": "default", "system_fingerprint": "ringfence-trial"})
	}
	var events [][]byte
	emit := func(choices []fields, u any) {
		c := fields{"id": id, "object": "chat.completion.chunk", "created": created, "model": x.asked.model,
			"system_fingerprint": "ringfence-trial", "choices": choices}
		if x.asked.includeUsage {
			c["usage"] = u
		}
		events = append(events, dataEvent(c))
	}
	choice := func(delta fields, finish any) []fields {
		return []fields{{"index": 0, "delta": delta, "logprobs": nil, "finish_reason": finish}}
	}
	emit(choice(fields{"role": "assistant", "content": "", "refusal": nil}, nil), nil)
	for _, d := range deltas(x.trialText()) {
		emit(choice(fields{"content": d}, nil), nil)
	}
	emit(choice(fields{}, "stop"), nil)
	if x.asked.includeUsage {
		emit([]fields{}, usage)
	}
	return append(events, []byte("data: [DONE]\n\n"))
}

func trialResponses(x *exchange) [][]byte {
	in, out := x.trialUsage()
	text := x.trialText()
	id, msg := trialID("resp_trial_"), trialID("msg_trial_")
	part := func(t string) fields {
		return fields{"type": "output_text", "text": t, "annotations": []any{}, "logprobs": []any{}}
	}
	item := func(status string, content []fields) fields {
		return fields{"id": msg, "type": "message", "role": "assistant", "status": status, "content": content}
	}
	response := func(status string, output []fields, usage any) fields {
		return fields{"id": id, "object": "response", "created_at": x.start.Unix(), "status": status, "model": x.asked.model,
			"output": output, "usage": usage, "error": nil, "incomplete_details": nil, "instructions": nil, "metadata": fields{},
			"parallel_tool_calls": true, "temperature": 1, "top_p": 1, "tool_choice": "auto", "tools": []any{}, "store": false,
			"background": false, "previous_response_id": nil, "max_output_tokens": nil, "truncation": "disabled",
			"text": fields{"format": fields{"type": "text"}}, "reasoning": fields{"effort": nil, "summary": nil}, "user": nil}
	}
	done := response("completed", []fields{item("completed", []fields{part(text)})},
		fields{"input_tokens": in, "output_tokens": out, "total_tokens": in + out,
			"input_tokens_details": fields{"cached_tokens": 0}, "output_tokens_details": fields{"reasoning_tokens": 0}})
	if !x.asked.stream {
		return object(done)
	}
	var events [][]byte
	emit := func(typ string, e fields) {
		e["type"], e["sequence_number"] = typ, len(events)
		events = append(events, namedEvent(typ, e))
	}
	at := func(e fields) fields {
		e["item_id"], e["output_index"], e["content_index"] = msg, 0, 0
		return e
	}
	emit("response.created", fields{"response": response("in_progress", []fields{}, nil)})
	emit("response.in_progress", fields{"response": response("in_progress", []fields{}, nil)})
	emit("response.output_item.added", fields{"output_index": 0, "item": item("in_progress", []fields{})})
	emit("response.content_part.added", at(fields{"part": part("")}))
	for _, d := range deltas(text) {
		emit("response.output_text.delta", at(fields{"delta": d, "logprobs": []any{}}))
	}
	emit("response.output_text.done", at(fields{"text": text, "logprobs": []any{}}))
	emit("response.content_part.done", at(fields{"part": part(text)}))
	emit("response.output_item.done", fields{"output_index": 0, "item": item("completed", []fields{part(text)})})
	emit("response.completed", fields{"response": done})
	return events
}

func trialInputTokens(x *exchange) [][]byte {
	return object(fields{"object": "response.input_tokens", "input_tokens": requestTokens(&x.tape)})
}

func openAIModel(id string) fields {
	return fields{"id": id, "object": "model", "created": 0, "owned_by": "ringfence"}
}

func trialOpenAIModels(*exchange) [][]byte {
	return object(fields{"object": "list", "data": []fields{openAIModel(trialModel)}})
}

func trialOpenAIModel(x *exchange) [][]byte { return object(openAIModel(x.lastSegment())) }
