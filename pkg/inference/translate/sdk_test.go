// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/openai/openai-go/v3"
)

// sdkRoot is a type of an official SDK and the place in the table where it begins.
type sdkRoot struct {
	at string
	of any
}

// sdkRoots are the types whose fields each table has to know.
var sdkRoots = map[*Table][]sdkRoot{
	openAIRequest:    {{"", openai.ChatCompletionNewParams{}}},
	openAIAnswer:     {{"", openai.ChatCompletion{}}},
	openAIChunks:     {{"", openai.ChatCompletionChunk{}}},
	openAIErrors:     {{"error", openai.Error{}}},
	anthropicRequest: {{"", anthropic.MessageNewParams{}}},
	anthropicAnswer:  {{"", anthropic.Message{}}},
	anthropicEvents:  {{"", anthropic.MessageStreamEventUnion{}}},
	anthropicErrors:  {{"", anthropic.ErrorResponse{}}},
}

// TestTheTablesKnowEveryFieldOfTheSDKs walks the types of the official SDKs: a
// field that a table lacks fails, and so does a row that no SDK has any more.
func TestTheTablesKnowEveryFieldOfTheSDKs(t *testing.T) {
	for _, table := range Tables() {
		t.Run(table.Title, func(t *testing.T) {
			w := &sdkWalk{rows: map[string]*Row{}, seen: map[string]bool{}}
			for i := range table.Rows {
				w.rows[table.Rows[i].Path] = &table.Rows[i]
			}
			roots := sdkRoots[table]
			if len(roots) == 0 {
				t.Fatal("no type of an SDK for this table")
			}
			for _, r := range roots {
				w.object(reflect.TypeOf(r.of), r.at, false)
			}
			for _, m := range w.missing {
				t.Errorf("no row for %s", m)
			}
			for i := range table.Rows {
				r := &table.Rows[i]
				if found := w.seen[r.Path]; !found && r.Extension == "" {
					t.Errorf("%s is in no SDK any more", r.Path)
				} else if found && r.Extension != "" {
					t.Errorf("%s is in an SDK now, and no extension", r.Path)
				}
			}
			if len(w.seen) < 4 {
				t.Errorf("only %d fields were found: the walk is broken", len(w.seen))
			}
		})
	}
}

// TestTheWalkSeesWhatIsNew breaks both sides of the comparison.
func TestTheWalkSeesWhatIsNew(t *testing.T) {
	type inner struct {
		New string `json:"new"`
	}
	type outer struct {
		Known string  `json:"known"`
		List  []inner `json:"list"`
	}
	known := Row{Path: "known", Kinds: String, Do: Carried}
	list := Row{Path: "list", Kinds: Array, Do: Carried}
	w := &sdkWalk{rows: map[string]*Row{"known": &known, "list": &list}, seen: map[string]bool{}}
	w.object(reflect.TypeOf(outer{}), "", false)
	if !slices.Equal(w.missing, []string{"list[].new"}) {
		t.Errorf("missing: %v", w.missing)
	}
}

// sdkWalk goes through the fields of a type.
type sdkWalk struct {
	rows    map[string]*Row
	seen    map[string]bool
	missing []string
}

// covered says whether a row at path speaks for what is below it.
func (w *sdkWalk) covered(path string) bool {
	r := w.rows[path]
	if r == nil {
		return false
	}
	w.seen[path] = true
	return r.Opaque || r.Do == Refused || r.Do == Ignored
}

// value goes on with the type of a field.
func (w *sdkWalk) value(t reflect.Type, path string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[json.RawMessage](), t == reflect.TypeFor[time.Time]():
	case strings.HasPrefix(t.Name(), "Opt["):
	case t.Kind() == reflect.Slice:
		elem := t.Elem()
		for elem.Kind() == reflect.Pointer {
			elem = elem.Elem()
		}
		if elem.Kind() == reflect.Struct || w.rows[path+"[]"] != nil {
			if w.covered(path + "[]") {
				return
			}
			w.value(elem, path+"[]")
		}
	case t.Kind() == reflect.Struct:
		w.object(t, path, false)
	}
}

// constant is the discriminator that a struct always has, "" if it has none.
func constant(t reflect.Type) string {
	for i := range t.NumField() {
		f := t.Field(i)
		if n, _, _ := strings.Cut(f.Tag.Get("json"), ","); n == "role" || n == "type" {
			return f.Tag.Get("default")
		}
	}
	return ""
}

// names are the variants of types whose discriminator is no constant of the SDK.
var names = map[reflect.Type][]string{
	reflect.TypeFor[anthropic.ToolParam]():                        {string(anthropic.ToolTypeCustom)},
	reflect.TypeFor[anthropic.ToolSearchToolBm25_20251119Param](): {string(anthropic.ToolSearchToolBm25_20251119TypeToolSearchToolBm25), string(anthropic.ToolSearchToolBm25_20251119TypeToolSearchToolBm25_20251119)},
	reflect.TypeFor[anthropic.ToolSearchToolRegex20251119Param](): {string(anthropic.ToolSearchToolRegex20251119TypeToolSearchToolRegex), string(anthropic.ToolSearchToolRegex20251119TypeToolSearchToolRegex20251119)},
	reflect.TypeFor[anthropic.MessageParam]():                     {string(anthropic.MessageParamRoleUser), string(anthropic.MessageParamRoleAssistant), string(anthropic.MessageParamRoleSystem)},
}

// object goes through the members of a struct, or the variants of a union.
func (w *sdkWalk) object(t reflect.Type, path string, variant bool) {
	if !variant && (names[t] != nil || w.hasVariant(path, constant(t))) {
		w.variant(t, path)
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, has := f.Tag.Lookup("json")
		name, options, _ := strings.Cut(tag, ",")
		if !has || name == "-" || !f.IsExported() || f.Anonymous {
			continue
		}
		if strings.Contains(options, "inline") {
			w.variant(f.Type, path)
			continue
		}
		if variant && (name == "type" || name == "role") || t == reflect.TypeFor[anthropic.MessageStreamEventUnion]() {
			continue // the discriminator is the variant
		}
		at := name
		if path != "" {
			at = path + "." + name
		}
		if w.rows[at] == nil {
			w.missing = append(w.missing, at)
			continue
		}
		if !w.covered(at) {
			w.value(f.Type, at)
		}
	}
	w.members(t, path)
}

// members goes through the types that a union of answers can be seen as: the
// union itself does not have all of their fields.
func (w *sdkWalk) members(t reflect.Type, path string) {
	for i := range t.NumMethod() {
		m := t.Method(i)
		if !strings.HasPrefix(m.Name, "As") || m.Type.NumIn() != 1 || m.Type.NumOut() != 1 || m.Type.Out(0).Kind() != reflect.Struct {
			continue
		}
		w.object(m.Type.Out(0), path, false)
	}
}

// hasVariant says whether the table tells objects at path apart, and knows this one.
func (w *sdkWalk) hasVariant(path, name string) bool {
	if name == "" {
		return false
	}
	for at := range w.rows {
		if strings.HasPrefix(at, path+"<"+name+">") {
			return true
		}
	}
	return false
}

// variant goes on with one of a union's types.
func (w *sdkWalk) variant(t reflect.Type, path string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || strings.HasPrefix(t.Name(), "Opt[") {
		w.value(t, path)
		return
	}
	all := names[t]
	if name := constant(t); name != "" {
		all = []string{name}
	}
	if all == nil {
		w.missing = append(w.missing, path+"<"+t.Name()+" has no discriminator>")
	}
	for _, name := range all {
		if at := path + "<" + name + ">"; !w.covered(at) {
			w.object(t, at, true)
		}
	}
}
