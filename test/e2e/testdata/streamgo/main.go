// SPDX-License-Identifier: Apache-2.0

// Command streamgo prints the words of a streamed answer as they come, through
// the official libraries.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/openai/openai-go/v3"
)

func main() {
	var err error
	if len(os.Args) > 1 && os.Args[1] == "anthropic" {
		err = messages(context.Background())
	} else {
		err = chat(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func chat(ctx context.Context) error {
	c := openai.NewClient()
	s := c.Chat.Completions.NewStreaming(ctx, openai.ChatCompletionNewParams{Model: "m", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hi")}})
	for s.Next() {
		if ch := s.Current().Choices; len(ch) > 0 {
			fmt.Println(ch[0].Delta.Content)
		}
	}
	return s.Err()
}

func messages(ctx context.Context) error {
	c := anthropic.NewClient()
	s := c.Messages.NewStreaming(ctx, anthropic.MessageNewParams{Model: "m", MaxTokens: 9,
		Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("hi"))}})
	for s.Next() {
		if e := s.Current(); e.Type == "content_block_delta" {
			fmt.Println(e.Delta.Text)
		}
	}
	return s.Err()
}
