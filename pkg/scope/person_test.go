// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"strings"
	"testing"
)

func TestParsePerson(t *testing.T) {
	for text, want := range map[string]Subject{
		"user:alice":      {Name: "alice"},
		"group:sre":       {Group: true, Name: "sre"},
		"uid:0":           {Number: true},
		"gid:4294967294":  {Group: true, ID: 4294967294, Number: true},
		`user:CORP\bob`:   {Name: `CORP\bob`},
		"group:c@x.org":   {Group: true, Name: "c@x.org"},
		"user:pc$":        {Name: "pc$"},
		"group:a+b.c-d_e": {Group: true, Name: "a+b.c-d_e"},
	} {
		got, err := ParsePerson(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v %v", text, got, err)
		}
		again, err := ParseSubject(got.Spell(), got.Group)
		if err != nil || again != got {
			t.Errorf("%s in a list of one kind: %+v %v", text, again, err)
		}
	}
	for _, text := range []string{"", "alice", "user:", "group:", ":alice", "uid:", "uid:-1", "uid:+1", "uid:01", "uid:4294967295", "gid:4294967296", "uid:x", "User:alice", "group:a b",
		"user:a\x1b", "user:a:b", "user:uid:5", "group:gid:5", "user:1000", "group:*", "user:" + strings.Repeat("x", 257)} {
		if got, err := ParsePerson(text); err == nil || got != (Subject{}) {
			t.Errorf("%q was taken as %+v", text, got)
		}
	}
}

func TestSubjectIs(t *testing.T) {
	for _, c := range []struct {
		s    Subject
		id   uint32
		name string
		is   bool
	}{
		{Subject{Name: "alice"}, 7, "alice", true}, {Subject{Name: "alice"}, 7, "bob", false}, {Subject{Name: "alice"}, 7, "", false},
		{Subject{ID: 7, Number: true}, 7, "", true}, {Subject{ID: 7, Number: true}, 8, "alice", false}, {Subject{}, 0, "", false}, {Subject{Number: true}, 0, "root", true},
	} {
		if c.s.Is(c.id, c.name) != c.is {
			t.Errorf("%+v means %d %q: %v", c.s, c.id, c.name, !c.is)
		}
	}
}

func TestOperator(t *testing.T) {
	if a, b := Operator(1000, "alice"), Operator(1000, ""); a != "uid=1000(alice)" || b != "uid=1000" {
		t.Error(a, b)
	}
}

func FuzzPerson(f *testing.F) {
	for _, s := range []string{"user:alice", "uid:7", "group:sre", "gid:0", "alice", "uid:007"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParsePerson(text)
		if (err != nil) != (s == Subject{}) {
			t.Fatalf("%q: %+v with %v", text, s, err)
		}
		if err != nil {
			return
		}
		if again, err := ParseSubject(s.Spell(), s.Group); err != nil || again != s {
			t.Errorf("%q is %+v in one list and %+v (%v) in the other", text, s, again, err)
		}
	})
}
