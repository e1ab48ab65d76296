// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"regexp"
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
					if !settingPath.MatchString(s.Path) || len(s.Path) > maxSettingPath || len(s.Text) > maxSettingText || s.Text != "" && !s.Kept || s.Kept && strings.ContainsAny(s.Path, "[{") {
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
