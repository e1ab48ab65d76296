// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Schema is a JSON Schema (draft 2020-12) of all kinds of documents, made of
// the tables that documents are checked with. Editors complete and check with
// it; it accepts more than [Parse] does, which knows what targets, selectors
// and combinations of fields mean.
func Schema() ([]byte, error) {
	defs := map[string]any{}
	for _, o := range objects {
		s, err := o.schema()
		if err != nil {
			return nil, err
		}
		defs[o.name] = s
	}
	var kinds []string
	var branches []any
	for _, o := range objects {
		if !o.document() {
			continue
		}
		kinds = append(kinds, o.name)
		branches = append(branches, map[string]any{
			"if":   map[string]any{"properties": map[string]any{"kind": map[string]any{"const": o.name}}},
			"then": refTo(o.name),
		})
	}
	out, err := json.MarshalIndent(map[string]any{
		"$schema":  "https://json-schema.org/draft/2020-12/schema",
		"title":    "Ringfence document",
		"type":     "object",
		"required": []string{"apiVersion", "kind"},
		"properties": map[string]any{
			"apiVersion": map[string]any{"const": APIVersion},
			"kind":       map[string]any{"enum": kinds},
		},
		"allOf": branches,
		"$defs": defs,
	}, "", "  ")
	return append(out, '\n'), err
}

// document says that the object is a whole document.
func (o *object) document() bool { return o.field("kind") != nil }

func refTo(name string) map[string]any { return map[string]any{"$ref": "#/$defs/" + pointer(name)} }

// pointer escapes a name for a JSON pointer in a URI fragment (RFC 6901).
func pointer(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1", " ", "%20").Replace(name)
}

func (o *object) schema() (map[string]any, error) {
	properties, required := map[string]any{}, []string{}
	for i := range o.fields {
		f := &o.fields[i]
		if f.later {
			continue
		}
		s, err := typeSchema(f.typ)
		if err != nil {
			return nil, fmt.Errorf("policy: field %s of %s: %w", f.name, o.name, err)
		}
		s["description"] = f.doc
		switch {
		case f.name == "apiVersion" && o.document():
			s["const"] = APIVersion
		case f.name == "kind" && o.document():
			s["const"] = o.name
		}
		properties[f.name] = s
		if f.required {
			required = append(required, f.name)
		}
	}
	s := map[string]any{"type": "object", "description": o.doc, "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	return s, nil
}

// typeSchemas are the types of fields by the words of the tables.
var typeSchemas = map[string]func() map[string]any{
	"boolean": func() map[string]any { return map[string]any{"type": "boolean"} },
	"number":  func() map[string]any { return map[string]any{"type": "integer"} },
	"score":   func() map[string]any { return map[string]any{"type": "number"} },
	"numbers": func() map[string]any { return map[string]any{"type": "integer"} },
	"role":    func() map[string]any { return map[string]any{"enum": roleNames()} },
	"size":    func() map[string]any { return map[string]any{"type": []string{"string", "integer"}} },
}

// textTypes are written as one string.
var textTypes = []string{"string", "selector", "principal", "target", "CEL", "duration", "amount", "model", "URL", "secret name", "path", "prefix", "workspace path"}

func typeSchema(typ string) (map[string]any, error) {
	if s := typeSchemas[typ]; s != nil {
		return s(), nil
	}
	for _, t := range textTypes {
		if typ == t {
			return map[string]any{"type": "string", "minLength": 1}, nil
		}
	}
	for _, o := range objects {
		if typ == o.name {
			return refTo(o.name), nil
		}
	}
	if entry, ok := strings.CutPrefix(typ, "list of "); ok {
		s, err := typeSchema(singular(entry))
		return map[string]any{"type": "array", "items": s}, err
	}
	switch typ {
	case "mapping of anything":
		return map[string]any{"type": "object"}, nil
	case "mapping of strings":
		return map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}}, nil
	case "mapping of numbers":
		return map[string]any{"type": "object", "additionalProperties": map[string]any{"type": []string{"string", "integer"}}}, nil
	}
	return nil, fmt.Errorf("no schema for the type %q", typ)
}

// singular is one entry of a list: "prefixes" are of "prefix".
func singular(entries string) string {
	for _, t := range textTypes {
		if entries == t+"s" || entries == t+"es" {
			return t
		}
	}
	return entries
}
