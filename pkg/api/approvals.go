// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Approval is one request that people decide. Target and Arguments were chosen
// by a sandbox: escape them before a terminal sees them.
type Approval struct {
	ID        string `json:"id"`
	Sandbox   string `json:"sandbox"`             // id
	Name      string `json:"name,omitempty"`      // of the sandbox
	Program   string `json:"program,omitempty"`   // that it was launched with
	Workspace string `json:"workspace,omitempty"` // as the launcher named it
	Profile   string `json:"profile,omitempty"`
	Scope     string `json:"scope"`
	Launcher  uint32 `json:"launcher"` // uid of who launched the sandbox
	Kind      string `json:"kind"`     // "egress", "tool", "model"
	Target    string `json:"target"`
	Arguments string `json:"arguments,omitempty"` // redacted

	// Args are those that a pattern of a vote can name, of a tool.
	Args []ApprovalArgument `json:"args,omitempty"`

	Binding     string           `json:"binding"`     // hash of what will run
	Fingerprint string           `json:"fingerprint"` // of the rules that ask
	State       string           `json:"state"`
	Why         string           `json:"why,omitempty"`
	Count       uint64           `json:"count"`
	Created     time.Time        `json:"created"`
	Expires     time.Time        `json:"expires"`
	Decided     *time.Time       `json:"decided,omitempty"`
	Ended       *time.Time       `json:"ended,omitempty"`
	Demands     []ApprovalDemand `json:"demands"`         // all of them have to be met
	Needs       string           `json:"needs,omitempty"` // who has to agree still, in words
	Votes       []ApprovalVote   `json:"votes,omitempty"`
	Grant       *ApprovalGrant   `json:"grant,omitempty"`
	MayVote     bool             `json:"mayVote"` // the caller's vote would count
	// MayLast says of one that was asked for by its id that the caller may make a
	// rule of it that stays.
	MayLast bool `json:"mayLast,omitempty"`

	// Named is set by the Backend: a rule names the caller as an approver.
	Named bool `json:"-"`
}

// Called is the sandbox as people know it: "b0a1c2d3 (web)".
func (a *Approval) Called() string {
	if a.Name == "" {
		return a.Sandbox
	}
	return a.Sandbox + " (" + a.Name + ")"
}

// ApprovalArgument is one of the arguments. Without Kept nobody keeps its text.
type ApprovalArgument struct {
	Path string `json:"path"`
	Text string `json:"text,omitempty"`
	Kept bool   `json:"kept"`
}

// ApprovalDemand is what one rule demands.
type ApprovalDemand struct {
	Rule      string   `json:"rule"`
	RuleAt    string   `json:"ruleAt,omitempty"`    // where it stood when it asked
	Reason    string   `json:"reason,omitempty"`    // what it says to people
	Who       string   `json:"who"`                 // whose approvals count, in words
	Approvers []string `json:"approvers,omitempty"` // none: root, the launcher, approvers of the scope
	Quorum    int      `json:"quorum"`
	Separate  bool     `json:"separate,omitempty"`
	Lacks     int      `json:"lacks"` // how many people more
}

// ApprovalVote is one person's word.
type ApprovalVote struct {
	UID     uint32    `json:"uid"`
	Name    string    `json:"name,omitempty"`
	Approve bool      `json:"approve"`
	Gives   string    `json:"gives,omitempty"` // of an approval, in words: the least of all is given
	Comment string    `json:"comment,omitempty"`
	At      time.Time `json:"at"`
}

// ApprovalGrant is what an approved request gives.
type ApprovalGrant struct {
	Covers string     `json:"covers"` // "call", "arguments", "target"
	Lasts  string     `json:"lasts"`  // ApproveOnce ...
	Says   string     `json:"says"`   // both in words
	Until  *time.Time `json:"until,omitempty"`
}

// How long an approval lasts.
const (
	ApproveOnce    = "once"    // one use of what was asked for; the default
	ApproveFor     = "for"     // For long
	ApproveSandbox = "sandbox" // until the sandbox ends
)

// VoteRequest is the body of POST /v1/approvals/{approval}/vote. Without
// Approve it is a denial.
type VoteRequest struct {
	Approve bool     `json:"approve"`
	Lasts   string   `json:"lasts,omitempty"` // ApproveOnce ...; with Approve only
	For     Duration `json:"for,omitempty"`
	Comment string   `json:"comment,omitempty"`
	// Args free arguments of a tool, each as PATH=GLOB, with ApproveFor or
	// ApproveSandbox: all others have to be what they are now.
	Args []string `json:"args,omitempty"`
}

// maxApprovals is how many requests a caller is listed at most, the newest of
// those in its inbox.
const maxApprovals = 1000

// ApprovalBackend keeps the requests that people decide. What a caller may see
// and do is the server's to say, after [Approval.Named]; whose vote a rule
// counts is the Backend's.
type ApprovalBackend interface {
	// Approvals yields requests, newest first: those that are open, or all that
	// are kept. A yielded error ends the sequence.
	Approvals(ctx context.Context, c *Caller, all bool) iter.Seq2[Approval, error]
	Approval(ctx context.Context, c *Caller, id string) (Approval, error)
	// WatchApprovals yields those that are open, then each that changes, until
	// ctx ends. A yielded error ends the sequence.
	WatchApprovals(ctx context.Context, c *Caller) iter.Seq2[Approval, error]
	Vote(ctx context.Context, c *Caller, id string, r *VoteRequest) (Approval, error)
}

// inInbox is the one place that says who has to do with a request: whom it is
// shown to, and whose vote is looked at. Everybody else is told that there is no
// such request.
func inInbox(r Rights, a *Approval) bool {
	return r.Approves(a.Scope) || a.Named || r.Sees(a.Launcher, a.Scope)
}

func (s *Server) listApprovals(w http.ResponseWriter, r *call) error {
	all, err := flag(r, "all")
	if err != nil {
		return err
	}
	out := []Approval{}
	for a, err := range s.o.Backend.Approvals(r.Context(), r.caller, all) {
		if err != nil {
			return err
		}
		if !inInbox(r.caller.Rights, &a) {
			continue
		}
		if out = append(out, a); len(out) == maxApprovals {
			break
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

// approval finds a request that the caller has to do with.
func (s *Server) approval(r *call) (Approval, error) {
	id := r.PathValue("approval")
	a, err := s.o.Backend.Approval(r.Context(), r.caller, id)
	sees := err == nil && inInbox(r.caller.Rights, &a)
	if err == nil && !sees {
		r.hidden = fmt.Sprintf("approval %q is of sandbox %q, which the caller does not see", id, a.Sandbox)
	}
	if err == nil && !sees || CodeOf(err) == CodeNotFound {
		return Approval{}, Errorf(CodeNotFound, "no approval %q", id).WithRemedy("`ringfence approvals list --all` lists them")
	}
	return a, err
}

func (s *Server) getApproval(w http.ResponseWriter, r *call) error {
	a, err := s.approval(r)
	return answer(w, a, err)
}

func (s *Server) vote(w http.ResponseWriter, r *call) error {
	a, err := s.approval(r)
	if err != nil {
		return err
	}
	var req VoteRequest
	if err := s.readJSON(r, &req); err != nil {
		return err
	}
	if err := checkVote(&req); err != nil {
		return err
	}
	verb := "deny"
	if req.Approve {
		verb = "approve"
	}
	r.note("%s %s %s of sandbox %s", verb, a.Kind, a.Target, a.Sandbox)
	r.scope = a.Scope
	res, err := s.o.Backend.Vote(r.Context(), r.caller, a.ID, &req)
	return answer(w, res, err)
}

// checkVote checks the form of a vote; what the rules let it give is the
// Backend's word.
func checkVote(r *VoteRequest) error {
	switch {
	case !r.Approve && (r.Lasts != "" || r.For != 0 || len(r.Args) > 0):
		return Errorf(CodeBadRequest, "a denial lasts for no time of its own, and frees nothing")
	case len(r.Args) > 0 && r.Lasts != ApproveFor && r.Lasts != ApproveSandbox:
		return Errorf(CodeBadRequest, "one use is for the call that was asked for: patterns of arguments are of an approval %q or %q", ApproveFor, ApproveSandbox)
	case r.Lasts != "" && r.Lasts != ApproveOnce && r.Lasts != ApproveFor && r.Lasts != ApproveSandbox:
		return Errorf(CodeBadRequest, "an approval is %q, %q or %q, not %q", ApproveOnce, ApproveFor, ApproveSandbox, r.Lasts)
	case (r.Lasts == ApproveFor) != (r.For > 0) || r.For < 0:
		return Errorf(CodeBadRequest, "an approval %q has a duration above zero, and no other has one", ApproveFor)
	}
	return checkComment(r.Comment)
}

// watchApprovals streams requests as JSON lines: those that the caller has to do
// with.
func (s *Server) watchApprovals(w http.ResponseWriter, r *call) error {
	ctx, rights, done := s.lasting(r.Context(), r.caller, func(now Rights) bool { return !now.none() })
	defer done()
	st := begin(w, r, "application/x-ndjson")
	for a, err := range s.o.Backend.WatchApprovals(ctx, r.caller) {
		if wasRevoked(ctx) {
			break
		}
		if err != nil {
			return st.end(err)
		}
		if !inInbox(rights.now(), &a) {
			continue
		}
		line, err := json.Marshal(a)
		if err != nil {
			return st.end(err)
		}
		if err := st.write(append(line, '\n'), true); err != nil {
			return errAnswered
		}
	}
	if wasRevoked(ctx) {
		return st.end(errRevoked)
	}
	return nil
}

// Approvals lists the newest requests for approval: those that are open, or all
// that are kept.
func (c *Client) Approvals(ctx context.Context, all bool) ([]Approval, error) {
	return call1[[]Approval](ctx, c, "GET", "/v1/approvals?all="+strconv.FormatBool(all), nil)
}

// Approval returns one request for approval.
func (c *Client) Approval(ctx context.Context, id string) (Approval, error) {
	return call1[Approval](ctx, c, "GET", "/v1/approvals/"+url.PathEscape(id), nil)
}

// Vote approves or denies.
func (c *Client) Vote(ctx context.Context, id string, r VoteRequest) (Approval, error) {
	return call1[Approval](ctx, c, "POST", "/v1/approvals/"+url.PathEscape(id)+"/vote", r)
}

// WatchApprovals calls yield with each request that is open, then with each that
// changes, until ctx ends or yield returns an error, which it passes on.
func (c *Client) WatchApprovals(ctx context.Context, yield func(Approval) error) error {
	resp, err := c.request(ctx, "GET", "/v1/approvals/watch", nil)
	if err != nil {
		return err
	}
	body := &streamBody{ReadCloser: resp.Body, resp: resp}
	defer body.Close() //nolint:errcheck // only read
	dec := json.NewDecoder(body)
	for {
		var a Approval
		if err := dec.Decode(&a); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := yield(a); err != nil {
			return err
		}
	}
}
