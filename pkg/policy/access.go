// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Access is one document that says who may do what in a scope. It names people
// and groups; who that is on this machine is not known here.
type Access struct {
	Name     string
	Scope    scope.Selector
	Bindings []Binding // none: the document gives nobody anything

	File string
	Line int
}

// Binding gives a role to users and to members of groups.
type Binding struct {
	Role   Role
	Users  []Subject
	Groups []Subject

	Line, Col int // where it begins in the document's file
}

// Subject is a user or a group, and where it stands. The zero value is nobody.
type Subject struct {
	scope.Subject
	Line, Col int
}

// Role is a set of rights under a name. The zero value has none.
type Role uint8

// Roles, in the order of the reference.
const (
	RoleNone Role = iota
	RoleViewer
	RoleLauncher
	RoleApprover
	RolePolicyAuthor
	RoleAdmin
)

// Right is one thing that a role lets do within its scope. The zero value is
// no right, and nobody has it.
type Right uint8

// Rights.
const (
	// RightSee: see every sandbox of the scope, its events and its output, and
	// the documents that apply there.
	RightSee Right = 1 << iota
	// RightLaunch: launch sandboxes as oneself; see, enter and stop those that
	// one has launched, and give them rules of their own.
	RightLaunch
	// RightApprove: decide requests for approval.
	RightApprove
	// RightAuthor: apply and delete Policy documents, and give rules to every
	// sandbox of the scope.
	RightAuthor
	// RightAdmin: stop every sandbox of the scope, and apply and delete Access
	// documents for it.
	RightAdmin
)

// roleSpec is one row of the table of roles.
type roleSpec struct {
	role   Role
	name   string
	rights Right // several together
	doc    string
}

// roles is the whole of what a role means; the reference is made of it.
var roles = []roleSpec{
	{RoleViewer, "viewer", RightSee,
		"Sees every sandbox of the scope, its events, explanations and output, and the documents that apply there. Changes nothing."},
	{RoleLauncher, "launcher", RightLaunch,
		"Launches sandboxes in the scope, as itself. Sees, enters and stops those it has launched and gives them rules (`allow --sandbox`). Does not see those of others: for that, bind `viewer` too."},
	{RoleApprover, "approver", RightSee | RightApprove,
		"What a viewer does; decides the requests for approval of the scope's sandboxes, where the rule that asks names nobody, or names it."},
	{RolePolicyAuthor, "policy-author", RightSee | RightAuthor,
		"What a viewer does; applies and deletes Policy documents whose scope lies within the document's, and gives and takes back rules there (`allow --scope`, `allow --sandbox`)."},
	{RoleAdmin, "admin", RightSee | RightLaunch | RightApprove | RightAuthor | RightAdmin,
		"What all others do; stops every sandbox of the scope (entering one stays with whoever launched it), and applies and deletes Access documents whose scope lies within the document's."},
}

func (r Role) spec() *roleSpec {
	for i := range roles {
		if roles[i].role == r {
			return &roles[i]
		}
	}
	return nil
}

// String is the role as documents have it.
func (r Role) String() string {
	if s := r.spec(); s != nil {
		return s.name
	}
	return "none"
}

// Has says whether the role includes a right.
func (r Role) Has(right Right) bool {
	s := r.spec()
	return s != nil && right != 0 && s.rights&right == right
}

func roleNames() []string {
	var out []string
	for _, s := range roles {
		out = append(out, s.name)
	}
	return out
}

// Access lists the Access documents, by name. They are not part of
// what is encoded: who operates the node is nothing that the gateway decides.
func (s *Snapshot) Access() []Access { return slices.Clone(s.access) }
