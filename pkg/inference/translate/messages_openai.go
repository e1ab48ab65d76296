// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"errors"
)

// chat writes messages for OpenAI.
func (q *request) chat() error {
	w := &q.w
	w.key("messages")
	w.open('[')
	if system := q.root.get("system"); system.there() && !system.empty() {
		q.simple("system", system)
	}
	messages := q.root.get("messages")
	i, last := 0, messages.count()-1
	for m := range messages.kids() {
		content := m.get("content")
		var err error
		switch role := string(m.get("role").text()); role {
		case "user":
			err = q.user(content, i)
		case "assistant":
			if i == last {
				return refuse("a beginning of the answer, which OpenAI would not continue", "messages[%d]", i)
			}
			err = q.assistant(content, i)
		default:
			q.simple(role, content)
		}
		if err != nil {
			return err
		}
		i++
	}
	w.close(']')
	return nil
}

// simple writes a message of text alone.
func (q *request) simple(role string, content val) {
	w := &q.w
	w.open('{')
	w.field("role", role)
	w.key("content")
	q.textContent(content, "")
	w.close('}')
}

// textContent writes a string, or blocks of text, as OpenAI takes them; before
// is put in front of the first text.
func (q *request) textContent(content val, before string) {
	w := &q.w
	if content.kind() != kindArray {
		w.comma()
		w.b = append(w.b, '"')
		w.b = append(w.b, before...)
		if content.there() {
			w.b = append(w.b, content.inner()...)
		}
		w.b = append(w.b, '"')
		return
	}
	w.open('[')
	for b := range content.kids() {
		q.part(b.get("text"), before)
		before = ""
	}
	if before != "" {
		w.open('{')
		w.field("type", "text")
		w.field("text", before)
		w.close('}')
	}
	w.close(']')
}

func (q *request) part(text val, before string) {
	w := &q.w
	w.open('{')
	w.field("type", "text")
	w.key("text")
	w.b = append(w.b, '"')
	w.b = append(w.b, before...)
	w.b = append(w.b, text.inner()...)
	w.b = append(w.b, '"', '}')
}

// user writes the tool results of a message, then what else it holds.
func (q *request) user(content val, i int) error {
	w := &q.w
	results, others := 0, 0
	for b := range content.kids() {
		if !b.get("type").is("tool_result") {
			others++
			continue
		}
		if results++; others > 0 {
			q.t.notes.add("messages[]<user>.content[]<tool_result>", "moved before the message's other blocks: OpenAI wants results right after the calls")
		}
		w.open('{')
		w.field("role", "tool")
		w.member("tool_call_id", b.get("tool_use_id"))
		w.key("content")
		before := ""
		if b.get("is_error").truth() {
			before = "[error] "
		}
		q.textContent(b.get("content"), before)
		w.close('}')
	}
	if results > 0 && others == 0 {
		return nil
	}
	w.open('{')
	w.field("role", "user")
	w.key("content")
	if content.kind() == kindString {
		w.raw(content.raw())
	} else {
		w.open('[')
		j := 0
		for b := range content.kids() {
			if err := q.block(b); err != nil {
				return refuse(err.Error(), "messages[%d].content[%d].source", i, j)
			}
			j++
		}
		w.close(']')
	}
	w.close('}')
	return nil
}

// block writes a block of a user, but for tool results.
func (q *request) block(b val) error {
	w := &q.w
	source := b.get("source")
	switch string(b.get("type").text()) {
	case "text":
		q.part(b.get("text"), "")
	case "image":
		w.lit(`{"type":"image_url","image_url":{"url":`)
		if url := source.get("url"); url.there() {
			if !webURL(url.text()) {
				return errors.New("the url is neither http nor https")
			}
			w.raw(url.raw())
		} else if err := q.dataURL(source, "image/jpeg", "image/png", "image/gif", "image/webp"); err != nil {
			return err
		}
		w.b = append(w.b, '}', '}')
	case "document":
		w.lit(`{"type":"file","file":{"file_data":`)
		if err := q.dataURL(source, "application/pdf"); err != nil {
			return err
		}
		if title := b.get("title"); title.there() {
			w.member("filename", title)
		} else {
			w.field("filename", "document.pdf")
		}
		w.b = append(w.b, '}', '}')
	}
	return nil
}

func (q *request) dataURL(source val, types ...string) error {
	media, data := string(source.get("media_type").text()), source.get("data").text()
	if !base64Text(data) {
		return errors.New("the data is no base64")
	}
	for _, t := range types {
		if t == media {
			w := &q.w
			w.comma()
			w.b = append(w.b, `"data:`...)
			w.b = append(w.b, media...)
			w.b = append(w.b, ";base64,"...)
			w.b = append(w.b, data...)
			w.b = append(w.b, '"')
			return nil
		}
	}
	return errors.New("no media type that OpenAI takes")
}

// assistant writes an earlier answer.
func (q *request) assistant(content val, i int) error {
	w := &q.w
	w.open('{')
	w.field("role", "assistant")
	if content.kind() == kindString {
		w.member("content", content)
		w.close('}')
		return nil
	}
	texts, calls := 0, 0
	var text val
	for b := range content.kids() {
		switch string(b.get("type").text()) {
		case "text":
			if texts++; calls > 0 {
				q.t.notes.add("messages[]<assistant>.content[]<text>", "moved before the tool calls: OpenAI's messages have them last")
			}
			text = b.get("text")
		case "tool_use":
			calls++
		}
	}
	w.key("content")
	switch texts {
	case 0:
		w.lit("null")
	case 1:
		w.raw(text.raw())
	default:
		w.open('[')
		for b := range content.kids() {
			if text := b.get("text"); text.there() {
				q.part(text, "")
			}
		}
		w.close(']')
	}
	if err := q.thinking(content, i); err != nil {
		return err
	}
	if calls > 0 {
		w.key("tool_calls")
		w.open('[')
		for b := range content.kids() {
			if b.get("type").is("tool_use") {
				q.call(b.get("id"), b.get("name"), b.get("input"))
			}
		}
		w.close(']')
	}
	w.close('}')
	return nil
}

// call writes a tool call with its input as a string.
func (q *request) call(id, name, input val) {
	w := &q.w
	w.open('{')
	w.member("id", id)
	w.field("type", "function")
	w.key("function")
	w.open('{')
	w.member("name", name)
	w.key("arguments")
	w.b = append(w.b, '"')
	w.b = quote(w.b, input.raw())
	w.b = append(w.b, '"', '}', '}')
}

// thinking does with the thinking of an earlier answer what the options say.
func (q *request) thinking(content val, i int) error {
	w := &q.w
	ours, signed, j := 0, 0, 0
	for b := range content.kids() {
		switch string(b.get("type").text()) {
		case "thinking", "redacted_thinking":
			if b.get("signature").is(UnsignedReasoning) {
				ours++
			} else if signed++; q.o.Reasoning == ReasoningRefused {
				return refuse("Anthropic signed it, and this provider cannot keep the signature; send the conversation to Anthropic, or leave thinking out",
					"messages[%d].content[%d]", i, j)
			}
		}
		j++
	}
	if ours+signed == 0 {
		return nil
	}
	if q.o.Reasoning < ReasoningText {
		q.t.notes.add("messages[]<assistant>.content[]<thinking>", "reasoning of an earlier turn is not sent to this provider")
		return nil
	}
	w.key("reasoning_content")
	w.b = append(w.b, '"')
	for b := range content.kids() {
		if text := b.get("thinking"); text.there() {
			w.b = append(w.b, text.inner()...)
		}
	}
	w.b = append(w.b, '"')
	if q.o.Reasoning == ReasoningText {
		if signed > 0 {
			q.t.notes.add("messages[]<assistant>.content[]<thinking>.signature", "this provider takes the text of reasoning alone")
		}
		return nil
	}
	w.key("thinking_blocks")
	w.open('[')
	for b := range content.kids() {
		switch string(b.get("type").text()) {
		case "thinking", "redacted_thinking":
			w.open('{')
			w.member("type", b.get("type"))
			w.member("thinking", b.get("thinking"))
			w.member("signature", b.get("signature"))
			w.member("data", b.get("data"))
			w.close('}')
		}
	}
	w.close(']')
	return nil
}
