// SPDX-License-Identifier: Apache-2.0

package inference

import "net/http"

// openAI is the OpenAI API. Paths: the OpenAI API reference and the official
// Go library v3.96.
//
// Not in the table, on purpose: everything that stores objects of the account
// (files, vector stores, fine-tuning, batches, conversations, stored chat
// completions as a list), administration, realtime (WebSocket), and uploads in
// multipart form, whose model could not be judged byte for byte.
//
// Stored responses are reached by their identifier only. It is random, so
// knowing it is having been told it; they cannot be listed.
var openAI = dialect{
	name:           "openai",
	baseHasVersion: true,
	headers:        []string{"openai-beta", "originator", "session_id", "conversation_id", "x-title", "http-referer"},
	credentials:    []string{"authorization", "openai-organization", "openai-project", "chatgpt-account-id"},
	inject:         func(h http.Header, key string) { h.Set("Authorization", "Bearer "+key) },
	errorBody:      openAIError,
	rules:          &openAIRules,
	routes: []route{
		{method: "POST", path: "/v1/chat/completions", op: "chat", output: "max_completion_tokens", body: true, model: true, stream: true, metered: true, unasked: true, ends: chatEnds, trial: trialChat},
		{method: "POST", path: "/v1/responses", op: "responses", output: "max_output_tokens", body: true, model: true, stream: true, metered: true, ends: responsesEnds, trial: trialResponses},
		{method: "POST", path: "/v1/completions", op: "completions", output: "max_tokens", body: true, model: true, stream: true, metered: true, unasked: true, ends: chatEnds},
		{method: "POST", path: "/v1/embeddings", op: "embeddings", body: true, model: true, metered: true},
		{method: "POST", path: "/v1/moderations", op: "moderations", body: true, model: true, defaultModel: "omni-moderation-latest"},
		{method: "POST", path: "/v1/images/generations", op: "images", body: true, model: true, stream: true, metered: true},
		{method: "POST", path: "/v1/audio/speech", op: "speech", body: true, model: true, stream: true, binary: true},
		{method: "POST", path: "/v1/responses/compact", op: "compact", body: true, model: true, metered: true},
		{method: "POST", path: "/v1/responses/input_tokens", op: "count_tokens", body: true, model: true, trial: trialInputTokens},
		{method: "GET", path: "/v1/responses/*", op: "response", ends: responsesEnds, query: []string{"include", "include[]", "include_obfuscation", "starting_after", "stream"}},
		{method: "DELETE", path: "/v1/responses/*", op: "response_delete"},
		{method: "POST", path: "/v1/responses/*/cancel", op: "response_cancel"},
		{method: "GET", path: "/v1/responses/*/input_items", op: "response_items", query: []string{"after", "before", "include", "include[]", "limit", "order"}},
		{method: "GET", path: "/v1/models", op: "models", trial: trialOpenAIModels},
		{method: "GET", path: "/v1/models/*", op: "model", trial: trialOpenAIModel},
	},
	closed: []closedPath{
		{"/v1/files", "files are stored in the operator's account, outside the fence"},
		{"/v1/uploads", "uploads are stored in the operator's account, outside the fence"},
		{"/v1/vector_stores", "vector stores belong to the operator's account"},
		{"/v1/containers", "containers run on the provider's side"},
		{"/v1/conversations", "conversations are stored in the operator's account"},
		{"/v1/batches", "a batch names its models and tools in a stored file that cannot be judged"},
		{"/v1/fine_tuning", "fine-tuning belongs to the operator's account"},
		{"/v1/assistants", "assistants are stored in the operator's account and run tools there"},
		{"/v1/threads", "threads are stored in the operator's account and run tools there"},
		{"/v1/organization", "administration belongs to the operator"},
		{"/v1/realtime", "WebSocket and WebRTC sessions are not judged"},
		{"/v1/audio", "multipart uploads cannot be judged byte for byte"},
		{"/v1/images", "multipart uploads cannot be judged byte for byte"},
		{"/v1/videos", "videos are stored in the operator's account"},
		{"/v1/evals", "evaluations belong to the operator's account"},
		{"/v1/chat/completions", "stored completions belong to the operator's account"},
	},
}

// chatEnds and responsesEnds end streams: the documents name the reason why the
// model stopped, and "[DONE]", which not every server sends.
var (
	chatEnds      = []string{"data: [DONE]", `finish_reason":"`, `finish_reason": "`, "data:[DONE]"}
	responsesEnds = []string{`"type":"response.completed"`, `"type":"response.incomplete"`, `"type":"response.failed"`, `"type":"response.cancelled"`,
		`"type": "response.completed"`, `"type": "response.incomplete"`, `"type": "response.failed"`}
)

var openAIRules = toolRules{
	types: []rule{
		{"function", ""}, {"custom", ""}, {"namespace", ""}, {"tool_search", ""},
		{"local_shell", ""}, {"apply_patch", ""}, {"shell", "shell"},
		{"web_search", "web_search"}, {"web_search_2*", "web_search"}, {"web_search_preview*", "web_search"},
		{"file_search", "file_search"}, {"code_interpreter", "code_interpreter"},
		{"programmatic_tool_calling", "code_interpreter"},
		{"computer", "computer_use"}, {"computer_use*", "computer_use"}, {"computer-use*", "computer_use"},
		{"mcp", "mcp"}, {"image_generation", "image_generation"},
		{"openrouter:*", "web_search"}, {"browser_search", "web_search"},
	},
	fields: []rule{
		{"web_search_options", "web_search"}, {"search_parameters", "web_search"}, {"enable_search", "web_search"},
		{"search_settings", "web_search"}, {"compound_custom", "web_search"}, // Groq
		{"provider", "provider_routing"}, {"route", "provider_routing"}, // OpenRouter: who answers behind it
		{"deferred", "background"}, {"enable_code_interpreter", "code_interpreter"}, // xAI, Alibaba
		{"service_tier", toolDearer},
		{"background", "background"}, {"conversation", "conversation"}, {"prompt", "prompt"},
		{"mcp_servers", "mcp"}, {"plugins", "plugins"}, {"container", "code_interpreter"},
		{"webhook", "webhook"},
		{"data_sources", "data_sources"}, {"datasources", "data_sources"}, // Azure: it asks an index at an address that the request names
	},
	never: []string{
		"models", "fallbacks", "fallback_models", "api_key", "api_base", "base_url", "api_version",
		"extra_body", "extra_headers", "custom_llm_provider",
		"provideroptions", // Vercel: who answers behind it
	},
	opaque:   []string{"parameters", "schema", "arguments", "output_schema", "logit_bias"},
	listings: []string{"mcp_list_tools"},
}

// openAIError is the API's error form.
func openAIError(e *refusal, status int, text string) []byte {
	kind := "invalid_request_error"
	switch {
	case status == http.StatusForbidden:
		kind = "permission_error"
	case status == http.StatusUnauthorized:
		kind = "authentication_error"
	case e.code == CodeLimited && e.reason == ReasonTokens:
		kind = "tokens"
	case e.code == CodeLimited:
		kind = "requests"
	case status >= 500:
		kind = "server_error"
	}
	type body struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    string  `json:"code"`
		Reason  string  `json:"reason,omitempty"`
	}
	b := body{Message: text, Type: kind, Code: e.code, Reason: e.reason}
	if e.param != "" {
		b.Param = &e.param
	}
	return mustJSON(map[string]any{"error": b})
}
