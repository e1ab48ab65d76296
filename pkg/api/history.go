// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// PolicyHistory is what the store knows of the policy documents of the node.
type PolicyHistory interface {
	// StoredDocuments are the documents with a name, all for "", as of a
	// revision; those in force for 0.
	StoredDocuments(ctx context.Context, name string, revision uint64) (StoredDocuments, error)
	// Revisions lists revisions that changed documents, newest first.
	Revisions(ctx context.Context, q RevisionQuery) (Revisions, error)
	// PolicyDiff is how the documents as of one revision differ from those as of
	// another, the newest for 0.
	PolicyDiff(ctx context.Context, from, to uint64) (PolicyDiff, error)
	// RollbackPolicy makes a new revision that has the documents of the API as
	// they were. Like ApplyPolicy it does not wait until they are in force.
	RollbackPolicy(ctx context.Context, c *Caller, r *RollbackRequest) (PolicyChange, error)
}

// StoredDocuments answers GET /v1/policy/documents?name=NAME&revision=N.
type StoredDocuments struct {
	Revision  uint64           `json:"revision"`
	Documents []StoredDocument `json:"documents"`
}

// StoredDocument is one document with its text.
type StoredDocument struct {
	Kind  string `json:"kind"`
	Name  string `json:"name"`
	Scope string `json:"scope,omitempty"`
	Owner string `json:"owner"` // api or directory
	File  string `json:"file"`
	Text  string `json:"text"`
}

// RevisionQuery chooses revisions.
type RevisionQuery struct {
	Name   string // that changed a document with this name, "": all
	Before uint64 // with a lower number, 0: all
	Limit  int
}

// MaxRevisions bounds one answer with revisions.
const MaxRevisions = 1000

// Revisions answers GET /v1/policy/history?name=NAME&before=N&limit=N.
type Revisions struct {
	Revisions []Revision `json:"revisions"`
}

// Revision is one step of the history: who did what to which documents.
type Revision struct {
	Number  uint64           `json:"revision"`
	Time    time.Time        `json:"time"`
	Author  string           `json:"author"`            // uid=N(NAME) as of that time, or "directory"
	UID     *int64           `json:"uid,omitempty"`     // of a person
	PID     int              `json:"pid,omitempty"`     // of the program that asked
	Program string           `json:"program,omitempty"` // what it called itself
	Action  string           `json:"action"`
	Comment string           `json:"comment,omitempty"`
	Changes []DocumentChange `json:"changes"`
}

// DocumentChange is what became of one document.
type DocumentChange struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Scope  string `json:"scope,omitempty"`
	Owner  string `json:"owner"`
	File   string `json:"file"`
	Change string `json:"change"` // added, changed or removed
	// SHA-256 of the texts; "" where there is none.
	BeforeHash string `json:"beforeHash,omitempty"`
	AfterHash  string `json:"afterHash,omitempty"`
	// The texts themselves; only in a PolicyDiff.
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// PolicyDiff answers GET /v1/policy/diff?from=N&to=M.
type PolicyDiff struct {
	From    uint64           `json:"from"`
	To      uint64           `json:"to"`
	Changes []DocumentChange `json:"changes"`
}

// RollbackRequest is the body of POST /v1/policy/rollback.
type RollbackRequest struct {
	Revision uint64 `json:"revision"`
	Comment  string `json:"comment,omitempty"`
	APIOnly  bool   `json:"apiOnly,omitempty"` // also when documents of the directory differ, which stay
}

// maxComment bounds what somebody says of a change, in bytes.
const maxComment = 1024

func checkComment(s string) error {
	if len(s) > maxComment || !utf8.ValidString(s) {
		return Errorf(CodeBadRequest, "the comment is not text of at most %d bytes", maxComment)
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return Errorf(CodeBadRequest, "the comment %q is not one line of text", s)
		}
	}
	return nil
}

// revisionOf reads a number from a query; without one it is 0, if it may be.
func revisionOf(q url.Values, key string, need bool) (uint64, error) {
	text := q.Get(key)
	if text == "" && !need {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || n == 0 {
		return 0, Errorf(CodeBadRequest, "the %s %q is no number above 0", key, text)
	}
	return n, nil
}

func (s *Server) policyDocuments(w http.ResponseWriter, r *call) error {
	q := r.URL.Query()
	n, err := revisionOf(q, "revision", false)
	if err != nil {
		return err
	}
	res, err := s.o.Backend.StoredDocuments(r.Context(), q.Get("name"), n)
	return answer(w, res, err)
}

func (s *Server) policyHistory(w http.ResponseWriter, r *call) error {
	q := r.URL.Query()
	before, err := revisionOf(q, "before", false)
	if err != nil {
		return err
	}
	limit, err := strconv.Atoi(q.Get("limit"))
	if err != nil || limit < 1 || limit > MaxRevisions {
		return Errorf(CodeBadRequest, "the limit %q is not between 1 and %d", q.Get("limit"), MaxRevisions)
	}
	res, err := s.o.Backend.Revisions(r.Context(), RevisionQuery{Name: q.Get("name"), Before: before, Limit: limit})
	return answer(w, res, err)
}

func (s *Server) policyDiff(w http.ResponseWriter, r *call) error {
	q := r.URL.Query()
	from, err := revisionOf(q, "from", true)
	if err != nil {
		return err
	}
	to, err := revisionOf(q, "to", false)
	if err != nil {
		return err
	}
	res, err := s.o.Backend.PolicyDiff(r.Context(), from, to)
	return answer(w, res, err)
}

func (s *Server) rollbackPolicy(w http.ResponseWriter, r *call) error {
	var req RollbackRequest
	if err := s.readJSON(r, &req); err != nil {
		return err
	}
	if req.Revision == 0 {
		return Errorf(CodeBadRequest, "name the revision to go back to")
	}
	if err := checkComment(req.Comment); err != nil {
		return err
	}
	r.note("roll back to revision %d", req.Revision)
	res, err := s.o.Backend.RollbackPolicy(r.Context(), r.caller, &req)
	if err == nil {
		r.note("roll back to revision %d: revision %d", req.Revision, res.Revision)
	}
	return answer(w, res, err)
}

// StoredDocuments are the documents with a name, all for "", as of a revision;
// those in force for 0.
func (c *Client) StoredDocuments(ctx context.Context, name string, revision uint64) (StoredDocuments, error) {
	q := url.Values{}
	setText(q, "name", name)
	setNumber(q, "revision", revision)
	return call1[StoredDocuments](ctx, c, "GET", "/v1/policy/documents?"+q.Encode(), nil)
}

// Revisions lists revisions, newest first.
func (c *Client) Revisions(ctx context.Context, rq RevisionQuery) (Revisions, error) {
	q := url.Values{"limit": {strconv.Itoa(rq.Limit)}}
	setText(q, "name", rq.Name)
	setNumber(q, "before", rq.Before)
	return call1[Revisions](ctx, c, "GET", "/v1/policy/history?"+q.Encode(), nil)
}

// PolicyDiff compares two revisions; to is the newest for 0.
func (c *Client) PolicyDiff(ctx context.Context, from, to uint64) (PolicyDiff, error) {
	q := url.Values{}
	setNumber(q, "from", from)
	setNumber(q, "to", to)
	return call1[PolicyDiff](ctx, c, "GET", "/v1/policy/diff?"+q.Encode(), nil)
}

// RollbackPolicy restores the documents of the API as of a revision.
func (c *Client) RollbackPolicy(ctx context.Context, r RollbackRequest) (PolicyChange, error) {
	return call1[PolicyChange](ctx, c, "POST", "/v1/policy/rollback", r)
}

func setText(q url.Values, key, value string) {
	if value != "" {
		q.Set(key, value)
	}
}

func setNumber(q url.Values, key string, value uint64) {
	if value != 0 {
		q.Set(key, strconv.FormatUint(value, 10))
	}
}
