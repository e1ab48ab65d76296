// SPDX-License-Identifier: Apache-2.0

package doubles

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
)

// call is what a request asks for on a platform.
type call struct {
	shape  func(a answer) []string
	model  string // "" = the body's
	stream bool
	asked  bool // stream says so, whatever the body says
	frames bool // the events come in Amazon's binary frames
}

// platformCall knows the paths of Azure OpenAI, Bedrock and Vertex.
func platformCall(method, path string) (c call, ok bool) {
	if method != http.MethodPost {
		return call{}, false
	}
	if rest, is := strings.CutPrefix(path, "/openai/v1/"); is {
		c.shape = shapes["POST /v1/"+rest]
		return c, c.shape != nil
	}
	if rest, is := strings.CutPrefix(path, "/openai/deployments/"); is {
		var op string
		c.model, op, _ = strings.Cut(rest, "/")
		c.shape = shapes["POST /v1/"+op]
		return c, c.shape != nil
	}
	if rest, is := strings.CutPrefix(path, "/model/"); is {
		escaped, verb, _ := strings.Cut(rest, "/")
		model, err := url.PathUnescape(escaped)
		c = call{shape: messagesShape, model: model, asked: true, stream: verb == "invoke-with-response-stream", frames: verb != "invoke"}
		return c, err == nil && (c.stream || verb == "invoke")
	}
	return vertexCall(path)
}

func vertexCall(path string) (c call, ok bool) {
	_, rest, is := strings.Cut(path, "/publishers/")
	publisher, rest, _ := strings.Cut(rest, "/models/")
	model, verb, _ := strings.Cut(rest, ":")
	c.model, _ = url.PathUnescape(model)
	switch {
	case !is || !strings.HasPrefix(path, "/v1/projects/"):
	case publisher == "google":
		c.shape, c.asked, c.stream = geminiShapes["POST "+verb], true, verb == "streamGenerateContent"
	case publisher == "anthropic" && model == "count-tokens" && verb == "rawPredict":
		c.shape = shapes["POST /v1/messages/count_tokens"]
	case publisher == "anthropic" && (verb == "rawPredict" || verb == "streamRawPredict"):
		c.shape, c.asked, c.stream = messagesShape, true, verb == "streamRawPredict"
	}
	return c, c.shape != nil
}

// framed puts the events of a stream into frames, one each.
func framed(events []string) []string {
	var out []string
	for _, e := range events {
		_, data, _ := strings.Cut(strings.TrimSuffix(e, "\n\n"), "\ndata: ")
		payload, _ := json.Marshal(map[string]string{"bytes": base64.StdEncoding.EncodeToString([]byte(data)), "p": "abcdefgh"})
		out = append(out, Frame(map[string]string{":message-type": "event", ":event-type": "chunk", ":content-type": "application/json"}, payload))
	}
	return out
}

// Frame is one of Amazon's binary frames with string headers.
func Frame(headers map[string]string, payload []byte) string {
	m := eventstream.Message{Payload: payload}
	for name, value := range headers {
		m.Headers.Set(name, eventstream.StringValue(value))
	}
	var b bytes.Buffer
	if err := eventstream.NewEncoder().Encode(&b, m); err != nil {
		panic(err)
	}
	return b.String()
}
