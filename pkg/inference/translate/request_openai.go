// SPDX-License-Identifier: Apache-2.0

package translate

// toOpenAI writes a messages request as a chat completions request. The table
// has been checked: types are right and nothing refused is there.
func (q *request) toOpenAI() error {
	w := &q.w
	w.open('{')
	q.model()
	for _, part := range [...]func(*request) error{
		(*request).chat, (*request).tools, (*request).toolChoice, (*request).limits, (*request).reasoning,
	} {
		if err := part(q); err != nil {
			return err
		}
	}
	if schema := q.root.get("output_config").get("format").get("schema"); schema.there() {
		w.key("response_format")
		w.lit(`{"type":"json_schema","json_schema":{"name":"output","strict":true`)
		w.member("schema", schema)
		w.b = append(w.b, '}', '}')
	}
	if user := q.root.get("metadata").get("user_id"); user.there() {
		if len(user.text()) <= 128 {
			w.member("safety_identifier", user)
		} else {
			q.t.notes.add("metadata.user_id", "longer than the 128 bytes that OpenAI takes: left out")
		}
	}
	switch tier := q.root.get("service_tier"); {
	case !tier.there():
	case tier.is("auto"):
		w.field("service_tier", "auto")
	case tier.is("standard_only"):
		w.field("service_tier", "default")
	default:
		return refuse("no tier that this translation knows", "service_tier")
	}
	if stream := q.root.get("stream"); stream.there() {
		w.member("stream", stream)
		if stream.truth() {
			w.key("stream_options")
			w.lit(`{"include_usage":true}`)
		}
	}
	w.close('}')
	return nil
}

func (q *request) limits() error {
	w := &q.w
	limit, name := q.root.get("max_tokens"), "max_completion_tokens"
	if n, _ := limit.integer(); n < 1 {
		return refuse("has to be 1 or more: OpenAI has no call that fills a cache alone", "max_tokens")
	}
	if q.o.MaxTokensOnly {
		name = "max_tokens"
	}
	w.member(name, limit)
	if stop := q.root.get("stop_sequences"); stop.there() && !stop.empty() {
		if stop.count() > 4 {
			return refuse("OpenAI takes no more than 4", "stop_sequences")
		}
		w.member("stop", stop)
	}
	heat := q.root.get("temperature")
	if f, ok := heat.float(); ok && (f < 0 || f > 1) {
		return refuse("has to be 0 to 1", "temperature")
	}
	w.member("temperature", heat)
	w.member("top_p", q.root.get("top_p"))
	return nil
}

// Budgets of thinking tokens up to which an effort is meant.
const (
	budgetLow    = 4096
	budgetMedium = 16384
)

func (q *request) reasoning() error {
	effort, thinking := q.root.get("output_config").get("effort"), q.root.get("thinking")
	off := thinking.get("type").is("disabled")
	level := ""
	switch {
	case off && effort.there():
		return refuse("contradicts thinking, which is disabled", "output_config.effort")
	case off:
		level = "none"
	case effort.there():
		switch level = string(effort.text()); level {
		case "low", "medium", "high", "xhigh", "max":
		default:
			return refuse("no effort that this translation knows", "output_config.effort")
		}
	}
	if budget := thinking.get("budget_tokens"); budget.there() {
		if level != "" {
			q.t.notes.add("thinking.budget_tokens", "output_config.effort is sent in its place")
		} else if n, ok := budget.integer(); ok && n <= budgetLow {
			level = "low"
		} else if ok && n <= budgetMedium {
			level = "medium"
		} else {
			level = "high"
		}
	} else if thinking.get("type").is("adaptive") {
		q.t.notes.add("thinking", "adaptive: OpenAI's reasoning models decide by themselves, others do not reason")
	}
	if level != "" {
		q.w.field("reasoning_effort", level)
	}
	return nil
}

func (q *request) tools() error {
	tools := q.root.get("tools")
	if !tools.there() || tools.empty() {
		return nil
	}
	w := &q.w
	w.key("tools")
	w.open('[')
	for tool := range tools.kids() {
		w.open('{')
		w.field("type", "function")
		w.key("function")
		w.open('{')
		w.member("name", tool.get("name"))
		w.member("description", tool.get("description"))
		w.member("parameters", tool.get("input_schema"))
		w.member("strict", tool.get("strict"))
		w.b = append(w.b, '}', '}')
	}
	w.close(']')
	return nil
}

func (q *request) toolChoice() error {
	choice := q.root.get("tool_choice")
	if !choice.there() {
		return nil
	}
	w := &q.w
	w.key("tool_choice")
	switch string(choice.get("type").text()) {
	case "auto":
		w.str("auto")
	case "none":
		w.str("none")
	case "any":
		w.str("required")
	default:
		w.lit(`{"type":"function"`)
		w.key("function")
		w.open('{')
		w.member("name", choice.get("name"))
		w.b = append(w.b, '}', '}')
	}
	if alone := choice.get("disable_parallel_tool_use"); alone.there() {
		w.key("parallel_tool_calls")
		w.bool(!alone.truth())
	}
	return nil
}
