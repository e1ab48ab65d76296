// SPDX-License-Identifier: Apache-2.0

package api

import (
	"slices"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// Access is who may do what on the node, as of one policy revision: what the
// Access documents in force say, with names resolved.
type Access struct {
	// Scopes are those of all documents, also of those that bind nobody.
	Scopes   []scope.Selector
	Bindings []RoleBinding
	// Changed is closed when another may be in force; nil: it stays.
	Changed <-chan struct{}
}

// RoleBinding is one binding of one document. A name that nobody has is left
// out.
type RoleBinding struct {
	Scope scope.Selector
	Role  policy.Role
	UIDs  []uint32
	GIDs  []uint32
}

func (b *RoleBinding) names(c *Caller) bool {
	return slices.Contains(b.UIDs, c.UID) || slices.ContainsFunc(b.GIDs, c.inGroup)
}

// Rights are what one caller may do, as of one request. The zero value may do
// nothing. What a role lets do is in pkg/policy; here is where it is asked.
type Rights struct {
	root  bool
	uid   uint32
	held  []holding
	plain bool // the node has no Access document: it is one team's
}

// holding is a role that the caller has in a scope.
type holding struct {
	in   scope.Selector
	role policy.Role
}

// RightsOf is what c may do under a. uid 0 may do everything. Members of the
// operator group are launchers in the default scope, as if a document said so,
// for as long as no document speaks for the whole of that scope.
func RightsOf(c *Caller, a Access) Rights {
	r := Rights{root: c.Role == RoleRoot, uid: c.UID, plain: len(a.Scopes) == 0}
	if r.root {
		return r
	}
	for i := range a.Bindings {
		if b := &a.Bindings[i]; b.names(c) {
			r.held = append(r.held, holding{b.Scope, b.Role})
		}
	}
	def := defaultScope()
	spoken := slices.ContainsFunc(a.Scopes, func(s scope.Selector) bool { return s.Contains(def) })
	if c.Role == RoleMember && !spoken {
		r.held = append(r.held, holding{def, policy.RoleLauncher})
	}
	return r
}

func defaultScope() scope.Selector {
	s := scope.All()
	s.Org, s.Team = scope.Exact("local"), scope.Exact("default")
	return s
}

// Root says whether the caller is root of the machine.
func (r Rights) Root() bool { return r.root }

// none says whether the caller has no role anywhere.
func (r Rights) none() bool { return !r.root && len(r.held) == 0 }

// May says whether the caller has a right in the whole of a scope. One role has
// to cover it: several that do so together do not.
func (r Rights) May(right policy.Right, in scope.Selector) bool {
	return r.root || slices.ContainsFunc(r.held, func(h holding) bool { return h.role.Has(right) && h.in.Contains(in) })
}

// mayIn is May for a scope as text. What does not parse, or names a target, is
// root's alone.
func (r Rights) mayIn(right policy.Right, text string) bool {
	sel, err := scope.ParseSelector(text)
	return r.root || err == nil && !sel.HasTarget() && r.May(right, sel)
}

// anywhere says whether the caller has a right in some scope.
func (r Rights) anywhere(right policy.Right) bool {
	return r.root || slices.ContainsFunc(r.held, func(h holding) bool { return h.role.Has(right) })
}

// Node says whether the caller has a right on the whole node.
func (r Rights) Node(right policy.Right) bool { return r.May(right, scope.All()) }

// Sees says whether the caller may know of a sandbox of that owner and
// principal.
func (r Rights) Sees(owner uint32, principal string) bool {
	return r.mayIn(policy.RightSee, principal) || r.Owns(owner, principal)
}

// Owns says whether the sandbox is the caller's own, or the caller is root:
// only they may run programs in it.
func (r Rights) Owns(owner uint32, principal string) bool {
	return r.root || owner == r.uid && r.mayIn(policy.RightLaunch, principal)
}

// Stops says whether the caller may end a sandbox.
func (r Rights) Stops(owner uint32, principal string) bool {
	return r.Owns(owner, principal) || r.mayIn(policy.RightAdmin, principal)
}

// Approves says whether the caller is an approver of what a sandbox of that
// principal asks for.
func (r Rights) Approves(principal string) bool { return r.mayIn(policy.RightApprove, principal) }

// Writes says whether the caller may apply and delete documents of a kind and
// scope. Profiles, providers and tool servers are the whole node's, whatever
// their scope says: names, keys and hosts of theirs are shared.
func (r Rights) Writes(kind string, in scope.Selector) bool {
	switch kind {
	case policy.KindPolicy:
		return r.May(policy.RightAuthor, in)
	case policy.KindAccess: // an admin has every right of the scope, so gives nothing that it lacks
		return r.May(policy.RightAdmin, in)
	}
	return r.Node(policy.RightAdmin)
}

// Authors are the scopes that the caller was given to write policy in, none for
// root. An admin is given that too.
func (r Rights) Authors() (out []scope.Selector) {
	for _, h := range r.held {
		if h.role.Has(policy.RightAuthor) {
			out = append(out, h.in)
		}
	}
	return out
}

// Reads says whether the caller may see a document of a kind and scope: one
// that applies to some principal that the caller may see. Who operates a scope
// is told to who administers it.
func (r Rights) Reads(kind string, in scope.Selector) bool {
	if r.root {
		return true
	}
	if kind == policy.KindAccess {
		return r.May(policy.RightAdmin, in)
	}
	return slices.ContainsFunc(r.held, func(h holding) bool {
		_, common := h.in.Intersect(in)
		return common && h.role.Has(policy.RightSee)
	})
}

// SeesNode says whether the caller may know how the node itself is: its files
// of policy, its secrets' names, how much it does for everybody. Where nobody
// has been given a scope of their own, whoever may use the node may.
func (r Rights) SeesNode() bool {
	return r.Node(policy.RightSee) || r.plain && !r.none()
}
