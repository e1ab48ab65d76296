// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

func compiledSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("documents.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("documents.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// valid holds every document of a text against the schema.
func valid(s *jsonschema.Schema, text []byte) error {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc any
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if doc == nil {
			continue
		}
		if err := s.Validate(doc); err != nil {
			return err
		}
	}
}

// What Parse accepts, the schema accepts: all that ships, and the golden table.
func TestSchemaAcceptsWhatParseDoes(t *testing.T) {
	s := compiledSchema(t)
	texts := map[string][]byte{}
	for _, pattern := range []string{"../../profiles/*.yaml", "../../profiles/policies/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, f := range files {
			if texts[f], err = os.ReadFile(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	data, err := os.ReadFile("testdata/golden.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct{ Name, Docs string }
	if err := yaml.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		texts[c.Name] = []byte(c.Docs)
	}
	texts["access"] = []byte(accessDoc(`{role: launcher, users: [alice, "uid:7"], groups: [eng]}`))
	texts["access that gives nobody anything"] = []byte(accessHead + "bindings: []\n")
	for name, text := range texts {
		if _, problems := Parse(name, text); len(problems) > 0 {
			t.Errorf("control: %v", Problems(problems))
		}
		if err := valid(s, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSchemaRefusesWhatParseDoes(t *testing.T) {
	s := compiledSchema(t)
	const doc = "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: a}\nscope: org:local\negress:\n  - {id: a, allow: \"a:443\"%s}\n%s"
	if err := valid(s, fmt.Appendf(nil, doc, "", "")); err != nil {
		t.Fatalf("control: %v", err)
	}
	for _, text := range []string{
		fmt.Sprintf(doc, ", alow: x", ""), fmt.Sprintf(doc, ", mandatory: 1", ""), fmt.Sprintf(doc, ", http: {method: [GET]}", ""),
		fmt.Sprintf(doc, "", "egres: []\n"), "kind: Policy\n", "apiVersion: ringfence.dev/v1\nkind: Polcy\n", "apiVersion: ringfence.dev/v2\nkind: Profile\nmetadata: {name: a}\n",
		"apiVersion: ringfence.dev/v1\nkind: Profile\nmetadata: {name: a}\nworkspce: rw\n", "[]",
		accessDoc("{role: Admin, users: [a]}"), accessDoc("{role: admin, user: [a]}"), accessDoc("{users: [a]}"), accessHead,
	} {
		if _, problems := Parse("x", []byte(text)); len(problems) == 0 {
			t.Errorf("control: Parse accepts %q", text)
		}
		if err := valid(s, []byte(text)); err == nil {
			t.Errorf("the schema accepts %q", text)
		}
	}
}
