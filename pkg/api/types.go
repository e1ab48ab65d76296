// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"time"
)

// VersionInfo answers GET /v1/version.
type VersionInfo struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	API     string `json:"api"`
	Go      string `json:"go,omitempty"`
	Kernel  string `json:"kernel,omitempty"`
}

// State of a part of the product, worst last. The empty string means unknown
// and is to be read as unenforced.
const (
	Enforced   = "enforced"
	Degraded   = "degraded"
	Broken     = "broken" // it was up, and attestation found that it no longer is
	Unenforced = "unenforced"
	// NotApplied is a wall that an adopted process does not have.
	NotApplied = "not applied"

	// Absent is an extra that this kernel lacks and nothing depends on.
	Absent = "absent"
)

// Part is the state of one layer of a sandbox or of one component of the node.
type Part struct {
	Name   string `json:"name"`  // "network", "landlock", "seccomp", "gateway", "audit" ...
	State  string `json:"state"` // Enforced, Degraded, Broken, Unenforced, NotApplied, Absent
	Detail string `json:"detail,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// Status answers GET /v1/status.
type Status struct {
	Version   string            `json:"version"`
	Started   time.Time         `json:"started"`
	State     string            `json:"state"` // Enforced or Degraded
	Revision  uint64            `json:"revision"`
	Sandboxes int               `json:"sandboxes"`
	Parts     []Part            `json:"parts,omitempty"`
	Counters  map[string]uint64 `json:"counters,omitempty"`
}

// Life of a sandbox.
const (
	StateStarting = "starting"
	StateRunning  = "running"
	StateStopping = "stopping"
	StateStopped  = "stopped"
	StateFailed   = "failed"   // never established
	StateReleased = "released" // adopted, and given up: its processes go on without a fence
)

// Sandbox is what is known about one sandbox. Argv and Name were chosen by
// the caller, Workspace is for display only.
type Sandbox struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	Scope       string     `json:"scope"` // canonical principal
	Profile     string     `json:"profile"`
	State       string     `json:"state"`
	Enforcement string     `json:"enforcement"` // that of the worst part
	Parts       []Part     `json:"parts,omitempty"`
	Attested    *time.Time `json:"attested,omitempty"` // when the kernel was last asked about the parts
	Owner       uint32     `json:"owner"`              // uid of the caller that launched it
	UID         uint32     `json:"uid"`                // uid it runs as, on the host
	PID         int        `json:"pid,omitempty"`
	Argv        []string   `json:"argv,omitempty"`
	Workspace   string     `json:"workspace,omitempty"`
	Adopted     bool       `json:"adopted,omitempty"` // its processes ran before they were fenced
	Detached    bool       `json:"detached,omitempty"`
	Learns      bool       `json:"learns,omitempty"` // launched with Learn: no rule closes what no rule speaks of
	TTY         bool       `json:"tty,omitempty"`
	Created     time.Time  `json:"created"`
	Ended       *time.Time `json:"ended,omitempty"`
	ExitCode    *int       `json:"exitCode,omitempty"` // as `ringfence run` reports it
	Revision    uint64     `json:"revision,omitempty"` // policy revision in force
	Denials     uint64     `json:"denials,omitempty"`
}

// HasEnded says whether Ringfence has nothing more to do with it.
func (b *Sandbox) HasEnded() bool {
	return b.State == StateStopped || b.State == StateFailed || b.State == StateReleased
}

// Document is a profile or policy: either the name of one the keeper knows,
// or the text of one that the client read itself. File is for messages only.
type Document struct {
	Name string `json:"name,omitempty"`
	File string `json:"file,omitempty"`
	Text string `json:"text,omitempty"`
}

// Identity is who the agent runs as on the host.
type Identity struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
	Name   string   `json:"name,omitempty"` // user name, for USER and LOGNAME
	Home   string   `json:"home,omitempty"` // for HOME, never resolved by the keeper
}

// LaunchRequest is the body of POST /v1/sandboxes.
//
// For a caller that is not root the server replaces Identity by the caller's
// own credentials before a Backend sees it. A nil Identity from root asks for
// an unprivileged uid of the sandbox's own.
type LaunchRequest struct {
	Argv          []string   `json:"argv"`
	Environ       []string   `json:"environ,omitempty"`       // the caller's environment; the profile says what passes
	Env           []string   `json:"env,omitempty"`           // K=V, asked for by name: wins over Environ and the profile
	Dir           string     `json:"dir,omitempty"`           // working directory relative to the workspace, clean, "" = its top
	WorkspacePath string     `json:"workspacePath,omitempty"` // absolute path where the workspace descriptor was opened; shown, and used as path inside; never resolved
	Profile       Document   `json:"profile"`
	Policies      []Document `json:"policies,omitempty"` // apply to this sandbox only
	Scope         string     `json:"scope,omitempty"`    // principal; "" = default scope and agent = command name
	Learn         bool       `json:"learn,omitempty"`    // egress that no rule speaks of is let through and recorded; for admins of the scope
	Name          string     `json:"name,omitempty"`
	Identity      *Identity  `json:"identity,omitempty"`
	Detach        bool       `json:"detach,omitempty"`
	TTY           bool       `json:"tty,omitempty"`
	Rows          uint16     `json:"rows,omitempty"`
	Cols          uint16     `json:"cols,omitempty"`
}

// ExecRequest is the body of POST /v1/sandboxes/{id}/exec.
type ExecRequest struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"` // absolute inside the sandbox, "" = as the agent's
	TTY  bool     `json:"tty,omitempty"`
	Rows uint16   `json:"rows,omitempty"`
	Cols uint16   `json:"cols,omitempty"`
}

// StopRequest is the body of POST /v1/sandboxes/{id}/stop.
type StopRequest struct {
	Timeout Duration `json:"timeout,omitempty"` // between SIGTERM and the kill of the cgroup; 0 = at once
}

// StopResult answers a stop: the sandbox and what was found when its
// workspace was handed back.
type StopResult struct {
	Sandbox  Sandbox   `json:"sandbox"`
	Findings []Finding `json:"findings,omitempty"`
}

// Finding is something a sandbox left in its workspace that was made harmless.
type Finding struct {
	Path   string `json:"path"` // below the workspace; bytes chosen by the sandbox
	What   string `json:"what"`
	Action string `json:"action"`         // "stripped", "quarantined", "reported"
	Copy   string `json:"copy,omitempty"` // where below the workspace the original is now
}

// Duration is a time.Duration that is a string ("1h30m") in JSON.
type Duration time.Duration

// MarshalJSON writes the Go form of the duration.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads the Go form of a duration; anything else is an error.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return err
	}
	*d = Duration(v)
	return nil
}

// EventQuery is the query of GET /v1/events.
type EventQuery struct {
	Since   time.Time // zero = from the start of the log
	Sandbox string    // id, "" = all
	Denied  bool      // denials only
	Failed  bool      // what was let through and failed only; with Denied either
	Learned bool      // what was let through because the sandbox learns only; with Denied either
	Follow  bool      // wait for more
	Limit   int       // end after so many, 0 = no limit
}

// EventRecord is one line of the event log. Sandbox is the id of the sandbox
// it belongs to, "" for the node's own, Scope the keeper's word on where it
// belongs, "" for the node; the server uses them to decide who may see the line.
// Line is one OCSF object without the newline.
type EventRecord struct {
	Seq     uint64
	Sandbox string
	Scope   string
	Line    []byte
}

// Explanation answers GET /v1/events/{id}/explain.
type Explanation struct {
	ID       string          `json:"id"`
	Sandbox  string          `json:"sandbox,omitempty"`
	Scope    string          `json:"scope,omitempty"`
	Verdict  string          `json:"verdict"`            // "denied", "allowed", "observed"
	Summary  string          `json:"summary"`            // one sentence
	Layer    string          `json:"layer,omitempty"`    // which wall decided
	Rule     string          `json:"rule,omitempty"`     // document/rule-id of the winner
	RuleAt   string          `json:"ruleAt,omitempty"`   // file:line
	Revision uint64          `json:"revision,omitempty"` // the decision's policy revision
	Nearest  string          `json:"nearest,omitempty"`  // nearest rule that would have allowed it
	Now      string          `json:"now,omitempty"`      // what the current revision says, if it differs
	Kind     string          `json:"kind"`               // of the record, as in its metadata.event_code
	Detail   string          `json:"detail,omitempty"`   // what the record says besides
	Remedy   string          `json:"remedy,omitempty"`
	Event    json.RawMessage `json:"event,omitempty"` // the record itself
}

// How long a rule of `ringfence allow` lasts.
const (
	AllowOnce    = "once"    // the next connection to that destination
	AllowFor     = "for"     // For long
	AllowAlways  = "always"  // kept across restarts
	AllowSandbox = "sandbox" // until the sandbox stops; only with Sandbox
)

// Lasts says in words how long a rule of that mode lasts.
func Lasts(mode string) string {
	switch mode {
	case AllowOnce:
		return "once"
	case AllowFor:
		return "for a time"
	case AllowSandbox:
		return "until the sandbox ends"
	}
	return "always"
}

// AllowRequest is the body of POST /v1/allow, and of DELETE /v1/allow which
// takes back what that gave: one destination, for one sandbox or one scope.
type AllowRequest struct {
	Destination string   `json:"destination"` // HOST:PORT, or HOST:PORT/udp
	Sandbox     string   `json:"sandbox,omitempty"`
	Scope       string   `json:"scope,omitempty"`
	Mode        string   `json:"mode"` // AllowOnce ...; to take back: "" for all of them, or AllowAlways
	For         Duration `json:"for,omitempty"`
	ResolvesTo  []string `json:"resolvesTo,omitempty"` // prefixes of private or special addresses that the name may have

	// OnlyOwner is set by the server for callers that may not author for the
	// whole scope: the rule must touch only sandboxes of that uid.
	OnlyOwner *uint32 `json:"-"`
}

// AllowResult answers POST /v1/allow.
type AllowResult struct {
	Rule      string     `json:"rule"` // the rule as YAML
	Document  string     `json:"document"`
	Scope     string     `json:"scope,omitempty"`
	Sandbox   string     `json:"sandbox,omitempty"`
	Revision  uint64     `json:"revision"`
	Expires   *time.Time `json:"expires,omitempty"`
	Effective bool       `json:"effective"`      // false: an upper layer still denies it, and the rule was not added
	Note      string     `json:"note,omitempty"` // why not effective
}

// TakenBack answers DELETE /v1/allow.
type TakenBack struct {
	Rules     []GivenRule `json:"rules"` // at least one
	Scope     string      `json:"scope,omitempty"`
	Sandbox   string      `json:"sandbox,omitempty"`
	Revision  uint64      `json:"revision"`
	Effective bool        `json:"effective"`      // false: another rule allows it all the same
	Note      string      `json:"note,omitempty"` // which
}

// GivenRule is one rule that `ringfence allow` gave.
type GivenRule struct {
	Destination string `json:"destination"`
	Document    string `json:"document"`
	Mode        string `json:"mode"` // AllowOnce ...
}

// Provider is one configured provider; its key is never part of it.
type Provider struct {
	Name       string   `json:"name"`
	Dialect    string   `json:"dialect"`
	Platform   string   `json:"platform,omitempty"` // how it is addressed; "" = as the dialect's own API
	BaseURL    string   `json:"baseURL"`
	Credential string   `json:"credential"` // "inject", "passthrough"
	Secret     string   `json:"secret,omitempty"`
	HasSecret  bool     `json:"hasSecret"`
	Models     []string `json:"models,omitempty"`
	Source     string   `json:"source,omitempty"` // file or "api"
}

// InferenceStatus answers GET /v1/inference.
type InferenceStatus struct {
	// Places are who was asked lately: those that are set aside first, then the
	// others, as many as one message of the gateway holds.
	Places []InferencePlace `json:"places"`
}

// InferencePlace is a provider, a model, and a key.
type InferencePlace struct {
	Provider string   `json:"provider"`
	Model    string   `json:"model,omitempty"` // "" is all models of a key that is refused
	Key      string   `json:"key,omitempty"`   // name of its secret; "" where the agent's own is used
	State    string   `json:"state"`           // "closed": it is asked; "open": it is set aside; "half-open": it is probed
	ProbedIn Duration `json:"probedIn,omitempty"`
	Latency  Duration `json:"latency,omitempty"` // to the head of an answer, smoothed
	Running  uint32   `json:"running"`
	Why      string   `json:"why,omitempty"`
}

// ProviderRequest is the body of POST /v1/providers. Empty fields take the
// default of the provider of that name.
type ProviderRequest struct {
	Name       string   `json:"name"`
	Dialect    string   `json:"dialect,omitempty"`
	Platform   string   `json:"platform,omitempty"`
	BaseURL    string   `json:"baseURL,omitempty"`
	Credential string   `json:"credential,omitempty"`
	Models     []string `json:"models,omitempty"`
	ResolvesTo []string `json:"resolvesTo,omitempty"` // private prefixes admitted for its host
	Key        Secret   `json:"key,omitempty"`
}

// ProviderRemoved answers DELETE /v1/providers/{name}.
type ProviderRemoved struct {
	Name     string `json:"name"`
	Document string `json:"document"`          // the file that was removed
	KeptKey  string `json:"keptKey,omitempty"` // the document that needs the stored key still; "" when no key is left
	Revision uint64 `json:"revision"`
	Note     string `json:"note,omitempty"` // who answers its calls now
}

// CheckRequest is the body of POST /v1/policy/check.
type CheckRequest struct {
	Documents []Document `json:"documents"`
}

// Problem is one mistake in a document.
type Problem struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	Col  int    `json:"col,omitempty"`
	Msg  string `json:"msg"`
	Hint string `json:"hint,omitempty"`

	Stays string `json:"stays,omitempty"` // GET /v1/policy: what of the file is in force all the same
}

// CheckResult answers POST /v1/policy/check.
type CheckResult struct {
	OK       bool      `json:"ok"`
	Problems []Problem `json:"problems"`
}

// PolicyView answers GET /v1/policy.
type PolicyView struct {
	Revision  uint64           `json:"revision"`
	Documents []PolicyDocument `json:"documents"`
	Problems  []Problem        `json:"problems,omitempty"` // of files whose present form is not in force

	// Within are the scopes of which Documents are all that apply to somebody
	// there; empty: they are all of the node, or of the sandbox that was named.
	Within []string `json:"within,omitempty"`
}

// PolicyDocument is one document in force.
type PolicyDocument struct {
	Kind  string `json:"kind"`
	Name  string `json:"name"`
	Scope string `json:"scope,omitempty"`
	File  string `json:"file,omitempty"` // KIND/NAME where it is the API's
	Text  string `json:"text,omitempty"`

	Change string `json:"change,omitempty"` // of a rollback: added, changed or removed; of an apply: unchanged
}

// InFile is the file that people keep the document in, "" where the API keeps it.
func (d *PolicyDocument) InFile() string {
	if d.File == d.Kind+"/"+d.Name {
		return ""
	}
	return d.File
}

// PolicyUse answers GET /v1/policy/use: every rule in force, what it has in the
// kernel and how often it decided.
type PolicyUse struct {
	Revision  uint64           `json:"revision"`
	Since     time.Time        `json:"since"` // when counting began: the start of the daemon
	Sandboxes int              `json:"sandboxes"`
	Rules     []RuleUse        `json:"rules"`     // "builtin/models" is in no document
	Documents []PolicyDocument `json:"documents"` // in force, without their text
	Problems  []Problem        `json:"problems,omitempty"`

	KernelBytes  uint64      `json:"kernelBytes"` // of all maps together
	Maps         []KernelMap `json:"maps"`
	NameBytes    uint64      `json:"nameBytes"`    // of one entry; 0: this kernel does not tell (before 6.4)
	AddressBytes uint64      `json:"addressBytes"` // likewise
}

// RuleUse is one rule of a PolicyUse.
type RuleUse struct {
	Rule    string `json:"rule"` // document/id
	At      string `json:"at,omitempty"`
	Scope   string `json:"scope"`
	Section string `json:"section"`
	Effect  string `json:"effect"`
	Target  string `json:"target"`

	Sandboxes   int    `json:"sandboxes"` // that have an entry of it in the kernel
	Entries     int    `json:"entries"`
	KernelBytes uint64 `json:"kernelBytes"`
	KernelHits  uint64 `json:"kernelHits"`  // calls that the hooks let through or refused by it
	GatewayHits uint64 `json:"gatewayHits"` // questions, connections, requests and model calls
}

// KernelMap is one map of the kernel programs.
type KernelMap struct {
	Name  string `json:"name"`
	Bytes uint64 `json:"bytes"`
}

// CheckPolicy names the checks of documents.
const CheckPolicy = "policy"

// Check is one probe of doctor.
type Check struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Optional bool   `json:"optional,omitempty"` // missing makes nothing unsafe
	State    string `json:"state,omitempty"`    // what it is, where that is neither there nor missing
	Have     string `json:"have,omitempty"`
	Need     string `json:"need,omitempty"`
	Detail   string `json:"detail,omitempty"`
	Remedy   string `json:"remedy,omitempty"`
}

// DoctorReport answers GET /v1/doctor.
type DoctorReport struct {
	OK     bool    `json:"ok"`
	Checks []Check `json:"checks"`
}

// AuditReport answers GET /v1/audit/verify.
type AuditReport struct {
	OK         bool      `json:"ok"`
	State      string    `json:"state"` // "consistent", "tampered", "incomplete"
	Dir        string    `json:"dir,omitempty"`
	Segments   int       `json:"segments"`
	Records    uint64    `json:"records"`
	Removed    uint64    `json:"removed,omitempty"`  // by retention, accounted for
	LastSeq    uint64    `json:"lastSeq"`            // consistent up to
	AnchoredTo uint64    `json:"anchoredTo"`         // covered by a head that left the host; 0 = none
	Head       string    `json:"head,omitempty"`     // keep it elsewhere: the anchor of later verifications
	Torn       int64     `json:"torn,omitempty"`     // bytes of an unfinished line at the end
	FirstBad   *BadEntry `json:"firstBad,omitempty"` // nil when OK
	Text       string    `json:"text,omitempty"`     // the report in words
}

// BadEntry names the first record of a log that does not verify.
type BadEntry struct {
	Segment string `json:"segment"`
	Line    int    `json:"line"`
	Seq     uint64 `json:"seq"`
	Why     string `json:"why"`
}
