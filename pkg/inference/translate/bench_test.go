// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// benchRequest is a request of about 600 bytes.
func benchRequest(d Dialect) []byte {
	text := strings.Repeat("twenty short words ", 12)
	if d == OpenAIChat {
		return fmt.Appendf(nil, `{"model":"m","max_tokens":300,"temperature":0.2,"stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"system","content":"You are terse."},{"role":"user","content":%q}],"tools":[{"type":"function","function":{"name":"get_weather","description":"The weather of a place","parameters":{"type":"object","properties":{"place":{"type":"string"}},"required":["place"]}}}]}`, text)
	}
	return fmt.Appendf(nil, `{"model":"m","max_tokens":300,"temperature":0.2,"stream":true,"system":"You are terse.","messages":[{"role":"user","content":%q}],"tools":[{"name":"get_weather","description":"The weather of a place","input_schema":{"type":"object","properties":{"place":{"type":"string"}},"required":["place"]}}]}`, text)
}

// benchStream is the provider's stream of 20 pieces to a client.
func benchStream(client Dialect) (events [][]byte) {
	add := func(format string, a ...any) { events = append(events, fmt.Appendf(nil, format, a...)) }
	if client == OpenAIChat {
		add(`{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"c","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":25,"output_tokens":1}}}`)
		add(`{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`)
		for range 20 {
			add(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"twenty short words"}}`)
		}
		add(`{"type":"content_block_stop","index":0}`)
		add(`{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":15}}`)
		add(`{"type":"message_stop"}`)
		return events
	}
	for range 20 {
		add(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1741569952,"model":"gpt-5.4","service_tier":"default","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"content":"twenty short words"},"logprobs":null,"finish_reason":null}],"usage":null}`)
	}
	add(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1741569952,"model":"gpt-5.4","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}`)
	add(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1741569952,"model":"gpt-5.4","choices":[],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}}`)
	add(`[DONE]`)
	return events
}

func BenchmarkRequest(b *testing.B) {
	for _, d := range []Dialect{OpenAIChat, AnthropicMessages} {
		body := benchRequest(d)
		b.Run(fmt.Sprintf("%s of %d bytes", d, len(body)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Request(d, other(d), body, testOptions); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStream is one whole stream of 20 pieces; ns/event is one of its events.
func BenchmarkStream(b *testing.B) {
	for _, d := range []Dialect{OpenAIChat, AnthropicMessages} {
		events := benchStream(d)
		var raw []byte
		for _, e := range events {
			raw = append(append(append(raw, "data: "...), e...), "\n\n"...)
		}
		for _, how := range []string{"events", "bytes"} {
			b.Run(fmt.Sprintf("to %s by %s", d, how), func(b *testing.B) {
				call, err := Request(d, other(d), benchRequest(d), testOptions)
				if err != nil {
					b.Fatal(err)
				}
				var out []byte
				b.ReportAllocs()
				for b.Loop() {
					s := call.Stream()
					out = out[:0]
					if how == "bytes" {
						out, err = s.Write(out, raw)
					} else {
						for _, e := range events {
							if out, err = s.Feed(out, "", e); err != nil {
								b.Fatal(err)
							}
						}
					}
					if err != nil || !s.Complete() {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(events)), "ns/event")
			})
		}
	}
}

func BenchmarkResponse(b *testing.B) {
	for _, d := range []Dialect{OpenAIChat, AnthropicMessages} {
		g := golden{"testdata/" + map[Dialect]string{OpenAIChat: "openai", AnthropicMessages: "anthropic"}[d] + "/tools", d}
		answer := bytes.TrimSpace(g.read(b, "answer.json"))
		b.Run(fmt.Sprintf("to %s of %d bytes", d, len(answer)), func(b *testing.B) {
			call, err := Request(d, other(d), benchRequest(d), testOptions)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := call.Response(answer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
