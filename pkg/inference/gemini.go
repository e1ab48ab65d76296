// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"net/http"
	"strings"
)

const geminiName = "gemini"

// gemini is the Gemini API at generativelanguage.googleapis.com. Paths: Google's
// REST reference of v1 and v1beta, and the official Go library
// google.golang.org/genai v1.77. A request names its model in the path.
//
// Streams are offered as server-sent events only: without alt=sse the provider
// answers one JSON array in pieces, in which an error after the first piece has no
// form.
var gemini = dialect{
	name:           geminiName,
	headers:        []string{"x-goog-api-client", "x-server-timeout"},
	credentials:    []string{"x-goog-api-key", "authorization"},
	queryKeys:      []string{"key"},
	queryKeyHeader: "x-goog-api-key",
	inject:         func(h http.Header, key string) { h.Set("X-Goog-Api-Key", key) },
	errorBody:      geminiError,
	streamError:    geminiStreamError,
	take:           takeGemini,
	rules:          &geminiRules,
	routes:         append(geminiRoutes("/v1beta"), geminiRoutes("/v1")...),
	closed:         append(geminiClosed("/v1beta"), append(geminiClosed("/v1"), geminiOthers...)...),
}

// geminiEnds end a stream: the reason why the model stopped, or why it did not begin.
var geminiEnds = []string{`finishReason":`, `blockReason":`}

func geminiRoutes(version string) []route {
	at := version + "/models/*:"
	return []route{
		{method: "POST", path: at + "generateContent", op: "generate_content", body: true, model: true, pathModel: true, metered: true, output: geminiOutput,
			query: []string{"alt=json"}, trial: trialGenerate},
		{method: "POST", path: at + "streamGenerateContent", op: "generate_content", body: true, model: true, pathModel: true, streams: true, stream: true, metered: true, output: geminiOutput,
			ends: geminiEnds, query: []string{"alt=sse"}, needs: "alt=sse", trial: trialGenerate},
		{method: "POST", path: at + "countTokens", op: "count_tokens", body: true, model: true, pathModel: true,
			query: []string{"alt=json"}, trial: trialGeminiCount},
		{method: "POST", path: at + "embedContent", op: "embeddings", body: true, model: true, pathModel: true, metered: true, query: []string{"alt=json"}},
		{method: "POST", path: at + "batchEmbedContents", op: "embeddings", body: true, model: true, pathModel: true, metered: true, query: []string{"alt=json"}},
		{method: "GET", path: version + "/models", op: "models", query: []string{"alt=json", "pageSize", "pageToken"}, trial: trialGeminiModels},
		{method: "GET", path: at, op: "model", query: []string{"alt=json"}, trial: trialGeminiModel},
	}
}

func geminiClosed(version string) []closedPath {
	var out []closedPath
	for _, c := range []closedPath{
		{"/files", "files are stored in the operator's account, outside the fence"},
		{"/cachedContents", "cached contents are stored in the operator's account"},
		{"/fileSearchStores", "file search stores belong to the operator's account"},
		{"/corpora", "corpora belong to the operator's account"},
		{"/tunedModels", "tuned models belong to the operator's account"},
		{"/batches", "batches are stored in the operator's account"},
		{"/operations", "operations belong to the operator's account"},
		{"/interactions", "interactions are stored in the operator's account and run tools there"},
		{"/agents", "agents run on the provider's side"},
		{"/dynamic", "what a dynamic name stands for is known to the provider alone"},
		{"/openai", "this host is offered in its own dialect; the OpenAI dialect is offered at api.openai.com"},
		{"/auth_tokens", "credentials belong to the operator"},
	} {
		out = append(out, closedPath{version + c.prefix, c.why})
	}
	return out
}

var geminiOthers = []closedPath{
	{"/upload", "files are stored in the operator's account, outside the fence"},
	{"/download", "files are stored in the operator's account, outside the fence"},
	{"/resumable", "files are stored in the operator's account, outside the fence"},
	{"/ws", "WebSocket sessions are not judged"},
	{"/v1alpha", "it may change without notice; use /v1beta"},
	{"/v1beta1", "it is a version of another API; use /v1beta"},
	{"/v1beta2", "it is retired; use /v1beta"},
	{"/v1beta3", "it is retired; use /v1beta"},
}

// geminiModel is the model that a matched path names, and what stands before and
// after it.
func geminiModel(path string) (before, model, after string) {
	const models = "/models/"
	i := strings.Index(path, models) + len(models)
	model, after, _ = strings.Cut(path[i:], ":")
	return path[:i], model, ":" + after
}

// takeGemini takes what is judged out of a request: the model of the path, with
// which every model that the body names must agree.
func takeGemini(x *exchange) *refusal {
	_, x.asked.model, _ = geminiModel(x.path)
	x.asked.stream = x.route.streams
	return x.geminiModels(0, 0)
}

// modelHolders are the members in which a request holds other requests, which name
// the model once more.
var modelHolders = map[string]bool{"requests": true, "generatecontentrequest": true, "embedcontentrequest": true}

// geminiModels notes the members of a request, and of requests in it, that name the
// model again.
func (x *exchange) geminiModels(obj uint32, depth int) (ref *refusal) {
	t := &x.tape
	var buf [maxKey]byte
	t.children(obj, func(c uint32) bool {
		key := string(t.canonical(buf[:0], c))
		switch {
		case key == "model":
			ref = x.geminiModelAgain(c)
		case depth < 2 && modelHolders[key] && t.nodes[c].kind == kindArray:
			t.children(c, func(e uint32) bool {
				ref = x.geminiModels(e, depth+1)
				return ref == nil
			})
		case depth < 2 && modelHolders[key]:
			ref = x.geminiModels(c, depth+1)
		}
		return ref == nil
	})
	return ref
}

func (x *exchange) geminiModelAgain(c uint32) *refusal {
	t := &x.tape
	t.spelled(c, "model")
	if ref := x.variant(); ref != nil {
		return ref
	}
	name, ok := t.text(c)
	if !ok || strings.TrimPrefix(name, "models/") != x.asked.model {
		ref := invalid(http.StatusBadRequest, "model", "the body names another model than the path", "Name the one of the path, or leave it out")
		ref.param = "model"
		return ref
	}
	x.asked.again = append(x.asked.again, c)
	return nil
}

// geminiError is the error form of Google's APIs: google.rpc.Status with an
// ErrorInfo (AIP-193).
func geminiError(e *refusal, status int, text string) []byte {
	info := map[string]string{"code": e.code}
	if e.reason != "" {
		info["reason"] = e.reason
	}
	if e.param != "" {
		info["param"] = e.param
	}
	return mustJSON(map[string]any{"error": map[string]any{
		"code": status, "message": text, "status": googleStatus(status),
		"details": []map[string]any{{
			"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": strings.ToUpper(e.code), "domain": "ringfence.dev", "metadata": info,
		}},
	}})
}

// geminiStreamError is an error in the middle of a stream: an event without a name,
// which is what the official libraries look at.
func geminiStreamError(body []byte) []byte {
	return append(append([]byte("\r\n\r\ndata: "), body...), "\r\n\r\n"...)
}

// googleStatus is the name of google.rpc.Code that belongs to an HTTP status.
func googleStatus(status int) string {
	switch status {
	case http.StatusBadRequest, http.StatusUnsupportedMediaType, http.StatusRequestEntityTooLarge:
		return "INVALID_ARGUMENT"
	case http.StatusUnauthorized:
		return "UNAUTHENTICATED"
	case http.StatusForbidden:
		return "PERMISSION_DENIED"
	case http.StatusNotFound:
		return "NOT_FOUND"
	case http.StatusConflict:
		return "ABORTED"
	case http.StatusTooManyRequests:
		return "RESOURCE_EXHAUSTED"
	case statusClientGone:
		return "CANCELLED"
	case http.StatusNotImplemented:
		return "UNIMPLEMENTED"
	case http.StatusServiceUnavailable, http.StatusBadGateway:
		return "UNAVAILABLE"
	case http.StatusGatewayTimeout:
		return "DEADLINE_EXCEEDED"
	}
	return "INTERNAL"
}
