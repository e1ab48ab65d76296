// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"cmp"
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
		fmt.Fprintf(&b, "  - {id: %s, allow: %s", strconv.Quote(id(r.Target, ids)), strconv.Quote(r.Target))
		if r.Request != nil {
			fmt.Fprintf(&b, ", http: {methods: [%s], paths: [%s]}", quoted(r.Request.Methods), quoted(r.Request.Paths))
		}
		b.WriteString("}\n")
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

func quoted(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, strconv.Quote(s))
	}
	return strings.Join(out, ", ")
}

// name is the last part of an agent's scope, as a name of a document.
func name(agent string) string {
	_, last, _ := strings.Cut(agent, "/agent:")
	return last
}

// id makes an id of a text, each once. taken holds ids, and of each the last
// number that was put behind it.
func id(target string, taken map[string]int) string {
	base := cmp.Or(plain(strings.ReplaceAll(target, "*", "any")), "x")
	s := base
	for taken[s] > 0 {
		taken[base]++
		s = base + "-" + strconv.Itoa(taken[base])
	}
	taken[s]++
	return s
}

func plain(s string) string {
	b := []byte(s)
	for i, c := range b {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-') {
			b[i] = '-'
		}
	}
	return strings.Trim(string(b[:min(len(b), 100)]), "-.")
}
