// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"context"
	"fmt"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/store"
	"github.com/ringfence/ringfence/pkg/wire"
)

// Exchange does what a gateway says, and answers what it asks for, in one
// transaction. What no gateway of ours would say is a *wire.ProtocolError, and
// nothing of it is done. ErrHolder: it was given up.
func (l *Ledger) Exchange(ctx context.Context, q *wire.BudgetExchange) (wire.BudgetReply, error) {
	who, err := l.principals(ctx, q.Asked)
	if err != nil {
		return wire.BudgetReply{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.holders[q.Holder]
	if h == nil {
		return wire.BudgetReply{}, ErrHolder
	}
	t := l.begin(h)
	t.holder.attached = true
	if err := t.settle(q); err != nil {
		return wire.BudgetReply{}, err
	}
	for _, r := range q.Returned {
		n := t.lease(r.Lease)
		switch {
		case n == nil: // it was given back, and the answer was lost
		case r.Ended:
			t.end(n)
		default:
			t.shrink(n, r.Granted)
		}
	}
	reply := wire.BudgetReply{}
	for i := range q.Asked {
		given, err := t.ask(&q.Asked[i], who[i])
		if err != nil {
			return wire.BudgetReply{}, err
		}
		reply.Given = append(reply.Given, given)
	}
	reply.Applied = t.holder.Applied
	return reply, t.commit(ctx)
}

// principals are asked for before the turn: that may wait for sandboxes to be taken
// over.
func (l *Ledger) principals(ctx context.Context, asked []wire.BudgetAsked) ([]*scope.Principal, error) {
	out := make([]*scope.Principal, len(asked))
	for i := range asked {
		p, err := l.o.Policy.Principal(ctx, asked[i].Sandbox)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil {
			out[i] = &p
		}
	}
	return out, nil
}

// settle does the settlements that are not done yet.
func (t *turn) settle(q *wire.BudgetExchange) error {
	touched := map[int64]bool{}
	for i := range q.Settled {
		s, number := &q.Settled[i], q.First+uint64(i)
		if number <= t.holder.Applied {
			continue
		}
		if number != t.holder.Applied+1 {
			return &wire.ProtocolError{Msg: fmt.Sprintf("settlement %d follows %d", number, t.holder.Applied)}
		}
		if s.Actual < 0 || s.Actual > MaxAmount || s.Reserved < 0 || s.Reserved > MaxAmount {
			return &wire.ProtocolError{Msg: "a settlement of an amount out of range"}
		}
		for _, id := range s.Leases {
			n := t.lease(id)
			if n == nil {
				return &wire.ProtocolError{Msg: fmt.Sprintf("a settlement of lease %d, which this gateway does not have", id)}
			}
			t.use(n, s.Actual, s.Estimated)
			touched[n.Account] = true
		}
		if s.Actual > s.Reserved {
			t.excess(s.Leases, s.Reserved, s.Actual, number)
		}
		t.holder.Applied, t.noted = number, true
	}
	t.alertAll(touched)
	return nil
}

func (t *turn) alertAll(touched map[int64]bool) {
	for id := range touched {
		t.alerts(t.account(id))
	}
}

// excess notes that a call cost more than was reserved; the budget named is the
// first that counts it.
func (t *turn) excess(leases []int64, reserved, actual int64, number uint64) {
	n := Notice{Kind: NoticeExcess, Amount: actual - reserved, Reserved: reserved, Holder: t.holder.ID, Sequence: number}
	for _, id := range leases {
		if a := t.account(t.lease(id).Account); n.Who == "" {
			n.Budget = policy.RuleRef{Doc: a.Document, ID: a.Budget, Scope: a.Scope}
			n.Who, n.Model = a.Who, a.Model
		}
	}
	t.notices = append(t.notices, n)
}

// refused is an answer that gives nothing.
func refused(why string) wire.BudgetGiven { return wire.BudgetGiven{Reason: why} }

// ask answers one question.
func (t *turn) ask(q *wire.BudgetAsked, p *scope.Principal) (g wire.BudgetGiven, err error) {
	if q.Least < 0 || q.Most < q.Least || q.Most > MaxAmount || q.Have < 0 {
		return g, &wire.ProtocolError{Msg: "a question for an amount out of range"}
	}
	b, ok := t.l.o.Policy.Budget(q.Budget)
	switch {
	case p == nil:
		return refused("the sandbox has ended"), nil
	case !ok:
		return refused("the budget is not in force any more"), nil
	case !b.Selects.Matches(*p, "", ""), b.PerModel() && (q.Model == "" || !b.Covers(q.Model)), !b.PerModel() && q.Model != "":
		return refused("the budget does not count this sandbox's calls"), nil
	}
	a, fresh := t.open(b, b.Who(*p), q.Model)
	if a == nil {
		return refused(fmt.Sprintf("there are %d accounts of budgets, which is the most", MaxAccounts)), nil
	}
	s := a.span(&b.Window, t.now)
	if from := s.bucket.UnixNano(); from > a.From {
		if b.Window.Unit != policy.BudgetRolling {
			a.Told = 0
		}
		a.From = from
	}
	n, err := t.grant(q, a, b, s)
	if err != nil {
		return g, err
	}
	limit, sum := t.l.limit(b, a.Who, t.now), a.since(s.start)
	g = wire.BudgetGiven{Limit: limit, Left: sum.room(limit), Others: sum.amount, Until: s.until.UnixNano(), Reset: a.frees(&b.Window, s).UnixNano()}
	if n == nil { // nothing was given, and nothing has to be kept of it
		if fresh {
			t.forget(a)
		}
		g.Lease, g.Reason = -1, "nothing is left"
		return g, nil
	}
	g.Lease, g.Granted, g.Expires = n.ID, n.Granted, n.Expires
	if n.Bucket >= s.start.UnixNano() {
		g.Others -= n.Used
	}
	return g, nil
}

// open is the account of a budget; fresh: it was made just now. nil: there are too
// many.
func (t *turn) open(b *policy.Budget, who, model string) (a *account, fresh bool) {
	name := accountName{b.Ref.Scope, b.Ref.Doc, b.ID, who, model}
	for _, a := range t.accounts {
		if nameOf(&a.BudgetAccount) == name {
			return a, false
		}
	}
	if id, ok := t.l.byName[name]; ok {
		return t.account(id), false
	}
	if len(t.l.accounts)+len(t.accounts) >= MaxAccounts {
		return nil, false
	}
	a = &account{BudgetAccount: store.BudgetAccount{ID: t.id(), Scope: b.Ref.Scope, Document: b.Ref.Doc, Budget: b.ID, Who: who, Model: model}, spent: map[int64]spent{}}
	t.accounts[a.ID] = a
	return a, true
}

func (t *turn) forget(a *account) { delete(t.accounts, a.ID) }

// grant finds or makes the lease of the present step, and makes it larger by what
// is wanted, as far as there is room. nil: there is no lease, and no room for one.
func (t *turn) grant(q *wire.BudgetAsked, a *account, b *policy.Budget, s span) (*lease, error) {
	k := leaseKey{t.holder.ID, a.ID, s.bucket.UnixNano()}
	n := t.find(k)
	already := int64(0)
	if n != nil {
		already = n.left()
		if q.Lease == n.ID {
			already = n.Granted - q.Have
		}
		if already < 0 {
			return nil, &wire.ProtocolError{Msg: fmt.Sprintf("a gateway that has %d more of lease %d than it was granted", -already, n.ID)}
		}
	}
	add := int64(0)
	if b.Hard {
		add = amount(a.since(s.start).room(t.l.limit(b, a.Who, t.now)), q.Least-already, q.Most-already)
	}
	expires := t.now.Add(LeaseTime)
	switch {
	case n == nil && add == 0 && b.Hard:
		return nil, nil
	case n == nil:
		n = &lease{store.BudgetLease{ID: t.id(), Account: a.ID, Holder: t.holder.ID, Bucket: k.bucket, Expires: expires.UnixNano()}}
		t.leases[n.ID], a.refs = n, a.refs+1
		if t.fresh == nil {
			t.fresh = map[leaseKey]int64{}
		}
		t.fresh[k] = n.ID
	case add > 0 || time.Unix(0, n.Expires).Before(t.now.Add(LeaseTime/2)):
		n.Expires = expires.UnixNano()
	}
	before := n.left()
	n.Granted = plus(n.Granted, add)
	a.lend(n.Bucket, n.left()-before)
	return n, nil
}

// amount is what a lease grows by: room for several such calls where there is
// much, for little more than what is wanted where there is little, never more than
// what is left, and nothing where that would be of no use.
func amount(left, least, most int64) int64 {
	most = max(0, most)
	if left <= 0 || least > left {
		return 0
	}
	if most >= left {
		return left
	}
	return most + min(8*min(most, MaxAmount/8), (left-most)/16)
}
