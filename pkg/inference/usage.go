// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"strings"

	"github.com/tidwall/gjson"

	"github.com/ringfence/ringfence/pkg/price"
)

// usage is what one call took.
type usage struct {
	price.Usage
	estimated bool // not all of it was reported by the provider
}

// meter reads usage out of an answer while it passes. Its memory is bounded
// whatever the answer's size: it never buffers more than one usage object.
type meter struct {
	sse  *sseReader
	json jsonUsage
	op   string // of the route
}

func newMeter(sse bool, op string) *meter {
	m := &meter{op: op}
	m.json.reset()
	if sse {
		m.sse = &sseReader{data: m.json.feed, end: m.json.reset}
	}
	return m
}

func (m *meter) feed(b []byte) {
	if m.sse != nil {
		m.sse.feed(b)
		return
	}
	m.json.feed(b)
}

// total returns the call's usage. Without a report in the answer the figures
// are counted from the text that went each way, and say so; after a broken
// answer too, since the last report may be missing.
func (m *meter) total(req *tape, broken bool) usage {
	m.json.count()
	u := usage{Usage: m.json.got.usage()}
	u.Usage[price.Request] = 1
	u.Usage[price.WebSearch] = max(u.Usage[price.WebSearch], m.json.searches)
	if m.op == opImages {
		u.Usage[price.Image] = max(1, m.json.pictures)
		if m.json.got.outKnown == 0 { // what it wrote is the picture
			u.Usage[price.ImageOutput] += u.Usage[price.Output]
			u.Usage[price.Output] = 0
		}
	}
	out := m.json.text.tokens()
	switch {
	case m.json.got.reported:
	case m.op == opImages:
		u.Usage[price.Input], u.estimated = requestTokens(req), true
	default:
		u.Usage[price.Input], u.Usage[price.Output], u.estimated = requestTokens(req), out, true
	}
	if broken {
		u.estimated = true
		if said := u.AnswerTokens(); out > said {
			u.Usage[price.Output] += out - said
		}
	}
	return u
}

const opImages = "images"

// figures are what the usage objects of one answer say, as they say it. Streams
// report more than once (Anthropic: input at the start, cumulative output with each
// delta): the largest figure of each kind is the call's.
type figures struct {
	reported bool
	apart    bool // Anthropic: the cache's tokens are not in prompt
	thinking bool // Gemini, xAI: reasoning is not in answer

	prompt, cached, write, writeShort, writeLong, audioIn, imageIn uint64
	answer, reasoning, audioOut, imageOut, outKnown                uint64
	searches                                                       uint64
}

// figure is one member of a usage object, by its path, and where it goes. Sources:
// the types CompletionUsage, ResponseUsage and ImagesResponseUsage of openai-go
// v3.96, Usage of anthropic-sdk-go v1.84, usageMetadata of the Gemini API; DeepSeek's
// prompt_cache_hit_tokens. OpenAI's caches of 30 minutes and 12 hours count as the
// short and the long one.
type figure struct {
	path string
	to   func(f *figures) *uint64
}

var figureTable = []figure{
	{"prompt_tokens", func(f *figures) *uint64 { return &f.prompt }},
	{"input_tokens", func(f *figures) *uint64 { return &f.prompt }},
	{"prompt_tokens_details.cached_tokens", func(f *figures) *uint64 { return &f.cached }},
	{"input_tokens_details.cached_tokens", func(f *figures) *uint64 { return &f.cached }},
	{"prompt_cache_hit_tokens", func(f *figures) *uint64 { return &f.cached }},
	{"cache_read_input_tokens", func(f *figures) *uint64 { return &f.cached }},
	{"cachedContentTokenCount", func(f *figures) *uint64 { return &f.cached }},
	{"prompt_tokens_details.cache_write_tokens", func(f *figures) *uint64 { return &f.write }},
	{"input_tokens_details.cache_write_tokens", func(f *figures) *uint64 { return &f.write }},
	{"cache_creation_input_tokens", func(f *figures) *uint64 { return &f.write }},
	{"cache_creation.ephemeral_5m_input_tokens", func(f *figures) *uint64 { return &f.writeShort }},
	{"input_tokens_details.cache_write_tokens_details.ttl_30m_tokens", func(f *figures) *uint64 { return &f.writeShort }},
	{"cache_creation.ephemeral_1h_input_tokens", func(f *figures) *uint64 { return &f.writeLong }},
	{"input_tokens_details.cache_write_tokens_details.ttl_12h_tokens", func(f *figures) *uint64 { return &f.writeLong }},
	{"prompt_tokens_details.audio_tokens", func(f *figures) *uint64 { return &f.audioIn }},
	{"prompt_tokens_details.image_tokens", func(f *figures) *uint64 { return &f.imageIn }},
	{"input_tokens_details.image_tokens", func(f *figures) *uint64 { return &f.imageIn }},
	{"completion_tokens", func(f *figures) *uint64 { return &f.answer }},
	{"output_tokens", func(f *figures) *uint64 { return &f.answer }},
	{"candidatesTokenCount", func(f *figures) *uint64 { return &f.answer }},
	{"completion_tokens_details.reasoning_tokens", func(f *figures) *uint64 { return &f.reasoning }},
	{"output_tokens_details.reasoning_tokens", func(f *figures) *uint64 { return &f.reasoning }},
	{"output_tokens_details.thinking_tokens", func(f *figures) *uint64 { return &f.reasoning }},
	{"thoughtsTokenCount", func(f *figures) *uint64 { return &f.reasoning }},
	{"completion_tokens_details.audio_tokens", func(f *figures) *uint64 { return &f.audioOut }},
	{"output_tokens_details.image_tokens", func(f *figures) *uint64 { return &f.imageOut }},
	{"output_tokens_details.image_tokens", func(f *figures) *uint64 { return &f.outKnown }},
	{"output_tokens_details.text_tokens", func(f *figures) *uint64 { return &f.outKnown }},
	{"server_tool_use.web_search_requests", func(f *figures) *uint64 { return &f.searches }},
}

// count reads a number of tokens; what is none is 0.
func count(v gjson.Result) uint64 {
	if v.Type == gjson.Number && v.Num > 0 && v.Num < 1<<53 {
		return uint64(v.Num)
	}
	return 0
}

// merge takes one usage object.
func (f *figures) merge(u gjson.Result) {
	var one figures
	for i := range figureTable {
		to := figureTable[i].to(&one)
		*to = max(*to, count(u.Get(figureTable[i].path)))
	}
	one.modalities(u)
	total := u.Get("total_tokens")
	one.apart = !u.Get("prompt_tokens").Exists() &&
		(u.Get("cache_read_input_tokens").Exists() || u.Get("cache_creation_input_tokens").Exists() || u.Get("cache_creation").Exists())
	one.thinking = u.Get("thoughtsTokenCount").Exists() ||
		one.reasoning > 0 && count(total) == one.prompt+one.answer+one.reasoning
	if one.prompt == 0 && one.answer == 0 && !total.Exists() && !u.Get("totalTokenCount").Exists() {
		return
	}
	f.reported, f.apart, f.thinking = true, f.apart || one.apart, f.thinking || one.thinking
	for i := range figureTable {
		to := figureTable[i].to(f)
		*to = max(*to, *figureTable[i].to(&one))
	}
}

// modalities reads the lists of the Gemini API. What its tools read for the model
// (toolUsePromptTokenCount) is not in promptTokenCount.
func (f *figures) modalities(u gjson.Result) {
	f.prompt += count(u.Get("promptTokenCount")) + count(u.Get("toolUsePromptTokenCount"))
	of := func(list, kind string) (n uint64) {
		u.Get(list).ForEach(func(_, v gjson.Result) bool {
			if strings.EqualFold(v.Get("modality").Str, kind) {
				n += count(v.Get("tokenCount"))
			}
			return true
		})
		return n
	}
	less := func(a, b uint64) uint64 { return a - min(a, b) }
	if v := less(of("promptTokensDetails", "AUDIO"), of("cacheTokensDetails", "AUDIO")); v > 0 {
		f.audioIn = v
	}
	if v := less(of("promptTokensDetails", "IMAGE"), of("cacheTokensDetails", "IMAGE")); v > 0 {
		f.imageIn = v
	}
	f.audioOut, f.imageOut = max(f.audioOut, of("candidatesTokensDetails", "AUDIO")), max(f.imageOut, of("candidatesTokensDetails", "IMAGE"))
}

// usage sorts the figures into units that do not overlap. A part that is larger than
// what it is a part of is cut.
func (f *figures) usage() (u price.Usage) {
	prompt, answer := f.prompt, f.answer
	if f.apart {
		prompt += f.cached + max(f.write, f.writeShort+f.writeLong)
	}
	if f.thinking {
		answer += f.reasoning
	}
	u[price.CachedInput] = take(&prompt, f.cached)
	u[price.CacheWrite1h] = take(&prompt, f.writeLong)
	u[price.CacheWrite5m] = take(&prompt, max(f.writeShort, f.write-min(f.write, f.writeLong)))
	u[price.AudioInput] = take(&prompt, f.audioIn)
	u[price.ImageInput] = take(&prompt, f.imageIn)
	u[price.Input] = prompt
	u[price.Reasoning] = take(&answer, f.reasoning)
	u[price.AudioOutput] = take(&answer, f.audioOut)
	u[price.ImageOutput] = take(&answer, f.imageOut)
	u[price.Output] = answer
	u[price.WebSearch] = f.searches
	return u
}

func take(from *uint64, n uint64) uint64 {
	n = min(n, *from)
	*from -= n
	return n
}
