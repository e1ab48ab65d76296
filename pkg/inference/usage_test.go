// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/price"
)

// units makes a usage of what is not zero.
func units(pairs ...uint64) (u price.Usage) {
	for i := 0; i < len(pairs); i += 2 {
		u[pairs[i]] = pairs[i+1]
	}
	return u
}

const (
	uIn, uCached, uShort, uLong, uAudioIn, uImageIn = uint64(price.Input), uint64(price.CachedInput), uint64(price.CacheWrite5m), uint64(price.CacheWrite1h), uint64(price.AudioInput), uint64(price.ImageInput)
	uOut, uReason, uAudioOut, uImageOut             = uint64(price.Output), uint64(price.Reasoning), uint64(price.AudioOutput), uint64(price.ImageOutput)
	uImage, uSearch                                 = uint64(price.Image), uint64(price.WebSearch)
)

var usageStreams = []struct {
	name, body string
	sse        bool
	want       price.Usage
	reported   bool
}{
	{"chat document", `{"id":"x","choices":[{"message":{"content":"hi","usage":{"prompt_tokens":99}}}],"usage":{"prompt_tokens":11,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":3}}}`,
		false, units(uIn, 8, uCached, 3, uOut, 7), true},
	{"chat with everything", `{"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,"prompt_tokens_details":{"cached_tokens":40,"audio_tokens":10,"image_tokens":5,"cache_write_tokens":20},"completion_tokens_details":{"reasoning_tokens":30,"audio_tokens":8,"accepted_prediction_tokens":1}}}`,
		false, units(uIn, 25, uCached, 40, uShort, 20, uAudioIn, 10, uImageIn, 5, uOut, 12, uReason, 30, uAudioOut, 8), true},
	{"reasoning beside the completion", `{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":45,"completion_tokens_details":{"reasoning_tokens":30}}}`,
		false, units(uIn, 10, uOut, 5, uReason, 30), true},
	{"parts larger than the whole", `{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":8,"audio_tokens":8},"completion_tokens_details":{"reasoning_tokens":30}}}`,
		false, units(uCached, 8, uAudioIn, 2, uReason, 5), true},
	{"DeepSeek's cache", `{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_cache_hit_tokens":6,"prompt_cache_miss_tokens":4}}`,
		false, units(uIn, 4, uCached, 6, uOut, 5), true},
	{"embeddings", `{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":9,"total_tokens":9}}`, false, units(uIn, 9), true},
	{"usage first", `{"usage":{"prompt_tokens":1,"completion_tokens":2},"choices":[]}`, false, units(uIn, 1, uOut, 2), true},
	{"usage null", `{"usage":null,"choices":[]}`, false, units(), false},
	{"usage in text", `{"choices":[{"message":{"content":"{\"usage\":{\"prompt_tokens\":5}}"}}]}`, false, units(), false},
	{"usage of a tool", `{"output":[{"usage":{"input_tokens":5}}]}`, false, units(), false},
	{"usage of an element", `["usage",{"usage":1},{"prompt_tokens":5},{"a":{"usage":{"prompt_tokens":5}}}]`, false, units(), false},
	{"Anthropic document", `{"type":"message","usage":{"input_tokens":6,"cache_creation_input_tokens":2,"cache_read_input_tokens":3,"output_tokens":7}}`,
		false, units(uIn, 6, uShort, 2, uCached, 3, uOut, 7), true},
	{"Anthropic caches of both kinds", `{"type":"message","usage":{"input_tokens":6,"cache_creation_input_tokens":12,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":2,"ephemeral_1h_input_tokens":10},"output_tokens":70,"output_tokens_details":{"thinking_tokens":50},"server_tool_use":{"web_search_requests":2,"web_fetch_requests":1}}}`,
		false, units(uIn, 6, uShort, 2, uLong, 10, uOut, 20, uReason, 50, uSearch, 2), true},
	{"chat stream", "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}}\n\ndata: [DONE]\n\n",
		true, units(uIn, 11, uOut, 7), true},
	{"Anthropic stream", "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":6,\"cache_read_input_tokens\":3,\"output_tokens\":1}}}\n\n" +
		"event: message_delta\r\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":7}}\r\n\r\n", true, units(uIn, 6, uCached, 3, uOut, 7), true},
	{"Responses stream", "event: response.completed\ndata:{\"type\":\"response.completed\",\"response\":{\"output\":[{}],\"usage\":{\"input_tokens\":11,\"output_tokens\":7,\"input_tokens_details\":{\"cached_tokens\":3},\"output_tokens_details\":{\"reasoning_tokens\":2}}}}\n\n",
		true, units(uIn, 8, uCached, 3, uOut, 5, uReason, 2), true},
	{"Responses document with searches", `{"object":"response","output":[{"type":"web_search_call","action":{"type":"search"}},{"type":"message","content":[{"type":"output_text","text":"web_search_call"}]},{"status":"completed","type":"web_search_call"}],"tools":[{"type":"web_search_call"}],"usage":{"input_tokens":11,"output_tokens":7,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":6,"cache_write_tokens_details":{"ttl_30m_tokens":2,"ttl_12h_tokens":4}}}}`,
		false, units(uIn, 5, uShort, 2, uLong, 4, uOut, 7, uSearch, 2), true},
	{"searches of a stream are counted once", "data: {\"response\":{\"output\":[{\"type\":\"web_search_call\"}]}}\n\ndata: {\"response\":{\"output\":[{\"type\":\"web_search_call\"}],\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n",
		true, units(uIn, 1, uOut, 1, uSearch, 1), true},
	{"images document", `{"created":1,"data":[{"b64_json":"aa"},{"b64_json":"bb"}],"usage":{"total_tokens":100,"input_tokens":50,"output_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}}`,
		false, units(uIn, 10, uImageIn, 40, uOut, 50), true},
	{"Gemini document", `{"candidates":[{"content":{"parts":[{"text":"x"}]}}],"usageMetadata":{"promptTokenCount":100,"cachedContentTokenCount":40,"candidatesTokenCount":20,"thoughtsTokenCount":30,"toolUsePromptTokenCount":7,"totalTokenCount":157,"promptTokensDetails":[{"modality":"TEXT","tokenCount":80},{"modality":"AUDIO","tokenCount":20}],"cacheTokensDetails":[{"modality":"AUDIO","tokenCount":5}],"candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":15}]}}`,
		false, units(uIn, 52, uCached, 40, uAudioIn, 15, uOut, 5, uReason, 30, uImageOut, 15), true},
	{"Gemini stream as an array", `[{"candidates":[],"usageMetadata":{"promptTokenCount":5,"totalTokenCount":5}},
{"candidates":[],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":9,"totalTokenCount":14}}]`, false, units(uIn, 5, uOut, 9), true},
	{"data over two lines, carriage returns, a comment and a mark", "\xef\xbb\xbf: hello\rdata: {\"usage\":\rdata: {\"prompt_tokens\":4}}\r\r", true, units(uIn, 4), true},
	{"not JSON", "data: usage {{{ ]]\n\ndata: {\"usage\":{\"prompt_tokens\":4}}\n\n", true, units(uIn, 4), true},
	{"hostile figures", `{"usage":{"prompt_tokens":-5,"completion_tokens":1e300,"total_tokens":"x","input_tokens_details":[]}}`, false, units(), true},
}

// read is what a meter made of an answer.
func (m *meter) read() price.Usage {
	m.json.count()
	u := m.json.got.usage()
	u[price.WebSearch] = max(u[price.WebSearch], m.json.searches)
	return u
}

func TestUsageIsReadHoweverItIsCut(t *testing.T) {
	for _, c := range usageStreams {
		for size := 1; size <= len(c.body); size++ {
			m := newMeter(c.sse, "chat")
			for b := c.body; b != ""; {
				n := min(size, len(b))
				m.feed([]byte(b[:n]))
				b = b[n:]
			}
			if m.read() != c.want || m.json.got.reported != c.reported {
				t.Errorf("%s in pieces of %d: %+v reported=%v, want %+v", c.name, size, m.read(), m.json.got.reported, c.want)
				break
			}
		}
	}
}

func TestUsageMemoryIsBounded(t *testing.T) {
	m := newMeter(true, "chat")
	m.feed([]byte("data: {\"usage\":{\"x\":\"" + strings.Repeat("a", 1<<20) + "\"},\"" + strings.Repeat("k", 1<<20) + "\":" + strings.Repeat("[", 1<<16) + "\n\n" + strings.Repeat("f", 1<<20)))
	if cap(m.json.catch) > 4*maxUsage || cap(m.json.key) > 4*maxKey || cap(m.json.value) > 4*maxKey || cap(m.sse.field) > 64 {
		t.Errorf("held %d, %d, %d bytes", cap(m.json.catch), cap(m.json.key), cap(m.sse.field))
	}
	m.feed([]byte("\n\ndata: {\"usage\":{\"prompt_tokens\":2}}\n\n"))
	if m.json.got.prompt != 2 {
		t.Errorf("did not recover: %+v", m.json.got)
	}
}

func FuzzUsageReader(f *testing.F) {
	for _, c := range usageStreams {
		f.Add([]byte(c.body), uint8(3), c.sse)
	}
	f.Fuzz(func(t *testing.T, body []byte, size uint8, sse bool) {
		whole, cut := newMeter(sse, "chat"), newMeter(sse, "chat")
		whole.feed(body)
		for b := body; len(b) > 0; {
			n := min(int(size)+1, len(b))
			cut.feed(b[:n])
			b = b[n:]
		}
		if whole.read() != cut.read() || whole.json.got != cut.json.got || whole.json.text != cut.json.text || whole.json.pictures != cut.json.pictures {
			t.Fatalf("cut changes the figures: %+v %v, %+v %v", whole.json.got, whole.json.text, cut.json.got, cut.json.text)
		}
		if len(whole.json.catch) > maxUsage {
			t.Fatalf("held %d bytes", len(whole.json.catch))
		}
	})
}
