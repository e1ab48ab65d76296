// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Into authors one more allow rule for a scope, in the document that is kept for
// such rules of that scope: base names it, the scope follows, and a number where
// another document has that name. before is the document as it stands in docs,
// without text when there is none. Its text is only added to: one that does not
// end in a list of egress rules as authored here is left alone, and the next name
// is taken. The rule's id is made of its target; one that stands there with the
// same words is not written again, and after is before.
func Into(docs []Document, base string, sel scope.Selector, r Rule) (before, after Document, err error) {
	if r.Section != SectionEgress || r.Effect != Allow {
		return before, after, fmt.Errorf("policy: only an allow of egress is added to a document")
	}
	stem := slug(base + "-" + strings.NewReplacer(":", "-", "/", "-").Replace(sel.String()))
	for n := 1; ; n++ {
		name := stem
		if n > 1 {
			name += "-" + strconv.Itoa(n)
		}
		i := slices.IndexFunc(docs, func(d Document) bool { return d.Kind == KindPolicy && d.Name == name })
		if i < 0 {
			r.ID = r.idAmong(nil)
			after, err = authored(name, ruleText(name, sel, r), sel, 1)
			return Document{Kind: KindPolicy, Name: name, Scope: sel}, after, err
		}
		if docs[i].Scope != sel || docs[i].Policy == nil {
			continue
		}
		if after, ok := docs[i].with(r); ok {
			return docs[i], after, nil
		}
	}
}

// authored reads text back: nothing is written that is not exactly what was
// meant.
func authored(name, text string, sel scope.Selector, rules int) (Document, error) {
	docs, problems := Parse(name+".yaml", []byte(text))
	if len(problems) > 0 {
		return Document{}, Problems(problems)
	}
	if len(docs) != 1 || docs[0].Name != name || docs[0].Scope != sel || docs[0].Policy == nil || len(docs[0].Policy.Egress) != rules {
		return Document{}, fmt.Errorf("policy: the authored text of %s is not what was meant", name)
	}
	return docs[0], nil
}

// with is the document with one more rule at the end of its text.
func (d *Document) with(r Rule) (Document, bool) {
	have := d.Policy.Egress
	for i := range have {
		if h := &have[i]; h.Effect == Allow && h.Target() == r.Target() && sameFor(h.For, r.For) && slices.Equal(h.ResolvesTo, r.ResolvesTo) && h.HTTP == nil && h.When == nil && !h.Shadow {
			return *d, true
		}
	}
	r.ID = r.idAmong(have)
	text := strings.TrimRight(string(d.Raw), "\n") + "\n" + r.item()
	after, err := authored(d.Name, text, d.Scope, len(have)+1)
	if err != nil || !sameDigests(have, after.Policy.Egress[:len(have)]) || len(after.Policy.Inference) != len(d.Policy.Inference) || len(after.Policy.Tools) != len(d.Policy.Tools) {
		return Document{}, false
	}
	return after, true
}

func sameFor(a, b *scope.Selector) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

func sameDigests(a, b []Rule) bool {
	return slices.EqualFunc(a, b, func(x, y Rule) bool { return x.ID == y.ID && x.Digest == y.Digest })
}

// idAmong is a name for the rule that none of the others has.
func (r *Rule) idAmong(others []Rule) string {
	return NameOf(r.targetText(), func(id string) bool { return slices.ContainsFunc(others, func(o Rule) bool { return o.ID == id }) })
}
