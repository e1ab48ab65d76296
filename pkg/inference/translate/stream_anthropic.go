// SPDX-License-Identifier: Apache-2.0

package translate

import "strconv"

// events makes the chunks of a chat completion Anthropic's events.
type events struct {
	t       *Translated
	started bool
	id      []byte // of the answer, unescaped
	kind    string // of the open block, content and refusal being text; "": none
	index   int64  // of the open block, or of the next one
	u       usage
	finish  []byte
	refused bool

	call   int64 // the provider's number of the last tool call
	callID []byte
	calls  int
}

func (e *events) event(w *writer, root val) error {
	if root.get("error").there() {
		return inStream(OpenAIChat, root)
	}
	if u := root.get("usage"); u.there() {
		e.u.openAI(u, &e.t.notes)
	}
	for choice := range root.get("choices").kids() {
		if count(choice.get("index")) != 0 {
			e.t.notes.add("choices", "more than one answer: the first is sent")
			continue
		}
		if !e.started {
			e.start(w, root)
		}
		if err := e.delta(w, choice.get("delta")); err != nil {
			return err
		}
		if f := choice.get("finish_reason"); f.there() && !f.empty() {
			e.finish = append(e.finish[:0], f.text()...)
		}
	}
	return nil
}

func (e *events) start(w *writer, root val) {
	e.started = true
	id := root.get("id")
	e.head(w, "message_start")
	w.lit(`"message":{`)
	if id.there() {
		e.id = append(e.id, id.text()...)
		w.member("id", id)
	} else {
		w.field("id", "")
	}
	w.lit(`"type":"message","role":"assistant"`)
	w.field("model", e.t.Model)
	w.lit(`"content":[],"stop_reason":null,"stop_sequence":null,"stop_details":null,"usage":`)
	first := usage{tier: tier(root.get("service_tier"), tiersOfOpenAI, "service_tier", &e.t.notes)}
	first.writeAnthropic(w)
	w.close('}')
	e.tail(w)
}

// head begins an event, tail ends it.
func (e *events) head(w *writer, name string) {
	w.b = append(w.b, "event: "...)
	w.b = append(w.b, name...)
	w.b = append(w.b, "\ndata: {\"type\":\""...)
	w.b = append(w.b, name...)
	w.b = append(w.b, '"')
}

func (e *events) tail(w *writer) { w.b = append(w.b, "}\n\n"...) }

func (e *events) delta(w *writer, d val) error {
	if text := reasoningText(d); text.there() {
		if e.open(w, "thinking") {
			w.lit(`"content_block":{"type":"thinking","thinking":"","signature":""}`)
			e.tail(w)
		}
		e.piece(w, "thinking_delta", "thinking", text.inner())
	}
	for b := range d.get("thinking_blocks").kids() {
		e.kept(w, b)
	}
	for _, name := range [...]string{"content", "refusal"} {
		text := d.get(name)
		if !text.there() || text.empty() {
			continue
		}
		e.refused = e.refused || name == "refusal"
		if e.open(w, name) {
			w.lit(`"content_block":{"type":"text","text":""}`)
			e.tail(w)
		}
		e.piece(w, "text_delta", "text", text.inner())
	}
	for call := range d.get("tool_calls").kids() {
		if err := e.toolCall(w, call); err != nil {
			return err
		}
	}
	return nil
}

// open begins a block, unless one of that kind is open; true: the caller
// writes what it begins with.
func (e *events) open(w *writer, kind string) bool {
	if e.kind == kind && kind != "tool_use" {
		return false
	}
	e.shut(w)
	e.kind = kind
	e.head(w, "content_block_start")
	w.key("index")
	w.int(e.index)
	return true
}

// shut ends the open block. Thinking that nobody signed is marked.
func (e *events) shut(w *writer) {
	if e.kind == "" {
		return
	}
	if e.kind == "thinking" {
		e.piece(w, "signature_delta", "signature", []byte(UnsignedReasoning))
	}
	e.head(w, "content_block_stop")
	w.key("index")
	w.int(e.index)
	e.tail(w)
	e.kind = ""
	e.index++
}

// piece writes a delta of the open block; text is as inside of a JSON string.
func (e *events) piece(w *writer, kind, name string, text []byte) {
	e.head(w, "content_block_delta")
	w.key("index")
	w.int(e.index)
	w.lit(`"delta":{"type":"`)
	w.b = append(w.b, kind...)
	w.b = append(w.b, `","`...)
	w.b = append(w.b, name...)
	w.b = append(w.b, `":"`...)
	w.b = append(w.b, text...)
	w.b = append(w.b, '"', '}')
	e.tail(w)
}

// kept writes a block of Anthropic's that a gateway kept whole: its text may
// have come as reasoning already.
func (e *events) kept(w *writer, b val) {
	sign := b.get("signature")
	switch {
	case b.get("type").is("redacted_thinking"):
		e.shut(w)
		e.kind = "redacted_thinking"
		e.head(w, "content_block_start")
		w.key("index")
		w.int(e.index)
		w.lit(`"content_block":{"type":"redacted_thinking"`)
		w.member("data", b.get("data"))
		w.close('}')
		e.tail(w)
		e.shut(w)
	case sign.there() && !sign.empty():
		if e.open(w, "thinking") {
			w.lit(`"content_block":{"type":"thinking","thinking":"","signature":""}`)
			e.tail(w)
			if text := b.get("thinking"); text.there() && !text.empty() {
				e.piece(w, "thinking_delta", "thinking", text.inner())
			}
		}
		e.piece(w, "signature_delta", "signature", sign.inner())
		e.kind = "signed"
		e.shut(w)
	}
}

// toolCall writes a piece of a call. A call is new when its number is, or its id.
func (e *events) toolCall(w *writer, call val) error {
	f, id, index := call.get("function"), call.get("id"), call.get("index")
	if kind := call.get("type"); kind.there() && !kind.empty() && !kind.is("function") {
		return &Malformed{"choices[0].delta.tool_calls[].type", "no tool that was asked for"}
	}
	n := count(index)
	late := index.there() && n < e.call
	fresh := !late && (e.calls == 0 || index.there() && n > e.call ||
		id.there() && !id.empty() && string(id.text()) != string(e.callID))
	switch {
	case fresh:
		name := f.get("name")
		if !name.there() || name.empty() {
			return &Malformed{"choices[0].delta.tool_calls[].function.name", "is missing"}
		}
		e.call, e.callID = n, e.callID[:0]
		e.open(w, "tool_use")
		w.lit(`"content_block":{"type":"tool_use"`)
		if id.there() && !id.empty() {
			e.callID = append(e.callID, id.text()...)
			w.member("id", id)
		} else {
			w.field("id", callName(e.id, e.calls))
		}
		w.member("name", name)
		w.lit(`"input":{}}`)
		e.tail(w)
		e.calls++
	case late || e.kind != "tool_use":
		return &Malformed{"choices[0].delta.tool_calls[].index", strconv.FormatInt(n, 10) + ": a piece of a call after the next block began"}
	}
	switch args := f.get("arguments"); args.kind() {
	case kindString:
		if !args.empty() {
			e.piece(w, "input_json_delta", "partial_json", args.inner())
		}
	case kindObject:
		e.piece(w, "input_json_delta", "partial_json", quote(nil, args.raw()))
	}
	return nil
}

func (e *events) end(w *writer) bool {
	if !e.started || len(e.finish) == 0 {
		return false
	}
	e.shut(w)
	e.u.known(&e.t.notes)
	e.head(w, "message_delta")
	w.lit(`"delta":{`)
	w.field("stop_reason", stopReason(e.finish, e.calls > 0, e.refused, &e.t.notes))
	w.lit(`"stop_sequence":null,"stop_details":null},"usage":`)
	e.u.writeAnthropic(w)
	e.tail(w)
	e.head(w, "message_stop")
	e.tail(w)
	return true
}
