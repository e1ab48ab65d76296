// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/price"
)

func TestUsageIsAskedForByteExact(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"not there", `{ "model": "m",  "stream":true}`, `{"stream_options":{"include_usage":true}, "model": "m",  "stream":true}`},
		{"null", `{"stream_options" : null,"x":1.0}`, `{"stream_options" : {"include_usage":true},"x":1.0}`},
		{"empty", `{"stream_options":{ }}`, `{"stream_options":{"include_usage":true }}`},
		{"other options", `{"stream_options":{"include_obfuscation":false}}`, `{"stream_options":{"include_usage":true,"include_obfuscation":false}}`},
		{"false", `{"stream_options":{"include_usage":false},"a":"\u00e9"}`, `{"stream_options":{"include_usage":true},"a":"\u00e9"}`},
		{"null inside", `{"stream_options":{"include_usage":null}}`, `{"stream_options":{"include_usage":true}}`},
		{"true", `{"stream_options":{"include_usage":true}}`, ""},
		{"no boolean", `{"stream_options":{"include_usage":"yes"}}`, ""},
		{"no object", `{"stream_options":[]}`, ""},
		{"only elsewhere", `{"a":{"stream_options":1}}`, `{"stream_options":{"include_usage":true},"a":{"stream_options":1}}`},
		{"empty body", `{}`, `{"stream_options":{"include_usage":true}}`},
	} {
		tp, err := parse([]byte(c.body), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		e, ok := askForUsage(&tp)
		got := ""
		if ok {
			got = string(tp.edited([]edit{e}))
			if !json.Valid([]byte(got)) {
				t.Errorf("%s: no JSON: %s", c.name, got)
			}
		}
		if got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

const aChunk = `data: {"id":"x","choices":[{"delta":{"content":"usage, \"choices\":[]"}}],"usage":null}` + "\n\n"

var hideCases = []struct{ name, stream, want string }{
	{"the chunk goes", aChunk + `data: {"id":"x","choices":[],"usage":{"prompt_tokens":1}}` + "\n\ndata: [DONE]\n\n", aChunk + "data: [DONE]\n\n"},
	{"carriage returns", "data: {\"choices\":[],\"usage\":{}}\r\n\r\ndata: [DONE]\r\n\r\n", "data: [DONE]\r\n\r\n"},
	{"carriage returns only", "data: 1\r\rdata: {\"choices\":[],\"usage\":{}}\r\rdata: [DONE]\r\r", "data: 1\r\rdata: [DONE]\r\r"},
	{"data over lines", "data: {\"choices\":[],\ndata: \"usage\":{}}\n\n", ""},
	{"at the end without a blank line", aChunk + `data: {"choices":[],"usage":{"a":1}}` + "\n", aChunk},
	{"usage with choices stays", `data: {"choices":[{"index":0}],"usage":{"prompt_tokens":1}}` + "\n\n", `data: {"choices":[{"index":0}],"usage":{"prompt_tokens":1}}` + "\n\n"},
	{"no choices and no usage stays", `data: {"choices":[],"usage":null,"prompt_filter_results":[]}` + "\n\n", `data: {"choices":[],"usage":null,"prompt_filter_results":[]}` + "\n\n"},
	{"an error stays", "event: error\ndata: {\"error\":{\"message\":\"usage\"}}\n\n", "event: error\ndata: {\"error\":{\"message\":\"usage\"}}\n\n"},
	{"comments stay", ": ping\n\n" + aChunk, ": ping\n\n" + aChunk},
	{"too large to be it", "data: {\"choices\":[],\"usage\":{\"a\":\"" + strings.Repeat("x", maxHeld) + "\"}}\n\n" + aChunk, "data: {\"choices\":[],\"usage\":{\"a\":\"" + strings.Repeat("x", maxHeld) + "\"}}\n\n" + aChunk},
	{"it goes also after a large one", "data: " + strings.Repeat("x", 2*maxHeld) + "\n\ndata: {\"choices\":[],\"usage\":{}}\n\n" + aChunk, "data: " + strings.Repeat("x", 2*maxHeld) + "\n\n" + aChunk},
	{"cut off", `data: {"choices":[],"usa`, `data: {"choices":[],"usa`},
	{"many blank lines", "\n\n\n" + aChunk + "\n", "\n\n\n" + aChunk + "\n"},
}

func TestOnlyTheUsageChunkIsHidden(t *testing.T) {
	for _, c := range hideCases {
		for _, size := range []int{1, 2, 3, 7, 64, 1 << 20} {
			var h usageHider
			var got []byte
			for b := []byte(c.stream); len(b) > 0; {
				n := min(size, len(b))
				got = h.next(got, b[:n], false)
				b = b[n:]
			}
			if got = h.next(got, nil, true); string(got) != c.want {
				t.Errorf("%s in pieces of %d: %q", c.name, size, got)
				break
			}
		}
	}
}

func TestACompleteEventIsNotHeldBack(t *testing.T) {
	var h usageHider
	if got := h.next(nil, []byte(aChunk), false); string(got) != aChunk {
		t.Errorf("%q", got)
	}
}

func FuzzUsageHider(f *testing.F) {
	for _, c := range hideCases {
		f.Add([]byte(c.stream), uint8(3))
	}
	f.Fuzz(func(t *testing.T, stream []byte, size uint8) {
		var whole, cut usageHider
		a := whole.next(nil, stream, true)
		var b []byte
		for rest := stream; len(rest) > 0; {
			n := min(int(size)+1, len(rest))
			b = cut.next(b, rest[:n], false)
			rest = rest[n:]
			if len(cut.held) > maxHeld+1 {
				t.Fatalf("%d bytes held", len(cut.held))
			}
		}
		b = cut.next(b, nil, true)
		if !bytes.Equal(a, b) {
			t.Fatalf("cut changes what passes: %q, %q", a, b)
		}
		if !bytes.Contains(stream, []byte("usage")) && !bytes.Equal(a, stream) {
			t.Fatalf("changed: %q", a)
		}
	})
}

func TestTotalOfACall(t *testing.T) {
	req, err := parse([]byte(`{"messages":[{"content":"`+strings.Repeat("word ", 100)+`"}]}`), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	in := requestTokens(&req)
	text := `data: {"choices":[{"delta":{"content":"` + strings.Repeat("word ", 200) + `"}}]}` + "\n\n"
	out := textTokens(strings.Repeat("word ", 200))
	one := uint64(price.Request)
	for _, c := range []struct {
		name, op, body string
		sse, broken    bool
		want           price.Usage
		estimated      bool
	}{
		{"reported", "chat", text + "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":6}}\n\n", true, false, units(one, 1, uIn, 5, uOut, 6), false},
		{"not reported", "chat", text, true, false, units(one, 1, uIn, in, uOut, out), true},
		{"broken before the report", "chat", text, true, true, units(one, 1, uIn, in, uOut, out), true},
		{"broken after a first report", "messages", "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n" + text, true, true, units(one, 1, uIn, 5, uOut, out), true},
		{"broken after the whole report", "chat", "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":600}}\n\n" + text, true, true, units(one, 1, uIn, 5, uOut, 600), true},
		{"pictures by tokens", opImages, `{"data":[{"b64_json":"x"},{"b64_json":"y"}],"usage":{"input_tokens":5,"output_tokens":60,"total_tokens":65}}`, false, false, units(one, 1, uIn, 5, uImage, 2, uImageOut, 60), false},
		{"pictures and text by tokens", opImages, `{"data":[{}],"usage":{"input_tokens":5,"output_tokens":60,"total_tokens":65,"output_tokens_details":{"image_tokens":50,"text_tokens":10}}}`, false, false, units(one, 1, uIn, 5, uImage, 1, uImageOut, 50, uOut, 10), false},
		{"pictures without usage", opImages, `{"data":[{"url":"x"},{"url":"y"}]}`, false, false, units(one, 1, uIn, in, uImage, 2), true},
	} {
		m := newMeter(c.sse, c.op)
		m.feed([]byte(c.body))
		if u := m.total(&req, c.broken); u.Usage != c.want || u.estimated != c.estimated {
			t.Errorf("%s: %v %v, want %v %v", c.name, u.Usage, u.estimated, c.want, c.estimated)
		}
	}
}
