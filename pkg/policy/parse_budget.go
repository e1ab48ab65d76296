// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxBudgets bounds the budgets of one document.
const maxBudgets = 100

var usualAlerts = []uint8{50, 80, 100}

// budgets reads the section of that name. ids are those of the document's rules:
// a rule and a budget have one namespace, for they are told by DOCUMENT/ID.
func (d *decoder) budgets(n *yaml.Node, doc *Document, ids map[string]*yaml.Node) (out []Budget) {
	if n != nil && len(n.Content) > maxBudgets {
		d.fail(n, "make several documents of it", "budgets has %d entries, the limit is %d", len(n.Content), maxBudgets)
		return nil
	}
	d.list(n, "budgets", func(c *yaml.Node) {
		b, ok := d.budget(c, doc)
		if !ok {
			return
		}
		if first := ids[b.ID]; first != nil && b.ID != "" {
			d.fail(c, "give each rule and budget of a document its own id", "rule id %s is used twice, first in line %d", quote(b.ID), d.line+first.Line)
		} else {
			ids[b.ID] = c
		}
		out = append(out, b)
	})
	return out
}

func (d *decoder) budget(n *yaml.Node, doc *Document) (b Budget, ok bool) {
	m, ok := d.mapping(n, objBudget)
	if !ok {
		return b, false
	}
	b = Budget{Line: d.line + n.Line, Col: n.Column, Hard: true}
	b.ID = d.name(m.get("id"), "id")
	if s, ok := d.str(m.get("limit"), "limit"); ok {
		var err error
		if b.Limit, err = parseUSD(s); err != nil {
			d.failText(m.get("limit"), err)
		}
	}
	d.budgetWindow(m, &b.Window)
	if h := m.get("hard"); h != nil {
		b.Hard = d.boolean(h, "hard")
	}
	d.strs(m.get("per"), "per", func(s string) (string, error) {
		v, err := oneOf("part", budgetPer)(s)
		if err == nil {
			b.Per |= 1 << slices.Index(budgetPer, s)
		}
		return v, err
	})
	var r Rule
	d.ruleFor(m.get("for"), &r, doc)
	b.For = r.For
	d.strs(m.get("models"), "models", func(s string) (string, error) {
		p, err := namePattern(s, "model")
		if err == nil {
			b.Models = append(b.Models, p)
		}
		return s, err
	})
	d.budgetAlerts(m, &b)
	b.MaxOutput = d.number(m.get("maxOutput"), "maxOutput", 1, 1<<31-1)
	return b, true
}

func (d *decoder) budgetWindow(m fieldMap, w *BudgetWindow) {
	n := m.get("window")
	s, ok := d.str(n, "window")
	if !ok {
		return
	}
	z := m.get("zone")
	if i := slices.Index(budgetUnits[1:], s); i >= 0 {
		w.Unit, w.Zone = BudgetUnit(i+1), "UTC"
		if z != nil {
			if w.Zone, ok = d.str(z, "zone"); !ok {
				return
			}
			if err := w.load(); err != nil {
				d.failText(z, err)
			}
			return
		}
		w.loc = time.UTC
		return
	}
	if s[0] < '0' || s[0] > '9' {
		d.fail(n, didYouMean(s, budgetUnits[1:])+", or a rolling one such as 30d or 24h", "unknown window %s", quote(s))
		return
	}
	if z != nil {
		d.fail(m.key["zone"], "remove it, or name a calendar window", "a rolling window has no time zone")
	}
	w.Length = d.duration(n, "window", minRolling, maxRolling)
	if w.Length%time.Second != 0 {
		d.fail(n, "for example 24h", "window %s is no whole number of seconds", quote(s))
	}
}

func (d *decoder) budgetAlerts(m fieldMap, b *Budget) {
	b.Alerts = slices.Clone(usualAlerts)
	if n := m.get("alerts"); n != nil {
		b.Alerts = nil
		d.list(n, "alerts", func(c *yaml.Node) {
			v := uint8(d.number(c, "an entry of alerts", 1, 100))
			switch {
			case v == 0: // told
			case slices.Contains(b.Alerts, v):
				d.fail(c, "", "%d is listed twice in alerts", v)
			default:
				b.Alerts = append(b.Alerts, v)
			}
		})
		slices.Sort(b.Alerts)
	}
	d.list(m.get("onAlert"), "onAlert", func(c *yaml.Node) {
		f, ok := d.mapping(c, objBudgetAction)
		if !ok {
			return
		}
		a := BudgetAction{Line: d.line + c.Line, Col: c.Column, At: uint8(d.number(f.get("at"), "at", 1, 100))}
		if s, ok := d.str(f.get("action"), "action"); ok {
			i := slices.Index(budgetDeeds, s)
			if i < 0 {
				d.fail(f.get("action"), didYouMean(s, budgetDeeds), "unknown action %s", quote(s))
				return
			}
			a.Do = BudgetDeed(i)
		}
		if slices.ContainsFunc(b.OnAlert, func(o BudgetAction) bool { return o.At == a.At }) {
			d.fail(c, "of several actions the strictest holds: write that", "two actions at %s percent", strconv.Itoa(int(a.At)))
			return
		}
		b.OnAlert = append(b.OnAlert, a)
	})
	slices.SortFunc(b.OnAlert, func(x, y BudgetAction) int { return cmp.Compare(x.At, y.At) })
}

// unenforcedBudgets tells of actions of budgets that nothing in this version does.
func unenforcedBudgets(d *Document) (out []Problem) {
	for _, b := range d.Policy.Budgets {
		for _, a := range b.OnAlert {
			if a.Do == BudgetDowngrade || a.Do == BudgetApproval {
				out = append(out, Problem{File: d.File, Line: a.Line, Col: a.Col, Msg: "action " + quote(a.Do.String()) + " of a budget " + notEnforced, Hint: "use notify or block"})
			}
		}
	}
	return out
}
