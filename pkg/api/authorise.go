// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/ringfence/ringfence/pkg/policy"
)

// need is what a route requires of its caller, before anything is read from
// the body. The zero value admits nobody.
type need uint8

const (
	needRefused need = iota // no requirement was stated: nobody
	needRoot                // root: what reaches into the machine is no role's
	needNode                // admin of the whole node
	needMember              // some role somewhere; the handler narrows what the caller sees or does
	needSight               // viewer somewhere; the handler narrows likewise
	needAuthor              // policy-author or admin somewhere; the Backend asks for each document
	needSee                 // the sandbox {id} is one that the caller sees
	needStop                // and it is the caller's own, or of a scope that the caller administers
	needOwner               // and it is the caller's own
)

// needs says who has what a route needs; each is a question to Rights.
var needs = map[need]struct {
	admits func(Rights) bool
	box    func(r Rights, b *Sandbox) bool // nil: the route names no sandbox
	who    string
}{
	needRoot:   {Rights.Root, nil, "root"},
	needNode:   {func(r Rights) bool { return r.Node(policy.RightAdmin) }, nil, "root, or the role admin of org:*"},
	needMember: {func(r Rights) bool { return !r.none() }, nil, "a role"},
	needSight:  {func(r Rights) bool { return r.anywhere(policy.RightSee) }, nil, "root, or the role viewer of some scope"},
	needAuthor: {mayWriteSomewhere, nil, "root, or the role policy-author of some scope"},
	needSee:    {func(r Rights) bool { return !r.none() }, func(r Rights, b *Sandbox) bool { return r.Sees(b.Owner, b.Scope) }, "a role"},
	needStop:   {func(r Rights) bool { return !r.none() }, func(r Rights, b *Sandbox) bool { return r.Stops(b.Owner, b.Scope) }, "root, whoever launched it, or the role admin of its scope"},
	needOwner:  {func(r Rights) bool { return !r.none() }, func(r Rights, b *Sandbox) bool { return r.Owns(b.Owner, b.Scope) }, "root, or whoever launched it"},
}

func mayWriteSomewhere(r Rights) bool {
	return r.anywhere(policy.RightAuthor) || r.anywhere(policy.RightAdmin)
}

// route is one row of the table of everything the server answers.
type route struct {
	method, path string
	need         need
	body         int64 // most bytes of body; 0 = no body is read
	serve        func(s *Server, w http.ResponseWriter, r *call) error
	lasts        bool // it may hold its connection for long: see shares
}

// routes is the whole surface of the API. A row without need is refused.
var routes = []route{
	{"GET", "/v1/version", needMember, 0, (*Server).version, false},
	{"GET", "/v1/status", needMember, 0, (*Server).status, false},
	{"GET", "/v1/doctor", needMember, 0, (*Server).doctor, false},

	{"GET", "/v1/sandboxes", needMember, 0, (*Server).listSandboxes, false},
	{"POST", "/v1/sandboxes", needMember, MaxLaunchBody, (*Server).launch, true},
	{"GET", "/v1/sandboxes/{id}", needSee, 0, (*Server).getSandbox, false},
	{"POST", "/v1/sandboxes/{id}/exec", needOwner, MaxLaunchBody, (*Server).exec, true},
	{"POST", "/v1/sandboxes/{id}/stop", needStop, MaxBody, (*Server).stop, false},
	{"GET", "/v1/sandboxes/{id}/log", needSee, 0, (*Server).log, true},

	{"POST", "/v1/adopt", needRoot, MaxLaunchBody, (*Server).adopt, true},
	{"POST", "/v1/sandboxes/{id}/release", needRoot, 0, (*Server).release, false},

	{"GET", "/v1/events", needMember, 0, (*Server).events, true},
	{"GET", "/v1/events/{event}/explain", needMember, 0, (*Server).explain, false},

	{"POST", "/v1/allow", needMember, MaxBody, (*Server).allow, false},
	{"DELETE", "/v1/allow", needMember, MaxBody, (*Server).takeBack, false},
	{"POST", "/v1/policy/check", needMember, MaxLaunchBody, (*Server).checkPolicy, false},
	{"GET", "/v1/policy", needMember, 0, (*Server).policy, false},
	{"PUT", "/v1/policy", needAuthor, MaxLaunchBody, (*Server).applyPolicy, false},
	{"DELETE", "/v1/policy/{name}", needAuthor, 0, (*Server).deletePolicy, false},
	{"GET", "/v1/policy/use", needSight, 0, (*Server).policyUse, false},
	{"GET", "/v1/policy/enforced", needAuthor, 0, (*Server).enforced, true},
	{"GET", "/v1/policy/documents", needNode, 0, (*Server).policyDocuments, false},
	{"GET", "/v1/policy/history", needNode, 0, (*Server).policyHistory, false},
	{"GET", "/v1/policy/diff", needNode, 0, (*Server).policyDiff, false},
	{"POST", "/v1/policy/rollback", needNode, MaxBody, (*Server).rollbackPolicy, false},

	{"GET", "/v1/approvals", needMember, 0, (*Server).listApprovals, false},
	{"GET", "/v1/approvals/watch", needMember, 0, (*Server).watchApprovals, true},
	{"GET", "/v1/approvals/{approval}", needMember, 0, (*Server).getApproval, false},
	{"POST", "/v1/approvals/{approval}/vote", needMember, MaxBody, (*Server).vote, false},
	{"POST", "/v1/approvals/{approval}/rule", needAuthor, MaxBody, (*Server).lastApproval, false},
	{"GET", "/v1/approvals/drafts", needMember, 0, (*Server).listDrafts, false},
	{"POST", "/v1/approvals/drafts/{draft}/rule", needAuthor, MaxBody, (*Server).lastDraft, false},

	{"GET", "/v1/inference", needNode, 0, (*Server).inferenceStatus, false},
	{"GET", "/v1/budgets", needMember, 0, (*Server).listBudgets, false},
	{"POST", "/v1/budgets/increase", needMember, MaxBody, (*Server).increaseBudget, false},

	{"GET", "/v1/providers", needNode, 0, (*Server).listProviders, false},
	{"POST", "/v1/providers", needNode, MaxBody, (*Server).addProvider, false},
	{"DELETE", "/v1/providers/{name}", needNode, 0, (*Server).removeProvider, false},
	{"GET", "/v1/costs", needMember, 0, (*Server).costs, false},
	{"GET", "/v1/prices", needMember, 0, (*Server).listPrices, false},
	{"PUT", "/v1/prices", needNode, MaxPricesBody, (*Server).addPrices, false},
	{"DELETE", "/v1/prices/{version}", needNode, 0, (*Server).removePrices, false},
	{"GET", "/v1/audit/verify", needNode, 0, (*Server).verifyAudit, false},
}

// admit decides on caller and route alone; what concerns one sandbox or one
// body is decided where it is known, by the functions below.
func admit(c *Caller, n need) error {
	if c == nil || c.Rights.none() {
		return strangerError(c)
	}
	spec, ok := needs[n]
	if !ok {
		return denied("this request has no stated requirement and is refused to everyone", "")
	}
	if !spec.admits(c.Rights) {
		remedy := "run the command as root, or ask for a role: an Access document gives it"
		if n == needRoot {
			remedy = "run the command as root: no role gives this"
		}
		return denied("this needs "+spec.who, remedy)
	}
	return nil
}

// admitBox decides on a sandbox that the caller sees.
func admitBox(c *Caller, n need, b *Sandbox) error {
	spec, ok := needs[n]
	if !ok || spec.box != nil && !spec.box(c.Rights, b) {
		return denied(fmt.Sprintf("sandbox %s is not yours: this needs %s", b.ID, spec.who), "run the command as root")
	}
	return nil
}

func strangerError(c *Caller) error {
	uid := "unknown"
	if c != nil {
		uid = fmt.Sprint(c.UID)
	}
	if c != nil && c.Role == RoleMember {
		return denied("uid "+uid+" has no role on this node", "ask whoever administers it for one: an Access document gives it")
	}
	return denied("uid "+uid+" may not use Ringfence on this node",
		memberRemedy("", "USER"))
}

func denied(msg, remedy string) *Error {
	return &Error{Code: CodeDenied, Message: msg, Remedy: remedy}
}

// admitLaunch narrows a launch to what c may ask for and fixes the identity:
// who is not root runs as itself whatever the body says.
func admitLaunch(c *Caller, r *LaunchRequest) error {
	if c.Rights.Root() {
		return nil
	}
	in := r.Scope
	if in == "" {
		in = DefaultScope
	}
	if !c.Rights.mayIn(policy.RightLaunch, in) {
		return denied(fmt.Sprintf("launching in %s needs root, or the role launcher there", in), launchRemedy(c))
	}
	if r.Learn && !c.Rights.mayIn(policy.RightAdmin, in) {
		return denied(fmt.Sprintf("a sandbox that learns needs root, or the role admin in %s: it reaches what no rule allows", in),
			"leave --learn out, and learn from what is refused: ringfence policy learn")
	}
	own := Identity{UID: c.UID, GID: c.GID, Groups: c.Groups}
	if r.Identity != nil {
		if r.Identity.UID != c.UID {
			return denied(fmt.Sprintf("running as uid %d needs root: everybody else runs sandboxes as themselves", r.Identity.UID),
				"leave --user out, or run the command as root")
		}
		own.Name, own.Home = r.Identity.Name, r.Identity.Home
	}
	r.Identity = &own
	return nil
}

// launchRemedy names a scope in which the caller may launch.
func launchRemedy(c *Caller) string {
	for _, h := range c.Rights.held {
		if !h.role.Has(policy.RightLaunch) {
			continue
		}
		if h.in.Contains(defaultScope()) {
			return "leave --as out, or run the command as root"
		}
		return "name a scope of yours with --as, such as one in " + h.in.String()
	}
	return "ask for that role: an Access document gives it"
}

// admitAllow narrows a rule to what c may write or take back. box is the sandbox
// that it is for, one that c sees, or nil.
func admitAllow(c *Caller, r *AllowRequest, box *Sandbox) error {
	if box == nil {
		if !c.Rights.mayIn(policy.RightAuthor, r.Scope) {
			return denied(fmt.Sprintf("policy for scope %q needs root, or the role policy-author there", r.Scope),
				"name one of your own sandboxes with --sandbox, or run the command as root")
		}
		return nil
	}
	switch {
	case c.Rights.mayIn(policy.RightAuthor, box.Scope):
		return nil
	case c.Rights.Owns(box.Owner, box.Scope):
		uid := c.UID
		r.OnlyOwner = &uid
		return nil
	}
	return denied(fmt.Sprintf("sandbox %s is not yours: a rule for it needs root, whoever launched it, or the role policy-author of its scope", box.ID),
		"run the command as root, or ask for the role: an Access document gives it")
}

// sees returns a predicate for records, by the sandbox's id and the scope that
// the keeper gave them: a caller sees those of its own sandboxes, and of scopes
// where it is a viewer. It remembers who owns what, for one stream; what the
// caller may it asks each time.
func (s *Server) sees(ctx context.Context, rights func() Rights) func(sandbox, in string) bool {
	type owned struct {
		uid       uint32
		principal string
		known     bool
	}
	seen := map[string]owned{}
	return func(id, in string) bool {
		r := rights()
		switch {
		case r.Node(policy.RightSee), in != "" && r.mayIn(policy.RightSee, in):
			return true
		case id == "":
			return false
		}
		o, ok := seen[id]
		if !ok {
			o.uid, o.principal, o.known = s.o.Backend.Owner(ctx, id)
			if len(seen) > 10000 {
				clear(seen)
			}
			seen[id] = o
		}
		return o.known && r.Sees(o.uid, o.principal)
	}
}
