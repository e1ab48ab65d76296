// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// written is what Allow writes.
func written(t *testing.T, target, sel string) *policy.Document {
	t.Helper()
	rule, err := policy.NewEgressRule(policy.Allow, target)
	if err != nil {
		t.Fatal(err)
	}
	rule.ID, rule.Reason = grantRule, "ringfence allow by uid 0"
	s, err := scope.ParseSelector(sel)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := policy.WithRule(nil, s, rule)
	if err != nil {
		t.Fatal(err)
	}
	return &doc
}

// TestOnlyWhatAllowGaveIsTakenBack puts what Allow writes beside what others
// wrote and looks alike.
func TestOnlyWhatAllowGaveIsTakenBack(t *testing.T) {
	dir := t.TempDir()
	const team = "org:local/team:default"
	const box = team + "/agent:sh/sandbox:aaaa"
	doc := written(t, "x.test:443", team)
	text := string(doc.Raw)
	own := string(written(t, "x.test:443", box).Raw)
	named := func(name string) string {
		return fmt.Sprintf("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: %s}\nscope: org:local\negress:\n  - {id: allow, allow: \"x.test:443\"}\n", name)
	}
	if err := os.WriteFile(filepath.Join(dir, "allow-x.yaml"), []byte(named("by-hand")), 0o600); err != nil {
		t.Fatal(err)
	}
	lib, err := documents.Open(documents.Options{Dir: dir, StateDir: t.TempDir(), Store: newStore(t), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	p := scope.Principal{Org: "local", Team: "default", Agent: "sh", Sandbox: "aaaa"}
	for _, err := range []error{
		lib.Put(byRoot, alwaysFile(doc), text),
		lib.Put(byRoot, "provider-x.yaml", named("no-grant")),
		lib.Put(byRoot, "allow-other-rule.yaml", "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: o}\nscope: org:local\negress:\n  - {id: mine, allow: \"x.test:443\"}\n"),
		lib.SetSandbox("sandbox:aaaa/0-allow-x.yaml", named("run-policy"), p),
		lib.SetSandbox("sandbox:aaaa/"+doc.Name, own, p),
		lib.SetMemory(doc.Name+once+"1", named("once-1")),
		lib.SetMemory(doc.Name+until+"2", named("until-2")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	for _, g := range givenRules(lib.Items()) {
		got[g.doc] += g.mode + g.sandbox
		if g.target.String() != "x.test:443" {
			t.Errorf("%s: %s", g.doc, g.target)
		}
	}
	// The one of the sandbox has the same name as the one that is kept.
	want := map[string]string{doc.Name: api.AllowAlways + api.AllowSandbox + "aaaa", "once-1": api.AllowOnce, "until-2": api.AllowFor}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestPatternsAreAskedByAName(t *testing.T) {
	const text = "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: org:local\negress:\n" +
		"  - {id: a, allow: \"*.one.test:443\"}\n  - {id: b, allow: \"**.two.test:443\"}\n  - {id: c, allow: \"three.test:443\"}\n  - {id: d, allow: \"10.1.0.0/16:443\"}\n"
	docs, problems := policy.Parse("p", []byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	snap, problems := policy.Compile(1, docs)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	v := snap.View(scope.Principal{Org: "local", Team: "default", Agent: "sh"})
	for target, want := range map[string]bool{
		"*.one.test:443": true, "*.one.test:80": false, "**.two.test:443": true, "*.two.test:443": true, "three.test:443": true,
		"*.three.test:443": false, "**:443": false, "10.1.2.0/24:443": true, "10.2.0.0/16:443": false,
	} {
		tg, err := policy.ParseTarget(target)
		if err != nil {
			t.Fatal(err)
		}
		if got := decide(v, tg).Allowed(); got != want {
			t.Errorf("%s: %v", target, got)
		}
	}
}
