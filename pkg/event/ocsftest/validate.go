// SPDX-License-Identifier: Apache-2.0

package ocsftest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"unicode/utf8"
)

// Fault is a class of problems.
type Fault string

// The faults that Validate finds.
const (
	BadJSON           Fault = "not one JSON object"
	UnknownClass      Fault = "unknown class"
	UnknownAttribute  Fault = "unknown attribute"
	RequiredMissing   Fault = "required attribute missing"
	WrongType         Fault = "wrong type"
	OutOfBounds       Fault = "outside of range, length or pattern"
	UnknownEnum       Fault = "value not in enum"
	CaptionMismatch   Fault = "caption does not match the id"
	TypeUIDMismatch   Fault = "type_uid is not class_uid * 100 + activity_id"
	UnknownProfile    Fault = "profile not known to the class"
	UndeclaredProfile Fault = "attribute of a profile that is not declared"
	ConstraintFailed  Fault = "constraint failed"
	WrongVersion      Fault = "metadata.version is not the schema's"
	Deprecated        Fault = "deprecated attribute"
)

// Problem is one fault at one place.
type Problem struct {
	Fault Fault
	Path  string
	Got   string
}

func (p Problem) String() string { return fmt.Sprintf("%s: %s (%s)", p.Path, p.Fault, p.Got) }

// Validate returns everything that is wrong with a record, nothing if it is
// valid.
func (s *Schema) Validate(record []byte) []Problem {
	v := validator{s: s}
	value, err := decode(record)
	root, ok := value.(map[string]any)
	if err != nil || !ok {
		v.add(BadJSON, "", fmt.Sprint(err))
		return v.problems
	}
	classUID, _ := integer(root["class_uid"])
	class := s.byUID[classUID]
	if _, ok := root["class_uid"]; !ok || class == nil {
		v.add(UnknownClass, "class_uid", fmt.Sprint(root["class_uid"]))
		return v.problems
	}
	v.readProfiles(class, root)
	v.entity("", class, root)
	activity, ok1 := integer(root["activity_id"])
	typeUID, ok2 := integer(root["type_uid"])
	if ok1 && ok2 && typeUID != classUID*100+activity {
		v.add(TypeUIDMismatch, "type_uid", itoa(typeUID))
	}
	return v.problems
}

type validator struct {
	s        *Schema
	profiles []string
	problems []Problem
}

func (v *validator) add(f Fault, path, got string) {
	v.problems = append(v.problems, Problem{f, path, got})
}

func (v *validator) readProfiles(class *Entity, root map[string]any) {
	meta, _ := root["metadata"].(map[string]any)
	if version, _ := meta["version"].(string); version != v.s.Version {
		v.add(WrongVersion, "metadata.version", version)
	}
	list, _ := meta["profiles"].([]any)
	for _, p := range list {
		name, _ := p.(string)
		if !slices.Contains(class.Profiles, name) {
			v.add(UnknownProfile, "metadata.profiles", name)
		}
		v.profiles = append(v.profiles, name)
	}
}

// declared says whether an attribute is there under the declared profiles.
func (v *validator) declared(a *Attribute) bool {
	if len(a.Profiles) == 0 {
		return true
	}
	return slices.ContainsFunc(a.Profiles, func(p string) bool { return slices.Contains(v.profiles, p) })
}

func (v *validator) entity(path string, e *Entity, obj map[string]any) {
	for _, name := range sortedKeys(obj) {
		at := join(path, name)
		a := e.Attributes[name]
		if a == nil {
			v.add(UnknownAttribute, at, "")
			continue
		}
		if !v.declared(a) {
			v.add(UndeclaredProfile, at, fmt.Sprint(a.Profiles))
		}
		if len(a.Deprecated) > 0 && string(a.Deprecated) != "null" && string(a.Deprecated) != "false" {
			v.add(Deprecated, at, "")
		}
		v.attribute(at, a, obj[name])
		v.caption(at, a, obj[name], obj)
	}
	for _, name := range sortedKeys(e.Attributes) {
		a := e.Attributes[name]
		if _, there := obj[name]; !there && a.Requirement == "required" && v.declared(a) {
			v.add(RequiredMissing, join(path, name), "")
		}
	}
	v.constraints(path, e, obj)
}

func (v *validator) constraints(path string, e *Entity, obj map[string]any) {
	count := func(names []string) (n int) {
		for _, name := range names {
			if _, ok := obj[name]; ok {
				n++
			}
		}
		return n
	}
	if c := e.Constraints.AtLeastOne; len(c) > 0 && count(c) == 0 {
		v.add(ConstraintFailed, path, fmt.Sprint("at least one of ", c))
	}
	if c := e.Constraints.JustOne; len(c) > 0 && count(c) != 1 {
		v.add(ConstraintFailed, path, fmt.Sprint("just one of ", c))
	}
}

func (v *validator) attribute(path string, a *Attribute, value any) {
	if !a.IsArray {
		v.value(path, a, value)
		return
	}
	list, ok := value.([]any)
	if !ok {
		v.add(WrongType, path, fmt.Sprintf("%T instead of a list", value))
		return
	}
	for i, item := range list {
		v.value(fmt.Sprintf("%s[%d]", path, i), a, item)
	}
}

func (v *validator) value(path string, a *Attribute, value any) {
	if a.Type == "object_t" || a.ObjectType != "" {
		v.object(path, a, value)
		return
	}
	if !v.scalar(path, a.Type, value) {
		return
	}
	if len(a.Enum) > 0 {
		if _, ok := a.caption(fmt.Sprint(value)); !ok {
			v.add(UnknownEnum, path, fmt.Sprint(value))
		}
	}
}

func (v *validator) object(path string, a *Attribute, value any) {
	obj, ok := value.(map[string]any)
	if !ok {
		v.add(WrongType, path, fmt.Sprintf("%T instead of an object", value))
		return
	}
	e := v.s.Objects[a.ObjectType]
	if e == nil {
		v.add(UnknownAttribute, path, "the schema has no object "+a.ObjectType)
		return
	}
	if len(e.Attributes) > 0 { // the free-form object has none
		v.entity(path, e, obj)
	}
}

// scalar checks a value against a type; false if it is of another JSON kind.
func (v *validator) scalar(path, name string, value any) bool {
	ok := true
	switch v.s.base(name) {
	case "string_t":
		_, ok = value.(string)
	case "integer_t", "long_t":
		_, ok = integer(value)
	case "float_t":
		_, ok = value.(json.Number)
	case "boolean_t":
		_, ok = value.(bool)
	case "json_t":
	default:
		v.add(WrongType, path, "the schema has no type "+name)
		return false
	}
	if !ok {
		v.add(WrongType, path, fmt.Sprintf("%v instead of %s", value, name))
		return false
	}
	v.bounds(path, name, value)
	return true
}

func (v *validator) bounds(path, name string, value any) {
	t := v.s.Types[name]
	if t == nil {
		return
	}
	text, isText := value.(string)
	if isText && t.MaxLen > 0 && utf8.RuneCountInString(text) > t.MaxLen {
		v.add(OutOfBounds, path, fmt.Sprintf("%d characters", utf8.RuneCountInString(text)))
	}
	if re := v.s.regexes[name]; isText && re != nil && !re.MatchString(text) {
		v.add(OutOfBounds, path, text)
	}
	if n, ok := integer(value); ok && len(t.Range) == 2 && (n < t.Range[0] || n > t.Range[1]) {
		v.add(OutOfBounds, path, itoa(n))
	}
}

// caption checks the text that goes with an enum id. Id 99 is "Other" and may
// carry the source's own text, except in type_uid, where it does not occur.
func (v *validator) caption(path string, a *Attribute, value any, obj map[string]any) {
	id, ok := integer(value)
	text, there := obj[a.Sibling].(string)
	if !ok || a.Sibling == "" || !there || id == 99 {
		return
	}
	if want, known := a.caption(itoa(id)); known && want != text {
		v.add(CaptionMismatch, path, fmt.Sprintf("%d is %q, not %q", id, want, text))
	}
}

func integer(v any) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	i, err := strconv.ParseInt(n.String(), 10, 64)
	return i, err == nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// decode reads exactly one JSON value and refuses repeated members and bytes
// that are not UTF-8, which encoding/json lets pass.
func decode(b []byte) (any, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	v, err := decodeValue(d)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the record")
	}
	return v, nil
}

func decodeValue(d *json.Decoder) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		obj := map[string]any{}
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return nil, err
			}
			key, _ := k.(string)
			if _, dup := obj[key]; dup {
				return nil, fmt.Errorf("member %q is there twice", key)
			}
			if obj[key], err = decodeValue(d); err != nil {
				return nil, err
			}
		}
		_, err = d.Token()
		return obj, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := decodeValue(d)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, err
	}
	return t, nil
}
