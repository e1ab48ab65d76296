// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/store"
)

const (
	theAuthor = 64001 // of org:acme/team:eng
	another   = 64002 // of org:acme/team:ops
)

var (
	asRoot   = &api.Caller{Role: api.RoleRoot, Rights: api.RightsOf(&api.Caller{Role: api.RoleRoot}, api.Access{})}
	asAuthor = &api.Caller{UID: theAuthor, Role: api.RoleMember}
)

// authors is a backend with two policy-authors.
func authors(t *testing.T) *backend {
	t.Helper()
	st := newStore(t)
	lib, err := documents.Open(documents.Options{Dir: t.TempDir(), StateDir: t.TempDir(), Store: st, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{&Daemon{library: lib, store: st, people: newPeople(lib.Snapshot)}}
	applyAs(t, b, asRoot, "", accessFor("eng", theAuthor), accessFor("ops", another))
	return b
}

func accessFor(team string, uid int) string {
	return fmt.Sprintf("apiVersion: ringfence.dev/v1\nkind: Access\nmetadata: {name: access-%s}\nscope: org:acme/team:%s\nbindings:\n  - {role: policy-author, users: [\"uid:%d\"]}\n", team, team, uid)
}

func policyFor(name, team string, more int) string {
	return fmt.Sprintf("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: %s}\nscope: org:acme/team:%s\negress:\n  - {id: a, allow: \"%s.example:443\"}\n", name, team, name) + strings.Repeat("#"+strings.Repeat("x", 98)+"\n", more/100)
}

// applyAs applies texts; says is what the refusal says, "" for none.
func applyAs(t *testing.T, b *backend, c *api.Caller, says string, texts ...string) {
	t.Helper()
	var docs []api.Document
	for i, text := range texts {
		docs = append(docs, api.Document{File: fmt.Sprintf("f%d.yaml", i), Text: text})
	}
	before := b.d.library.Snapshot().Revision()
	_, err := b.ApplyPolicy(context.Background(), c, &api.ApplyRequest{Documents: docs})
	switch {
	case says == "" && err != nil:
		t.Fatal(err)
	case says != "" && (err == nil || !strings.Contains(err.Error(), says)):
		t.Errorf("%v, want %q", err, says)
	case says != "" && b.d.library.Snapshot().Revision() != before:
		t.Errorf("refused with %q, and applied", says)
	}
}

func many(team string, from, to int) (out []string) {
	for i := from; i < to; i++ {
		out = append(out, policyFor(fmt.Sprintf("%s%d", team, i), team, 0))
	}
	return out
}

// A policy-author's scope holds so many documents, of so many bytes, and takes so
// many changes a day; root's do not count there, another scope has its own, and
// what is removed makes room.
func TestAScopeHoldsSoMuch(t *testing.T) {
	b := authors(t)
	q := scopeQuota()
	applyAs(t, b, asRoot, "", many("eng", 1000, 1010)...)
	applyAs(t, b, asAuthor, "", many("eng", 0, q.documents)...)
	applyAs(t, b, asAuthor, fmt.Sprintf("org:acme/team:eng would have %d documents", q.documents+1), many("eng", 500, 501)...)
	applyAs(t, b, asAuthor, "", many("eng", 3, 5)...) // in place of what is there
	applyAs(t, b, &api.Caller{UID: another, Role: api.RoleMember}, "", many("ops", 0, 2)...)
	applyAs(t, b, asRoot, "", many("eng", 1010, 1012)...)
	rule := &policy.Document{Kind: policy.KindPolicy, Name: "allow-x", Raw: []byte(policyFor("allow-x", "eng", 0)), Scope: b.d.library.Items()[len(b.d.library.Items())-1].Scope}
	for _, it := range b.d.library.Items() {
		if it.Name == "eng0" {
			rule.Scope = it.Scope
		}
	}
	if err := b.putAlways(context.Background(), asAuthor, rule); err == nil || !strings.Contains(err.Error(), "documents of the API") {
		t.Errorf("allow --always: %v", err)
	}
	if _, err := b.DeletePolicy(context.Background(), asAuthor, "eng7", "makes room"); err != nil {
		t.Fatal(err)
	}
	if list, err := b.Revisions(context.Background(), api.RevisionQuery{Limit: 1}); err != nil || list.Revisions[0].Comment != "makes room" {
		t.Errorf("%+v %v", list, err)
	}
	applyAs(t, b, asAuthor, "", many("eng", 500, 501)...)
	if _, err := b.DeletePolicy(context.Background(), asAuthor, "eng8", ""); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		says := ""
		if i > 2 { // three of a megabyte, and some small ones
			says = "bytes of documents of the API"
		}
		if _, err := b.DeletePolicy(context.Background(), asAuthor, fmt.Sprint("eng", 20+i), ""); err != nil {
			t.Fatal(err)
		}
		applyAs(t, b, asAuthor, says, policyFor(fmt.Sprint("large", i), "eng", 1<<20-1000))
	}
}

func TestAScopeChangesSoOftenADay(t *testing.T) {
	b := authors(t)
	q := scopeQuota()
	half := many("eng", 0, q.documents)
	for n := 0; n+len(half) <= q.changes; n += len(half) {
		for i := range half { // each another text than before
			half[i] += "# again\n"
		}
		applyAs(t, b, asAuthor, "", half...)
	}
	applyAs(t, b, asAuthor, "changes of documents within a day", half...)
	applyAs(t, b, asAuthor, "", half[0]+"# few\n")
	applyAs(t, b, asRoot, "", half...)
}

// What a team's author uses up, down to its last change, is the team's: its
// organisation's author still overrules it, in its own scope and in the team's, and
// what that one does is not the team's, nor is what is known from before.
func TestAnAuthorDoesNotUseUpWhatIsAbove(t *testing.T) {
	const above = 64003
	b := authors(t)
	org := &api.Caller{UID: above, Role: api.RoleMember}
	applyAs(t, b, asRoot, "", fmt.Sprintf("apiVersion: ringfence.dev/v1\nkind: Access\nmetadata: {name: access-org}\nscope: org:acme\nbindings:\n  - {role: policy-author, users: [\"uid:%d\"]}\n", above))
	deny := func(name, in string) string {
		return fmt.Sprintf("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: %s}\nscope: %s\negress:\n  - {id: no, deny: \"**\", mandatory: true}\n", name, in)
	}
	q := scopeQuota()
	all := many("eng", 0, q.documents)
	for n := 0; n < q.changes; n += len(all) {
		for i := range all {
			all[i] += "# again\n"
		}
		applyAs(t, b, asAuthor, "", all[:min(len(all), q.changes-n)]...)
	}
	applyAs(t, b, asAuthor, "changes of documents within a day", policyFor("eng3", "eng", 200))
	applyAs(t, b, org, "", deny("over", "org:acme"))
	applyAs(t, b, org, "", deny("over-eng", "org:acme/team:eng"))
	applyAs(t, b, org, "", many("eng", 0, 1)...) // in place of the team's
	for _, w := range changesOf(t, b) {
		if w.Grants != "org:acme" && w.Grants != "org:acme/team:eng" || w.Grants == "org:acme/team:eng" && w.Changes != q.changes || w.Grants == "org:acme" && w.Scope == "org:acme" && w.Changes != 1 {
			t.Errorf("%+v", w)
		}
	}
	if in := chargedBy("", selector("org:acme/team:eng")); in != selector("org:acme/team:eng") {
		t.Errorf("of before: %s", in)
	}
}

func selector(text string) scope.Selector {
	s, err := scope.ParseSelector(text)
	if err != nil {
		panic(err)
	}
	return s
}

func changesOf(t *testing.T, b *backend) []store.Written {
	t.Helper()
	list, err := b.d.store.Written(context.Background(), 0)
	if err != nil || len(list) == 0 {
		t.Fatalf("%v %v", list, err)
	}
	return list
}

// A role that was taken away while a request was on its way does not count.
func TestARoleThatIsGoneMeanwhileChangesNoProvider(t *testing.T) {
	b := authors(t)
	const admin = 64003
	applyAs(t, b, asRoot, "", fmt.Sprintf("apiVersion: ringfence.dev/v1\nkind: Access\nmetadata: {name: admins}\nscope: org:*\nbindings:\n  - {role: admin, users: [\"uid:%d\"]}\n", admin))
	stale := api.Caller{UID: admin, Role: api.RoleMember}
	stale.Rights = api.RightsOf(&stale, b.Access())
	put := func(name, dialect string) error {
		r := &api.ProviderRequest{Name: name, Dialect: dialect, BaseURL: "https://models.example", Credential: policy.CredentialPassthrough}
		return b.putProvider(&stale, r, providerFile(name), providerText(r))
	}
	if err := put("one", policy.DialectOpenAI); err != nil { // the control
		t.Fatal(err)
	}
	if err := put("two", policy.DialectAnthropic); err != nil {
		t.Fatal(err)
	}
	if p, err := b.takeProvider(&stale, "one"); err != nil || p.Name != "one" {
		t.Errorf("%v %v", p, err)
	}
	if _, err := b.DeletePolicy(context.Background(), asRoot, "admins", ""); err != nil {
		t.Fatal(err)
	}
	before := b.d.library.Snapshot().Revision()
	r := &api.ProviderRequest{Name: "three", Dialect: policy.DialectOpenAI, BaseURL: "https://models.example", Credential: policy.CredentialPassthrough}
	if _, err := b.AddProvider(context.Background(), &stale, r); err == nil || !strings.Contains(err.Error(), "taken from you") {
		t.Errorf("add: %v", err)
	}
	if _, err := b.RemoveProvider(context.Background(), &stale, "two"); err == nil || !strings.Contains(err.Error(), "taken from you") {
		t.Errorf("remove: %v", err)
	}
	if now := b.d.library.Snapshot().Revision(); now != before {
		t.Errorf("revision %d, it was %d", now, before)
	}
}

func TestARoleThatIsGoneMeanwhile(t *testing.T) {
	b := authors(t)
	stale := *asAuthor
	stale.Rights = api.RightsOf(asAuthor, b.Access())
	applyAs(t, b, &stale, "", policyFor("mine", "eng", 0)) // the control
	if _, err := b.DeletePolicy(context.Background(), asRoot, "access-eng", ""); err != nil {
		t.Fatal(err)
	}
	if !stale.Rights.Writes(policy.KindPolicy, b.d.library.Items()[0].Scope) && !stale.Rights.Writes(policy.KindPolicy, b.d.library.Items()[1].Scope) {
		t.Fatal("the caller never had the right")
	}
	applyAs(t, b, &stale, "needs root, or the role policy-author there", policyFor("mine", "eng", 200))
	if _, err := b.DeletePolicy(context.Background(), &stale, "mine", ""); err == nil || !strings.Contains(err.Error(), `no document "mine" was applied`) {
		t.Errorf("delete: %v", err)
	}
	if _, err := b.RollbackPolicy(context.Background(), &stale, &api.RollbackRequest{Revision: 2}); err == nil || !strings.Contains(err.Error(), "taken from you") {
		t.Errorf("roll back: %v", err)
	}
}
