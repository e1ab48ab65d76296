// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"strings"
)

// Node says which machine and which build reports. At least one of UID and
// Hostname should be set; without both the node is called "unknown".
type Node struct {
	UID      string // stable id of the node
	Hostname string
	Version  string // version of the daemon
	Kernel   string // kernel release, "" if unknown
}

// SchemaVersion is the OCSF version of every record.
const SchemaVersion = "1.8.0"

// ErrKind is returned for an event whose kind is not in the table.
var ErrKind = errors.New("event: unknown kind")

// AppendOCSF appends the event as one OCSF 1.8 JSON object, without a newline.
//
// The order of members is part of the contract, so that readers of the log can
// look at a record without parsing all of it (see [PeekOCSF]): the object
// starts with `{"time":N,"metadata":{"uid":...,"sequence":...` and ends with
// `"unmapped":{"ringfence":{"kind":...,"verdict":...,...}}}`; the closing
// [Tail] is where the audit log adds the links of its hash chain.
func (e *Event) AppendOCSF(dst []byte, node Node) ([]byte, error) {
	k := kindTable(e.Kind)
	if k == nil {
		return dst, fmt.Errorf("%w: %d", ErrKind, e.Kind)
	}
	j := jsonBuf{append(dst, '{')}
	j.key("time")
	if e.Time.IsZero() {
		j.b = append(j.b, '0')
	} else {
		j.b = appendInt(j.b, e.Time.UnixMilli())
	}
	appendMetadata(&j, e, k, &node)
	appendClass(&j, e, k)
	appendVerdict(&j, e, k)
	if k.class.device {
		appendDevice(&j, e, &node)
	}
	k.body(&j, e, &node)
	appendUnmapped(&j, e, k)
	j.close()
	return j.b, nil
}

// Tail is how every record of AppendOCSF ends.
const Tail = "}}}"

func appendMetadata(j *jsonBuf, e *Event, k *kindSpec, n *Node) {
	j.open("metadata")
	j.str("uid", e.ID)
	j.num("sequence", e.Sequence)
	j.strAlways("version", SchemaVersion)
	j.open("product")
	j.strAlways("name", "Ringfence")
	j.strAlways("vendor_name", "Ringfence")
	j.str("version", n.Version)
	j.close()
	appendProfiles(j, e, k)
	j.strAlways("log_name", "ringfence")
	j.strAlways("event_code", k.name)
	j.str("source", e.Source)
	j.str("tenant_uid", scopeSegment(e.Scope, "org"))
	j.millis("logged_time", e.Logged)
	j.bool("is_truncated", e.Truncated)
	j.close()
}

// appendProfiles declares exactly the profiles whose attributes the record uses.
func appendProfiles(j *jsonBuf, e *Event, k *kindSpec) {
	host := k.class.device && k.class.hostProfile
	container := k.class.device && e.Sandbox != ""
	ai := k.class.ai && e.Kind == KindInference
	if !k.decides && !host && !container && !ai {
		return
	}
	j.openList("profiles")
	if k.decides {
		j.item("security_control")
	}
	if host {
		j.item("host")
	}
	if container {
		j.item("container")
	}
	if ai {
		j.item("ai_operation")
	}
	j.closeList()
}

func appendClass(j *jsonBuf, e *Event, k *kindSpec) {
	c, a := k.class, k.activity(e)
	j.enum("category_uid", c.categoryUID, "category_name", c.category)
	j.enum("class_uid", c.uid, "class_name", c.caption)
	j.enum("activity_id", a.id, "activity_name", a.name)
	j.numAlways("type_uid", uint64(c.uid*100+a.id))
	j.key("type_name")
	j.b = append(j.b, '"')
	j.b = append(j.b, c.caption...)
	j.b = append(j.b, ": "...)
	if a.id == otherActivity {
		j.b = append(j.b, `Other"`...)
	} else {
		j.b = append(j.b, a.name...)
		j.b = append(j.b, '"')
	}
	sev := e.Severity
	if sev == SeverityDefault || int(sev) >= len(severityNames) {
		sev = k.severity(e.Verdict)
	}
	j.enum("severity_id", uint32(sev), "severity", severityNames[sev])
	j.str("message", e.Message())
	if !e.End.IsZero() {
		j.millis("start_time", e.Time)
		j.millis("end_time", e.End)
	}
	if e.Duration > 0 {
		j.numAlways("duration", uint64(e.Duration.Milliseconds()))
	}
	j.num("count", e.Count)
}

var severityNames = [...]string{
	SeverityDefault: "Unknown", SeverityInfo: "Informational", SeverityLow: "Low",
	SeverityMedium: "Medium", SeverityHigh: "High", SeverityCritical: "Critical",
}

func appendVerdict(j *jsonBuf, e *Event, k *kindSpec) {
	switch {
	case k.class.findingState:
		j.enum("status_id", 1, "status", "New")
	case e.failed(k):
		j.enum("status_id", 2, "status", "Failure")
	default:
		j.enum("status_id", 1, "status", "Success")
	}
	if e.Status != 0 {
		j.strNum("status_code", uint64(e.Status))
	}
	j.str("status_detail", e.ReasonCode)
	if !k.decides {
		return
	}
	switch {
	case e.Verdict == Allowed:
		j.enum("action_id", 1, "action", "Allowed")
		j.enum("disposition_id", 1, "disposition", "Allowed")
	case e.Verdict == Observed:
		j.enum("action_id", 3, "action", "Observed")
		j.enum("disposition_id", 17, "disposition", "Logged")
	case e.Kind == KindWorkspace:
		j.enum("action_id", 2, "action", "Denied")
		j.enum("disposition_id", 3, "disposition", "Quarantined")
	default:
		j.enum("action_id", 2, "action", "Denied")
		j.enum("disposition_id", 2, "disposition", "Blocked")
	}
	if e.Rule == "" {
		return
	}
	j.open("firewall_rule")
	j.strAlways("uid", e.Rule)
	j.str("match_location", e.RuleAt)
	j.close()
	doc, _, _ := strings.Cut(e.Rule, "/")
	if doc != "" {
		j.open("policy")
		j.strAlways("name", doc)
		if e.Revision != 0 {
			j.strNum("version", e.Revision)
		}
		j.close()
	}
}

// failed decides OCSF status: refused, lost, or answered with an error.
func (e *Event) failed(k *kindSpec) bool {
	if k.decides && e.Verdict.denied() || e.Failed {
		return true
	}
	switch e.Kind {
	case KindLoss:
		return true
	case KindHTTP, KindInference, KindOperator:
		return e.Status >= 400
	}
	return false
}

func appendDevice(j *jsonBuf, e *Event, n *Node) {
	j.open("device")
	j.str("uid", n.UID)
	j.str("hostname", n.Hostname)
	if n.UID == "" && n.Hostname == "" {
		j.strAlways("name", "unknown")
	}
	j.enum("type_id", 1, "type", "Server")
	j.open("os")
	j.strAlways("name", "Linux")
	j.enum("type_id", 200, "type", "Linux")
	j.str("kernel_release", n.Kernel)
	j.close()
	if e.Sandbox != "" {
		j.open("container")
		j.strAlways("uid", e.Sandbox)
		j.strAlways("runtime", "ringfence")
		j.close()
	}
	j.close()
}

// appendUnmapped writes what OCSF has no home for. kind, verdict, sandbox, scope
// and failed come first: PeekOCSF depends on it.
func appendUnmapped(j *jsonBuf, e *Event, k *kindSpec) {
	j.open("unmapped")
	j.open("ringfence")
	j.strAlways("kind", k.name)
	j.strAlways("verdict", e.Verdict.String())
	j.str("sandbox", e.Sandbox)
	j.str("scope", e.Scope)
	j.bool("failed", e.Failed)
	j.str("activity", e.Activity)
	j.str("layer", e.Layer)
	j.str("reason", e.Reason)
	j.str("remedy", e.Remedy)
	j.str("shadow", e.Shadow)
	j.num("revision", e.Revision)
	j.str("proto", e.Proto)
	j.str("method", e.Method)
	j.str("upstream", e.PeerAddr)
	j.str("socket", e.SocketInfo)
	j.str("path", e.Path)
	j.str("actor", e.Actor)
	j.str("object", e.Object)
	j.str("detail", e.Detail)
	j.num("lost", e.Lost)
	switch e.Kind {
	case KindHTTP:
		j.str("decision", e.RequestID)
	case KindApproval:
		j.str("approval", e.RequestID)
	}
	if e.Kind == KindInference {
		appendInferenceUnmapped(j, e)
	}
	j.str("parents", e.Parents)
	j.close()
	j.close()
}

// Message is the one sentence of the record: what was tried and what became of it.
func (e *Event) Message() string {
	var b strings.Builder
	if e.Decides() {
		b.WriteString(e.Verdict.String())
		b.WriteByte(' ')
	}
	b.WriteString(e.Target())
	if e.Reason != "" {
		b.WriteString(": ")
		b.WriteString(e.Reason)
	}
	if e.Shadow != "" {
		b.WriteString(" (with rules in shadow mode: ")
		b.WriteString(e.Shadow)
		b.WriteByte(')')
	}
	return b.String()
}

// scopeSegment reads one segment of a canonical principal: "acme" for key "org"
// of "org:acme/team:x".
func scopeSegment(scope, key string) string {
	for scope != "" {
		var seg string
		seg, scope, _ = strings.Cut(scope, "/")
		if k, v, ok := strings.Cut(seg, ":"); ok && k == key {
			return v
		}
	}
	return ""
}
