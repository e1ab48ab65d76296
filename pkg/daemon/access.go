// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// lookAgain is how long what the user database said of a name is believed.
const lookAgain = 30 * time.Second

// people knows which users and groups of the machine Access documents mean. A
// name that the user database does not have, or of which it does not answer,
// is nobody. Lookups take as long as the database does; they hold up callers who
// are not root and lists of mistakes, and nothing else.
type people struct {
	snapshot func() *policy.Snapshot
	lookup   func(kind, name string) (uint32, error) // kind is "uid" or "gid"
	nameOf   func(uid uint32) string                 // "" when it has none
	now      func() time.Time

	turning sync.Mutex // guards changed
	changed chan struct{}

	mu      sync.Mutex // guards what follows
	of      *policy.Snapshot
	looked  time.Time
	view    api.Access
	unknown []policy.Problem
	known   map[string]lookedUp // by kind and name: those of the present documents

	naming sync.Mutex // guards names
	names  map[uint32]userName
}

// lookedUp is what the user database said of a name.
type lookedUp struct {
	id  uint32
	err error
	at  time.Time
}

type userName struct {
	name string
	at   time.Time
}

func newPeople(snapshot func() *policy.Snapshot) *people {
	return &people{snapshot: snapshot, lookup: lookupID, nameOf: lookupName, now: time.Now, changed: make(chan struct{}), names: map[uint32]userName{}}
}

// turn says that another policy is in force. It never waits for a lookup.
func (p *people) turn() {
	p.turning.Lock()
	defer p.turning.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

// access is who may do what under the policy in force.
func (p *people) access() api.Access {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turning.Lock()
	changed := p.changed // before the snapshot is read: a later one closes it
	p.turning.Unlock()
	p.readLocked()
	v := p.view
	v.Changed = changed
	return v
}

// problems are the names that mean nobody.
func (p *people) problems() []policy.Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readLocked()
	return p.unknown
}

func (p *people) readLocked() {
	snap := p.snapshot()
	if snap == p.of && p.now().Sub(p.looked) < lookAgain {
		return
	}
	p.of, p.looked, p.view, p.unknown = snap, p.now(), api.Access{}, nil
	former := p.known
	p.known = map[string]lookedUp{}
	for _, a := range snap.Access() {
		p.view.Scopes = append(p.view.Scopes, a.Scope)
		for _, b := range a.Bindings {
			p.view.Bindings = append(p.view.Bindings, api.RoleBinding{Scope: a.Scope, Role: b.Role,
				UIDs: p.idsLocked(&a, b.Users, "uid", former), GIDs: p.idsLocked(&a, b.Groups, "gid", former)})
		}
	}
}

func (p *people) idsLocked(a *policy.Access, list []policy.Subject, kind string, former map[string]lookedUp) (out []uint32) {
	for _, s := range list {
		if s.Number {
			out = append(out, s.ID)
			continue
		}
		found := p.lookLocked(kind, s.Name, former)
		if err := found.err; err != nil {
			what := map[string]string{"uid": "user", "gid": "group"}[kind]
			p.unknown = append(p.unknown, policy.Problem{File: a.File, Line: s.Line, Col: s.Col, Msg: fmt.Sprintf("the %s %q matches nobody: %v", what, s.Name, err),
				Hint: "correct the name, or make the " + what + ": it is looked for again after " + lookAgain.String()})
			continue
		}
		out = append(out, found.id)
	}
	return out
}

// lookLocked asks the user database for each name once, and not again while what
// it said is believed: who changes documents often costs no more.
func (p *people) lookLocked(kind, name string, former map[string]lookedUp) lookedUp {
	key := kind + ":" + name
	found, ok := p.known[key]
	if !ok {
		if found, ok = former[key]; !ok || p.now().Sub(found.at) >= lookAgain {
			found = lookedUp{at: p.now()}
			found.id, found.err = p.lookup(kind, name)
		}
		p.known[key] = found
	}
	return found
}

// spell names a user for the record; see scope.Operator.
func (p *people) spell(uid uint32) string { return scope.Operator(uid, p.name(uid)) }

// name is what the user database calls a uid, "" when it has no name for it.
func (p *people) name(uid uint32) string {
	p.naming.Lock()
	n, ok := p.names[uid]
	p.naming.Unlock()
	if !ok || p.now().Sub(n.at) >= lookAgain {
		n = userName{p.nameOf(uid), p.now()} // nobody waits for it but who asks
		p.naming.Lock()
		if len(p.names) > 1000 {
			clear(p.names)
		}
		p.names[uid] = n
		p.naming.Unlock()
	}
	return n.name
}

func lookupID(kind, name string) (uint32, error) {
	var text string
	if kind == "gid" {
		g, err := user.LookupGroup(name)
		if err != nil {
			return 0, lookupError(err)
		}
		text = g.Gid
	} else {
		u, err := user.Lookup(name)
		if err != nil {
			return 0, lookupError(err)
		}
		text = u.Uid
	}
	id, err := strconv.ParseUint(text, 10, 32)
	if err == nil && id == 1<<32-1 {
		err = errors.New("its number is the one that stands for nobody")
	}
	return uint32(id), err
}

func lookupError(err error) error {
	var noUser user.UnknownUserError
	var noGroup user.UnknownGroupError
	if errors.As(err, &noUser) || errors.As(err, &noGroup) {
		return errors.New("this machine does not know it")
	}
	return fmt.Errorf("the user database does not answer: %w", err)
}

func lookupName(uid uint32) string {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return ""
	}
	return u.Username
}

// unknownPeople are the names in Access documents that mean nobody.
func (d *Daemon) unknownPeople() (out []api.Problem) {
	for _, p := range d.people.problems() {
		out = append(out, api.Problem{File: p.File, Line: p.Line, Col: p.Col, Msg: p.Msg, Hint: p.Hint, Stays: "the rest of the document is in force"})
	}
	return out
}

// Access is who may do what now.
func (b *backend) Access() api.Access { return b.d.people.access() }

// rightsNow are the rights of a caller under the policy in force: a role that it
// lost while it waited for others' changes does not count. Whoever holds
// d.applying asks for them again.
func (b *backend) rightsNow(c *api.Caller) api.Rights {
	if c.Rights.Root() {
		return c.Rights
	}
	return api.RightsOf(c, b.Access())
}

func lostRole() error {
	return &api.Error{Code: api.CodeDenied, Message: "the role that this needs was taken from you meanwhile; nothing was changed", Remedy: "run the command as root, or ask for the role"}
}
