// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"errors"
	"strings"
	"testing"
)

func TestParsePrincipal(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{in: "org:acme/team:payments/agent:invoice-bot", want: "org:acme/team:payments/agent:invoice-bot"},
		{in: "org:acme/team:p/agent:a/sandbox:s1", want: "org:acme/team:p/agent:a/sandbox:s1"},
		{in: "agent:a/team:p/org:acme", want: "org:acme/team:p/agent:a"},
		{in: "org:a%20b/team:%2A/agent:%41", want: "org:a%20b/team:%2A/agent:A"},
		{in: "org:acme/team:p", err: "agent must name exactly one"},
		{in: "org:*/team:p/agent:a", err: "org must name exactly one"},
		{in: "org:acme/team:p/agent:a*", err: "agent must name exactly one"},
		{in: "org:acme/team:p/agent:a/sandbox:*", err: "must not be a wildcard"},
		{in: "org:acme/team:p/agent:a/sandbox:x*", err: "must not be a wildcard"},
		{in: "org:acme/team:p/agent:a/tool:*", err: "no server and no tool"},
		{in: "org:acme/team:p/agent:a/server:jira", err: "no server and no tool"},
		{in: "org:acme/team:p/agent:", err: "has no value"},
		{in: "", err: "is empty"},
	} {
		p, err := ParsePrincipal(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: err = %v, want %q", c.in, err, c.err)
			}
			continue
		}
		if err != nil || p.String() != c.want || p.Valid() != nil {
			t.Errorf("%q = %q, %v, want %q", c.in, p, err, c.want)
		}
	}
	if (Principal{Org: "a", Team: "b"}).Valid() == nil {
		t.Error("a principal without agent is valid")
	}
}

func TestParseSelector(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{in: "org:acme/team:*/agent:*/server:jira/tool:read_*", want: "org:acme/server:jira/tool:read_*"},
		{in: "org:*", want: "org:*"},
		{in: "tool:*", want: "org:*"},
		{in: "team:pay*", want: "team:pay*"},
		{in: "server:jira/org:acme", want: "org:acme/server:jira"},
		{in: "org:a%2fb", want: "org:a%2Fb"},
		{in: "org:a%2A", want: "org:a%2A"},
		{in: "org:a@b.c_d-1", want: "org:a@b.c_d-1"},
		{in: "orgs:acme", err: `did you mean "org"`},
		{in: "Team:x", err: `did you mean "team"`},
		{in: "model:x", err: "unknown key"},
		{in: "org:acme//team:x", err: "empty segment"},
		{in: "/org:acme", err: "empty segment"},
		{in: "org:acme/", err: "empty segment"},
		{in: "org:", err: "no value"},
		{in: "org", err: "not key:value"},
		{in: "org:a/org:b", err: "given twice"},
		{in: "org:a*b", err: "at the end only"},
		{in: "org:**", err: "at the end only"},
		{in: "org:a b", err: "must be written %20"},
		{in: "org:ü", err: "must be written %"},
		{in: "org:%4", err: "two hexadecimal"},
		{in: "org:%zz", err: "two hexadecimal"},
		{in: "org:a:b", err: "must be written %3A"},
		{in: "org:" + strings.Repeat("a", 256), err: "longer than 255"},
	} {
		s, err := ParseSelector(c.in)
		if c.err != "" {
			var se *SyntaxError
			if err == nil || !strings.Contains(err.Error(), c.err) || !errors.As(err, &se) {
				t.Errorf("%q: err = %v, want %q", c.in, err, c.err)
			}
			continue
		}
		if err != nil || s.String() != c.want {
			t.Errorf("%q = %q, %v, want %q", c.in, s, err, c.want)
		}
	}
}

func TestSyntaxErrorPointsAtTheSegment(t *testing.T) {
	_, err := ParseSelector("org:acme/tema:x/agent:y")
	var se *SyntaxError
	if !errors.As(err, &se) || se.Offset != 9 || se.Text != "tema:x" {
		t.Errorf("%+v", se)
	}
}

func mustSelector(t *testing.T, s string) Selector {
	t.Helper()
	sel, err := ParseSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	return sel
}

func TestSelectorMatches(t *testing.T) {
	bot := Principal{"acme", "payments", "invoice-bot", ""}
	run := Principal{"acme", "payments", "invoice-bot", "s1"}
	for _, c := range []struct {
		sel          string
		p            Principal
		server, tool string
		want         bool
	}{
		{"org:*", bot, "", "", true},
		{"org:acme", bot, "", "", true},
		{"org:Acme", bot, "", "", false},
		{"org:acm", bot, "", "", false},
		{"org:acm*", bot, "", "", true},
		{"team:pay*/agent:invoice-bot", bot, "", "", true},
		{"sandbox:s1", bot, "", "", false},
		{"sandbox:s*", bot, "", "", false},
		{"sandbox:*", bot, "", "", true},
		{"sandbox:s1", run, "", "", true},
		{"server:jira/tool:read_*", bot, "jira", "read_issue", true},
		{"server:jira/tool:read_*", bot, "jira", "write", false},
		{"server:jira", bot, "", "", false},
		{"org:acme", bot, "jira", "write", true},
	} {
		if got := mustSelector(t, c.sel).Matches(c.p, c.server, c.tool); got != c.want {
			t.Errorf("%s matches %s %s/%s = %v", c.sel, c.p, c.server, c.tool, got)
		}
	}
	if (Selector{}).Matches(bot, "", "") {
		t.Error("the zero selector matches")
	}
	if !bot.Selector().Matches(run, "x", "y") || run.Selector().Matches(bot, "", "") {
		t.Error("Principal.Selector selects the wrong principals")
	}
}

func TestContainmentIsSyntactic(t *testing.T) {
	for _, c := range []struct {
		a, b              string
		aContains, bHolds bool
	}{
		{"org:*", "org:acme", true, false},
		{"org:acme", "org:acme/team:x", true, false},
		{"org:ac*", "org:acme", true, false},
		{"org:ac*", "org:acm*", true, false},
		{"org:acme", "org:acme", true, true},
		{"org:acme", "team:x", false, false},
		{"team:x/tool:read_*", "team:x", false, true},
		{"org:a", "org:b", false, false},
	} {
		a, b := mustSelector(t, c.a), mustSelector(t, c.b)
		if a.Contains(b) != c.aContains || b.Contains(a) != c.bHolds {
			t.Errorf("%s vs %s: %v %v", a, b, a.Contains(b), b.Contains(a))
		}
		r, ok := a.Intersect(b)
		if ok && (!a.Contains(r) || !b.Contains(r)) {
			t.Errorf("%s ∩ %s = %s is not in both", a, b, r)
		}
	}
	if _, ok := mustSelector(t, "org:a").Intersect(mustSelector(t, "org:b")); ok {
		t.Error("disjoint selectors intersect")
	}
}

func TestLevel(t *testing.T) {
	for sel, want := range map[string]Level{
		"org:*": LevelOrg, "org:acme": LevelOrg, "org:acme/team:*": LevelOrg, "team:x": LevelTeam,
		"org:acme/team:*/agent:a*": LevelAgent, "sandbox:s": LevelSandbox,
	} {
		if got := mustSelector(t, sel).Level(); got != want {
			t.Errorf("%s: %v, want %v", sel, got, want)
		}
	}
}

func TestPattern(t *testing.T) {
	for _, bad := range []string{"", "a*b", "**"} {
		if _, err := ParsePattern(bad); err == nil {
			t.Errorf("%q parses", bad)
		}
	}
	p, err := ParsePattern("meta/llama-3:*")
	if err != nil || !p.Matches("meta/llama-3:70b") || p.Matches("meta/llama-4") || p.String() != "meta/llama-3:*" {
		t.Errorf("%v %v", p, err)
	}
}

func FuzzParseSelector(f *testing.F) {
	for _, s := range []string{"org:*", "org:acme/team:*/agent:*/server:jira/tool:read_*", "org:%00%ff", "tool:*", "org:a/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		s, err := ParseSelector(in)
		if err != nil {
			return
		}
		again, err := ParseSelector(s.String())
		if err != nil || again != s {
			t.Fatalf("%q -> %q -> %+v, %v", in, s, again, err)
		}
		if !s.Contains(s) || !All().Contains(s) {
			t.Fatalf("%q is not in itself or in everything", in)
		}
		if p, err := ParsePrincipal(in); err == nil {
			if q, err := ParsePrincipal(p.String()); err != nil || q != p {
				t.Fatalf("principal %q -> %q -> %+v, %v", in, p, q, err)
			}
			if !s.Matches(p, "", "") {
				t.Fatalf("%q does not match itself", in)
			}
		}
	})
}
