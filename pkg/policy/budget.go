// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/scope"
)

// NanoPerUSD is one dollar in the unit of all money here.
const NanoPerUSD = 1_000_000_000

// Budget is a spending limit of a Policy document: how much the model calls of
// whom it selects may cost in a window of time.
type Budget struct {
	ID        string
	Limit     int64 // nano-dollars, positive
	Window    BudgetWindow
	Hard      bool            // a call that does not fit is refused; else it is counted only
	Per       BudgetSplit     // what is counted apart; 0 = all together
	For       *scope.Selector // nil = everybody in the document's scope
	Models    []scope.Pattern // none = every model
	Alerts    []uint8         // percent of the limit, ascending
	OnAlert   []BudgetAction  // by At ascending
	MaxOutput int64           // output tokens of a call whose client sets no cap; 0 = no such limit

	// Ref and Selects are set in a snapshot: which budget it is, and whom it is for.
	Ref     RuleRef
	Selects scope.Selector

	Line, Col int
}

// BudgetAction is what happens from a percentage of the limit on.
type BudgetAction struct {
	At uint8
	Do BudgetDeed

	Line, Col int
}

// BudgetDeed is ordered by strictness. The zero value is only recorded.
type BudgetDeed uint8

// Deeds.
const (
	BudgetNotify BudgetDeed = iota
	BudgetDowngrade
	BudgetApproval
	BudgetBlock
)

var budgetDeeds = []string{"notify", "downgrade", "require-approval", "block"}

func (d BudgetDeed) String() string {
	if int(d) < len(budgetDeeds) {
		return budgetDeeds[d]
	}
	return "block"
}

// BudgetSplit is a set of what a budget is counted apart for.
type BudgetSplit uint8

// Parts of a split.
const (
	PerOrg BudgetSplit = 1 << iota
	PerTeam
	PerAgent
	PerSandbox
	PerModel
)

var budgetPer = []string{"org", "team", "agent", "sandbox", "model"}

// BudgetUnit is a calendar window. The zero value is a rolling one.
type BudgetUnit uint8

// Units.
const (
	BudgetRolling BudgetUnit = iota
	BudgetHour
	BudgetDay
	BudgetWeek // begins on Monday (ISO 8601)
	BudgetMonth
	BudgetQuarter
	BudgetYear
)

var budgetUnits = []string{"", "hour", "day", "week", "month", "quarter", "year"}

// BudgetWindow is how long a budget counts what was spent.
type BudgetWindow struct {
	Unit   BudgetUnit
	Length time.Duration // of a rolling one
	Zone   string        // of a calendar one, as in the IANA time zone database
	loc    *time.Location
}

// Bounds of a rolling window.
const (
	minRolling = time.Hour
	maxRolling = 366 * 24 * time.Hour
)

// Location is the zone of a calendar window.
func (w *BudgetWindow) Location() *time.Location {
	if w.loc == nil {
		return time.UTC
	}
	return w.loc
}

// String is the window as a document has it.
func (w BudgetWindow) String() string {
	if w.Unit != BudgetRolling {
		return budgetUnits[w.Unit]
	}
	if w.Length%(24*time.Hour) == 0 {
		return strconv.Itoa(int(w.Length/(24*time.Hour))) + "d"
	}
	return w.Length.String()
}

func (w *BudgetWindow) load() error {
	at := Window{Zone: w.Zone}
	err := at.load()
	w.loc = at.loc
	return err
}

func (w *BudgetWindow) valid() bool {
	if w.Unit == BudgetRolling {
		return w.Length >= minRolling && w.Length <= maxRolling && w.Zone == ""
	}
	return int(w.Unit) < len(budgetUnits) && w.Length == 0
}

// BudgetKey stands for one budget: its document's scope and name, and its id.
// What it says may change, the key does not.
type BudgetKey [16]byte

// Key of a budget in a snapshot.
func (b *Budget) Key() BudgetKey {
	return KeyOfBudget(b.Ref.Scope, b.Ref.Doc, b.ID)
}

// KeyOfBudget is the key by the parts of the name.
func KeyOfBudget(scope, doc, id string) BudgetKey {
	sum := sha256.Sum256([]byte(strconv.Quote(scope) + strconv.Quote(doc) + strconv.Quote(id)))
	return BudgetKey(sum[:16])
}

// Covers says whether calls of a model count.
func (b *Budget) Covers(model string) bool {
	if len(b.Models) == 0 {
		return true
	}
	for _, p := range b.Models {
		if p.Matches(model) {
			return true
		}
	}
	return false
}

// Deed is the strictest that holds when so many percent of the limit are spent.
// ok is false below the first of them.
func (b *Budget) Deed(percent int64) (deed BudgetDeed, ok bool) {
	for _, a := range b.OnAlert {
		if percent >= int64(a.At) {
			deed, ok = max(deed, a.Do), true
		}
	}
	return deed, ok
}

// Who is the selector of the account in which a principal's calls count.
func (b *Budget) Who(p scope.Principal) string {
	sel := b.Selects
	for _, part := range []struct {
		bit  BudgetSplit
		to   *scope.Pattern
		name string
	}{{PerOrg, &sel.Org, p.Org}, {PerTeam, &sel.Team, p.Team}, {PerAgent, &sel.Agent, p.Agent}, {PerSandbox, &sel.Sandbox, p.Sandbox}} {
		if b.Per&part.bit != 0 {
			*part.to = scope.Exact(part.name)
		}
	}
	return sel.String()
}

// PerModel says whether each model has an account of its own.
func (b *Budget) PerModel() bool { return b.Per&PerModel != 0 }

// Budgets are those that count calls of a principal, in the order of their names.
// The slice is fresh, what it points to is the snapshot's.
func (s *Snapshot) Budgets(p scope.Principal) (out []*Budget) {
	for i := range s.budgets {
		if b := &s.budgets[i]; b.Selects.Matches(p, "", "") {
			out = append(out, b)
		}
	}
	return out
}

// AllBudgets are all of them.
func (s *Snapshot) AllBudgets() []*Budget {
	out := make([]*Budget, len(s.budgets))
	for i := range s.budgets {
		out[i] = &s.budgets[i]
	}
	return out
}

// addBudgets takes those of a document into the snapshot.
func (s *Snapshot) addBudgets(d *Document) {
	for _, b := range d.Policy.Budgets {
		b.Ref = RuleRef{Doc: d.Name, ID: b.ID, File: d.File, Line: b.Line, Scope: d.Scope.String()}
		b.Selects = d.Scope
		if b.For != nil {
			var ok bool
			if b.Selects, ok = d.Scope.Intersect(*b.For); !ok {
				continue // selects nobody; Parse refuses it
			}
		}
		s.budgets = append(s.budgets, b)
	}
}

// parseUSD reads "500 USD" or "0.25 USD" to nano-dollars, exactly.
func parseUSD(s string) (int64, error) {
	number, ok := strings.CutSuffix(s, " USD")
	whole, frac, dot := strings.Cut(number, ".")
	if !ok || whole == "" || len(whole) > 9 || len(frac) > 9 || dot && frac == "" || strings.Trim(whole+frac, "0123456789") != "" || len(whole) > 1 && whole[0] == '0' {
		return 0, fmt.Errorf("%s is not an amount; for example \"500 USD\" or \"0.25 USD\"", quote(s))
	}
	n, err := strconv.ParseInt(whole+frac+strings.Repeat("0", 9-len(frac)), 10, 64)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%s is not an amount above zero; for example \"500 USD\"", quote(s))
	}
	return n, nil
}

// ParseUSD reads an amount as documents have it, with or without the space.
func ParseUSD(s string) (int64, error) {
	if n, ok := strings.CutSuffix(s, "USD"); ok {
		s = strings.TrimSuffix(n, " ") + " USD"
	}
	return parseUSD(s)
}

// FormatUSD prints nano-dollars exactly, with at least two decimals: "12.50 USD".
func FormatUSD(nano int64) string {
	sign, n := "", uint64(nano)
	if nano < 0 {
		sign, n = "-", -n
	}
	frac := strings.TrimRight(fmt.Sprintf("%09d", n%NanoPerUSD), "0")
	return sign + strconv.FormatUint(n/NanoPerUSD, 10) + "." + frac + strings.Repeat("0", max(0, 2-len(frac))) + " USD"
}
