// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/scope"
)

func allowRule(t testing.TB, target, whom string) Rule {
	t.Helper()
	r, err := NewEgressRule(Allow, target)
	if err != nil {
		t.Fatal(err)
	}
	if whom != "" {
		sel, err := scope.ParseSelector(whom)
		if err != nil {
			t.Fatal(err)
		}
		r.For = &sel
	}
	return r
}

func TestIntoAddsOneRuleAndNothingElse(t *testing.T) {
	sel, _ := scope.ParseSelector("org:acme/team:pay")
	agent := "org:acme/team:pay/agent:npm"
	var docs []Document
	add := func(r Rule, name string, rules int) Document {
		t.Helper()
		before, after, err := Into(docs, "approved", sel, r)
		if err != nil || after.Name != name || after.Scope != sel || len(after.Policy.Egress) != rules || !strings.HasPrefix(string(after.Raw), string(before.Raw)) {
			t.Fatalf("%v: %s\n%s", err, after.Name, after.Raw)
		}
		docs = append(docs[:0:0], docs...)
		for i := range docs {
			if docs[i].Name == after.Name {
				docs = append(docs[:i], docs[i+1:]...)
				break
			}
		}
		docs = append(docs, after)
		return after
	}
	const name = "approved-org-acme-team-pay"
	add(allowRule(t, "a.test:443", agent), name, 1)
	r := allowRule(t, "a.test:443", "org:acme/team:pay/agent:pip")
	r.ResolvesTo = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	d := add(r, name, 2)
	if e := d.Policy.Egress[1]; e.ID != "a.test-443-2" || e.For.Agent != scope.Exact("pip") || len(e.ResolvesTo) != 1 {
		t.Errorf("%+v", e)
	}
	if again := add(r, name, 2); string(again.Raw) != string(d.Raw) {
		t.Errorf("it was written twice: %s", again.Raw)
	}

	t.Run("a name that is taken by another scope", func(t *testing.T) {
		other, _ := scope.ParseSelector("org:acme-team-pay")
		_, squat, err := Into(nil, "approved", other, allowRule(t, "b.test:443", ""))
		if err != nil || squat.Name != name {
			t.Fatal(err, squat.Name)
		}
		_, after, err := Into([]Document{squat}, "approved", sel, allowRule(t, "c.test:443", agent))
		if err != nil || after.Name != name+"-2" {
			t.Errorf("%v %s", err, after.Name)
		}
	})
	t.Run("a document that somebody has changed", func(t *testing.T) {
		text := strings.Replace(string(d.Raw), "egress:\n", "egress:\n  # why\n", 1)
		for name, edit := range map[string]struct {
			text string
			kept bool
		}{
			"a comment":          {text, true},
			"a section after it": {text + "inference:\n  - {id: m, deny: \"x\"}\n", false},
			"flow style":         {strings.SplitAfter(text, "egress:")[0] + " [{id: a, allow: \"a.test:443\"}]\n", false},
		} {
			edited, problems := Parse("f", []byte(edit.text))
			if len(problems) > 0 {
				t.Fatal(name, problems)
			}
			_, after, err := Into(edited, "approved", sel, allowRule(t, "z.test:443", agent))
			if err != nil || (after.Name == edited[0].Name) != edit.kept || edit.kept && !strings.HasPrefix(string(after.Raw), strings.TrimRight(edit.text, "\n")) {
				t.Errorf("%s: %v %s\n%s", name, err, after.Name, after.Raw)
			}
		}
	})
}

// FuzzInto: whatever text a document has, one more rule changes none of those
// that stand in it.
func FuzzInto(f *testing.F) {
	head := "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: approved-org-a}\nscope: org:a\n"
	for _, rest := range []string{"egress:\n  - {id: x, allow: \"a:443\"}\n", "egress:\n- id: x\n  allow: \"a:443\"\n", "egress: []\n", "inference: []\n", "egress:\n  - id: x\n    deny: |\n      a.b\n"} {
		f.Add(head+rest, "b.test:443")
	}
	sel, _ := scope.ParseSelector("org:a")
	f.Fuzz(func(t *testing.T, text, target string) {
		docs, problems := Parse("f", []byte(text))
		r, err := NewEgressRule(Allow, target)
		if len(problems) > 0 || len(docs) != 1 || docs[0].Kind != KindPolicy || err != nil {
			return
		}
		before, after, err := Into(docs, "approved", sel, r)
		if err != nil {
			return
		}
		n := 0
		if before.Policy != nil {
			n = len(before.Policy.Egress)
			if !sameDigests(before.Policy.Egress, after.Policy.Egress[:n]) {
				t.Fatalf("rules have changed:\n%s\n%s", before.Raw, after.Raw)
			}
		}
		last := after.Policy.Egress[len(after.Policy.Egress)-1]
		if len(after.Policy.Egress) > n && (last.Effect != Allow || last.Target() != r.Target()) {
			t.Fatalf("another rule was added: %+v", last)
		}
	})
}
