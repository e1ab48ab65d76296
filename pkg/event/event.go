// SPDX-License-Identifier: Apache-2.0

// Package event defines what Ringfence records. An [Event] is one flat,
// typed record; [Event.AppendOCSF] encodes it as one OCSF 1.8 JSON line.
// The package does no I/O.
package event

import "time"

// Kind says what an event is about. The zero value is invalid.
type Kind uint16

// Kinds are stable numbers: they are written to the wire between the gateway
// and the keeper. Append only.
const (
	KindInvalid      Kind = iota
	KindNetwork           // one egress verdict: OCSF Network Activity 4001
	KindDNS               // one name question: DNS Activity 4003
	KindHTTP              // one inspected HTTP request: HTTP Activity 4002
	KindInference         // one model call: API Activity 6003 + ai_operation
	KindExec              // a program started in a sandbox: Process Activity 1007 Launch
	KindExit              // a program ended: Process Activity 1007 Terminate
	KindSandboxStart      // a sandbox was established: Application Lifecycle 6002 Start
	KindSandboxStop       // a sandbox ended: 6002 Stop
	KindFile              // a file denial (Landlock audit record): File System Activity 1001
	KindSyscall           // a system call denial: Kernel Activity 1003
	KindDaemon            // life of keeper or gateway: 6002
	KindPolicy            // a document was applied, changed or refused: Entity Management 3004
	KindOperator          // an operator called the API: API Activity 6003
	KindLoss              // records that could not be kept: Application Error 6008
	KindWorkspace         // something found (and quarantined) in a workspace: Detection Finding 2004
	KindKernelDenial      // a non-address denial of a cgroup hook (socket family, unix socket, backstop): 4001 Refuse
	KindTamper            // a wall that no longer stands, something outside of the fence, hostile input on a private channel: Detection Finding 2004
	KindApproval          // a request that people decide was made, decided, or used: Entity Management 3004
	KindBudget            // a budget passed a percentage, a call cost more than its cap, a gateway left money behind: Detection Finding 2004
)

// Verdict is what was decided. The zero value is a denial.
type Verdict uint8

const (
	Denied   Verdict = iota // refused
	Allowed                 // let through
	Observed                // recorded only; nothing was decided
)

// Severity follows OCSF severity_id. The zero value means "by kind and verdict".
type Severity uint8

const (
	SeverityDefault  Severity = 0
	SeverityInfo     Severity = 1
	SeverityLow      Severity = 2
	SeverityMedium   Severity = 3
	SeverityHigh     Severity = 4
	SeverityCritical Severity = 5
)

// Event is one record. Strings may hold bytes chosen by a sandbox: encoders
// escape them, readers must escape them before a terminal sees them. Field
// limits in bytes are enforced by the wire codec (wire.go) and by Normalise,
// which truncates and sets Truncated.
type Event struct {
	Kind     Kind
	Time     time.Time // UTC; when it happened
	End      time.Time // end of an aggregated or timed activity, zero if none
	Count    uint64    // how many alike are folded into this one; 0 means 1
	Source   string    // "kernel", "gateway", "keeper", "denial-reader": who reports (a compromised gateway or reader can forge its own)
	Severity Severity
	Verdict  Verdict
	Activity string // kind-specific verb: "connect", "sendmsg", "open", "start", "apply" ...

	Sandbox   string // sandbox id, "" for the node itself
	Scope     string // canonical principal, "org:acme/team:x/agent:y"
	Direction string // "outbound" (default), "local"

	// What was decided and why.
	Reason     string // one sentence for people
	ReasonCode string // stable short code: "no-rule", "rule", "private-address", "sni-mismatch", "family", ...
	Layer      string // "kernel", "dns", "gateway", "inference", "landlock", "seccomp", "mount", "bpf-lsm"
	Rule       string // "document/rule-id" of the winner, "" if none
	RuleAt     string // "file:line" of the winner
	Revision   uint64 // policy revision the decision was made on
	Remedy     string // the one command that would allow it, "" if none
	Shadow     string // "EFFECT by DOCUMENT/RULE": what rules in shadow mode would have made of it, "" if the same
	Failed     bool   // let through, and what it was for did not come about: Reason says why

	// Network, DNS and HTTP.
	Proto     string // "tcp", "udp", "icmp", "raw", "unix" ...
	SrcAddr   string // "ip:port"
	DstAddr   string // "ip:port" as the sandbox asked for it
	DstName   string // host name, if known
	DstPort   uint16
	PeerAddr  string // address the gateway really dialled
	QueryType string // DNS: "A", "AAAA" ...
	RCode     string // DNS: "NOERROR", "NXDOMAIN" ...
	Method    string // HTTP method
	URL       string // HTTP URL without query string unless policy says otherwise
	Status    uint32 // HTTP status, exit status or errno, by kind
	BytesIn   uint64 // towards the sandbox
	BytesOut  uint64 // from the sandbox

	DatagramsIn  uint64 // of a UDP flow, towards the sandbox
	DatagramsOut uint64

	Duration time.Duration

	// Process (audit data only, never a reason to allow).
	PID        uint32 // in the host's pid namespace
	PPID       uint32
	UID        uint32
	Exe        string
	Comm       string
	Args       string // joined by spaces, bounded
	Parents    string // "pid:comm < pid:comm ..." bounded
	SocketInfo string // "family=17 type=3 protocol=768" for sock_create denials
	Path       string // file or unix socket path

	// Inference.
	Provider     string
	Model        string // as asked
	ModelServed  string // as sent upstream
	TraceID      string // W3C Trace Context, in hexadecimal: the trace,
	SpanID       string // this call in it,
	ParentSpanID string // and the client's part that it hangs below; "" without one
	Route        string // "document/id" of the route, with the tier and why
	Tried        string // who was asked and did not answer, and why
	Operation    string // "chat", "embeddings", "messages" ...
	Stream       bool
	TokensIn     uint64
	TokensOut    uint64
	TokensCached uint64
	Estimated    bool // token figures were estimated, not reported

	// Of TokensIn and TokensOut, as far as the provider said.
	TokensCacheWrite5m uint64 // put in a cache for a short time
	TokensCacheWrite1h uint64 // for a long one
	TokensReasoning    uint64
	TokensAudioIn      uint64
	TokensAudioOut     uint64
	TokensImageIn      uint64
	TokensImageOut     uint64
	Images             uint64 // pictures made
	WebSearches        uint64 // by the provider

	Cost         uint64 // nano-dollars; it says something only where Price does
	Price        string // a Price constant; "": nothing was priced
	PriceVersion string // of the table that the price is from
	PriceModel   string // "PROVIDER/MODEL" of its entry

	Credential string // "injected", "passthrough", "trial"
	RequestID  string // upstream's request id; KindApproval: the approval's

	// Node, operator, policy.
	Actor   string // who acted: "uid=1000(alice)", "system"
	Object  string // document, provider, sandbox or component acted on
	Detail  string // free text, bounded
	Lost    uint64 // KindLoss: how many records
	Version string // daemon version

	ID        string // unique id, set by the audit log on append: "<chain>-<sequence>"
	Sequence  uint64 // set by the audit log on append
	Truncated bool

	Logged time.Time // set by the audit log on append: when the record entered the log
}
