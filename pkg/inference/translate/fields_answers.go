// SPDX-License-Identifier: Apache-2.0

package translate

const (
	whyStamp    = "tells about Anthropic's side; OpenAI's answers have no such field"
	whyStampO   = "tells about OpenAI's side; Anthropic's answers have no such field"
	whyNotAsked = "no request that this translation makes asks for it"
	extKnown    = "sent, but in no type of the SDK"
)

// anthropicUsage is the counts; in a stream some of them come again at its end.
var anthropicUsage = []Row{
	{Path: "input_tokens", Kinds: Integer, Do: Transformed, To: "usage.prompt_tokens", Why: "plus what was read from and written to the cache"},
	{Path: "output_tokens", Kinds: Integer, Do: Carried, To: "usage.completion_tokens"},
	{Path: "cache_read_input_tokens", Kinds: Integer, Do: Carried, To: "usage.prompt_tokens_details.cached_tokens"},
	{Path: "cache_creation_input_tokens", Kinds: Integer, Do: Carried, To: "usage.prompt_tokens_details.cache_write_tokens"},
	{Path: "output_tokens_details", Kinds: Object, Do: Transformed, Why: "its field moves"},
	{Path: "output_tokens_details.thinking_tokens", Kinds: Integer, Do: Carried, To: "usage.completion_tokens_details.reasoning_tokens"},
	{Path: "server_tool_use", Kinds: Object, Do: Ignored, Why: whyNotAsked},
}

var anthropicStop = []Row{
	{Path: "stop_reason", Kinds: String, Do: Transformed, To: "choices[].finish_reason",
		Why: "end_turn, stop_sequence: stop; max_tokens, model_context_window_exceeded: length; tool_use: tool_calls; refusal: content_filter; others: stop, with a note"},
	{Path: "stop_sequence", Kinds: String, Do: Ignored, Why: "OpenAI does not tell which sequence stopped it"},
	{Path: "stop_details", Kinds: Object, Do: Transformed, Why: "its explanation moves"},
	{Path: "stop_details.type", Kinds: String, Do: Ignored, Unless: `"refusal"`, Why: whyStamp},
	{Path: "stop_details.explanation", Kinds: String, Do: Transformed, To: "choices[].message.refusal", Why: "of a refusal"},
	{Path: "stop_details.category", Kinds: String, Do: Ignored, Why: whyStamp},
	{Path: "container", Kinds: Object, Do: Ignored, Why: whyNotAsked},
}

// anthropicBlock is a block of an answer; the SDK has one type for all kinds.
var anthropicBlock = []Row{
	{Path: "type", Kinds: String, Do: Transformed, Why: "text, thinking, redacted_thinking and tool_use move; others are dropped with a note"},
	{Path: "text", Kinds: String, Do: Carried, To: "content", Why: "texts of several blocks follow each other"},
	{Path: "citations", Kinds: Array, Do: Ignored, Unless: "[]", Why: whyCitations},
	{Path: "thinking", Kinds: String, Do: Carried, To: "reasoning_content, thinking_blocks[].thinking"},
	{Path: "signature", Kinds: String, Do: Carried, To: "thinking_blocks[].signature"},
	{Path: "data", Kinds: String, Do: Carried, To: "thinking_blocks[].data"},
	{Path: "id", Kinds: String, Do: Carried, To: "tool_calls[].id"},
	{Path: "name", Kinds: String, Do: Carried, To: "tool_calls[].function.name"},
	{Path: "input", Kinds: Object, Do: Transformed, To: "tool_calls[].function.arguments", Why: "as a string, byte by byte", Opaque: true},
	{Path: "caller", Kinds: Object, Do: Ignored, Unless: `{"type":"direct"}`, Why: whyNotAsked},
	{Path: "toolset_name", Kinds: String, Do: Ignored, Why: whyNotAsked},
	{Path: "content", Kinds: Any, Do: Ignored, Why: whyNotAsked},
	{Path: "tool_use_id", Kinds: String, Do: Ignored, Why: whyNotAsked},
	{Path: "file_id", Kinds: String, Do: Ignored, Why: whyNotAsked},
}

var anthropicMessage = append(append(append([]Row{
	{Path: "id", Kinds: String, Do: Carried, To: "id"},
	{Path: "type", Kinds: String, Do: Transformed, To: "object", Why: "chat.completion"},
	{Path: "role", Kinds: String, Do: Carried, To: "choices[].message.role"},
	{Path: "model", Kinds: String, Do: Transformed, To: "model", Why: "the name that the client asked for"},
	{Path: "diagnostics", Kinds: Object, Do: Ignored, Why: whyStamp},
	{Path: "content", Kinds: Array, Do: Transformed, To: "choices[].message", Why: "by the type of each block"},
	{Path: "usage", Kinds: Object, Do: Transformed, To: "usage", Why: "OpenAI's prompt_tokens include what is cached, Anthropic's input_tokens do not"},
	{Path: "usage.cache_creation", Kinds: Object, Do: Ignored, Why: "OpenAI does not tell lifetimes of what was cached"},
	{Path: "usage.inference_geo", Kinds: String, Do: Ignored, Why: whyStamp},
	{Path: "usage.service_tier", Kinds: String, Do: Transformed, To: "service_tier", Why: "standard: default; priority: priority; batch: dropped with a note"},
	{Path: "usage.speed", Kinds: String, Do: Ignored, Why: whyStamp},
}, under("content[]", anthropicBlock)...), under("usage", anthropicUsage)...), anthropicStop...)

var anthropicAnswer = newTable("Answer: Anthropic message to OpenAI chat completion", AnthropicMessages, OpenAIChat, anthropicMessage)

// anthropicEvents is the events of a stream, by type.
var anthropicEvents = newTable("Stream: Anthropic events to OpenAI chunks", AnthropicMessages, OpenAIChat, []Row{
	{Path: "<message_start>.message", Kinds: Object, Do: Transformed, Why: "the first chunk, with the role", Need: true},
	{Path: "<content_block_start>.index", Kinds: Integer, Do: Transformed, Why: "tool calls are counted on their own", Need: true},
	{Path: "<content_block_start>.content_block", Kinds: Object, Do: Transformed, To: "choices[].delta", Why: "a tool call's id and name; blocks of text need none", Need: true},
	{Path: "<content_block_delta>.index", Kinds: Integer, Do: Transformed, Why: "tool calls are counted on their own", Need: true},
	{Path: "<content_block_delta>.delta", Kinds: Object, Do: Transformed, To: "choices[].delta", Why: "by type", Need: true},
	{Path: "<content_block_delta>.delta.type", Kinds: String, Do: Transformed, Why: "the name of OpenAI's field", Need: true},
	{Path: "<content_block_delta>.delta.text", Kinds: String, Do: Carried, To: "choices[].delta.content"},
	{Path: "<content_block_delta>.delta.partial_json", Kinds: String, Do: Carried, To: "choices[].delta.tool_calls[].function.arguments"},
	{Path: "<content_block_delta>.delta.thinking", Kinds: String, Do: Carried, To: "choices[].delta.reasoning_content"},
	{Path: "<content_block_delta>.delta.signature", Kinds: String, Do: Carried, To: "choices[].delta.thinking_blocks[].signature", Why: "with the whole block, where it ends"},
	{Path: "<content_block_delta>.delta.citation", Kinds: Object, Do: Ignored, Why: whyCitations},
	{Path: "<content_block_stop>.index", Kinds: Integer, Do: Transformed, Why: "a thinking block is sent whole; a call without arguments gets {}", Need: true},
	{Path: "<message_delta>.delta", Kinds: Object, Do: Transformed, Why: "the chunk with finish_reason", Need: true},
	{Path: "<message_delta>.usage", Kinds: Object, Do: Transformed, To: "usage", Why: "a chunk of its own at the end, if the client asked for it"},
	{Path: "<message_stop>", Kinds: Object, Do: Transformed, Why: "[DONE]"},
	{Path: "<ping>", Kinds: Object, Do: Transformed, Why: "nothing is sent for it: OpenAI's streams have none", Extension: extKnown},
	{Path: "<error>.error", Kinds: Object, Do: Transformed, To: "error", Why: "as an error answer; the stream ends with it", Opaque: true, Need: true, Extension: extKnown},
	{Path: "<error>.request_id", Kinds: String, Do: Ignored, Why: whyStamp, Extension: extKnown},
}, under("<message_start>.message", anthropicMessage),
	under("<content_block_start>.content_block", anthropicBlock),
	under("<message_delta>.delta", anthropicStop), under("<message_delta>.usage", anthropicUsage))

var openAIUsage = []Row{
	{Path: "usage", Kinds: Object, Do: Transformed, To: "usage", Why: "Anthropic's input_tokens exclude what is cached, OpenAI's prompt_tokens include it"},
	{Path: "usage.prompt_tokens", Kinds: Integer, Do: Transformed, To: "usage.input_tokens", Why: "less what was read from and written to the cache"},
	{Path: "usage.completion_tokens", Kinds: Integer, Do: Carried, To: "usage.output_tokens"},
	{Path: "usage.total_tokens", Kinds: Integer, Do: Transformed, Why: "Anthropic leaves the sum to the reader"},
	{Path: "usage.prompt_tokens_details", Kinds: Object, Do: Transformed, Why: "its fields move"},
	{Path: "usage.prompt_tokens_details.cached_tokens", Kinds: Integer, Do: Carried, To: "usage.cache_read_input_tokens"},
	{Path: "usage.prompt_tokens_details.cache_write_tokens", Kinds: Integer, Do: Carried, To: "usage.cache_creation_input_tokens"},
	{Path: "usage.prompt_tokens_details.audio_tokens", Kinds: Integer, Do: Ignored, Unless: "0", Why: whyStampO},
	{Path: "usage.prompt_tokens_details.image_tokens", Kinds: Integer, Do: Ignored, Unless: "0", Why: whyStampO},
	{Path: "usage.prompt_tokens_details.text_tokens", Kinds: Integer, Do: Ignored, Unless: "0", Why: whyStampO},
	{Path: "usage.completion_tokens_details", Kinds: Object, Do: Transformed, Why: "its field moves"},
	{Path: "usage.completion_tokens_details.reasoning_tokens", Kinds: Integer, Do: Carried, To: "usage.output_tokens_details.thinking_tokens"},
	{Path: "usage.completion_tokens_details.audio_tokens", Kinds: Integer, Do: Ignored, Unless: "0", Why: whyStampO},
	{Path: "usage.completion_tokens_details.text_tokens", Kinds: Integer, Do: Ignored, Unless: "0", Why: whyStampO},
	{Path: "usage.completion_tokens_details.accepted_prediction_tokens", Kinds: Integer, Do: Ignored, Unless: "0", Why: whyStampO},
	{Path: "usage.completion_tokens_details.rejected_prediction_tokens", Kinds: Integer, Do: Ignored, Unless: "0", Why: whyStampO},
}

// openAIStamp is the members that an answer and a chunk share.
var openAIStamp = append([]Row{
	{Path: "id", Kinds: String, Do: Carried, To: "id"},
	{Path: "object", Kinds: String, Do: Transformed, To: "type", Why: "message, or the events"},
	{Path: "created", Kinds: Number, Do: Ignored, Why: "Anthropic's answers have no time"},
	{Path: "model", Kinds: String, Do: Transformed, To: "model", Why: "the name that the client asked for"},
	{Path: "moderation", Kinds: Object, Do: Ignored, Why: whyNotAsked},
	{Path: "system_fingerprint", Kinds: String, Do: Ignored, Why: whyStampO},
	{Path: "choices", Kinds: Array, Do: Transformed, Why: "the first one; more are dropped with a note, no translated request asks for more"},
	{Path: "choices[].index", Kinds: Integer, Do: Transformed, Why: "0 is the one that counts"},
	{Path: "choices[].finish_reason", Kinds: String, Do: Transformed, To: "stop_reason",
		Why: "stop: end_turn, or tool_use where tools are called; length: max_tokens; tool_calls, function_call: tool_use; content_filter: refusal; others: end_turn, with a note"},
	{Path: "choices[].logprobs", Kinds: Object, Do: Ignored, Why: whyNotAsked},
}, openAIUsage...)

// openAIMessage is what an answer's message and a chunk's delta share.
var openAIMessage = []Row{
	{Path: "role", Kinds: String, Do: Carried, To: "role"},
	{Path: "content", Kinds: String, Do: Carried, To: "a block of type text"},
	{Path: "refusal", Kinds: String, Do: Transformed, To: "a block of type text", Why: "stop_reason is refusal"},
	{Path: "audio", Kinds: Object, Do: Ignored, Why: whyNotAsked},
	{Path: "function_call", Kinds: Object, Do: Ignored, Why: whyNotAsked},
	{Path: "tool_calls", Kinds: Array, Do: Transformed, To: "blocks of type tool_use", Why: "in their order"},
	{Path: "tool_calls[].id", Kinds: String, Do: Carried, To: "id", Why: "call_, the answer's id and a number where there is none"},
	{Path: "tool_calls[].type", Kinds: String, Do: Transformed, Why: "function is the only one"},
	{Path: "tool_calls[].function", Kinds: Object, Do: Transformed, Why: "one level less"},
	{Path: "tool_calls[].function.name", Kinds: String, Do: Carried, To: "name"},
	{Path: "reasoning_content", Kinds: String, Do: Transformed, To: "a block of type thinking", Why: "with a signature that says whose it is", Extension: extReasoning},
	{Path: "reasoning", Kinds: String, Do: Transformed, To: "a block of type thinking", Why: "as reasoning_content", Extension: "OpenAI-compatible servers (OpenRouter, Ollama)"},
	{Path: "thinking_blocks", Kinds: Array, Do: Carried, To: "blocks of type thinking and redacted_thinking", Extension: extBlocks},
	{Path: "thinking_blocks[].type", Kinds: String, Do: Carried, To: "type", Extension: extBlocks},
	{Path: "thinking_blocks[].thinking", Kinds: String, Do: Carried, To: "thinking", Extension: extBlocks},
	{Path: "thinking_blocks[].signature", Kinds: String, Do: Carried, To: "signature", Extension: extBlocks},
	{Path: "thinking_blocks[].data", Kinds: String, Do: Carried, To: "data", Extension: extBlocks},
}

var whyArguments = "the JSON object that the string holds; one cut off by the limit becomes {} with a note, anything else ends the call with an error"

var openAIAnswer = newTable("Answer: OpenAI chat completion to Anthropic message", OpenAIChat, AnthropicMessages, openAIStamp, []Row{
	{Path: "metadata", Kinds: Object, Do: Ignored, Unless: "{}", Why: whyNotAsked},
	{Path: "service_tier", Kinds: String, Do: Transformed, To: "usage.service_tier", Why: "default: standard; priority: priority; others: dropped with a note"},
	{Path: "choices[].message", Kinds: Object, Do: Transformed, To: "content", Why: "a block for each of its fields", Need: true},
	{Path: "choices[].message.annotations", Kinds: Array, Do: Ignored, Unless: "[]", Why: whyNotAsked},
	{Path: "choices[].message.tool_calls[].custom", Kinds: Object, Do: Ignored, Why: whyNotAsked},
	{Path: "choices[].message.tool_calls[].function.arguments", Kinds: String | Object, Do: Transformed, To: "input", Why: whyArguments, Opaque: true},
	{Path: "choices[].message.tool_calls[].index", Kinds: Integer, Do: Ignored, Why: "the place in the list says it", Extension: extReasoning},
}, under("choices[].message", openAIMessage))

var openAIChunks = newTable("Stream: OpenAI chunks to Anthropic events", OpenAIChat, AnthropicMessages, openAIStamp, []Row{
	{Path: "obfuscation", Kinds: String, Do: Ignored, Why: "padding"},
	{Path: "service_tier", Kinds: String, Do: Transformed, To: "message.usage.service_tier", Why: "of the first chunk, as in an answer"},
	{Path: "choices[].delta", Kinds: Object, Do: Transformed, To: "content_block_start, content_block_delta, content_block_stop", Why: "a block for each of its fields; the next begins where the one before ends"},
	{Path: "choices[].delta.tool_calls[].index", Kinds: Integer, Do: Transformed, To: "index", Why: "Anthropic counts all blocks; calls that come in turns are an error"},
	{Path: "choices[].delta.tool_calls[].function.arguments", Kinds: String | Object, Do: Carried, To: "partial_json", Opaque: true},
	{Path: "error", Kinds: Object | String, Do: Transformed, To: "an error event", Why: "as an error answer; the stream ends with it", Opaque: true, Extension: extKnown},
}, under("choices[].delta", openAIMessage))

var anthropicErrors = newTable("Error: Anthropic to OpenAI", AnthropicMessages, OpenAIChat, []Row{
	{Path: "type", Kinds: String, Do: Transformed, Why: "OpenAI's errors have one level"},
	{Path: "request_id", Kinds: String, Do: Ignored, Why: whyStamp},
	{Path: "error", Kinds: Object, Do: Transformed, To: "error", Why: "by type"},
	{Path: "error.type", Kinds: String, Do: Transformed, To: "error.type, error.code, status", Why: "see the page's last table"},
	{Path: "error.message", Kinds: String, Do: Carried, To: "error.message"},
})

var openAIErrors = newTable("Error: OpenAI to Anthropic", OpenAIChat, AnthropicMessages, []Row{
	{Path: "error", Kinds: Object, Do: Transformed, To: "error", Why: "by status, type and code", Extension: "the SDK reads what is below it"},
	{Path: "error.type", Kinds: String, Do: Transformed, To: "error.type, status", Why: "see the page's last table"},
	{Path: "error.code", Kinds: String | Integer, Do: Transformed, To: "error.type, status", Why: "see the page's last table"},
	{Path: "error.message", Kinds: String, Do: Carried, To: "error.message"},
	{Path: "error.param", Kinds: String, Do: Ignored, Why: "Anthropic's errors name fields in the message"},
})

// Tables is all of them, in the order of a call.
func Tables() []*Table {
	return []*Table{openAIRequest, anthropicAnswer, anthropicEvents, anthropicErrors,
		anthropicRequest, openAIAnswer, openAIChunks, openAIErrors}
}
