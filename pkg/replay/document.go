// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ringfence/ringfence/pkg/policy"
)

// Document writes rules as Policy documents, one for each agent, with what they
// come from as comments. It is parsed back: an error says what no document can
// hold.
func Document(rules []Learned, left map[string]uint64, beyond uint64) (string, error) {
	var b strings.Builder
	agent, ids, names := "", map[string]int{}, map[string]int{}
	for i := range rules {
		r := &rules[i]
		if r.Agent != agent {
			if agent != "" {
				b.WriteString("---\n")
			}
			agent, ids = r.Agent, map[string]int{}
			fmt.Fprintf(&b, "apiVersion: %s\nkind: Policy\nmetadata:\n  name: %s\n  description: What was used, or refused, without a rule that allows it\nscope: %s\negress:\n",
				policy.APIVersion, strconv.Quote("learned-"+id(name(agent), names)), strconv.Quote(agent))
		}
		fmt.Fprintf(&b, "  # %s, last %s\n", r.howOften(), r.Last.UTC().Format("2006-01-02 15:04:05"))
		for _, n := range r.Names {
			fmt.Fprintf(&b, "  # for %s\n", n)
		}
		rule, err := policy.NewEgressRule(policy.Allow, r.Target)
		if err != nil {
			return "", err
		}
		rule.ID, rule.HTTP = id(r.Target, ids), r.Request
		b.WriteString(rule.OneLine())
	}
	if text := b.String(); text != "" {
		if _, problems := policy.Parse("learned.yaml", []byte(text)); len(problems) > 0 {
			return "", policy.Problems(problems)
		}
	}
	for i, why := range slices.Sorted(maps.Keys(left)) {
		if i == 0 {
			b.WriteString("# Nothing was learned from these:\n")
		}
		fmt.Fprintf(&b, "# %s %s\n", times(left[why]), printable(why))
	}
	if beyond > 0 {
		fmt.Fprintf(&b, "# %s more than %d different destinations: learn from fewer\n", times(beyond), MaxLearned)
	}
	return b.String(), nil
}

func (r *Learned) howOften() string {
	switch {
	case r.Passed == 0:
		return "refused " + times(r.Refused)
	case r.Refused == 0:
		return "used " + times(r.Passed)
	}
	return "used " + times(r.Passed) + ", refused " + times(r.Refused)
}

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return strconv.FormatUint(n, 10) + " times"
}

// printable keeps what a sandbox chose in one line of a comment.
func printable(s string) string {
	q := strconv.QuoteToASCII(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// name is the last part of an agent's scope, as a name of a document.
func name(agent string) string {
	_, last, _ := strings.Cut(agent, "/agent:")
	return last
}

// id makes a name of a text, each once. taken counts those that are.
func id(text string, taken map[string]int) string {
	name := policy.NameOf(text, func(s string) bool { return taken[s] > 0 })
	taken[name]++
	return name
}
