// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func toolDoc(rule string) string { return head + "tools:\n  - " + rule + "\n" }

// Mistakes in what goes beyond allow and deny, read as the whole language.
func TestMistakesOfTheWholeLanguage(t *testing.T) {
	for name, c := range map[string]struct{ doc, want string }{
		"action":             {toolDoc("{id: a, match: 'tool:*', action: requireapproval}"), `f:6:38: unknown action "requireapproval" (did you mean "require-approval"?)`},
		"rate-limit":         {toolDoc("{id: a, match: 'tool:*', action: rate-limit}"), `f:6:5: rate-limit needs the field "rate" (for example rate: {requests: 60/m})`},
		"amount":             {toolDoc("{id: a, match: 'tool:*', action: rate-limit, rate: {requests: 60}}"), `requests must be a string, found a number "60"`},
		"amount of nothing":  {toolDoc("{id: a, match: 'tool:*', action: rate-limit, rate: {requests: 0/m}}"), `requests "0/m" is not a number for a time s, m, h or d (for example 60/m or 200k/h)`},
		"unit":               {toolDoc("{id: a, match: 'tool:*', action: rate-limit, rate: {tokens: 5/y}}"), `tokens "5/y" is not`},
		"empty rate":         {toolDoc("{id: a, match: 'tool:*', action: rate-limit, rate: {per: [agent]}}"), `rate has neither requests nor tokens`},
		"per":                {toolDoc("{id: a, match: 'tool:*', action: rate-limit, rate: {requests: 1/s, per: [agnet]}}"), `unknown segment "agnet" (did you mean "agent"?)`},
		"per of a model":     {head + "inference:\n  - {id: a, model: '*', action: rate-limit, rate: {requests: 1/s, per: [server]}}\n", `unknown segment "server"`},
		"per of a tool":      {toolDoc("{id: a, match: 'tool:*', action: rate-limit, rate: {requests: 1/s, per: [model]}}"), `unknown segment "model"`},
		"per of a host":      {egressDoc("{id: a, to: 'x.org:443', action: rate-limit, rate: {requests: 1/s, per: [model]}}"), `unknown segment "model"`},
		"no calls at a time": {head + "inference:\n  - {id: a, model: '*', action: rate-limit, rate: {concurrency: 0}}\n", `f:6:65: concurrency must be a number from 1 to 1000000`},
		"risk":               {toolDoc("{id: a, allow: 'tool:*', risk: [reed]}"), `f:6:37: unknown risk "reed" (did you mean "read"?)`},
		"risk twice":         {toolDoc("{id: a, allow: 'tool:*', risk: [read, read]}"), `"read" is listed twice in risk`},
		"no risk":            {toolDoc("{id: a, allow: 'tool:*', risk: []}"), `risk is an empty list`},
		"risk of egress":     {egressDoc("{id: a, deny: x.org, risk: [read]}"), `f:6:26: unknown field "risk" in egress rule`},
		"mode":               {toolDoc("{id: a, allow: 'tool:*', mode: dry}"), `unknown mode "dry" (write mode: shadow, or leave it out)`},
		"approval of allow":  {toolDoc("{id: a, allow: 'tool:*', approval: {quorum: 1}}"), `f:6:30: approval is for a rule that requires one`},
		"approver":           {toolDoc("{id: a, match: 'tool:*', action: require-approval, approval: {approvers: [sre]}}"), `f:6:79: an approver: "sre" is none of user:NAME, uid:N, group:NAME, gid:N`},
		"approver's uid":     {toolDoc("{id: a, match: 'tool:*', action: require-approval, approval: {approvers: ['uid:007']}}"), `an approver: "uid:007" is not uid:N with a number from 0 to 4294967294`},
		"quorum":             {toolDoc("{id: a, match: 'tool:*', action: require-approval, approval: {approvers: ['uid:7'], quorum: 2}}"), `a quorum of 2 and 1 approvers: nobody could ever approve`},
		"quorum of nobody":   {toolDoc("{id: a, match: 'tool:*', action: require-approval, approval: {quorum: 0}}"), `quorum must be a number from 1 to 100`},
		"expiry":             {toolDoc("{id: a, match: 'tool:*', action: require-approval, approval: {expiresAfter: 15}}"), `expiresAfter must be a string, found a number "15" (write "15" in quotes)`},
		"expiry at once":     {toolDoc("{id: a, match: 'tool:*', action: require-approval, approval: {expiresAfter: 0s}}"), `expiresAfter "0s" is not a time from 1s to 720h0m0s`},
		"pii":                {toolDoc("{id: a, match: 'tool:*', action: pii-scan, pii: {in: msk}}"), `unknown treatment "msk" (did you mean "mask"?)`},
		"empty pii":          {toolDoc("{id: a, match: 'tool:*', action: pii-scan, pii: {}}"), `pii has neither in nor out`},
		"audit":              {toolDoc("{id: a, allow: 'tool:*', audit: all}"), `unknown audit level "all" (write metadata or full)`},
		"waive":              {toolDoc("{id: a, allow: 'tool:*', waive: [rates]}"), `unknown obligation "rates" (did you mean "rate"?)`},
		"mandatory waive":    {toolDoc("{id: a, deny: 'tool:*', waive: [rate], mandatory: true}"), `f:6:29: a mandatory rule never opens: it cannot waive`},
		"mandatory":          {toolDoc("{id: a, match: 'tool:*', action: require-approval, mandatory: true, delegable: true}"), `a rule cannot be both mandatory and delegable`},
		"empty when":         {toolDoc("{id: a, allow: 'tool:*', when: {}}"), `when has no condition`},
		"syntax":             {toolDoc("{id: a, allow: 'tool:*', when: {expression: 'args.n <'}}"), `f:6:58: expression "args.n <": Syntax error: mismatched input '<EOF>'`},
		"variable":           {toolDoc("{id: a, allow: 'tool:*', when: {expression: 'tool == host'}}"), `f:6:58: expression "tool == host": undeclared reference to 'host'`},
		"variables":          {toolDoc("{id: a, allow: 'tool:*', when: {expression: 'model == tool'}}"), `(variables here: server, tool, risk, args, principal, now)`},
		"type":               {toolDoc("{id: a, allow: 'tool:*', when: {expression: 'tool'}}"), `f:6:49: expression "tool": it is a string and must be a bool`},
		"types":              {toolDoc("{id: a, allow: 'tool:*', when: {expression: 'tool > 3'}}"), `found no matching overload for '_>_' applied to '(string, int)'`},
		"long":               {toolDoc("{id: a, allow: 'tool:*', when: {expression: '" + strings.Repeat("tool == 'x' || ", 200) + "true'}}"), `not valid YAML`},
		"too long":           {toolDoc("{id: a, allow: 'tool:*', when: {expression: '" + strings.Repeat("tool == server || ", 200) + "true'}}"), `the expression is longer than 2048 bytes`},
		"deep":               {toolDoc("{id: a, allow: 'tool:*', when: {expression: '" + strings.Repeat("(", 300) + "true" + strings.Repeat(")", 300) + "'}}"), `f:6:`},
		"zone":               {toolDoc("{id: a, allow: 'tool:*', when: {windows: [{from: '09:00', to: '17:00', zone: Europe/Berlim}]}}"), `zone "Europe/Berlim" is not known`},
		"local zone":         {toolDoc("{id: a, allow: 'tool:*', when: {windows: [{from: '09:00', to: '17:00', zone: Local}]}}"), `zone "Local" depends on the machine`},
		"zone outside":       {toolDoc("{id: a, allow: 'tool:*', when: {windows: [{from: '09:00', to: '17:00', zone: ../etc/passwd}]}}"), `is not known`},
		"clock":              {toolDoc("{id: a, allow: 'tool:*', when: {windows: [{from: '9:00', to: '17:00'}]}}"), `from: "9:00" is not a time of day such as 09:00`},
		"clock of 25":        {toolDoc("{id: a, allow: 'tool:*', when: {windows: [{from: '09:00', to: '25:00'}]}}"), `to: "25:00" is not a time of day`},
		"empty window":       {toolDoc("{id: a, allow: 'tool:*', when: {windows: [{from: '09:00', to: '09:00'}]}}"), `a window from "09:00" to "09:00" is empty`},
		"half a window":      {toolDoc("{id: a, allow: 'tool:*', when: {windows: [{from: '09:00'}]}}"), `window needs the field "to"`},
		"day":                {toolDoc("{id: a, allow: 'tool:*', when: {windows: [{days: [monday], from: '09:00', to: '10:00'}]}}"), `unknown day "monday"`},
		"request on deny":    {egressDoc("{id: a, deny: x.org, when: {expression: \"method == 'PUT'\"}}"), `a condition on requests needs a port`},
		"request on UDP":     {egressDoc("{id: a, allow: 'x.org:443/udp', when: {expression: \"method == 'PUT'\"}}"), `method and path in a condition: only HTTP requests to names have them`},
		"principals in tool": {toolDoc("{id: a, allow: 'org:acme/tool:x'}"), `names principals`},
	} {
		t.Run(name, func(t *testing.T) {
			docs, problems := ParseWhole("f", []byte(c.doc))
			if got := Problems(problems).Error(); !strings.Contains(got, c.want) {
				t.Errorf("got\n\t%s\nwant\n\t%s", got, c.want)
			}
			if len(docs) > 0 {
				t.Error("the document was taken all the same")
			}
		})
	}
}

// Each row: what documents can say and nothing enforces is refused by Parse with
// its place, taken by ParseWhole, and the same without it is taken by both.
func TestWhatIsNotEnforcedDoesNotComeIntoForce(t *testing.T) {
	rows := map[string]string{ // extra field or whole rule -> the problem
		"{id: a, to: 'x.org:80', action: require-approval}":                                           `f:6:37: action "require-approval" here is not enforced by this version`,
		"{id: a, to: 'x.org:443/udp', action: require-approval}":                                      `action "require-approval" here is not enforced by this version`,
		"{id: a, to: '192.0.2.0/24:443', action: require-approval}":                                   `action "require-approval" here is not enforced by this version`,
		"{id: a, to: 'x.org:443', action: require-approval, http: {methods: [PUT]}}":                  `action "require-approval" here is not enforced by this version`,
		"tools {id: a, match: 'server:jira/tool:x', action: require-approval}":                        `action "require-approval" here is not enforced by this version`,
		"{id: a, to: 'x.org:443', action: rate-limit, rate: {requests: 1/s}}":                         `f:6:50: field "rate" in egress rule is not enforced by this version`,
		"{id: a, allow: 'x.org:443', rate: {concurrency: 1, per: [agent]}}":                           `f:6:33: field "rate" in egress rule is not enforced by this version (calls of models are counted: rates of inference rules are enforced)`,
		"inference {id: a, allow: '*', waive: [rate, pii]}":                                           `f:6:25: field "waive" in inference rule is not enforced`,
		"inference {id: a, allow: '*', audit: full}":                                                  `field "audit" in inference rule is not enforced`,
		"tools {id: a, allow: 'server:provider/tool:x', waive: [rate]}":                               `field "waive" in tools rule is not enforced`,
		"{id: a, to: 'x.org:443', action: pii-scan}":                                                  `field "pii" in egress rule is not enforced`,
		"{id: a, to: 'x.org:443', action: redact}":                                                    `field "redact" in egress rule is not enforced`,
		"{id: a, allow: 'x.org:443', audit: full}":                                                    `f:6:33: field "audit" in egress rule is not enforced`,
		"{id: a, allow: 'x.org:443', waive: [pii]}":                                                   `f:6:33: field "waive" in egress rule is not enforced`,
		"tools {id: a, allow: 'server:provider/tool:x', mode: shadow}":                                `f:6:46: field "mode" in tools rule is not enforced`,
		"tools {id: a, allow: 'server:provider/tool:x', when: {expression: 'true'}}":                  `f:6:46: field "when" in tools rule is not enforced`,
		"{id: a, to: 'x.org:443', action: require-approval, when: {expression: 'method == \"PUT\"'}}": `action "require-approval" here is not enforced by this version`,
		"tools {id: a, allow: 'server:provider/tool:x', risk: [read]}":                                `field "risk" in tools rule is not enforced`,
		"tools {id: a, match: 'server:jira/tool:x', action: allow}":                                   `f:6:20: tools on "server:jira/tool:x": this is not enforced`,
		"tools {id: a, deny: 'tool:*'}":                                                               `tools on`,
		"tools {id: a, deny: 'server:p*/tool:*'}":                                                     `tools on "server:p*": this is not enforced`,
		"tools {id: a, allow: 'server:provider/tool:x', rate: {requests: 1/m}}":                       `field "rate" in tools rule is not enforced`,
	}
	hit := map[string]bool{}
	for rule, want := range rows {
		doc := egressDoc(rule)
		if r, ok := strings.CutPrefix(rule, "tools "); ok {
			doc = toolDoc(r)
		}
		if r, ok := strings.CutPrefix(rule, "inference "); ok {
			doc = head + "inference:\n  - " + r + "\n"
		}
		docs, problems := Parse("f", []byte(doc))
		if got := Problems(problems).Error(); !strings.Contains(got, want) || len(docs) > 0 {
			t.Errorf("%s\n\tgot %q, %d documents", rule, got, len(docs))
		}
		whole, problems := ParseWhole("f", []byte(doc))
		if len(problems) > 0 || len(whole) != 1 {
			t.Fatalf("%s: %v", rule, Problems(problems))
		}
		for _, row := range unenforced {
			for _, rules := range [][]Rule{whole[0].Policy.Egress, whole[0].Policy.Tools} {
				for i := range rules {
					hit[row.field] = hit[row.field] || row.has(&rules[i])
				}
			}
		}
	}
	for _, row := range unenforced {
		if !hit[row.field] {
			t.Errorf("no case for %s", row.field)
		}
	}
	for _, fine := range []string{
		egressDoc("{id: a, allow: 'x.org:443', mode: shadow}"), egressDoc("{id: a, deny: '10.0.0.0/8', when: {windows: [{from: '08:00', to: '09:00'}]}}"),
		egressDoc("{id: a, allow: 'x.org:443', when: {expression: 'method == \"GET\"'}}"), egressDoc("{id: a, to: 'x.org:443', action: require-approval, when: {expression: 'port == 443'}}"),
		head + "inference:\n  - {id: a, allow: '*', rate: {requests: 60/m, tokens: 200k/h, concurrency: 4, per: [agent, model, provider], queue: 2s}}\n",
		head + "inference:\n  - {id: a, model: '*', action: rate-limit, rate: {concurrency: 1}, mode: shadow}\n",
		head + "inference:\n  - {id: a, allow: '*', waive: [rate]}\n",
		head + "inference:\n  - {id: a, allow: '*', mode: shadow, when: {expression: 'model.startsWith(\"gpt\")'}}\n",
		egressDoc("{id: a, allow: 'x.org:443'}"), egressDoc("{id: a, to: 'x.org:443', action: require-approval}"), toolDoc("{id: a, allow: 'server:provider/tool:x'}"),
		toolDoc("{id: a, match: 'server:provider/tool:x', action: require-approval}"), toolDoc("{id: a, match: 'server:provider', action: require-approval}")} {
		if docs, problems := Parse("f", []byte(fine)); len(problems) > 0 || len(docs) != 1 {
			t.Errorf("%v", Problems(problems))
		}
	}
}

func TestTermsSayWhatTheRuleSays(t *testing.T) {
	s := algCompile(t, toolDoc(`{id: a, match: "server:bank/tool:pay", action: require-approval, approval: {approvers: ["group:fin", "user:eve", "gid:7"], quorum: 2, separate: true, expiresAfter: 10m, validFor: 2d},
      rate: {requests: 5/m, tokens: 200k/h, concurrency: 3, per: [agent, tool], queue: 2s}, pii: {in: mask, out: block, entities: [iban]}, redact: {entities: [email]}, audit: metadata}`))
	for _, s := range []*Snapshot{s, overTheWire(t, s)} {
		d := s.View(bot).Tool(&Call{Server: "bank", Tool: "pay"})
		if len(d.Demands()) != 1 || len(d.Obligations()) != 4 {
			t.Fatalf("%+v", d.Terms)
		}
		a := d.Demands()[0].Approval
		if !slices.Equal(a.Approvers, []string{"group:fin", "user:eve", "gid:7"}) || a.Quorum != 2 || !a.Separate || a.ExpiresAfter != 10*time.Minute || a.ValidFor != 48*time.Hour {
			t.Errorf("%+v", a)
		}
		o := d.Obligations()
		if r := o[0].Rate; r.Requests != 5 || r.RequestsWindow != time.Minute || r.Tokens != 200000 || r.TokensWindow != time.Hour || r.Concurrency != 3 || !slices.Equal(r.Per, []string{"agent", "tool"}) || r.Queue != 2*time.Second {
			t.Errorf("%+v", r)
		}
		if p := o[1].PII; p.In != "mask" || p.Out != "block" || !slices.Equal(p.Entities, []string{"iban"}) {
			t.Errorf("%+v", p)
		}
		if o[2].Redact.Entities[0] != "email" || o[3].Audit != AuditMetadata {
			t.Errorf("%+v", o[2:])
		}
	}
}

// A fingerprint changes with the text of a rule that decides and with nothing else.
func TestTheFingerprintFollowsTheDecidingRules(t *testing.T) {
	const rule = `{id: a, match: "server:bank", action: require-approval, reason: R}`
	of := func(doc string) [32]byte {
		d := algCompile(t, doc).View(bot).Tool(&Call{Server: "bank", Tool: "pay"})
		if d.Effect != RequireApproval {
			t.Fatalf("%+v", d)
		}
		return d.Terms.Fingerprint
	}
	base := of(toolDoc(rule))
	if base == ([32]byte{}) {
		t.Fatal("no fingerprint")
	}
	for name, doc := range map[string]string{
		"another layout":  head + "tools:\n  # why\n  - id: a\n    match: \"server:bank\"\n    action: require-approval\n    reason: 'R'\n",
		"an unlike rule":  toolDoc(rule + "\n  - {id: b, match: 'server:wiki', action: block}"),
		"an allow of all": toolDoc(rule + "\n  - {id: b, match: 'tool:*', action: allow}"),
	} {
		if of(doc) != base {
			t.Errorf("%s: another fingerprint", name)
		}
	}
	for name, doc := range map[string]string{
		"another reason":     toolDoc(strings.Replace(rule, "R}", "S}", 1)),
		"another id":         toolDoc(strings.Replace(rule, "id: a", "id: b", 1)),
		"another document":   strings.Replace(toolDoc(rule), "name: ", "name: x", 1),
		"other approvers":    toolDoc(strings.Replace(rule, "reason: R", `reason: R, approval: {approvers: ["uid:1"]}`, 1)),
		"a second demand":    toolDoc(rule + "\n  - {id: b, match: 'tool:*', action: require-approval, mandatory: true}"),
		"another obligation": toolDoc(rule + "\n  - {id: b, match: 'tool:*', action: redact}"),
	} {
		if of(doc) == base {
			t.Errorf("%s: the same fingerprint", name)
		}
	}
}

// Expressions see what they are told, and what they are not told is an error.
func TestConditionsSeeTheirCall(t *testing.T) {
	now := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	call := &Call{Server: "bank", Tool: "pay", Risk: RiskMoney | RiskWrite, Args: NewArgs(map[string]any{"n": 5.0, "who": "eve", "list": []any{"a"}, "sub": map[string]any{"x": nil}})}
	for text, want := range map[string]truth{
		"server == 'bank' && tool.startsWith('p')":           condTrue,
		"'money' in risk && !('read' in risk)":               condTrue,
		"principal.team == 'eng' && principal.org == 'acme'": condTrue,
		"args.n == 5 && args.n < 6 && args.n > 4.5":          condTrue,
		"args.who.matches('^e.e$')":                          condTrue,
		"args.list.all(x, x == 'a')":                         condTrue,
		"has(args.missing)":                                  condFalse,
		"args.missing == 1":                                  condError,
		"args.who < 3":                                       condError,
		"args.who":                                           condError,
		"args.sub.x == null":                                 condTrue,
		"now.getHours('Europe/Berlin') == 11":                condTrue,
		"now < timestamp('2026-03-02T10:00:01Z')":            condTrue,
		"[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, [1,2,3,4,5,6,7,8,9].all(e, a+b+c+d+e > 0)))))": condError, // cost
	} {
		doc := toolDoc("{id: a, match: 'tool:*', action: allow, when: {expression: \"" + text + "\"}}\n  - {id: b, match: 'server:*/tool:*', for: 'org:acme', action: redact, when: {expression: \"" + text + "\"}}")
		d := algCompile(t, doc).View(bot).At(now).Tool(call)
		got := condFalse
		switch {
		case d.Effect == Allow && len(d.Obligations()) == 1:
			got = condTrue
		case d.Effect == Block && len(d.Obligations()) == 1:
			got = condError
		case len(d.Obligations()) == 1 || d.Effect == Allow:
			t.Errorf("%s: effect and obligation disagree: %+v", text, d)
		}
		if got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	// Without a time what asks for it is an error.
	d := algCompile(t, toolDoc("{id: a, match: 'tool:*', action: allow, when: {expression: 'now > timestamp(0)'}}")).View(bot).Tool(call)
	if d.Effect != Block {
		t.Errorf("%+v", d)
	}
}

// An expression on method and path makes the connection inspected, like http:.
func TestConditionsOnRequests(t *testing.T) {
	v := algCompile(t, egressDoc(`{id: a, allow: "x.org:443", when: {expression: "method == 'GET' && path.startsWith('/v1/') && host == 'x.org' && port == 443"}}
  - {id: b, deny: "y.org:443", when: {expression: "method != 'GET'"}}
  - {id: c, allow: "y.org:443"}
  - {id: d, to: "z.org:443", action: require-approval, when: {expression: "method == 'PUT'"}}`)).View(bot)
	if d := v.Egress("x.org", 443); !d.Allowed() || !d.HTTP {
		t.Errorf("%+v", d)
	}
	if d := v.Opaque("x.org", 443); d.Allowed() {
		t.Errorf("%+v", d)
	}
	for _, c := range []struct {
		host, method, path string
		want               Effect
	}{
		{"x.org", "GET", "/v1/a?b", Allow}, {"x.org", "POST", "/v1/a", Block}, {"x.org", "GET", "/v2", Block}, {"x.org", "GET", "/v1/../v1/", Block},
		{"y.org", "GET", "/", Allow}, {"y.org", "PUT", "/", Block}, {"y.org", "GET", "/a/../b", Block}, // the path is unknown, so the condition is an error
		{"z.org", "PUT", "/", RequireApproval}, {"z.org", "GET", "/", Block},
	} {
		if d := v.HTTP(c.host, 443, c.method, c.path); d.Effect != c.want {
			t.Errorf("%+v: %+v", c, d)
		}
	}
	if d := v.Opaque("y.org", 443); d.Allowed() {
		t.Errorf("%+v", d)
	}
	if d := v.Egress("z.org", 443); d.Effect != RequireApproval || !d.HTTP {
		t.Errorf("%+v", d)
	}
	if d := v.Opaque("z.org", 443); d.Effect != Block {
		t.Errorf("an approval for PUT opens what nobody can look into: %+v", d)
	}
}

// A connection gets the best that a request could get, also where a narrower
// approval hands the word down that a wider one keeps.
func TestAConnectionGetsTheBestOfItsRequests(t *testing.T) {
	v := algCompile(t, head+`egress:
  - {id: all, to: "**.x.org:443", action: require-approval}
  - {id: get, to: "api.x.org:443", action: require-approval, http: {methods: [GET]}, delegable: true}
---
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: own}
scope: org:acme/team:eng/agent:bot
egress:
  - {id: api, allow: "api.x.org:443", resolvesTo: [10.0.0.0/8]}
`).View(bot)
	if d := v.HTTP("api.x.org", 443, "GET", "/"); d.Effect != Allow {
		t.Fatalf("%+v", d)
	}
	if d := v.HTTP("api.x.org", 443, "PUT", "/"); d.Effect != RequireApproval || len(d.Demands()) != 1 {
		t.Fatalf("%+v", d)
	}
	if d := v.Egress("api.x.org", 443); d.Effect != Allow || !d.HTTP {
		t.Errorf("%+v", d)
	}
	if p := v.ResolvesTo("api.x.org", 443, TCP); len(p) != 1 {
		t.Errorf("%v", p)
	}
	if d := v.Opaque("api.x.org", 443); d.Effect != RequireApproval {
		t.Errorf("%+v", d)
	}
}

// TestCrowdedConditions: who writes many expressions about one target does not
// decide how long a decision takes. More than the bound are errors, in any order.
func TestCrowdedConditions(t *testing.T) {
	document := func(n int, effect string) string {
		var b strings.Builder
		b.WriteString("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: org:*\negress:\n  - {id: other, allow: \"other.test:443\", when: {expression: \"true\"}}\n")
		if effect == "deny" {
			b.WriteString("  - {id: open, allow: \"**.test:443\"}\n")
		}
		for i := range n {
			fmt.Fprintf(&b, "  - {id: r%d, %s: \"a.test:443\", when: {expression: \"port == %d\"}}\n", i, effect, 443+i)
		}
		return b.String()
	}
	for _, c := range []struct {
		n      int
		effect string
		want   Effect
	}{{maxConditions, "allow", Allow}, {maxConditions + 1, "allow", Block}, {maxConditions, "deny", Block}, {maxConditions + 1, "deny", Block}} {
		docs, problems := ParseWhole("p.yaml", []byte(document(c.n, c.effect)))
		if len(problems) > 0 {
			t.Fatal(Problems(problems))
		}
		snap, problems := Compile(1, docs)
		if len(problems) > 0 {
			t.Fatal(Problems(problems))
		}
		v := snap.View(bot)
		if d := v.Egress("a.test", 443); d.Effect != c.want {
			t.Errorf("%d rules that %s: %v by %s", c.n, c.effect, d.Effect, d.Rule)
		}
		if d := v.Egress("other.test", 443); d.Effect != Allow {
			t.Errorf("%d rules about another host: %v", c.n, d.Effect)
		}
	}
}
