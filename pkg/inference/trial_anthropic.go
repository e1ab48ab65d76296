// SPDX-License-Identifier: Apache-2.0

package inference

func trialMessages(x *exchange) [][]byte {
	in, out := x.trialUsage()
	text := x.trialText()
	usage := func(out uint64) fields {
		return fields{"input_tokens": in, "output_tokens": out, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
			"service_tier": "standard"}
	}
	message := func(content []fields, stop any, out uint64) fields {
		return fields{"id": trialID("msg_trial_"), "type": "message", "role": "assistant", "model": x.asked.model,
			"content": content, "stop_reason": stop, "stop_sequence": nil, "usage": usage(out)}
	}
	if !x.asked.stream {
		return object(message([]fields{{"type": "text", "text": text, "citations": nil}}, "end_turn", out))
	}
	var events [][]byte
	emit := func(typ string, e fields) {
		e["type"] = typ
		events = append(events, namedEvent(typ, e))
	}
	emit("message_start", fields{"message": message([]fields{}, nil, 1)})
	emit("content_block_start", fields{"index": 0, "content_block": fields{"type": "text", "text": ""}})
	emit("ping", fields{})
	for _, d := range deltas(text) {
		emit("content_block_delta", fields{"index": 0, "delta": fields{"type": "text_delta", "text": d}})
	}
	emit("content_block_stop", fields{"index": 0})
	emit("message_delta", fields{"delta": fields{"stop_reason": "end_turn", "stop_sequence": nil}, "usage": fields{"output_tokens": out}})
	emit("message_stop", fields{})
	return events
}

func trialCountTokens(x *exchange) [][]byte {
	return object(fields{"input_tokens": requestTokens(&x.tape)})
}

func anthropicModel(id string) fields {
	return fields{"type": "model", "id": id, "display_name": "Ringfence trial provider (no model behind it)", "created_at": "1970-01-01T00:00:00Z"}
}

func trialAnthropicModels(*exchange) [][]byte {
	return object(fields{"data": []fields{anthropicModel(trialModel)}, "has_more": false, "first_id": trialModel, "last_id": trialModel})
}

func trialAnthropicModel(x *exchange) [][]byte { return object(anthropicModel(x.lastSegment())) }
