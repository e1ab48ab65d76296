// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/ringfence/ringfence/pkg/scope"
)

// need is what a route requires of its caller, before anything is read from
// the body. The zero value admits nobody.
type need uint8

const (
	needRefused need = iota // no requirement was stated: nobody
	needRoot                // root
	needOwner               // root, or a member that owns the sandbox {id} in the default scope
	needMember              // root or a member; the handler narrows what a member sees or does
)

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
	{"GET", "/v1/sandboxes/{id}", needOwner, 0, (*Server).getSandbox, false},
	{"POST", "/v1/sandboxes/{id}/exec", needOwner, MaxLaunchBody, (*Server).exec, true},
	{"POST", "/v1/sandboxes/{id}/stop", needOwner, MaxBody, (*Server).stop, false},
	{"GET", "/v1/sandboxes/{id}/log", needOwner, 0, (*Server).log, true},

	{"POST", "/v1/adopt", needRoot, MaxLaunchBody, (*Server).adopt, true},
	{"POST", "/v1/sandboxes/{id}/release", needRoot, 0, (*Server).release, false},

	{"GET", "/v1/events", needMember, 0, (*Server).events, true},
	{"GET", "/v1/events/{event}/explain", needMember, 0, (*Server).explain, false},

	{"POST", "/v1/allow", needMember, MaxBody, (*Server).allow, false},
	{"DELETE", "/v1/allow", needMember, MaxBody, (*Server).takeBack, false},
	{"POST", "/v1/policy/check", needMember, MaxLaunchBody, (*Server).checkPolicy, false},
	{"GET", "/v1/policy", needMember, 0, (*Server).policy, false},
	{"PUT", "/v1/policy", needRoot, MaxLaunchBody, (*Server).applyPolicy, false},
	{"DELETE", "/v1/policy/{name}", needRoot, 0, (*Server).deletePolicy, false},
	{"GET", "/v1/policy/use", needRoot, 0, (*Server).policyUse, false},
	{"GET", "/v1/policy/enforced", needRoot, 0, (*Server).enforced, true},
	{"GET", "/v1/policy/documents", needRoot, 0, (*Server).policyDocuments, false},
	{"GET", "/v1/policy/history", needRoot, 0, (*Server).policyHistory, false},
	{"GET", "/v1/policy/diff", needRoot, 0, (*Server).policyDiff, false},
	{"POST", "/v1/policy/rollback", needRoot, MaxBody, (*Server).rollbackPolicy, false},

	{"GET", "/v1/approvals", needMember, 0, (*Server).listApprovals, false},
	{"GET", "/v1/approvals/watch", needMember, 0, (*Server).watchApprovals, true},
	{"GET", "/v1/approvals/{approval}", needMember, 0, (*Server).getApproval, false},
	{"POST", "/v1/approvals/{approval}/vote", needMember, MaxBody, (*Server).vote, false},

	{"GET", "/v1/providers", needRoot, 0, (*Server).listProviders, false},
	{"POST", "/v1/providers", needRoot, MaxBody, (*Server).addProvider, false},
	{"DELETE", "/v1/providers/{name}", needRoot, 0, (*Server).removeProvider, false},
	{"GET", "/v1/audit/verify", needRoot, 0, (*Server).verifyAudit, false},
}

// admit decides on caller and route alone; what concerns one sandbox or one
// body is decided where it is known, by the functions below.
func admit(c *Caller, n need) error {
	switch {
	case c == nil || c.Role == RoleNone:
		return strangerError(c)
	case n == needRoot && c.Role != RoleRoot:
		return denied("this needs root", "run the command as root")
	case n == needRoot, n == needOwner, n == needMember:
		return nil
	}
	return denied("this request has no stated requirement and is refused to everyone", "")
}

func strangerError(c *Caller) error {
	uid := "unknown"
	if c != nil {
		uid = fmt.Sprint(c.UID)
	}
	return denied("uid "+uid+" may not use Ringfence on this node",
		memberRemedy("", "USER"))
}

func denied(msg, remedy string) *Error {
	return &Error{Code: CodeDenied, Message: msg, Remedy: remedy}
}

// mayTouch says whether c may see and act on a sandbox of that owner and
// principal.
func mayTouch(c *Caller, owner uint32, principal string) bool {
	switch c.Role {
	case RoleRoot:
		return true
	case RoleMember:
		return owner == c.UID && inDefaultScope(principal)
	}
	return false
}

// inDefaultScope reports whether a principal or selector lies in the scope
// where members may work. What does not parse is not in it.
func inDefaultScope(text string) bool {
	within, err := scope.ParseSelector(DefaultScope)
	if err != nil {
		return false
	}
	sel, err := scope.ParseSelector(text)
	return err == nil && !sel.HasTarget() && within.Contains(sel)
}

// admitLaunch narrows a launch to what c may ask for and fixes the identity:
// a member runs as itself whatever the body says.
func admitLaunch(c *Caller, r *LaunchRequest) error {
	if c.Role == RoleRoot {
		return nil
	}
	if c.Role != RoleMember {
		return strangerError(c)
	}
	if r.Scope != "" && !inDefaultScope(r.Scope) {
		return denied(fmt.Sprintf("scope %q needs root: members of the operator group launch in %s only", r.Scope, DefaultScope),
			"leave --as out, or run the command as root")
	}
	own := Identity{UID: c.UID, GID: c.GID, Groups: c.Groups}
	if r.Identity != nil {
		if r.Identity.UID != c.UID {
			return denied(fmt.Sprintf("running as uid %d needs root: members of the operator group run sandboxes as themselves", r.Identity.UID),
				"leave --user out, or run the command as root")
		}
		own.Name, own.Home = r.Identity.Name, r.Identity.Home
	}
	r.Identity = &own
	return nil
}

// admitAllow narrows a rule to what c may write or take back. r.Sandbox was resolved to a
// sandbox that c may touch.
func admitAllow(c *Caller, r *AllowRequest) error {
	if c.Role == RoleRoot {
		return nil
	}
	if c.Role != RoleMember {
		return strangerError(c)
	}
	if r.Scope != "" && !inDefaultScope(r.Scope) {
		return denied(fmt.Sprintf("policy for scope %q needs root", r.Scope),
			"name one of your own sandboxes with --sandbox, or run the command as root")
	}
	uid := c.UID
	r.OnlyOwner = &uid
	return nil
}

// visible returns a predicate for event records: a member sees those of its
// own sandboxes. It remembers answers, for one stream.
func (s *Server) visible(ctx context.Context, c *Caller) func(sandbox string) bool {
	if c.Role == RoleRoot {
		return func(string) bool { return true }
	}
	known := map[string]bool{}
	return func(id string) bool {
		if id == "" {
			return false
		}
		ok, seen := known[id]
		if !seen {
			uid, principal, found := s.o.Backend.Owner(ctx, id)
			ok = found && mayTouch(c, uid, principal)
			if len(known) > 10000 {
				clear(known)
			}
			known[id] = ok
		}
		return ok
	}
}
