// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
)

// Reference is the policy reference as Markdown, generated from the tables
// that documents are checked with.
func Reference() string {
	var b strings.Builder
	b.WriteString("# Policy documents\n\n")
	b.WriteString("Documents are YAML with `apiVersion: " + APIVersion + "`; a file may hold several, separated by `---`. ")
	b.WriteString("Unknown fields, repeated keys, anchors and aliases are errors, and so is a field that this version does not enforce. ")
	b.WriteString("Every verdict that nothing allows is a refusal.\n")
	for _, o := range objects {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| field | type | meaning |\n|---|---|---|\n", o.name, o.doc)
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
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.name, f.typ, strings.ReplaceAll(doc, "|", "\\|"))
		}
		if len(later) > 0 {
			fmt.Fprintf(&b, "\nNot enforced by this version, and therefore errors: %s.\n", strings.Join(later, ", "))
		}
	}
	b.WriteString("\n## Hosts of model providers\n\nNo egress rule matches these; an inference rule opens those whose dialect is built.\n\n")
	b.WriteString("| host | provider | dialect |\n|---|---|---|\n")
	for _, p := range knownProviders {
		writeProviderRow(&b, p[0], p[2], p[1])
	}
	for _, p := range regionalProviders {
		writeProviderRow(&b, p.prefix+"*"+p.suffix, p.provider, "")
	}
	return b.String()
}

func writeProviderRow(b *strings.Builder, host, provider, dialect string) {
	if dialect == "" {
		dialect = "not built in this version"
	}
	fmt.Fprintf(b, "| `%s` | %s | %s |\n", host, provider, dialect)
}
