// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"fmt"
	"strings"
	"time"
)

// Covers is what else than the call itself a grant is for. The zero value is
// nothing else. A grant is always for one sandbox.
type Covers uint8

// What a grant covers, narrowest first.
const (
	CoversCall      Covers = iota // the same call: target, definition and arguments
	CoversArguments               // the same target, definition and list of arguments, but for what Terms.Args frees
	CoversTarget                  // the same target and definition, whatever the arguments
)

var coversNames = [...]string{"call", "arguments", "target"}

// Lasts is how long a grant lasts. The zero value is one use.
type Lasts uint8

// How long a grant lasts, shortest first.
const (
	LastsOnce    Lasts = iota
	LastsFor           // for a time
	LastsSandbox       // as long as the sandbox lives
)

var lastsNames = [...]string{"once", "for", "sandbox"}

func nameOf[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return names[0]
}

func parseName[T ~uint8](names []string, text []byte, into *T) error {
	for i, n := range names {
		if n == string(text) {
			*into = T(i)
			return nil
		}
	}
	return fmt.Errorf("approval: %q is none of %q", text, names)
}

// String is the stable name; an unknown value reads as the narrowest.
func (c Covers) String() string { return nameOf(coversNames[:], c) }

// String is the stable name; an unknown value reads as the shortest.
func (l Lasts) String() string { return nameOf(lastsNames[:], l) }

// MarshalText writes the name.
func (c Covers) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalText writes the name.
func (l Lasts) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads a name; another word is an error.
func (c *Covers) UnmarshalText(b []byte) error { return parseName(coversNames[:], b, c) }

// UnmarshalText reads a name; another word is an error.
func (l *Lasts) UnmarshalText(b []byte) error { return parseName(lastsNames[:], b, l) }

// Terms are what an approver gives. The zero value is the narrowest: this call,
// once.
type Terms struct {
	Covers Covers        `json:"covers"`
	Lasts  Lasts         `json:"lasts"`
	For    time.Duration `json:"for,omitempty"`  // with LastsFor
	Args   []Pattern     `json:"args,omitempty"` // with CoversArguments; all of a path have to match
}

// Grant is what an approved request has.
type Grant struct {
	Terms
	Given time.Time `json:"given"`
	Until time.Time `json:"until,omitzero"` // not with LastsSandbox
}

// alive says whether the grant's time is not over.
func (g *Grant) alive(now time.Time) bool { return g.Lasts == LastsSandbox || now.Before(g.Until) }

// validTerms says why these terms cannot be given on this request.
func (r *Request) validTerms(t *Terms) error {
	limit, rule := r.validity()
	switch {
	case int(t.Covers) >= len(coversNames) || int(t.Lasts) >= len(lastsNames):
		return fmt.Errorf("%w: unknown terms", ErrTerms)
	case t.Lasts == LastsOnce && t.Covers != CoversCall:
		return fmt.Errorf("%w: once is for the call that was asked for, not for others", ErrTerms)
	case (t.Lasts == LastsFor) != (t.For > 0) || t.For < 0:
		return fmt.Errorf("%w: a grant for a time has a time above zero, and no other has one", ErrTerms)
	case rule != "" && t.Lasts == LastsFor && t.For > limit:
		return fmt.Errorf("%w: the rule %s lets an approval hold for %s at most", ErrTerms, rule, limit)
	case rule != "" && t.Lasts == LastsSandbox:
		return fmt.Errorf("%w: the rule %s lets an approval hold for %s at most, not for the life of the sandbox", ErrTerms, rule, limit)
	case t.For > MaxFor && rule == "":
		return fmt.Errorf("%w: an approval holds for %s at most", ErrTerms, MaxFor)
	}
	return r.validPatterns(t)
}

// validity is the shortest time that a demand bounds a grant to, and its rule;
// "" when none does.
func (r *Request) validity() (limit time.Duration, rule string) {
	for i := range r.Demands {
		if d := &r.Demands[i]; d.ValidFor > 0 && (rule == "" || d.ValidFor < limit) {
			limit, rule = d.ValidFor, d.Rule
		}
	}
	return limit, rule
}

// narrower is what two approvers agree on: of each the less.
func narrower(a, b Terms) Terms {
	out := Terms{Covers: min(a.Covers, b.Covers), Lasts: min(a.Lasts, b.Lasts)}
	switch {
	case out.Covers != CoversArguments:
	case a.Covers != CoversArguments:
		out.Args = b.Args
	case b.Covers != CoversArguments:
		out.Args = a.Args
	default:
		out.Args = both(a.Args, b.Args)
	}
	if out.Lasts == LastsFor { // once is for the call itself only, so it makes both so
		switch {
		case a.Lasts != LastsFor:
			out.For = b.For
		case b.Lasts != LastsFor:
			out.For = a.For
		default:
			out.For = min(a.For, b.For)
		}
	}
	return out
}

// give makes the grant of terms that enough people agreed on.
func (r *Request) give(t Terms, now time.Time) *Grant {
	g := &Grant{Terms: t, Given: now}
	switch t.Lasts {
	case LastsSandbox:
	case LastsFor:
		g.Until = now.Add(t.For)
	default:
		limit, rule := r.validity()
		if rule == "" {
			limit = DefaultValidity
		}
		g.Until = now.Add(limit)
	}
	return g
}

// covers says whether the request's grant is for a call. It does not look at
// rules and time.
func (r *Request) covers(c *Call) bool {
	g := r.Grant
	switch {
	case g == nil || r.Sandbox != c.Sandbox || r.Scope != c.Scope || r.Kind != c.Kind || r.Target != c.Target || r.Definition != c.Definition:
		return false
	}
	switch g.Covers {
	case CoversTarget:
		return true
	case CoversArguments:
		return r.Listed && c.Listed && alike(r.Args, c.Args, g.Args)
	}
	return r.Binding == c.Binding()
}

// maxSays bounds the patterns in what Says says.
const maxSays = 400

// Says is how long the terms hold, and for what, in words: the one wording of
// records, answers and lists.
func (t *Terms) Says() string {
	what := map[Covers]string{CoversCall: "this call", CoversArguments: "this target with the same arguments", CoversTarget: "this target"}[t.Covers]
	if len(t.Args) > 0 {
		var free []string
		for _, p := range t.Args {
			free = append(free, p.String())
		}
		what = "this target with " + clip(strings.Join(free, " and "), maxSays) + ", all other arguments the same"
	}
	switch t.Lasts {
	case LastsFor:
		return "for " + t.For.String() + ": " + what
	case LastsSandbox:
		return "until the sandbox ends: " + what
	}
	return "once: " + what
}
