// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"encoding/hex"
)

// toAnthropic writes a chat completions request as a messages request. The
// table has been checked: types are right and nothing refused is there.
func (q *request) toAnthropic() error {
	w := &q.w
	w.open('{')
	q.model()
	q.t.includeUsage = q.root.get("stream_options").get("include_usage").truth()
	for _, part := range [...]func(*request) error{
		(*request).maxTokens, (*request).conversation, (*request).functions, (*request).functionChoice,
		(*request).sampling, (*request).effort, (*request).tier,
	} {
		if err := part(q); err != nil {
			return err
		}
	}
	user := q.root.get("safety_identifier")
	if other := q.root.get("user"); !user.there() {
		user = other
	} else if other.there() {
		q.t.notes.add("user", "safety_identifier is sent in its place")
	}
	if user.there() {
		w.key("metadata")
		w.open('{')
		w.member("user_id", user)
		w.close('}')
	}
	w.member("stream", q.root.get("stream"))
	w.close('}')
	return nil
}

func (q *request) maxTokens() error {
	limit, old := q.root.get("max_completion_tokens"), q.root.get("max_tokens")
	if limit.there() && old.there() && string(limit.raw()) != string(old.raw()) {
		return refuse("differs from max_completion_tokens", "max_tokens")
	}
	if !limit.there() {
		limit = old
	}
	switch {
	case limit.there():
		if n, _ := limit.integer(); n < 1 {
			return refuse("has to be 1 or more", "%s", limit.key())
		}
		q.w.member("max_tokens", limit)
	case q.o.DefaultMaxTokens > 0:
		q.w.key("max_tokens")
		q.w.int(q.o.DefaultMaxTokens)
		q.t.notes.add("max_tokens", "not given; Anthropic demands it, and the default of the route is sent")
	default:
		return refuse("is missing: Anthropic demands a limit, and the route has no default", "max_completion_tokens")
	}
	return nil
}

func (q *request) sampling() error {
	w := &q.w
	if stop := q.root.get("stop"); stop.kind() == kindString {
		w.key("stop_sequences")
		w.open('[')
		w.raw(stop.raw())
		w.close(']')
	} else {
		w.member("stop_sequences", stop)
	}
	heat := q.root.get("temperature")
	if f, ok := heat.float(); ok && (f < 0 || f > 1) {
		return refuse("Anthropic takes 0 to 1", "temperature")
	}
	w.member("temperature", heat)
	w.member("top_p", q.root.get("top_p"))
	return nil
}

// effort writes thinking and output_config: how hard to think, and the form of
// the answer.
func (q *request) effort() error {
	w := &q.w
	effort, format := q.root.get("reasoning_effort"), q.root.get("response_format")
	level := ""
	if effort.there() {
		switch level = string(effort.text()); level {
		case "low", "medium", "high", "xhigh", "max":
		case "minimal":
			level = "low"
			q.t.notes.add("reasoning_effort", "minimal is sent as low, Anthropic's least")
		case "none":
			level = ""
			w.key("thinking")
			w.lit(`{"type":"disabled"}`)
		default:
			return refuse("no effort that this translation knows", "reasoning_effort")
		}
	}
	schema := format.get("json_schema").get("schema")
	if level == "" && !schema.there() {
		return nil
	}
	w.key("output_config")
	w.open('{')
	if level != "" {
		w.field("effort", level)
	}
	if schema.there() {
		w.key("format")
		w.lit(`{"type":"json_schema"`)
		w.member("schema", schema)
		w.close('}')
	}
	w.close('}')
	return nil
}

func (q *request) tier() error {
	tier := q.root.get("service_tier")
	switch {
	case !tier.there():
	case tier.is("auto"):
		q.w.field("service_tier", "auto")
	case tier.is("default"):
		q.w.field("service_tier", "standard_only")
	default:
		return refuse("Anthropic has no such tier", "service_tier")
	}
	return nil
}

func (q *request) functions() error {
	tools := q.root.get("tools")
	if !tools.there() {
		return nil
	}
	w := &q.w
	w.key("tools")
	w.open('[')
	i := 0
	for tool := range tools.kids() {
		f := tool.get("function")
		w.open('{')
		w.member("name", f.get("name"))
		w.member("description", f.get("description"))
		w.key("input_schema")
		if err := q.schema(f.get("parameters")); err != nil {
			return refuse(err.Error(), "tools[%d].function.parameters.type", i)
		}
		w.member("strict", f.get("strict"))
		w.close('}')
		i++
	}
	w.close(']')
	return nil
}

type problem string

func (p problem) Error() string { return string(p) }

// schema writes the schema of a tool's input, which Anthropic wants to be an object's.
func (q *request) schema(s val) error {
	w := &q.w
	kind := s.get("type")
	switch {
	case !s.there():
		w.lit(`{"type":"object","properties":{}}`)
	case kind.is("object"):
		w.raw(s.raw())
	case kind.there():
		return problem("the input of a tool is an object at Anthropic")
	default:
		w.open('{')
		w.lit(`"type":"object"`)
		for m := range s.kids() {
			n := m.node()
			if string(m.key()) == "type" { // null
				continue
			}
			w.comma()
			w.b = append(w.b, s.d.src[n.keyStart-1:n.end]...)
		}
		w.close('}')
	}
	return nil
}

func (q *request) functionChoice() error {
	choice, parallel := q.root.get("tool_choice"), q.root.get("parallel_tool_calls")
	if !choice.there() && !parallel.there() {
		return nil
	}
	w := &q.w
	kind := "auto"
	switch {
	case choice.is("none"):
		kind = "none"
	case choice.is("required"):
		kind = "any"
	case choice.kind() == kindObject:
		kind = "tool"
	case choice.there() && !choice.is("auto"):
		return refuse("no choice that this translation knows", "tool_choice")
	}
	w.key("tool_choice")
	w.open('{')
	w.field("type", kind)
	if kind == "tool" {
		w.member("name", choice.get("function").get("name"))
	}
	if parallel.there() {
		if kind == "none" {
			q.t.notes.add("parallel_tool_calls", "nothing to say where no tool is called")
		} else {
			w.key("disable_parallel_tool_use")
			w.bool(!parallel.truth())
		}
	}
	w.close('}')
	return nil
}

// callID writes the id of a tool call as Anthropic takes it. The same id is
// always written the same, and no two alike.
func (q *request) callID(id val, name string) {
	text := id.text()
	plain := len(text) > 0 && string(text[:min(4, len(text))]) != "hex_"
	for _, c := range text {
		plain = plain && (c == '_' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z')
	}
	q.w.key(name)
	if plain {
		q.w.raw(id.raw())
		return
	}
	q.w.str("hex_" + hex.EncodeToString(text))
}
