// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// ApplyRequest is the body of PUT /v1/policy: documents with their text. They
// replace what was applied under the same kind and name before.
type ApplyRequest struct {
	Documents []Document `json:"documents"`
	Comment   string     `json:"comment,omitempty"`
}

// PolicyChange answers PUT /v1/policy, DELETE /v1/policy/{name} and
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
	if err := readJSON(r, &req); err != nil {
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
	res, err := s.o.Backend.ApplyPolicy(r.Context(), r.caller, &req)
	return answer(w, res, err)
}

func (s *Server) deletePolicy(w http.ResponseWriter, r *call) error {
	res, err := s.o.Backend.DeletePolicy(r.Context(), r.caller, r.PathValue("name"))
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
	res, err := s.o.Backend.Enforced(r.Context(), revision, timeout)
	return answer(w, res, err)
}

func (s *Server) policyUse(w http.ResponseWriter, r *call) error {
	res, err := s.o.Backend.PolicyUse(r.Context())
	return answer(w, res, err)
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

// DeletePolicy removes what was applied under a name.
func (c *Client) DeletePolicy(ctx context.Context, name string) (PolicyChange, error) {
	return call1[PolicyChange](ctx, c, "DELETE", "/v1/policy/"+url.PathEscape(name), nil)
}

// Enforced waits until a revision is in force in every running sandbox, at most
// for the timeout; whether it is stands in the answer.
func (c *Client) Enforced(ctx context.Context, revision uint64, timeout time.Duration) (Enforcement, error) {
	q := url.Values{"revision": {strconv.FormatUint(revision, 10)}, "timeout": {timeout.String()}}
	return call1[Enforcement](ctx, c, "GET", "/v1/policy/enforced?"+q.Encode(), nil)
}
