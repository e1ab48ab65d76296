// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"bytes"
	"fmt"
	"strings"
)

// Page is FIELDS.md: every table, and how errors are matched. It is written
// from the data that the code runs on.
func Page() []byte {
	var b bytes.Buffer
	b.WriteString(`<!-- Written by "go test ./pkg/inference/translate -run TestTheFieldsPage -update"; do not edit. -->

# Fields between dialects

What becomes of each field when a model call goes to a provider of the other dialect.

- *carried*: the value arrives as it was sent.
- *transformed*: it arrives in another form.
- *refused*: the call is refused, and the error names the field. A field that no table has is refused too.
- *ignored with a note*: it is not carried, and the notes of the call say so. In answers, so is a field that no table has.

Values in the column "but for" ask for nothing: they are accepted and not carried. In paths, ` + "`[]`" + ` is the elements of a list and
` + "`<x>`" + ` the object whose type (of messages: role) is x. A row that is refused, ignored or carried as a whole speaks for all below it.
"Not in the SDK" says whose field it is; all others are in the official SDKs, and a test compares.
`)
	for _, t := range Tables() {
		fmt.Fprintf(&b, "\n## %s\n\n| field | type | becomes | there | how, or why | but for |\n|---|---|---|---|---|---|\n", t.Title)
		for i := range t.Rows {
			t.Rows[i].write(&b)
		}
	}
	b.WriteString("\n## Errors\n\nThe first row that fits is taken: by the provider's code or type, then by its status. The status is changed only where it is the one of the row. " +
		"Providers put other things in place of errors, so their fields are read where they are found, and what an error loses has no note.\n\n" +
		"| Anthropic type | status | OpenAI type | code | status |\n|---|---|---|---|---|\n")
	for _, k := range kindsOfError {
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %d |\n", k.anthropic, k.anthropicStatus, k.openAI, k.code, k.openAIStatus)
	}
	return b.Bytes()
}

func (r *Row) write(b *bytes.Buffer) {
	code := func(s string) string {
		if s == "" {
			return ""
		}
		return "`" + s + "`"
	}
	why := r.Why
	if r.Opaque && r.Do == Carried {
		why = strings.TrimPrefix(why+"; as a whole", "; ")
	}
	if r.Extension != "" {
		why = strings.TrimPrefix(why+". Not in the SDK: "+r.Extension, ". ")
	}
	kinds := r.Kinds.String()
	if r.Need {
		kinds += ", required"
	}
	fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", code(r.Path), kinds, r.Do, r.To, why, code(r.Unless))
}
