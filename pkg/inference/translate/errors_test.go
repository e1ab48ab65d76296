// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"testing"
)

// TestErrors has the documented errors of both providers, and what stands
// between providers and clients says.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		from   Dialect
		status int
		body   string
		want   int
		out    string
	}{
		{"invalid", AnthropicMessages, 400, `{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: required"},"request_id":"req_1"}`, 400, `{"error":{"message":"max_tokens: required","type":"invalid_request_error","param":null,"code":null}}`},
		{"too long", AnthropicMessages, 400, `{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 200251 tokens > 200000 maximum"}}`, 400, `{"error":{"message":"prompt is too long: 200251 tokens > 200000 maximum","type":"invalid_request_error","param":null,"code":"context_length_exceeded"}}`},
		{"key", AnthropicMessages, 401, `{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}`, 401, `{"error":{"message":"invalid x-api-key","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`},
		{"money", AnthropicMessages, 402, `{"type":"error","error":{"type":"billing_error","message":"b"}}`, 429, `{"error":{"message":"b","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`},
		{"permission", AnthropicMessages, 403, `{"type":"error","error":{"type":"permission_error","message":"p"}}`, 403, `{"error":{"message":"p","type":"permission_error","param":null,"code":null}}`},
		{"not found", AnthropicMessages, 404, `{"type":"error","error":{"type":"not_found_error","message":"model: x"}}`, 404, `{"error":{"message":"model: x","type":"invalid_request_error","param":null,"code":"model_not_found"}}`},
		{"large", AnthropicMessages, 413, `{"type":"error","error":{"type":"request_too_large","message":"l"}}`, 413, `{"error":{"message":"l","type":"invalid_request_error","param":null,"code":"request_too_large"}}`},
		{"rate", AnthropicMessages, 429, `{"type":"error","error":{"type":"rate_limit_error","message":"r"}}`, 429, `{"error":{"message":"r","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}`},
		{"api", AnthropicMessages, 500, `{"type":"error","error":{"type":"api_error","message":"a"}}`, 500, `{"error":{"message":"a","type":"server_error","param":null,"code":null}}`},
		{"timeout", AnthropicMessages, 504, `{"type":"error","error":{"type":"timeout_error","message":"t"}}`, 504, `{"error":{"message":"t","type":"server_error","param":null,"code":"timeout"}}`},
		{"overloaded", AnthropicMessages, 529, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, 503, `{"error":{"message":"Overloaded","type":"server_error","param":null,"code":"overloaded"}}`},
		{"a type that is new", AnthropicMessages, 418, `{"type":"error","error":{"type":"teapot_error","message":"short"}}`, 418, `{"error":{"message":"short","type":"invalid_request_error","param":null,"code":null}}`},
		{"a page of a proxy", AnthropicMessages, 502, `<html>secret</html>`, 502, `{"error":{"message":"the provider answered with status 502 (Bad Gateway)","type":"server_error","param":null,"code":null}}`},
		{"nothing", AnthropicMessages, 529, ``, 503, `{"error":{"message":"the provider answered with status 529","type":"server_error","param":null,"code":"overloaded"}}`},
		{"an error with a good status", AnthropicMessages, 200, `{"type":"error","error":{"type":"overloaded_error","message":"o"}}`, 503, `{"error":{"message":"o","type":"server_error","param":null,"code":"overloaded"}}`},

		{"invalid", OpenAIChat, 400, `{"error":{"message":"bad","type":"invalid_request_error","param":"messages","code":null}}`, 400, `{"type":"error","error":{"type":"invalid_request_error","message":"bad"}}`},
		{"too long", OpenAIChat, 400, `{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`, 400, `{"type":"error","error":{"type":"invalid_request_error","message":"too long"}}`},
		{"key", OpenAIChat, 401, `{"error":{"message":"k","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`, 401, `{"type":"error","error":{"type":"authentication_error","message":"k"}}`},
		{"region", OpenAIChat, 403, `{"error":{"message":"r","type":"request_forbidden","param":null,"code":"unsupported_country_region_territory"}}`, 403, `{"type":"error","error":{"type":"permission_error","message":"r"}}`},
		{"model", OpenAIChat, 404, `{"error":{"message":"m","type":"invalid_request_error","param":null,"code":"model_not_found"}}`, 404, `{"type":"error","error":{"type":"not_found_error","message":"m"}}`},
		{"rate", OpenAIChat, 429, `{"error":{"message":"r","type":"tokens","param":null,"code":"rate_limit_exceeded"}}`, 429, `{"type":"error","error":{"type":"rate_limit_error","message":"r"}}`},
		{"money", OpenAIChat, 429, `{"error":{"message":"q","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`, 402, `{"type":"error","error":{"type":"billing_error","message":"q"}}`},
		{"server", OpenAIChat, 500, `{"error":{"message":"s","type":"server_error","param":null,"code":null}}`, 500, `{"type":"error","error":{"type":"api_error","message":"s"}}`},
		{"overloaded", OpenAIChat, 503, `{"error":{"message":"o","type":"server_error","param":null,"code":null}}`, 529, `{"type":"error","error":{"type":"overloaded_error","message":"o"}}`},
		{"unprocessable", OpenAIChat, 422, `{"detail":"field required"}`, 422, `{"type":"error","error":{"type":"invalid_request_error","message":"field required"}}`},
		{"a string", OpenAIChat, 404, `{"error":"model \"x\" not found"}`, 404, `{"type":"error","error":{"type":"not_found_error","message":"model \"x\" not found"}}`},
		{"a number as code", OpenAIChat, 400, `{"object":"error","message":"no","type":"BadRequestError","code":400}`, 400, `{"type":"error","error":{"type":"invalid_request_error","message":"no"}}`},
		{"timeout", OpenAIChat, 408, `{}`, 408, `{"type":"error","error":{"type":"timeout_error","message":"the provider answered with status 408 (Request Timeout)"}}`},
		{"no error at all", OpenAIChat, 200, `[]`, 500, `{"type":"error","error":{"type":"api_error","message":"the provider answered with status 200 (OK)"}}`},
	} {
		status, out := Error(c.from, other(c.from), c.status, []byte(c.body))
		if status != c.want || string(out) != c.out {
			t.Errorf("%s of %s: %d %s\nwant %d %s", c.name, c.from, status, out, c.want, c.out)
		}
	}
}
