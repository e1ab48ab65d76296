// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/ringfence/ringfence/pkg/scope"
)

// snapshotMagic begins an encoded snapshot; the last byte is the version of
// the format, which keeper and gateway of one build share.
const snapshotMagic = "RFSNAP\x00\x05"

// MarshalBinary encodes rules, providers and budgets, in that order, behind a magic.
// Profiles are not part of it: the gateway has no use for them. Strings are
// length-prefixed, numbers are varints, and repeated strings (documents,
// files, scopes) are written once in a table in front.
func (s *Snapshot) MarshalBinary() ([]byte, error) {
	e := encoder{ids: map[string]uint64{}}
	e.num(s.rev)
	e.num(uint64(len(s.groups)))
	for _, g := range s.groups {
		e.selector(g)
	}
	e.num(uint64(len(s.rules)))
	for i := range s.rules {
		e.rule(&s.rules[i])
	}
	e.num(uint64(len(s.providers)))
	for i := range s.providers {
		e.provider(&s.providers[i])
	}
	e.num(uint64(len(s.routes)))
	for i := range s.routes {
		e.route(&s.routes[i])
	}
	e.num(uint64(len(s.budgets)))
	for i := range s.budgets {
		e.budget(&s.budgets[i])
	}
	out := append([]byte(nil), snapshotMagic...)
	out = binary.AppendUvarint(out, uint64(len(e.table)))
	for _, t := range e.table {
		out = binary.AppendUvarint(out, uint64(len(t)))
		out = append(out, t...)
	}
	return append(out, e.b...), nil
}

// UnmarshalSnapshot reads what MarshalBinary wrote. The bytes come from the
// keeper and are trusted in what they say, but not in their form: a broken
// encoding is an error.
func UnmarshalSnapshot(b []byte) (*Snapshot, error) {
	d := reader{b: b}
	if len(b) < len(snapshotMagic) || string(b[:len(snapshotMagic)]) != snapshotMagic {
		return nil, errors.New("policy: not a snapshot of this version")
	}
	d.b = b[len(snapshotMagic):]
	for n := d.count(1); n > 0 && d.err == nil; n-- {
		d.table = append(d.table, string(d.bytes()))
	}
	s := newSnapshot(d.num())
	for n := d.count(8); n > 0 && d.err == nil; n-- {
		s.groups = append(s.groups, d.selector())
	}
	n := d.count(12)
	if d.err == nil {
		s.rules = make([]crule, 0, n)
	}
	for ; n > 0 && d.err == nil; n-- {
		s.rules = append(s.rules, d.rule(s))
	}
	for n := d.count(8); n > 0 && d.err == nil; n-- {
		s.providers = append(s.providers, d.provider())
	}
	for n := d.count(8); n > 0 && d.err == nil; n-- {
		s.routes = append(s.routes, d.route())
	}
	for n := d.count(24); n > 0 && d.err == nil; n-- {
		s.budgets = append(s.budgets, d.budget())
	}
	if d.err == nil && len(d.b) > 0 {
		d.fail("bytes behind the end")
	}
	if d.err != nil {
		return nil, d.err
	}
	s.build()
	return s, nil
}

type encoder struct {
	b     []byte
	table []string
	ids   map[string]uint64
}

func (e *encoder) num(n uint64) { e.b = binary.AppendUvarint(e.b, n) }

func (e *encoder) str(s string) {
	id, ok := e.ids[s]
	if !ok {
		id = uint64(len(e.table))
		e.ids[s] = id
		e.table = append(e.table, s)
	}
	e.num(id)
}

func (e *encoder) flag(v bool) {
	n := uint64(0)
	if v {
		n = 1
	}
	e.num(n)
}

func (e *encoder) pattern(p scope.Pattern) {
	e.flag(p.Wild)
	e.str(p.Text)
}

func (e *encoder) selector(s scope.Selector) {
	for _, p := range []scope.Pattern{s.Org, s.Team, s.Agent, s.Sandbox, s.Server, s.Tool} {
		e.pattern(p)
	}
}

func (e *encoder) prefix(p netip.Prefix) {
	if !p.IsValid() {
		e.str("")
		return
	}
	e.str(p.String())
}

func (e *encoder) strs(list []string) {
	e.num(uint64(len(list)))
	for _, s := range list {
		e.str(s)
	}
}

func (e *encoder) prefixes(list []netip.Prefix) {
	e.num(uint64(len(list)))
	for _, p := range list {
		e.prefix(p)
	}
}

func (e *encoder) rule(r *crule) {
	e.str(r.ref.Doc)
	e.str(r.ref.ID)
	e.str(r.ref.File)
	e.num(uint64(r.ref.Line))
	e.str(r.ref.Scope)
	e.num(uint64(r.section))
	e.num(uint64(r.effect))
	e.flag(r.mandatory)
	e.flag(r.delegable)
	e.num(uint64(r.level))
	e.num(uint64(r.group))
	e.num(uint64(r.port))
	e.num(uint64(r.proto))
	e.num(uint64(r.host.Kind))
	e.str(r.host.Name)
	e.prefix(r.prefix)
	e.pattern(r.name)
	e.flag(r.http != nil)
	if r.http != nil {
		e.strs(r.http.Methods)
		e.strs(r.http.Paths)
	}
	e.prefixes(r.resolvesTo)
	e.str(r.reason)
	e.pattern(r.server)
	e.num(uint64(r.risk))
	e.flag(r.silent)
	e.flag(r.shadow)
	e.num(uint64(r.waive))
	e.when(r.when)
	e.approval(r.approval)
	e.duties(r.duties)
	e.b = append(e.b, r.digest[:]...)
}

type reader struct {
	b     []byte
	table []string
	err   error
}

func (d *reader) fail(msg string) {
	if d.err == nil {
		d.err = fmt.Errorf("policy: broken snapshot: %s", msg)
	}
	d.b = nil
}

func (d *reader) num() uint64 {
	n, size := binary.Uvarint(d.b)
	if size <= 0 {
		d.fail("a number is cut off")
		return 0
	}
	d.b = d.b[size:]
	return n
}

// below reads a number less than limit.
func (d *reader) below(limit uint64, what string) uint64 {
	n := d.num()
	if n >= limit {
		d.fail(what + " is out of range")
		return 0
	}
	return n
}

// count reads the length of a list whose items take at least least bytes.
func (d *reader) count(least int) int {
	n := d.num()
	if n > uint64(len(d.b)/least) {
		d.fail("a list is longer than the input")
		return 0
	}
	return int(n)
}

func (d *reader) bytes() []byte { return d.take(d.count(1)) }

// take reads n bytes.
func (d *reader) take(n int) []byte {
	if n > len(d.b) {
		d.fail("it is cut off")
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *reader) str() string {
	n := d.num()
	if n >= uint64(len(d.table)) {
		d.fail("a string is not in the table")
		return ""
	}
	return d.table[n]
}

func (d *reader) flag() bool { return d.below(2, "a flag") == 1 }

func (d *reader) pattern() scope.Pattern {
	w := d.flag()
	return scope.Pattern{Wild: w, Text: d.str()}
}

func (d *reader) selector() (s scope.Selector) {
	for _, p := range []*scope.Pattern{&s.Org, &s.Team, &s.Agent, &s.Sandbox, &s.Server, &s.Tool} {
		*p = d.pattern()
	}
	return s
}

func (d *reader) prefix() netip.Prefix {
	s := d.str()
	if s == "" {
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p != p.Masked() {
		d.fail("a prefix is malformed")
	}
	return p
}

func (d *reader) strs() []string {
	var out []string
	for n := d.count(1); n > 0 && d.err == nil; n-- {
		out = append(out, d.str())
	}
	return out
}

func (d *reader) prefixes() []netip.Prefix {
	var out []netip.Prefix
	for n := d.count(1); n > 0 && d.err == nil; n-- {
		p := d.prefix()
		if !p.IsValid() {
			d.fail("a prefix is missing")
		}
		out = append(out, p)
	}
	return out
}

func (d *reader) rule(s *Snapshot) (r crule) {
	r.ref.Doc, r.ref.ID, r.ref.File = d.str(), d.str(), d.str()
	r.ref.Line = int(d.below(1<<31, "a line"))
	r.ref.Scope = d.str()
	r.section = Section(d.below(uint64(SectionTools)+1, "a section"))
	r.effect = Effect(d.below(uint64(Allow)+1, "an effect"))
	r.mandatory, r.delegable = d.flag(), d.flag()
	r.level = scope.Level(d.below(uint64(scope.NumLevels), "a level"))
	r.group = uint32(d.below(uint64(len(s.groups)), "a group"))
	r.port = uint16(d.below(1<<16, "a port"))
	r.proto = Proto(d.below(uint64(UDP)+1, "a protocol"))
	r.host.Kind = HostKind(d.below(uint64(HostDeep)+1, "a host"))
	r.host.Name = d.str()
	r.prefix = d.prefix()
	r.name = d.pattern()
	if d.flag() {
		r.http = &HTTPMatch{Methods: d.strs(), Paths: d.strs()}
	}
	r.resolvesTo = d.prefixes()
	r.reason = d.str()
	r.server = d.pattern()
	r.risk = Risk(d.below(1<<8, "a risk"))
	r.silent, r.shadow = d.flag(), d.flag()
	r.waive = Kinds(d.below(uint64(KindAudit)<<1, "what is waived"))
	r.when = s.condition(r.section, d.when())
	r.approval = d.approval()
	if o := d.duties(); o.kinds() != 0 {
		r.oblige, r.duties = o.kinds(), &o
	}
	copy(r.digest[:], d.take(len(r.digest)))
	switch {
	case r.section == SectionInvalid || r.level == scope.LevelBuiltin:
		d.fail("a rule has no section or level")
	case r.mandatory && (r.effect == Allow || r.delegable || r.waive != 0):
		d.fail("a mandatory rule allows or gives way")
	case r.silent && r.effect != Block:
		d.fail("a rule has an effect and has none")
	case (r.effect == RequireApproval) != (r.approval != nil):
		d.fail("an approval without its terms")
	case r.proto != 0 && r.proto != TCP && r.proto != UDP:
		d.fail("a rule has a protocol that no rule can have")
	case r.section == SectionEgress && r.prefix.IsValid() == (r.host.Kind != HostNone):
		d.fail("a rule has not exactly one target")
	}
	return r
}
