// SPDX-License-Identifier: Apache-2.0

// Package replay reads decisions out of the event log and asks documents the
// same questions again: what would change, and what would have to be allowed.
// A record that does not hold what was asked is counted, and nothing is guessed.
package replay

import (
	"net/netip"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// Past is a decision of the log as a question.
type Past struct {
	ID       string
	As       scope.Principal
	At       time.Time
	Count    uint64 // how often, at least 1
	Question policy.Question
	Name     bool       // asks whether the host's name is answered, at whatever port
	Peer     netip.Addr // the address that was dialled for a name
	Denied   bool
	Code     string
	Rule     string
}

// kinds are the records that tell of decisions.
var kinds = map[event.Kind]bool{event.KindNetwork: true, event.KindDNS: true, event.KindHTTP: true, event.KindInference: true}

// byPolicy are the codes of decisions of policy; any other denial is none.
var byPolicy = map[string]bool{
	policy.CodeRule: true, policy.CodeMandatory: true, policy.CodeBuiltin: true, policy.CodeApproval: true, policy.CodeNoRule: true, policy.CodeLearned: true, policy.CodeBadName: true,
	policy.CodeProviderHost: true, policy.CodeProviderUnsupported: true, policy.CodeVirtualRange: true, policy.CodeDialect: true,
}

// cutRecord is why nothing is known of the last record of a log that was copied
// while it was written.
const cutRecord = "the log ends within the record"

// Decides says whether a record tells of a decision at all.
func Decides(ev *event.Event) bool { return kinds[ev.Kind] && ev.Verdict != event.Observed }

// Read takes the question out of a record that decides. why says what it lacks,
// "" when it lacks nothing.
func Read(ev *event.Event) (p Past, why string) {
	p = Past{ID: ev.ID, At: ev.Time, Count: max(ev.Count, 1), Denied: ev.Verdict == event.Denied, Code: ev.ReasonCode, Rule: ev.Rule}
	who, err := scope.ParsePrincipal(ev.Scope)
	p.As = who
	switch {
	case err != nil:
		return p, "the record names no principal"
	case p.Denied && !byPolicy[ev.ReasonCode]:
		return p, "decided by something else than policy: " + ev.ReasonCode
	case ev.Truncated:
		return p, "the record was cut"
	case ev.Kind == event.KindInference:
		p.Question = policy.Question{Section: policy.SectionInference, Model: ev.Model, Host: ev.DstName}
		if ev.Model == "" {
			return p, "the record names no model"
		}
		return p, ""
	case ev.Kind == event.KindDNS:
		p.Name = true
		p.Question = policy.Question{Section: policy.SectionEgress, Host: ev.DstName}
		return p, lacksName(&p)
	case ev.Kind == event.KindHTTP:
		return p, p.request(ev)
	}
	return p, p.connection(ev)
}

func lacksName(p *Past) string {
	name, ok := policy.CanonicalHost(p.Question.Host)
	if !ok {
		return "the record holds no name that can be decided on"
	}
	p.Question.Host = name
	return ""
}

// connection reads a connection or datagrams.
func (p *Past) connection(ev *event.Event) string {
	q := policy.Question{Section: policy.SectionEgress, Host: ev.DstName, Port: ev.DstPort}
	switch ev.Proto {
	case "tcp":
	case "udp":
		q.Proto = policy.UDP
	default:
		return "the record is about protocol " + ev.Proto
	}
	dst, err := netip.ParseAddrPort(ev.DstAddr)
	if err == nil && q.Port == 0 {
		q.Port = dst.Port()
	}
	if q.Port == 0 {
		return "the record names no port"
	}
	if q.Host == "" {
		if err != nil {
			return "the record names no destination"
		}
		q.Host = dst.Addr().String()
		p.Question = q
		return ""
	}
	if peer, err := netip.ParseAddrPort(ev.PeerAddr); err == nil {
		p.Peer = peer.Addr()
	}
	p.Question = q
	return lacksName(p)
}

// request reads an HTTP request. The record's URL has no query, on which no rule
// depends.
func (p *Past) request(ev *event.Event) string {
	q := policy.Question{Section: policy.SectionEgress, Host: ev.DstName, Port: ev.DstPort, Method: ev.Method}
	_, rest, ok := strings.Cut(ev.URL, "://")
	i := strings.IndexByte(rest, '/')
	if !ok || i < 0 || q.Method == "" {
		return "the record holds no request"
	}
	if q.Port == 0 {
		return "the record names no port"
	}
	q.Path = rest[i:]
	p.Question = q
	return lacksName(p)
}

// Decide asks documents the question of a past decision, at its time.
func (p *Past) Decide(s *policy.Snapshot) policy.Decision {
	v := s.View(p.As).At(p.At)
	q := p.Question
	if q.Section == policy.SectionInference {
		if h, ok := v.ProviderHost(q.Host); ok {
			q.Dialect = h.Dialect
		}
		return v.Ask(&q)
	}
	if _, provider := v.ProviderHost(q.Host); p.Name || provider {
		n := v.Name(q.Host)
		if !n.Resolves {
			n.Decision.Effect = policy.Block
		}
		return n.Decision
	}
	d := v.Ask(&q)
	if d.Effect != policy.Block && p.Peer.IsValid() && !v.Dials(&q, p.Peer) {
		d.Effect, d.Reason = policy.Block, "the name may not have the address "+p.Peer.String()
	}
	return d
}

// Text is the question for people.
func (p *Past) Text() string {
	if p.Name {
		return "name " + p.Question.Host
	}
	if p.Question.Section == policy.SectionInference {
		return "model " + p.Question.Model + " at " + p.Question.Host
	}
	return p.Question.String()
}

// agent is who asks without the sandbox.
func (p *Past) agent() string {
	who := p.As
	who.Sandbox = ""
	return who.String()
}
