// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

func sel(t *testing.T, text string) scope.Selector {
	t.Helper()
	s, err := scope.ParseSelector(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// bound is an Access with one document for each "scope role who", who being
// "uid:N" or "gid:N", or "-" for a document that binds nobody.
func bound(t *testing.T, docs ...string) (a Access) {
	t.Helper()
	for _, d := range docs {
		f := strings.Fields(d)
		a.Scopes = append(a.Scopes, sel(t, f[0]))
		if f[1] == "-" {
			continue
		}
		b := RoleBinding{Scope: sel(t, f[0])}
		for _, r := range []policy.Role{policy.RoleViewer, policy.RoleLauncher, policy.RoleApprover, policy.RolePolicyAuthor, policy.RoleAdmin} {
			if r.String() == f[1] {
				b.Role = r
			}
		}
		var id uint32
		if _, err := fmt.Sscanf(f[2], "uid:%d", &id); err == nil {
			b.UIDs = []uint32{id}
		} else if _, err := fmt.Sscanf(f[2], "gid:%d", &id); err == nil {
			b.GIDs = []uint32{id}
		}
		a.Bindings = append(a.Bindings, b)
	}
	return a
}

const pay, hr = "org:acme/team:pay", "org:acme/team:hr"

func TestRightsComeFromDocumentsAndTheKernelsWord(t *testing.T) {
	tests := []struct {
		name string
		c    Caller
		docs []string
		want string // of s(ees) l(aunches) a(uthors) A(dministers) in pay, hr, the default scope
	}{
		{"root needs no document", Caller{Role: RoleRoot}, nil, "slaA slaA slaA"},
		{"root, whatever documents say", Caller{Role: RoleRoot}, []string{"org:* -"}, "slaA slaA slaA"},
		{"stranger", Caller{UID: 7}, nil, ".... .... ...."},
		{"uid 0 without the role, as it is for a zero caller", Caller{}, nil, ".... .... ...."},
		{"member without any document", Caller{UID: 7, Role: RoleMember}, nil, ".... .... .l.."},
		{"member, documents of others", Caller{UID: 7, Role: RoleMember}, []string{pay + " admin uid:8"}, ".... .... .l.."},
		{"a document speaks for the default scope", Caller{UID: 7, Role: RoleMember}, []string{"org:local/team:default -"}, ".... .... ...."},
		{"so does one for all of the organisation", Caller{UID: 7, Role: RoleMember}, []string{"org:local viewer uid:8"}, ".... .... ...."},
		{"and one for the node", Caller{UID: 7, Role: RoleMember}, []string{"org:* viewer uid:8"}, ".... .... ...."},
		{"one for a part of it does not", Caller{UID: 7, Role: RoleMember}, []string{"org:local/team:default/agent:a viewer uid:8"}, ".... .... .l.."},
		{"nor a pattern that does not hold it", Caller{UID: 7, Role: RoleMember}, []string{"org:local/team:d*/agent:a* viewer uid:8"}, ".... .... .l.."},
		{"by uid", Caller{UID: 7}, []string{pay + " launcher uid:7"}, ".l.. .... ...."},
		{"by primary group", Caller{UID: 7, GID: 9}, []string{pay + " viewer gid:9"}, "s... .... ...."},
		{"by another group", Caller{UID: 7, Groups: []uint32{1, 9}}, []string{pay + " policy-author gid:9"}, "s.a. .... ...."},
		{"a group's number is no user's", Caller{UID: 9, GID: 7}, []string{pay + " admin gid:9"}, ".... .... ...."},
		{"a user's number is no group's", Caller{UID: 7, GID: 9}, []string{pay + " admin uid:9"}, ".... .... ...."},
		{"roles add up", Caller{UID: 7}, []string{pay + " viewer uid:7", pay + " launcher uid:7"}, "sl.. .... ...."},
		{"each in its place", Caller{UID: 7}, []string{pay + " admin uid:7", hr + " viewer uid:7"}, "slaA s... ...."},
		{"above both", Caller{UID: 7}, []string{"org:acme policy-author uid:7"}, "s.a. s.a. ...."},
		{"a part is not the whole", Caller{UID: 7}, []string{pay + "/agent:a admin uid:7"}, ".... .... ...."},
		{"a name that begins alike", Caller{UID: 7}, []string{"org:acme/team:pa admin uid:7"}, ".... .... ...."},
		{"a pattern", Caller{UID: 7}, []string{"org:acme/team:p* viewer uid:7"}, "s... .... ...."},
		{"the node", Caller{UID: 7}, []string{"org:* admin uid:7"}, "slaA slaA slaA"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := RightsOf(&tt.c, bound(t, tt.docs...))
			var got []string
			for _, in := range []string{pay, hr, DefaultScope} {
				marks := ""
				for i, right := range []policy.Right{policy.RightSee, policy.RightLaunch, policy.RightAuthor, policy.RightAdmin} {
					mark := "."
					if r.May(right, sel(t, in)) {
						mark = "slaA"[i : i+1]
					}
					marks += mark
				}
				got = append(got, marks)
			}
			if g := strings.Join(got, " "); g != tt.want {
				t.Errorf("got %q, want %q", g, tt.want)
			}
		})
	}
}

func TestWhatDocumentsACallerMayWrite(t *testing.T) {
	author := RightsOf(&Caller{UID: 7}, bound(t, pay+" policy-author uid:7"))
	admin := RightsOf(&Caller{UID: 7}, bound(t, pay+" admin uid:7"))
	node := RightsOf(&Caller{UID: 7}, bound(t, "org:* admin uid:7"))
	nodeAuthor := RightsOf(&Caller{UID: 7}, bound(t, "org:* policy-author uid:7"))
	for _, tt := range []struct {
		kind, in string
		want     [4]bool // author, admin, author and admin of the node
	}{
		{policy.KindPolicy, pay, [4]bool{true, true, true, true}},
		{policy.KindPolicy, pay + "/agent:a", [4]bool{true, true, true, true}},
		{policy.KindPolicy, "org:acme", [4]bool{false, false, true, true}},
		{policy.KindPolicy, "team:pay", [4]bool{false, false, true, true}},
		{policy.KindPolicy, hr, [4]bool{false, false, true, true}},
		{policy.KindPolicy, "org:acme/team:pay*", [4]bool{false, false, true, true}},
		{policy.KindAccess, pay, [4]bool{false, true, false, true}},
		{policy.KindAccess, "org:acme", [4]bool{false, false, false, true}},
		{policy.KindAccess, "org:*", [4]bool{false, false, false, true}},
		{policy.KindProfile, "org:*", [4]bool{false, false, false, true}},
		{policy.KindProvider, pay, [4]bool{false, false, false, true}},
		{"ToolServer", pay, [4]bool{false, false, false, true}},
		{"", pay, [4]bool{false, false, false, true}},
	} {
		for i, r := range []Rights{author, admin, nodeAuthor, node} {
			if got := r.Writes(tt.kind, sel(t, tt.in)); got != tt.want[i] {
				t.Errorf("%s for %s: caller %d: %v", tt.kind, tt.in, i, got)
			}
		}
	}
	for in, want := range map[string]bool{pay: true, pay + "/agent:a": true, "org:acme": true, "org:*": true, "org:acme/team:p*": true, "team:pay": true, hr: false, "org:other": false} {
		if got := author.Reads(policy.KindPolicy, sel(t, in)); got != want {
			t.Errorf("reads a policy for %s: %v", in, got)
		}
		if author.Reads(policy.KindAccess, sel(t, in)) {
			t.Errorf("an author reads who operates %s", in)
		}
		if launcher := RightsOf(&Caller{UID: 7}, bound(t, pay+" launcher uid:7")); launcher.Reads(policy.KindPolicy, sel(t, in)) {
			t.Errorf("a launcher reads a policy for %s", in)
		}
	}
	if !admin.Reads(policy.KindAccess, sel(t, pay)) || admin.Reads(policy.KindAccess, sel(t, "org:acme")) {
		t.Error("an admin reads who operates its scope, and no other")
	}
}

// followed is a Backend whose events come when a test sends them, and whose
// documents the test replaces.
type followed struct {
	*fake
	lines chan EventRecord

	mu  sync.Mutex
	now Access
	end chan struct{} // closes now.Changed
}

func (f *followed) set(a Access) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.end
	f.end = make(chan struct{})
	a.Changed = f.end
	f.now = a
	if old != nil {
		close(old)
	}
}

func (f *followed) Access() Access {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *followed) Events(ctx context.Context, q EventQuery) iter.Seq2[EventRecord, error] {
	return func(yield func(EventRecord, error) bool) {
		for {
			select {
			case rec := <-f.lines:
				if !yield(rec, nil) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

type pipeLog struct {
	r *io.PipeReader
}

func (p pipeLog) Read(b []byte) (int, error) { return p.r.Read(b) }
func (p pipeLog) Close() error               { return p.r.CloseWithError(os.ErrClosed) }

func (f *followed) Log(context.Context, string, bool) (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() { _, _ = w.Write([]byte("hello\n")) }()
	return pipeLog{r}, nil
}

func TestRevocationEndsWhatLasts(t *testing.T) {
	needRootTest(t)
	f := &followed{fake: newFake(), lines: make(chan EventRecord)}
	given := bound(t, "org:local viewer uid:64050", pay+" viewer uid:64050")
	f.set(given)
	socket := serve(t, f, Options{})
	open := func(path string) *stranger { return getAs(t, socket, 64050, path) }

	events, log := open("/v1/events?follow=true"), open("/v1/sandboxes/mine/log?follow=true")
	if got := log.next(t); got != "hello\n" {
		t.Fatalf("the log says %q", got)
	}
	say := func(scope, text string) {
		f.lines <- EventRecord{Sandbox: "ffff9999", Scope: scope, Line: []byte(text)}
	}
	say("org:local/team:x/agent:a", "one")
	say(hr+"/agent:a", "of others")
	say(pay+"/agent:a", "two")
	if got := events.next(t) + events.next(t); got != "one\ntwo\n" {
		t.Fatalf("events: %q", got)
	}
	// One scope of two is taken: the log of a sandbox there ends although nothing
	// is written to it, and events go on without it.
	f.set(bound(t, "org:local -", pay+" viewer uid:64050"))
	if got := log.rest(t); got != "" || !strings.Contains(log.trailer(), "no longer") {
		t.Errorf("the log goes on: %q, %q", got, log.trailer())
	}
	say("org:local/team:x/agent:a", "three")
	say(pay+"/agent:a", "four")
	if got := events.next(t); got != "four\n" {
		t.Errorf("events after the revocation: %q", got)
	}
	// The other one too: the stream ends, and so does the next request.
	f.set(bound(t, "org:local -", pay+" -"))
	if got := events.rest(t); got != "" || !strings.Contains(events.trailer(), "no longer") {
		t.Errorf("events go on: %q, %q", got, events.trailer())
	}
	if next := open("/v1/sandboxes"); next.status != http.StatusForbidden {
		t.Errorf("the next request: %d", next.status)
	}
	f.set(given)
	if next := open("/v1/sandboxes"); next.status != http.StatusOK {
		t.Errorf("control: given again: %d", next.status)
	}
}

// TestForeignIsLikeNothing compares, byte by byte, what a caller is told of what
// it may not see with what it is told of what is not there.
func TestForeignIsLikeNothing(t *testing.T) {
	needRootTest(t)
	b := newFake()
	b.access = func() Access { return bound(t, pay+" admin uid:64050", "org:local -") }
	socket := serve(t, b, Options{})
	var list []attempt
	add := func(a attempt) {
		for _, ref := range []string{boxRoot, "nosuch-0", "web", "no1"} {
			v := a
			v.Path, v.Body = strings.ReplaceAll(a.Path, "REF", ref), strings.ReplaceAll(a.Body, "REF", ref)
			list = append(list, v)
		}
	}
	for _, a := range []attempt{
		{"get", "GET", "/v1/sandboxes/REF", "", false},
		{"exec", "POST", "/v1/sandboxes/REF/exec", `{"argv":["id"]}`, true},
		{"stop", "POST", "/v1/sandboxes/REF/stop", `{}`, false},
		{"log", "GET", "/v1/sandboxes/REF/log", "", false},
		{"events", "GET", "/v1/events?sandbox=REF", "", false},
		{"allow", "POST", "/v1/allow", `{"destination":"x.test:443","mode":"sandbox","sandbox":"REF"}`, false},
		{"take back", "DELETE", "/v1/allow", `{"destination":"x.test:443","sandbox":"REF"}`, false},
		{"policy", "GET", "/v1/policy?sandbox=REF", "", false},
	} {
		add(a)
	}
	list = append(list, attempt{"explain", "GET", "/v1/events/e-root/explain", "", false}, attempt{"explain", "GET", "/v1/events/e-none/explain", "", false})
	got := asPeer(t, socket, 64050, 64050, nil, -1, list)
	masked := func(i int) string {
		body := got[i].Body
		for _, ref := range []string{boxRoot, "nosuch-0", "web", "no1", "e-root", "e-none"} {
			body = strings.ReplaceAll(body, `"`+ref+`\"`, `"REF\"`)
			body = strings.ReplaceAll(body, `\"`+ref+`\"`, `\"REF\"`)
		}
		return fmt.Sprintf("%d %s", got[i].Status, body)
	}
	for i := 0; i+1 < len(list); i += 2 {
		if a, b := masked(i), masked(i+1); a != b || got[i].Status != http.StatusNotFound {
			t.Errorf("%s: foreign: %s; nothing: %s", list[i].Name, a, b)
		}
	}
	for _, o := range asPeer(t, socket, 0, 0, nil, -1, list)[:3] {
		if o.Status == http.StatusNotFound && !strings.Contains(o.Body, "nosuch") {
			t.Errorf("control: root is not shown it: %+v", o)
		}
	}
	if c := b.calls; slices.ContainsFunc(c, func(s string) bool { return strings.Contains(s, "64050") }) {
		t.Errorf("something reached the backend: %v", c)
	}
}

// One text may hold a document that is not the reader's: YAML breaks lines at a
// carriage return, too, where texts are not cut.
func TestTextsAreShownWhole(t *testing.T) {
	doc := func(in string) string {
		return "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: p}\nscope: " + in + "\negress: [{id: a, deny: x.org}]\n"
	}
	viewer := RightsOf(&Caller{UID: 7}, bound(t, pay+" viewer uid:7"))
	for _, tt := range []struct {
		text string
		want bool
	}{
		{doc(pay), true},
		{doc(pay) + "\r---\r" + doc(pay+"/agent:a"), true},
		{doc(pay) + "\r---\r" + doc(hr), false},
	} {
		if got := viewer.readText(&PolicyDocument{Kind: policy.KindPolicy, Scope: pay, Text: tt.text}); (got == tt.text) != tt.want || got != "" && got != tt.text {
			t.Errorf("%q is shown as %q", tt.text, got)
		}
	}
	if got := viewer.within(); !slices.Equal(got, []string{pay}) {
		t.Errorf("within %v", got)
	}
	if got := RightsOf(&Caller{Role: RoleRoot}, Access{}).within(); got != nil {
		t.Errorf("root is within %v", got)
	}
}
