// SPDX-License-Identifier: Apache-2.0

// Package policy reads Ringfence documents, compiles them to an immutable
// [Snapshot] and decides on it. It does no I/O.
//
// [Parse] is strict: an unknown field, a wrong type or a field that this
// version does not enforce is a [Problem] with file, line and column. [Compile]
// joins documents into a snapshot; [Snapshot.View] is what one principal sees
// of it, and its methods decide. Deny is the zero value of every verdict.
//
// The decision algebra is in decide.go, the meaning of targets in host.go,
// target.go and http.go.
package policy

import (
	"net/netip"
	"strconv"

	"github.com/ringfence/ringfence/pkg/scope"
)

// APIVersion is the only version of documents read.
const APIVersion = "ringfence.dev/v1"

// Kinds of documents.
const (
	KindPolicy     = "Policy"
	KindProfile    = "Profile"
	KindProvider   = "Provider"
	KindToolServer = "ToolServer"
	KindAccess     = "Access"
)

// Document is one parsed and checked document. Exactly one of Policy, Profile,
// Provider, ToolServer and Access is set, as Kind says.
type Document struct {
	Kind        string
	Name        string // metadata.name
	Description string // metadata.description
	File        string // as given to Parse
	Line        int    // first line of the document in File
	Scope       scope.Selector

	Policy     *Policy
	Profile    *Profile
	Provider   *Provider
	ToolServer *ToolServer
	Access     *Access

	Raw []byte // the document's own text, without separators
}

// Policy is the rules and budgets of one Policy document, in the order of the text.
type Policy struct {
	Egress    []Rule
	Inference []Rule
	Tools     []Rule
	Routes    []Route
	Budgets   []Budget
}

// Section is the part of a Policy document that a rule stands in.
type Section uint8

// Sections. The zero value is invalid.
const (
	SectionInvalid Section = iota
	SectionEgress
	SectionInference
	SectionTools
)

func (s Section) String() string {
	switch s {
	case SectionEgress:
		return "egress"
	case SectionInference:
		return "inference"
	case SectionTools:
		return "tools"
	}
	return "invalid"
}

// Effect is what a rule does to the requests it matches. The zero value
// blocks; a greater value is looser.
type Effect uint8

// Effects, from the strictest.
const (
	Block Effect = iota
	RequireApproval
	Allow
)

var effectNames = []string{"block", "require-approval", "allow"}

func (e Effect) String() string {
	if int(e) < len(effectNames) {
		return effectNames[e]
	}
	return "block"
}

// Rule is one rule. What it matches is the intersection of the document's
// scope, For, its target, Risk, HTTP and When.
type Rule struct {
	ID       string
	Section  Section
	Effect   Effect
	NoEffect bool // only what it obliges to counts: it neither blocks nor grants, and Effect is Block

	// The target of an egress rule: either Host or Prefix.
	Host   HostPattern  // zero when Prefix is set
	Prefix netip.Prefix // literal addresses; zero when Host is set
	Port   uint16       // 0 = every port (only with Block)
	Proto  Proto        // 0 = none given: an allow means TCP, a deny both

	Model scope.Pattern // the target of an inference rule

	Server scope.Pattern // the target of a tools rule, with Tool
	Tool   scope.Pattern

	For        *scope.Selector // nil = everybody in the document's scope
	Risk       Risk            // classes of calls, tools only; 0 = every call
	HTTP       *HTTPMatch      // nil = no condition
	When       *When           // nil = no condition
	ResolvesTo []netip.Prefix  // private prefixes admitted for Host
	Mandatory  bool
	Delegable  bool
	Shadow     bool   // left out of what is enforced, see Terms.Shadow
	Reason     string // shown to the agent and the operator

	Approval *Approval // set for RequireApproval
	Rate     *Rate
	PII      *PII
	Redact   *Redact
	Audit    AuditLevel
	Waive    Kinds // obligations of wider rules that this one lifts

	Digest [32]byte // stands for scope, document and text of the rule; zero if it was not parsed

	Line, Col int // where the rule begins in the document's file
	fields    []fieldPlace
}

// fieldPlace is where a field of a rule stands.
type fieldPlace struct {
	name      string
	line, col int
}

// RuleRef names the rule that decided. The zero value is "no rule".
type RuleRef struct {
	Doc   string // metadata.name, "builtin" for the builtin layer
	ID    string
	File  string
	Line  int
	Scope string // canonical scope of the document
	Num   uint32 // number of the rule in its snapshot, 0 = none; see Snapshot.Rule
}

// String is "document/id", "" for no rule.
func (r RuleRef) String() string {
	if r.Doc == "" && r.ID == "" {
		return ""
	}
	return r.Doc + "/" + r.ID
}

// Decision is one verdict. The zero value is a denial.
type Decision struct {
	// Effect: only Allow lets anything pass. RequireApproval is for who can ask
	// for an approval; for everybody else it is a denial.
	Effect Effect
	// HTTP: the flow is admitted only as inspected HTTP, and View.HTTP decides
	// each request. Never pass such a flow through unseen; View.Opaque says
	// whether a flow that cannot be inspected may pass.
	HTTP       bool
	Rule       RuleRef
	Reason     string // one sentence for agent and operator; no rule text but the rule's own reason
	ReasonCode string // one of the Code constants
	Revision   uint64
	Terms      *Terms // what comes with the effect; nil = nothing
}

// Allowed reports whether what was asked may happen without anybody being asked.
func (d Decision) Allowed() bool { return d.Effect == Allow }

// Codes of decisions: stable, for events and tests.
const (
	CodeRule                = "rule"                 // a rule of a document decided
	CodeMandatory           = "mandatory"            // a mandatory rule decided
	CodeBuiltin             = "builtin"              // the builtin layer decided
	CodeLearned             = "learned"              // no rule speaks of it, and the sandbox learns
	CodeApproval            = "approval"             // a rule demands an approval
	CodeNoRule              = "no-rule"              // nothing allows it
	CodeBadName             = "bad-name"             // not a host name that can be decided on
	CodeProviderHost        = "provider-host"        // a provider's host is never plain egress
	CodeProviderUnsupported = "provider-unsupported" // a known provider whose dialect is not built
	CodeVirtualRange        = "virtual-range"        // a literal address in 198.18.0.0/15
	CodeDialect             = "dialect"              // unknown dialect
)

// Proto is an IP protocol number.
type Proto uint8

// Protocols that are decided on.
const (
	TCP Proto = 6
	UDP Proto = 17
)

// String is the protocol as written in targets and events.
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return "protocol-" + strconv.Itoa(int(p))
}
