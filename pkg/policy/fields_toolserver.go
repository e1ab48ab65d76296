// SPDX-License-Identifier: Apache-2.0

package policy

var objToolServer = &object{"ToolServer", "An upstream MCP server: what it is, what it may reach and what kind of calls its tools are. Its name is the server of rules on tools: `server:NAME/tool:TOOL`. " +
	"No part of this version serves it, so it does not come into force: `policy apply` and the policy directory refuse it. `policy check`, `policy test`, and `explain` and `policy who-can` with `--policy`, read it, and a call of a tool that it lists has the classes that it gives, unless the question gives others.", []field{
	{name: "apiVersion", typ: "string", required: true, doc: "`ringfence.dev/v1`."},
	{name: "kind", typ: "string", required: true, doc: "`ToolServer`."},
	{name: "metadata", typ: "metadata", required: true, doc: "Name of the server. Not `agent` or `provider`, which are reserved."},
	{name: "scope", typ: "selector", doc: "Who may use it; everybody when absent."},
	{name: "stdio", typ: "stdio", doc: "A program to run in a sandbox of its own. This or `http`."},
	{name: "http", typ: "http server", doc: "A server to call. This or `stdio`."},
	{name: "secrets", typ: "list of tool secret", doc: "Secrets that the server gets. The agent never sees them."},
	{name: "egress", typ: "list of egress rule", doc: "What the program's own sandbox may reach; nothing when absent. With `stdio` only, and without `for`."},
	{name: "tools", typ: "list of tool entry", doc: "Classes of its tools. What is not listed is unclassified, which counts as destructive."},
}}

var objStdio = &object{"stdio", "A program that speaks MCP on its standard input and output.", []field{
	{name: "command", typ: "path", required: true, doc: "Absolute path."},
	{name: "args", typ: "list of strings", doc: "Its arguments. Never a secret: everybody sees them."},
	{name: "env", typ: "list of strings", doc: "Names of variables that it gets from whoever launches the sandbox. Names that look like secrets are refused."},
	{name: "workspace", typ: "string", doc: "What it may do in the agent's workspace: `rw`, `ro` or `none` (default)."},
}}

var objHTTPServer = &object{"http server", "A server that speaks MCP's streamable HTTP. Its host is never plain egress.", []field{
	{name: "url", typ: "URL", required: true, doc: "https, unless the host is a loopback address or `allowPlaintext` is true. Without user name, password, query and fragment."},
	{name: "allowPlaintext", typ: "boolean", doc: "Admits an http URL: calls and secrets then cross the network in the clear."},
}}

var objToolSecret = &object{"tool secret", "One secret, by its name in the secrets directory, and where it goes.", []field{
	{name: "name", typ: "secret name", required: true, doc: "Name, never a path and never the secret itself."},
	{name: "env", typ: "string", doc: "The variable that it goes into. With `stdio`."},
	{name: "header", typ: "string", doc: "The request header that it goes into. With `http`."},
}}

var objToolEntry = &object{"tool entry", "One tool, or a prefix of tools; the exact name counts, else the longest prefix.", []field{
	{name: "name", typ: "string", required: true, doc: "Name of the tool as the server has it, or a prefix such as `read_*`."},
	{name: "risk", typ: "list of strings", required: true, doc: "`read`, `write`, `destructive`, `exfil`, `exec`, `money`, `identity`: all that apply."},
}}
