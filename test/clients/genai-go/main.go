// SPDX-License-Identifier: Apache-2.0

// Command genai-go is an agent's model call through the official library
// google.golang.org/genai, with nothing configured but the key in GEMINI_API_KEY:
// no base URL, no proxy. It prints one JSON object and exits 1 when the call failed.
//
//	genai-go MODEL generate|generate-stream [PROMPT]
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

	"google.golang.org/genai"
)

// result is what every client program of this folder prints.
type result struct {
	OK        bool   `json:"ok"`
	Text      string `json:"text"`
	Model     string `json:"model"`
	TokensIn  int32  `json:"tokens_in"`
	TokensOut int32  `json:"tokens_out"`
	Chunks    int    `json:"chunks"`
	Sent      string `json:"sent_sha256"` // of the request body on the wire
	Status    int    `json:"status,omitempty"`
	Code      string `json:"code,omitempty"`
	Error     string `json:"error,omitempty"`
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: genai-go MODEL generate|generate-stream [PROMPT]")
		os.Exit(2)
	}
	prompt := "Say hello. <é> \u2028"
	if len(os.Args) > 3 {
		prompt = os.Args[3]
	}
	var r result
	err := call(context.Background(), os.Args[1], os.Args[2], prompt, &r)
	r.OK = err == nil
	if err != nil {
		r.Error = err.Error()
		var e genai.APIError
		if errors.As(err, &e) {
			r.Status, r.Error = e.Code, e.Message
			for _, d := range e.Details {
				if m, ok := d["metadata"].(map[string]any); ok {
					r.Code, _ = m["code"].(string)
				}
			}
		}
	}
	_ = json.NewEncoder(os.Stdout).Encode(r)
	if !r.OK {
		os.Exit(1)
	}
}

// RoundTrip notes the body that really goes out.
func (r *result) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(b)
		r.Sent = hex.EncodeToString(sum[:])
		req.Body = io.NopCloser(bytes.NewReader(b))
	}
	return http.DefaultTransport.RoundTrip(req)
}

func (r *result) take(a *genai.GenerateContentResponse) {
	r.Text += a.Text()
	r.Model = a.ModelVersion
	if u := a.UsageMetadata; u != nil {
		r.TokensIn, r.TokensOut = u.PromptTokenCount, u.CandidatesTokenCount
	}
}

func call(ctx context.Context, model, mode, prompt string, r *result) error {
	c, err := genai.NewClient(ctx, &genai.ClientConfig{HTTPClient: &http.Client{Transport: r}})
	if err != nil {
		return err
	}
	switch mode {
	case "generate":
		a, err := c.Models.GenerateContent(ctx, model, genai.Text(prompt), nil)
		if err != nil {
			return err
		}
		r.take(a)
		return nil
	case "generate-stream":
		for a, err := range c.Models.GenerateContentStream(ctx, model, genai.Text(prompt), nil) {
			if err != nil {
				return err
			}
			r.Chunks++
			r.take(a)
		}
		return nil
	}
	return fmt.Errorf("unknown mode %q", mode)
}
