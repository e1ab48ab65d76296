// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/scope"
)

const serverHead = "apiVersion: ringfence.dev/v1\nkind: ToolServer\nmetadata: {name: jira}\n"

const aServer = serverHead + `scope: org:acme
stdio:
  command: /usr/bin/jira-mcp
  args: ["--quiet", ""]
  env: [LANG, "LC_*"]
  workspace: ro
secrets:
  - {name: jira-token, env: JIRA_TOKEN}
egress:
  - {id: api, allow: "jira.example:443", resolvesTo: [10.1.0.0/16]}
tools:
  - {name: "*", risk: [write]}
  - {name: "read_*", risk: [read]}
  - {name: read_secrets, risk: [read, exfil]}
`

func TestAToolServerIsRead(t *testing.T) {
	docs, problems := ParseWhole("f", []byte(aServer))
	if len(problems) > 0 || len(docs) != 1 {
		t.Fatalf("%v %v", docs, problems)
	}
	s := docs[0].ToolServer
	if s.Name != "jira" || s.Scope.String() != "org:acme" || s.HTTP != nil || len(s.Egress) != 1 || s.Egress[0].Host.String() != "jira.example" || len(s.Tools) != 3 {
		t.Errorf("%+v", s)
	}
	if want := (&StdioServer{"/usr/bin/jira-mcp", []string{"--quiet", ""}, []string{"LANG", "LC_*"}, WorkspaceRO}); !reflect.DeepEqual(s.Stdio, want) {
		t.Errorf("%+v", s.Stdio)
	}
	if want := []ToolSecret{{Name: "jira-token", Env: "JIRA_TOKEN"}}; !reflect.DeepEqual(s.Secrets, want) {
		t.Errorf("%+v", s.Secrets)
	}
	docs, problems = ParseWhole("f", []byte(serverHead+"http: {url: \"HTTPS://Jira.Example:8443/mcp/\"}\nsecrets: [{name: a, header: Authorization}]\n"))
	if len(problems) > 0 || docs[0].ToolServer.HTTP.URL != "https://jira.example:8443/mcp" || docs[0].ToolServer.Stdio != nil {
		t.Errorf("%+v %v", docs, problems)
	}
}

// It does not come into force, wherever it stands.
func TestAToolServerIsNotInForce(t *testing.T) {
	docs, problems := Parse("f", []byte(aServer+"---\n"+docHeadOf("p")))
	if len(docs) != 1 || docs[0].Kind != KindPolicy || len(problems) != 1 || problems[0].Error() != `f:2:7: kind "ToolServer" is not enforced by this version` {
		t.Errorf("%v %v", docs, problems)
	}
}

func docHeadOf(name string) string {
	return fmt.Sprintf("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: %s}\nscope: org:*\negress:\n  - {id: a, deny: x.org}\n", name)
}

func TestMistakesInToolServers(t *testing.T) {
	stdio := serverHead + "stdio: {command: /bin/s}\n"
	http := serverHead + "http: {url: https://h.example/mcp}\n"
	for name, c := range map[string]struct{ text, want string }{
		"neither":               {serverHead, `f:1:1: it says neither what to run nor what to call (stdio: {command: /usr/bin/server}, or http: {url: https://HOST/mcp})`},
		"both":                  {stdio + "http: {url: https://h.example}\n", `f:5:1: a server is a program (stdio) or is called (http), not both`},
		"reserved":              {strings.Replace(stdio, "jira", "provider", 1), `f:3:11: the server "provider" is reserved`},
		"reserved, too":         {strings.Replace(stdio, "jira", "agent", 1), `the server "agent" is reserved`},
		"no name":               {strings.Replace(stdio, "jira", "a/b", 1), `"a/b" is not a valid name`},
		"a field":               {stdio + "tool: []\n", `f:5:1: unknown field "tool" in ToolServer (did you mean "tools"?)`},
		"no command":            {serverHead + "stdio: {args: [x]}\n", `f:4:8: stdio needs the field "command"`},
		"a relative command":    {serverHead + "stdio: {command: bin/s}\n", `f:4:18: `},
		"a command that climbs": {serverHead + "stdio: {command: /usr/../s}\n", `f:4:18: `},
		"no text":               {serverHead + "stdio: {command: /bin/s, args: [7]}\n", `f:4:33: an entry of args must be a string`},
		"a key as argument":     {serverHead + "stdio: {command: /bin/s, args: [sk-0123456789012345678901234]}\n", `f:4:33: an argument looks like a key itself`},
		"a variable's value":    {serverHead + "stdio: {command: /bin/s, env: [A=b]}\n", `f:4:32: "A=b" is not a variable name`},
		"a secret variable":     {serverHead + "stdio: {command: /bin/s, env: [JIRA_TOKEN]}\n", `"JIRA_TOKEN" looks like a credential`},
		"all variables":         {serverHead + "stdio: {command: /bin/s, env: [\"*\"]}\n", `"*" passes too much`},
		"loads code":            {serverHead + "stdio: {command: /bin/s, env: [LD_PRELOAD]}\n", `reaches out of the sandbox`},
		"a mode":                {serverHead + "stdio: {command: /bin/s, workspace: wr}\n", `f:4:37: unknown workspace mode "wr" (did you mean "rw"?)`},
		"no URL":                {serverHead + "http: {}\n", `f:4:7: http server needs the field "url"`},
		"in the clear":          {serverHead + "http: {url: \"http://h.example\"}\n", `url "http://h.example" would send calls and secrets in the clear`},
		"a password":            {serverHead + "http: {url: \"https://u:p@h.example\"}\n", `url must not hold a user name or password`},
		"a query":               {serverHead + "http: {url: \"https://h.example/?key=x\"}\n", `must not have a query`},
		"egress of a call":      {http + "egress: [{id: a, allow: \"x.org:443\"}]\n", `f:5:1: egress is for a program that is run here`},
		"egress for somebody":   {stdio + "egress: [{id: a, allow: \"x.org:443\", for: \"team:eng\"}]\n", `a rule of the server's own sandbox is for nobody else`},
		"egress twice":          {stdio + "egress: [{id: a, allow: \"x.org:443\"}, {id: a, deny: y.org}]\n", `rule id "a" is used twice`},
		"bad egress":            {stdio + "egress: [{id: a, allow: x.org}]\n", `f:5:25: `},
		"a secret's path":       {stdio + "secrets: [{name: ../k, env: K}]\n", `secret "../k" is a path`},
		"a secret itself":       {stdio + "secrets: [{name: sk-0123456789012345678901234, env: K}]\n", `secret looks like a key itself`},
		"no variable":           {stdio + "secrets: [{name: k}]\n", `f:5:11: a secret of a program needs the variable`},
		"a program's header":    {stdio + "secrets: [{name: k, header: X}]\n", `a secret of a program needs the variable`},
		"no header":             {http + "secrets: [{name: k, env: K}]\n", `a secret of a server that is called needs the header`},
		"no token":              {http + "secrets: [{name: k, header: \"A: b\"}]\n", `header "A: b" is no name of a header`},
		"one header, twice":     {http + "secrets: [{name: k, header: X-Key}, {name: l, header: x-key}]\n", `two secrets go into "x-key"`},
		"no class":              {stdio + "tools: [{name: a}]\n", `f:5:9: tool entry needs the field "risk"`},
		"no classes":            {stdio + "tools: [{name: a, risk: []}]\n", `risk is an empty list`},
		"unknown class":         {stdio + "tools: [{name: a, risk: [reed]}]\n", `unknown risk "reed" (did you mean "read"?)`},
		"unclassified":          {stdio + "tools: [{name: a, risk: [unclassified]}]\n", `a tool is unclassified when it is not listed`},
		"a tool twice":          {stdio + "tools: [{name: a, risk: [read]}, {name: a, risk: [write]}]\n", `f:5:34: tool "a" is listed twice`},
		"a pattern":             {stdio + "tools: [{name: \"*_x\", risk: [read]}]\n", `f:5:16: `},
		"many tools":            {stdio + "tools:\n" + strings.Repeat("  - x\n", maxTools+1), `tools has 2001 entries, more than 2000`},
		"many arguments":        {serverHead + "stdio:\n  command: /bin/s\n  args:\n" + strings.Repeat("    - x\n", maxArgs+1), `args has 257 entries`},
	} {
		t.Run(name, func(t *testing.T) {
			docs, problems := ParseWhole("f", []byte(c.text))
			if len(docs) != 0 || len(problems) == 0 {
				t.Fatalf("taken: %v", docs)
			}
			for _, p := range problems {
				if strings.Contains(p.Error(), c.want) {
					return
				}
			}
			t.Errorf("%v\n\twant %q", problems, c.want)
		})
	}
}

// A call of a tool that is listed has the classes of its entry: in decisions, in
// conditions and in explanations; what the question says itself counts instead, and
// who is out of the document's scope has none of it.
func TestToolsHaveTheClassesOfTheirServer(t *testing.T) {
	s := algCompile(t, aServer+`---
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: p}
scope: org:*
tools:
  - {id: read, match: "server:jira", risk: [read], action: allow}
  - {id: quiet, match: "server:jira/tool:read_*", when: {expression: "'exfil' in risk"}, action: block}
  - {id: write, match: "server:jira", risk: [write], action: require-approval}
  - {id: other, match: "server:wiki", risk: [read], action: allow}
`)
	for _, c := range []struct {
		as           scope.Principal
		server, tool string
		risk         Risk
		want         Effect
		rule         string
	}{
		{bot, "jira", "read_page", 0, Allow, "p/read"},
		{bot, "jira", "read_secrets", 0, Block, "p/quiet"},
		{bot, "jira", "close", 0, RequireApproval, "p/write"},
		{bot, "jira", "close", RiskRead, Allow, "p/read"},
		{bot, "jira", "read_page", RiskWrite, RequireApproval, "p/write"},
		{bot, "wiki", "read_page", 0, Block, ""},
		{bot, "wiki", "read_page", RiskRead, Allow, "p/other"},
		{algPrincipals["alien"], "jira", "read_page", 0, Block, ""},
	} {
		v := s.View(c.as)
		d := v.Tool(&Call{Server: c.server, Tool: c.tool, Risk: c.risk})
		x := v.Explain(Question{Section: SectionTools, Server: c.server, Tool: c.tool, Risk: c.risk})
		if d.Effect != c.want || d.Rule.String() != c.rule || x.Decision.Effect != c.want || x.Decision.Rule.String() != c.rule {
			t.Errorf("%s %s/%s %s: %s by %q, explained %s by %q; want %s by %q", c.as, c.server, c.tool, c.risk, d.Effect, d.Rule, x.Decision.Effect, x.Decision.Rule, c.want, c.rule)
		}
	}
	x := s.View(bot).Explain(Question{Section: SectionTools, Server: "jira", Tool: "close"})
	for _, k := range x.Candidates {
		if k.Rule.ID == "read" && k.Why != "is for risk read, this is write" {
			t.Errorf("%+v", k)
		}
	}
}

func TestTheHostOfAToolServerIsNoPlainEgress(t *testing.T) {
	docs, problems := ParseWhole("f", []byte(serverHead+"http: {url: https://jira.example/mcp}\n---\n"+strings.Replace(docHeadOf("p"), "deny: x.org", "allow: \"jira.example:443\"", 1)))
	if len(problems) > 0 {
		t.Fatal(Problems(problems))
	}
	_, problems = Compile(1, docs)
	if len(problems) != 1 || !strings.Contains(problems[0].Error(), `"jira.example" is the host of the ToolServer "jira" and never plain egress (write a tools rule on server:jira)`) {
		t.Errorf("%v", problems)
	}
}
