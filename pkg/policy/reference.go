// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// DocumentKinds are the kinds of documents, in the order of the reference.
func DocumentKinds() []string {
	var out []string
	for _, o := range objects {
		if o.document() {
			out = append(out, o.name)
		}
	}
	return out
}

// Reference is the reference page of one kind of documents as Markdown,
// generated from the tables that documents are checked with. It is "" for an
// unknown kind.
func Reference(kind string) string {
	var b strings.Builder
	for _, o := range within(kind) {
		o.write(&b)
	}
	switch kind {
	case KindPolicy:
		writeUnenforced(&b)
	case KindProvider:
		writePlatforms(&b)
		writeProviderHosts(&b)
	}
	if kind == KindAccess {
		writeRoles(&b)
	}
	return b.String()
}

// writeUnenforced lists what Parse refuses although documents can say it.
func writeUnenforced(b *strings.Builder) {
	b.WriteString("\n## What is not in force yet\n\nDocuments may say this where they are only asked about. A rule that says it does not come into force: it is an error there, because nothing enforces it in this version.\n\n")
	for _, row := range unenforced {
		fmt.Fprintf(b, "- %s\n", row.what)
	}
	fmt.Fprintf(b, "- `action: %s` and `action: %s` in `onAlert` of budgets\n", BudgetDowngrade, BudgetApproval)
}

// within is the document of a kind and what may stand in it.
func within(kind string) (out []*object) {
	for _, o := range objects {
		if o.name == kind && o.document() {
			out = append(out, o)
		}
	}
	for i := 0; i < len(out); i++ {
		for _, f := range out[i].fields {
			name := strings.TrimPrefix(f.typ, "list of ")
			for _, o := range objects {
				if o.name == name && !slices.Contains(out, o) {
					out = append(out, o)
				}
			}
		}
	}
	return out
}

// write is the table of one object: the page's title for a document.
func (o *object) write(b *strings.Builder) {
	if o.document() {
		fmt.Fprintf(b, "# %s documents\n\n%s\n\nDocuments are YAML with `apiVersion: %s`; a file may hold several, separated by `---`. "+
			"Unknown fields, repeated keys, anchors and aliases are errors, and so is a field that this version does not enforce.\n", o.name, o.doc, APIVersion)
	} else {
		fmt.Fprintf(b, "\n## %s\n\n%s\n", o.name, o.doc)
	}
	b.WriteString("\n| field | type | meaning |\n|---|---|---|\n")
	var later []string
	for _, f := range o.fields {
		if f.later {
			later = append(later, "`"+f.name+"`")
			continue
		}
		doc := f.doc
		if f.required {
			doc += " Required."
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", f.name, f.typ, strings.ReplaceAll(doc, "|", "\\|"))
	}
	if len(later) > 0 {
		fmt.Fprintf(b, "\nNot enforced by this version, and therefore errors: %s.\n", strings.Join(later, ", "))
	}
}

func writePlatforms(b *strings.Builder) {
	b.WriteString("\n## Platforms\n\nAgents speak the dialect to its own host and see nothing of these.\n\n| platform | dialects | base URL | secret |\n|---|---|---|---|\n")
	for _, p := range platforms {
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", p.name, strings.Join(p.dialects, ", "), p.base, p.key)
	}
}

func writeProviderHosts(b *strings.Builder) {
	b.WriteString("\n## Hosts of model providers\n\nNo egress rule matches these; an inference rule opens those whose dialect is built.\n\n")
	b.WriteString("| host | provider | dialect |\n|---|---|---|\n")
	for _, p := range knownProviders {
		writeProviderRow(b, p[0], p[2], p[1])
	}
	for _, p := range regionalProviders {
		writeProviderRow(b, p.prefix+"*"+p.suffix, p.provider, "")
	}
}

func writeProviderRow(b *strings.Builder, host, provider, dialect string) {
	if dialect == "" {
		dialect = cmp.Or(familyNote(host), "not built in this version")
	}
	fmt.Fprintf(b, "| `%s` | %s | %s |\n", host, provider, dialect)
}
