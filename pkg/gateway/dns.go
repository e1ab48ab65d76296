// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
)

// The resolver of a sandbox. It answers every question itself: an allowed name
// with its virtual address, everything else with a refusal. No question, and
// nothing of one, leaves the host from here; the keeper sees only names that
// the policy's own words allow.
//
// What is answered:
//
//	A                     the virtual address; NXDOMAIN or RefusalAddr (Explain) when refused
//	AAAA, HTTPS, SVCB     no data when the name exists for the sandbox, else as A
//	PTR                   the name of a virtual address, else NXDOMAIN
//	localhost             127.0.0.1 and ::1 (RFC 6761)
//	other types           no data when the name exists, else as A
//	ANY, AXFR, IXFR ...   NOTIMP
//
// Every reply has RA set: glibc takes an empty answer without it for a lame
// server.

const (
	allowedTTL = 60 // seconds; the address is the name's for the sandbox's life
	refusedTTL = 2  // a policy change shows at once
	maxQuery   = 4096
	ednsSize   = 1232 // DNS flag day 2020
	canary     = "use-application-dns.net"
)

// answerDNS is the whole resolver: bytes in, bytes out. nil means no reply.
func (sb *sandbox) answerDNS(ctx context.Context, raw []byte, from asker) []byte {
	if len(raw) < 12 || raw[2]&0x80 != 0 {
		return nil // too short to answer, or itself a reply
	}
	ticket := sb.g.rec.reserve(sb.cfg.ID)
	if ticket == nil {
		return packHeader(raw, dns.RcodeServerFailure)
	}
	defer ticket.release()
	q := &question{sb: sb, asker: from, ticket: ticket}
	if len(raw) > maxQuery {
		return q.malformed(raw, dns.RcodeFormatError, "longer than any question")
	}
	var m dns.Msg
	if err := m.Unpack(raw); err != nil {
		return q.malformed(raw, dns.RcodeFormatError, "cannot be read")
	}
	q.m = &m
	reply := q.answer(ctx)
	out, err := reply.Pack()
	if err != nil {
		return packHeader(raw, dns.RcodeServerFailure)
	}
	return out
}

// resolve asks the keeper.
func (sb *sandbox) resolve(ctx context.Context, name string) (Resolution, error) {
	done, err := sb.owner.ask(ctx)
	if err != nil {
		return Resolution{}, err
	}
	defer done()
	return sb.g.opt.Keeper.Resolve(ctx, sb.cfg.ID, name)
}

// packHeader makes a reply out of nothing but the question's header.
func packHeader(raw []byte, rcode byte) []byte {
	return []byte{raw[0], raw[1], raw[2]&0x79 | 0x80, 0x80 | rcode, 0, 0, 0, 0, 0, 0, 0, 0}
}

// asker is where a DNS message came from, and which way.
type asker struct {
	proto, src, dst string
	client          uint32 // tag of the process, see client.go
}

// question is one DNS message on its way to an answer.
type question struct {
	asker
	sb     *sandbox
	ticket *ticket
	m      *dns.Msg
	name   string // canonical
	qtype  uint16
}

// malformed answers what cannot be answered otherwise.
func (q *question) malformed(raw []byte, rcode int, why string) []byte {
	q.record(verdict{rcode: rcode, code: codeBadQuery, reason: "a DNS message that " + why})
	return packHeader(raw, byte(rcode))
}

// verdict is the outcome of a question.
type verdict struct {
	allowed  bool
	observed bool // nothing was decided
	rcode    int
	addr     netip.Addr // of an A question
	code     string
	reason   string
	rule     string
	ruleAt   string
	shadow   string
	revision uint64
	refusal  bool // answered with RefusalAddr
	remedy   string
}

func (q *question) answer(ctx context.Context) *dns.Msg {
	r := new(dns.Msg)
	r.SetReply(q.m)
	r.RecursionAvailable = true
	r.Compress = true
	if !q.edns(r) {
		return r
	}
	v := q.shape()
	if v == nil {
		v = q.decide(ctx)
	}
	r.Rcode = v.rcode
	if len(q.m.Question) == 1 {
		q.fill(r, v)
	}
	q.record(*v)
	return r
}

// edns copies what EDNS(0) needs; false when the reply is complete.
func (q *question) edns(r *dns.Msg) bool {
	n := 0
	var opt *dns.OPT
	for _, rr := range q.m.Extra {
		if o, ok := rr.(*dns.OPT); ok {
			opt = o
			n++
		}
	}
	switch {
	case n == 0:
		return true
	case n > 1:
		r.Rcode = dns.RcodeFormatError
		q.record(verdict{rcode: r.Rcode, code: codeBadQuery, reason: "a DNS message with two OPT records"})
		return false
	}
	r.SetEdns0(ednsSize, opt.Do())
	if opt.Version() != 0 {
		r.Rcode = dns.RcodeBadVers
		q.record(verdict{rcode: r.Rcode, code: codeBadQuery, reason: "an unknown version of EDNS"})
		return false
	}
	return true
}

// shape refuses what is not one plain question; nil when it is one.
func (q *question) shape() *verdict {
	m := q.m
	switch {
	case m.Opcode != dns.OpcodeQuery:
		return &verdict{rcode: dns.RcodeNotImplemented, code: codeBadQuery, reason: "only questions are answered"}
	case len(m.Question) != 1, len(m.Answer) != 0, len(m.Ns) != 0:
		return &verdict{rcode: dns.RcodeFormatError, code: codeBadQuery, reason: "a DNS message that is not one question"}
	}
	q.qtype = m.Question[0].Qtype
	var ok bool
	q.name, ok = policy.CanonicalHost(m.Question[0].Name)
	if m.Question[0].Qclass != dns.ClassINET {
		return &verdict{rcode: dns.RcodeRefused, code: codeQueryType, reason: "only class IN is answered"}
	}
	switch q.qtype {
	case dns.TypeANY, dns.TypeAXFR, dns.TypeIXFR, dns.TypeMAILA, dns.TypeMAILB, dns.TypeTKEY, dns.TypeTSIG, dns.TypeOPT, dns.TypeNone:
		return &verdict{rcode: dns.RcodeNotImplemented, code: codeQueryType, reason: "this type of question is not answered"}
	}
	if q.qtype == dns.TypePTR {
		return q.pointer()
	}
	switch {
	case q.name == "localhost" || strings.HasSuffix(q.name, ".localhost"):
		return &verdict{observed: true, allowed: true, code: "localhost"}
	case q.name == canary:
		return &verdict{rcode: dns.RcodeNameError, code: codeCanary, reason: "tells browsers to use this resolver", observed: true}
	case !ok:
		return &verdict{rcode: dns.RcodeNameError, code: policy.CodeBadName, reason: "not a host name"}
	}
	return nil
}

// pointer answers for virtual addresses only.
func (q *question) pointer() *verdict {
	v := &verdict{rcode: dns.RcodeNameError, observed: true, code: "reverse", reason: "only virtual addresses have names here"}
	if a, ok := reverseAddr(q.name); ok {
		if _, known := q.sb.names.name(a); known {
			v.rcode, v.addr, v.allowed, v.reason = dns.RcodeSuccess, a, true, ""
		}
	}
	return v
}

// reverseAddr reads d.c.b.a.in-addr.arpa.
func reverseAddr(name string) (netip.Addr, bool) {
	quad, ok := strings.CutSuffix(name, ".in-addr.arpa")
	if !ok {
		return netip.Addr{}, false
	}
	p := strings.Split(quad, ".")
	if len(p) != 4 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(p[3] + "." + p[2] + "." + p[1] + "." + p[0])
	return a, err == nil
}

// dnsDefault is the port that is named when only a name was asked for.
var dnsDefault = netip.AddrPortFrom(netip.IPv4Unspecified(), 443)

// decide asks policy and, for names it allows, the keeper.
func (q *question) decide(ctx context.Context) *verdict {
	e := q.sb.epoch.Load()
	if e == nil {
		return &verdict{rcode: dns.RcodeServerFailure, code: codeNoSnapshot, reason: "no policy is in force yet"}
	}
	n := e.view.Name(q.name)
	if !n.Resolves {
		d := n.Decision
		v := &verdict{code: d.ReasonCode, reason: d.Reason, rule: d.Rule.String(), shadow: d.WouldBe(), revision: d.Revision, remedy: q.sb.remedy(q.name, dnsDefault, policy.TCP)}
		if d.Rule.File != "" {
			v.ruleAt = ruleAt(d.Rule)
		}
		return q.refused(v)
	}
	ctx, cancel := context.WithTimeout(ctx, q.sb.g.opt.Limits.Keeper)
	defer cancel()
	res, err := q.sb.resolve(ctx, q.name)
	switch {
	case err != nil:
		q.sb.g.log.Warn("the keeper did not resolve", "sandbox", q.sb.id, "err", err)
		return &verdict{rcode: dns.RcodeServerFailure, code: codeKeeper, reason: "the keeper did not answer"}
	case res.Exhausted:
		return &verdict{rcode: dns.RcodeServerFailure, code: orCode(res.ReasonCode, codeNames), reason: res.Reason, revision: res.Revision}
	case !res.Allowed:
		return q.refused(&verdict{code: orCode(res.ReasonCode, policy.CodeNoRule), reason: res.Reason, rule: res.Rule,
			ruleAt: res.RuleAt, revision: res.Revision, remedy: q.sb.remedy(q.name, dnsDefault, policy.TCP)})
	case !res.Addr.Is4():
		return &verdict{rcode: dns.RcodeServerFailure, code: codeKeeper, reason: "the keeper gave no usable address"}
	}
	q.sb.names.learn(res.Addr, q.name)
	d := n.Decision
	v := &verdict{allowed: true, addr: res.Addr, code: d.ReasonCode, reason: d.Reason, rule: d.Rule.String(), shadow: d.WouldBe(), revision: d.Revision}
	if d.Rule.File != "" {
		v.ruleAt = ruleAt(d.Rule)
	}
	return v
}

func orCode(c, otherwise string) string {
	if c != "" {
		return c
	}
	return otherwise
}

// refused turns a denial into the sandbox's form of saying no.
func (q *question) refused(v *verdict) *verdict {
	if q.sb.cfg.Explain {
		v.addr, v.refusal = RefusalAddr, true
		return v
	}
	v.rcode = dns.RcodeNameError
	return v
}

// fill adds the records of the answer. The owner is the name as it was asked,
// case and all.
func (q *question) fill(r *dns.Msg, v *verdict) {
	if v.rcode != dns.RcodeSuccess {
		return
	}
	owner := q.m.Question[0].Name
	head := func(t uint16, ttl uint32) dns.RR_Header {
		return dns.RR_Header{Name: owner, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
	}
	ttl := uint32(allowedTTL)
	if v.refusal {
		ttl = refusedTTL
	}
	switch {
	case v.code == "localhost" && q.qtype == dns.TypeA:
		r.Answer = append(r.Answer, &dns.A{Hdr: head(dns.TypeA, ttl), A: []byte{127, 0, 0, 1}})
	case v.code == "localhost" && q.qtype == dns.TypeAAAA:
		r.Answer = append(r.Answer, &dns.AAAA{Hdr: head(dns.TypeAAAA, ttl), AAAA: netip.IPv6Loopback().AsSlice()})
	case q.qtype == dns.TypeA && v.addr.Is4():
		r.Answer = append(r.Answer, &dns.A{Hdr: head(dns.TypeA, ttl), A: v.addr.AsSlice()})
	case q.qtype == dns.TypePTR && v.addr.IsValid():
		if name, ok := q.sb.names.name(v.addr); ok {
			r.Answer = append(r.Answer, &dns.PTR{Hdr: head(dns.TypePTR, ttl), Ptr: dns.Fqdn(name)})
		}
	}
}

// record tells of the decision. Questions for addresses in their various types
// are one decision on one name; repeats are folded.
func (q *question) record(v verdict) {
	if v.code == "localhost" {
		q.ticket.release()
		return
	}
	ev := q.sb.event(event.KindDNS, "dns")
	ev.Time = time.Now().UTC()
	ev.Activity, ev.Proto = "query", q.proto
	ev.SrcAddr, ev.DstAddr, ev.DstPort, ev.DstName, ev.PID = q.src, q.dst, 53, q.name, q.client
	if q.m != nil && len(q.m.Question) == 1 {
		ev.QueryType = dns.Type(q.qtype).String()
		if q.name == "" {
			ev.DstName = q.m.Question[0].Name
		}
	}
	if v.addr.IsValid() && q.qtype == dns.TypeA {
		ev.PeerAddr = v.addr.String() // the answer
	}
	ev.RCode = dns.RcodeToString[v.rcode]
	switch {
	case v.observed:
		ev.Verdict = event.Observed
	case v.allowed:
		ev.Verdict = event.Allowed
	}
	ev.Reason, ev.ReasonCode, ev.Rule, ev.RuleAt, ev.Remedy = v.reason, v.code, v.rule, v.ruleAt, v.remedy
	ev.Shadow = v.shadow
	if v.revision != 0 {
		ev.Revision = v.revision
	}
	if v.refusal {
		ev.Detail = "answered with the refusal address"
	}
	q.ticket.postFolded(ev)
}
