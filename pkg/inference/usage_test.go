// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"strings"
	"testing"
)

var usageStreams = []struct {
	name, body string
	sse        bool
	want       usage
	reported   bool
}{
	{"chat document", `{"id":"x","choices":[{"message":{"content":"hi","usage":{"prompt_tokens":99}}}],"usage":{"prompt_tokens":11,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":3}}}`,
		false, usage{in: 11, out: 7, cached: 3}, true},
	{"usage first", `{"usage":{"prompt_tokens":1,"completion_tokens":2},"choices":[]}`, false, usage{in: 1, out: 2}, true},
	{"usage null", `{"usage":null,"choices":[]}`, false, usage{}, false},
	{"usage in text", `{"choices":[{"message":{"content":"{\"usage\":{\"prompt_tokens\":5}}"}}]}`, false, usage{}, false},
	{"usage of a tool", `{"output":[{"usage":{"input_tokens":5}}]}`, false, usage{}, false},
	{"Anthropic document", `{"type":"message","usage":{"input_tokens":6,"cache_creation_input_tokens":2,"cache_read_input_tokens":3,"output_tokens":7}}`, false, usage{in: 11, out: 7, cached: 3}, true},
	{"chat stream", "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}}\n\ndata: [DONE]\n\n",
		true, usage{in: 11, out: 7}, true},
	{"Anthropic stream", "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":6,\"cache_read_input_tokens\":3,\"output_tokens\":1}}}\n\n" +
		"event: message_delta\r\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":7}}\r\n\r\n", true, usage{in: 9, out: 7, cached: 3}, true},
	{"Responses stream", "event: response.completed\ndata:{\"type\":\"response.completed\",\"response\":{\"output\":[{}],\"usage\":{\"input_tokens\":11,\"output_tokens\":7,\"input_tokens_details\":{\"cached_tokens\":3}}}}\n\n",
		true, usage{in: 11, out: 7, cached: 3}, true},
	{"data over two lines, carriage returns, a comment and a mark", "\xef\xbb\xbf: hello\rdata: {\"usage\":\rdata: {\"prompt_tokens\":4}}\r\r", true, usage{in: 4}, true},
	{"not JSON", "data: usage {{{ ]]\n\ndata: {\"usage\":{\"prompt_tokens\":4}}\n\n", true, usage{in: 4}, true},
	{"hostile figures", `{"usage":{"prompt_tokens":-5,"completion_tokens":1e300,"total_tokens":"x"}}`, false, usage{}, true},
}

func TestUsageIsReadHoweverItIsCut(t *testing.T) {
	for _, c := range usageStreams {
		for size := 1; size <= len(c.body); size++ {
			m := newMeter(c.sse)
			for b := c.body; b != ""; {
				n := min(size, len(b))
				m.feed([]byte(b[:n]))
				b = b[n:]
			}
			if m.json.usage != c.want || m.json.reported != c.reported {
				t.Errorf("%s in pieces of %d: %+v reported=%v, want %+v", c.name, size, m.json.usage, m.json.reported, c.want)
				break
			}
		}
	}
}

func TestUsageMemoryIsBounded(t *testing.T) {
	m := newMeter(true)
	m.feed([]byte("data: {\"usage\":{\"x\":\"" + strings.Repeat("a", 1<<20) + "\"},\"" + strings.Repeat("k", 1<<20) + "\":" + strings.Repeat("[", 1<<16) + "\n\n" + strings.Repeat("f", 1<<20)))
	if cap(m.json.catch) > 4*maxUsage || cap(m.json.key) > 4*maxKey || cap(m.sse.field) > 64 {
		t.Errorf("held %d, %d, %d bytes", cap(m.json.catch), cap(m.json.key), cap(m.sse.field))
	}
	m.feed([]byte("\n\ndata: {\"usage\":{\"prompt_tokens\":2}}\n\n"))
	if m.json.usage.in != 2 {
		t.Errorf("did not recover: %+v", m.json.usage)
	}
}

func FuzzUsageReader(f *testing.F) {
	for _, c := range usageStreams {
		f.Add([]byte(c.body), uint8(3), c.sse)
	}
	f.Fuzz(func(t *testing.T, body []byte, size uint8, sse bool) {
		whole, cut := newMeter(sse), newMeter(sse)
		whole.feed(body)
		for b := body; len(b) > 0; {
			n := min(int(size)+1, len(b))
			cut.feed(b[:n])
			b = b[n:]
		}
		if whole.json.usage != cut.json.usage || whole.json.reported != cut.json.reported || whole.json.textBytes != cut.json.textBytes {
			t.Fatalf("cut changes the figures: %+v %d, %+v %d", whole.json.usage, whole.json.textBytes, cut.json.usage, cut.json.textBytes)
		}
		if len(whole.json.catch) > maxUsage {
			t.Fatalf("held %d bytes", len(whole.json.catch))
		}
	})
}
