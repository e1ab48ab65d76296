// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/audit"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/scope"
)

// learned marks the records of what was let through because the sandbox learns.
// A quote within a string is escaped, so nothing else can hold it.
var learned = []byte(`"uid":"` + policy.Learn().Ref.String() + `"`)

// Events yields records of the log.
func (b *backend) Events(ctx context.Context, q api.EventQuery) iter.Seq2[api.EventRecord, error] {
	return func(yield func(api.EventRecord, error) bool) {
		var about, in string
		denied := false
		match := func(h *event.Header) bool {
			about, in, denied = h.Sandbox, h.Scope, h.Denial()
			return q.Learned || !q.Failed || h.Failure() || q.Denied && denied
		}
		n := 0
		for r, err := range b.d.log.Read(ctx, audit.Query{Since: q.Since, Sandbox: q.Sandbox, DeniedOnly: q.Denied && !q.Failed && !q.Learned, Follow: q.Follow, Match: match}) {
			if err != nil {
				yield(api.EventRecord{}, err)
				return
			}
			if q.Learned && !(q.Denied && denied) && !bytes.Contains(r.Line, learned) {
				continue
			}
			if !yield(api.EventRecord{Seq: r.Seq, Sandbox: strings.Clone(about), Scope: strings.Clone(in), Line: r.Line}, nil) {
				return
			}
			if n++; q.Limit > 0 && n >= q.Limit {
				return
			}
		}
	}
}

// find looks an event up by its id, its number, or the decision id that an
// agent was shown, among those that sees shows.
func (b *backend) find(ctx context.Context, id string, sees func(sandbox, scope string) bool) (e event.Event, line []byte, err error) {
	shown := func(line []byte) (bool, error) {
		e, err = event.ParseOCSF(line)
		return err == nil && sees(e.Sandbox, e.Scope), err
	}
	line, err = b.d.log.Get(id)
	if err == nil {
		if ok, err := shown(line); !ok {
			return event.Event{}, nil, cmp.Or(err, error(audit.ErrNotFound))
		}
		return e, line, nil
	}
	if !errors.Is(err, audit.ErrNotFound) || !decisionID.MatchString(id) {
		return e, nil, err
	}
	// One reading of the log at a time, and not all of it: anybody who may ask
	// can ask for what there is not.
	if !b.d.finding.TryLock() {
		return e, nil, api.Errorf(api.CodeUnavailable, "another event is being looked for by its decision; try again, or name the event by its number")
	}
	defer b.d.finding.Unlock()
	want := []byte(`"decision":"` + id + `"`)
	for r, err := range b.d.log.Read(ctx, audit.Query{DeniedOnly: true, Since: time.Now().Add(-decisionsFor)}) {
		if err != nil {
			return e, nil, err
		}
		if !bytes.Contains(r.Line, want) {
			continue
		}
		if ok, err := shown(r.Line); ok || err != nil {
			return e, r.Line, err
		}
	}
	return event.Event{}, nil, audit.ErrNotFound
}

// decisionsFor is how long back a decision is found by its own id.
const decisionsFor = 24 * time.Hour

var decisionID = regexp.MustCompile(`^[0-9a-f]{16}$`)

// Explain looks one event up and asks the policy of now about it.
func (b *backend) Explain(ctx context.Context, id string, sees func(sandbox, scope string) bool) (api.Explanation, error) {
	e, line, err := b.find(ctx, strings.TrimPrefix(id, "#"), sees)
	if errors.Is(err, audit.ErrNotFound) {
		return api.Explanation{}, api.Errorf(api.CodeNotFound, "no event %q: the number after # in `ringfence events`, or metadata.uid of its JSON form", id)
	}
	if err != nil {
		return api.Explanation{}, err
	}
	x := api.Explanation{ID: e.ID, Sandbox: e.Sandbox, Scope: e.Scope, Verdict: verdictName(e.Verdict), Summary: e.Message(),
		Layer: e.Layer, Rule: e.Rule, RuleAt: e.RuleAt, Revision: e.Revision, Kind: e.Kind.String(), Detail: e.Detail, Remedy: e.Remedy, Event: line}
	if e.Kind == event.KindTamper {
		x.Summary = strings.TrimPrefix(cmp.Or(e.Object, e.Path)+": "+e.Reason, ": ")
	}
	b.explainNow(&e, &x)
	switch {
	case !b.runs(e.Sandbox):
		x.Remedy = event.LastingRemedy(x.Remedy, e.Scope)
	case len(b.d.sandboxes.List()) > 1 && strings.HasPrefix(x.Remedy, "ringfence allow ") && !strings.Contains(x.Remedy, " --"):
		x.Remedy += " --sandbox " + e.Sandbox
	}
	return x, nil
}

// runs says whether a rule can still be given to that very sandbox.
func (b *backend) runs(id string) bool {
	s, ok := b.d.sandboxes.ByID(id)
	if !ok {
		return false
	}
	select {
	case <-s.Ended():
		return false
	default:
		return true
	}
}

func verdictName(v event.Verdict) string {
	switch v {
	case event.Allowed:
		return "allowed"
	case event.Observed:
		return "observed"
	}
	return "denied"
}

// viewFor is the policy in force for a principal, as its sandbox has it if it runs.
func (d *Daemon) viewFor(p scope.Principal) *policy.View {
	if s, ok := d.sandboxes.ByID(p.Sandbox); ok && s.Principal == p {
		return s.View()
	}
	return d.library.Snapshot().View(p)
}

// explainNow adds what the policy in force says of the same request.
func (b *backend) explainNow(e *event.Event, x *api.Explanation) {
	q, ok := question(e)
	if !ok {
		return
	}
	p, err := scope.ParsePrincipal(e.Scope)
	if err != nil {
		return
	}
	view := b.d.viewFor(p).At(time.Now())
	if e.Kind == event.KindDNS && e.Verdict == event.Denied { // a name resolves when a rule opens any port of it
		if d := view.Name(e.DstName); d.Resolves {
			x.Now = fmt.Sprintf("it resolves: %s, revision %d", d.Decision.Rule, d.Decision.Revision)
			x.Remedy = ""
			return
		}
	}
	now := view.Explain(q)
	if now.Decision.Allowed() && e.Verdict == event.Denied {
		x.Now = fmt.Sprintf("allowed by %s, revision %d", now.Decision.Rule, now.Decision.Revision)
		x.Remedy = "" // done
		return
	}
	if now.Nearest != nil {
		x.Nearest = now.Nearest.Rule.String() + ": " + now.Nearest.Why
	}
	if x.Remedy == "" {
		x.Remedy = now.Remedy
	}
	if now.Decision.Allowed() != (e.Verdict == event.Allowed) || now.Decision.Rule.String() != e.Rule {
		x.Now = fmt.Sprintf("revision %d: %s", now.Decision.Revision, now.Decision.Reason)
	}
}

// question is what was asked, if policy can be asked again.
func question(e *event.Event) (policy.Question, bool) {
	switch e.Kind {
	case event.KindInference:
		return policy.Question{Section: policy.SectionInference, Dialect: e.Provider, Model: e.Model}, e.Model != ""
	case event.KindNetwork, event.KindHTTP, event.KindDNS:
	default:
		return policy.Question{}, false
	}
	q := policy.Question{Section: policy.SectionEgress, Host: e.DstName, Port: e.DstPort, Method: e.Method}
	if e.Kind == event.KindNetwork && e.Proto == policy.UDP.String() {
		q.Proto = policy.UDP
	}
	if e.DstName == "" {
		ap, err := netip.ParseAddrPort(e.DstAddr)
		if err != nil {
			return q, false
		}
		q.Host, q.Port = ap.Addr().String(), ap.Port()
	}
	return q, true
}

func (b *backend) CheckPolicy(_ context.Context, docs []api.Document) (api.CheckResult, error) {
	var all []policy.Document
	var problems []policy.Problem
	for _, d := range docs {
		parsed, ps := policy.Parse(d.File, []byte(d.Text))
		problems = append(problems, ps...)
		all = append(all, parsed...)
	}
	if len(problems) == 0 {
		_, problems = policy.Compile(1, all)
	}
	return api.NewCheckResult(problems), nil
}

func (b *backend) Policy(_ context.Context, id string) (api.PolicyView, error) {
	var s *sandbox.Sandbox
	if id != "" {
		var err error
		if s, err = b.living(id); err != nil {
			return api.PolicyView{}, err
		}
	}
	v := api.PolicyView{Revision: b.d.library.Snapshot().Revision(), Documents: []api.PolicyDocument{}}
	for _, it := range b.d.library.Items() {
		if s != nil && !it.Scope.Matches(s.Principal, "", "") {
			continue
		}
		v.Documents = append(v.Documents, api.PolicyDocument{Kind: it.Kind, Name: it.Name, Scope: it.Scope.String(), File: it.File, Text: string(it.Raw)})
	}
	if s == nil {
		for _, m := range b.d.library.Problems() {
			v.Problems = append(v.Problems, api.Problem{File: m.File, Line: m.Line, Col: m.Col, Msg: m.Msg, Hint: m.Hint, Stays: m.Stays})
		}
		v.Problems = append(v.Problems, b.d.unknownPeople()...)
	}
	return v, nil
}

func (b *backend) VerifyAudit(context.Context) (api.AuditReport, error) {
	dir := filepath.Join(b.d.cfg.StateDir, "events")
	r, err := audit.Verify(dir)
	if err != nil {
		return api.AuditReport{}, err
	}
	return api.NewAuditReport(dir, r), nil
}
