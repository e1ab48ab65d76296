// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"net/http"

	"github.com/tidwall/gjson"
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

// modelWords are in what is said of a key that may not use a model.
var modelWords = [][]byte{[]byte("model")}

// invalidKey says whether an error is one of a refused key under a status that does
// not say so: Google answers 400 then. Its words are not looked at: errors repeat what
// agents wrote.
func invalidKey(body []byte) bool {
	for _, reason := range gjson.GetBytes(body, "error.details.#.reason").Array() {
		if reason.Str == "API_KEY_INVALID" {
			return true
		}
	}
	return false
}

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
