// SPDX-License-Identifier: Apache-2.0

// Package translate carries model calls between the OpenAI chat completions
// dialect and the Anthropic messages dialect: requests, answers, streams and
// errors, in both directions. It does no I/O and keeps no state but that of one
// call.
//
// What becomes of each field is data: the tables in fields_*.go, which FIELDS.md
// shows. The code reads them: a field that no table has, or of another type than
// the table says, refuses a request by its name; in an answer it is dropped with
// a note. A test compares the tables with the types of the official SDKs.
//
// Reasoning. Anthropic's signed thinking goes to an OpenAI client as
// reasoning_content (its text) and as thinking_blocks, a list of the blocks as
// they were. A client that sends thinking_blocks back with its assistant message
// gives Anthropic the blocks unchanged; reasoning_content alone has no signature
// and is left out with a note. The other way, reasoning_content of a provider
// becomes a thinking block whose signature is UnsignedReasoning, and is known by
// it when it comes back.
package translate

import "fmt"

// Dialect is a wire format. The zero value is none.
type Dialect uint8

const (
	OpenAIChat        Dialect = iota + 1 // POST /v1/chat/completions
	AnthropicMessages                    // POST /v1/messages
)

func (d Dialect) String() string {
	switch d {
	case OpenAIChat:
		return "OpenAI chat completions"
	case AnthropicMessages:
		return "Anthropic messages"
	}
	return "no dialect"
}

// UnsignedReasoning is the signature of thinking blocks that were made of an
// OpenAI-compatible provider's reasoning_content. Anthropic does not take it.
const UnsignedReasoning = "unsigned:reasoning_content"

// Reasoning is what an OpenAI-dialect provider gets of reasoning that Anthropic
// signed in earlier turns.
type Reasoning uint8

const (
	ReasoningRefused Reasoning = iota // the request is refused
	ReasoningDropped                  // left out, with a note
	ReasoningText                     // reasoning_content of the assistant's message, signatures left out with a note
	ReasoningBlocks                   // reasoning_content and thinking_blocks: nothing is lost
)

// RequestOptions is what a request cannot say of the provider it goes to.
type RequestOptions struct {
	Model            string // the name to send upstream; "": the request's own
	DefaultMaxTokens int64  // max_tokens for Anthropic where the client gives none; 0: such a request is refused
	Created          int64  // the time that OpenAI's answers tell, in seconds since 1970

	// SystemInMessages: the Anthropic model takes messages of role system after
	// the first turn. Without it later instructions are refused.
	SystemInMessages bool
	// MaxTokensOnly: the OpenAI-compatible provider knows max_tokens and not
	// max_completion_tokens.
	MaxTokensOnly bool
	// Reasoning: see there. ReasoningText and ReasoningBlocks are for providers
	// that take fields OpenAI does not have.
	Reasoning Reasoning
}

// Refusal is a request that is not translated.
type Refusal struct {
	Field string // as the client wrote it, such as messages[2].content[0].type; "" is the whole body
	Why   string
}

func (r *Refusal) Error() string {
	if r.Field == "" {
		return "the request cannot be translated: " + r.Why
	}
	return fmt.Sprintf("%s: %s", r.Field, r.Why)
}

// Malformed is an answer that is not of the provider's dialect.
type Malformed struct {
	Field string
	Why   string
}

func (m *Malformed) Error() string {
	if m.Field == "" {
		return "the provider's answer cannot be translated: " + m.Why
	}
	return fmt.Sprintf("the provider's answer: %s: %s", m.Field, m.Why)
}

// malformed is the answer's form of what the checker found.
func malformed(err error) error {
	switch e := err.(type) {
	case *Refusal:
		return &Malformed{e.Field, e.Why}
	case *syntaxError:
		return &Malformed{"", "no JSON: " + e.Error()}
	}
	return err
}

// Translated is one call. Its methods are for one goroutine at a time.
type Translated struct {
	Body  []byte // the request in the provider's dialect
	Model string // the name that the client asked for; its answers tell it
	// Streaming: the client asked for a stream.
	Streaming bool

	from, to     Dialect // the client's and the provider's
	includeUsage bool    // the client of a chat completions stream wants the usage chunk
	created      int64
	notes        notes
}

// Notes says what was not carried as it was, of the request and of what was
// translated of the answer so far. At most 65.
func (t *Translated) Notes() []Note { return t.notes.list }

// Request translates the body of a request of dialect from to dialect to. The
// error is a *Refusal, or says that there is no such translation. The body is
// not kept.
func Request(from, to Dialect, body []byte, o RequestOptions) (*Translated, error) {
	table := openAIRequest
	switch {
	case from == OpenAIChat && to == AnthropicMessages:
	case from == AnthropicMessages && to == OpenAIChat:
		table = anthropicRequest
	default:
		return nil, fmt.Errorf("there is no translation from %s to %s", from, to)
	}
	t := &Translated{from: from, to: to, created: o.Created}
	var d document
	root, err := d.parse(body)
	if err != nil {
		return nil, &Refusal{"", "no JSON: " + err.Error()}
	}
	c := checker{strict: true, notes: &t.notes, path: make([]step, 0, 16)}
	if root.kind() != kindObject {
		return nil, &Refusal{"", "it has to be a JSON object"}
	}
	if err := c.field(root, table.root); err != nil {
		return nil, err
	}
	t.Model, t.Streaming = string(root.get("model").text()), root.get("stream").truth()
	q := request{t: t, o: o, root: root, w: writer{b: make([]byte, 0, len(body)+len(body)/4+128)}}
	if to == AnthropicMessages {
		err = q.toAnthropic()
	} else {
		err = q.toOpenAI()
	}
	if err != nil {
		return nil, err
	}
	t.Body = q.w.b
	return t, nil
}

// request is one translation of a request.
type request struct {
	t    *Translated
	o    RequestOptions
	root val
	w    writer
}

// refuse is a refusal of a field that the format names.
func refuse(why, format string, at ...any) error {
	return &Refusal{fmt.Sprintf(format, at...), why}
}

// model writes the name to send upstream.
func (q *request) model() {
	q.w.key("model")
	if q.o.Model != "" {
		q.w.str(q.o.Model)
		return
	}
	q.w.raw(q.root.get("model").raw())
}

// Response translates the provider's whole answer to a call that is no stream.
// The error is a *Malformed.
func (t *Translated) Response(body []byte) ([]byte, error) {
	table, write := anthropicAnswer, (*Translated).toCompletion
	if t.to == OpenAIChat {
		table, write = openAIAnswer, (*Translated).toMessage
	}
	var d document
	root, err := d.parse(body)
	if err != nil {
		return nil, malformed(err)
	}
	if root.kind() != kindObject {
		return nil, &Malformed{"", "no JSON object"}
	}
	c := checker{notes: &t.notes}
	if err := c.field(root, table.root); err != nil {
		return nil, malformed(err)
	}
	w := writer{b: make([]byte, 0, len(body)+256)}
	if err := write(t, &w, root); err != nil {
		return nil, err
	}
	return w.b, nil
}
