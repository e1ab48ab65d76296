// SPDX-License-Identifier: Apache-2.0

package translate

// Reasons that several rows share.
const (
	whyNoEqual     = "Anthropic's messages have no equal"
	whySampling    = "Anthropic samples without it; the answer would be another"
	whyFunctions   = "deprecated by OpenAI; use tools and tool_choice"
	whyCustomTool  = "a tool with free text as input: Anthropic's tools take JSON objects"
	whyAudio       = "Anthropic's messages have no audio"
	whyCacheAuto   = "Anthropic caches where cache_control says so, not by key or lifetime"
	whyName        = "Anthropic's messages have no names of participants; put it into the text"
	whyReasoningIn = "text without a signature: Anthropic takes back its own thinking only; send thinking_blocks"
	extReasoning   = "OpenAI-compatible servers (DeepSeek, vLLM)"
	extBlocks      = "gateways: Anthropic's blocks kept whole, with their signatures"
	extStream      = "the SDKs set it by the method that is called"
)

// openAIRequest is ChatCompletionNewParams of openai-go, on its way to Anthropic.
var openAIRequest = newTable("Request: OpenAI chat completions to Anthropic messages", OpenAIChat, AnthropicMessages, []Row{
	{Path: "model", Kinds: String, Do: Transformed, To: "model", Why: "the name to send upstream, where the caller of this package gives one", Need: true},
	{Path: "messages", Kinds: Array, Do: Transformed, To: "system, messages", Need: true, By: "role",
		Why: "leading instructions go to system; tool results and what the user says after them become one user message; a last message of the assistant is refused, since it would be continued and not answered"},
	{Path: "max_tokens", Kinds: Integer, Do: Carried, To: "max_tokens", Why: "if both limits are given they have to be the same"},
	{Path: "max_completion_tokens", Kinds: Integer, Do: Transformed, To: "max_tokens", Why: "renamed; without any limit the default of the route is sent, since Anthropic demands one"},
	{Path: "temperature", Kinds: Number, Do: Transformed, To: "temperature", Why: "0 to 1 carried; above 1 refused, Anthropic's range ends there"},
	{Path: "top_p", Kinds: Number, Do: Carried, To: "top_p"},
	{Path: "stop", Kinds: String | Array, Do: Transformed, To: "stop_sequences", Why: "one string becomes a list"},
	{Path: "stop[]", Kinds: String, Do: Carried},
	{Path: "stream", Kinds: Bool, Do: Carried, To: "stream", Extension: extStream},
	{Path: "stream_options", Kinds: Object, Do: Transformed, Why: "this translation does it: Anthropic's streams always tell the usage"},
	{Path: "stream_options.include_usage", Kinds: Bool, Do: Transformed, Why: "the stream ends with a usage chunk if asked"},
	{Path: "stream_options.include_obfuscation", Kinds: Bool, Do: Ignored, Unless: "false", Why: "streams are not padded"},
	{Path: "n", Kinds: Integer, Do: Refused, Unless: "1", Why: "Anthropic gives one answer to a call"},
	{Path: "logprobs", Kinds: Bool, Do: Refused, Unless: "false", Why: "Anthropic does not tell log probabilities"},
	{Path: "top_logprobs", Kinds: Integer, Do: Refused, Unless: "0", Why: "Anthropic does not tell log probabilities"},
	{Path: "frequency_penalty", Kinds: Number, Do: Refused, Unless: "0", Why: whySampling},
	{Path: "presence_penalty", Kinds: Number, Do: Refused, Unless: "0", Why: whySampling},
	{Path: "logit_bias", Kinds: Object, Do: Refused, Unless: "{}", Why: whySampling},
	{Path: "seed", Kinds: Integer, Do: Ignored, Why: "best effort at OpenAI, nothing at Anthropic"},
	{Path: "user", Kinds: String, Do: Transformed, To: "metadata.user_id", Why: "unless safety_identifier is given"},
	{Path: "safety_identifier", Kinds: String, Do: Transformed, To: "metadata.user_id", Why: "renamed"},
	{Path: "metadata", Kinds: Object, Do: Ignored, Unless: "{}", Why: "it labels what OpenAI stores; nothing is stored"},
	{Path: "store", Kinds: Bool, Do: Refused, Unless: "false", Why: "Anthropic stores no answers"},
	{Path: "service_tier", Kinds: String, Do: Transformed, To: "service_tier", Why: "auto stays, default becomes standard_only; others are refused"},
	{Path: "prompt_cache_key", Kinds: String, Do: Ignored, Why: whyCacheAuto},
	{Path: "prompt_cache_retention", Kinds: String, Do: Ignored, Why: whyCacheAuto},
	{Path: "prompt_cache_options", Kinds: Object, Do: Ignored, Why: whyCacheAuto},
	{Path: "reasoning_effort", Kinds: String, Do: Transformed, To: "output_config.effort, thinking",
		Why: "low, medium, high, xhigh and max stay; minimal becomes low; none becomes thinking of type disabled"},
	{Path: "verbosity", Kinds: String, Do: Refused, Unless: `"medium"`, Why: whyNoEqual + "; say it in the prompt"},
	{Path: "modalities", Kinds: Array, Do: Refused, Unless: `["text"]`, Why: "Anthropic answers in text alone"},
	{Path: "audio", Kinds: Object, Do: Refused, Why: whyAudio},
	{Path: "moderation", Kinds: Object, Do: Refused, Why: whyNoEqual},
	{Path: "prediction", Kinds: Object, Do: Ignored, Why: "it makes answers faster and changes nothing in them"},
	{Path: "web_search_options", Kinds: Object, Do: Refused, Why: "a search that the provider makes on its side"},
	{Path: "functions", Kinds: Array, Do: Refused, Unless: "[]", Why: whyFunctions},
	{Path: "function_call", Kinds: String | Object, Do: Refused, Why: whyFunctions},

	{Path: "response_format", Kinds: Object, Do: Transformed, To: "output_config.format", Why: "by type"},
	{Path: "response_format<json_schema>.json_schema", Kinds: Object, Do: Transformed, To: "output_config.format", Why: "the schema moves up", Need: true},
	{Path: "response_format<json_schema>.json_schema.schema", Kinds: Object, Do: Carried, To: "output_config.format.schema", Need: true, Opaque: true},
	{Path: "response_format<json_schema>.json_schema.name", Kinds: String, Do: Ignored, Why: "Anthropic's formats have no name"},
	{Path: "response_format<json_schema>.json_schema.description", Kinds: String, Do: Ignored, Why: "Anthropic's formats have no description; put it into the schema"},
	{Path: "response_format<json_schema>.json_schema.strict", Kinds: Bool, Do: Ignored, Unless: "true", Why: "Anthropic's formats are always enforced"},
	{Path: "response_format<json_object>", Kinds: Object, Do: Refused, Why: "Anthropic has no JSON without a schema; use json_schema"},
	{Path: "response_format<text>", Kinds: Object, Do: Carried, Why: "it is how Anthropic answers anyway"},

	{Path: "tools", Kinds: Array, Do: Transformed, To: "tools", Why: "functions lose one level"},
	{Path: "tools[]<function>.function", Kinds: Object, Do: Transformed, To: "tools[]", Why: "its fields move up", Need: true},
	{Path: "tools[]<function>.function.name", Kinds: String, Do: Carried, To: "tools[].name", Need: true},
	{Path: "tools[]<function>.function.description", Kinds: String, Do: Carried, To: "tools[].description"},
	{Path: "tools[]<function>.function.parameters", Kinds: Object, Do: Transformed, To: "tools[].input_schema", Opaque: true,
		Why: "carried; a schema without a type, or none at all, becomes one of type object, any other type is refused"},
	{Path: "tools[]<function>.function.strict", Kinds: Bool, Do: Carried, To: "tools[].strict"},
	{Path: "tools[]<custom>", Kinds: Object, Do: Refused, Why: whyCustomTool},
	{Path: "tool_choice", Kinds: String | Object, Do: Transformed, To: "tool_choice", Why: "auto, none and required become auto, none and any"},
	{Path: "tool_choice<function>.function", Kinds: Object, Do: Transformed, To: "tool_choice", Why: "the name moves up", Need: true},
	{Path: "tool_choice<function>.function.name", Kinds: String, Do: Carried, To: "tool_choice.name", Need: true},
	{Path: "tool_choice<allowed_tools>", Kinds: Object, Do: Refused, Why: whyNoEqual + "; send the allowed tools alone"},
	{Path: "tool_choice<custom>", Kinds: Object, Do: Refused, Why: whyCustomTool},
	{Path: "parallel_tool_calls", Kinds: Bool, Do: Transformed, To: "tool_choice.disable_parallel_tool_use", Why: "negated; with tool_choice none there is nothing to say"},
}, openAIInstructions("system"), openAIInstructions("developer"), openAIUser, openAIAssistant, openAITool)

// openAITextPart is a text part and what marks the end of a cached prefix.
func openAITextPart(at string) []Row {
	return append([]Row{
		{Path: at + "<text>.text", Kinds: String, Do: Carried, To: "text", Need: true},
	}, openAIBreakpoint(at+"<text>")...)
}

func openAIBreakpoint(at string) []Row {
	return []Row{
		{Path: at + ".prompt_cache_breakpoint", Kinds: Object, Do: Transformed, To: "cache_control", Why: "becomes ephemeral, with Anthropic's five minutes"},
		{Path: at + ".prompt_cache_breakpoint.mode", Kinds: String, Do: Transformed, To: "cache_control.type", Why: "explicit is the only one", Need: true},
		{Path: at + ".prompt_cache_breakpoint.ttl", Kinds: String, Do: Ignored, Why: whyCacheAuto},
	}
}

func openAIInstructions(role string) []Row {
	at := "messages[]<" + role + ">"
	how := "at the start: a block of system; later: a message of role system where the model takes one, else refused"
	return append([]Row{
		{Path: at + ".content", Kinds: String | Array, Do: Transformed, To: "system, messages[].content", Why: how, Need: true},
		{Path: at + ".name", Kinds: String, Do: Ignored, Why: whyName},
	}, openAITextPart(at+".content[]")...)
}

var openAIUser = func() []Row {
	at := "messages[]<user>.content[]"
	rows := append([]Row{
		{Path: "messages[]<user>.content", Kinds: String | Array, Do: Carried, To: "messages[].content", Need: true},
		{Path: "messages[]<user>.name", Kinds: String, Do: Ignored, Why: whyName},
		{Path: at + "<image_url>.image_url", Kinds: Object, Do: Transformed, To: "source", Why: "one level less", Need: true},
		{Path: at + "<image_url>.image_url.url", Kinds: String, Do: Transformed, To: "source", Need: true,
			Why: "a data URL of base64 JPEG, PNG, GIF or WebP becomes a base64 source, http and https a url source; others are refused"},
		{Path: at + "<image_url>.image_url.detail", Kinds: String, Do: Ignored, Unless: `"auto"`, Why: "Anthropic scales images itself"},
		{Path: at + "<file>.file", Kinds: Object, Do: Transformed, To: "a block of type document", Why: "one level less", Need: true},
		{Path: at + "<file>.file.file_data", Kinds: String, Do: Transformed, To: "source", Why: "a data URL of a base64 PDF; others are refused", Need: true},
		{Path: at + "<file>.file.filename", Kinds: String, Do: Carried, To: "title"},
		{Path: at + "<file>.file.file_id", Kinds: String, Do: Refused, Why: "a file that lies at OpenAI; send its bytes"},
		{Path: at + "<input_audio>", Kinds: Object, Do: Refused, Why: whyAudio},
	}, openAITextPart(at)...)
	rows = append(rows, openAIBreakpoint(at+"<image_url>")...)
	return append(rows, openAIBreakpoint(at+"<file>")...)
}()

var openAIAssistant = append([]Row{
	{Path: "messages[]<assistant>.content", Kinds: String | Array, Do: Carried, To: "messages[].content", Why: "empty text is left out: Anthropic refuses it"},
	{Path: "messages[]<assistant>.content[]<refusal>.refusal", Kinds: String, Do: Transformed, To: "text", Why: "a refusal is text at Anthropic", Need: true},
	{Path: "messages[]<assistant>.refusal", Kinds: String, Do: Transformed, To: "a block of type text", Why: "a refusal is text at Anthropic"},
	{Path: "messages[]<assistant>.name", Kinds: String, Do: Ignored, Why: whyName},
	{Path: "messages[]<assistant>.audio", Kinds: Object, Do: Refused, Why: whyAudio},
	{Path: "messages[]<assistant>.function_call", Kinds: Object, Do: Refused, Why: whyFunctions},
	{Path: "messages[]<assistant>.tool_calls", Kinds: Array, Do: Transformed, To: "blocks of type tool_use", Why: "after the text", Else: "function"},
	{Path: "messages[]<assistant>.tool_calls[]<function>.id", Kinds: String, Do: Transformed, To: "id", Need: true,
		Why: "carried; one with other signs than letters, digits, _ and - is sent as hex_ and its bytes in hexadecimal"},
	{Path: "messages[]<assistant>.tool_calls[]<function>.function", Kinds: Object, Do: Transformed, Why: "one level less", Need: true},
	{Path: "messages[]<assistant>.tool_calls[]<function>.function.name", Kinds: String, Do: Carried, To: "name", Need: true},
	{Path: "messages[]<assistant>.tool_calls[]<function>.function.arguments", Kinds: String, Do: Transformed, To: "input", Need: true,
		Why: "the JSON object that the string holds, byte by byte; an empty string is {}; anything else is refused"},
	{Path: "messages[]<assistant>.tool_calls[]<custom>", Kinds: Object, Do: Refused, Why: whyCustomTool},
	{Path: "messages[]<assistant>.reasoning_content", Kinds: String, Do: Ignored, Unless: `""`, Why: whyReasoningIn, Extension: extReasoning},
	{Path: "messages[]<assistant>.thinking_blocks", Kinds: Array, Do: Carried, To: "blocks of type thinking and redacted_thinking", Why: "before the text, unchanged", Extension: extBlocks},
	{Path: "messages[]<assistant>.thinking_blocks[]<thinking>.thinking", Kinds: String, Do: Carried, To: "thinking", Need: true, Extension: extBlocks},
	{Path: "messages[]<assistant>.thinking_blocks[]<thinking>.signature", Kinds: String, Do: Carried, To: "signature", Need: true, Extension: extBlocks},
	{Path: "messages[]<assistant>.thinking_blocks[]<redacted_thinking>.data", Kinds: String, Do: Carried, To: "data", Need: true, Extension: extBlocks},
}, openAITextPart("messages[]<assistant>.content[]")...)

var openAITool = append([]Row{
	{Path: "messages[]<tool>.tool_call_id", Kinds: String, Do: Transformed, To: "tool_use_id", Why: "as the id of the call", Need: true},
	{Path: "messages[]<tool>.content", Kinds: String | Array, Do: Carried, To: "content of a block of type tool_result", Need: true},
	{Path: "messages[]<function>", Kinds: Object, Do: Refused, Why: whyFunctions},
}, openAITextPart("messages[]<tool>.content[]")...)
