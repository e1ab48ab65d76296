// SPDX-License-Identifier: Apache-2.0

// Package rates enforces the rates of inference rules: what a decision has as
// obligations of that kind, in force or in shadow mode. It is a toll of
// package inference and counts with package limit.
//
// A rate that counts apart neither models nor providers is taken once for a
// request, whoever answers it in the end. One that does is taken for each attempt,
// since only then it is known who is asked for what: an attempt that was sent
// counts, also when it failed and another one followed. So is one of a rule that is
// for the model that the name asked for becomes there, and not for that name.
// Models are counted by their names at the provider: two names of one are one.
//
// Tokens are what goes in and what comes out, cached ones too. What was
// counted is of this process: it is forgotten when that ends, and a gateway that
// drains counts apart from its successor.
package rates

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/limit"
	"github.com/ringfence/ringfence/pkg/policy"
)

// Rates is the toll. It is safe for concurrent use.
type Rates struct{ table *limit.Table }

// New makes one with nothing counted.
func New(o limit.Options) *Rates { return &Rates{limit.New(o)} }

// Request takes what is taken once for a request.
func (r *Rates) Request(ctx context.Context, u *inference.Use) (inference.Grant, *inference.Refusal) {
	c := claims{u: u}
	c.of(&u.Decision, u.Trial)
	return r.take(ctx, &c)
}

// Attempt takes what is taken for each attempt.
func (r *Rates) Attempt(ctx context.Context, u *inference.Use) (inference.Grant, *inference.Refusal) {
	c := claims{u: u}
	c.of(&u.Verdict, false)
	c.taken = len(c.list)
	c.of(&u.Decision, true)
	c.of(&u.Also, true)
	c.list = c.list[c.taken:]
	return r.take(ctx, &c)
}

// claims are the rates that a request, or an attempt, is under.
type claims struct {
	u     *inference.Use
	list  []claim
	taken int // so many of them are taken already
}

type claim struct {
	o      *policy.Obligation // to a rate
	shadow bool
}

// of adds the rates of a decision, without those that are there, and with those
// that are taken for each attempt if all is true.
func (c *claims) of(d *policy.Decision, all bool) {
	c.add(d.Obligations(), false, all)
	if s := d.Shadow(); s != nil {
		c.add(s.Obligations(), true, all) // those of rules in force are there
	}
}

func (c *claims) add(list []policy.Obligation, shadow, all bool) {
	for i := range list {
		o := &list[i]
		if o.Kind != policy.KindRate || !all && ofAttempt(o.Rate) {
			continue
		}
		if !slices.ContainsFunc(c.list, func(have claim) bool { return nameOf(have.o) == nameOf(o) }) {
			c.list = append(c.list, claim{o, shadow})
		}
	}
}

// ofAttempt says whether a rate can only be counted when it is known who is asked
// for what.
func ofAttempt(r *policy.Rate) bool {
	return slices.Contains(r.Per, "model") || slices.Contains(r.Per, "provider")
}

func nameOf(o *policy.Obligation) limit.Name {
	return limit.Name{Scope: o.Rule.Scope, Doc: o.Rule.Doc, ID: o.Rule.ID}
}

// take takes all of them or none, and waits where the rules let it.
func (r *Rates) take(ctx context.Context, c *claims) (g inference.Grant, no *inference.Refusal) {
	if len(c.list) == 0 {
		return g, nil
	}
	h, call := &held{table: r.table}, c.call(r.table)
	ref := r.table.Take(call, &h.hold)
	if ref.Kind != limit.None && ref.Patience > 0 && c.u.Wait != nil {
		if done, ok := c.u.Wait(); ok {
			start := time.Now()
			var err error
			ref, err = r.table.Wait(ctx, call, &h.hold)
			done()
			if err != nil {
				return g, gone()
			}
			g.Note = "it waited " + time.Since(start).Round(time.Millisecond).String() + " for room under a rate"
		}
	}
	of := func(claim int) *policy.Obligation { return c.list[call.Claims[claim].Tag].o }
	if ref.Kind != limit.None {
		return inference.Grant{}, refusal(c.u, of(ref.Claim), &ref)
	}
	g.Receipt = h
	if k := h.hold.ShadowKind; k != limit.None {
		g.Shadow = policy.Block.String() + " by " + of(h.hold.Shadow).Rule.String() + " (rate of " + k.String() + ")"
	}
	return g, nil
}

// call is what is taken.
func (c *claims) call(t *limit.Table) *limit.Call {
	call := &limit.Call{Owner: ancestor(c.u.Scope, "agent"), Tokens: max(1, c.u.Input), Claims: make([]limit.Claim, len(c.list))}
	for i, cl := range c.list {
		r := cl.o.Rate
		call.Claims[i] = limit.Claim{Rule: t.Rule(nameOf(cl.o)), Split: split(c.u, r.Per), Shadow: cl.shadow, Tag: i,
			Spec: limit.Spec{Requests: r.Requests, RequestsWindow: r.RequestsWindow, Tokens: r.Tokens, TokensWindow: r.TokensWindow, Concurrency: r.Concurrency, Queue: r.Queue}}
	}
	return call
}

// held is what was taken.
type held struct {
	table *limit.Table
	hold  limit.Hold
}

// Sent is told nothing new.
func (h *held) Sent() {}

// Done ends it: for what left, or was answered on the node, with what it used; for
// what did not, as if it had not been.
func (h *held) Done(s inference.Spent) {
	if s.Sent || s.Answered {
		h.hold.Settle(h.table, s.Usage.Input+s.Usage.Output)
	} else {
		h.hold.Cancel(h.table)
	}
}

// split is what a rate counts apart. Whoever is named means everything above it
// too: an agent is one of its team.
func split(u *inference.Use, per []string) (s limit.Split) {
	depth := 0
	for _, p := range per {
		switch p {
		case "model":
			if s.Model = u.Upstream; u.Provider == nil {
				s.Model = u.Asked
			}
		case "provider":
			if s.Provider = "trial"; u.Provider != nil {
				s.Provider = u.Provider.Name
			}
		default:
			if i := slices.Index(levels, p) + 1; i > depth {
				depth, s.Who = i, ancestor(u.Scope, p)
			}
		}
	}
	return s
}

// levels are the segments of a principal, from above.
var levels = []string{"org", "team", "agent", "sandbox"}

// ancestor is a canonical principal down to a level.
func ancestor(principal, level string) string {
	end := 0
	for range slices.Index(levels, level) + 1 {
		i := strings.IndexByte(principal[end:], '/')
		if i < 0 {
			return principal
		}
		end += i + 1
	}
	return principal[:end-1]
}
