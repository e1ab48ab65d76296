// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
)

const (
	chatPath      = "https://" + openAIHost + "/v1/chat/completions"
	responsesPath = "https://" + openAIHost + "/v1/responses"
	messagesPath  = "https://" + claudeHost + "/v1/messages"
)

// providerSide is work on the provider's side, by where it hides.
var providerSide = []struct{ name, url, body, tool string }{
	{"web search tool", responsesPath, `{"model":"m","tools":[{"type":"web_search"}]}`, "web_search"},
	{"dated web search tool", responsesPath, `{"model":"m","tools":[{"type":"web_search_2025_08_26"}]}`, "web_search"},
	{"web search preview", responsesPath, `{"model":"m","tools":[{"type":"web_search_preview_2025_03_11"}]}`, "web_search"},
	{"type in other letters", responsesPath, `{"model":"m","tools":[{"type":"WEB_search"}]}`, "web_search"},
	{"type key escaped", responsesPath, `{"model":"m","tools":[{"t\u0079pe":"m\u0063p"}]}`, "mcp"},
	{"second of two tools", responsesPath, `{"model":"m","tools":[{"type":"function","name":"f"},{"type":"file_search","vector_store_ids":["v"]}]}`, "file_search"},
	{"code interpreter", responsesPath, `{"model":"m","tools":[{"type":"code_interpreter","container":{"type":"auto"}}]}`, "code_interpreter"},
	{"computer use", responsesPath, `{"model":"m","tools":[{"type":"computer_use_preview"}]}`, "computer_use"},
	{"remote MCP", responsesPath, `{"model":"m","tools":[{"type":"mcp","server_url":"https://evil.example"}]}`, "mcp"},
	{"image generation", responsesPath, `{"model":"m","tools":[{"type":"image_generation"}]}`, "image_generation"},
	{"hosted shell", responsesPath, `{"model":"m","tools":[{"type":"shell","environment":{"type":"container_auto"}}]}`, "shell"},
	{"shell without environment", responsesPath, `{"model":"m","tools":[{"type":"shell"}]}`, "shell"},
	{"unknown tool", responsesPath, `{"model":"m","tools":[{"type":"teleport"}]}`, "teleport"},
	{"tool without type", responsesPath, `{"model":"m","tools":[{"name":"x"}]}`, "unknown"},
	{"tool that is a string", responsesPath, `{"model":"m","tools":["web_search"]}`, "unknown"},
	{"tools that are an object", responsesPath, `{"model":"m","tools":{"type":"mcp"}}`, "unknown"},
	{"in a namespace", responsesPath, `{"model":"m","tools":[{"type":"namespace","name":"n","tools":[{"type":"mcp"}]}]}`, "mcp"},
	{"in additional_tools", responsesPath, `{"model":"m","input":[{"type":"additional_tools","role":"developer","tools":[{"type":"mcp","server_url":"https://evil.example"}]}]}`, "mcp"},
	{"in tool_search_output", responsesPath, `{"model":"m","input":[{"type":"tool_search_output","tools":[{"type":"teleport"}]}]}`, "teleport"},
	{"background", responsesPath, `{"model":"m","input":"x","background":true}`, "background"},
	{"conversation", responsesPath, `{"model":"m","input":"x","conversation":"conv_1"}`, "conversation"},
	{"stored prompt", responsesPath, `{"model":"m","prompt":{"id":"pmpt_1"}}`, "prompt"},
	{"image URL", responsesPath, `{"model":"m","input":[{"role":"user","content":[{"type":"input_image","image_url":"https://evil.example/?q=secret"}]}]}`, "image_url"},
	{"image URL without scheme", responsesPath, `{"model":"m","input":[{"role":"user","content":[{"type":"input_image","image_url":"//evil.example/x"}]}]}`, "image_url"},
	{"file URL", responsesPath, `{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_url":"http://evil.example/x"}]}]}`, "file_url"},
	{"file at the provider", responsesPath, `{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":"file-1"}]}]}`, "file_id"},
	{"image URL in a tool's output", responsesPath, `{"model":"m","input":[{"type":"function_call_output","call_id":"c","output":[{"type":"input_image","image_url":"https://evil.example"}]}]}`, "image_url"},
	{"tool choice", responsesPath, `{"model":"m","tool_choice":{"type":"web_search_preview"}}`, "web_search"},
	{"compact", responsesPath + "/compact", `{"model":"m","input":[{"role":"user","content":[{"type":"input_image","image_url":"https://evil.example"}]}]}`, "image_url"},
	{"chat image URL", chatPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://evil.example/x.png"}}]}]}`, "image_url"},
	{"chat image URL, key escaped", chatPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image\u005furl":{"u\u0072l":"https://evil.example/x.png"}}]}]}`, "image_url"},
	{"chat image URL as a string", chatPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":"HTTPS://evil.example"}]}]}`, "image_url"},
	{"video URL", chatPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"video_url","video_url":{"url":"https://evil.example"}}]}]}`, "url"},
	{"file data that is a URL", chatPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"file","file":{"file_data":"https://evil.example/x.pdf"}}]}]}`, "file_url"},
	{"web_search_options", chatPath, `{"model":"m","messages":[],"web_search_options":{}}`, "web_search"},
	{"search_parameters", chatPath, `{"model":"m","messages":[],"search_parameters":{"mode":"on"}}`, "web_search"},
	{"plugins", chatPath, `{"model":"m","messages":[],"plugins":[{"id":"web"}]}`, "plugins"},
	{"who answers behind OpenRouter", chatPath, `{"model":"m","messages":[],"provider":{"order":["x"]}}`, "provider_routing"},
	{"OpenRouter's fallback", chatPath, `{"model":"m","messages":[],"route":"fallback"}`, "provider_routing"},
	{"Groq's search", chatPath, `{"model":"m","messages":[],"search_settings":{"country":"x"}}`, "web_search"},
	{"xAI, later", chatPath, `{"model":"m","messages":[],"deferred":true}`, "background"},
	{"Azure's indexes", chatPath, `{"model":"m","messages":[],"data_sources":[{"type":"elasticsearch","parameters":{"endpoint":"https://evil.example","index_name":"i"}}]}`, "data_sources"},
	{"a dearer tier", chatPath, `{"model":"m","messages":[],"service_tier":"priority"}`, "priority"},
	{"a dearer tier of responses", responsesPath, `{"model":"m","input":"x","service_tier":"PRIORITY"}`, "priority"},
	{"Anthropic's fast mode", messagesPath, `{"model":"m","messages":[],"speed":"fast"}`, "priority"},
	{"Gemini's dearer tier", geminiPath("m", "generateContent"), `{"contents":[],"service_tier":"priority"}`, "priority"},
	{"search model", chatPath, `{"model":"gpt-4o-search-preview","messages":[]}`, "web_search"},
	{"online variant", chatPath, `{"model":"openai/gpt-4o:online","messages":[]}`, "web_search"},
	{"moderation image", "https://" + openAIHost + "/v1/moderations", `{"model":"m","input":[{"type":"image_url","image_url":{"url":"https://evil.example"}}]}`, "image_url"},
	{"Anthropic web search", messagesPath, `{"model":"m","tools":[{"type":"web_search_20250305","name":"web_search"}]}`, "web_search"},
	{"Anthropic web fetch", messagesPath, `{"model":"m","tools":[{"type":"web_fetch_20250910","name":"web_fetch"}]}`, "web_fetch"},
	{"Anthropic code execution", messagesPath, `{"model":"m","tools":[{"type":"code_execution_20260120","name":"x"}]}`, "code_execution"},
	{"Anthropic MCP servers", messagesPath, `{"model":"m","mcp_servers":[{"type":"url","url":"https://evil.example","name":"x"}]}`, "mcp"},
	{"Anthropic MCP toolset", messagesPath, `{"model":"m","tools":[{"type":"mcp_toolset","mcp_server_name":"x"}]}`, "mcp"},
	{"Anthropic advisor", messagesPath, `{"model":"m","tools":[{"type":"advisor_20260301","model":"big"}]}`, "advisor"},
	{"Anthropic unknown tool", messagesPath, `{"model":"m","tools":[{"type":"teleport_20270101"}]}`, "teleport_20270101"},
	{"Anthropic container", messagesPath, `{"model":"m","container":{"skills":[{"type":"anthropic","skill_id":"x"}]}}`, "code_execution"},
	{"Anthropic image URL", messagesPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"https://evil.example"}}]}]}`, "image_url"},
	{"Anthropic document URL", messagesPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"document","source":{"type":"url","url":"https://evil.example"}}]}]}`, "file_url"},
	{"Anthropic file", messagesPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"document","source":{"type":"file","file_id":"f"}}]}]}`, "file_id"},
	{"Anthropic unknown source", messagesPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"image","source":{"type":"wormhole"}}]}]}`, "source_wormhole"},
	{"Anthropic image URL in a tool result", messagesPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"image","source":{"type":"url","url":"https://evil.example"}}]}]}]}`, "image_url"},
	{"Anthropic tool added in a message", messagesPath, `{"model":"m","messages":[{"role":"system","content":[{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"type":"teleport_20270101","name":"x"}}}]}]}`, "teleport_20270101"},
	{"Anthropic count_tokens", messagesPath + "/count_tokens", `{"model":"m","messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"https://evil.example"}}]}]}`, "image_url"},
}

func TestWorkOnTheProvidersSideIsRefused(t *testing.T) {
	closed := newFence(t, setup{})
	for _, c := range append(providerSide, geminiSide...) {
		t.Run(c.name, func(t *testing.T) {
			closed.double.Reset()
			resp, body := closed.ask("POST", c.url, c.body)
			if resp.StatusCode != 403 || !strings.Contains(body, `"code":"ringfence_denied"`) || !strings.Contains(body, "tool:"+c.tool) {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if ev := closed.event(); ev.Verdict != event.Denied || ev.Model == "" || !strings.Contains(ev.Reason, "tool:"+c.tool) {
				t.Errorf("event %+v", ev)
			}
			if len(closed.double.Received()) != 0 {
				t.Error("reached the provider")
			}
			// Control: with the rule the same request passes, unchanged.
			open := newFence(t, setup{view: view{tools: map[string]bool{c.tool: true, "mcp": true, "file_id": true}}})
			open.ask("POST", c.url, c.body)
			if got := open.double.Last(); string(got.Body) != c.body {
				t.Errorf("not forwarded with a rule for %s: %+v", c.tool, open.event())
			}
		})
	}
}

func TestFieldsThatRedirectTheCallAreNeverForwarded(t *testing.T) {
	f := newFence(t, setup{view: view{tools: map[string]bool{"url": true}}})
	for _, c := range []struct{ url, body string }{
		{chatPath, `{"model":"m","models":["big"],"messages":[]}`},
		{chatPath, `{"model":"m","api_base":"https://evil.example","messages":[]}`},
		{chatPath, `{"model":"m","Base_URL":"https://evil.example","messages":[]}`},
		{chatPath, `{"model":"m","fallbacks":["big"],"messages":[]}`},
		{chatPath, `{"model":"m","extra_headers":{"x":"y"},"messages":[]}`},
		{chatPath, `{"model":"m","providerOptions":{"gateway":{"order":["x"]}},"messages":[]}`},
		{messagesPath, `{"model":"m","fallbacks":[{"model":"big"}],"messages":[]}`},
		{generate, `{"contents":[],"generationConfig":{"routingConfig":{"manualMode":{"modelName":"big"}}}}`},
		{generate, `{"contents":[],"generation_config":{"model_selection_config":{"featureSelectionPreference":"PRIORITIZE_QUALITY"}}}`},
		{generate, `{"contents":[],"httpOptions":{"baseUrl":"https://evil.example"}}`},
	} {
		if resp, body := f.ask("POST", c.url, c.body); resp.StatusCode != 403 || !strings.Contains(body, "ringfence_denied") {
			t.Errorf("%s: %d %s", c.body, resp.StatusCode, body)
		}
	}
	if len(f.double.Received()) != 0 {
		t.Error("reached the provider")
	}
}

func TestWorkAtTheClientPasses(t *testing.T) {
	f := newFence(t, setup{})
	for _, c := range append(geminiClient, []struct{ name, url, body string }{
		{"function tools", chatPath, `{"model":"m","messages":[],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"image_url":{"type":"string"},"tools":{"type":"array"}},"examples":[{"image_url":"https://x.example"}]}}},{"type":"custom","custom":{"name":"c"}}]}`},
		{"client-side Responses tools", responsesPath, `{"model":"m","input":"x","tools":[{"type":"function","name":"f"},{"type":"local_shell"},{"type":"apply_patch"},{"type":"tool_search"},{"type":"shell","environment":{"type":"local"}},{"type":"namespace","name":"n","tools":[{"type":"function","name":"g"}]}]}`},
		{"history of provider tools", responsesPath, `{"model":"m","input":[{"type":"web_search_call","id":"w","status":"completed","action":{"type":"open_page","url":"https://x.example"}},{"type":"mcp_list_tools","server_label":"s","tools":[{"name":"t","input_schema":{}}]},{"type":"message","role":"assistant","content":[{"type":"output_text","text":"see https://x.example","annotations":[{"type":"url_citation","url":"https://x.example"}]}]}]}`},
		{"choice of a local shell", responsesPath, `{"model":"m","input":"x","tools":[{"type":"shell","environment":{"type":"local"}}],"tool_choice":{"type":"shell"}}`},
		{"tiers for the price of the table", chatPath, `{"model":"m","messages":[],"service_tier":"auto"}`},
		{"Anthropic's", messagesPath, `{"model":"m","messages":[],"service_tier":"standard_only","speed":"standard"}`},
		{"data URLs", chatPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}},{"type":"file","file":{"file_data":"data:application/pdf;base64,AA==","filename":"https://x"}}]}]}`},
		{"URLs in text", chatPath, `{"model":"m","messages":[{"role":"user","content":"fetch https://x.example"}]}`},
		{"unset switches", responsesPath, `{"model":"m","input":"x","background":false,"conversation":null,"tools":null,"mcp_servers":[],"models":null}`},
		{"metadata of any name", chatPath, `{"model":"m","messages":[],"metadata":{"image_url":"https://x.example","type":"mcp"}}`},
		{"schema of any name", chatPath, `{"model":"m","messages":[],"response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{"properties":{"file_id":{"type":"string"}},"required":["file_id"]}}}}`},
		{"legacy prompt text", "https://" + openAIHost + "/v1/completions", `{"model":"m","prompt":"x"}`},
		{"Anthropic client tools", messagesPath, `{"model":"m","messages":[],"tools":[{"name":"f","input_schema":{"type":"object","properties":{"source":{"type":"url"}}}},{"type":"custom","name":"g","input_schema":{}},{"type":"bash_20250124","name":"bash"},{"type":"text_editor_20250728","name":"e"},{"type":"computer_20250124","name":"c"},{"type":"memory_20250818","name":"memory"},{"type":"tool_search_tool_regex_20251119","name":"s"}]}`},
		{"Anthropic inline media", messagesPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA=="}},{"type":"document","source":{"type":"text","data":"x"}},{"type":"document","source":{"type":"content","content":[{"type":"text","text":"x"}]}}]}]}`},
		{"Anthropic tool use arguments", messagesPath, `{"model":"m","messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"fetch","input":{"image_url":"https://x.example","source":{"type":"url"},"tools":[{"type":"mcp"}]}}]}]}`},
		{"Anthropic search result source", messagesPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"search_result","source":"https://x.example","title":"t","content":[]}]}]}`},
	}...) {
		t.Run(c.name, func(t *testing.T) {
			f.double.Reset()
			resp, body := f.ask("POST", c.url, c.body)
			if resp.StatusCode != 200 || string(f.double.Last().Body) != c.body {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			f.event()
		})
	}
}
