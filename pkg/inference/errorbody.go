// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"net/http"
)

// longWords and contentWords are what the errors of providers hold, in lower case,
// when a request is too long for a model, or when its content is refused. The codes
// are those of OpenAI and Azure ("context_length_exceeded", "content_filter",
// "content_policy_violation"); the words are Anthropic's, Gemini's, vLLM's, and
// Bedrock's.
var (
	longWords = [][]byte{
		[]byte("context_length_exceeded"), []byte("prompt is too long"), []byte("input is too long"),
		[]byte("maximum context length"), []byte("exceeds the maximum number of tokens"), []byte("exceed context limit"),
	}
	contentWords = [][]byte{
		[]byte("content_filter"), []byte("content_policy_violation"), []byte("responsibleaipolicyviolation"),
		[]byte("output blocked by content filtering policy"), []byte("prohibited_content"),
	}
)

// keyWords are those of a key that is refused under a status that does not say so:
// Google answers 400 then.
var keyWords = [][]byte{[]byte("api_key_invalid"), []byte("api key not valid"), []byte("api key expired")}

// tooLong says whether an error means that the request is too long for the model.
func tooLong(status int, body []byte) bool {
	return status == http.StatusRequestEntityTooLarge || status == http.StatusBadRequest && holdsWord(body, longWords)
}

// refusedContent says whether an error means that the content is refused.
func refusedContent(body []byte) bool { return holdsWord(body, contentWords) }

func holdsWord(body []byte, words [][]byte) bool {
	low := bytes.ToLower(body[:min(len(body), 8<<10)])
	for _, w := range words {
		if bytes.Contains(low, w) {
			return true
		}
	}
	return false
}
