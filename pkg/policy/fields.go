// SPDX-License-Identifier: Apache-2.0

package policy

// field describes one key of a mapping. The decoder and the generated
// reference read the same tables, so what is documented is what is accepted.
type field struct {
	name     string
	typ      string // for people: "string", "list of strings", or the name of an object
	doc      string
	required bool
	hint     string // what to write, where a document lacks it
	later    bool   // known, but nothing enforces it in this version: an error
}

// object describes one mapping.
type object struct {
	name   string
	doc    string
	fields []field
}

func (o *object) field(name string) *field {
	for i := range o.fields {
		if o.fields[i].name == name {
			return &o.fields[i]
		}
	}
	return nil
}

func (o *object) names() []string {
	var out []string
	for _, f := range o.fields {
		if !f.later {
			out = append(out, f.name)
		}
	}
	return out
}

const notEnforced = "is not enforced by this version"

var objMetadata = &object{"metadata", "Names the document.", []field{
	{name: "name", typ: "string", required: true, doc: "Name of the document: letters, digits, `.`, `_`, `-`; unique for its kind and scope."},
	{name: "description", typ: "string", doc: "Free text for people."},
}}

var objPolicy = &object{"Policy", "Rules on what agents may reach. Everything that no rule allows is refused.", []field{
	{name: "apiVersion", typ: "string", required: true, doc: "`ringfence.dev/v1`."},
	{name: "kind", typ: "string", required: true, doc: "`Policy`."},
	{name: "metadata", typ: "metadata", required: true, doc: "Name of the document."},
	{name: "scope", typ: "selector", required: true, hint: "scope: org:local is every sandbox without --as, scope: org:local/team:default/agent:NAME one agent", doc: "Whom the rules are for, such as `org:acme/team:payments`. The deepest named segment is the document's layer; `org:*` is everybody."},
	{name: "egress", typ: "list of egress rule", doc: "Network destinations."},
	{name: "inference", typ: "list of inference rule", doc: "Models. An allow also opens the provider's own hosts."},
	{name: "tools", typ: "list of tools rule", doc: "Tools."},
	{name: "routes", typ: "list of route", doc: "Who answers for models."},
	{name: "guardrails", typ: "list", later: true, doc: "Content checks."},
	{name: "budgets", typ: "list of budget", doc: "Spending limits."},
}}

// ruleFields are shared by the rules of every section.
var ruleFields = []field{
	{name: "id", typ: "string", required: true, doc: "Name of the rule, unique in its document."},
	{name: "allow", typ: "target", doc: "Shorthand for `action: allow` on this target."},
	{name: "deny", typ: "target", doc: "Shorthand for `action: block` on this target."},
	{name: "action", typ: "string", doc: "`allow`, `block` or `require-approval`, with the target in its own field. `rate-limit`, `pii-scan` and `redact` are no effect: the rule only obliges."},
	{name: "for", typ: "selector", doc: "Narrows the rule to these principals below the document's scope."},
	{name: "mandatory", typ: "boolean", doc: "The rule is a floor that no layer can lift. Not with `allow`, `delegable` or `waive`: it never opens."},
	{name: "delegable", typ: "boolean", doc: "Lower layers may replace this rule's word, and waive what it obliges to."},
	{name: "reason", typ: "string", doc: "Shown to the agent and the operator when the rule decides."},
	{name: "when", typ: "when", doc: "Limits the rule to times and to what an expression says."},
	{name: "mode", typ: "string", doc: "`shadow`: the rule is left out of what is enforced; a second decision is made with it."},
	{name: "approval", typ: "approval", doc: "Who approves, and for how long. With `require-approval` only."},
	{name: "rate", typ: "rate", doc: "Obligation: how often."},
	{name: "pii", typ: "pii", doc: "Obligation: what happens to personal data."},
	{name: "redact", typ: "redact", doc: "Obligation: what is taken out of results."},
	{name: "audit", typ: "string", doc: "Obligation: how much is recorded, `metadata` or `full`."},
	{name: "waive", typ: "list of strings", doc: "Lifts obligations of wider rules of the same layer, and of delegable ones above: `rate`, `pii`, `redact`, `audit`."},
}

func ruleObject(name, doc string, own ...field) *object {
	fs := append([]field{ruleFields[0]}, own...)
	return &object{name, doc, append(fs, ruleFields[1:]...)}
}

var objEgress = ruleObject("egress rule",
	"A network destination: `HOST:PORT`, `*.HOST:PORT` (exactly one label), `**.HOST:PORT` (the host and everything below it), `**:PORT` (every name), or a literal `10.0.0.0/8:443`. "+
		"An allow names its port; a deny without one covers all ports. A name is decided on names, a literal address on address rules only; "+
		"an address allow reaches private and other special ranges only when its prefix lies inside them, so `0.0.0.0/0:443` is the public internet. TCP, and UDP where the target ends with `/udp`. Hosts of model providers match no egress rule.",
	field{name: "to", typ: "target", doc: "The target, when `action` is used."},
	field{name: "http", typ: "http", doc: "Limits the rule to these HTTP requests; the connection is then inspected. On a deny it needs a port."},
	field{name: "resolvesTo", typ: "list of prefixes", doc: "Private address ranges that this name may resolve to. Only for an allow or an approval of a host name."})

var objInference = ruleObject("inference rule",
	"A model by name: `claude-sonnet-4-5`, or a prefix such as `claude-*`, or `*`.",
	field{name: "model", typ: "model", doc: "The model, when `action` is used."})

var objTools = ruleObject("tools rule",
	"Tools by selector: `server:jira/tool:read_*`. `server:provider/tool:NAME` is what the model provider would do on its side, such as `web_search`, `code_interpreter`, `mcp`, `image_url`.",
	field{name: "match", typ: "selector", doc: "Server and tool, when `action` is used."},
	field{name: "risk", typ: "list of strings", doc: "Limits the rule to classes of calls: `read`, `write`, `destructive`, `exfil`, `exec`, `money`, `identity`, `unclassified` (which counts as `destructive`). Of several classes of a call an allow, a waive and a delegation must name all; what restricts needs one."})

var objWhen = &object{"when", "A condition; all that is given must hold. What cannot be decided counts against the agent: a block, an approval and an obligation then match, an allow, a waive and a delegation do not.", []field{
	{name: "expression", typ: "CEL", doc: "A bool. Variables: `principal.org`, `.team`, `.agent`, `.sandbox` and `now`; for egress `host`, `port`, `method`, `path` (the last two make the connection inspected); for inference `model`, `dialect`, and of who would answer `provider` (its name) and `region`; for tools `server`, `tool`, `risk`, `args`. Its cost is bounded; and more than 32 rules with an expression about one host, model or tool for one agent are errors all, which allow nothing."},
	{name: "windows", typ: "list of window", doc: "Times; one of them must hold."},
}}

var objWindow = &object{"window", "A span of the wall clock. One that ends before it begins goes over midnight and belongs to the day on which it begins.", []field{
	{name: "days", typ: "list of strings", doc: "`mon` to `sun`; every day when absent."},
	{name: "from", typ: "string", required: true, doc: "`HH:MM`, included."},
	{name: "to", typ: "string", required: true, doc: "`HH:MM` up to `24:00`, not included."},
	{name: "zone", typ: "string", doc: "Time zone such as `Europe/Berlin`; `UTC` when absent."},
}}

var objApproval = &object{"approval", "How people decide. Every rule that demands an approval and was not displaced has to be satisfied.", []field{
	{name: "approvers", typ: "list of strings", doc: "`user:NAME`, `uid:N`, `group:NAME`, `gid:N`; whoever may approve in the scope when absent."},
	{name: "quorum", typ: "number", doc: "How many different people; 1 when absent."},
	{name: "separate", typ: "boolean", doc: "Who launched the sandbox does not count."},
	{name: "expiresAfter", typ: "duration", doc: "How long a request waits for an answer; 15m when absent. Then it is denied."},
	{name: "validFor", typ: "duration", doc: "How long an approval holds, at most. When absent, one for a single use has to be used within 1h, and an approver may give more."},
}}

var objRate = &object{"rate", "A limit.", []field{
	{name: "requests", typ: "amount", doc: "Such as `60/m`: a number for `s`, `m`, `h` or `d`. So many pass at once after a rest, and so many in that time after it, evenly."},
	{name: "tokens", typ: "amount", doc: "Tokens of models, such as `200k/m`: of what goes in and comes out. A call is held back by what goes in, estimated; what it used more is a debt that later calls wait for."},
	{name: "concurrency", typ: "number", doc: "Calls that run at a time."},
	{name: "per", typ: "list of strings", doc: "What is counted apart: `org`, `team`, `agent`, `sandbox`; for models `model` and `provider`, for tools `server` and `tool`. An agent is one of its team, and a team one of its organisation: agents of one name in two teams are two. All together when absent."},
	{name: "queue", typ: "duration", doc: "How long a call waits for room, of all rules without room the shortest; it is rejected at once when absent."},
}}

var objPII = &object{"pii", "What happens to personal data: `block`, `require-approval`, `redact`, `mask`, `hash`, `tokenise` or `log`.", []field{
	{name: "in", typ: "string", doc: "In arguments."},
	{name: "out", typ: "string", doc: "In results."},
	{name: "entities", typ: "list of strings", doc: "Which; all when absent."},
}}

var objRedact = &object{"redact", "What is taken out of results.", []field{
	{name: "entities", typ: "list of strings", doc: "Which; all when absent."},
}}

var objHTTP = &object{"http", "A condition on HTTP requests.", []field{
	{name: "methods", typ: "list of strings", doc: "Methods in upper case; none given means every method."},
	{name: "paths", typ: "list of strings", doc: "Paths starting with `/`. `*` is any run of characters within one segment; `/**` at the end is the path and everything below it. Queries are not matched. None given means every path."},
}}

var objProvider = &object{"Provider", "An upstream of model calls. Who answers a call is a matter of `routes`; without one each provider that agents reach at the host and that has the model, by weight.", []field{
	{name: "apiVersion", typ: "string", required: true, doc: "`ringfence.dev/v1`."},
	{name: "kind", typ: "string", required: true, doc: "`Provider`."},
	{name: "metadata", typ: "metadata", required: true, doc: "Name of the provider."},
	{name: "scope", typ: "selector", doc: "Who may use it; everybody when absent."},
	{name: "dialect", typ: "string", required: true, doc: "`openai`, `anthropic` or `gemini`."},
	{name: "baseURL", typ: "URL", required: true, doc: "Where calls go. https, unless the host is a loopback address or `allowPlaintext` is true."},
	{name: "allowPlaintext", typ: "boolean", doc: "Admits an http base URL: prompts and the key then cross the network in the clear."},
	{name: "secret", typ: "secret name", doc: "Name (never a path) of the key in the secrets directory. This or `keys` is needed unless `credential` is `passthrough`."},
	{name: "keys", typ: "list of key", doc: "Several keys, each with its share of the calls. One that the provider refuses is set aside, and the next is used."},
	{name: "platform", typ: "string", doc: "How it is addressed where that is not the dialect's own way: `azure` (openai), `bedrock` (anthropic), `vertex` (anthropic, gemini). Agents see nothing of it. See below."},
	{name: "hosts", typ: "list of strings", doc: "Where agents address it, such as `api.openai.com`, besides the host of its base URL. Absent: the dialect's own host."},
	{name: "region", typ: "string", doc: "Where it answers, such as `eu`: for conditions on `region`."},
	{name: "weight", typ: "number", doc: "Its share beside other providers, 1 to 1000; 1 when absent."},
	{name: "unknownPrice", typ: "string", doc: "What happens with a call whose price is not known: `deny` (default), `estimate`, `flag`."},
	{name: "timeouts", typ: "timeouts", doc: "Bounds of one attempt."},
	{name: "credential", typ: "string", doc: "`inject` (default): the secret replaces what the agent sent. `passthrough`: the agent's own credential is forwarded."},
	{name: "models", typ: "list of model entry", doc: "The configured models; every model when absent."},
	{name: "resolvesTo", typ: "list of prefixes", doc: "Private address ranges that the base URL's host may resolve to."},
	{name: "prices", typ: "mapping", later: true, doc: "Prices of models."},
	{name: "headers", typ: "mapping", later: true, doc: "Extra request headers."},
}}

var objModelEntry = &object{"model entry", "One model or prefix of models.", []field{
	{name: "match", typ: "model", required: true, doc: "Model name as agents use it, or a prefix such as `gpt-*`."},
	{name: "upstream", typ: "string", doc: "Name to send to the provider; the agent's own when absent."},
	{name: "context", typ: "number", doc: "Tokens of input and output together. A request that is longer by estimate goes elsewhere."},
	{name: "maxOutput", typ: "number", doc: "Tokens that it gives at most."},
	{name: "features", typ: "list of strings", doc: "What it can do: `tools`, `vision`, `structured`, `reasoning`. Where the list is given, requests that need more go elsewhere."},
	{name: "price", typ: "mapping", later: true, doc: "Price."},
}}

var objKey = &object{"key", "One key of a provider.", []field{
	{name: "secret", typ: "secret name", required: true, doc: "Name (never a path) of the key in the secrets directory."},
	{name: "weight", typ: "number", doc: "Its share of the calls, 1 to 1000; 1 when absent."},
}}

var objTimeouts = &object{"timeouts", "Bounds of one attempt at a provider.", []field{
	{name: "firstByte", typ: "duration", doc: "Until the head of the answer is there."},
	{name: "idle", typ: "duration", doc: "Between two pieces of it."},
	{name: "total", typ: "duration", doc: "The whole answer."},
}}

var objRoute = &object{"route", "Who answers for models. A route opens nothing: each target is decided on by the rules, and one that they refuse is left out. Of several that name a model one that overrides counts, then that of the deepest scope, then the narrowest pattern.", []field{
	{name: "id", typ: "string", required: true, doc: "Name of the route, unique in its document."},
	{name: "models", typ: "list of models", required: true, doc: "What agents ask for: a name of your own such as `fast`, or patterns such as `gpt-*`."},
	{name: "to", typ: "list of route target", doc: "Who answers; those of the lowest priority that work."},
	{name: "tiers", typ: "list of tier", doc: "Instead of `to`: targets by how hard a request is."},
	{name: "balance", typ: "string", doc: "Among targets of one priority: `weight` (default), `latency` or `price`."},
	{name: "sticky", typ: "boolean", doc: "A conversation stays with the provider that began it while that works, which keeps the provider's prompt cache; and it moves to higher tiers only."},
	{name: "tooLong", typ: "list of route target", doc: "Asked when a target says that the request is too long."},
	{name: "refused", typ: "list of route target", doc: "Asked when a target refuses the content."},
	{name: "override", typ: "boolean", doc: "Stands above every other route for these models that is for the same agent."},
}}

var objTarget = &object{"route target", "One place that could answer.", []field{
	{name: "provider", typ: "string", doc: "Name of a Provider; when absent every one that agents reach at the host they asked and that has the model."},
	{name: "model", typ: "string", doc: "The model to ask for there; the one that the agent asked for when absent."},
	{name: "weight", typ: "number", doc: "Share beside the other targets of its priority, 1 to 1000; 1 when absent."},
	{name: "priority", typ: "number", doc: "Lower numbers are asked first; 1 when absent."},
}}

var objTier = &object{"tier", "The targets of requests up to a complexity.", []field{
	{name: "name", typ: "string", required: true, doc: "Name of the tier, for records."},
	{name: "below", typ: "score", doc: "The score that its requests are below, such as `0.35`. The last tier has none."},
	{name: "to", typ: "list of route target", required: true, doc: "Who answers."},
}}

var objProfile = &object{"Profile", "The walls of a sandbox other than its network policy. What is not named is closed.", []field{
	{name: "apiVersion", typ: "string", required: true, doc: "`ringfence.dev/v1`."},
	{name: "kind", typ: "string", required: true, doc: "`Profile`."},
	{name: "metadata", typ: "metadata", required: true, doc: "Name of the profile."},
	{name: "workspace", typ: "string", doc: "What the agent may do in the workspace: `rw`, `ro` or `none` (default)."},
	{name: "explain", typ: "boolean", doc: "A refused name answers HTTP with 403 and the reason, instead of NXDOMAIN."},
	{name: "terminal", typ: "boolean", doc: "The sandbox may have a terminal of its own."},
	{name: "unixSockets", typ: "boolean", doc: "Unix sockets between processes of the sandbox. Never a host socket."},
	{name: "files", typ: "files", doc: "Host files that the sandbox sees."},
	{name: "home", typ: "size", doc: "Size of the private, empty home directory in memory; none when absent."},
	{name: "tmp", typ: "size", doc: "Size of /tmp and of /var/tmp in memory, each."},
	{name: "shm", typ: "size", doc: "Size of /dev/shm in memory."},
	{name: "env", typ: "env", doc: "Environment of the agent."},
	{name: "resources", typ: "resources", doc: "Limits."},
	{name: "seccomp", typ: "seccomp", doc: "Switches of the system call filter."},
	{name: "git", typ: "git", doc: "Treatment of repositories in the workspace."},
	{name: "require", typ: "require", doc: "What the kernel must have."},
	{name: "optional", typ: "list of strings", doc: "Features whose absence only degrades the sandbox: `memoryLimit`, `pidsLimit`, `unixHooks`, `landlockABI`, `execTrace`."},
	{name: "network", typ: "mapping", later: true, doc: "Network policy belongs in Policy documents."},
	{name: "extends", typ: "string", later: true, doc: "Inheritance."},
}}

var objFiles = &object{"files", "Absolute paths of the host, seen at the same place. A `?` at the end of an entry of read, exec or write means: skip it when it does not exist.", []field{
	{name: "read", typ: "list of paths", doc: "Readable, not executable."},
	{name: "exec", typ: "list of paths", doc: "Readable and executable."},
	{name: "write", typ: "list of paths", doc: "Readable and writable, not executable."},
	{name: "hide", typ: "list of paths", doc: "Covered with something empty, below a shown path."},
	{name: "guard", typ: "list of workspace paths", doc: "Relative to the workspace: write-protected where they exist, reported where they appear. A symbolic link there refuses the launch."},
}}

var objEnv = &object{"env", "The agent's environment is made of these only.", []field{
	{name: "pass", typ: "list of strings", doc: "Names taken from the caller's environment; `LC_*` is a prefix. Names that look like secrets are refused."},
	{name: "set", typ: "mapping of strings", doc: "Fixed values; they win over `pass`."},
}}

var objResources = &object{"resources", "Limits of a sandbox.", []field{
	{name: "memory", typ: "size", doc: "Memory of the whole sandbox."},
	{name: "pids", typ: "number", doc: "Processes and threads."},
	{name: "rlimits", typ: "mapping of numbers", doc: "Limits of each process by name (`nofile`, `nproc`, `core`, `fsize`, ...): a number, a size, or `unlimited`."},
	{name: "cpu", typ: "string", later: true, doc: "CPU share."},
	{name: "io", typ: "string", later: true, doc: "Disk bandwidth."},
}}

var objSeccomp = &object{"seccomp", "Switches of the system call filter.", []field{
	{name: "memfd", typ: "boolean", doc: "Allow memfd_create, which JITs and some test tools need."},
}}

var objGit = &object{"git", "Treatment of repositories in the workspace.", []field{
	{name: "protect", typ: "boolean", doc: "Hooks are read-only, and configuration that runs programs is quarantined when the workspace is handed back."},
}}

var objRequire = &object{"require", "Without these the sandbox is refused, unless `optional` lists them.", []field{
	{name: "landlockABI", typ: "number", doc: "Least Landlock ABI; 1 when absent."},
}}

// objects lists every mapping in the order of the reference.
var objects = []*object{
	objPolicy, objEgress, objInference, objTools, objHTTP, objWhen, objWindow, objApproval, objRate, objPII, objRedact, objBudget, objBudgetAction,
	objRoute, objTarget, objTier,
	objProvider, objKey, objModelEntry, objTimeouts,
	objProfile, objFiles, objEnv, objResources, objSeccomp, objGit, objRequire,
	objToolServer, objStdio, objHTTPServer, objToolSecret, objToolEntry,
	objAccess, objBinding,
	objSuite, objTest,
	objMetadata,
}
