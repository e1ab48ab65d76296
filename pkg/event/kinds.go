// SPDX-License-Identifier: Apache-2.0

package event

import "strings"

// kindSpec says how one kind becomes an OCSF record. A new kind is one row in
// the table below and, if its class is new, one class in the file of its group.
type kindSpec struct {
	name     string // stable name, `unmapped.ringfence.kind` and metadata.event_code
	short    string // at most five letters, for one-line output
	class    *class
	decides  bool // the verdict means something for this kind
	severity func(v Verdict) Severity
	activity func(e *Event) activity
	body     func(b *jsonBuf, e *Event, n *Node)
}

// class is one OCSF event class.
type class struct {
	uid          uint32
	caption      string
	categoryUID  uint32
	category     string
	hostProfile  bool // device and actor are not part of the class itself: the host profile must be declared
	ai           bool // the class takes the ai_operation profile
	findingState bool // status_id is the life of a finding, not success or failure
	device       bool // the encoder writes the device of the node
}

// activity is one row of a class's activity_id enum. Id 99 carries its own name.
type activity struct {
	id   uint32
	name string
}

const otherActivity = 99

func kindTable(k Kind) *kindSpec {
	if int(k) >= len(kinds) || kinds[k].class == nil {
		return nil
	}
	return &kinds[k]
}

// kinds is the registration table: read only after initialisation. (It is
// filled in init because the encoders it names read it.)
var kinds []kindSpec

func init() { kinds = registered() }

func registered() []kindSpec {
	return []kindSpec{
		KindNetwork:      {name: "network", short: "net", class: &classNetwork, decides: true, severity: lowIfDenied, activity: networkActivity, body: networkBody},
		KindKernelDenial: {name: "kernel-denial", short: "sock", class: &classNetwork, decides: true, severity: mediumIfDenied, activity: kernelDenialActivity, body: networkBody},
		KindDNS:          {name: "dns", short: "dns", class: &classDNS, decides: true, severity: lowIfDenied, activity: dnsActivity, body: dnsBody},
		KindHTTP:         {name: "http", short: "http", class: &classHTTP, decides: true, severity: lowIfDenied, activity: httpActivity, body: httpBody},

		KindInference: {name: "inference", short: "llm", class: &classAPI, decides: true, severity: lowIfDenied, activity: inferenceActivity, body: inferenceBody},
		KindOperator:  {name: "operator", short: "op", class: &classAPI, decides: true, severity: mediumIfDenied, activity: operatorActivity, body: operatorBody},

		KindExec:    {name: "exec", short: "exec", class: &classProcess, decides: true, severity: lowIfDenied, activity: fixed(1, "Launch"), body: execBody},
		KindExit:    {name: "exit", short: "exit", class: &classProcess, severity: always(SeverityInfo), activity: fixed(2, "Terminate"), body: exitBody},
		KindFile:    {name: "file", short: "file", class: &classFile, decides: true, severity: lowIfDenied, activity: fileActivity, body: fileBody},
		KindSyscall: {name: "syscall", short: "sys", class: &classKernel, decides: true, severity: mediumIfDenied, activity: fixed(4, "Invoke"), body: syscallBody},

		KindSandboxStart: {name: "sandbox-start", short: "start", class: &classLifecycle, decides: true, severity: mediumIfDenied, activity: fixed(3, "Start"), body: sandboxBody},
		KindSandboxStop:  {name: "sandbox-stop", short: "stop", class: &classLifecycle, severity: always(SeverityInfo), activity: fixed(4, "Stop"), body: sandboxBody},
		KindDaemon:       {name: "daemon", short: "node", class: &classLifecycle, severity: always(SeverityInfo), activity: daemonActivity, body: daemonBody},
		KindLoss:         {name: "loss", short: "loss", class: &classAppError, severity: always(SeverityMedium), activity: fixed(1, "General Error"), body: lossBody},

		KindPolicy:    {name: "policy", short: "rule", class: &classEntity, decides: true, severity: lowIfDenied, activity: policyActivity, body: policyBody},
		KindApproval:  {name: "approval", short: "appr", class: &classEntity, decides: true, severity: lowIfDenied, activity: approvalActivity, body: approvalBody},
		KindWorkspace: {name: "workspace", short: "work", class: &classFinding, decides: true, severity: always(SeverityMedium), activity: fixed(1, "Create"), body: findingBody},
		KindBudget:    {name: "budget", short: "cost", class: &classFinding, decides: true, severity: always(SeverityLow), activity: fixed(1, "Create"), body: findingBody},
		KindTamper:    {name: "tamper", short: "tampr", class: &classFinding, decides: true, severity: always(SeverityHigh), activity: fixed(1, "Create"), body: findingBody},
	}
}

// Kinds lists every valid kind in ascending order.
func Kinds() []Kind {
	var out []Kind
	for k := range kinds {
		if kinds[k].class != nil {
			out = append(out, Kind(k))
		}
	}
	return out
}

// String is the stable name of the kind: "network", "dns", "sandbox-start" ...
func (k Kind) String() string {
	if s := kindTable(k); s != nil {
		return s.name
	}
	return "invalid"
}

// Valid says whether the kind is in the table.
func (k Kind) Valid() bool { return kindTable(k) != nil }

// ParseKind is the inverse of [Kind.String]; an unknown name is KindInvalid.
func ParseKind(s string) Kind {
	for k := range kinds {
		if kinds[k].class != nil && kinds[k].name == s {
			return Kind(k)
		}
	}
	return KindInvalid
}

// String is "denied", "allowed" or "observed"; anything unknown reads as denied.
func (v Verdict) String() string {
	switch v {
	case Allowed:
		return "allowed"
	case Observed:
		return "observed"
	}
	return "denied"
}

// ParseVerdict is the inverse of [Verdict.String]; an unknown word is Denied.
func ParseVerdict(s string) Verdict {
	switch s {
	case "allowed":
		return Allowed
	case "observed":
		return Observed
	}
	return Denied
}

// Decides says whether the verdict of this event means something: the end of a
// process or the start of the daemon is nobody's decision.
func (e *Event) Decides() bool {
	s := kindTable(e.Kind)
	return s != nil && s.decides
}

// IsDenial says whether the event records that something was refused.
func (e *Event) IsDenial() bool { return e.Verdict.denied() && e.Decides() }

// IsFailure says whether the event records something that was let through and
// failed: the destination, not the fence, is why it did not work.
func (e *Event) IsFailure() bool { return e.Failed && !e.IsDenial() }

// denied is true for every verdict that does not let through.
func (v Verdict) denied() bool { return v != Allowed && v != Observed }

func always(s Severity) func(Verdict) Severity { return func(Verdict) Severity { return s } }

func lowIfDenied(v Verdict) Severity {
	if v.denied() {
		return SeverityLow
	}
	return SeverityInfo
}

func mediumIfDenied(v Verdict) Severity {
	if v.denied() {
		return SeverityMedium
	}
	return SeverityInfo
}

func fixed(id uint32, name string) func(*Event) activity {
	a := activity{id, name}
	return func(*Event) activity { return a }
}

// other is an activity that the class's enum does not know.
func other(verb string) activity {
	if verb == "" {
		return activity{otherActivity, "Other"}
	}
	return activity{otherActivity, verb}
}

// verbs maps lower-case activity words to rows of an enum.
type verbs map[string]activity

func (t verbs) find(word string, otherwise activity) activity {
	if a, ok := t[word]; ok {
		return a
	}
	if a, ok := t[strings.ToLower(word)]; ok {
		return a
	}
	return otherwise
}
