// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// LastingRequest is the body of POST /v1/approvals/{approval}/rule and
// POST /v1/approvals/drafts/{draft}/rule: what somebody is asked about, or was
// denied because no rule allows it, becomes a rule that stays. Without Apply
// nothing is changed, and the answer says what would be.
type LastingRequest struct {
	Apply bool `json:"apply"`
	// Expect is the Digest of the proposal that was looked at; another one is not
	// applied. "": whatever it is.
	Expect  string `json:"expect,omitempty"`
	Comment string `json:"comment,omitempty"` // for the history
}

// LastingRule is the answer: documents as they are and as they would be, or
// became.
type LastingRule struct {
	For       string           `json:"for"`    // the principals that the rule is for
	Allows    string           `json:"allows"` // HOST:PORT
	Documents []DocumentChange `json:"documents"`
	Digest    string           `json:"digest"` // of what would be written
	// Revision is the one that has it in force; 0: nothing was applied.
	Revision uint64 `json:"revision,omitempty"`
}

// Draft is what sandboxes of a scope were denied because no rule allows it, all
// times alike. It is kept in memory, and forgotten with the daemon. Destination
// was chosen by a sandbox.
type Draft struct {
	ID          string    `json:"id"`
	Scope       string    `json:"scope"`       // without the sandbox
	Destination string    `json:"destination"` // HOST:PORT or HOST:PORT/udp; port 443 where only the name was asked for
	Count       uint64    `json:"count"`
	First       time.Time `json:"first"`
	Last        time.Time `json:"last"`
	Sandboxes   []string  `json:"sandboxes"` // ids
	// More is how many denials of those sandboxes stand in no draft: a sandbox has
	// room for so many.
	More uint64 `json:"more,omitempty"`
}

// IsDraft says whether an id is one of a draft, and not of a request.
func IsDraft(id string) bool { return strings.HasPrefix(id, "draft-") }

// LastingBackend makes rules of requests and of denials.
type LastingBackend interface {
	// LastApproval makes a rule of a request for approval that c sees. c needs the
	// right to write each document.
	LastApproval(ctx context.Context, c *Caller, id string, r *LastingRequest) (LastingRule, error)
	// Drafts lists denials by default, those of each sandbox for itself: of the
	// sandboxes of which sees says so, which is asked first, and with an id only of
	// that draft.
	Drafts(ctx context.Context, sees func(launcher uint32, principal string) bool, id string) ([]Draft, error)
	// LastDraft makes a rule of a draft that c sees, likewise.
	LastDraft(ctx context.Context, c *Caller, draft *Draft, r *LastingRequest) (LastingRule, error)
}

func (s *Server) lastApproval(w http.ResponseWriter, r *call) error {
	a, err := s.approval(r)
	if err != nil {
		return err
	}
	req, err := s.readLasting(r)
	if err != nil {
		return err
	}
	r.note("%s a rule of the approval %s: %s %s of sandbox %s", proposes(req), a.ID, a.Kind, a.Target, a.Sandbox)
	r.scope = a.Scope
	res, err := s.o.Backend.LastApproval(r.Context(), r.caller, a.ID, req)
	return answer(w, res, err)
}

func (s *Server) readLasting(r *call) (*LastingRequest, error) {
	var req LastingRequest
	if err := s.readJSON(r, &req); err != nil {
		return nil, err
	}
	return &req, checkComment(req.Comment)
}

func proposes(r *LastingRequest) string {
	if r.Apply {
		return "write"
	}
	return "look at"
}

// drafts are those that the caller sees, the sandboxes of one scope together, the
// last first. id: only that one, "" all.
func (s *Server) drafts(r *call, id string) ([]Draft, error) {
	list, err := s.o.Backend.Drafts(r.Context(), r.caller.Rights.Sees, id)
	out := []Draft{}
	at := map[string]int{} // in out, by id
	for _, d := range list {
		i, known := at[d.ID]
		if !known {
			at[d.ID] = len(out)
			out = append(out, d)
			continue
		}
		o := &out[i]
		o.Count, o.More, o.Sandboxes = o.Count+d.Count, o.More+d.More, append(o.Sandboxes, d.Sandboxes...)
		if d.First.Before(o.First) {
			o.First = d.First
		}
		if d.Last.After(o.Last) {
			o.Last = d.Last
		}
	}
	slices.SortStableFunc(out, func(a, b Draft) int { return b.Last.Compare(a.Last) })
	return out, err
}

func (s *Server) listDrafts(w http.ResponseWriter, r *call) error {
	list, err := s.drafts(r, "")
	return answer(w, list, err)
}

func (s *Server) lastDraft(w http.ResponseWriter, r *call) error {
	id := r.PathValue("draft")
	list, err := s.drafts(r, id)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		if all, err := s.o.Backend.Drafts(r.Context(), func(uint32, string) bool { return true }, id); err == nil && len(all) > 0 {
			r.hidden = fmt.Sprintf("draft %q is of sandboxes that the caller does not see", id)
		}
		return Errorf(CodeNotFound, "no draft %q", id).WithRemedy("`ringfence approvals list --drafts` lists them")
	}
	req, err := s.readLasting(r)
	if err != nil {
		return err
	}
	r.note("%s a rule of the draft %s: %s for %s", proposes(req), id, list[0].Destination, list[0].Scope)
	r.scope = list[0].Scope
	res, err := s.o.Backend.LastDraft(r.Context(), r.caller, &list[0], req)
	return answer(w, res, err)
}

// LastApproval makes a rule of a request for approval, or says what it would be.
func (c *Client) LastApproval(ctx context.Context, id string, r LastingRequest) (LastingRule, error) {
	return call1[LastingRule](ctx, c, "POST", "/v1/approvals/"+url.PathEscape(id)+"/rule", r)
}

// Drafts lists what was denied because no rule allows it.
func (c *Client) Drafts(ctx context.Context) ([]Draft, error) {
	return call1[[]Draft](ctx, c, "GET", "/v1/approvals/drafts", nil)
}

// LastDraft is LastApproval for a draft.
func (c *Client) LastDraft(ctx context.Context, id string, r LastingRequest) (LastingRule, error) {
	return call1[LastingRule](ctx, c, "POST", "/v1/approvals/drafts/"+url.PathEscape(id)+"/rule", r)
}
