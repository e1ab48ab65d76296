// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"bytes"
	"strconv"
)

// toCompletion writes Anthropic's message as a chat completion.
func (t *Translated) toCompletion(w *writer, root val) error {
	if !root.get("type").is("message") {
		return &Malformed{"type", "no message"}
	}
	reason := root.get("stop_reason")
	if !reason.there() {
		return &Malformed{"stop_reason", "is missing"}
	}
	var u usage
	u.anthropic(root.get("usage"))
	u.known(&t.notes)
	w.open('{')
	t.stamp(w, root.get("id"), "chat.completion")
	w.key("choices")
	w.lit(`[{"index":0,"message":{"role":"assistant"`)
	content := root.get("content")
	texts := 0
	for b := range content.kids() {
		if b.get("type").is("text") && b.get("text").there() {
			texts++
		}
	}
	w.key("content")
	if texts == 0 {
		w.lit("null")
	} else {
		w.b = append(w.b, '"')
		for b := range content.kids() {
			if b.get("type").is("text") && b.get("text").there() {
				w.b = append(w.b, b.get("text").inner()...)
			}
		}
		w.b = append(w.b, '"')
	}
	w.key("refusal")
	if why := root.get("stop_details").get("explanation"); why.there() && reason.is("refusal") {
		w.raw(why.raw())
	} else {
		w.lit("null")
	}
	t.keptThinking(w, content)
	if err := t.keptCalls(w, content); err != nil {
		return err
	}
	w.close('}')
	w.field("finish_reason", finishReason(reason.text(), &t.notes))
	w.key("logprobs")
	w.lit("null")
	w.b = append(w.b, '}', ']')
	if name := tier(root.get("usage").get("service_tier"), tiersOfAnthropic, "usage.service_tier", &t.notes); name != "" {
		w.field("service_tier", name)
	}
	w.key("usage")
	u.writeOpenAI(w)
	w.close('}')
	return nil
}

// stamp writes what begins every answer of OpenAI's.
func (t *Translated) stamp(w *writer, id val, object string) {
	if id.there() {
		w.member("id", id)
	} else {
		w.field("id", "")
	}
	w.field("object", object)
	w.key("created")
	w.int(t.created)
	w.field("model", t.Model)
}

// keptThinking writes the thinking of an answer: its text, and the blocks.
func (t *Translated) keptThinking(w *writer, content val) {
	texts, blocks := 0, 0
	for b := range content.kids() {
		switch string(b.get("type").text()) {
		case "thinking":
			if b.get("thinking").there() {
				texts++
			}
			blocks++
		case "redacted_thinking":
			blocks++
		}
	}
	if texts > 0 {
		w.key("reasoning_content")
		w.b = append(w.b, '"')
		for b := range content.kids() {
			if b.get("type").is("thinking") && b.get("thinking").there() {
				w.b = append(w.b, b.get("thinking").inner()...)
			}
		}
		w.b = append(w.b, '"')
	}
	if blocks == 0 {
		return
	}
	w.key("thinking_blocks")
	w.open('[')
	for b := range content.kids() {
		switch string(b.get("type").text()) {
		case "thinking", "redacted_thinking":
			thinkingBlock(w, b)
		}
	}
	w.close(']')
}

func thinkingBlock(w *writer, b val) {
	w.open('{')
	w.member("type", b.get("type"))
	w.member("thinking", b.get("thinking"))
	w.member("signature", b.get("signature"))
	w.member("data", b.get("data"))
	w.close('}')
}

func (t *Translated) keptCalls(w *writer, content val) error {
	n, i := 0, -1
	for b := range content.kids() {
		i++
		switch string(b.get("type").text()) {
		case "tool_use":
		case "text", "thinking", "redacted_thinking":
			continue
		default:
			t.notes.add("content[].type", "a kind of block that OpenAI's dialect does not know: dropped")
			continue
		}
		for _, need := range [...]string{"id", "name", "input"} {
			if !b.get(need).there() {
				return &Malformed{"content[" + strconv.Itoa(i) + "]." + need, "is missing"}
			}
		}
		if n == 0 {
			w.key("tool_calls")
			w.open('[')
		}
		n++
		q := request{w: *w}
		q.call(b.get("id"), b.get("name"), b.get("input"))
		w.b = q.w.b
	}
	if n > 0 {
		w.close(']')
	}
	return nil
}

// toMessage writes OpenAI's chat completion as a message.
func (t *Translated) toMessage(w *writer, root val) error {
	var choice val
	for c := range root.get("choices").kids() {
		if n := c.get("index"); choice.there() || n.there() && count(n) != 0 {
			t.notes.add("choices", "more than one answer: the first is sent")
			continue
		}
		choice = c
	}
	if !choice.there() {
		return &Malformed{"choices", "is empty"}
	}
	finish := choice.get("finish_reason")
	if !finish.there() {
		return &Malformed{"choices[0].finish_reason", "is missing"}
	}
	var u usage
	u.openAI(root.get("usage"), &t.notes)
	u.known(&t.notes)
	u.tier = tier(root.get("service_tier"), tiersOfOpenAI, "service_tier", &t.notes)
	w.open('{')
	if id := root.get("id"); id.there() {
		w.member("id", id)
	} else {
		w.field("id", "")
	}
	w.lit(`"type":"message","role":"assistant"`)
	w.field("model", t.Model)
	w.key("content")
	w.open('[')
	calls, err := t.blocks(w, root.get("id"), choice.get("message"), finish.is("length"))
	if err != nil {
		return err
	}
	w.close(']')
	refused := choice.get("message").get("refusal")
	w.field("stop_reason", stopReason(finish.text(), calls, refused.there() && !refused.empty(), &t.notes))
	w.lit(`"stop_sequence":null,"stop_details":null`)
	w.key("usage")
	u.writeAnthropic(w)
	w.close('}')
	return nil
}

// blocks writes the blocks of one answer in Anthropic's order.
func (t *Translated) blocks(w *writer, id, m val, cut bool) (calls bool, err error) {
	if kept := m.get("thinking_blocks"); kept.there() && !kept.empty() {
		for b := range kept.kids() {
			thinkingBlock(w, b)
		}
	} else if text := reasoningText(m); text.there() {
		w.lit(`{"type":"thinking"`)
		w.member("thinking", text)
		w.field("signature", UnsignedReasoning)
		w.close('}')
	}
	for _, name := range [...]string{"content", "refusal"} {
		if text := m.get(name); text.there() && !text.empty() {
			w.lit(`{"type":"text"`)
			w.member("text", text)
			w.close('}')
		}
	}
	i := 0
	for call := range m.get("tool_calls").kids() {
		if err := t.use(w, id, call, i, cut); err != nil {
			return calls, err
		}
		calls = true
		i++
	}
	return calls, nil
}

// reasoningText is the reasoning of a message or delta, by either name.
func reasoningText(m val) val {
	for _, name := range [...]string{"reasoning_content", "reasoning"} {
		if text := m.get(name); text.there() && !text.empty() {
			return text
		}
	}
	return val{}
}

func (t *Translated) use(w *writer, id, call val, i int, cut bool) error {
	at := "choices[0].message.tool_calls[" + strconv.Itoa(i) + "]"
	f := call.get("function")
	if kind := call.get("type"); kind.there() && !kind.is("function") {
		return &Malformed{at + ".type", "no tool that was asked for"}
	}
	if !f.get("name").there() {
		return &Malformed{at + ".function.name", "is missing"}
	}
	w.lit(`{"type":"tool_use"`)
	w.key("id")
	t.madeID(w, id, call.get("id"), i)
	w.member("name", f.get("name"))
	w.key("input")
	args := f.get("arguments")
	switch args.kind() {
	case kindObject:
		w.raw(args.raw())
	case kindNone:
		w.lit("{}")
	default:
		input, err := object(args.text())
		switch {
		case err == nil:
			w.raw(input)
		case cut:
			w.lit("{}")
			t.notes.add(at+".function.arguments", "cut off by the limit of tokens: {} is sent")
		default:
			return &Malformed{at + ".function.arguments", err.Error()}
		}
	}
	w.close('}')
	return nil
}

// madeID writes the id of a tool call, or one of the answer's id and a number
// where the provider gave none.
func (t *Translated) madeID(w *writer, answer, id val, i int) {
	if id.there() && !id.empty() {
		w.raw(id.raw())
		return
	}
	var text []byte
	if answer.there() {
		text = answer.text()
	}
	w.str(callName(text, i))
}

// callName makes the id of a call out of the answer's and its number.
func callName(answer []byte, i int) string {
	plain := bytes.Map(func(r rune) rune {
		if r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, answer)
	return "call_" + string(plain) + "_" + strconv.Itoa(i)
}
