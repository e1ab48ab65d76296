// SPDX-License-Identifier: Apache-2.0

// Command openai-go is an agent's model call through the official openai-go
// library, with nothing configured but the key in OPENAI_API_KEY: no base URL,
// no proxy. It prints one JSON object and exits 1 when the call failed.
//
//	openai-go MODEL chat|chat-stream|responses|responses-stream [PROMPT]
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
)

// result is what every client program of this folder prints.
type result struct {
	OK        bool   `json:"ok"`
	Text      string `json:"text"`
	Model     string `json:"model"`
	TokensIn  int64  `json:"tokens_in"`
	TokensOut int64  `json:"tokens_out"`
	Chunks    int    `json:"chunks"`
	Sent      string `json:"sent_sha256"` // of the request body on the wire
	Status    int    `json:"status,omitempty"`
	Code      string `json:"code,omitempty"`
	Error     string `json:"error,omitempty"`
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: openai-go MODEL chat|chat-stream|responses|responses-stream [PROMPT]")
		os.Exit(2)
	}
	prompt := "Say hello. <é> \u2028"
	if len(os.Args) > 3 {
		prompt = os.Args[3]
	}
	var r result
	client := openai.NewClient(option.WithMiddleware(r.digest))
	err := call(context.Background(), client, os.Args[1], os.Args[2], prompt, &r)
	r.OK = err == nil
	if err != nil {
		r.Error = err.Error()
		var e *openai.Error
		if errors.As(err, &e) {
			r.Status, r.Code, r.Error = e.StatusCode, e.Code, e.Message
		}
	}
	_ = json.NewEncoder(os.Stdout).Encode(r)
	if !r.OK {
		os.Exit(1)
	}
}

// digest notes the body that really goes out.
func (r *result) digest(req *http.Request, next option.MiddlewareNext) (*http.Response, error) {
	if req.Body != nil {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(b)
		r.Sent = hex.EncodeToString(sum[:])
		req.Body = io.NopCloser(bytes.NewReader(b))
	}
	return next(req)
}

func call(ctx context.Context, c openai.Client, model, mode, prompt string, r *result) error {
	chat := openai.ChatCompletionNewParams{Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompt)}}
	resp := responses.ResponseNewParams{Model: model, Input: responses.ResponseNewParamsInputUnion{OfString: openai.String(prompt)}}
	switch mode {
	case "chat":
		a, err := c.Chat.Completions.New(ctx, chat)
		if err != nil {
			return err
		}
		r.Text, r.Model, r.TokensIn, r.TokensOut = a.Choices[0].Message.Content, a.Model, a.Usage.PromptTokens, a.Usage.CompletionTokens
		return nil
	case "chat-stream":
		chat.StreamOptions.IncludeUsage = openai.Bool(true)
		s := c.Chat.Completions.NewStreaming(ctx, chat)
		var acc openai.ChatCompletionAccumulator
		for s.Next() {
			acc.AddChunk(s.Current())
			r.Chunks++
		}
		if s.Err() != nil {
			return s.Err()
		}
		r.Text, r.Model, r.TokensIn, r.TokensOut = acc.Choices[0].Message.Content, acc.Model, acc.Usage.PromptTokens, acc.Usage.CompletionTokens
		return nil
	case "responses":
		a, err := c.Responses.New(ctx, resp)
		if err != nil {
			return err
		}
		r.Text, r.Model, r.TokensIn, r.TokensOut = a.OutputText(), a.Model, a.Usage.InputTokens, a.Usage.OutputTokens
		return nil
	case "responses-stream":
		return responsesStream(c.Responses.NewStreaming(ctx, resp), r)
	}
	return fmt.Errorf("unknown mode %q", mode)
}

// stream is what this program uses of the library's stream.
type stream interface {
	Next() bool
	Current() responses.ResponseStreamEventUnion
	Err() error
}

func responsesStream(s stream, r *result) error {
	var text strings.Builder
	for s.Next() {
		r.Chunks++
		switch e := s.Current().AsAny().(type) {
		case responses.ResponseTextDeltaEvent:
			text.WriteString(e.Delta)
		case responses.ResponseCompletedEvent:
			r.Model, r.TokensIn, r.TokensOut = e.Response.Model, e.Response.Usage.InputTokens, e.Response.Usage.OutputTokens
		}
	}
	r.Text = text.String()
	return s.Err()
}
