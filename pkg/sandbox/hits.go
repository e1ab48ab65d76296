// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"maps"

	"github.com/ringfence/ringfence/pkg/policy"
)

// RuleKey names a rule beyond one snapshot: "document/id" and "file:line". One
// that moves in its file counts anew.
type RuleKey struct{ Rule, At string }

// KeyOf is the key of a rule.
func KeyOf(r policy.RuleRef) RuleKey { return RuleKey{r.String(), ruleAt(r)} }

// RuleUse is what a rule has in the kernel for all sandboxes together.
type RuleUse struct {
	Sandboxes    int // that have an entry of it
	Names, CIDRs int
	Hits         uint64 // calls that it decided in the kernel, also of sandboxes that have ended
}

// RuleUses walks the kernel's tables. Hits are those since this keeper started,
// and of living sandboxes since their present table was written; what a former
// keeper wrote and this one has not replaced is left out.
func (m *Manager) RuleUses() (map[RuleKey]RuleUse, error) {
	uses, err := m.o.Fence.RuleUses()
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[RuleKey]RuleUse, len(m.hits))
	for k, n := range m.hits {
		out[k] = RuleUse{Hits: n}
	}
	for k, u := range uses {
		key, ok := m.ruleLocked(k.Policy, k.Rule)
		if !ok {
			continue
		}
		sum := out[key]
		if u.Names+u.CIDRs > 0 {
			sum.Sandboxes++
		}
		sum.Names, sum.CIDRs, sum.Hits = sum.Names+u.Names, sum.CIDRs+u.CIDRs, sum.Hits+u.Hits
		out[key] = sum
	}
	return out, nil
}

// ruleLocked finds a rule by its number in the snapshot that a table was made of.
func (m *Manager) ruleLocked(table, rule uint32) (RuleKey, bool) {
	snap := m.compiled[table]
	if snap == nil {
		return RuleKey{}, false
	}
	ref, _, ok := snap.Rule(rule)
	return KeyOf(ref), ok
}

// keptHits bounds the rules whose counts are kept.
const keptHits = 200000

// keepHits takes the counts of tables that are in no use any more. The lock is
// not held over the walk: the counts of a table that comes into use meanwhile are
// taken too, and are in the right place.
func (m *Manager) keepHits() error {
	m.mu.Lock()
	used := maps.Clone(m.tables)
	m.mu.Unlock()
	taken, err := m.o.Fence.TakeHits(func(t uint32) bool { return t < NodeOwn && !used[t] })
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, n := range taken {
		if key, ok := m.ruleLocked(k.Policy, k.Rule); ok {
			m.hits[key] += n
		}
	}
	for t := range m.compiled {
		if !m.tables[t] && !used[t] { // counts of one that was dropped meanwhile are still to be taken
			delete(m.compiled, t)
		}
	}
	if len(m.hits) > keptHits { // of rules that are long gone, mostly
		clear(m.hits)
	}
	if err != nil {
		return fmt.Errorf("counts of rules: %w", err)
	}
	return nil
}
