// SPDX-License-Identifier: Apache-2.0

package translate

const (
	whyServerTool   = "a tool that Anthropic runs, or whose schema only Anthropic knows"
	whyServerResult = "the trace of a tool that Anthropic ran"
	whyCacheOpenAI  = "OpenAI caches by itself; explicit breakpoints are for some of its models only"
	whyDocument     = "OpenAI's chat completions take PDF files as bytes alone"
	whyToolset      = "a member of a tool set whose schema only Anthropic knows"
	whyCitations    = "OpenAI's chat completions have no citations"
	whyNoEqualO     = "OpenAI's chat completions have no equal"
)

// anthropicRequest is MessageNewParams of anthropic-sdk-go, on its way to OpenAI.
var anthropicRequest = newTable("Request: Anthropic messages to OpenAI chat completions", AnthropicMessages, OpenAIChat, []Row{
	{Path: "model", Kinds: String, Do: Transformed, To: "model", Why: "the name to send upstream, where the caller of this package gives one", Need: true},
	{Path: "max_tokens", Kinds: Integer, Do: Transformed, To: "max_completion_tokens", Why: "renamed, unless the provider knows max_tokens only; 0, which fills a cache, is refused", Need: true},
	{Path: "messages", Kinds: Array, Do: Transformed, To: "messages", Need: true, By: "role",
		Why: "tool results become messages of role tool, before what else the message holds; a last message of the assistant is refused, since it would not be continued"},
	{Path: "system", Kinds: String | Array, Do: Transformed, To: "a first message of role system", Why: "blocks become parts"},
	{Path: "temperature", Kinds: Number, Do: Carried, To: "temperature"},
	{Path: "top_p", Kinds: Number, Do: Carried, To: "top_p"},
	{Path: "top_k", Kinds: Integer, Do: Refused, Why: "OpenAI samples without it; the answer would be another"},
	{Path: "stop_sequences", Kinds: Array, Do: Transformed, To: "stop", Why: "renamed; more than 4 are refused"},
	{Path: "stop_sequences[]", Kinds: String, Do: Carried},
	{Path: "stream", Kinds: Bool, Do: Transformed, To: "stream, stream_options", Why: "with include_usage, since Anthropic's streams tell the usage", Extension: extStream},
	{Path: "metadata", Kinds: Object, Do: Transformed, Why: "its only field moves"},
	{Path: "metadata.user_id", Kinds: String, Do: Transformed, To: "safety_identifier", Why: "renamed; one of more than 128 bytes is left out with a note, OpenAI takes no longer one"},
	{Path: "service_tier", Kinds: String, Do: Transformed, To: "service_tier", Why: "auto stays, standard_only becomes default"},
	{Path: "inference_geo", Kinds: String, Do: Refused, Why: "where the model runs cannot be told OpenAI in a request; choose a provider of that region"},
	{Path: "container", Kinds: String | Object, Do: Refused, Why: whyServerTool},
	{Path: "speed", Kinds: String, Do: Refused, Unless: `"standard"`, Why: whyNoEqualO},
	{Path: "cache_control", Kinds: Object, Do: Ignored, Why: whyCacheOpenAI},
	{Path: "diagnostics", Kinds: Object, Do: Ignored, Why: "it asks about Anthropic's cache"},

	{Path: "output_config", Kinds: Object, Do: Transformed, Why: "its fields move"},
	{Path: "output_config.effort", Kinds: String, Do: Transformed, To: "reasoning_effort", Why: "low, medium, high, xhigh and max stay"},
	{Path: "output_config.format", Kinds: Object, Do: Transformed, To: "response_format", Why: "by type"},
	{Path: "output_config.format<json_schema>.schema", Kinds: Object, Do: Carried, To: "response_format.json_schema.schema", Why: "under the name output, strict", Need: true, Opaque: true},
	{Path: "thinking", Kinds: Object, Do: Transformed, To: "reasoning_effort", Why: "by type, where output_config.effort says nothing"},
	{Path: "thinking<disabled>", Kinds: Object, Do: Transformed, To: "reasoning_effort", Why: "none"},
	{Path: "thinking<enabled>.budget_tokens", Kinds: Integer, Do: Transformed, To: "reasoning_effort", Why: "up to 4096 low, up to 16384 medium, above high", Need: true},
	{Path: "thinking<enabled>.display", Kinds: String, Do: Ignored, Why: "what OpenAI shows of its reasoning is its own choice"},
	{Path: "thinking<adaptive>.display", Kinds: String, Do: Ignored, Why: "what OpenAI shows of its reasoning is its own choice"},
	{Path: "thinking<between_tools>", Kinds: Object, Do: Refused, Why: whyNoEqualO},

	{Path: "tool_choice", Kinds: Object, Do: Transformed, To: "tool_choice", Why: "auto, none and any become auto, none and required"},
	{Path: "tool_choice<auto>.disable_parallel_tool_use", Kinds: Bool, Do: Transformed, To: "parallel_tool_calls", Why: "negated"},
	{Path: "tool_choice<any>.disable_parallel_tool_use", Kinds: Bool, Do: Transformed, To: "parallel_tool_calls", Why: "negated"},
	{Path: "tool_choice<tool>.disable_parallel_tool_use", Kinds: Bool, Do: Transformed, To: "parallel_tool_calls", Why: "negated"},
	{Path: "tool_choice<tool>.name", Kinds: String, Do: Carried, To: "tool_choice.function.name", Need: true},
	{Path: "tool_choice<none>", Kinds: Object, Do: Transformed, To: "tool_choice", Why: "none"},

	{Path: "tools", Kinds: Array, Do: Transformed, To: "tools", Why: "one level more", Else: "custom"},
	{Path: "tools[]<custom>.name", Kinds: String, Do: Carried, To: "function.name", Need: true},
	{Path: "tools[]<custom>.description", Kinds: String, Do: Carried, To: "function.description"},
	{Path: "tools[]<custom>.input_schema", Kinds: Object, Do: Carried, To: "function.parameters", Need: true, Opaque: true},
	{Path: "tools[]<custom>.strict", Kinds: Bool, Do: Carried, To: "function.strict"},
	{Path: "tools[]<custom>.cache_control", Kinds: Object, Do: Ignored, Why: whyCacheOpenAI},
	{Path: "tools[]<custom>.eager_input_streaming", Kinds: Bool, Do: Ignored, Why: "OpenAI streams arguments as they come"},
	{Path: "tools[]<custom>.defer_loading", Kinds: Bool, Do: Refused, Unless: "false", Why: "it needs Anthropic's tool search"},
	{Path: "tools[]<custom>.allowed_callers", Kinds: Array, Do: Refused, Unless: `["direct"] []`, Why: "it needs Anthropic's code execution"},
	{Path: "tools[]<custom>.input_examples", Kinds: Array, Do: Refused, Unless: "[]", Why: whyNoEqualO + "; put them into the description"},
}, refusedVariants("tools[]", whyServerTool,
	"bash_20250124", "code_execution_20250522", "code_execution_20250825", "code_execution_20260120", "code_execution_20260521",
	"browser_toolset_20260801", "memory_20250818", "computer_toolset_20260801",
	"text_editor_20250124", "text_editor_20250429", "text_editor_20250728",
	"web_search_20250305", "web_search_20260209", "web_search_20260318",
	"web_fetch_20250910", "web_fetch_20260209", "web_fetch_20260309", "web_fetch_20260318",
	"tool_search_tool_bm25", "tool_search_tool_bm25_20251119", "tool_search_tool_regex", "tool_search_tool_regex_20251119"),
	under("system[]", anthropicText),
	anthropicMessageParam("user"), anthropicMessageParam("assistant"), anthropicMessageParam("system"))

func refusedVariants(at, why string, names ...string) []Row {
	rows := make([]Row, len(names))
	for i, n := range names {
		rows[i] = Row{Path: at + "<" + n + ">", Kinds: Object, Do: Refused, Why: why}
	}
	return rows
}

// anthropicText is a text block.
var anthropicText = []Row{
	{Path: "<text>.text", Kinds: String, Do: Carried, To: "text", Need: true},
	{Path: "<text>.citations", Kinds: Array, Do: Ignored, Unless: "[]", Why: whyCitations},
	{Path: "<text>.cache_control", Kinds: Object, Do: Ignored, Why: whyCacheOpenAI},
}

// anthropicMedia is what a user shows.
var anthropicMedia = []Row{
	{Path: "<image>.source", Kinds: Object, Do: Transformed, To: "image_url.url", Why: "by type", Need: true},
	{Path: "<image>.source<base64>.data", Kinds: String, Do: Transformed, To: "image_url.url", Why: "a data URL", Need: true},
	{Path: "<image>.source<base64>.media_type", Kinds: String, Do: Transformed, To: "image_url.url", Why: "in the data URL", Need: true},
	{Path: "<image>.source<url>.url", Kinds: String, Do: Carried, To: "image_url.url", Why: "http and https; others are refused", Need: true},
	{Path: "<image>.source<file>", Kinds: Object, Do: Refused, Why: "a file that lies at Anthropic; send its bytes"},
	{Path: "<image>.cache_control", Kinds: Object, Do: Ignored, Why: whyCacheOpenAI},
	{Path: "<image>.transformations", Kinds: Object, Do: Refused, Unless: "{}", Why: whyNoEqualO},
	{Path: "<document>.source", Kinds: Object, Do: Transformed, To: "file", Why: "by type", Need: true},
	{Path: "<document>.source<base64>.data", Kinds: String, Do: Transformed, To: "file.file_data", Why: "a data URL", Need: true},
	{Path: "<document>.source<base64>.media_type", Kinds: String, Do: Transformed, To: "file.file_data", Why: "application/pdf, in the data URL", Need: true},
	{Path: "<document>.source<text>", Kinds: Object, Do: Refused, Why: whyDocument + "; send it as a text block"},
	{Path: "<document>.source<content>", Kinds: Object, Do: Refused, Why: whyDocument},
	{Path: "<document>.source<url>", Kinds: Object, Do: Refused, Why: whyDocument},
	{Path: "<document>.source<file>", Kinds: Object, Do: Refused, Why: "a file that lies at Anthropic; send its bytes"},
	{Path: "<document>.title", Kinds: String, Do: Carried, To: "file.filename", Why: "document.pdf where there is none"},
	{Path: "<document>.context", Kinds: String, Do: Refused, Unless: `""`, Why: whyNoEqualO + "; send it as a text block"},
	{Path: "<document>.citations", Kinds: Object, Do: Refused, Unless: `{"enabled":false} {}`, Why: whyCitations},
	{Path: "<document>.cache_control", Kinds: Object, Do: Ignored, Why: whyCacheOpenAI},
}

// anthropicUse is a tool call of an earlier turn.
var anthropicUse = []Row{
	{Path: "<tool_use>.id", Kinds: String, Do: Carried, To: "tool_calls[].id", Need: true},
	{Path: "<tool_use>.name", Kinds: String, Do: Carried, To: "tool_calls[].function.name", Need: true},
	{Path: "<tool_use>.input", Kinds: Object, Do: Transformed, To: "tool_calls[].function.arguments", Why: "as a string, byte by byte", Need: true, Opaque: true},
	{Path: "<tool_use>.caller", Kinds: Object, Do: Refused, Unless: `{"type":"direct"}`, Why: "a call that Anthropic's code execution made"},
	{Path: "<tool_use>.toolset_name", Kinds: String, Do: Refused, Why: whyToolset},
	{Path: "<tool_use>.cache_control", Kinds: Object, Do: Ignored, Why: whyCacheOpenAI},
	{Path: "<thinking>.thinking", Kinds: String, Do: Transformed, To: "reasoning_content", Need: true,
		Why: "what Anthropic signed is refused, left out with a note, or sent, as the route says; what this translation made of reasoning_content goes back or is left out"},
	{Path: "<thinking>.signature", Kinds: String, Do: Transformed, To: "thinking_blocks[].signature", Why: "kept in thinking_blocks where the route sends them", Need: true},
	{Path: "<redacted_thinking>.data", Kinds: String, Do: Transformed, To: "thinking_blocks[].data", Why: "as thinking", Need: true},
}

// anthropicResult is what a tool gave.
var anthropicResult = append([]Row{
	{Path: "<tool_result>.tool_use_id", Kinds: String, Do: Carried, To: "tool_call_id", Need: true},
	{Path: "<tool_result>.content", Kinds: String | Array, Do: Carried, To: "content", Why: "none is an empty string"},
	{Path: "<tool_result>.is_error", Kinds: Bool, Do: Transformed, To: "content", Why: "true puts [error] before the text: OpenAI has no field for it"},
	{Path: "<tool_result>.toolset_name", Kinds: String, Do: Refused, Why: whyToolset},
	{Path: "<tool_result>.cache_control", Kinds: Object, Do: Ignored, Why: whyCacheOpenAI},
}, append(append(under("<tool_result>.content[]", anthropicText),
	refusedVariants("<tool_result>.content[]", "OpenAI's tool messages hold text alone", "image", "document", "search_result")...),
	refusedVariants("<tool_result>.content[]", whyServerTool, "tool_reference", "browser_state")...)...)

// anthropicMessageParam is a message of one role. The SDK has one type for all
// roles; what a role cannot hold is refused where it stands.
func anthropicMessageParam(role string) []Row {
	at := "messages[]<" + role + ">.content"
	takes := map[string][][]Row{
		"user":      {anthropicText, anthropicMedia, anthropicResult},
		"assistant": {anthropicText, anthropicUse},
		"system":    {anthropicText},
	}
	rows := []Row{{Path: at, Kinds: String | Array, Do: Carried, To: "messages[].content", Need: true,
		Why: map[string]string{"system": "a message of role system at its place", "assistant": "text first, then tool calls"}[role]}}
	for _, r := range takes[role] {
		rows = append(rows, under(at+"[]", r)...)
	}
	not := map[string][]string{
		"user":      {"tool_use", "thinking", "redacted_thinking"},
		"assistant": {"image", "document", "tool_result"},
		"system":    {"image", "document", "tool_result", "tool_use", "thinking", "redacted_thinking"},
	}
	rows = append(rows, refusedVariants(at+"[]", "no such block in a message of role "+role, not[role]...)...)
	rows = append(rows, refusedVariants(at+"[]", whyServerResult, "server_tool_use", "web_search_tool_result", "web_fetch_tool_result",
		"code_execution_tool_result", "bash_code_execution_tool_result", "text_editor_code_execution_tool_result", "tool_search_tool_result", "container_upload")...)
	return append(rows, refusedVariants(at+"[]", whyNoEqualO+"; send it as text", "search_result")...)
}
