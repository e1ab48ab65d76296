// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
)

// variants hide work on the provider's side: who takes keys in any letter case for
// the documented one reads something else there than who does not. plain asks for
// the same work as a reader of exact keys has it.
var variants = []struct{ name, url, body, key, plain, tool string }{
	{"type before type", responsesPath, `{"model":"m","tools":[{"Type":"function","type":"web_search","name":"x"}]}`, "Type",
		`{"model":"m","tools":[{"type":"web_search","name":"x"}]}`, "web_search"},
	{"type after type", responsesPath, `{"model":"m","tools":[{"type":"function","TYPE":"web_search","name":"x"}]}`, "TYPE",
		`{"model":"m","tools":[{"type":"web_search","name":"x"}]}`, "web_search"},
	{"type alone", responsesPath, `{"model":"m","tools":[{"Type":"function","name":"x"}]}`, "Type",
		`{"model":"m","tools":[{"name":"x"}]}`, "unknown"},
	{"type escaped", responsesPath, `{"model":"m","tools":[{"\u0054ype":"function","type":"mcp","name":"x"}]}`, "Type",
		`{"model":"m","tools":[{"\u0074ype":"mcp","name":"x"}]}`, "mcp"},
	{"type of custom", messagesPath, `{"model":"m","tools":[{"Type":"custom","type":"web_fetch_20250910","name":"x"}]}`, "Type",
		`{"model":"m","tools":[{"type":"web_fetch_20250910","name":"x"}]}`, "web_fetch"},
	{"name of a tool that runs there", responsesPath, `{"model":"m","tools":[{"type":"mcp","Name":"x","name":"y"}]}`, "Name",
		`{"model":"m","tools":[{"type":"mcp","name":"y"}]}`, "mcp"},
	{"tools in a namespace", responsesPath, `{"model":"m","tools":[{"type":"namespace","name":"n","Tools":[],"tools":[{"type":"mcp"}]}]}`, "Tools",
		`{"model":"m","tools":[{"type":"namespace","name":"n","tools":[{"type":"mcp"}]}]}`, "mcp"},
	{"type of a listing", responsesPath, `{"model":"m","input":[{"Type":"mcp_list_tools","type":"additional_tools","tools":[{"type":"mcp"}]}]}`, "Type",
		`{"model":"m","input":[{"type":"additional_tools","tools":[{"type":"mcp"}]}]}`, "mcp"},
	{"tools of an item", responsesPath, `{"model":"m","input":[{"type":"additional_tools","tool\u017f":[{"type":"mcp"}]}]}`, "tool\\u017f",
		`{"model":"m","input":[{"type":"additional_tools","tools":[{"type":"mcp"}]}]}`, "mcp"},
	{"environment of a shell", responsesPath, `{"model":"m","tools":[{"type":"shell","Environment":{"type":"local"},"environment":{"type":"container_auto"}}]}`, "Environment",
		`{"model":"m","tools":[{"type":"shell","environment":{"type":"container_auto"}}]}`, "shell"},
	{"type of an environment", responsesPath, `{"model":"m","tools":[{"type":"shell","environment":{"Type":"local","type":"container_auto"}}]}`, "Type",
		`{"model":"m","tools":[{"type":"shell","environment":{"type":"container_auto"}}]}`, "shell"},
	{"type of a choice", responsesPath, `{"model":"m","input":"x","tool_choice":{"Type":"function","type":"web_search"}}`, "Type",
		`{"model":"m","input":"x","tool_choice":{"type":"web_search"}}`, "web_search"},
	{"url of an image", chatPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"URL":"data:,","url":"https://evil.example/"}}]}]}`, "URL",
		`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://evil.example/"}}]}]}`, "image_url"},
	{"image_url", chatPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","Image_URL":"data:,","image_url":"https://evil.example/"}]}]}`, "Image_URL",
		`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":"https://evil.example/"}]}]}`, "image_url"},
	{"file_id", responsesPath, `{"model":"m","input":[{"role":"user","content":[{"type":"input_file","File_ID":null,"file_id":"f"}]}]}`, "File_ID",
		`{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]}`, "file_id"},
	{"file_data", chatPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"file","file":{"FILE_DATA":"","file_data":"https://evil.example/"}}]}]}`, "FILE_DATA",
		`{"model":"m","messages":[{"role":"user","content":[{"type":"file","file":{"file_data":"https://evil.example/"}}]}]}`, "file_url"},
	{"type of a source", messagesPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"document","source":{"Type":"base64","type":"url","url":"https://evil.example/"}}]}]}`, "Type",
		`{"model":"m","messages":[{"role":"user","content":[{"type":"document","source":{"type":"url","url":"https://evil.example/"}}]}]}`, "file_url"},
	{"source", messagesPath, `{"model":"m","messages":[{"role":"user","content":[{"type":"document","Source":{"type":"base64"},"source":{"type":"url","url":"https://evil.example/"}}]}]}`, "Source",
		`{"model":"m","messages":[{"role":"user","content":[{"type":"document","source":{"type":"url","url":"https://evil.example/"}}]}]}`, "file_url"},
	{"type of tool use", messagesPath, `{"model":"m","messages":[{"role":"assistant","content":[{"Type":"tool_use","type":"document","input":{"source":{"type":"file","file_id":"f"}}}]}]}`, "Type",
		`{"model":"m","messages":[{"role":"assistant","content":[{"type":"document","input":{"source":{"type":"file","file_id":"f"}}}]}]}`, "file_id"},
	{"tool added in a message", messagesPath, `{"model":"m","messages":[{"role":"system","content":[{"type":"tool_addition","Tool":{},"tool":{"definition":{"type":"web_search_20250305"}}}]}]}`, "Tool",
		`{"model":"m","messages":[{"role":"system","content":[{"type":"tool_addition","tool":{"definition":{"type":"web_search_20250305"}}}]}]}`, "web_search"},
	{"definition of it", messagesPath, `{"model":"m","messages":[{"role":"system","content":[{"type":"tool_addition","tool":{"Definition":{"type":"custom"},"definition":{"type":"web_search_20250305"}}}]}]}`, "Definition",
		`{"model":"m","messages":[{"role":"system","content":[{"type":"tool_addition","tool":{"definition":{"type":"web_search_20250305"}}}]}]}`, "web_search"},
	{"a field", messagesPath, `{"model":"m","messages":[],"Container":"c"}`, "Container", `{"model":"m","messages":[],"container":"c"}`, "code_execution"},
	{"opaque", chatPath, `{"model":"m","messages":[],"Parameters":{"image_url":"https://evil.example/"}}`, "Parameters",
		`{"model":"m","messages":[],"parameter":{"image_url":"https://evil.example/"}}`, "image_url"},
	{"stream options", chatPath, `{"model":"m","messages":[],"web_search_options":{},"stream_options":{"Include_usage":true,"include_usage":false}}`, "Include_usage",
		`{"model":"m","messages":[],"web_search_options":{},"stream_options":{"include_usage":false}}`, "web_search"},
}

// allTools lets every tool of a provider run: what is refused then is refused
// whatever policy says.
type allTools struct{ view }

func (allTools) ProviderTool(string) policy.Decision { return policy.Decision{Effect: policy.Allow} }

func TestKeysInOtherLettersAreRefused(t *testing.T) {
	closed, open := newFence(t, setup{}), newFence(t, setup{})
	open.call.View = allTools{open.call.View.(view)}
	for _, c := range append(variants, geminiVariants...) {
		t.Run(c.name, func(t *testing.T) {
			closed.double.Reset()
			for _, f := range []*fence{closed, open} {
				resp, body := f.ask("POST", c.url, c.body)
				if says := `the key \"` + strings.ReplaceAll(c.key, `\`, `\\`) + `\" is a variant of`; resp.StatusCode != 400 || !strings.Contains(body, says) {
					t.Errorf("%d %s, not %s", resp.StatusCode, body, says)
				}
				if ev := f.event(); ev.Verdict != event.Denied || ev.Status != 400 {
					t.Errorf("event %+v", ev)
				}
			}
			if len(closed.double.Received())+len(open.double.Received()) != 0 {
				t.Error("reached the provider")
			}
			// Controls: in the documented spelling policy decides.
			if resp, body := closed.ask("POST", c.url, c.plain); resp.StatusCode != 403 || !strings.Contains(body, "tool:"+c.tool) {
				t.Errorf("plain: %d %s", resp.StatusCode, body)
			}
			closed.event()
			if resp, body := open.ask("POST", c.url, c.plain); resp.StatusCode != 200 || string(open.double.Last().Body) != c.plain {
				t.Errorf("plain, allowed: %d %s", resp.StatusCode, body)
			}
			open.event()
			open.double.Reset()
		})
	}
}

// TestKeysOfTheClientPass: in whatever letters, where nothing is looked up.
func TestKeysOfTheClientPass(t *testing.T) {
	f := newFence(t, setup{})
	for _, c := range []struct{ name, url, body string }{
		{"schema of a function", chatPath, `{"model":"m","messages":[],"tools":[{"type":"function","function":{"name":"f","parameters":{"Type":"object","type":"object","properties":{"Type":{"type":"string"},"URL":{"type":"string"},"url":{"type":"string"},"Image_URL":{},"Tools":{}}}}}]}`},
		{"schema of a function of Responses", responsesPath, `{"model":"m","input":"x","tools":[{"type":"function","name":"f","parameters":{"properties":{"Type":{"Type":"string"},"URL":{}}}}]}`},
		{"schema of an answer", chatPath, `{"model":"m","messages":[],"response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{"properties":{"Type":{},"File_ID":{}}}}}}`},
		{"metadata", chatPath, `{"model":"m","messages":[],"metadata":{"Type":"mcp","URL":"x"}}`},
		{"text", chatPath, `{"model":"m","messages":[{"role":"user","content":"{\"Type\":\"mcp\",\"URL\":1}"}]}`},
		{"other members", chatPath, `{"model":"m","messages":[{"role":"user","content":"x","Name":"N","URL":"y","Environment":1,"Tool":2}],"X-Own":{"Definition":1}}`},
		{"schema of Anthropic", messagesPath, `{"model":"m","messages":[],"tools":[{"name":"f","input_schema":{"type":"object","properties":{"Type":{"type":"string"},"URL":{},"Source":{"Type":"url"}}}}]}`},
		{"arguments of tool use", messagesPath, `{"model":"m","messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"Type":"x","type":"y","URL":"https://x.example","Source":{"Type":"url"},"Tools":[{"Type":"mcp"}]}}]}]}`},
	} {
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
