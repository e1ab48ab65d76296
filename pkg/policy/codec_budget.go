// SPDX-License-Identifier: Apache-2.0

package policy

import "github.com/ringfence/ringfence/pkg/scope"

// Budgets in an encoded snapshot.

func (e *encoder) budget(b *Budget) {
	for _, s := range []string{b.ID, b.Ref.Doc, b.Ref.File, b.Ref.Scope} {
		e.str(s)
	}
	e.num(uint64(b.Ref.Line))
	e.selector(b.Selects)
	e.num(uint64(b.Limit))
	e.num(uint64(b.Window.Unit))
	e.duration(b.Window.Length)
	e.str(b.Window.Zone)
	e.flag(b.Hard)
	e.num(uint64(b.Per))
	e.num(uint64(len(b.Models)))
	for _, p := range b.Models {
		e.pattern(p)
	}
	e.num(uint64(len(b.Alerts)))
	for _, a := range b.Alerts {
		e.num(uint64(a))
	}
	e.num(uint64(len(b.OnAlert)))
	for _, a := range b.OnAlert {
		e.num(uint64(a.At))
		e.num(uint64(a.Do))
	}
	e.num(uint64(b.MaxOutput))
}

func (d *reader) budget() (b Budget) {
	b.ID = d.str()
	b.Ref = RuleRef{Doc: d.str(), ID: b.ID, File: d.str(), Scope: d.str()}
	b.Ref.Line = int(d.below(1<<31, "a line"))
	b.Line = b.Ref.Line
	b.Selects = d.selector()
	b.Limit = int64(d.below(1<<63, "a limit"))
	b.Window = BudgetWindow{Unit: BudgetUnit(d.below(uint64(len(budgetUnits)), "a window")), Length: d.duration(), Zone: d.str()}
	b.Hard = d.flag()
	b.Per = BudgetSplit(d.below(1<<len(budgetPer), "a split"))
	for n := d.count(2); n > 0 && d.err == nil; n-- {
		b.Models = append(b.Models, scope.Pattern(d.pattern()))
	}
	for n := d.count(1); n > 0 && d.err == nil; n-- {
		b.Alerts = append(b.Alerts, uint8(d.below(101, "a percentage")))
	}
	for n := d.count(2); n > 0 && d.err == nil; n-- {
		b.OnAlert = append(b.OnAlert, BudgetAction{At: uint8(d.below(101, "a percentage")), Do: BudgetDeed(d.below(uint64(len(budgetDeeds)), "an action"))})
	}
	b.MaxOutput = int64(d.below(1<<31, "a number of tokens"))
	if d.err == nil && (b.Limit <= 0 || !b.Window.valid() || b.Window.Unit != BudgetRolling && b.Window.load() != nil) {
		d.fail("a budget is malformed")
	}
	return b
}
