// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// ApplyRequest is the body of PUT /v1/policy: documents with their text. They
// replace what was applied under the same kind and name before.
type ApplyRequest struct {
	Documents []Document `json:"documents"`
	Comment   string     `json:"comment,omitempty"`
}

// PolicyChange answers PUT /v1/policy, DELETE /v1/policy/{name}?comment=WHY and
// POST /v1/policy/rollback: the change is stored, and is being put into force.
type PolicyChange struct {
	Revision  uint64           `json:"revision"`
	Documents []PolicyDocument `json:"documents"` // what was applied, removed or restored, without text
	Notes     []string         `json:"notes,omitempty"`
}

// Enforcement answers GET /v1/policy/enforced?revision=N&timeout=D, when every
// running sandbox is under that revision or a later one, or the time is over.
type Enforcement struct {
	Revision  uint64   `json:"revision"`
	InForce   bool     `json:"inForce"`
	Sandboxes int      `json:"sandboxes"` // that are under it
	Behind    []Behind `json:"behind,omitempty"`
	Detail    string   `json:"detail,omitempty"` // why it is not in force, where that is known
}

// Behind is a running sandbox that is not under a revision yet.
type Behind struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Kernel  uint64 `json:"kernel"`  // the revision that the kernel judges it on
	Gateway uint64 `json:"gateway"` // and the gateway; 0: it does not serve it
}

// maxEnforceTimeout bounds how long a caller waits for a revision.
const maxEnforceTimeout = 10 * time.Minute

func (s *Server) applyPolicy(w http.ResponseWriter, r *call) error {
	var req ApplyRequest
	if err := s.readJSON(r, &req); err != nil {
		return err
	}
	if len(req.Documents) == 0 {
		return Errorf(CodeBadRequest, "no document was given")
	}
	for _, d := range req.Documents {
		if d.Text == "" {
			return Errorf(CodeBadRequest, "the document %q has no text: the client reads the file and sends what is in it", d.File)
		}
	}
	if err := checkComment(req.Comment); err != nil {
		return err
	}
	r.note("apply %d files", len(req.Documents))
	done, err := s.checks.take(r.Context(), r.caller.UID) // reading them is what takes long
	if err != nil {
		return err
	}
	defer done()
	res, err := s.o.Backend.ApplyPolicy(r.Context(), r.caller, &req)
	if err == nil {
		r.note("apply %s: revision %d", named(res.Documents), res.Revision)
		r.scope = oneScope(res.Documents)
	}
	return answer(w, res, err)
}

// oneScope is the scope that documents are for, "" when there are several: then
// the record is the node's.
func oneScope(docs []PolicyDocument) (in string) {
	for i, d := range docs {
		if i > 0 && d.Scope != in {
			return ""
		}
		in = d.Scope
	}
	return in
}

// named lists documents for the record.
func named(docs []PolicyDocument) string {
	var out []string
	for _, d := range docs {
		out = append(out, fmt.Sprintf("%s %s for %s", d.Kind, d.Name, d.Scope))
	}
	return strings.Join(out, ", ")
}

func (s *Server) deletePolicy(w http.ResponseWriter, r *call) error {
	comment := r.URL.Query().Get("comment")
	if err := checkComment(comment); err != nil {
		return err
	}
	r.note("delete %q", r.PathValue("name"))
	res, err := s.o.Backend.DeletePolicy(r.Context(), r.caller, r.PathValue("name"), comment)
	if err == nil {
		r.note("delete %s: revision %d", named(res.Documents), res.Revision)
		r.scope = oneScope(res.Documents)
	}
	return answer(w, res, err)
}

func (s *Server) enforced(w http.ResponseWriter, r *call) error {
	q := r.URL.Query()
	revision, err := strconv.ParseUint(q.Get("revision"), 10, 64)
	if err != nil || revision == 0 {
		return Errorf(CodeBadRequest, "the revision %q is no number above 0", q.Get("revision"))
	}
	timeout, err := time.ParseDuration(q.Get("timeout"))
	if err != nil || timeout < 0 || timeout > maxEnforceTimeout {
		return Errorf(CodeBadRequest, "the timeout %q is not between 0 and %s", q.Get("timeout"), maxEnforceTimeout)
	}
	_ = r.conn.SetWriteDeadline(time.Now().Add(timeout + writeTimeout))
	ctx, _, stop := s.lasting(r.Context(), r.caller, mayWriteSomewhere)
	defer stop()
	res, err := s.o.Backend.Enforced(ctx, r.caller, revision, timeout)
	if wasRevoked(ctx) {
		return errRevoked
	}
	return answer(w, res, err)
}

// policyUse tells a caller of the rules that apply to somebody whom it sees. How
// often a rule decided, and how much it has, is told where everybody it is for is
// seen.
func (s *Server) policyUse(w http.ResponseWriter, r *call) error {
	res, err := s.o.Backend.PolicyUse(r.Context())
	if err != nil || r.caller.Rights.Node(policy.RightSee) {
		if err == nil {
			res.Documents = readable(r.caller.Rights, res.Documents)
		}
		return answer(w, res, err)
	}
	rights := r.caller.Rights
	res.Documents = readable(rights, res.Documents)
	res.Rules = slices.DeleteFunc(res.Rules, func(u RuleUse) bool { return !reads(rights, policy.KindPolicy, u.Scope) })
	for i := range res.Rules {
		if u := &res.Rules[i]; !rights.mayIn(policy.RightSee, u.Scope) {
			u.Sandboxes, u.Entries, u.KernelBytes, u.KernelHits, u.GatewayHits = 0, 0, 0, 0, 0
		}
	}
	list, err := s.seen(r)
	res.Sandboxes, res.KernelBytes, res.Maps, res.Problems = 0, 0, nil, nil
	for _, b := range list {
		if b.State == StateRunning {
			res.Sandboxes++
		}
	}
	return answer(w, res, err)
}

// policy shows the documents in force for one sandbox that the caller sees, or
// all that apply to somebody whom it sees.
func (s *Server) policy(w http.ResponseWriter, r *call) error {
	ref, rights := r.URL.Query().Get("sandbox"), r.caller.Rights
	if ref == "" && !rights.anywhere(policy.RightSee) {
		return denied("the policy of the whole node needs root, or the role viewer of some scope", "name one of your own sandboxes with --sandbox")
	}
	if ref != "" {
		if err := s.resolve(r, ref); err != nil {
			return err
		}
		ref = r.box.ID
	}
	v, err := s.o.Backend.Policy(r.Context(), ref)
	if !rights.Node(policy.RightSee) {
		v.Problems = nil
		for i := range v.Documents {
			v.Documents[i].Text = rights.readText(&v.Documents[i])
		}
	}
	if ref == "" {
		v.Within = rights.within()
	}
	v.Documents = slices.DeleteFunc(v.Documents, func(d PolicyDocument) bool {
		if ref != "" && d.Kind != policy.KindAccess {
			return false // it applies to a sandbox that the caller sees
		}
		return !reads(rights, d.Kind, d.Scope)
	})
	return answer(w, v, err)
}

// readText is the text of a document in force, "" where another document stands
// in it that the caller does not read.
func (r Rights) readText(d *PolicyDocument) string {
	docs, _ := policy.Parse(d.File, []byte(d.Text)) // it is in force
	for i := range docs {
		if len(docs) > 1 && !r.Reads(docs[i].Kind, docs[i].Scope) {
			return ""
		}
	}
	return d.Text
}

// within are the scopes where the caller sees everybody, none for the whole node.
func (r Rights) within() (out []string) {
	if r.Node(policy.RightSee) {
		return nil
	}
	for _, h := range r.held {
		if h.role.Has(policy.RightSee) && !slices.Contains(out, h.in.String()) {
			out = append(out, h.in.String())
		}
	}
	return out
}

func readable(r Rights, docs []PolicyDocument) []PolicyDocument {
	return slices.DeleteFunc(docs, func(d PolicyDocument) bool { return !reads(r, d.Kind, d.Scope) })
}

// reads is Rights.Reads for a scope as text. The layer that is built in is
// everybody's.
func reads(r Rights, kind, in string) bool {
	sel, err := scope.ParseSelector(in)
	return r.Root() || in == policy.Builtin().Ref.Scope || err == nil && r.Reads(kind, sel)
}

// PolicyUse tells of every rule in force what it has in the kernel and how often
// it decided.
func (c *Client) PolicyUse(ctx context.Context) (PolicyUse, error) {
	return call1[PolicyUse](ctx, c, "GET", "/v1/policy/use", nil)
}

// ApplyPolicy applies documents in one revision.
func (c *Client) ApplyPolicy(ctx context.Context, r ApplyRequest) (PolicyChange, error) {
	return call1[PolicyChange](ctx, c, "PUT", "/v1/policy", r)
}

// DeletePolicy removes what was applied under a name. The comment says why.
func (c *Client) DeletePolicy(ctx context.Context, name, comment string) (PolicyChange, error) {
	q := url.Values{}
	setText(q, "comment", comment)
	return call1[PolicyChange](ctx, c, "DELETE", "/v1/policy/"+url.PathEscape(name)+"?"+q.Encode(), nil)
}

// Enforced waits until a revision is in force in every running sandbox, at most
// for the timeout; whether it is stands in the answer.
func (c *Client) Enforced(ctx context.Context, revision uint64, timeout time.Duration) (Enforcement, error) {
	q := url.Values{"revision": {strconv.FormatUint(revision, 10)}, "timeout": {timeout.String()}}
	return call1[Enforcement](ctx, c, "GET", "/v1/policy/enforced?"+q.Encode(), nil)
}
