// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// Uids without an account, each the only one of its tenant.
const (
	carol, dave  = 23111, 23112
	carols, erin = 23113, 23114 // more of carol's tenant: who sees only, who launches only
)

// tenant is somebody with every right in a scope of its own, and what it has.
type tenant struct {
	*peer
	scope, box, doc, id, event string
	approval                   string // a request of its sandbox that waits for a person
	draft                      string // what its sandbox was denied by default
}

// access are the documents of a node with two tenants. The default scope is
// closed: everybody is in the operator group.
const access = `apiVersion: ringfence.dev/v1
kind: Access
metadata: {name: nobody-by-default}
scope: org:local
bindings: []
---
apiVersion: ringfence.dev/v1
kind: Access
metadata: {name: pay-people}
scope: org:acme/team:pay
bindings:
  - {role: admin, users: ["uid:23111"]}
  - {role: viewer, users: ["uid:23113"]}
  - {role: launcher, users: ["uid:23114", no-such-user]}
---
apiVersion: ringfence.dev/v1
kind: Access
metadata: {name: hr-people}
scope: org:acme/team:hr
bindings:
  - {role: admin, groups: ["gid:23112"]}
`

func policyFor(name, scope, host string) string {
	return fmt.Sprintf("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: %s}\nscope: %s\negress:\n  - {id: %s-rule, allow: \"%s:443\"}\n", name, scope, name, host)
}

func newTenant(t *testing.T, n *node.Node, uid uint32, team string) *tenant {
	t.Helper()
	x := &tenant{peer: newPeer(t, n, uid, groupGID), scope: "org:acme/team:" + team, box: team + "-box", doc: team + "-web"}
	ask := "  - {id: " + x.doc + "-ask, to: \"ask-by-" + team + ".test:443\", action: require-approval}\n" + "budgets:\n  - {id: money, limit: 5 USD, window: day}\n"
	status, text := x.ask(t, request("PUT", "/v1/policy", documents(policyFor(x.doc, x.scope, team+".test")+ask)))
	if status != http.StatusOK {
		t.Fatalf("control: its own policy: %d %s", status, text)
	}
	r := x.run(t, "run", "--as", x.scope+"/agent:a", "--profile", "coding", "--detach", "--name", x.box, "--", "sh", "-c", "echo of "+x.box+"; getent hosts asked-by-"+team+".test; curl -sk https://ask-by-"+team+".test/ & curl -sk https://api.openai.com/v1/chat/completions -H content-type:application/json -d '{\"model\":\""+x.box+"-model\",\"messages\":[]}' >/dev/null; sleep 1000")
	if r.Code != 0 {
		t.Fatalf("control: a sandbox of its own: %s", r.Stderr)
	}
	x.id = strings.TrimSpace(r.Stdout)
	x.event = n.WaitEvent(t, "the question of "+x.box, func(e *event.Event) bool { return e.DstName == "asked-by-"+team+".test" }).ID
	eventually(t, "a request for approval of "+x.box, func() bool {
		var list []api.Approval
		_, text := x.ask(t, request("GET", "/v1/approvals", ""))
		if json.Unmarshal([]byte(text), &list) == nil && len(list) == 1 {
			x.approval = list[0].ID
		}
		return x.approval != ""
	})
	eventually(t, "the costs of "+x.box, func() bool {
		_, text := x.ask(t, request("GET", "/v1/costs", ""))
		return strings.Contains(text, x.box+"-model")
	})
	eventually(t, "a draft of "+x.box, func() bool {
		var list []api.Draft
		_, text := x.ask(t, request("GET", "/v1/approvals/drafts", ""))
		if json.Unmarshal([]byte(text), &list) == nil && len(list) == 1 && list[0].Destination == "asked-by-"+team+".test:443" {
			x.draft = list[0].ID
		}
		return x.draft != ""
	})
	return x
}

func documents(texts ...string) string {
	var req api.ApplyRequest
	for i, text := range texts {
		req.Documents = append(req.Documents, api.Document{File: fmt.Sprintf("d%d.yaml", i), Text: text})
	}
	b, err := json.Marshal(req)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// request is one HTTP request; launches and execs ask for the upgrade.
func request(method, path, body string) string {
	header := ""
	if method == "POST" && (path == "/v1/sandboxes" || strings.HasSuffix(path, "/exec")) {
		header = "Connection: Upgrade\r\nUpgrade: ringfence-fds\r\n"
	}
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", method, path, header, len(body), body)
}

// call is one attempt at what a tenant has. BOX, ID, DOC, SCOPE, TEAM and EVENT
// stand for what is the owner's.
type call struct {
	route      string // the row of the API's table that it is for
	path, body string // path "" is that of the route
	wrong      int    // status for another tenant
	right      int    // and for the owner; rootOnly where root is the control
	shows      string // what the owner's answer holds, "" for nothing to look for
	last       bool   // the owner's is tried when everything else was
}

// rootOnly marks what no tenant may: root is the control, and is not refused.
const rootOnly = 0

func calls() []call {
	const (
		launch = `{"argv":["true"],"detach":true,"profile":{"name":"coding"},"scope":"SCOPE/agent:a"}`
		rule   = `{"destination":"more.test:443","mode":"sandbox","sandbox":"BOX"}`
		wide   = `{"destination":"more.test:443","mode":"for","for":"1h","scope":"SCOPE"}`
		back   = `{"destination":"more.test:443","sandbox":"BOX"}`
		wideB  = `{"destination":"more.test:443","scope":"SCOPE"}`
	)
	return []call{
		{"GET /v1/version", "", "", 200, 200, "", false},
		{"GET /v1/status", "", "", 200, 200, `"sandboxes":1`, false},
		{"GET /v1/doctor", "", "", 200, 200, "", false},
		{"GET /v1/sandboxes", "", "", 200, 200, "ID", false},
		{"POST /v1/sandboxes", "", launch, 403, 101, "", false},
		{"GET /v1/sandboxes/{id}", "/v1/sandboxes/BOX", "", 404, 200, "ID", false},
		{"GET /v1/sandboxes/{id}", "/v1/sandboxes/ID", "", 404, 200, "ID", false},
		{"POST /v1/sandboxes/{id}/exec", "/v1/sandboxes/BOX/exec", `{"argv":["id"]}`, 404, 101, "", false},
		{"POST /v1/sandboxes/{id}/exec", "/v1/sandboxes/ID/exec", `{"argv":["id"]}`, 404, 101, "", false},
		{"GET /v1/sandboxes/{id}/log", "/v1/sandboxes/BOX/log", "", 404, 200, "of BOX", false},
		{"GET /v1/sandboxes/{id}/log", "/v1/sandboxes/ID/log?follow=true", "", 404, 200, "", false},
		{"POST /v1/adopt", "", `{"pid":4194304}`, 403, rootOnly, "", false},
		{"POST /v1/adopt", "", `{"pid":4194304,"scope":"SCOPE/agent:a"}`, 403, rootOnly, "", false},
		{"POST /v1/sandboxes/{id}/release", "/v1/sandboxes/ID/release", "", 403, rootOnly, "", false},
		{"GET /v1/events", "", "", 200, 200, "EVENT", false},
		{"GET /v1/events", "/v1/events?denied=true", "", 200, 200, "EVENT", false},
		{"GET /v1/events", "/v1/events?sandbox=ID", "", 404, 200, "EVENT", false},
		{"GET /v1/events", "/v1/events?sandbox=BOX&follow=true", "", 404, 200, "", false},
		{"GET /v1/events/{event}/explain", "/v1/events/EVENT/explain", "", 404, 200, "ID", false},
		{"POST /v1/allow", "", rule, 404, 200, "", false},
		{"POST /v1/allow", "", wide, 403, 200, "", false},
		{"DELETE /v1/allow", "", back, 404, 200, "", false},
		{"DELETE /v1/allow", "", wideB, 403, 200, "", false},
		{"POST /v1/policy/check", "", `{"documents":[]}`, 200, 200, "", false},
		{"GET /v1/policy", "", "", 200, 200, "DOC", false},
		{"GET /v1/policy", "/v1/policy?sandbox=ID", "", 404, 200, "DOC", false},
		{"GET /v1/policy/use", "", "", 200, 200, "DOC-rule", false},
		{"GET /v1/policy/enforced", "/v1/policy/enforced?revision=1&timeout=0s", "", 200, 200, "", false},
		{"PUT /v1/policy", "", documents(policyFor("DOC-other", "SCOPE", "x.test")), 403, 200, "DOC-other", false},
		{"PUT /v1/policy", "", documents(policyFor("DOC-narrower", "SCOPE/agent:a", "x.test")), 403, 200, "DOC-narrower", false},
		{"PUT /v1/policy", "", documents(policyFor("DOC-wider", "org:acme", "x.test")), 403, rootOnly, "", false},
		{"PUT /v1/policy", "", documents("apiVersion: ringfence.dev/v1\nkind: Access\nmetadata: {name: DOC-people}\nscope: SCOPE\nbindings:\n  - {role: viewer, users: [\"uid:23199\"]}\n"), 403, 200, "DOC-people", false},
		{"PUT /v1/policy", "", documents("apiVersion: ringfence.dev/v1\nkind: Access\nmetadata: {name: all-mine}\nscope: org:acme\nbindings:\n  - {role: admin, users: [\"uid:23199\"]}\n"), 403, rootOnly, "", false},
		{"PUT /v1/policy", "", documents("apiVersion: ringfence.dev/v1\nkind: Provider\nmetadata: {name: theirs}\nscope: SCOPE\ndialect: openai\nbaseURL: https://llm.test\ncredential: passthrough\n"), 403, rootOnly, "", false},
		{"PUT /v1/policy", "", documents("apiVersion: ringfence.dev/v1\nkind: Profile\nmetadata: {name: open}\n"), 403, rootOnly, "", false},
		{"GET /v1/policy/documents", "/v1/policy/documents?name=DOC", "", 403, rootOnly, "", false},
		{"GET /v1/policy/history", "/v1/policy/history?limit=10", "", 403, rootOnly, "", false},
		{"GET /v1/policy/diff", "/v1/policy/diff?from=1", "", 403, rootOnly, "", false},
		{"POST /v1/policy/rollback", "", `{"revision":99999}`, 403, rootOnly, "", false},
		{"GET /v1/approvals", "", "", 200, 200, "APPROVAL", false},
		{"GET /v1/approvals", "/v1/approvals?all=true", "", 200, 200, "APPROVAL", false},
		{"GET /v1/approvals/watch", "", "", 200, 200, "APPROVAL", false}, // see watched
		{"GET /v1/approvals/{approval}", "/v1/approvals/APPROVAL", "", 404, 200, `"mayVote":true`, false},
		{"POST /v1/approvals/{approval}/rule", "/v1/approvals/APPROVAL/rule", `{}`, 404, 200, "SCOPE", false},
		{"GET /v1/approvals/drafts", "", "", 200, 200, "DRAFT", false},
		{"POST /v1/approvals/drafts/{draft}/rule", "/v1/approvals/drafts/DRAFT/rule", `{}`, 404, 200, "SCOPE", false},
		{"POST /v1/approvals/drafts/{draft}/rule", "/v1/approvals/drafts/DRAFT/rule", `{"apply":true}`, 404, 200, "revision", true},
		{"POST /v1/approvals/{approval}/vote", "/v1/approvals/APPROVAL/vote", `{"approve":true}`, 404, 200, "approved", true},
		{"POST /v1/approvals/{approval}/vote", "/v1/approvals/APPROVAL/vote", `{}`, 404, 409, "", true},
		{"POST /v1/approvals/{approval}/rule", "/v1/approvals/APPROVAL/rule", `{"apply":true}`, 404, 200, "revision", true},
		{"GET /v1/inference", "", "", 403, rootOnly, "", false},
		{"GET /v1/costs", "", "", 200, 200, `"BOX-model"`, false},
		{"GET /v1/costs", "/v1/costs?by=model&org=acme", "", 200, 200, `"BOX-model"`, false},
		{"GET /v1/prices", "", "", 200, 200, "", false},
		{"PUT /v1/prices", "", `{"file":"p.yaml","text":""}`, 403, rootOnly, "", false},
		{"DELETE /v1/prices/{version}", "/v1/prices/99999", "", 403, rootOnly, "", false},
		{"GET /v1/budgets", "", "", 200, 200, "DOC/money", false},
		{"POST /v1/budgets/increase", "", `{"name":"DOC/money","amount":1000,"for":"1h"}`, 404, 200, "SCOPE", false},
		{"GET /v1/providers", "", "", 403, rootOnly, "", false},
		{"POST /v1/providers", "", `{"name":"anthropic","credential":"passthrough"}`, 403, rootOnly, "", false},
		{"DELETE /v1/providers/{name}", "/v1/providers/anthropic", "", 403, rootOnly, "", false},
		{"GET /v1/audit/verify", "", "", 403, rootOnly, "", false},
		{"DELETE /v1/policy/{name}", "/v1/policy/DOC", "", 404, 200, "DOC", true},
		{"POST /v1/sandboxes/{id}/stop", "/v1/sandboxes/BOX/stop", `{}`, 404, 200, "ID", true},
	}
}

// of puts what is a tenant's in place of the words.
func (x *tenant) of(s string) string {
	return strings.NewReplacer("BOX", x.box, "DOC", x.doc, "SCOPE", x.scope, "EVENT", x.event, "APPROVAL", x.approval, "DRAFT", x.draft, "ID", x.id).Replace(s)
}

func (c *call) of(x *tenant) string {
	method, path, _ := strings.Cut(c.route, " ")
	if c.path != "" {
		path = c.path
	}
	return request(method, x.of(path), x.of(c.body))
}

// TestTenants is a node with two tenants: each tries every request of the API on
// what the other has, and the other itself is the control.
func TestTenants(t *testing.T) {
	n := node.Start(t, node.Options{Config: "group: " + group + "\n", Policies: map[string]string{"access.yaml": access}})
	lender := n.Dir + "/neighbour"
	need(t, os.WriteFile(lender, neighbourProgram(t), 0o755))
	a, b := newTenant(t, n, carol, "pay"), newTenant(t, n, dave, "hr")
	t.Run("every request has a case", everyRequest)
	t.Run("pay at hr's", func(t *testing.T) { wrongTenant(t, n, a, b) })
	t.Run("hr at pay's", func(t *testing.T) { wrongTenant(t, n, b, a) })
	t.Run("roles within a tenant", func(t *testing.T) { rolesWithin(t, n, a) })
	t.Run("names are of a team or say nothing", func(t *testing.T) { names(t, a, b) })
	t.Run("requests for approval, watched", func(t *testing.T) { watched(t, a, b) })
	t.Run("revocation", func(t *testing.T) { revoked(t, n, a, b) })
	t.Run("who has a right may", func(t *testing.T) { rightTenant(t, n, b, true) })
}

// watches says that the answer goes on for as long as somebody listens.
func (c *call) watches() bool { return strings.HasSuffix(c.route, "/watch") }

// watched: each sees what its own sandbox asks for, and nothing of the other's.
func watched(t *testing.T, tenants ...*tenant) {
	for _, x := range tenants {
		c := x.dial(t)
		defer c.Close()
		_, err := io.WriteString(c, request("GET", "/v1/approvals/watch", ""))
		need(t, err)
		need(t, c.SetDeadline(time.Now().Add(2*time.Second))) // what is open comes at once
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		need(t, err)
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body) // it goes on until the deadline
		for _, y := range tenants {
			if strings.Contains(string(text), y.approval) != (x == y) {
				t.Errorf("%s watches, of %s: %s", x.box, y.box, text)
			}
		}
	}
}

func everyRequest(t *testing.T) {
	tried := map[string]bool{}
	for _, c := range calls() {
		tried[c.route] = true
	}
	for _, r := range api.Routes() {
		if !tried[r.Method+" "+r.Path] {
			t.Errorf("no wrong tenant tries %s %s", r.Method, r.Path)
		}
		delete(tried, r.Method+" "+r.Path)
	}
	for route := range tried {
		t.Errorf("there is no %s", route)
	}
}

// wrongTenant tries everything of x's as w, then what is harmless of it as x.
func wrongTenant(t *testing.T, n *node.Node, w, x *tenant) {
	before, policyBefore := n.Sandbox(t, x.box), n.CLI(t, "policy", "show", "-o", "json").Stdout
	began := time.Now()
	nobodys := *x
	nobodys.box, nobodys.id, nobodys.doc, nobodys.event, nobodys.approval, nobodys.draft = "nosuchbox", "nosuchid", "nosuchdoc", "nosuchevent", "nosuchapproval", "nosuchdraft"
	for _, c := range calls() {
		if c.watches() {
			continue
		}
		ask := c.of(x)
		status, text := w.ask(t, ask)
		if status != c.wrong {
			t.Errorf("%s %s %s as the wrong tenant: %d, want %d: %s", c.route, c.path, c.body, status, c.wrong, text)
		}
		for _, mark := range []string{x.id, x.box, x.doc, x.scope, x.event, x.approval, x.draft, fmt.Sprint(x.uid)} {
			if strings.Contains(text, mark) && !strings.Contains(ask, mark) {
				t.Errorf("%s %s tells the wrong tenant of %q: %s", c.route, c.path, mark, text)
			}
		}
		// What is not there is answered alike, but for its name.
		if c.wrong == http.StatusNotFound {
			_, none := w.ask(t, c.of(&nobodys))
			same := strings.NewReplacer(x.box, "nosuchbox", x.id, "nosuchid", x.doc, "nosuchdoc", x.event, "nosuchevent", x.approval, "nosuchapproval", x.draft, "nosuchdraft").Replace(text)
			if same != none {
				t.Errorf("%s %s: foreign: %s; nothing: %s", c.route, c.path, text, none)
			}
		}
	}
	if s := n.Sandbox(t, x.box); s.State != "running" || s.PID != before.PID {
		t.Errorf("the sandbox was %+v and is %+v", before, s)
	}
	if after := n.CLI(t, "policy", "show", "-o", "json").Stdout; after != policyBefore {
		t.Errorf("policy was changed by the wrong tenant:\n%s\n%s", policyBefore, after)
	}
	w.recordedWith(t, began, "POST", "/v1/sandboxes/"+x.box+"/stop", "")
	rightTenant(t, n, x, false)
}

// recordedWith waits for the refusal in the log: what was said not to be there is
// told to the operator as what it is.
func (p *peer) recordedWith(t *testing.T, began time.Time, method, path, what string) {
	t.Helper()
	p.n.WaitEvent(t, fmt.Sprintf("the refusal of %s %s", method, path), func(e *event.Event) bool {
		return e.Kind == event.KindOperator && e.Verdict == event.Denied && e.UID == p.uid && e.PID != 0 && strings.HasSuffix(e.Exe, "/neighbour") &&
			e.Activity == method && e.Object == path && strings.Contains(e.Reason, "does not see") && strings.Contains(e.Detail, "from the cgroup /") && strings.Contains(e.Detail, what)
	}, "--since", began.Add(-time.Second).Format(time.RFC3339Nano))
}

func rightTenant(t *testing.T, n *node.Node, x *tenant, last bool) {
	root := &peer{n: n, ws: x.ws, lender: x.lender}
	for _, c := range calls() {
		if c.last != last {
			continue
		}
		if c.right == rootOnly {
			if strings.HasPrefix(c.route, "PUT /v1/policy") { // not to be put into force: what refuses a tenant was reached, see wrongTenant
				continue
			}
			if status, text := x.ask(t, c.of(x)); status != http.StatusForbidden {
				t.Errorf("%s %s as an admin of its own scope: %d %s", c.route, c.path, status, text)
			}
			if status, text := root.ask(t, c.of(x)); status == http.StatusForbidden || status == http.StatusNotFound && !strings.Contains(text, "anthropic") && !strings.Contains(text, "99999") {
				t.Errorf("control: %s %s as root: %d %s", c.route, c.path, status, text)
			}
			continue
		}
		if strings.Contains(c.path, "follow=true") || c.watches() { // see revoked, watched
			continue
		}
		status, text := x.askAll(t, c.of(x))
		if status != c.right || !strings.Contains(text, x.of(c.shows)) {
			t.Errorf("control: %s %s %s as the right tenant: %d, want %d with %q: %s", c.route, c.path, c.body, status, c.right, x.of(c.shows), text)
		}
	}
}

// rolesWithin: what one person of a tenant may, another may not.
func rolesWithin(t *testing.T, n *node.Node, a *tenant) {
	viewer, launcher := newPeer(t, n, carols, groupGID), newPeer(t, n, erin, groupGID)
	r := launcher.run(t, "run", "--as", a.scope+"/agent:b", "--profile", "coding", "--detach", "--name", "erins", "--", "sleep", "1000")
	if r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	if r := launcher.run(t, "ps"); !strings.Contains(r.Stdout, "erins") || strings.Contains(r.Stdout, a.box) {
		t.Errorf("a launcher sees: %s", r.Stdout)
	}
	if r := viewer.run(t, "ps"); !strings.Contains(r.Stdout, "erins") || !strings.Contains(r.Stdout, a.box) {
		t.Errorf("a viewer sees: %s", r.Stdout)
	}
	if r := viewer.run(t, "events", "-o", "json"); !strings.Contains(r.Stdout, "apply Policy "+a.doc) || strings.Contains(r.Stdout, "team:hr") {
		t.Errorf("a viewer sees what operators do in its scope, and no other: %s", r.Stdout)
	}
	if r := viewer.run(t, "explain", "--as", a.scope+"/agent:b", "egress", "pay.test:443"); r.Code != 0 || !strings.Contains(r.Stdout, "allow") {
		t.Errorf("control: what would be decided in its scope: %+v", r)
	}
	viewer.refused(t, "not yours to see", "", "", "explain", "--as", "org:acme/team:hr/agent:b", "egress", "hr.test:443")
	if r := viewer.run(t, "policy", "who-can", "egress", "pay.test:443"); r.Code != 0 || !strings.Contains(r.Stdout, a.scope) || strings.Contains(r.Stdout, "org:*") {
		t.Errorf("who can, in its scope: %+v", r)
	}
	viewer.refused(t, "the role launcher", "POST", "/v1/sandboxes", "run", "--as", a.scope+"/agent:b", "--", "true")
	viewer.refused(t, "the role launcher", "POST", "/v1/sandboxes", "run", "--", "true") // the operator group gives nothing here
	viewer.refused(t, "is not yours", "POST", "/v1/sandboxes/erins/stop", "stop", "erins")
	viewer.refused(t, "is not yours", "POST", "/v1/sandboxes/erins/exec", "exec", "erins", "--", "true")
	viewer.refused(t, "policy-author", "POST", "/v1/allow", "allow", "x.test:443", "--sandbox", "erins")
	launcher.refused(t, "policy-author", "POST", "/v1/allow", "allow", "x.test:443", "--scope", a.scope, "--always")
	launcher.refused(t, "the role viewer", "GET", "/v1/policy", "policy", "show")
	a.refused(t, "is not yours", "POST", "/v1/sandboxes/erins/exec", "exec", "erins", "--", "true") // an admin is not its people
	if r := launcher.run(t, "exec", "erins", "--", "true"); r.Code != 0 {
		t.Errorf("control: its launcher enters it: %s", r.Stderr)
	}
	if r := launcher.run(t, "allow", "x.test:443", "--sandbox", "erins"); r.Code != 0 {
		t.Errorf("control: its launcher gives it a rule: %s", r.Stderr)
	}
	if r := a.run(t, "stop", "erins", "--timeout", "0s"); r.Code != 0 {
		t.Errorf("control: the admin of the scope stops it: %s", r.Stderr)
	}
	id := strings.TrimSpace(r.Stdout)
	for _, c := range []struct {
		uid  uint32
		what string
	}{
		{erin, `launch "sleep" with the profile coding; from the cgroup /`},
		{erin, `run "true" in sandbox ` + id + `; from the cgroup /`},
		{erin, "allow x.test:443 (sandbox) for sandbox " + id + "; "},
		{carol, "stop sandbox " + id},
	} {
		n.WaitEvent(t, c.what, func(e *event.Event) bool {
			return e.Kind == event.KindOperator && e.Verdict == event.Allowed && !e.Failed && e.UID == c.uid && e.Actor == fmt.Sprintf("uid=%d", c.uid) && e.PID != 0 &&
				strings.HasSuffix(e.Exe, "/ringfence") && e.Comm == "ringfence" && e.Sandbox == id && strings.HasPrefix(e.Scope, a.scope+"/") && strings.HasPrefix(e.Detail, c.what)
		})
	}
	if r := n.CLI(t, "policy", "list"); !strings.Contains(r.Stderr, "no-such-user") {
		t.Errorf("a user that there is not is not told: %s", r.Stderr)
	}
	if r := n.CLI(t, "doctor"); !strings.Contains(r.Stdout, "no-such-user") {
		t.Errorf("nor by doctor: %s", r.Stdout)
	}
}

// names: two teams may call their sandboxes alike; of documents one hears only
// that a name is taken.
func names(t *testing.T, a, b *tenant) {
	r := b.run(t, "run", "--as", b.scope+"/agent:a", "--profile", "coding", "--detach", "--name", a.box, "--", "sleep", "1000")
	if r.Code != 0 {
		t.Errorf("a name of another team's sandbox: %s", r.Stderr)
	} else if r := b.run(t, "stop", a.box, "--timeout", "0s"); r.Code != 0 {
		t.Error(r.Stderr)
	}
	if s := a.n.Sandbox(t, a.box); s.State != "running" || s.Owner != a.uid {
		t.Errorf("which was stopped? %+v", s)
	}
	status, text := b.ask(t, request("PUT", "/v1/policy", documents(policyFor(a.doc, b.scope, "x.test"))))
	if status != http.StatusConflict || !strings.Contains(text, "is taken") || strings.Contains(text, a.scope) || strings.Contains(text, "applied-") {
		t.Errorf("a document of another's name: %d %s", status, text)
	}
	status, text = b.ask(t, request("PUT", "/v1/policy", documents(strings.Replace(access, "org:acme/team:pay", b.scope, 1)[strings.Index(access, "---")+4:])))
	if status < 400 || strings.Contains(text, a.scope) || strings.Contains(text, "access.yaml") {
		t.Errorf("an Access document of another's name: %d %s", status, text)
	}
}

// revoked: what lasts ends with the right to it, and the next request is refused.
func revoked(t *testing.T, n *node.Node, a, b *tenant) {
	events := a.follow(t, "/v1/events?follow=true")
	own := b.follow(t, "/v1/events?follow=true")
	log := a.follow(t, "/v1/sandboxes/"+a.box+"/log?follow=true")
	began := time.Now()
	n.WritePolicy(t, "access.yaml", strings.Replace(access, `users: ["uid:23111"]`, `users: ["uid:23198"]`, 1))
	for _, f := range []*following{events, log} {
		if why := f.ends(t); !strings.Contains(why, "no longer") {
			t.Errorf("a stream ended, and said %q", why)
		}
	}
	for _, args := range [][]string{{"ps"}, {"stop", a.box}, {"run", "--as", a.scope + "/agent:a", "--", "true"}} {
		a.refused(t, "has no role on this node", "", "", args...)
	}
	if s := n.Sandbox(t, a.box); s.State != "running" || s.Created.After(began) {
		t.Errorf("its sandbox: %+v", s)
	}
	if own.ended() {
		t.Error("control: the stream of the other tenant ended too")
	}
	if r := b.run(t, "ps"); !strings.Contains(r.Stdout, b.box) {
		t.Errorf("control: the other tenant: %+v", r)
	}
	n.WritePolicy(t, "access.yaml", access)
	for end := time.Now().Add(20 * time.Second); ; {
		r := a.run(t, "ps")
		if strings.Contains(r.Stdout, a.box) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("control: given again: %+v", r)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if list := a.n.Sandboxes(t); !slices.ContainsFunc(list, func(s api.Sandbox) bool { return s.Name == a.box }) {
		t.Error("it is gone")
	}
}
