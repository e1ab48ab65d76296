// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"bytes"
	"errors"
)

// conversation writes system and messages for Anthropic.
func (q *request) conversation() error {
	messages := q.root.get("messages")
	leading, count := 0, messages.count()
	for m := range messages.kids() {
		if !instructs(m) {
			break
		}
		leading++
	}
	if leading == count {
		return refuse("there is nothing but instructions: Anthropic wants a turn of the user", "messages")
	}
	q.instructions(messages, leading)
	w := &q.w
	w.key("messages")
	w.open('[')
	results := false // a user message with tool results is open
	i := -1
	for m := range messages.kids() {
		if i++; i < leading {
			continue
		}
		role := string(m.get("role").text())
		if results && role != "tool" && role != "user" {
			w.b = append(w.b, ']', '}')
			results = false
		}
		var err error
		switch role {
		case "user":
			err = q.userMessage(m, i, results)
			results = false
		case "tool":
			if !results {
				w.open('{')
				w.field("role", "user")
				w.key("content")
				w.open('[')
				results = true
			}
			q.toolResult(m)
		case "assistant":
			if i == count-1 {
				return refuse("a last message of the assistant would be continued by Anthropic, and answered by OpenAI", "messages[%d]", i)
			}
			err = q.assistantMessage(m, i)
		default:
			if !q.o.SystemInMessages {
				return refuse("instructions after the first turn: this model of Anthropic takes them at the start alone", "messages[%d].role", i)
			}
			w.open('{')
			w.field("role", "system")
			w.key("content")
			q.textOrParts(m.get("content"))
			w.close('}')
		}
		if err != nil {
			return err
		}
	}
	if results {
		w.b = append(w.b, ']', '}')
	}
	w.close(']')
	return nil
}

func instructs(m val) bool {
	role := m.get("role")
	return role.is("system") || role.is("developer")
}

// instructions writes the first messages as Anthropic's system prompt.
func (q *request) instructions(messages val, leading int) {
	if leading == 0 {
		return
	}
	w := &q.w
	w.key("system")
	if leading > 1 {
		w.open('[')
	}
	i := 0
	for m := range messages.kids() {
		if i++; i > leading {
			break
		}
		content := m.get("content")
		switch {
		case leading == 1:
			q.textOrParts(content)
		case content.kind() == kindString:
			q.textBlock(content)
		default:
			q.parts(content)
		}
	}
	if leading > 1 {
		w.close(']')
	}
}

// textOrParts writes content of text as it came: a string, or blocks.
func (q *request) textOrParts(content val) {
	if content.kind() == kindString {
		q.w.raw(content.raw())
		return
	}
	q.w.open('[')
	q.parts(content)
	q.w.close(']')
}

func (q *request) parts(content val) {
	for p := range content.kids() {
		q.textPart(p)
	}
}

func (q *request) textBlock(text val) {
	q.w.open('{')
	q.w.field("type", "text")
	q.w.member("text", text)
	q.w.close('}')
}

func (q *request) textPart(p val) {
	q.w.open('{')
	q.w.field("type", "text")
	q.w.member("text", p.get("text"))
	q.breakpoint(p)
	q.w.close('}')
}

// breakpoint writes the mark of a cached prefix.
func (q *request) breakpoint(p val) {
	if p.get("prompt_cache_breakpoint").there() {
		q.w.key("cache_control")
		q.w.lit(`{"type":"ephemeral"}`)
	}
}

// userMessage writes what the user says; inside the open message where tool
// results went before.
func (q *request) userMessage(m val, i int, open bool) error {
	w := &q.w
	if !open {
		w.open('{')
		w.field("role", "user")
		w.key("content")
	}
	content := m.get("content")
	if content.kind() == kindString {
		if !open {
			w.raw(content.raw())
			w.close('}')
			return nil
		}
		q.textBlock(content)
	} else {
		if !open {
			w.open('[')
		}
		j := 0
		for p := range content.kids() {
			if err := q.userPart(p); err != nil {
				return refuse(err.Error(), "messages[%d].content[%d]", i, j)
			}
			j++
		}
	}
	w.b = append(w.b, ']', '}')
	return nil
}

func (q *request) userPart(p val) error {
	w := &q.w
	switch string(p.get("type").text()) {
	case "image_url":
		w.open('{')
		w.field("type", "image")
		w.key("source")
		if err := q.imageSource(p.get("image_url").get("url")); err != nil {
			return err
		}
	case "file":
		file := p.get("file")
		w.open('{')
		w.field("type", "document")
		w.key("source")
		media, data, ok := dataURL(file.get("file_data"))
		if !ok || media != "application/pdf" {
			return errors.New("file_data has to be a data URL of a base64 PDF: Anthropic takes no other files")
		}
		q.base64Source(media, data)
		w.member("title", file.get("filename"))
	default:
		q.textPart(p)
		return nil
	}
	q.breakpoint(p)
	w.close('}')
	return nil
}

func (q *request) imageSource(url val) error {
	media, data, ok := dataURL(url)
	if ok {
		switch media {
		case "image/jpeg", "image/png", "image/gif", "image/webp":
			q.base64Source(media, data)
			return nil
		}
		return errors.New("the image is none of JPEG, PNG, GIF and WebP, which Anthropic takes")
	}
	if !webURL(url.text()) {
		return errors.New("the image's url is neither http, https nor a data URL of base64")
	}
	q.w.open('{')
	q.w.field("type", "url")
	q.w.member("url", url)
	q.w.close('}')
	return nil
}

func (q *request) base64Source(media string, data []byte) {
	w := &q.w
	w.open('{')
	w.field("type", "base64")
	w.field("media_type", media)
	w.key("data")
	w.b = append(w.b, '"')
	w.b = append(w.b, data...)
	w.b = append(w.b, '"', '}')
}

func webURL(s []byte) bool {
	n := bytes.IndexByte(s, ':')
	return n > 0 && (bytes.EqualFold(s[:n], []byte("https")) || bytes.EqualFold(s[:n], []byte("http")))
}

// dataURL takes a data URL of base64 apart. The data has letters of base64
// alone, so it needs no escapes.
func dataURL(v val) (media string, data []byte, ok bool) {
	if !v.there() {
		return "", nil, false
	}
	rest, ok := bytes.CutPrefix(v.text(), []byte("data:"))
	if !ok {
		return "", nil, false
	}
	head, data, ok := bytes.Cut(rest, []byte(","))
	head, ok2 := bytes.CutSuffix(head, []byte(";base64"))
	return string(head), data, ok && ok2 && base64Text(data)
}

func base64Text(data []byte) bool {
	for _, c := range data {
		if !(c == '+' || c == '/' || c == '=' || c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			return false
		}
	}
	return len(data) > 0
}

func (q *request) toolResult(m val) {
	w := &q.w
	w.open('{')
	w.field("type", "tool_result")
	q.callID(m.get("tool_call_id"), "tool_use_id")
	w.key("content")
	q.textOrParts(m.get("content"))
	w.close('}')
}

// assistantMessage writes an earlier answer: thinking, text, calls.
func (q *request) assistantMessage(m val, i int) error {
	w := &q.w
	content, calls := m.get("content"), m.get("tool_calls")
	blocks, refusal := m.get("thinking_blocks"), m.get("refusal")
	before := len(w.b)
	w.open('{')
	w.field("role", "assistant")
	w.key("content")
	if content.kind() == kindString && !content.empty() && !calls.there() && !blocks.there() && !refusal.there() {
		w.raw(content.raw())
		w.close('}')
		return nil
	}
	w.open('[')
	start := len(w.b)
	for b := range blocks.kids() {
		w.open('{')
		w.member("type", b.get("type"))
		w.member("thinking", b.get("thinking"))
		w.member("signature", b.get("signature"))
		w.member("data", b.get("data"))
		w.close('}')
	}
	if content.kind() == kindString && !content.empty() {
		q.textBlock(content)
	}
	for p := range content.kids() {
		if text := p.get("refusal"); text.there() {
			q.textBlock(text)
		} else if !p.get("text").empty() {
			q.textPart(p)
		}
	}
	if refusal.there() {
		q.textBlock(refusal)
	}
	j := 0
	for call := range calls.kids() {
		if err := q.toolUse(call); err != nil {
			return refuse(err.Error(), "messages[%d].tool_calls[%d].function.arguments", i, j)
		}
		j++
	}
	if len(w.b) == start {
		w.b = w.b[:before]
		q.t.notes.add("messages[]<assistant>", "a message without content is left out: Anthropic refuses it")
		return nil
	}
	w.b = append(w.b, ']', '}')
	return nil
}

func (q *request) toolUse(call val) error {
	f := call.get("function")
	w := &q.w
	w.open('{')
	w.field("type", "tool_use")
	q.callID(call.get("id"), "id")
	w.member("name", f.get("name"))
	w.key("input")
	input, err := object(f.get("arguments").text())
	if err != nil {
		return err
	}
	w.raw(input)
	w.close('}')
	return nil
}

// object is the JSON object that a string of arguments holds. The model wrote
// it: a key that is there twice is the tool's affair.
func object(text []byte) ([]byte, error) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return []byte("{}"), nil
	}
	d := document{twins: true}
	root, err := d.parse(text)
	switch {
	case err != nil:
		return nil, errors.New("no JSON: " + err.Error())
	case root.kind() != kindObject:
		return nil, errors.New("no JSON object, which Anthropic's tools take")
	}
	return text, nil
}
