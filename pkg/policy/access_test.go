// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const accessHead = "apiVersion: ringfence.dev/v1\nkind: Access\nmetadata: {name: p}\nscope: org:acme/team:pay\n"

func accessDoc(binding string) string { return accessHead + "bindings:\n  - " + binding + "\n" }

func TestAccessSaysWho(t *testing.T) {
	docs, problems := Parse("f", []byte(accessDoc(`{role: policy-author, users: [alice, "uid:0", 'CORP\bob', "c@x.org", "pc$"], groups: ["gid:4294967294", eng]}`)+
		"  - {role: viewer, groups: [eng]}\n"))
	if len(problems) > 0 || len(docs) != 1 {
		t.Fatal(problems)
	}
	a := docs[0].Access
	spelt := func(list []Subject) (out []string) {
		for _, s := range list {
			out = append(out, s.Spell())
		}
		return out
	}
	users, groups := spelt(a.Bindings[0].Users), spelt(a.Bindings[0].Groups)
	if docs[0].Kind != KindAccess || a.Name != "p" || a.Scope.String() != "org:acme/team:pay" || a.Bindings[0].Role != RolePolicyAuthor ||
		!slices.Equal(users, []string{"alice", "uid:0", `CORP\bob`, "c@x.org", "pc$"}) || !slices.Equal(groups, []string{"gid:4294967294", "eng"}) || a.Bindings[1].Role != RoleViewer {
		t.Errorf("%+v %q %q", a, users, groups)
	}
	if s := a.Bindings[0].Users[1]; s.Line != 6 || s.Col != 42 {
		t.Errorf("place of a subject: %d:%d", s.Line, s.Col)
	}
	snap, problems := Compile(1, docs)
	if len(problems) > 0 || len(snap.Access()) != 1 || snap.Rules() != 0 {
		t.Fatalf("%v %+v", problems, snap.Access())
	}
	b, err := snap.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "alice") {
		t.Error("the gateway is told who operates the node")
	}
}

func TestAccessMistakesHaveTheirPlace(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"no scope", strings.Replace(accessDoc("{role: viewer, users: [a]}"), "scope: org:acme/team:pay\n", "", 1), `f:1:1: Access needs the field "scope"`},
		{"no bindings", accessHead, `f:1:1: Access needs the field "bindings"`},
		{"bindings is no list", accessHead + "bindings: alice\n", `f:5:11: bindings must be a list`},
		{"binding is no mapping", accessDoc("alice"), `f:6:5: binding must be a mapping, found a string "alice"`},
		{"scope with a tool", strings.Replace(accessDoc("{role: viewer, users: [a]}"), "team:pay", "tool:x", 1), `names a server or tool`},
		{"no role", accessDoc("{users: [a]}"), `f:6:5: binding needs the field "role"`},
		{"misspelt role", accessDoc("{role: aprover, users: [a]}"), `f:6:12: unknown role "aprover" (did you mean "approver"?)`},
		{"role none", accessDoc("{role: none, users: [a]}"), `f:6:12: unknown role "none"`},
		{"role in capitals", accessDoc("{role: Admin, users: [a]}"), `unknown role "Admin"`},
		{"nobody", accessDoc("{role: viewer}"), `f:6:5: the binding names nobody`},
		{"empty list", accessDoc("{role: viewer, users: []}"), `users is an empty list`},
		{"misspelt users", accessDoc("{role: viewer, user: [a]}"), `f:6:20: unknown field "user" in binding (did you mean "users"?)`},
		{"a number", accessDoc("{role: viewer, users: [1000]}"), `f:6:28: an entry of users must be a string, found a number "1000"`},
		{"a number in quotes", accessDoc(`{role: viewer, users: ["1000"]}`), `"1000" could be a name or a number (write uid:1000 for the number)`},
		{"group as user", accessDoc(`{role: viewer, users: ["gid:7"]}`), `"gid:7" belongs under groups (write uid:N here)`},
		{"user as group", accessDoc(`{role: viewer, groups: ["uid:7"]}`), `"uid:7" belongs under users (write gid:N here)`},
		{"uid -1 is nobody's", accessDoc(`{role: viewer, users: ["uid:4294967295"]}`), "is not uid:N"},
		{"uid too large", accessDoc(`{role: viewer, users: ["uid:4294967296"]}`), "is not uid:N"},
		{"uid 0 spelt otherwise", accessDoc(`{role: viewer, users: ["uid:00"]}`), "is not uid:N"},
		{"uid with a sign", accessDoc(`{role: viewer, users: ["uid:+1"]}`), "is not uid:N"},
		{"no number", accessDoc(`{role: viewer, users: ["uid:"]}`), "is not uid:N"},
		{"pattern", accessDoc(`{role: viewer, users: ["*"]}`), `"*" is no name of a user or group`},
		{"list in a string", accessDoc(`{role: viewer, users: ["a,b"]}`), "is no name of a user or group"},
		{"passwd line", accessDoc(`{role: viewer, users: ["a:x:0"]}`), "is no name of a user or group"},
		{"option", accessDoc(`{role: viewer, users: ["-a"]}`), "is no name of a user or group"},
		{"twice", accessDoc(`{role: viewer, users: [a, a]}`), `"a" is listed twice in users`},
		{"rules in it", accessDoc("{role: viewer, users: [a]}") + "egress: []\n", `unknown field "egress" in Access`},
	} {
		t.Run(c.name, func(t *testing.T) {
			docs, problems := Parse("f", []byte(c.text))
			if len(docs) != 0 || !strings.Contains(Problems(problems).Error(), c.want) {
				t.Errorf("got %v, want %s", Problems(problems), c.want)
			}
		})
	}
	many := strings.Repeat("{role: viewer, users: [a]}\n  - ", maxSubjects)
	if _, problems := Parse("f", []byte(accessDoc(many+"{role: viewer, users: [a]}"))); len(problems) != 1 {
		t.Errorf("too many bindings: %d problems", len(problems))
	}
	half := "{role: viewer, users: [u"
	for i := range maxSubjects/2 + 1 {
		half += fmt.Sprintf(", u%d", i)
	}
	half += "]}"
	if docs, problems := Parse("f", []byte(accessDoc(half))); len(docs) != 1 {
		t.Errorf("control: half as many names: %v", problems)
	}
	if _, problems := Parse("f", []byte(accessDoc(half+"\n  - "+half))); len(problems) != 1 || !strings.Contains(problems[0].Msg, "more than 1000") {
		t.Errorf("too many names: %v", problems)
	}
	if docs, problems := Parse("f", []byte(accessHead+"bindings: []\n")); len(docs) != 1 || len(problems) != 0 {
		t.Errorf("a document that gives nobody anything: %v", problems)
	}
}

func TestAccessDocumentsOfOneName(t *testing.T) {
	for scopes, clash := range map[[2]string]bool{{"org:a", "org:b"}: false, {"org:a", "org:a"}: true} {
		var text string
		for _, s := range scopes {
			text += fmt.Sprintf("---\napiVersion: ringfence.dev/v1\nkind: Access\nmetadata: {name: same}\nscope: %s\nbindings: []\n", s)
		}
		docs, problems := Parse("f", []byte(text))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if _, problems := Compile(1, docs); (len(problems) > 0) != clash {
			t.Errorf("%v: %v", scopes, problems)
		}
	}
}

// TestRolesAreWhatTheReferenceSays is the table of rights, written once more
// by hand.
func TestRolesAreWhatTheReferenceSays(t *testing.T) {
	rights := []Right{RightSee, RightLaunch, RightApprove, RightAuthor, RightAdmin}
	want := map[Role]string{
		RoleNone: ".....", RoleViewer: "s....", RoleLauncher: ".l...", RoleApprover: "s.p..", RolePolicyAuthor: "s..a.", RoleAdmin: "slpaA",
	}
	for role, marks := range want {
		for i, right := range rights {
			if got := role.Has(right); got != (marks[i] != '.') {
				t.Errorf("%s has %d: %v", role, right, got)
			}
		}
		if role.Has(0) {
			t.Errorf("%s has no right at all, which is a right", role)
		}
	}
	if Role(99).Has(RightSee) || Role(99).String() != "none" || RoleViewer.Has(RightSee|RightAdmin) {
		t.Error("rights out of nothing")
	}
	if len(roles) != len(want)-1 {
		t.Errorf("roles: %v", roles)
	}
	for _, r := range roles {
		if !strings.Contains(Reference(KindAccess), "| `"+r.name+"` |") {
			t.Errorf("%s is not in the reference", r.name)
		}
	}
}
