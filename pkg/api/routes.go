// SPDX-License-Identifier: Apache-2.0

package api

// Route is one row of the surface of the API, for people and for tests that
// try all of it.
type Route struct {
	Method, Path string
	Who          string // who is answered, in words
	Sees         string // what of the object or the answer decides besides, "" if nothing
}

// narrowed says of routes whose answer depends on more than who asks what that is.
var narrowed = map[string]string{
	"GET /v1/status":                         "details of the node: viewer of org:*, or no Access document is in force",
	"GET /v1/doctor":                         "documents of the node: likewise",
	"GET /v1/sandboxes":                      "lists the caller's own, and those of scopes where it is a viewer",
	"POST /v1/sandboxes":                     "launcher of the scope; an identity other than the caller's own: root",
	"GET /v1/events":                         "those of the caller's own sandboxes, and of scopes where it is a viewer; of the node itself: viewer of org:*",
	"GET /v1/events/{event}/explain":         "likewise",
	"POST /v1/allow":                         "for a sandbox: its launcher, or policy-author of its scope; for a scope: policy-author there",
	"DELETE /v1/allow":                       "likewise",
	"GET /v1/policy":                         "for a sandbox: who sees it; else documents that apply to a scope where the caller is a viewer; Access documents: admin of their scope",
	"PUT /v1/policy":                         "Policy: policy-author of its scope; Access: admin of its scope; others: admin of org:*",
	"DELETE /v1/policy/{name}":               "likewise",
	"GET /v1/policy/use":                     "rules that apply to a scope where the caller is a viewer; their counts where it sees the rule's whole scope",
	"GET /v1/costs":                          "calls in scopes where the caller is a viewer; of all: viewer of org:*, or no Access document is in force",
	"GET /v1/policy/enforced":                "waits for the sandboxes that the caller sees",
	"GET /v1/approvals":                      "of the caller's own sandboxes, of scopes where it is a viewer, and where a rule names it",
	"GET /v1/approvals/watch":                "likewise",
	"GET /v1/approvals/{approval}":           "likewise",
	"POST /v1/approvals/{approval}/vote":     "likewise, where a rule that asks counts the caller's vote",
	"POST /v1/approvals/{approval}/rule":     "likewise, and policy-author of the scope of every rule that asks",
	"GET /v1/approvals/drafts":               "denials of the caller's own sandboxes, and of scopes where it is a viewer",
	"POST /v1/approvals/drafts/{draft}/rule": "likewise, and policy-author of the draft's scope",
	"GET /v1/budgets":                        "accounts of scopes where the caller is a viewer or launcher",
	"POST /v1/budgets/increase":              "approver of the whole scope of the budget's document",
	"GET /v1/sandboxes/{id}":                 "the caller's own, or viewer of its scope",
	"GET /v1/sandboxes/{id}/log":             "the caller's own, or viewer of its scope",
}

// Routes lists the whole surface of the API.
func Routes() []Route {
	out := make([]Route, len(routes))
	for i, rt := range routes {
		out[i] = Route{rt.method, rt.path, needs[rt.need].who, narrowed[rt.method+" "+rt.path]}
	}
	return out
}
