// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// Approval is how people decide what a rule sends to them.
type Approval struct {
	Approvers    []string // "user:NAME", "uid:N", "group:NAME", "gid:N"; none: whoever may approve in the scope
	Quorum       int      // how many different people must approve, at least 1
	Separate     bool     // who launched the sandbox does not count
	ExpiresAfter time.Duration
	ValidFor     time.Duration // bounds whatever is approved; 0: the rule does not
}

// MaxApprovers is how many entries a rule names at most.
const MaxApprovers = 64

// DefaultExpiresAfter is how long a request waits where the rule says nothing.
const DefaultExpiresAfter = 15 * time.Minute

// Rate limits how often. Amounts are for Window; 0 is no limit.
type Rate struct {
	Requests, Tokens             uint64
	RequestsWindow, TokensWindow time.Duration
	Concurrency                  uint64        // calls that run at a time; 0: no limit
	Per                          []string      // what is counted apart: org, team, agent, sandbox, server, tool, model, provider
	Queue                        time.Duration // how long a call waits for room; 0: it is rejected
}

// PII says what happens to personal data in arguments and results: one of the
// words of piiActions, "" for nothing said.
type PII struct {
	In, Out  string
	Entities []string // none: all that the scanner knows
}

// Redact takes entities out of results.
type Redact struct {
	Entities []string // none: all that the scanner knows
}

// AuditLevel is how much of a call is recorded.
type AuditLevel uint8

// Audit levels. The zero value is "not said".
const (
	AuditUnsaid AuditLevel = iota
	AuditMetadata
	AuditFull
)

// Kinds is a set of kinds of obligations.
type Kinds uint8

// Kinds of obligations.
const (
	KindRate Kinds = 1 << iota
	KindPII
	KindRedact
	KindAudit
)

var kindNames = []string{"rate", "pii", "redact", "audit"}

// String is the kind as documents write it; of a set, the first.
func (k Kinds) String() string {
	for i, n := range kindNames {
		if k&(1<<i) != 0 {
			return n
		}
	}
	return "none"
}

// duties is what a rule obliges to.
type duties struct {
	Rate   *Rate
	PII    *PII
	Redact *Redact
	Audit  AuditLevel
}

func (o *duties) kinds() (k Kinds) {
	if o.Rate != nil {
		k |= KindRate
	}
	if o.PII != nil {
		k |= KindPII
	}
	if o.Redact != nil {
		k |= KindRedact
	}
	if o.Audit != AuditUnsaid {
		k |= KindAudit
	}
	return k
}

// Obligation is one thing that must be done with what a decision lets pass.
// Of the four, the one that Kind names is set.
type Obligation struct {
	Kind   Kinds
	Rule   RuleRef
	Rate   *Rate
	PII    *PII
	Redact *Redact
	Audit  AuditLevel
}

// Demand is one rule that asks for an approval.
type Demand struct {
	Rule     RuleRef
	Reason   string // what the rule says to people, "" for nothing
	Approval Approval
}

// Terms is what comes with a decision. It is shared and never changes.
type Terms struct {
	// Demands are the rules that ask for an approval and were not displaced, of
	// a decision that is RequireApproval: all of them must be met, or a lower
	// layer could write a rule of its own with friendlier approvers.
	Demands []Demand
	// Obligations are those of all matching rules, also of rules whose effect
	// lost, without what was waived. They never grant.
	Obligations []Obligation
	// Shadow is what the decision would be if the rules in shadow mode counted;
	// nil when none matched. It is to be recorded, never enforced.
	Shadow *Decision
	// Fingerprint stands for the text of the rules that demand and oblige. It
	// stays when other rules change.
	Fingerprint [sha256.Size]byte
}

// Demands are those of its terms.
func (d Decision) Demands() []Demand {
	if d.Terms == nil {
		return nil
	}
	return d.Terms.Demands
}

// Obligations are those of its terms.
func (d Decision) Obligations() []Obligation {
	if d.Terms == nil {
		return nil
	}
	return d.Terms.Obligations
}

// Shadow is the second decision, see Terms.
func (d Decision) Shadow() *Decision {
	if d.Terms == nil {
		return nil
	}
	return d.Terms.Shadow
}

// WouldBe is what the rules in shadow mode would make of the decision, for
// records: "EFFECT by RULE", or "" when its effect would be the same.
func (d Decision) WouldBe() string {
	s := d.Shadow()
	if s == nil || s.Effect == d.Effect {
		return ""
	}
	if s.Rule.String() == "" {
		return s.Effect.String() + " by no rule"
	}
	return s.Effect.String() + " by " + s.Rule.String()
}

// maxTerms bounds the terms that one view keeps. A principal that asks for more
// different ones makes its own decisions slower and nobody else's.
const maxTerms = 1024

// termsCache keeps terms by their claims, so that a decision allocates nothing.
type termsCache struct {
	known atomic.Pointer[map[string]*Terms]
	mu    sync.Mutex // held to add
}

func (c *termsCache) get(key []byte) *Terms {
	if m := c.known.Load(); m != nil {
		return (*m)[string(key)]
	}
	return nil
}

func (c *termsCache) add(key []byte, t *Terms) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := map[string]*Terms{string(key): t}
	if m := c.known.Load(); m != nil {
		if len(*m) >= maxTerms {
			return
		}
		for k, v := range *m {
			next[k] = v
		}
	}
	c.known.Store(&next)
}

// A claim is five bytes: the rule's number and what it claims. The claims of a
// decision, in order, are the key of its terms.
const (
	claimSize   = 5
	claimDemand = 1 << 7
	claimShadow = 1<<7 | 1 // with shadowMark: winner and effect of the shadow decision follow
	shadowMark  = 1<<32 - 1
)

func appendClaim(key []byte, rule uint32, what uint8) []byte {
	return append(binary.BigEndian.AppendUint32(key, rule), what)
}

// claims appends what the matching rules demand and oblige to.
func (s *Snapshot) claims(key []byte, m []hit, o outcome) []byte {
	for _, h := range m {
		r := s.rule(h)
		var what uint8
		if o.effect == RequireApproval && s.demands(m, h, o) {
			what = claimDemand
		}
		for k := KindRate; k <= KindAudit && r.oblige != 0; k <<= 1 {
			if r.oblige&k != 0 && !s.waived(m, h, k) {
				what |= uint8(k)
			}
		}
		if what != 0 {
			key = appendClaim(key, uint32(h.index()), what)
		}
	}
	return key
}

// demands says whether a matching rule's approval is needed: it is mandatory, or
// shares in a word that stands.
func (s *Snapshot) demands(m []hit, h hit, o outcome) bool {
	r := s.rule(h)
	if r.effect != RequireApproval || r.silent {
		return false
	}
	return r.mandatory || o.asking&(1<<r.level) != 0 && s.givesWay(m, r) < 0
}

// waived says whether a narrower matching rule lifts one kind of obligation.
func (s *Snapshot) waived(m []hit, h hit, k Kinds) bool {
	o := s.rule(h)
	if o.mandatory {
		return false
	}
	for _, g := range m {
		w := s.rule(g)
		if w.waive&k != 0 && g&hitUnsure == 0 && w.spec > o.spec &&
			(w.level == o.level || w.level > o.level && o.delegable && h&hitUnsure == 0) && s.contains(o, w) {
			return true
		}
	}
	return false
}

// settle finds the terms of a decision: nil when nothing is demanded, obliged or
// in shadow. The live rules stand first in m.
func (v *View) settle(m []hit, live int, o outcome, silent int32) *Terms {
	var buf [32 * claimSize]byte
	sortHits(m[:live])
	key := v.s.claims(buf[:0], m[:live], o)
	var so outcome
	if live < len(m) {
		sortHits(m)
		so = v.s.decide(m, silent)
		key = appendClaim(appendClaim(key, shadowMark, claimShadow), uint32(so.winner), uint8(so.effect))
		key = v.s.claims(key, m, so)
	}
	if len(key) == 0 {
		return nil
	}
	if t := v.known.get(key); t != nil {
		return t
	}
	t := v.s.terms(key)
	v.known.add(key, t)
	return t
}

// terms makes the terms of claims.
func (s *Snapshot) terms(key []byte) *Terms {
	t := &Terms{}
	h := sha256.New()
	for len(key) > 0 {
		rule, what := binary.BigEndian.Uint32(key), key[claimSize-1]
		key = key[claimSize:]
		if rule == shadowMark {
			d := s.decision(outcome{effect: Effect(key[claimSize-1]), winner: int32(binary.BigEndian.Uint32(key))})
			if rest := key[claimSize:]; len(rest) > 0 {
				d.Terms = s.terms(rest)
			}
			t.Shadow = &d
			break
		}
		r := &s.rules[rule]
		h.Write([]byte{what})
		h.Write(r.digest[:])
		if what&claimDemand != 0 {
			t.Demands = append(t.Demands, Demand{Rule: r.ref, Reason: r.reason, Approval: *r.approval})
		}
		for k := KindRate; k <= KindAudit; k <<= 1 {
			if what&uint8(k) != 0 {
				t.Obligations = append(t.Obligations, r.obligation(k))
			}
		}
	}
	h.Sum(t.Fingerprint[:0])
	return t
}

func (r *crule) obligation(k Kinds) Obligation {
	o := Obligation{Kind: k, Rule: r.ref}
	switch k {
	case KindRate:
		o.Rate = r.duties.Rate
	case KindPII:
		o.PII = r.duties.PII
	case KindRedact:
		o.Redact = r.duties.Redact
	case KindAudit:
		o.Audit = r.duties.Audit
	}
	return o
}
