// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Questions are infinitely many, but rules tell only finitely many sets of
// them apart: two questions that the same rules speak of are decided alike.
// This file finds one question in each such set. Selectors, models and tools
// are prefixes or single values, hosts are suffixes, addresses are prefixes: of
// any two such sets one holds the other or they have nothing in common, so what
// is in one pattern and in none that it holds is one set.

// valueCells gives one value for each set of values that the patterns tell
// apart, what no pattern names first. The empty value is one only with empty.
func valueCells(patterns []scope.Pattern, empty bool) []string {
	all := append([]scope.Pattern{scope.Any}, patterns...)
	slices.SortFunc(all[1:], func(a, b scope.Pattern) int { return strings.Compare(a.String(), b.String()) })
	var out []string
	seen := map[scope.Pattern]bool{}
	for _, p := range all {
		if seen[p] {
			continue
		}
		seen[p] = true
		if !p.Wild {
			out = append(out, p.Text)
			continue
		}
		var inside []scope.Pattern
		for _, q := range all {
			if q != p && p.Contains(q) {
				inside = append(inside, q)
			}
		}
		if v, ok := freeValue(p.Text, inside, empty); ok {
			out = append(out, v)
		}
	}
	return out
}

// freeValue finds a value that begins with a prefix and that no pattern
// matches. All patterns begin with the prefix.
func freeValue(prefix string, taken []scope.Pattern, empty bool) (string, bool) {
	free := func(v string) bool {
		return (v != "" || empty) && len(v) <= scope.MaxValue && !slices.ContainsFunc(taken, func(p scope.Pattern) bool { return p.Matches(v) })
	}
	for _, more := range []string{"", "other", "x"} {
		if free(prefix + more) {
			return prefix + more, true
		}
	}
	for i := range 256 {
		next := prefix + string([]byte{byte(i + 'a')}) // letters first
		if len(next) > scope.MaxValue {
			break
		}
		if slices.Contains(taken, scope.Pattern{Text: next, Wild: true}) {
			continue
		}
		var below []scope.Pattern
		for _, p := range taken {
			if strings.HasPrefix(p.Text, next) {
				below = append(below, p)
			}
		}
		if v, ok := freeValue(next, below, empty); ok {
			return v, true
		}
	}
	return "", false
}

// principalCells gives one principal for each set of groups that principals
// can be in. most bounds how many; ok is false when there are more.
func principalCells(groups []scope.Selector, most int) (_ []scope.Principal, ok bool) {
	w := principalWalk{groups: groups, most: most, seen: map[string]bool{}}
	left := make([]int, len(groups))
	for i := range left {
		left[i] = i
	}
	w.walk(0, left, scope.Principal{})
	return w.out, len(w.out) <= most
}

type principalWalk struct {
	groups []scope.Selector
	most   int
	seen   map[string]bool
	out    []scope.Principal
}

// walk chooses the values of a principal from one segment on. left are the
// groups that match what is chosen.
func (w *principalWalk) walk(segment int, left []int, p scope.Principal) {
	value := func(p *scope.Principal) *string { return [...]*string{&p.Org, &p.Team, &p.Agent, &p.Sandbox}[segment] }
	if len(w.out) > w.most {
		return
	}
	if segment == 4 {
		if key := fmt.Sprint(left); !w.seen[key] {
			w.seen[key] = true
			w.out = append(w.out, p)
		}
		return
	}
	pattern := func(i int) scope.Pattern {
		g := &w.groups[i]
		return [...]scope.Pattern{g.Org, g.Team, g.Agent, g.Sandbox}[segment]
	}
	var patterns []scope.Pattern
	for _, i := range left {
		patterns = append(patterns, pattern(i))
	}
	seen := map[string]bool{}
	for _, v := range valueCells(patterns, segment == 3) {
		var still []int
		for _, i := range left {
			if pattern(i).Matches(v) {
				still = append(still, i)
			}
		}
		if key := fmt.Sprint(still); !seen[key] {
			seen[key] = true
			q := p
			*value(&q) = v
			w.walk(segment+1, still, q)
		}
	}
}

// hostCells gives one name for each set of names that patterns of these names
// tell apart: each name itself, one label below it, and two; none of the added
// labels makes another of the names.
func hostCells(names []string) []string {
	known := map[string]bool{"": true}
	for _, n := range names {
		known[n] = true
	}
	sorted := []string{}
	for n := range known {
		sorted = append(sorted, n)
	}
	slices.Sort(sorted)
	var out []string
	for _, n := range sorted {
		if _, ok := lookupHost(n); ok {
			out = append(out, n)
		}
		if one, ok := labelBelow(n, known); ok {
			out = append(out, one)
			if two, ok := labelBelow(one, known); ok {
				out = append(out, two)
			}
		}
	}
	return out
}

// labelBelow puts one label before a name so that it is none that is known and
// no host of the table of regional providers.
func labelBelow(name string, known map[string]bool) (string, bool) {
	fits := func(label string) (string, bool) {
		full := label
		if name != "" {
			full += "." + name
		}
		_, ok := lookupHost(full)
		return full, ok && !known[full] && regionalProvider(full) == nil
	}
	for _, label := range []string{"other", "more"} {
		if full, ok := fits(label); ok {
			return full, true
		}
	}
	for i := range len(known) + 2 { // one more than could be taken, and shorter than the words above
		if full, ok := fits("x" + strconv.FormatInt(int64(i), 36)); ok {
			return full, true
		}
	}
	for c := 'a'; c <= 'z'; c++ {
		if full, ok := fits(string(c)); ok {
			return full, true
		}
	}
	return "", false
}

// addrCells gives one address for each set of judged addresses that prefixes
// tell apart.
func addrCells(prefixes []netip.Prefix) []netip.Addr {
	all := slices.Clone(prefixes)
	for i := range special {
		all = append(all, special[i].prefix)
	}
	all = append(all, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"))
	slices.SortFunc(all, netip.Prefix.Compare)
	all = slices.Compact(all)
	var out []netip.Addr
	for _, p := range all {
		var inside []netip.Prefix
		for _, q := range append(all[:len(all):len(all)], hiding...) {
			if q != p && p.Bits() < q.Bits() && p.Contains(q.Addr()) {
				inside = append(inside, q)
			}
		}
		if a, ok := freeAddr(p, inside); ok {
			out = append(out, a)
		}
	}
	return out
}

// freeAddr finds an address of p that none of the prefixes in it holds.
func freeAddr(p netip.Prefix, taken []netip.Prefix) (netip.Addr, bool) {
	if len(taken) == 0 {
		return p.Addr(), true
	}
	if p.IsSingleIP() || slices.Contains(taken, p) {
		return netip.Addr{}, false
	}
	raw := p.Addr().AsSlice()
	raw[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	upper, _ := netip.AddrFromSlice(raw)
	for _, a := range []netip.Addr{p.Addr(), upper} {
		half := netip.PrefixFrom(a, p.Bits()+1)
		var below []netip.Prefix
		for _, q := range taken {
			if half.Contains(q.Addr()) {
				below = append(below, q)
			}
		}
		if a, ok := freeAddr(half, below); ok {
			return a, true
		}
	}
	return netip.Addr{}, false
}
