// SPDX-License-Identifier: Apache-2.0

package event

var (
	classLifecycle = class{uid: 6002, caption: "Application Lifecycle", categoryUID: 6, category: "Application Activity", hostProfile: true, device: true}
	classAppError  = class{uid: 6008, caption: "Application Error", categoryUID: 6, category: "Application Activity", hostProfile: true, device: true}
	classEntity    = class{uid: 3004, caption: "Entity Management", categoryUID: 3, category: "Identity & Access Management", hostProfile: true, device: true}
	classFinding   = class{uid: 2004, caption: "Detection Finding", categoryUID: 2, category: "Findings", hostProfile: true, findingState: true, device: true}
)

var daemonVerbs = verbs{
	"install": {1, "Install"}, "remove": {2, "Remove"}, "start": {3, "Start"}, "stop": {4, "Stop"}, "restart": {5, "Restart"},
	"enable": {6, "Enable"}, "disable": {7, "Disable"}, "update": {8, "Update"}, "reload": {8, "Update"},
}

func daemonActivity(e *Event) activity { return daemonVerbs.find(e.Activity, other(e.Activity)) }

func daemonBody(j *jsonBuf, e *Event, n *Node) {
	appendActor(j, e)
	j.open("app")
	j.strAlways("name", firstOf(e.Object, "ringfenced"))
	j.strAlways("vendor_name", "Ringfence")
	j.str("version", firstOf(e.Version, n.Version))
	j.close()
}

func sandboxBody(j *jsonBuf, e *Event, n *Node) {
	appendActor(j, e)
	j.open("app")
	j.strAlways("name", firstOf(scopeSegment(e.Scope, "agent"), "sandbox"))
	j.str("uid", e.Sandbox)
	j.strAlways("vendor_name", "Ringfence")
	j.close()
}

func lossBody(j *jsonBuf, e *Event, n *Node) { appendActor(j, e) }

var policyVerbs = verbs{
	"create": {1, "Create"}, "add": {1, "Create"}, "read": {2, "Read"}, "update": {3, "Update"}, "apply": {3, "Update"},
	"allow": {3, "Update"}, "change": {3, "Update"}, "rollback": {3, "Update"}, "refuse": {3, "Update"}, "delete": {4, "Delete"}, "remove": {4, "Delete"},
	"enable": {8, "Enable"}, "disable": {9, "Disable"}, "activate": {10, "Activate"}, "load": {10, "Activate"},
	"deactivate": {11, "Deactivate"}, "suspend": {12, "Suspend"}, "resume": {13, "Resume"},
}

func policyActivity(e *Event) activity { return policyVerbs.find(e.Activity, other(e.Activity)) }

func policyBody(j *jsonBuf, e *Event, n *Node) {
	appendActor(j, e)
	name := firstOf(e.Object, "policy")
	j.open("entity")
	j.strAlways("name", name)
	j.enum("type_id", 5, "type", "Policy")
	if e.Revision != 0 {
		j.strNum("version", e.Revision)
	}
	j.close()
	j.str("comment", e.Detail)
}

var approvalVerbs = verbs{"ask": {1, "Create"}, "vote": {3, "Update"}, "approve": {10, "Activate"}, "consume": {11, "Deactivate"}}

func approvalActivity(e *Event) activity { return approvalVerbs.find(e.Activity, other(e.Activity)) }

func approvalBody(j *jsonBuf, e *Event, n *Node) {
	appendActor(j, e)
	j.open("entity")
	j.strAlways("name", firstOf(e.Object, "approval"))
	j.str("uid", e.RequestID)
	j.enum("type_id", otherActivity, "type", "Approval")
	j.close()
	j.str("comment", e.Detail)
}

func findingBody(j *jsonBuf, e *Event, n *Node) {
	appendActor(j, e)
	name := "ringfence-" + e.Kind.String()
	j.open("finding_info")
	j.strAlways("uid", firstOf(e.ID, name))
	j.strAlways("title", firstOf(e.Reason, e.Activity, name))
	j.str("desc", e.Detail)
	j.open("analytic")
	j.strAlways("name", firstOf(e.ReasonCode, name))
	j.enum("type_id", 1, "type", "Rule")
	j.close()
	j.close()
	if e.Path == "" && e.PID == 0 {
		return
	}
	j.openList("evidences")
	j.openItem()
	if e.Path != "" {
		appendFile(j, e.Path, 0, "Unknown")
	}
	if e.PID != 0 {
		appendProcess(j, e)
	}
	j.close()
	j.closeList()
}
