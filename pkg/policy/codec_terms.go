// SPDX-License-Identifier: Apache-2.0

package policy

import "time"

// The parts of a rule that come with its effect, in an encoded snapshot.

func (e *encoder) duration(d time.Duration) { e.num(uint64(d)) }

func (d *reader) duration() time.Duration { return time.Duration(d.below(1<<63, "a time")) }

func (e *encoder) when(c *condition) {
	e.flag(c != nil)
	if c == nil {
		return
	}
	e.str(c.Expression)
	e.flag(c.Request)
	e.flag(c.Clock)
	e.num(uint64(len(c.Windows)))
	for i := range c.Windows {
		w := &c.Windows[i]
		e.num(uint64(w.Days))
		e.num(uint64(w.From))
		e.num(uint64(w.To))
		e.str(w.Zone)
	}
}

func (d *reader) when() *When {
	if !d.flag() {
		return nil
	}
	c := &When{Expression: d.str(), Request: d.flag(), Clock: d.flag()}
	for n := d.count(4); n > 0 && d.err == nil; n-- {
		w := Window{Days: uint8(d.below(1<<7, "a day")), From: int(d.below(1<<16, "a time of day")), To: int(d.below(1<<16, "a time of day")), Zone: d.str()}
		if !w.valid() || w.load() != nil {
			d.fail("a window is malformed")
		}
		c.Windows = append(c.Windows, w)
	}
	if c.Expression == "" && len(c.Windows) == 0 {
		d.fail("a condition is empty")
	}
	return c
}

func (e *encoder) approval(a *Approval) {
	e.flag(a != nil)
	if a == nil {
		return
	}
	e.strs(a.Approvers)
	e.num(uint64(a.Quorum))
	e.flag(a.Separate)
	e.duration(a.ExpiresAfter)
	e.duration(a.ValidFor)
}

func (d *reader) approval() *Approval {
	if !d.flag() {
		return nil
	}
	a := &Approval{Approvers: d.strs(), Quorum: int(d.below(1<<16, "a quorum")), Separate: d.flag(), ExpiresAfter: d.duration(), ValidFor: d.duration()}
	if a.Quorum < 1 || a.ExpiresAfter == 0 {
		d.fail("an approval has no quorum or no time")
	}
	return a
}

func (e *encoder) duties(o *duties) {
	if o == nil {
		o = &duties{}
	}
	e.num(uint64(o.kinds()))
	if r := o.Rate; r != nil {
		e.num(r.Requests)
		e.duration(r.RequestsWindow)
		e.num(r.Tokens)
		e.duration(r.TokensWindow)
		e.num(r.Concurrency)
		e.strs(r.Per)
		e.duration(r.Queue)
	}
	if p := o.PII; p != nil {
		e.str(p.In)
		e.str(p.Out)
		e.strs(p.Entities)
	}
	if r := o.Redact; r != nil {
		e.strs(r.Entities)
	}
	if o.Audit != AuditUnsaid {
		e.num(uint64(o.Audit))
	}
}

func (d *reader) duties() (o duties) {
	k := Kinds(d.below(uint64(KindAudit)<<1, "what a rule obliges to"))
	if k&KindRate != 0 {
		r := &Rate{Requests: d.num(), RequestsWindow: d.duration(), Tokens: d.num(), TokensWindow: d.duration(), Concurrency: d.num(), Per: d.strs(), Queue: d.duration()}
		if r.Requests > 0 && r.RequestsWindow == 0 || r.Tokens > 0 && r.TokensWindow == 0 || r.Requests|r.Tokens|r.Concurrency == 0 {
			d.fail("a rate has no limit or no time")
		}
		o.Rate = r
	}
	if k&KindPII != 0 {
		o.PII = &PII{In: d.str(), Out: d.str(), Entities: d.strs()}
	}
	if k&KindRedact != 0 {
		o.Redact = &Redact{Entities: d.strs()}
	}
	if k&KindAudit != 0 {
		o.Audit = AuditLevel(d.below(uint64(AuditFull)+1, "an audit level"))
		if o.Audit == AuditUnsaid {
			d.fail("an audit level is missing")
		}
	}
	return o
}
