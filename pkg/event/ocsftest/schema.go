// SPDX-License-Identifier: Apache-2.0

// Package ocsftest validates records against the OCSF schema in tests. It is
// strict: besides errors it reports use of deprecated attributes.
//
// The schema is a reduced form of the real one (classes, objects and types of
// one version in one JSON file). It is not part of the project: it is read from
// the file that the environment variable RINGFENCE_OCSF_SCHEMA names, or else
// from ../shared/ocsf beside the repository. A test that needs it fails when it
// is not there: a record that nobody checked is not a checked record.
package ocsftest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// SchemaEnv names the schema file.
const SchemaEnv = "RINGFENCE_OCSF_SCHEMA"

// Schema is a loaded schema.
type Schema struct {
	Version string             `json:"version"`
	Classes map[string]*Entity `json:"classes"`
	Objects map[string]*Entity `json:"objects"`
	Types   map[string]*Type   `json:"types"`
	byUID   map[int64]*Entity  // classes by class_uid
	regexes map[string]*regexp.Regexp
}

// Entity is a class or an object.
type Entity struct {
	Caption     string                `json:"caption"`
	UID         int64                 `json:"uid"`
	CategoryUID int64                 `json:"category_uid"`
	Profiles    []string              `json:"profiles"`
	Attributes  map[string]*Attribute `json:"attributes"`
	Constraints struct {
		AtLeastOne []string `json:"at_least_one"`
		JustOne    []string `json:"just_one"`
	} `json:"constraints"`
}

// Attribute of a class or object.
type Attribute struct {
	Type        string                     `json:"type"`
	ObjectType  string                     `json:"object_type"`
	IsArray     bool                       `json:"is_array"`
	Requirement string                     `json:"requirement"`
	Profiles    []string                   `json:"profiles"`
	Enum        map[string]json.RawMessage `json:"enum"`
	Sibling     string                     `json:"sibling"`
	Deprecated  json.RawMessage            `json:"deprecated"`
}

// Type is a scalar type.
type Type struct {
	Base   string  `json:"type"`
	Regex  string  `json:"regex"`
	MaxLen int     `json:"max_len"`
	Range  []int64 `json:"range"`
}

// caption of an enum value: the schema has it as a string or in an object.
func (a *Attribute) caption(key string) (string, bool) {
	raw, ok := a.Enum[key]
	if !ok {
		return "", false
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s, true
	}
	var o struct{ Caption string }
	_ = json.Unmarshal(raw, &o)
	return o.Caption, true
}

// Load finds and reads the schema, or fails the test.
func Load(t testing.TB) *Schema {
	t.Helper()
	path, err := find()
	if err != nil {
		t.Fatalf("the OCSF schema is needed: %v; set %s to the file", err, SchemaEnv)
	}
	s, err := LoadFile(path)
	if err != nil {
		t.Fatalf("the OCSF schema is needed: %v", err)
	}
	return s
}

func find() (string, error) {
	if p := os.Getenv(SchemaEnv); p != "" {
		return p, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for root := dir; ; root = filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			return only(filepath.Join(root, "..", "shared", "ocsf", "ocsf-*.json"))
		}
		if root == filepath.Dir(root) {
			return "", fmt.Errorf("no go.mod above %s", dir)
		}
	}
}

func only(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%d files match %s", len(found), pattern)
	}
	return found[0], nil
}

// LoadFile reads a schema file.
func LoadFile(path string) (*Schema, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &Schema{byUID: map[int64]*Entity{}, regexes: map[string]*regexp.Regexp{}}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if s.Version == "" || len(s.Classes) == 0 || len(s.Objects) == 0 || len(s.Types) == 0 {
		return nil, fmt.Errorf("%s: not a schema", path)
	}
	for _, c := range s.Classes {
		s.byUID[c.UID] = c
	}
	for name, typ := range s.Types {
		if typ.Regex == "" {
			continue
		}
		re, err := regexp.Compile(typ.Regex)
		if err != nil {
			return nil, fmt.Errorf("%s: type %s: %w", path, name, err)
		}
		s.regexes[name] = re
	}
	return s, nil
}

// base is the JSON kind a type comes down to, with the checks on the way.
func (s *Schema) base(name string) string {
	for range 8 {
		t := s.Types[name]
		if t == nil || t.Base == "" {
			return name
		}
		name = t.Base
	}
	return name
}

func itoa(v int64) string { return strconv.FormatInt(v, 10) }
