// SPDX-License-Identifier: Apache-2.0

package translate

// chunks makes Anthropic's events the chunks of a chat completion.
type chunks struct {
	t       *Translated
	begin   []byte // of every chunk, up to its delta
	started bool
	open    []openBlock
	calls   int
	finish  string // once the provider has said why it stopped
	u       usage
}

// openBlock is a block of Anthropic's whose stop has not come yet.
type openBlock struct {
	index    int64
	kind     string // text, tool_use, thinking or redacted_thinking; "" is dropped
	call     int64  // of tool_use: its number
	input    []byte // of tool_use: what it began with
	pieces   bool   // of tool_use: arguments came
	thinking []byte // as inside of a JSON string, like the rest
	sign     []byte
	data     []byte
}

func (c *chunks) event(w *writer, root val) error {
	kind := string(root.get("type").text())
	switch kind {
	case "ping":
		return nil
	case "error":
		return inStream(AnthropicMessages, root)
	case "message_start":
		return c.start(w, root.get("message"))
	}
	if !c.started {
		return &Malformed{"type", "an event before message_start"}
	}
	switch kind {
	case "content_block_start":
		return c.blockStart(w, root)
	case "content_block_delta":
		return c.blockDelta(w, root)
	case "content_block_stop":
		return c.blockStop(w, root)
	case "message_delta":
		return c.stop(w, root)
	case "message_stop":
		if !c.end(w) {
			return &Malformed{"stop_reason", "is missing"}
		}
		return errEnd
	}
	return nil // the checker noted it
}

func (c *chunks) start(w *writer, m val) error {
	if c.started {
		return &Malformed{"type", "a second message_start"}
	}
	c.started = true
	c.u.anthropic(m.get("usage"))
	c.u.tier = tier(m.get("usage").get("service_tier"), tiersOfAnthropic, "usage.service_tier", &c.t.notes)
	head := writer{b: append(c.begin, "data: "...)}
	head.b = append(head.b, '{')
	c.t.stamp(&head, m.get("id"), "chat.completion.chunk")
	if c.u.tier != "" {
		head.field("service_tier", c.u.tier)
	}
	c.begin = head.b
	c.chunk(w)
	w.lit(`"role":"assistant","content":""`)
	c.close(w, "")
	return nil
}

// chunk begins a chunk with a delta.
func (c *chunks) chunk(w *writer) {
	w.b = append(w.b, c.begin...)
	w.b = append(w.b, `,"choices":[{"index":0,"delta":{`...)
}

// close ends it.
func (c *chunks) close(w *writer, finish string) {
	w.b = append(w.b, `},"logprobs":null,"finish_reason":`...)
	if finish == "" {
		w.b = append(w.b, "null"...)
	} else {
		w.b = append(append(append(w.b, '"'), finish...), '"')
	}
	w.b = append(w.b, '}', ']')
	if c.t.includeUsage {
		w.b = append(w.b, `,"usage":null`...)
	}
	w.b = append(w.b, "}\n\n"...)
}

func (c *chunks) find(root val) *openBlock {
	i, _ := root.get("index").integer()
	for n := range c.open {
		if c.open[n].index == i {
			return &c.open[n]
		}
	}
	return nil
}

const maxOpen = 256

func (c *chunks) blockStart(w *writer, root val) error {
	if c.find(root) != nil || len(c.open) >= maxOpen {
		return &Malformed{"index", "a block that has begun begins again"}
	}
	b := root.get("content_block")
	at := openBlock{}
	at.index, _ = root.get("index").integer()
	switch kind := string(b.get("type").text()); kind {
	case "text":
		at.kind = kind
		if text := b.get("text"); text.there() {
			c.text(w, "content", text)
		}
	case "thinking":
		at.kind = kind
		if text := b.get("thinking"); text.there() {
			at.thinking = append(at.thinking, text.inner()...)
			c.text(w, "reasoning_content", text)
		}
		if sign := b.get("signature"); sign.there() {
			at.sign = append(at.sign, sign.inner()...)
		}
	case "redacted_thinking":
		at.kind = kind
		if data := b.get("data"); data.there() {
			at.data = append(at.data, data.inner()...)
		}
	case "tool_use":
		id, name := b.get("id"), b.get("name")
		if !id.there() || !name.there() {
			return &Malformed{"content_block", "a tool call without id or name"}
		}
		at.kind, at.call = kind, int64(c.calls)
		c.calls++
		if input := b.get("input"); input.there() && !input.empty() {
			at.input = append(at.input, input.raw()...)
		}
		c.callStart(w, at.call, id, name)
	default:
		c.t.notes.add("content[].type", "a kind of block that OpenAI's dialect does not know: dropped")
	}
	c.open = append(c.open, at)
	return nil
}

func (c *chunks) callStart(w *writer, n int64, id, name val) {
	c.chunk(w)
	w.lit(`"tool_calls":[{"index":`)
	w.int(n)
	w.member("id", id)
	w.lit(`"type":"function","function":{`)
	w.member("name", name)
	w.lit(`"arguments":""}}]`)
	c.close(w, "")
}

// text writes a delta of one text; an empty one is none.
func (c *chunks) text(w *writer, name string, text val) {
	if text.empty() {
		return
	}
	c.chunk(w)
	w.member(name, text)
	c.close(w, "")
}

func (c *chunks) blockDelta(w *writer, root val) error {
	b, d := c.find(root), root.get("delta")
	if b == nil {
		return &Malformed{"index", "a delta of no open block"}
	}
	want := ""
	switch kind := string(d.get("type").text()); kind {
	case "text_delta":
		if want = "text"; b.kind == want {
			if text := d.get("text"); text.there() {
				c.text(w, "content", text)
			}
		}
	case "thinking_delta":
		if want = "thinking"; b.kind == want {
			if text := d.get("thinking"); text.there() {
				b.thinking = append(b.thinking, text.inner()...)
				c.text(w, "reasoning_content", text)
			}
		}
	case "signature_delta":
		if want = "thinking"; b.kind == want {
			if sign := d.get("signature"); sign.there() {
				b.sign = append(b.sign, sign.inner()...)
			}
		}
	case "input_json_delta":
		if want = "tool_use"; b.kind == want {
			if part := d.get("partial_json"); part.there() && !part.empty() {
				b.pieces = true
				c.arguments(w, b.call, part.inner())
			}
		}
	default: // a citation, or what this translation does not know
		c.t.notes.add("delta.type", "a kind of delta that OpenAI's dialect does not know: dropped")
		return nil
	}
	switch {
	case b.kind != want && b.kind != "":
		return &Malformed{"delta.type", "not of the block's type"}
	case len(b.thinking)+len(b.sign) > maxEvent:
		return &Malformed{"delta.thinking", "a block of thinking is too long"}
	}
	return nil
}

// arguments writes a piece of a call's arguments, escaped as inside of a string.
func (c *chunks) arguments(w *writer, n int64, part []byte) {
	c.chunk(w)
	w.lit(`"tool_calls":[{"index":`)
	w.int(n)
	w.lit(`"function":{"arguments":"`)
	w.b = append(w.b, part...)
	w.b = append(w.b, `"}}]`...)
	c.close(w, "")
}

func (c *chunks) blockStop(w *writer, root val) error {
	b := c.find(root)
	if b == nil {
		return &Malformed{"index", "the end of no open block"}
	}
	switch b.kind {
	case "tool_use":
		if !b.pieces {
			if b.input == nil {
				b.input = []byte("{}")
			}
			c.arguments(w, b.call, quote(nil, b.input))
		}
	case "thinking":
		c.chunk(w)
		w.lit(`"thinking_blocks":[{"type":"thinking","thinking":"`)
		w.b = append(w.b, b.thinking...)
		w.b = append(w.b, `","signature":"`...)
		w.b = append(w.b, b.sign...)
		w.b = append(w.b, `"}]`...)
		c.close(w, "")
	case "redacted_thinking":
		c.chunk(w)
		w.lit(`"thinking_blocks":[{"type":"redacted_thinking","data":"`)
		w.b = append(w.b, b.data...)
		w.b = append(w.b, `"}]`...)
		c.close(w, "")
	}
	last := len(c.open) - 1
	*b = c.open[last]
	c.open[last] = openBlock{}
	c.open = c.open[:last]
	return nil
}

// stop takes why the provider stopped, and what it counted.
func (c *chunks) stop(w *writer, root val) error {
	d := root.get("delta")
	c.u.anthropic(root.get("usage"))
	reason := d.get("stop_reason")
	if !reason.there() || c.finish != "" {
		return nil
	}
	if len(c.open) > 0 {
		return &Malformed{"delta.stop_reason", "the answer stops inside of a block"}
	}
	c.finish = finishReason(reason.text(), &c.t.notes)
	c.chunk(w)
	if why := d.get("stop_details").get("explanation"); why.there() && reason.is("refusal") {
		w.member("refusal", why)
	}
	c.close(w, c.finish)
	return nil
}

func (c *chunks) end(w *writer) bool {
	if c.finish == "" {
		return false
	}
	if c.t.includeUsage {
		c.u.known(&c.t.notes)
		w.b = append(w.b, c.begin...)
		w.b = append(w.b, `,"choices":[],"usage":`...)
		c.u.writeOpenAI(w)
		w.b = append(w.b, "}\n\n"...)
	}
	w.b = append(w.b, "data: [DONE]\n\n"...)
	return true
}
