// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	openaioption "github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"

	"github.com/ringfence/ringfence/pkg/inference"
)

// TestModelFaultsThroughSDKs makes calls of the matrix with the official libraries,
// without their retries: what fails is an error of the API to them, not one of the
// network or of reading.
func TestModelFaultsThroughSDKs(t *testing.T) {
	m := newFaultMatrix(t)
	for i := range modelFaults {
		f := &modelFaults[i]
		if !slices.Contains([]string{"none", "refuses", "hangs-before-the-head", "resets-inside", "half-an-event", "half-a-json", "ends-too-early",
			"wrong-type", "error-under-200", "error-event-inside", "redirects", "gzip", "br", "goaway-and-gone"}, f.name) {
			continue
		}
		for _, stream := range []bool{false, true} {
			for _, two := range []bool{false, true} {
				for _, h2 := range []bool{false, true} {
					c := cell{f: f, dialect: "openai", stream: stream, two: two, h2: h2}
					t.Run(f.name+"/"+c.name(), func(t *testing.T) { m.throughOpenAI(t, c) })
					c.dialect = "anthropic"
					t.Run(f.name+"/"+c.name(), func(t *testing.T) { m.throughAnthropic(t, c) })
				}
			}
		}
	}
}

// fresh has the next call answered as the first one.
func (m *faultMatrix) fresh(c cell) chan struct{} {
	seen := make(chan struct{})
	m.seen.Store(&seen)
	m.stream.Store(c.stream)
	m.now.Store(inference.New(inference.Options{}))
	return seen
}

func (m *faultMatrix) throughOpenAI(t *testing.T, c cell) {
	want, _ := c.expected()
	seen := m.fresh(c)
	client := openai.NewClient(openaioption.WithHTTPClient(m.client[c.h2]), openaioption.WithAPIKey("placeholder"), openaioption.WithMaxRetries(0),
		openaioption.WithBaseURL("https://api.openai.com/v1/"))
	p := openai.ChatCompletionNewParams{Model: c.model(), Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hi")}}
	var text string
	var err error
	if c.stream {
		s := client.Chat.Completions.NewStreaming(context.Background(), p)
		for s.Next() {
			for _, choice := range s.Current().Choices {
				text += choice.Delta.Content
			}
			seen = tell(seen, text)
		}
		err = s.Err()
	} else if a, e := client.Chat.Completions.New(context.Background(), p); e != nil {
		err = e
	} else {
		text = a.Choices[0].Message.Content
	}
	var api *openai.Error
	var inStream *ssestream.StreamError
	c.checkSDK(t, want, text, err, func() int {
		switch {
		case errors.As(err, &api) && api.Message != "":
			return api.StatusCode
		case errors.As(err, &inStream):
			return 200
		}
		return 0
	})
}

func (m *faultMatrix) throughAnthropic(t *testing.T, c cell) {
	want, _ := c.expected()
	seen := m.fresh(c)
	client := anthropic.NewClient(anthropicoption.WithHTTPClient(m.client[c.h2]), anthropicoption.WithAPIKey("placeholder"), anthropicoption.WithMaxRetries(0),
		anthropicoption.WithBaseURL("https://api.anthropic.com/"))
	p := anthropic.MessageNewParams{Model: anthropic.Model(c.model()), MaxTokens: 64,
		Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("hi"))}}
	var msg anthropic.Message
	var err error
	if c.stream {
		s := client.Messages.NewStreaming(context.Background(), p)
		for s.Next() {
			if e := msg.Accumulate(s.Current()); e != nil {
				t.Errorf("an event that the library cannot use: %v", e)
			}
			if len(msg.Content) > 0 {
				seen = tell(seen, msg.Content[0].Text)
			}
		}
		err = s.Err()
	} else if a, e := client.Messages.New(context.Background(), p); e != nil {
		err = e
	} else {
		msg = *a
	}
	text := ""
	for _, b := range msg.Content {
		text += b.Text
	}
	var api *anthropic.Error
	c.checkSDK(t, want, text, err, func() int {
		if errors.As(err, &api) && strings.Contains(api.RawJSON(), `"message"`) {
			return api.StatusCode
		}
		return 0
	})
}

// tell says once that the stream has said something.
func tell(seen chan struct{}, text string) chan struct{} {
	if seen != nil && strings.Contains(text, "first") {
		close(seen)
		return nil
	}
	return seen
}

// checkSDK compares; status is that of the API's error, 0 when it is none.
func (c cell) checkSDK(t *testing.T, want end, text string, err error, status func() int) {
	t.Helper()
	switch {
	case want.how == "whole" && (err != nil || !strings.Contains(text, "of them speaks here")):
		t.Errorf("%q, %v", text, err)
	case want.how != "whole" && (err == nil || status() != want.status):
		t.Errorf("status %d, want %d of an error of the API: %T %v", status(), want.status, err, err)
	case want.how == "cut" && !strings.Contains(text, "first of"):
		t.Errorf("what came before the error is lost: %q", text)
	}
}
