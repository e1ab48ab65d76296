// SPDX-License-Identifier: Apache-2.0

// Command anthropic-go is an agent's model call through the official
// anthropic-sdk-go library, with nothing configured but the key in
// ANTHROPIC_API_KEY: no base URL, no proxy. It prints one JSON object and
// exits 1 when the call failed.
//
//	anthropic-go MODEL messages|messages-stream [PROMPT]
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

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
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
		fmt.Fprintln(os.Stderr, "usage: anthropic-go MODEL messages|messages-stream [PROMPT]")
		os.Exit(2)
	}
	prompt := "Say hello. <é> \u2028"
	if len(os.Args) > 3 {
		prompt = os.Args[3]
	}
	var r result
	client := anthropic.NewClient(option.WithMiddleware(r.digest))
	err := call(context.Background(), client, os.Args[1], os.Args[2], prompt, &r)
	r.OK = err == nil
	if err != nil {
		r.fail(err)
	}
	_ = json.NewEncoder(os.Stdout).Encode(r)
	if !r.OK {
		os.Exit(1)
	}
}

func (r *result) fail(err error) {
	r.Error = err.Error()
	var e *anthropic.Error
	if !errors.As(err, &e) {
		return
	}
	r.Status = e.StatusCode
	var body struct {
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	if json.Unmarshal([]byte(e.RawJSON()), &body) == nil {
		r.Code = body.Error.Code
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

func call(ctx context.Context, c anthropic.Client, model, mode, prompt string, r *result) error {
	p := anthropic.MessageNewParams{Model: anthropic.Model(model), MaxTokens: 256,
		Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(prompt))}}
	var m anthropic.Message
	switch mode {
	case "messages":
		a, err := c.Messages.New(ctx, p)
		if err != nil {
			return err
		}
		m = *a
	case "messages-stream":
		s := c.Messages.NewStreaming(ctx, p)
		for s.Next() {
			r.Chunks++
			if err := m.Accumulate(s.Current()); err != nil {
				return err
			}
		}
		if s.Err() != nil {
			return s.Err()
		}
	default:
		return fmt.Errorf("unknown mode %q", mode)
	}
	for _, b := range m.Content {
		r.Text += b.Text
	}
	u := m.Usage
	r.Model, r.TokensIn, r.TokensOut = string(m.Model), u.InputTokens+u.CacheCreationInputTokens+u.CacheReadInputTokens, u.OutputTokens
	return nil
}
