// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Person is who votes, as the kernel and the user database know them. The zero
// value is nobody, and may nothing.
type Person struct {
	Known  bool // the kernel has said who it is: UID 0 is root
	UID    uint32
	Name   string   // "" when the uid has none
	Groups []string // names, those that have one
	// Role says that the person has the role of approver in the request's scope.
	Role bool
}

// Approver is one entry of a demand's list.
type Approver struct {
	user, group string
	uid         uint32
	byUID       bool
}

// ParseApprover reads user:NAME, uid:N or group:NAME.
func ParseApprover(s string) (Approver, error) {
	bad := func() (Approver, error) {
		return Approver{}, fmt.Errorf("the approver %q is not user:NAME, uid:N or group:NAME", s)
	}
	what, name, ok := strings.Cut(s, ":")
	if !ok || name == "" || len(name) > 256 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == ':' || r == 0x7f }) {
		return bad()
	}
	switch what {
	case "user":
		return Approver{user: name}, nil
	case "group":
		return Approver{group: name}, nil
	case "uid":
		n, err := strconv.ParseUint(name, 10, 32)
		if err != nil || strconv.FormatUint(n, 10) != name || n == 1<<32-1 { // -1 is nobody
			return bad()
		}
		return Approver{uid: uint32(n), byUID: true}, nil
	}
	return bad()
}

// is says whether the entry means this person. The zero Approver means nobody.
func (a Approver) is(p *Person) bool {
	switch {
	case a.byUID:
		return a.uid == p.UID
	case a.user != "":
		return a.user == p.Name
	case a.group != "":
		return slices.Contains(p.Groups, a.group)
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
	for _, text := range d.Approvers {
		if a, err := ParseApprover(text); err == nil && a.is(p) {
			return true
		}
	}
	return false
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
	if !p.Known {
		return false
	}
	for i := range r.Demands {
		for _, text := range r.Demands[i].Approvers {
			if a, err := ParseApprover(text); err == nil && a.is(p) {
				return true
			}
		}
	}
	return false
}

// Groups lists the groups that the request's rules name.
func (r *Request) Groups() (out []string) {
	for i := range r.Demands {
		for _, text := range r.Demands[i].Approvers {
			if a, err := ParseApprover(text); err == nil && a.group != "" && !slices.Contains(out, a.group) {
				out = append(out, a.group)
			}
		}
	}
	return out
}

// HasApproved says whether that uid has.
func (r *Request) HasApproved(uid uint32) bool {
	return slices.ContainsFunc(r.Votes, func(v Vote) bool { return v.Approve && v.UID == uid })
}
