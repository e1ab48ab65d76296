// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
)

var objAccess = &object{"Access", "Who may operate what: gives users and groups of the machine roles within a scope. Root may do everything without one. " +
	"Everybody else needs the operator group to reach the daemon, and a role here for what it asks. " +
	"Without a document whose scope contains `org:local/team:default`, members of the operator group are `launcher` there.", []field{
	{name: "apiVersion", typ: "string", required: true, doc: "`ringfence.dev/v1`."},
	{name: "kind", typ: "string", required: true, doc: "`Access`."},
	{name: "metadata", typ: "metadata", required: true, doc: "Name of the document."},
	{name: "scope", typ: "selector", required: true, hint: "scope: org:acme/team:payments is one team, scope: org:* is the whole node", doc: "Where the roles are held: every principal that it selects. `org:*` is the whole node."},
	{name: "bindings", typ: "list of binding", required: true, hint: "bindings: [] gives nobody anything", doc: "Who has which role. An empty list is allowed: then this document gives nobody anything."},
}}

var objBinding = &object{"binding", "One role for some people. It names at least one user or group. A name that the machine does not know matches nobody, and `policy list`, `policy show` and `doctor` say so. Names are looked up again after half a minute.", []field{
	{name: "role", typ: "role", required: true, doc: "See the table of roles below."},
	{name: "users", typ: "list of strings", doc: "Names of users, or `uid:N`."},
	{name: "groups", typ: "list of strings", doc: "Names of groups, or `gid:N`. Counted are the groups of the calling process, as the kernel knows them."},
}}

// writeRoles is the table of roles for the reference.
func writeRoles(b *strings.Builder) {
	b.WriteString("\n## Roles\n\nWhat a binding lets do within the scope of its document, and nowhere else. Roles that one person has in one place add up.\n\n| role | may |\n|---|---|\n")
	for _, r := range roles {
		fmt.Fprintf(b, "| `%s` | %s |\n", r.name, r.doc)
	}
	b.WriteString("\nProfile, Provider and ToolServer documents are the whole node's: `admin` of `org:*`, or root.\n")
}
