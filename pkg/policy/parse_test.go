// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/scope"
)

// head begins a Policy whose first rule is in line 6.
const head = "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: org:acme\n"

// egressDoc holds one egress rule, in line 6 from column 5.
func egressDoc(rule string) string { return head + "egress:\n  - " + rule + "\n" }

const providerHead = "apiVersion: ringfence.dev/v1\nkind: Provider\nmetadata: {name: p}\n"
const profileHead = "apiVersion: ringfence.dev/v1\nkind: Profile\nmetadata: {name: p}\n"

func TestEveryMistakeHasItsPlace(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		// The document.
		{"not YAML", "a: [", "f:1:1: not valid YAML"},
		{"no kind", "apiVersion: ringfence.dev/v1\n", `f:1:1: a document needs the field "kind"`},
		{"no mapping", "- a\n", "f:1:1: a document must be a mapping, found a list"},
		{"scalar", "hello\n", `f:1:1: a document must be a mapping, found a string "hello"`},
		{"kind misspelt", "kind: Polcy\n", `f:1:7: unknown kind "Polcy" (did you mean "Policy"?)`},
		{"kind of a later version", "apiVersion: ringfence.dev/v1\nkind: ToolServer\nmetadata: {name: jira}\nhttp: {url: https://jira.example/mcp}\n", `f:2:7: kind "ToolServer" is not enforced by this version`},
		{"wrong version", strings.Replace(egressDoc("{id: a, deny: x.org}"), "dev/v1", "dev/v2", 1), `f:1:13: apiVersion "ringfence.dev/v2" is not supported`},
		{"no scope", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\negress: [{id: a, deny: x.org}]\n", `f:1:1: Policy needs the field "scope"`},
		{"no name", strings.Replace(egressDoc("{id: a, deny: x.org}"), "{name: p}", "{}", 1), `f:3:11: metadata needs the field "name"`},
		{"bad name", strings.Replace(egressDoc("{id: a, deny: x.org}"), "{name: p}", "{name: ../p}", 1), `f:3:18: metadata.name "../p" is not a valid name`},
		{"unknown top field", head + "egres:\n  - {id: a, deny: x.org}\n", `f:5:1: unknown field "egres" in Policy (did you mean "egress"?)`},
		{"field of a later version", head + "guardrails: []\negress: [{id: a, deny: x.org}]\n", `f:5:1: field "guardrails" in Policy is not enforced by this version`},
		{"repeated key", head + "egress: [{id: a, deny: x.org}]\nscope: org:b\n", `f:6:1: field "scope" is given twice, first in line 4`},
		{"no rules", head, "f:1:1: the document has no rules"},
		{"alias", head + "egress: &e\n  - {id: a, deny: x.org}\ninference: *e\n", `f:5:9: anchor "&e": anchors are not supported`},
		{"merge key", egressDoc("{id: a, deny: x.org, <<: {mandatory: true}}"), `f:6:26: unknown field "<<"`},
		{"tag", egressDoc("{id: !!str a, deny: x.org}"), `f:6:10: tag "!!str": explicit tags are not supported`},
		{"custom tag", egressDoc("{id: !x a, deny: x.org}"), `f:6:10: tag "!x"`},

		// Scopes.
		{"scope key", strings.Replace(egressDoc("{id: a, deny: x.org}"), "org:acme", "org:acme/tema:x", 1), `f:4:17: scope: selector "org:acme/tema:x": unknown key "tema"`},
		{"scope with a server", strings.Replace(egressDoc("{id: a, deny: x.org}"), "org:acme", "server:jira", 1), `f:4:8: scope "server:jira" names a server or tool`},
		{"for elsewhere", egressDoc("{id: a, deny: x.org, for: org:b}"), `f:6:31: for "org:b" has nobody in common with the scope "org:acme"`},

		// Rules.
		{"no id", egressDoc("{deny: x.org}"), `f:6:5: egress rule needs the field "id"`},
		{"number as id", egressDoc("{id: 7, deny: x.org}"), `f:6:10: id must be a string, found a number "7" (write "7" in quotes)`},
		{"id twice", egressDoc("{id: a, deny: x.org}\n  - {id: a, deny: y.org}"), `f:7:5: rule id "a" is used twice, first in line 6`},
		{"no effect", egressDoc("{id: a}"), "f:6:5: the rule has no effect"},
		{"misspelt effect", egressDoc("{id: a, alow: x.org}"), `f:6:13: unknown field "alow" in egress rule (did you mean "allow"?)`},
		{"two effects", egressDoc("{id: a, allow: 'x.org:1', deny: x.org}"), `f:6:31: "allow" and "deny" in one rule`},
		{"shorthand with target", egressDoc("{id: a, deny: x.org, to: y.org}"), `f:6:26: "deny" already names the target`},
		{"action without target", egressDoc("{id: a, action: block}"), `f:6:5: a rule with action needs the field "to"`},
		{"unknown action", egressDoc("{id: a, to: x.org, action: blok}"), `f:6:32: unknown action "blok" (did you mean "block"?)`},
		{"action deny", egressDoc("{id: a, to: x.org, action: deny}"), `f:6:32: unknown action "deny" (did you mean "block"?)`},
		{"approval without a port", egressDoc("{id: a, to: x.org, action: require-approval}"), `f:6:17: an approval names its port: "x.org" has none (for example "x.org:443")`},
		{"approval", egressDoc("{id: a, to: 'x.org:80', action: require-approval}"), `f:6:37: action "require-approval" here is not enforced by this version`},
		{"rate", egressDoc("{id: a, deny: x.org, rate: {requests: 60/m}}"), `f:6:26: field "rate" in egress rule is not enforced by this version`},
		{"mode", toolDoc("{id: a, deny: 'server:provider/tool:x', mode: shadow}"), `f:6:45: field "mode" in tools rule is not enforced`},
		{"when", toolDoc("{id: a, deny: 'server:provider/tool:x', when: {expression: 'true'}}"), `f:6:45: field "when" in tools rule is not enforced`},
		{"misspelt field", egressDoc("{id: a, deny: x.org, mandatry: true}"), `f:6:26: unknown field "mandatry" in egress rule (did you mean "mandatory"?)`},
		{"model in egress", egressDoc("{id: a, deny: x.org, model: x}"), `f:6:26: unknown field "model" in egress rule`},
		{"yes is no boolean", egressDoc("{id: a, deny: x.org, mandatory: yes}"), `f:6:37: mandatory must be true or false, found "yes"`},
		{"mandatory allow", egressDoc("{id: a, allow: 'x.org:443', mandatory: true}"), "f:6:33: a mandatory rule never opens"},
		{"mandatory and delegable", egressDoc("{id: a, deny: x.org, mandatory: true, delegable: true}"), "f:6:43: a rule cannot be both"},
		{"rule is a string", head + "egress:\n  - x.org\n", `f:6:5: egress rule must be a mapping, found a string "x.org"`},
		{"egress is a mapping", head + "egress: {id: a}\n", "f:5:9: egress must be a list, found a mapping"},
		{"control character", egressDoc(`{id: a, deny: x.org, reason: "a\e[31m"}`), "f:6:34: reason has a control character"},

		// Targets.
		{"allow without port", egressDoc("{id: a, allow: x.org}"), `f:6:20: an allow names its port: "x.org" has none (for example "x.org:443")`},
		{"empty target", egressDoc("{id: a, deny: ''}"), "f:6:19: the target is empty"},
		{"URL", egressDoc("{id: a, allow: 'https://x.org/'}"), `f:6:20: "https://x.org/": a target is HOST:PORT, without scheme and path`},
		{"path", egressDoc("{id: a, allow: 'x.org/a:443'}"), `without a path (limit paths`},
		{"port 0", egressDoc("{id: a, allow: 'x.org:0'}"), `name one port from 1 to 65535`},
		{"port star", egressDoc("{id: a, allow: 'x.org:*'}"), `name one port from 1 to 65535`},
		{"port too large", egressDoc("{id: a, allow: 'x.org:65536'}"), `port "65536" is not a number from 1 to 65535`},
		{"port range", egressDoc("{id: a, allow: 'x.org:80-90'}"), `port "80-90" is not a number`},
		{"another protocol", egressDoc("{id: a, allow: 'x.org:53/sctp'}"), `port "53/sctp" is not a number from 1 to 65535 (one port to a rule, with /udp behind it for UDP)`},
		{"upper-case protocol", egressDoc("{id: a, allow: 'x.org:123/UDP'}"), `port "123/UDP" is not a number`},
		{"protocol without port", egressDoc("{id: a, deny: 'x.org/udp'}"), `f:6:19: "x.org/udp": a protocol stands behind a port, as in "x.org:443/udp"`},
		{"protocol without port, address", egressDoc("{id: a, deny: '10.0.0.0/8/udp'}"), `as in "10.0.0.0/8:443/udp"`},
		{"two protocols", egressDoc("{id: a, allow: 'x.org:123/tcp/udp'}"), `port "123/tcp" is not a number`},
		{"DNS", egressDoc("{id: a, allow: 'x.org:53/udp'}"), `f:6:20: "x.org:53/udp": DNS is answered by Ringfence, and no rule relays UDP to port 53`},
		{"DNS, address", egressDoc("{id: a, allow: '[2001:4860:4860::8888]:53/udp'}"), `no rule relays UDP to port 53`},
		{"http on UDP", egressDoc("{id: a, allow: 'x.org:443/udp', http: {methods: [GET]}}"), `http conditions on UDP: nothing looks into datagrams`},
		{"multicast", egressDoc("{id: a, allow: '224.0.0.251:5353/udp'}"), `datagrams to a group are not relayed`},
		{"multicast, IPv6", egressDoc("{id: a, allow: '[ff02::fb]:5353/udp'}"), `datagrams to a group are not relayed`},
		{"UDP to a provider", egressDoc("{id: a, allow: 'api.openai.com:443/udp'}"), `is a host of a model provider and never plain egress`},
		{"UDP without port", egressDoc("{id: a, allow: 'x.org'}"), `an allow names its port`},
		{"bare star", egressDoc("{id: a, allow: '*:443'}"), `"*" is not a host pattern`},
		{"inner star", egressDoc("{id: a, allow: 'a.*.org:443'}"), `a wildcard is a whole label at the front`},
		{"partial star", egressDoc("{id: a, allow: 'a*.x.org:443'}"), `a wildcard is a whole label at the front`},
		{"octal", egressDoc("{id: a, allow: '0177.0.0.1:443'}"), `"0177.0.0.1" is not an address`},
		{"short address", egressDoc("{id: a, allow: '127.1:443'}"), `address in disguise`},
		{"hex address", egressDoc("{id: a, allow: '0x7f000001:443'}"), `address in disguise`},
		{"number", egressDoc("{id: a, allow: '2130706433:443'}"), `address in disguise`},
		{"full width", egressDoc("{id: a, allow: '１２７.１:443'}"), `address in disguise`},
		{"wildcard over a number", egressDoc("{id: a, deny: '**.0x7f'}"), `address in disguise`},
		{"long label", egressDoc("{id: a, deny: " + strings.Repeat("a", 64) + ".org}"), `longer than 63`},
		{"empty label", egressDoc("{id: a, deny: a..org}"), `empty label`},
		{"bad character", egressDoc("{id: a, deny: 'a$.org'}"), `character that host names cannot have`},
		{"bad punycode", egressDoc("{id: a, deny: 'xn--a.org'}"), `internationalised`},
		{"localhost", egressDoc("{id: a, allow: 'localhost:80'}"), `loopback inside a sandbox is the sandbox's own`},
		{"host bits", egressDoc("{id: a, deny: 10.0.0.1/8}"), `"10.0.0.1/8" has bits below its length (did you mean "10.0.0.0/8"?)`},
		{"mapped", egressDoc("{id: a, deny: '::ffff:10.0.0.1'}"), `write the IPv4 form`},
		{"NAT64", egressDoc("{id: a, deny: '64:ff9b::/96'}"), `write the IPv4 form`},
		{"virtual", egressDoc("{id: a, allow: '198.18.0.1:443'}"), `reserved for virtual addresses`},
		{"loopback", egressDoc("{id: a, allow: '127.0.0.1:443'}"), `loopback inside a sandbox is the sandbox's own`},
		{"zone", egressDoc("{id: a, deny: 'fe80::1%eth0'}"), `a target is HOST:PORT`},
		{"provider host", egressDoc("{id: a, allow: 'api.openai.com:443'}"), `f:6:20: "api.openai.com:443" is a host of a model provider and never plain egress: no egress rule matches it (write an inference: rule`},
		{"provider pattern", egressDoc("{id: a, deny: '*.openai.azure.com'}"), `is a host of a model provider`},
		{"provider region", egressDoc("{id: a, allow: 'bedrock-runtime.us-east-1.amazonaws.com:443'}"), `dialect is not built`},

		// Conditions and resolvesTo.
		{"empty http", egressDoc("{id: a, allow: 'x.org:443', http: {}}"), "f:6:39: http has no condition"},
		{"unknown in http", egressDoc("{id: a, allow: 'x.org:443', http: {method: [GET]}}"), `unknown field "method" in http (did you mean "methods"?)`},
		{"lower case method", egressDoc("{id: a, allow: 'x.org:443', http: {methods: [get]}}"), `f:6:50: method "get": methods are upper case (did you mean "GET"?)`},
		{"no methods", egressDoc("{id: a, allow: 'x.org:443', http: {methods: []}}"), `methods is an empty list`},
		{"method twice", egressDoc("{id: a, allow: 'x.org:443', http: {methods: [GET, GET]}}"), `"GET" is listed twice in methods`},
		{"relative path", egressDoc("{id: a, allow: 'x.org:443', http: {paths: [a]}}"), `path "a" must start with "/"`},
		{"query", egressDoc("{id: a, allow: 'x.org:443', http: {paths: ['/a?b']}}"), `queries are not matched`},
		{"dot path", egressDoc("{id: a, allow: 'x.org:443', http: {paths: ['/a/../b']}}"), `not in normal form`},
		{"inner double star", egressDoc("{id: a, allow: 'x.org:443', http: {paths: ['/**/b']}}"), `"**" may only be the last segment`},
		{"http on an address", egressDoc("{id: a, allow: '8.8.8.8:443', http: {methods: [GET]}}"), `http conditions on literal addresses: this is not enforced`},
		{"http deny without port", egressDoc("{id: a, deny: x.org, http: {methods: [GET]}}"), `a deny with http needs a port`},
		{"resolvesTo on a deny", egressDoc("{id: a, deny: x.org, resolvesTo: [10.0.0.0/8]}"), `a rule that blocks cannot have it`},
		{"resolvesTo on an address", egressDoc("{id: a, allow: '8.8.8.8:1', resolvesTo: [10.0.0.0/8]}"), `resolvesTo is for host names`},
		{"resolvesTo string", egressDoc("{id: a, allow: 'x.org:1', resolvesTo: 10.0.0.0/8}"), `resolvesTo must be a list, found a string`},
		{"resolvesTo virtual", egressDoc("{id: a, allow: 'x.org:1', resolvesTo: [198.18.3.0/24]}"), `reserved for virtual addresses`},

		// Inference and tools.
		{"inner star in model", head + "inference:\n  - {id: a, allow: 'a*b'}\n", `f:6:20: model "a*b": "*" may stand alone or at the end only`},
		{"http in inference", head + "inference:\n  - {id: a, allow: 'a', http: {}}\n", `unknown field "http" in inference rule`},
		{"tools elsewhere", head + "tools:\n  - {id: a, allow: 'server:jira/tool:x'}\n", `f:6:20: tools on "server:jira/tool:x": this is not enforced by this version (only "server:provider/tool:NAME" is)`},
		{"tools everywhere", head + "tools:\n  - {id: a, allow: 'tool:*'}\n", `is not enforced by this version`},
		{"tools with principals", head + "tools:\n  - {id: a, allow: 'org:acme/server:provider'}\n", `names principals`},
		{"guardrails", head + "guardrails: []\negress: [{id: a, deny: x.org}]\n", `is not enforced`},

		// Providers.
		{"dialect", providerHead + "dialect: cohere\nbaseURL: https://x.org\nsecret: k\n", `f:4:10: dialect "cohere" is not built in this version`},
		{"platform", providerHead + "dialect: openai\nplatform: watsonx\nbaseURL: https://x.org\nsecret: k\n", `f:5:11: platform "watsonx" is not built in this version (built are: azure, bedrock, vertex;`},
		{"platform of another dialect", providerHead + "dialect: openai\nplatform: bedrock\nbaseURL: https://x.org\nsecret: k\n", `f:5:11: platform bedrock is not built in this version for the dialect openai (it is built for: anthropic)`},
		{"platform and the agent's credential", providerHead + "dialect: openai\nplatform: azure\nbaseURL: https://x.openai.azure.com\ncredential: passthrough\n", `f:7:1: an agent has no credential of the platform azure`},
		{"address of azure", providerHead + "dialect: openai\nplatform: azure\nbaseURL: https://x.openai.azure.com/v1\nsecret: k\n", `f:6:10: baseURL "https://x.openai.azure.com/v1" is not one of the platform azure (write it as https://NAME.openai.azure.com/openai/v1`},
		{"address of vertex", providerHead + "dialect: gemini\nplatform: vertex\nbaseURL: https://aiplatform.googleapis.com/v1\nsecret: k\n", `/v1/projects/PROJECT/locations/LOCATION`},
		{"region of bedrock", providerHead + "dialect: anthropic\nplatform: bedrock\nbaseURL: https://bedrock.internal\nsecret: k\n", `f:6:10: the host of baseURL does not name a region`},
		{"dialect misspelt", providerHead + "dialect: openia\nbaseURL: https://x.org\nsecret: k\n", `did you mean "openai"?`},
		{"plaintext", providerHead + "dialect: openai\nbaseURL: http://x.org\nsecret: k\n", `f:5:10: baseURL "http://x.org" would send prompts and the key in the clear`},
		{"query in URL", providerHead + "dialect: openai\nbaseURL: 'https://x.org/?a=b'\nsecret: k\n", `must not have a query`},
		{"user in URL", providerHead + "dialect: openai\nbaseURL: 'https://u:p@x.org/'\nsecret: k\n", `must not hold a user name`},
		{"scheme", providerHead + "dialect: openai\nbaseURL: ftp://x.org\nsecret: k\n", `must be https://HOST`},
		{"disguised URL host", providerHead + "dialect: openai\nbaseURL: 'https://127.1/'\nsecret: k\n", `address in disguise`},
		{"no secret", providerHead + "dialect: openai\nbaseURL: https://x.org\n", `Provider needs the field "secret"`},
		{"secret path", providerHead + "dialect: openai\nbaseURL: https://x.org\nsecret: /etc/key\n", `secret "/etc/key" is a path`},
		{"secret value", providerHead + "dialect: openai\nbaseURL: https://x.org\nsecret: sk-abcdefghijklmnopqrstuvwxyz\n", `secret looks like a key itself`},
		{"passthrough with secret", providerHead + "dialect: openai\nbaseURL: https://x.org\nsecret: k\ncredential: passthrough\n", `no secret is used`},
		{"credential", providerHead + "dialect: openai\nbaseURL: https://x.org\nsecret: k\ncredential: injct\n", `did you mean "inject"?`},
		{"model twice", providerHead + "dialect: openai\nbaseURL: https://x.org\nsecret: k\nmodels: [{match: a}, {match: a}]\n", `model "a" is listed twice`},
		{"upstream pattern", providerHead + "dialect: openai\nbaseURL: https://x.org\nsecret: k\nmodels: [{match: a, upstream: 'b*'}]\n", `must be one model's name`},
		{"prices", providerHead + "dialect: openai\nbaseURL: https://x.org\nsecret: k\nprices: {}\n", `is not enforced`},

		// Profiles.
		{"workspace", profileHead + "workspace: rx\n", `f:4:12: unknown workspace mode "rx"`},
		{"relative path", profileHead + "files: {read: [etc]}\n", `f:4:16: path "etc" must be absolute and clean (for example "/etc")`},
		{"dots", profileHead + "files: {read: [/usr/../etc]}\n", `for example "/etc"`},
		{"root", profileHead + "files: {read: [/]}\n", `the whole file system cannot be shown`},
		{"proc", profileHead + "files: {write: [/proc/sys]}\n", `the sandbox's own`},
		{"docker socket", profileHead + "files: {write: [/run/docker.sock]}\n", `the sandbox's own`},
		{"path twice", profileHead + "files: {read: [/usr], exec: [/usr]}\n", `"/usr" is already in read`},
		{"guard outside", profileHead + "workspace: rw\nfiles: {guard: [../x]}\n", `relative to the workspace`},
		{"guard at any depth", profileHead + "workspace: rw\nfiles: {guard: ['**/.envrc']}\n", `patterns are not known here`},
		{"guard without workspace", profileHead + "files: {guard: [x]}\n", `guard needs a workspace`},
		{"size", profileHead + "tmp: 1G\n", `f:4:6: tmp "1G" is not a size`},
		{"negative size", profileHead + "tmp: -1\n", `is not a size`},
		{"huge size", profileHead + "tmp: 99999999999Ti\n", `is not a size`},
		{"secret variable", profileHead + "env: {pass: [GITHUB_TOKEN]}\n", `f:4:14: "GITHUB_TOKEN" looks like a credential`},
		{"agent socket", profileHead + "env: {pass: [SSH_AUTH_SOCK]}\n", `reaches out of the sandbox`},
		{"pass everything", profileHead + "env: {pass: ['*']}\n", `passes too much`},
		{"variable name", profileHead + "env: {set: {1A: b}}\n", `is not a variable name`},
		{"variable value", profileHead + "env: {set: {A: 1}}\n", `the value of A must be a string, found a number "1" (write it in quotes)`},
		{"limit name", profileHead + "resources: {rlimits: {nofiles: 1}}\n", `unknown limit "nofiles" (did you mean "nofile"?)`},
		{"limit value", profileHead + "resources: {rlimits: {nofile: lots}}\n", `limit nofile: "lots" is not a value`},
		{"pids", profileHead + "resources: {pids: 0}\n", `pids must be a number from 1`},
		{"cpu", profileHead + "resources: {cpu: 1}\n", `is not enforced`},
		{"optional", profileHead + "optional: [memorylimit]\n", `unknown feature "memorylimit" (did you mean "memoryLimit"?)`},
		{"landlock", profileHead + "require: {landlockABI: 0}\n", `must be a number from 1`},
		{"network in profile", profileHead + "network: {}\n", `is not enforced`},
		{"scope in profile", profileHead + "scope: org:acme\n", `unknown field "scope" in Profile`},
	} {
		t.Run(c.name, func(t *testing.T) {
			docs, problems := Parse("f", []byte(c.text))
			if len(docs) > 0 {
				t.Errorf("a document with a mistake is returned")
			}
			if !slices.ContainsFunc(problems, func(p Problem) bool { return strings.Contains(p.Error(), c.want) }) {
				t.Errorf("got\n%v\nwant %s", Problems(problems), c.want)
			}
			for _, p := range problems {
				if p.Line < 1 || p.Col < 1 || p.File != "f" {
					t.Errorf("no place: %+v", p)
				}
			}
		})
	}
}

func TestAllMistakesAreReported(t *testing.T) {
	_, problems := Parse("f", []byte(egressDoc("{id: a, allow: x.org, mandatry: true}\n  - {id: b, deny: 127.1}\n  - {deny: y.org}")))
	if len(problems) != 4 {
		t.Errorf("%d problems:\n%v", len(problems), Problems(problems))
	}
	if !slices.IsSortedFunc(problems, func(a, b Problem) int { return a.Line - b.Line }) {
		t.Error("not in order")
	}
}

// A document without a scope is told what to write.
func TestTheHintOfAScope(t *testing.T) {
	_, problems := Parse("f", []byte("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\n"))
	if len(problems) != 1 || !strings.HasPrefix(problems[0].Hint, "scope: org:local is every sandbox") {
		t.Fatalf("%+v", problems)
	}
	hint := problems[0].Hint
	for _, text := range []string{"org:local", "org:local/team:default/agent:NAME"} { // what the hint says is right
		if _, problems := Parse("f", []byte("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: "+text+"\negress: [{id: a, deny: x.org}]\n")); len(problems) != 0 || !strings.Contains(hint, text) {
			t.Errorf("%s: %v", text, problems)
		}
	}
}

func TestOneBadDocumentDoesNotHideTheOthers(t *testing.T) {
	good := egressDoc("{id: a, deny: x.org}")
	text := "# first\n---\n" + good + "---\nkind: [\n---\n" + egressDoc("{id: a, dny: x.org}") + "--- # last\n" + strings.Replace(good, "{name: p}", "{name: q}", 1)
	docs, problems := Parse("f", []byte(text))
	if len(docs) != 2 || docs[0].Name != "p" || docs[1].Name != "q" {
		t.Fatalf("%d documents, %v", len(docs), Problems(problems))
	}
	if docs[0].Line != 3 || docs[0].Policy.Egress[0].Line != 8 || string(docs[0].Raw) != good {
		t.Errorf("line %d, rule line %d, raw %q", docs[0].Line, docs[0].Policy.Egress[0].Line, docs[0].Raw)
	}
	want := []string{"f:10:", "f:17:"}
	for _, w := range want {
		if !strings.Contains(Problems(problems).Error(), w) {
			t.Errorf("no problem at %s:\n%v", w, Problems(problems))
		}
	}
}

func TestWhatIsReadIsCanonical(t *testing.T) {
	docs, problems := Parse("f", []byte("\xef\xbb\xbf"+egressDoc(`{id: a, allow: "*.Bücher.Example.:443", for: team:x, resolvesTo: [10.1.0.0/16, 10.0.0.1], http: {methods: [POST, GET], paths: ["/%61/**"]}}`)))
	if len(problems) > 0 {
		t.Fatal(Problems(problems))
	}
	r := docs[0].Policy.Egress[0]
	if r.Host.String() != "*.xn--bcher-kva.example" || r.Port != 443 || fmt.Sprint(r.HTTP.Methods, r.HTTP.Paths) != "[GET POST] [/a/**]" {
		t.Errorf("%+v %+v", r, r.HTTP)
	}
	if fmt.Sprint(r.ResolvesTo) != "[10.0.0.1/32 10.1.0.0/16]" || r.For.String() != "team:x" {
		t.Errorf("%v %v", r.ResolvesTo, r.For)
	}
}

func TestProviderDocument(t *testing.T) {
	docs, problems := Parse("f", []byte(providerHead+"dialect: openai\nbaseURL: https://LLM.Example:8443/v1/\nsecret: key\nmodels: [{match: 'gpt-*', upstream: big}, {match: gpt-mini, upstream: small}, {match: own}]\nresolvesTo: [10.0.0.0/8]\n"))
	if len(problems) > 0 {
		t.Fatal(Problems(problems))
	}
	p := docs[0].Provider
	if p.BaseURL != "https://llm.example:8443/v1" || p.Credential != CredentialInject || p.Scope != scope.All() {
		t.Errorf("%+v", p)
	}
	if host, port := p.Endpoint(); host != "llm.example" || port != 8443 {
		t.Errorf("endpoint %s %d", host, port)
	}
	for model, want := range map[string]string{"gpt-4": "big true", "gpt-mini": "small true", "own": "own true", "other": "other false"} {
		u, ok := p.Model(model)
		if got := fmt.Sprint(u, " ", ok); got != want {
			t.Errorf("%s: %s, want %s", model, got, want)
		}
	}
	for _, base := range []string{"http://127.0.0.1:8080", "http://[::1]:8080/x", "https://x.org"} {
		if _, problems := Parse("f", []byte(providerHead+"dialect: openai\nbaseURL: '"+base+"'\nsecret: k\n")); len(problems) > 0 {
			t.Errorf("%s: %v", base, Problems(problems))
		}
	}
}

func TestDocumentsThatClash(t *testing.T) {
	provider := func(name, dialect string) string {
		return strings.Replace(providerHead, "{name: p}", "{name: "+name+"}", 1) + "dialect: " + dialect + "\nbaseURL: https://llm.example\nsecret: k\n"
	}
	text := provider("b", "openai") + "---\n" + strings.Replace(provider("b", "openai"), "llm.example", "other.example", 1) + "---\n" + provider("c", "anthropic") + "---\n" +
		egressDoc("{id: a, deny: x.org}") + "---\n" + egressDoc("{id: b, deny: y.org}") + "---\n" +
		strings.Replace(egressDoc("{id: a, allow: 'llm.example:443'}"), "{name: p}", "{name: q}", 1)
	docs, problems := Parse("f", []byte(text))
	if len(problems) > 0 {
		t.Fatal(Problems(problems))
	}
	s, problems := Compile(3, docs)
	for _, want := range []string{`a Provider named "b" for the same scope exists already`, `a Policy named "p" for the same scope exists already`, `"llm.example" is the host of a Provider`} {
		if !strings.Contains(Problems(problems).Error(), want) {
			t.Errorf("missing %s in\n%v", want, Problems(problems))
		}
	}
	if p := s.Providers(); len(p) != 2 || p[0].Name != "b" || p[0].BaseURL != "https://llm.example" {
		t.Errorf("providers %+v", p)
	}
	v := s.View(scope.Principal{Org: "acme", Team: "t", Agent: "a"})
	for _, host := range []string{"x.org", "y.org"} {
		if d := v.Egress(host, 1); d.Rule.ID == "" {
			t.Errorf("%s: what a clashing document denies is not in force: %+v", host, d)
		}
	}
	if d := v.Egress("llm.example", 443); d.Allowed() || d.ReasonCode != CodeProviderHost {
		t.Errorf("a configured provider's host is plain egress: %+v", d)
	}
	if nd := v.Name("llm.example"); !nd.Resolves || nd.Provider == nil || nd.Ports[0].Port != 443 {
		t.Errorf("%+v", nd)
	}
}

func TestReferenceHasEveryField(t *testing.T) {
	documented := map[string]bool{}
	for _, kind := range DocumentKinds() {
		ref := Reference(kind)
		if !strings.HasPrefix(ref, "# "+kind+" documents\n") {
			t.Errorf("the page of %s begins otherwise", kind)
		}
		for _, o := range within(kind) {
			documented[o.name] = true
			if !o.document() && !strings.Contains(ref, "\n## "+o.name+"\n") {
				t.Errorf("%s: no section %s", kind, o.name)
			}
			for _, f := range o.fields {
				if f.doc == "" || f.typ == "" {
					t.Errorf("%s.%s is not documented", o.name, f.name)
				}
				if !strings.Contains(ref, "`"+f.name+"`") {
					t.Errorf("%s.%s is not in the reference", o.name, f.name)
				}
			}
		}
	}
	for _, o := range objects {
		if !documented[o.name] {
			t.Errorf("%s stands on no page", o.name)
		}
	}
	if !strings.Contains(Reference(KindProvider), "api.anthropic.com") {
		t.Error("no provider hosts")
	}
	if Reference("Polcy") != "" {
		t.Error("a page of an unknown kind")
	}
}

func TestListsAreBounded(t *testing.T) {
	methods := make([]string, MaxList+1)
	for i := range methods {
		methods[i] = fmt.Sprintf("M%s", strings.Repeat("A", i%30)+strings.Repeat("B", i/30%40))
	}
	doc := "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: a}\nscope: org:local\negress:\n  - {id: a, allow: \"a:443\", http: {methods: [" + strings.Join(methods, ", ") + "]}}\n"
	if _, problems := Parse("f", []byte(doc)); !strings.Contains(Problems(problems).Error(), "methods has 1001 entries, the limit is 1000") {
		t.Errorf("%v", problems)
	}
	people := strings.Repeat("\"uid:1\", ", MaxApprovers) + "\"uid:2\""
	doc = "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: a}\nscope: org:local\negress:\n  - {id: a, to: \"a:443\", action: require-approval, approval: {approvers: [" + people + "]}}\n"
	if _, problems := Parse("f", []byte(doc)); !strings.Contains(Problems(problems).Error(), "65 approvers, the limit is 64") {
		t.Errorf("%v", problems)
	}
}
