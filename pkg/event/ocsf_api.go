// SPDX-License-Identifier: Apache-2.0

package event

var classAPI = class{uid: 6003, caption: "API Activity", categoryUID: 6, category: "Application Activity", hostProfile: true, ai: true, device: true}

var apiVerbs = verbs{
	"create": {1, "Create"}, "run": {1, "Create"}, "exec": {1, "Create"}, "add": {1, "Create"}, "apply": {1, "Create"}, "call": {1, "Create"},
	"read": {2, "Read"}, "get": {2, "Read"}, "list": {2, "Read"}, "ps": {2, "Read"}, "events": {2, "Read"}, "logs": {2, "Read"},
	"explain": {2, "Read"}, "models": {2, "Read"}, "check": {2, "Read"}, "verify": {2, "Read"},
	"update": {3, "Update"}, "set": {3, "Update"}, "allow": {3, "Update"},
	"delete": {4, "Delete"}, "remove": {4, "Delete"}, "stop": {4, "Delete"},
}

func operatorActivity(e *Event) activity { return apiVerbs.find(e.Activity, other(e.Activity)) }

// inferenceActivity: a model call creates an answer, unless it only lists models.
func inferenceActivity(e *Event) activity { return apiVerbs.find(e.Operation, activity{1, "Create"}) }

func operatorBody(j *jsonBuf, e *Event, n *Node) {
	appendActor(j, e)
	appendEndpoints(j, e)
	appendAPI(j, e, firstOf(e.Operation, e.Activity, "unknown"), "ringfenced")
	if e.Object != "" {
		j.openList("resources")
		j.openItem()
		j.strAlways("name", e.Object)
		j.close()
		j.closeList()
	}
	appendHTTP(j, e, false)
}

func inferenceBody(j *jsonBuf, e *Event, n *Node) {
	appendActor(j, e)
	appendEndpoints(j, e)
	appendAPI(j, e, firstOf(e.Operation, e.Activity, "unknown"), firstOf(e.Provider, e.DstName))
	appendHTTP(j, e, false)
	provider := firstOf(e.Provider, "unknown")
	if m := firstOf(e.ModelServed, e.Model); m != "" {
		j.open("ai_model")
		j.strAlways("name", m)
		j.strAlways("ai_provider", provider)
		j.close()
	}
	j.open("message_context")
	j.open("service")
	j.strAlways("name", provider)
	j.close()
	if e.TokensIn != 0 || e.TokensOut != 0 {
		j.numAlways("prompt_tokens", e.TokensIn)
		j.numAlways("completion_tokens", e.TokensOut)
		j.numAlways("total_tokens", e.TokensIn+e.TokensOut)
	}
	j.close()
}

func appendAPI(j *jsonBuf, e *Event, operation, service string) {
	j.open("api")
	j.strAlways("operation", operation)
	if e.RequestID != "" {
		j.open("request")
		j.strAlways("uid", e.RequestID)
		j.close()
	}
	if e.Status != 0 {
		j.open("response")
		j.numAlways("code", uint64(e.Status))
		j.close()
	}
	if service != "" {
		j.open("service")
		j.strAlways("name", service)
		j.close()
	}
	j.close()
}

func appendInferenceUnmapped(j *jsonBuf, e *Event) {
	j.str("provider", e.Provider)
	j.str("model", e.Model)
	j.str("model_served", e.ModelServed)
	j.str("route", e.Route)
	j.str("tried", e.Tried)
	j.str("trace_id", e.TraceID)
	j.str("span_id", e.SpanID)
	j.str("parent_span_id", e.ParentSpanID)
	j.bool("stream", e.Stream)
	j.num("tokens_cached", e.TokensCached)
	j.bool("tokens_estimated", e.Estimated)
	appendSpend(j, e)
	j.str("credential", e.Credential)
	j.num("bytes_in", e.BytesIn)
	j.num("bytes_out", e.BytesOut)
}
