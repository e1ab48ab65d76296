// SPDX-License-Identifier: Apache-2.0

package inference

import "net/http"

// anthropic is the Anthropic API. Paths: its API reference and the official Go
// library v1.84. Message batches are not offered: their results are fetched
// from stored objects of the account.
var anthropic = dialect{
	name:    "anthropic",
	version: map[string]string{"Anthropic-Version": "2023-06-01"},
	headers: []string{"anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access",
		"x-app", "x-claude-code-session-id"},
	credentials: []string{"authorization", "x-api-key"},
	inject:      func(h http.Header, key string) { h.Set("X-Api-Key", key) },
	errorBody:   anthropicError,
	rules:       &anthropicRules,
	routes: []route{
		{method: "POST", path: "/v1/messages", op: "messages", output: "max_tokens", body: true, model: true, stream: true, metered: true, ends: []string{"message_stop"},
			query: []string{"beta"}, trial: trialMessages},
		{method: "POST", path: "/v1/messages/count_tokens", op: "count_tokens", body: true, model: true,
			query: []string{"beta"}, trial: trialCountTokens},
		{method: "GET", path: "/v1/models", op: "models", query: []string{"after_id", "before_id", "beta", "limit"}, trial: trialAnthropicModels},
		{method: "GET", path: "/v1/models/*", op: "model", query: []string{"beta"}, trial: trialAnthropicModel},
	},
	closed: []closedPath{
		{"/v1/messages/batches", "batches are stored in the operator's account"},
		{"/v1/files", "files are stored in the operator's account, outside the fence"},
		{"/v1/skills", "skills are stored in the operator's account and run on the provider's side"},
		{"/v1/agents", "agents run on the provider's side"},
		{"/v1/sessions", "agent sessions run on the provider's side"},
		{"/v1/environments", "environments run on the provider's side"},
		{"/v1/organizations", "administration belongs to the operator"},
		{"/v1/complete", "the text completions API is retired; use /v1/messages"},
		{"/api", "it is not part of the model API"},
	},
}

var anthropicRules = toolRules{
	types: []rule{
		{"", ""}, {"custom", ""},
		{"bash_2*", ""}, {"text_editor_2*", ""}, {"computer_2*", ""}, {"memory_2*", ""},
		{"computer_toolset_2*", ""}, {"browser_toolset_2*", ""},
		{"tool_search_tool_*", ""},
		{"web_search_2*", "web_search"}, {"web_fetch_2*", "web_fetch"},
		{"code_execution_2*", "code_execution"}, {"mcp_toolset", "mcp"},
		{"advisor_2*", "advisor"}, // asks another model than policy decided on
	},
	fields: []rule{
		{"mcp_servers", "mcp"}, {"container", "code_execution"},
		{"speed", toolDearer}, {"service_tier", toolDearer},
	},
	never: []string{
		"fallbacks", "models", "api_key", "api_base", "base_url", "extra_body", "extra_headers",
	},
	sources:  true,
	wrapped:  []string{"tool_addition"},
	opaque:   []string{"input_schema", "schema"},
	opaqueIn: []string{"tool_use", "server_tool_use", "mcp_tool_use"},
	listings: []string{"mcp_tool_listing"},
}

// anthropicError is the API's error form.
func anthropicError(e *refusal, status int, text string) []byte {
	kind := "api_error"
	switch status {
	case http.StatusBadRequest, http.StatusUnsupportedMediaType:
		kind = "invalid_request_error"
	case http.StatusUnauthorized:
		kind = "authentication_error"
	case http.StatusForbidden:
		kind = "permission_error"
	case http.StatusNotFound:
		kind = "not_found_error"
	case http.StatusRequestEntityTooLarge:
		kind = "request_too_large"
	case http.StatusTooManyRequests:
		kind = "rate_limit_error"
	case http.StatusServiceUnavailable:
		kind = "overloaded_error"
	case http.StatusGatewayTimeout:
		kind = "timeout_error"
	}
	type body struct {
		Type    string `json:"type"`
		Message string `json:"message"`
		Code    string `json:"code"`
		Reason  string `json:"reason,omitempty"`
		Param   string `json:"param,omitempty"`
	}
	return mustJSON(map[string]any{
		"type":       "error",
		"error":      body{Type: kind, Message: text, Code: e.code, Reason: e.reason, Param: e.param},
		"request_id": nil,
	})
}
