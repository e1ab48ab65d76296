// SPDX-License-Identifier: Apache-2.0

// Package policies holds the policy packs that ship with Ringfence: Policy
// documents for common kinds of agents, to be applied as they are or copied.
package policies

import (
	"embed"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ringfence/ringfence/pkg/scope"
)

//go:embed *.yaml
var files embed.FS

// Scope is what a pack is for when no other scope is named: every sandbox that
// runs without --as.
const Scope = "org:local"

// Pack is one shipped document.
type Pack struct {
	Name        string
	Description string
	File        string // what places in Text name: pack:NAME, whose lines `ringfence policy packs NAME` prints
	Text        string
}

// All lists the packs by name.
func All() ([]Pack, error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("policies: %w", err)
	}
	var out []Pack
	for _, e := range entries {
		text, err := files.ReadFile(e.Name())
		if err != nil {
			return nil, fmt.Errorf("policies: %w", err)
		}
		var doc struct { // that each is one good document is tested
			Metadata struct{ Name, Description string }
		}
		if err := yaml.Unmarshal(text, &doc); err != nil {
			return nil, fmt.Errorf("policies: %s: %w", e.Name(), err)
		}
		out = append(out, Pack{Name: doc.Metadata.Name, Description: doc.Metadata.Description, File: "pack:" + doc.Metadata.Name, Text: string(text)})
	}
	return out, nil
}

// Find gives the pack of a name; ok is false when none has it.
func Find(name string) (p Pack, ok bool, err error) {
	all, err := All()
	for _, p := range all {
		if p.Name == name {
			return p, true, err
		}
	}
	return Pack{}, false, err
}

// For is the pack for another scope, under a name of its own, so that one pack
// can be applied for several scopes: "locked-down.org-acme.team-eng".
func (p Pack) For(sel scope.Selector) Pack {
	text := strings.Replace(p.Text, "\nscope: "+Scope+"\n", fmt.Sprintf("\nscope: %q\n", sel), 1)
	name := p.Name + "." + strings.NewReplacer(":", "-", "/", ".", "*", "any", "%", "_", "@", "_").Replace(sel.String())
	p.Text = strings.Replace(text, "\n  name: "+p.Name+"\n", "\n  name: "+name+"\n", 1)
	p.Name = name
	return p
}
