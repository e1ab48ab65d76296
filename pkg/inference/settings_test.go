// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// settingPath is what approval.Argument has as a path.
var settingPath = regexp.MustCompile(`^[A-Za-z0-9_@%-]+(\.[A-Za-z0-9_@%-]+)*(\[\]|\{\})?$`)

// FuzzTool: whatever a request says, what people would be asked about is within the
// bounds, and has each path once.
func FuzzTool(f *testing.F) {
	f.Add([]byte(`{"tools":[{"type":"web_search","a":{"b.c":[1,"x",{}]},"":[[]]},{"type":"web_search","max":"5"}],"image_url":"https://x/"}`))
	f.Add([]byte(`{"tools":[{"type":"mcp","\ud800":1,"\ud801":2}]}`))
	f.Add([]byte(`{"web_search_options":{"Type":"x","type":"y"},"tools":[{"type":"q"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		tp, err := parse(body, nil, nil)
		if err != nil || tp.nodes[0].kind != kindObject {
			return
		}
		for _, d := range dialects {
			x := &exchange{d: d, tape: tp, served: "m"}
			found := inspect(&tp, d.rules, func(w *walker) { w.add("web_search", "the model", "model", 0) })
			for i := range found {
				if found[i].never != "" {
					continue
				}
				tool, ok := x.tool(&found[i])
				if len(tool.Shown) > maxShown+3 {
					t.Fatalf("%d bytes to show", len(tool.Shown))
				}
				if !ok {
					continue
				}
				if len(tool.Settings) > MaxSettings {
					t.Fatalf("%d settings", len(tool.Settings))
				}
				for n, s := range tool.Settings {
					if !settingPath.MatchString(s.Path) || len(s.Path) > maxSettingPath || len(s.Text) > maxSettingText || s.Text != "" && !s.Kept || (s.Kept || s.Kind != "") && strings.ContainsAny(s.Path, "[{") {
						t.Fatalf("%+v", s)
					}
					if n > 0 && tool.Settings[n-1].Path >= s.Path {
						t.Fatalf("%q is not in order, or there twice", s.Path)
					}
				}
			}
		}
	})
}

// TestToolCostsNoMoreThanItsRequest: whatever names stand in whatever depth.
func TestToolCostsNoMoreThanItsRequest(t *testing.T) {
	nested := func(key string) string {
		return strings.Repeat(`{"`+key+`":`, 90) + "1" + strings.Repeat("}", 90)
	}
	var many strings.Builder
	for i := range 40 {
		fmt.Fprintf(&many, `,"s%d":1`, i)
	}
	for name, c := range map[string]struct {
		body string
		ok   bool
	}{
		"long names":                {`{"tools":[{"type":"web_search","filters":` + nested(strings.Repeat("k", 40<<10)) + `}]}`, true},
		"long names that grow":      {`{"tools":[{"type":"web_search","filters":` + nested(strings.Repeat("%", 40<<10)) + `}]}`, true},
		"long names, escaped":       {`{"tools":[{"type":"web_search","filters":` + nested(strings.Repeat(`\u0041`, 7<<10)) + `}]}`, true},
		"a long name, outermost":    {`{"tools":[{"type":"web_search","` + strings.Repeat("k", 4<<20) + `":` + nested("k") + `}]}`, false},
		"a long value":              {`{"tools":[{"type":"web_search","filters":"` + strings.Repeat("v", 4<<20) + `"}]}`, true},
		"a long list":               {`{"tools":[{"type":"web_search","filters":[` + strings.Repeat("1,", 1<<18) + `1]}]}`, true},
		"more settings than fit":    {`{"tools":[{"type":"web_search","x":"` + strings.Repeat("v", 1<<20) + `"` + many.String() + `}]}`, false},
		"control: nested, as it is": {`{"tools":[{"type":"web_search","filters":` + nested("") + `,"x":"` + strings.Repeat("v", 1<<20) + `"}]}`, true},
	} {
		tp, err := parse([]byte(c.body), nil, nil)
		if err != nil {
			t.Fatal(name, err)
		}
		found := inspect(&tp, openAI.rules, func(*walker) {})
		x := &exchange{d: &openAI, tape: tp}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		tool, ok := x.tool(&found[0])
		runtime.ReadMemStats(&after)
		if spent, most := after.TotalAlloc-before.TotalAlloc, uint64(2*len(c.body)+4<<10); spent > most {
			t.Errorf("%s: %d bytes for a request of %d", name, spent, len(c.body))
		}
		if len(found) != 1 || ok != c.ok {
			t.Errorf("%s: found %d, %v %+v", name, len(found), ok, tool.Settings)
		}
	}
}
