// SPDX-License-Identifier: Apache-2.0

package gatewayd

import (
	"context"
	"net/http"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/budget"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// bound is the most that a model of a provider costs for so many tokens in and out,
// in nano-dollars; see inference.Options.Price. More tokens never cost less.
type bound func(p *policy.Provider, upstream string, input, output uint64) (nano int64, ok bool)

// cost is what an answer did cost. estimated: no provider reported what it used.
type cost func(s *inference.Spent) (nano int64, estimated, ok bool)

// toll takes the money of each attempt out of the budgets that count it.
type toll struct {
	till   *budget.Till
	number func(sandbox string) (uint32, bool)
	bound  bound
	cost   cost
	now    func() time.Time

	mu     sync.Mutex // guards what follows
	counts map[uint32]counts
}

// counts is what counts a sandbox's calls under the policy of a revision.
type counts struct {
	revision uint64
	c        *budget.Counts
}

// tollPatience bounds how long a call waits for the keeper, when its leases have no
// room.
const tollPatience = 5 * time.Second

// Tokens of a call before it is made. The input is at most what inference says
// (Use.InputMost), and what dialects and providers add around the text. What the
// reservation is too much comes back when the answer says what was used.
const (
	inputExtra = 1024
	// outputMost is taken where neither client, nor budget, nor the model's entry says
	// how much may come out.
	outputMost = 32 << 10
	// outputLeast is what a call without a cap has to be able to say.
	outputLeast = 16
)

// free are operations that providers do not bill, noOutput those whose answer is not
// billed by its tokens.
var (
	free     = map[string]bool{"count_tokens": true, "moderations": true}
	noOutput = map[string]bool{"embeddings": true}
)

// Request takes nothing: who answers, and so the price, is not known.
func (t *toll) Request(context.Context, *inference.Use) (inference.Grant, *inference.Refusal) {
	return inference.Grant{}, nil
}

// principal is a view that knows whose it is. *policy.View is one.
type principal interface {
	Principal() scope.Principal
	Snapshot() *policy.Snapshot
}

// Attempt reserves what the attempt may cost, in every account that counts it.
func (t *toll) Attempt(ctx context.Context, u *inference.Use) (inference.Grant, *inference.Refusal) {
	if u.Model == "" || free[u.Operation] {
		return inference.Grant{}, nil
	}
	c, no := t.of(u)
	if no != nil || c.Empty(u.Model) {
		return inference.Grant{}, no
	}
	least, most, ok := t.span(u, c)
	known := ok || t.known(u)
	if !known && u.Provider.UnknownPrice == policy.UnknownPriceFlag {
		return inference.Grant{}, nil // the operator lets it through, and its record says that nobody knows what it cost
	}
	if !known {
		return inference.Grant{}, &inference.Refusal{Status: http.StatusForbidden, Code: inference.CodeBudget, Reason: "unknown-price",
			Message: "the price of the model " + strconv.Quote(u.Upstream) + " at " + u.Provider.Name + " is not known, and a budget counts its calls",
			Remedy:  "The operator has to give its price", Command: "ringfence prices import FILE"}
	}
	a := budget.Ask{Model: u.Model}
	if a.Least, ok = t.price(u, least); ok { // else it asks for more than there is a number for
		a.Most, ok = t.price(u, most)
	}
	if !ok || a.Most < a.Least || a.Most > budget.MaxAmount {
		return inference.Grant{}, &inference.Refusal{Status: http.StatusForbidden, Code: inference.CodeBudget, Reason: "budget",
			Message: "what the call may cost is out of range", Remedy: "Ask for less output"}
	}
	ctx, cancel := context.WithTimeout(ctx, tollPatience)
	defer cancel()
	r, ref := t.till.Reserve(ctx, c, a)
	if ref != nil {
		return inference.Grant{}, t.refusal(ref)
	}
	g := inference.Grant{Receipt: &receipt{t: t, r: r}}
	if u.Output == 0 && u.Bounded {
		g.MaxOutput = most
		if r.Amount() < a.Most {
			g.MaxOutput = t.affordable(u, least, most, r.Amount())
		}
	}
	return g, nil
}

// of is what counts the calls of a sandbox.
func (t *toll) of(u *inference.Use) (*budget.Counts, *inference.Refusal) {
	v, ok := u.View.(principal)
	t.mu.Lock()
	defer t.mu.Unlock()
	number, known := t.number(u.Sandbox) // under mu: forget comes after the sandbox is gone from there
	if !ok || !known {
		return nil, &inference.Refusal{Status: http.StatusServiceUnavailable, Code: inference.CodeBusy, Reason: "budget",
			Message: "the gateway does not know which budgets are for this sandbox", Remedy: "Try again"}
	}
	s := v.Snapshot()
	is := t.counts[number]
	if is.c == nil || is.revision != s.Revision() {
		is = counts{s.Revision(), budget.Count(number, v.Principal(), s.Budgets(v.Principal()))}
		t.counts[number] = is
	}
	return is.c, nil
}

// forget drops what is known of a sandbox that has ended, and has no number any more.
func (t *toll) forget(number uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.counts, number)
}

// span is how many tokens of output the call needs at least, and may have at most,
// for each of its choices. ok is that of price.
func (t *toll) span(u *inference.Use, c *budget.Counts) (least, most uint64, ok bool) {
	switch {
	case noOutput[u.Operation]:
	case u.Output > 0:
		least, most = u.Output, u.Output
	default:
		most = outputMost
		if u.MaxOutput > 0 {
			most = u.MaxOutput
		}
		if n := uint64(c.MaxOutput(u.Model)); n > 0 {
			most = min(most, n)
		}
		if least = most; u.Bounded {
			least = min(most, outputLeast)
		}
	}
	_, ok = t.price(u, least)
	return least, most, ok
}

// known says whether anybody knows what the model costs, however much is asked for.
func (t *toll) known(u *inference.Use) (ok bool) {
	if t.bound != nil {
		_, ok = t.bound(u.Provider, u.Upstream, 1, 1)
	}
	return ok
}

// price is what the attempt costs at most with so much output; ok is false where
// nobody knows, or where no number holds it.
func (t *toll) price(u *inference.Use, output uint64) (int64, bool) {
	if t.bound == nil {
		return 0, false
	}
	n := max(1, u.Choices)
	if output > 0 && n > (1<<40)/output {
		return 0, false
	}
	return t.bound(u.Provider, u.Upstream, u.InputMost+inputExtra, n*output)
}

// affordable is the most output that an amount pays for.
func (t *toll) affordable(u *inference.Use, least, most uint64, amount int64) uint64 {
	over := sort.Search(int(most-least)+1, func(i int) bool {
		n, ok := t.price(u, least+uint64(i))
		return !ok || n > amount
	})
	return least + uint64(max(0, over-1))
}

// refusals are what a client is told for each kind.
var refusals = map[budget.RefusalKind]struct {
	status       int
	code, remedy string
}{
	budget.RefusedLimit:     {http.StatusTooManyRequests, inference.CodeBudget, "Ask for less output, use a cheaper model, or wait for the budget's next window"},
	budget.RefusedBlock:     {http.StatusTooManyRequests, inference.CodeBudget, "Wait for the budget's next window, or ask the operator for an increase"},
	budget.RefusedApproval:  {http.StatusTooManyRequests, inference.CodeBudget, "Wait for the budget's next window, or ask the operator for an increase"},
	budget.RefusedDowngrade: {http.StatusTooManyRequests, inference.CodeBudget, "Use a cheaper model"},
	budget.RefusedAway:      {http.StatusServiceUnavailable, inference.CodeBusy, "Try again"},
	budget.RefusedBusy:      {http.StatusServiceUnavailable, inference.CodeBusy, "Try again"},
	budget.RefusedNone:      {http.StatusForbidden, inference.CodeBudget, "The operator should look at the budget"},
}

func (t *toll) refusal(ref *budget.Refusal) *inference.Refusal {
	is := refusals[ref.Kind]
	no := &inference.Refusal{Status: is.status, Code: is.code, Reason: "budget", Message: ref.Error(), Remedy: is.remedy, Rule: ref.Budget}
	if is.status == http.StatusTooManyRequests {
		no.Command = "ringfence budgets increase " + ref.Budget.String() + " --by AMOUNT --for TIME"
		if wait := ref.RetryAt.Sub(t.now()); wait > 0 {
			no.Wait = wait
		}
	}
	return no
}

// receipt settles one attempt.
type receipt struct {
	t *toll
	r *budget.Reservation
}

// Sent: it leaves.
func (r *receipt) Sent() { r.r.Sent() }

// Done settles what the attempt cost. One that left and of which nobody knows what
// became of it costs what was reserved, and so does an answer that does not say what
// it used.
func (r *receipt) Done(s inference.Spent) {
	switch {
	case !s.Sent:
		r.r.Release()
		return
	case s.Free:
		r.r.Settle(0, false)
		return
	case s.Answered && s.Usage.Input+s.Usage.Output > 0 && r.t.cost != nil:
		if nano, estimated, ok := r.t.cost(&s); ok {
			if s.Usage.Estimated { // nobody reported it, or not all: what was not seen (thinking, a stored conversation) may have cost more
				nano, estimated = max(nano, r.r.Amount()), true
			}
			r.r.Settle(nano, estimated)
			return
		}
	}
	r.r.Settle(r.r.Amount(), true)
}
