// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const marker = "m4rk3r"

// examples are values of fields that not any value of the type will do for.
var examples = map[string]any{
	"temperature":      0.625,
	"reasoning_effort": "high",
	"service_tier":     "auto",
	"stop":             []any{marker},
	"stop_sequences":   []any{marker},
	"tool_choice":      "auto",
	"max_tokens":       7777,
	"thinking_blocks":  []any{},
	"effort":           "high",
	"media_type":       "image/png",
	"document.media":   "application/pdf",
	"file_data":        "data:application/pdf;base64,m4rk3r",
	"url":              "https://m4rk3r",
	"budget_tokens":    2048,
	"arguments":        `{"a":"m4rk3r"}`,
	"parameters":       map[string]any{"type": "object", "title": marker},
	"schema":           map[string]any{"title": marker},
	"input_schema":     map[string]any{"title": marker},
	"input":            map[string]any{"title": marker},
	"is_error":         false,
	"n":                3,
	"logit_bias":       map[string]any{"50256": -100},
	"metadata":         map[string]any{"user_id": marker},
	"functions":        []any{map[string]any{"name": "f"}},
	"allowed_callers":  []any{"code_execution_20250825"},
	"input_examples":   []any{map[string]any{}},
	"citations":        []any{map[string]any{}},
	"transformations":  map[string]any{"oversized_image": "error"},
}

// maker makes a request of a table that has the field want, and beside it only
// what has to be there.
type maker struct {
	want  string
	value any // of the field want, if set
	set   bool
}

// variants that are made where the wanted field does not say which.
var usual = []string{"user", "base64", "text", "function", "custom", "json_schema", "enabled", "auto", "thinking"}

func (m *maker) make(f *field, path string) any {
	name := path[strings.LastIndexAny(path, ".>]")+1:]
	below := strings.HasPrefix(m.want, path) && m.want != path
	switch {
	case m.set && path == m.want:
		return m.value
	case !below && name == "media_type" && strings.Contains(path, "<document>"):
		return examples["document.media"]
	case !below && strings.HasSuffix(path, "json_schema.strict"):
		return false
	case !below && name == "citations" && f.kinds == Object:
		return map[string]any{"enabled": true}
	case !below && name != "" && examples[name] != nil && (name != "tool_choice" || f.kinds&String != 0):
		return examples[name]
	}
	array := f.kinds&Array != 0 && f.elem != nil
	switch {
	case array && (f.kinds&String == 0 || strings.HasPrefix(m.want, path+"[]")):
		elems := []any{m.make(f.elem, path+"[]")}
		if path == "messages" && !strings.HasPrefix(m.want, "messages[]<user>") && m.want != path {
			elems = append(elems, map[string]any{"role": "user", "content": "hi"})
		}
		return elems
	case f.kinds&Object != 0 && (f.kinds&String == 0 || below):
		return m.object(f, path)
	case f.kinds&String != 0:
		return marker
	case f.kinds&(Integer|Number) != 0:
		return 7777
	case f.kinds&Bool != 0:
		return true
	}
	return []any{}
}

func (m *maker) object(f *field, path string) map[string]any {
	out := map[string]any{}
	if f.variants != nil {
		names := slices.Clone(usual)
		for name := range f.variants {
			if strings.HasPrefix(m.want, path+"<"+name+">") {
				names = []string{name}
			}
		}
		for _, name := range names {
			if v := f.variants[name]; v != nil {
				path += "<" + name + ">"
				out[f.by], f = name, v
				break
			}
		}
	}
	for name, member := range f.members {
		at := name
		if path != "" {
			at = path + "." + name
		}
		if slices.Contains(f.needs, name) || at == m.want || strings.HasPrefix(m.want, at+".") || strings.HasPrefix(m.want, at+"[") || strings.HasPrefix(m.want, at+"<") {
			out[name] = m.make(member, at)
		}
	}
	return out
}

func (m *maker) body(t *testing.T, table *Table) []byte {
	t.Helper()
	b, err := json.Marshal(m.make(table.root, ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// concrete is the path that a client would see for the field.
func concrete(path string) string {
	return regexp.MustCompile(`<[^>]*>`).ReplaceAllString(strings.ReplaceAll(path, "[]", "[0]"), "")
}

func requestTables() []*Table { return []*Table{openAIRequest, anthropicRequest} }

func wantRefusal(t *testing.T, err error, field string) {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) || r.Field != field {
		t.Errorf("error is %v, want a refusal of %q", err, field)
	}
}

// TestEachRowIsTrue sends each field of the requests' tables and looks whether
// what the row says happens to it.
func TestEachRowIsTrue(t *testing.T) {
	o := testOptions
	o.Reasoning = ReasoningBlocks
	for _, table := range requestTables() {
		for i := range table.Rows {
			r := &table.Rows[i]
			t.Run(fmt.Sprintf("%s/%s", table.From, r.Path), func(t *testing.T) {
				body := (&maker{want: r.Path}).body(t, table)
				call, err := Request(table.From, table.To, body, o)
				if r.Do == Refused {
					wantRefusal(t, err, concrete(r.Path))
				} else if err != nil {
					t.Fatalf("%v\n%s", err, body)
				}
				switch r.Do {
				case Ignored:
					if !slices.ContainsFunc(call.Notes(), func(n Note) bool { return n.Field == r.Path && n.Why == r.Why }) {
						t.Errorf("no note of it: %v", call.Notes())
					}
				case Carried:
					want := `"` + marker
					switch {
					case r.Kinds == Integer:
						want = "7777"
					case r.Kinds == Number:
						want = "0.625"
						if r.Path == "top_p" {
							want = "7777"
						}
					case r.Kinds == Bool:
						want = "true"
					case r.Kinds == Array, r.Kinds == Object && !r.Opaque:
						return
					}
					if !strings.Contains(string(call.Body), want) && !strings.Contains(string(call.Body), marker) {
						t.Errorf("%s of %s did not arrive in %s", want, body, call.Body)
					}
				}
				for _, n := range strings.Fields(r.Unless) {
					body := (&maker{want: r.Path, value: json.RawMessage(n), set: true}).body(t, table)
					call, err := Request(table.From, table.To, body, o)
					if err != nil {
						t.Errorf("%s asks for nothing: %v", n, err)
					} else if slices.ContainsFunc(call.Notes(), func(n Note) bool { return n.Field == r.Path }) {
						t.Errorf("%s asks for nothing: %v", n, call.Notes())
					}
				}
			})
		}
	}
}

// TestAFieldOfTheWrongTypeIsRefusedByName tries every field with another type,
// and with none where it has to be there.
func TestAFieldOfTheWrongTypeIsRefusedByName(t *testing.T) {
	for _, table := range requestTables() {
		for i := range table.Rows {
			r := &table.Rows[i]
			if r.Do == Refused || r.Do == Ignored {
				continue
			}
			if r.Need {
				body := (&maker{want: r.Path, set: true}).body(t, table)
				_, err := Request(table.From, table.To, body, testOptions)
				wantRefusal(t, err, concrete(r.Path))
			}
			for k, wrong := range map[Kinds]string{String: `"x"`, Number: `1.5`, Bool: `true`, Object: `{"a":1}`, Array: `[1]`} {
				if r.Kinds&k != 0 || strings.HasSuffix(r.Path, ">") || strings.HasSuffix(r.Path, "[]") {
					continue
				}
				body := (&maker{want: r.Path, value: json.RawMessage(wrong), set: true}).body(t, table)
				_, err := Request(table.From, table.To, body, testOptions)
				wantRefusal(t, err, concrete(r.Path))
			}
		}
	}
}

// TestAnUnknownFieldIsRefusedByName puts a field that no table has beside every
// field that one has.
func TestAnUnknownFieldIsRefusedByName(t *testing.T) {
	for _, table := range requestTables() {
		for i := range table.Rows {
			r := &table.Rows[i]
			if r.Do == Refused || r.Do == Ignored || r.Opaque || r.Kinds != Object {
				continue
			}
			m := &maker{want: r.Path + ".zz_new"}
			f, _, _ := table.root.at(r.Path)
			if f.variants != nil {
				continue // its variants have rows, which are tried
			}
			f.members["zz_new"] = &field{kinds: String}
			body := m.body(t, table)
			delete(f.members, "zz_new")
			if !strings.Contains(string(body), "zz_new") {
				t.Fatalf("%s: the test did not make the field: %s", r.Path, body)
			}
			_, err := Request(table.From, table.To, body, testOptions)
			wantRefusal(t, err, concrete(r.Path)+".zz_new")
		}
		body := fmt.Sprintf(`{"zz":1,%s`, (&maker{}).body(t, table)[1:])
		_, err := Request(table.From, table.To, []byte(body), testOptions)
		wantRefusal(t, err, "zz")
	}
}
