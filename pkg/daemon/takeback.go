// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/scope"
)

// given is one rule in force that Allow gave.
type given struct {
	file    string // the library's name of the document
	doc     string
	mode    string // api.AllowOnce ...
	sandbox string // id, "" when it is for a scope
	scope   scope.Selector
	target  policy.Target
}

// TakeBack removes the rules for one destination that Allow gave to exactly
// that sandbox or scope.
func (b *backend) TakeBack(ctx context.Context, c *api.Caller, r *api.AllowRequest) (api.TakenBack, error) {
	d := b.d
	target, err := policy.ParseTarget(r.Destination)
	if err != nil {
		return api.TakenBack{}, api.Errorf(api.CodeBadRequest, "%v", err)
	}
	if target.Proto == policy.TCP {
		target.Proto = 0 // as NewEgressRule spells it
	}
	var s *sandbox.Sandbox
	sel, err := b.allowScope(r, &s)
	if err != nil {
		return api.TakenBack{}, err
	}
	all := givenRules(d.library.Items())
	var mine []given
	for _, g := range all {
		if g.target == target && g.isFor(s, sel) && (r.Mode == "" || r.Mode == g.mode) {
			mine = append(mine, g)
		}
	}
	if len(mine) == 0 {
		return api.TakenBack{}, d.nothingGiven(c, r, s, sel, target, all)
	}
	res := api.TakenBack{Sandbox: r.Sandbox, Scope: sel.String()}
	for _, g := range mine {
		res.Rules = append(res.Rules, api.GivenRule{Destination: g.target.String(), Document: g.doc, Mode: g.mode})
	}
	if err := d.takeBack(c, s, mine); err != nil {
		return api.TakenBack{}, api.Errorf(api.CodeInternal, "%v", err)
	}
	res.Revision = d.library.Snapshot().Revision()
	if err := d.awaitTaken(ctx, res.Revision, s, sel); err != nil {
		return api.TakenBack{}, err
	}
	res.Note = d.openedBy(target, sel, s)
	res.Effective = res.Note == ""
	return res, nil
}

// awaitTaken waits until rules that are gone let nothing pass any more in the
// sandboxes that they were for. A gateway that is not there has nothing open.
func (d *Daemon) awaitTaken(ctx context.Context, revision uint64, s *sandbox.Sandbox, sel scope.Selector) error {
	ctx, cancel := context.WithTimeout(ctx, enforceTime)
	defer cancel()
	if err := d.policy.wait(ctx, revision); err != nil {
		return api.Errorf(api.CodeUnavailable, "%v", err)
	}
	if !d.gateway.Ready() {
		return nil
	}
	e := d.settledOn(ctx, revision, func(o *sandbox.Sandbox) bool {
		return s == o || s == nil && sel.Matches(o.Principal, "", "")
	})
	if !e.InForce {
		return api.Errorf(api.CodeUnavailable, "the rule is gone with policy revision %d, but %d sandboxes that it was for are not yet judged on that", revision, len(e.Behind)).
			WithRemedy("nothing has to be taken back again; `ringfence policy wait " + strconv.FormatUint(revision, 10) + "` waits for it")
	}
	return nil
}

// isFor says whether a rule was given to that sandbox or, without one, to
// exactly that scope.
func (g *given) isFor(s *sandbox.Sandbox, sel scope.Selector) bool {
	if s != nil {
		return g.sandbox == s.Record.ID
	}
	return g.sandbox == "" && g.scope == sel
}

// givenRules finds what Allow gave among the documents in force.
func givenRules(items []documents.Item) (out []given) {
	for i := range items {
		if g, ok := givenRule(&items[i]); ok {
			out = append(out, g)
		}
	}
	return out
}

func givenRule(it *documents.Item) (g given, ok bool) {
	p := it.Policy
	if p == nil || len(p.Egress) != 1 || len(p.Inference) > 0 || len(p.Tools) > 0 || p.Egress[0].ID != grantRule || p.Egress[0].Effect != policy.Allow {
		return g, false
	}
	rule := &p.Egress[0]
	g = given{file: it.Source, doc: it.Name, scope: it.Scope, target: rule.Target()}
	name := it.Source
	if rest, own := strings.CutPrefix(it.Source, "sandbox:"); own {
		g.sandbox, name, _ = strings.Cut(rest, "/")
	}
	switch {
	case it.Origin == documents.FromDirectory:
		return g, false
	case it.Origin == documents.FromAPI:
		g.mode, name = api.AllowAlways, filepath.Base(it.Source)
	case strings.Contains(name, once):
		g.mode = api.AllowOnce
	case strings.Contains(name, until):
		g.mode = api.AllowFor
	default:
		g.mode = api.AllowSandbox
	}
	return g, strings.HasPrefix(name, "allow-") // those of `run --policy` begin with their number
}

// takeBack puts rules out of force and out of where they are kept. Closing
// does not wait for the disk.
func (d *Daemon) takeBack(c *api.Caller, s *sandbox.Sandbox, list []given) error {
	d.storing.Lock()
	defer d.storing.Unlock()
	var files []string
	var scopes []scope.Selector
	for _, g := range list {
		d.forgetGrant(g.file)
		files, scopes = append(files, g.file), append(scopes, g.scope)
	}
	if _, err := d.library.RemoveBy(d.act(c, "take-back", "", scopes...), files...); err != nil {
		return err
	}
	if s == nil {
		return nil
	}
	docs, err := d.storedDocuments(s.Record.ID)
	if err == nil {
		left := slices.DeleteFunc(slices.Clone(docs), func(o storedDocument) bool { return slices.Contains(files, o.Name) })
		if len(left) < len(docs) {
			err = d.storeSandboxDocuments(s.Record.ID, left)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has ended meanwhile
	}
	if err != nil {
		return fmt.Errorf("it is not in force any more, but a daemon that is restarted puts it back: %w", err)
	}
	return nil
}

// openedBy names the rule that allows a destination all the same, "" when none
// does or when that cannot be said for the whole scope.
func (d *Daemon) openedBy(t policy.Target, sel scope.Selector, s *sandbox.Sandbox) string {
	var v *policy.View
	if s != nil {
		v = s.View()
	} else if p, err := scope.ParsePrincipal(sel.String()); err == nil {
		v = d.library.Snapshot().View(p)
	}
	if v == nil {
		return ""
	}
	dec := decide(v.At(time.Now()), t)
	if !dec.Allowed() {
		return ""
	}
	return fmt.Sprintf("the rule %s (%s) allows it", dec.Rule, ruleAt(dec.Rule.File, dec.Rule.Line))
}

// decide asks for a target; a pattern is asked for by a name that no narrower
// rule is likely to have.
func decide(v *policy.View, t policy.Target) policy.Decision {
	if t.Prefix.IsValid() {
		proto := t.Proto
		if proto == 0 {
			proto = policy.TCP
		}
		return v.Addr(t.Prefix.Addr(), t.Port, proto)
	}
	name := t.Host.Name
	switch {
	case t.Host.Kind == policy.HostExact:
	case name == "":
		name = "any-name.example"
	default:
		name = "any-name." + name
	}
	if t.Proto == policy.UDP {
		return v.Datagrams(name, t.Port)
	}
	return v.Egress(name, t.Port)
}

// maxNamed bounds how many rules an error names.
const maxNamed = 10

// nothingGiven is the answer when there is nothing to take back: it names what
// there is.
func (d *Daemon) nothingGiven(c *api.Caller, r *api.AllowRequest, s *sandbox.Sandbox, sel scope.Selector, t policy.Target, all []given) error {
	whom := "the scope " + sel.String()
	if s != nil {
		whom = "sandbox " + s.Record.ID
	}
	var have []string
	elsewhere := ""
	for _, g := range all {
		switch {
		case g.isFor(s, sel):
			have = append(have, g.target.String()+" ("+api.Lasts(g.mode)+")")
		case g.target == t && r.OnlyOwner == nil && c.Rights.Reads(policy.KindPolicy, g.scope) && elsewhere == "":
			elsewhere = g.command()
		}
	}
	e := api.Errorf(api.CodeNotFound, "%s has no rule for %s that `ringfence allow` gave", whom, t)
	if r.Mode != "" {
		e.Message += " with --" + r.Mode
	}
	if len(have) > maxNamed {
		have = append(have[:maxNamed], fmt.Sprintf("%d more", len(have)-maxNamed))
	}
	e.Detail = "it has " + strings.Join(have, ", ")
	if len(have) == 0 {
		e.Detail = "it has none at all"
	}
	if elsewhere != "" {
		return e.WithRemedy("the one there is for it is taken back by: " + elsewhere)
	}
	return e.WithRemedy(d.openedBy(t, sel, s))
}

// command takes the rule back.
func (g *given) command() string {
	cmd := "ringfence allow --remove " + g.target.String()
	switch {
	case g.sandbox != "":
		return cmd + " --sandbox " + g.sandbox
	case g.mode == api.AllowAlways:
		return cmd + " --scope " + g.scope.String() + " --always"
	}
	return cmd + " --scope " + g.scope.String()
}
