// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Person is who votes, as the kernel and the user database know them. The zero
// value is nobody, and may nothing.
type Person struct {
	Known  bool // the kernel has said who it is: UID 0 is root
	UID    uint32
	Name   string   // "" when the uid has none
	Groups []string // names, those that have one
	GIDs   []uint32 // numbers of all of them
	// Role says that the person has the role of approver in the request's scope.
	Role bool
}

// named says whether entries of a demand's list mean this person.
func named(approvers []string, p *Person) bool {
	for _, text := range approvers {
		a, err := scope.ParsePerson(text)
		switch {
		case err != nil: // Valid refuses it
		case a.Group && a.Number && slices.Contains(p.GIDs, a.ID), a.Group && !a.Number && slices.Contains(p.Groups, a.Name), !a.Group && a.Is(p.UID, p.Name):
			return true
		}
	}
	return false
}

// lets says whether the person's vote counts for the demand, on a request of a
// sandbox with that launcher. Root is one person who may vote on everything but
// what it launched itself where the rule wants somebody else.
func (d *Demand) lets(p *Person, launcher uint32) bool {
	if !p.Known || d.Separate && p.UID == launcher {
		return false
	}
	if p.UID == 0 {
		return true
	}
	if len(d.Approvers) == 0 {
		return p.Role || p.UID == launcher
	}
	return named(d.Approvers, p)
}

// Who says whose approvals count for the demand.
func (d *Demand) Who() string {
	switch {
	case len(d.Approvers) == 0 && d.Separate:
		return "root or an approver, not who launched it"
	case len(d.Approvers) == 0:
		return "root, an approver or who launched it"
	case d.Separate:
		return strings.Join(d.Approvers, " or ") + ", not who launched it"
	}
	return strings.Join(d.Approvers, " or ")
}

// Needs says who has to agree still, "" when nobody has.
func (r *Request) Needs() string {
	var out []string
	for _, l := range r.Lacks() {
		who := l.Demand.Who()
		if l.People > 1 {
			who = fmt.Sprintf("%d of %s", l.People, who)
		}
		out = append(out, who+" (rule "+l.Demand.Rule+")")
	}
	return strings.Join(out, ", and ")
}

// May says whether the person has a vote on the request: that is, for at least
// one of its demands.
func (r *Request) May(p *Person) bool { return len(r.votesFor(p)) > 0 }

// votesFor lists the demands that the person's vote counts for.
func (r *Request) votesFor(p *Person) (out []int) {
	for i := range r.Demands {
		if r.Demands[i].lets(p, r.Launcher) {
			out = append(out, i)
		}
	}
	return out
}

// Names says whether a rule names the person as an approver: by user, uid or
// group, not as root and not as the launcher.
func (r *Request) Names(p *Person) bool {
	return p.Known && slices.ContainsFunc(r.Demands, func(d Demand) bool { return named(d.Approvers, p) })
}

// Groups lists the groups that the request's rules name by name.
func (r *Request) Groups() (out []string) {
	for i := range r.Demands {
		for _, text := range r.Demands[i].Approvers {
			if a, err := scope.ParsePerson(text); err == nil && a.Group && !a.Number && !slices.Contains(out, a.Name) {
				out = append(out, a.Name)
			}
		}
	}
	return out
}

// HasApproved says whether that uid has.
func (r *Request) HasApproved(uid uint32) bool {
	return slices.ContainsFunc(r.Votes, func(v Vote) bool { return v.Approve && v.UID == uid })
}
