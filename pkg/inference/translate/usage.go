// SPDX-License-Identifier: Apache-2.0

package translate

// usage is the tokens of one call, as both dialects count them: fresh input,
// what was read from and written to the cache, and output with reasoning in it.
type usage struct {
	fresh, read, written int64
	output, reasoning    int64
	hasReasoning, told   bool
	tier                 string // in the client's words
}

func count(v val) int64 {
	n, _ := v.integer()
	return max(n, 0)
}

// known notes that the client gets zeros where the provider told nothing.
func (u *usage) known(notes *notes) {
	if !u.told {
		notes.add("usage", "the provider told none: the client gets zeros")
	}
}

// anthropic takes over what v tells; a stream tells some counts again.
func (u *usage) anthropic(v val) {
	u.told = u.told || v.there()
	for _, f := range [...]struct {
		name string
		to   *int64
	}{
		{"input_tokens", &u.fresh}, {"cache_read_input_tokens", &u.read},
		{"cache_creation_input_tokens", &u.written}, {"output_tokens", &u.output},
	} {
		if n := v.get(f.name); n.there() {
			*f.to = count(n)
		}
	}
	if n := v.get("output_tokens_details").get("thinking_tokens"); n.there() {
		u.reasoning, u.hasReasoning = count(n), true
	}
}

// openAI takes over what v tells. Its prompt includes what is cached.
func (u *usage) openAI(v val, notes *notes) {
	u.told = v.there()
	prompt, details := count(v.get("prompt_tokens")), v.get("prompt_tokens_details")
	u.read, u.written = count(details.get("cached_tokens")), count(details.get("cache_write_tokens"))
	u.output = count(v.get("completion_tokens"))
	if u.read > prompt || u.written > prompt-u.read {
		notes.add("usage.prompt_tokens_details", "more cached tokens than tokens: what is over is left out")
		u.read = min(u.read, prompt)
		u.written = min(u.written, prompt-u.read)
	}
	u.fresh = prompt - u.read - u.written
	if n := v.get("completion_tokens_details").get("reasoning_tokens"); n.there() {
		u.reasoning, u.hasReasoning = count(n), true
	}
}

func (u *usage) writeOpenAI(w *writer) {
	prompt := u.fresh + u.read + u.written
	w.open('{')
	w.key("prompt_tokens")
	w.int(prompt)
	w.key("completion_tokens")
	w.int(u.output)
	w.key("total_tokens")
	w.int(prompt + u.output)
	w.key("prompt_tokens_details")
	w.lit(`{"cached_tokens":`)
	w.int(u.read)
	w.key("cache_write_tokens")
	w.int(u.written)
	w.close('}')
	if u.hasReasoning {
		w.key("completion_tokens_details")
		w.lit(`{"reasoning_tokens":`)
		w.int(u.reasoning)
		w.close('}')
	}
	w.close('}')
}

func (u *usage) writeAnthropic(w *writer) {
	w.open('{')
	w.key("input_tokens")
	w.int(u.fresh)
	w.key("cache_creation_input_tokens")
	w.int(u.written)
	w.key("cache_read_input_tokens")
	w.int(u.read)
	w.key("output_tokens")
	w.int(u.output)
	if u.hasReasoning {
		w.key("output_tokens_details")
		w.lit(`{"thinking_tokens":`)
		w.int(u.reasoning)
		w.close('}')
	}
	if u.tier != "" {
		w.field("service_tier", u.tier)
	}
	w.close('}')
}

// tier is a service tier in the client's words; one without a word is dropped
// with a note.
func tier(v val, words map[string]string, field string, notes *notes) string {
	if !v.there() {
		return ""
	}
	word := words[string(v.text())]
	if word == "" {
		notes.add(field, "a tier that the client's dialect does not know: dropped")
	}
	return word
}

var (
	tiersOfAnthropic = map[string]string{"standard": "default", "priority": "priority"}
	tiersOfOpenAI    = map[string]string{"default": "standard", "priority": "priority"}
)

// finishReason is Anthropic's stop_reason in OpenAI's words.
func finishReason(stop []byte, notes *notes) string {
	switch string(stop) {
	case "end_turn", "stop_sequence":
		return "stop"
	case "max_tokens", "model_context_window_exceeded":
		return "length"
	case "tool_use":
		return "tool_calls"
	case "refusal":
		return "content_filter"
	}
	notes.add("stop_reason", "a reason that OpenAI's dialect does not know: stop is sent")
	return "stop"
}

// stopReason is OpenAI's finish_reason in Anthropic's words.
func stopReason(finish []byte, calls, refused bool, notes *notes) string {
	switch string(finish) {
	case "stop":
		switch {
		case refused:
			return "refusal"
		case calls:
			return "tool_use"
		}
		return "end_turn"
	case "length":
		return "max_tokens"
	case "tool_calls", "function_call":
		return "tool_use"
	case "content_filter":
		return "refusal"
	}
	notes.add("choices[].finish_reason", "a reason that Anthropic's dialect does not know: end_turn is sent")
	return "end_turn"
}
