// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/scope"
)

// maxGrant bounds `allow --for`.
const maxGrant = 30 * 24 * time.Hour

// enforceTime bounds how long an operator waits for a change to be in force.
const enforceTime = 10 * time.Second

// onceTime is how long a rule for one connection waits for it.
const onceTime = 10 * time.Minute

// grantRule is the id of the one rule in a document that Allow writes.
const grantRule = "allow"

// Allow adds one rule as a document of its own.
func (b *backend) Allow(ctx context.Context, c *api.Caller, r *api.AllowRequest) (api.AllowResult, error) {
	d := b.d
	rule, err := policy.NewEgressRule(policy.Allow, r.Destination)
	if err != nil {
		return api.AllowResult{}, api.Errorf(api.CodeBadRequest, "%v", err)
	}
	var s *sandbox.Sandbox
	sel, err := b.allowScope(r, &s)
	if err != nil {
		return api.AllowResult{}, err
	}
	if rule.ResolvesTo, err = resolvesTo(r); err != nil {
		return api.AllowResult{}, err
	}
	rule.ID = grantRule
	rule.Reason = fmt.Sprintf("ringfence allow by uid %d", c.UID)
	var docs []policy.Document
	for _, it := range d.library.Items() {
		docs = append(docs, it.Document)
	}
	doc, err := policy.WithRule(docs, sel, rule)
	if err != nil {
		return api.AllowResult{}, api.Errorf(api.CodeBadRequest, "%v", err)
	}
	res := api.AllowResult{Rule: string(doc.Raw), Document: doc.Name, Scope: sel.String(), Sandbox: r.Sandbox}
	if err := d.judge(&doc, rule, sel, &res); err != nil {
		return res, err
	}
	if !res.Effective { // not kept: it would take effect when nobody thinks of it
		res.Revision = d.library.Snapshot().Revision()
		return res, nil
	}
	if err := b.grant(ctx, c, r, s, &doc, &res); err != nil {
		if known := (*api.Error)(nil); errors.As(err, &known) {
			return res, err
		}
		return res, api.Errorf(api.CodeBadRequest, "%v", err)
	}
	res.Revision = d.library.Snapshot().Revision()
	wctx, cancel := context.WithTimeout(ctx, enforceTime)
	defer cancel()
	if err := d.policy.wait(wctx, res.Revision); err != nil {
		return res, api.Errorf(api.CodeUnavailable, "%v", err)
	}
	return res, nil
}

// resolvesTo reads the prefixes. The private network is not for members to open.
func resolvesTo(r *api.AllowRequest) (out []netip.Prefix, err error) {
	if len(r.ResolvesTo) > 0 && r.OnlyOwner != nil {
		return nil, api.Errorf(api.CodeDenied, "private addresses are opened by root, or with the role policy-author in the scope: name it with --scope")
	}
	for _, text := range r.ResolvesTo {
		p, err := netip.ParsePrefix(text)
		if a, aerr := netip.ParseAddr(text); aerr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, api.Errorf(api.CodeBadRequest, "%q is no address or prefix such as 10.20.0.0/16", text)
		}
		out = append(out, p)
	}
	return out, nil
}

// allowScope is for whom the rule is written.
func (b *backend) allowScope(r *api.AllowRequest, s **sandbox.Sandbox) (scope.Selector, error) {
	text := r.Scope
	if r.Sandbox != "" {
		sb, err := b.living(r.Sandbox)
		if err != nil {
			return scope.Selector{}, err
		}
		if r.OnlyOwner != nil && sb.Record.Owner != *r.OnlyOwner {
			return scope.Selector{}, api.Errorf(api.CodeDenied, "sandbox %s is not yours", r.Sandbox)
		}
		*s, text = sb, sb.Principal.String()
	} else if r.OnlyOwner != nil {
		return scope.Selector{}, api.Errorf(api.CodeDenied, "rules for a scope need root, or the role policy-author there; name one of your sandboxes with --sandbox")
	}
	if text == "" {
		text = api.DefaultScope
	}
	sel, err := scope.ParseSelector(text)
	if err != nil {
		return sel, api.Errorf(api.CodeBadRequest, "%v; a scope is for example org:local/team:default/agent:curl", err)
	}
	return sel, nil
}

// grant puts the document where its life says. Only what must outlive the
// daemon is stored; a rule with an end is not, so that a restart can only
// close it early.
func (b *backend) grant(ctx context.Context, c *api.Caller, r *api.AllowRequest, s *sandbox.Sandbox, doc *policy.Document, res *api.AllowResult) error {
	d, name := b.d, doc.Name
	if s != nil {
		defer d.own.turn(s.Record.Owner)()
		if err := d.sandboxFits(c, s, doc); err != nil {
			return err
		}
		name = "sandbox:" + s.Record.ID + "/" + doc.Name
	}
	switch r.Mode {
	case api.AllowAlways:
		if s != nil {
			return fmt.Errorf("a sandbox does not last for ever: leave --always out, or allow it for a scope")
		}
		return b.putAlways(ctx, c, doc)
	case api.AllowSandbox, "":
		if s == nil {
			return fmt.Errorf("name a sandbox with --sandbox, or say --once, --for or --always")
		}
		return d.addSandboxDocument(s, name, string(doc.Raw))
	case api.AllowOnce:
		return d.grantFor(name+once+random(), doc, s, onceTime, res)
	case api.AllowFor:
		life := time.Duration(r.For)
		if life <= 0 || life > maxGrant {
			return fmt.Errorf("--for %s: between a moment and %s", life, maxGrant)
		}
		return d.grantFor(name+until+random(), doc, s, life, res)
	}
	return fmt.Errorf("unknown mode %q", r.Mode)
}

// alwaysFile is where a rule without an end is stored: one file per destination
// and scope.
func alwaysFile(doc *policy.Document) string {
	sum := sha256.Sum256([]byte(doc.Scope.String()))
	return doc.Name + "-" + hex.EncodeToString(sum[:4]) + ".yaml"
}

// once marks documents that end with the first connection they allow; in the
// document's name it is policy.OnceMark.
const once = "#once-"

// until marks documents that end with a time.
const until = "#until-"

func random() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return hex.EncodeToString(b[:])
}

func (d *Daemon) grantFor(name string, doc *policy.Document, s *sandbox.Sandbox, life time.Duration, res *api.AllowResult) error {
	text := strings.Replace(string(doc.Raw), doc.Name, grantName(name), 1)
	var err error
	if s != nil {
		err = d.library.SetSandbox(name, text, s.Principal)
	} else {
		err = d.library.SetMemory(name, text)
	}
	if err != nil {
		return err
	}
	end := time.Now().Add(life)
	res.Expires, res.Rule, res.Document = &end, text, grantName(name)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.grants[name] = time.AfterFunc(life, func() { d.revoke(name) })
	return nil
}

// grantName is the document's name inside the text: unique, so that events
// tell which grant it was.
func grantName(file string) string {
	i := strings.LastIndexByte(file, '/')
	return strings.ReplaceAll(file[i+1:], "#", ".")
}

// revoke ends a grant; one that has ended already is no error.
func (d *Daemon) revoke(name string) {
	d.forgetGrant(name)
	if err := d.library.Remove(name); err != nil {
		d.logger.Error("a grant could not be taken back", "document", name, "error", err)
	}
}

// forgetGrant stops the clock of a grant that is about to be removed.
func (d *Daemon) forgetGrant(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.grants[name]; t != nil {
		t.Stop()
		delete(d.grants, name)
	}
	delete(d.used, name)
}

// gatewaySaid counts what the gateway reports for the rule that decided and for
// the end of the sandbox, and ends grants for one connection.
func (d *Daemon) gatewaySaid(e *event.Event) {
	d.ruleHits.take(e, d.library.Snapshot())
	if s, ok := d.sandboxes.ByID(e.Sandbox); ok && e.IsFailure() {
		s.CountFailure(max(e.Count, 1))
	} else if ok && e.Verdict == event.Denied {
		s.CountDenial(max(e.Count, 1))
	}
	if e.Verdict == event.Denied {
		d.draft(e)
		return
	}
	d.onceUsed(e)
}

// onceUsed follows the connection of a rule for one: from its beginning the
// rule does not expire, with its end the rule is taken back. That no second
// connection gets through meanwhile is up to the gateway.
func (d *Daemon) onceUsed(e *event.Event) {
	doc, _, _ := strings.Cut(e.Rule, "/")
	begins, ends := e.Activity == event.ActivityClaim, e.Activity == event.ActivityRelease
	if !strings.Contains(doc, policy.OnceMark) || !begins && !ends {
		return
	}
	d.mu.Lock()
	var name string
	for n := range d.grants {
		if grantName(n) == doc {
			name = n
		}
	}
	if name != "" && begins {
		d.grants[name].Stop()
		d.used[name] = true
	}
	d.mu.Unlock()
	if name != "" && ends {
		go d.revoke(name)
	}
}

// gatewayReady: a new gateway does not know which rules for one connection
// were used, and their connections have ended with the old one.
func (d *Daemon) gatewayReady() {
	d.mu.Lock()
	used := slices.Collect(maps.Keys(d.used))
	d.mu.Unlock()
	for _, name := range used {
		d.revoke(name)
	}
	d.policy.again()
}

// judge says whether the rule would do what is wanted, for one in its scope
// that no narrower rule names.
func (d *Daemon) judge(doc *policy.Document, rule policy.Rule, sel scope.Selector, res *api.AllowResult) error {
	snap, err := d.library.Trial(*doc)
	if err != nil {
		return api.Errorf(api.CodeBadRequest, "%v", err)
	}
	dec := decide(snap.View(someoneIn(sel)).At(time.Now()), rule.Target())
	res.Effective = dec.Allowed()
	if !dec.Allowed() {
		res.Note = dec.Reason
		if dec.Rule.String() != "" {
			res.Note += " (rule " + dec.Rule.String()
			if at := ruleAt(dec.Rule.File, dec.Rule.Line); at != "" {
				res.Note += ", " + at
			}
			res.Note += ")"
		}
	}
	return nil
}

// someoneIn is a principal of a scope; where the scope leaves a segment open,
// it has a name that a narrower rule is unlikely to have.
func someoneIn(sel scope.Selector) scope.Principal {
	value := func(p scope.Pattern) string {
		if p.Wild {
			return p.Text + "any-name"
		}
		return p.Text
	}
	p := scope.Principal{Org: value(sel.Org), Team: value(sel.Team), Agent: value(sel.Agent)}
	if sel.Sandbox != scope.Any {
		p.Sandbox = value(sel.Sandbox)
	}
	return p
}
