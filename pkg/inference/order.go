// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"cmp"
	"crypto/sha256"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/inference/health"
	"github.com/ringfence/ringfence/pkg/policy"
)

// order sorts the candidates into the order in which they are asked: by priority,
// and among equals by the route's way to choose; without those that are left out.
// In a sticky route the one that answered the conversation before comes first.
func (x *exchange) order() {
	x.list = slices.DeleteFunc(x.list, func(c candidate) bool { return c.out != "" })
	slices.SortStableFunc(x.list, func(a, b candidate) int { return cmp.Compare(a.priority, b.priority) })
	for from := 0; from < len(x.list); {
		to := from + 1
		for to < len(x.list) && x.list[to].priority == x.list[from].priority {
			to++
		}
		x.balance(x.list[from:to])
		from = to
	}
	x.stay()
}

// balance brings candidates of one priority into order.
func (x *exchange) balance(list []candidate) {
	if len(list) < 2 {
		return
	}
	byLot(list)
	if x.way == nil {
		return
	}
	switch x.way.Balance {
	case policy.BalanceLatency:
		for i := 0; i+1 < len(list); i++ { // the better of two, again and again
			if x.load(&list[i+1]) < x.load(&list[i]) {
				list[i], list[i+1] = list[i+1], list[i]
			}
		}
	case policy.BalancePrice:
		in, out := requestTokens(&x.tape), x.tape.outputAsked() // once: a request may be large, and comparisons are many
		for i := range list {
			list[i].price = x.price(&list[i], in, out)
		}
		slices.SortStableFunc(list, func(a, b candidate) int { return cmp.Compare(a.price, b.price) })
	}
}

// byLot draws an order in which each one's chance to be next is its share.
func byLot(list []candidate) {
	for i := range list {
		sum := uint64(0)
		for j := i; j < len(list); j++ {
			sum += uint64(list[j].share)
		}
		at := rand.Uint64N(max(sum, 1))
		for j := i; j < len(list); j++ {
			if at < uint64(list[j].share) {
				list[i], list[j] = list[j], list[i]
				break
			}
			at -= uint64(list[j].share)
		}
	}
}

// price is what the request would cost at a candidate, in nano-dollars: at most,
// where that is not sure. One whose price is not known comes last.
func (x *exchange) price(c *candidate, in, out uint64) int64 {
	if x.r.opt.Price == nil {
		return math.MaxInt64
	}
	if e := c.prov.Entry(c.model); out == 0 && e != nil {
		out = uint64(e.MaxOutput)
	}
	v, ok := x.r.opt.Price(c.prov, c.upstream, in, out)
	if !ok {
		return math.MaxInt64
	}
	return v
}

// load is that of the candidate's best key.
func (x *exchange) load(c *candidate) float64 {
	best := -1.0
	for _, key := range keysOf(c.prov) {
		if at := c.place(key); x.r.health.Ready(at, x.agent()) {
			if l := x.r.health.Load(at); best < 0 || l < best {
				best = l
			}
		}
	}
	if best < 0 {
		return 1e9 // nothing passes now
	}
	return best
}

// place is the candidate with one of its keys, as its health is kept. Models that
// one entry of the document admits are one: agents choose names. Without a name the
// place would be that of the key, which is for all models.
func (c *candidate) place(key string) health.Place {
	model := cmp.Or(c.model, noModel)
	if e := c.prov.Entry(c.model); e != nil && c.model != "" {
		model = e.Match.String()
	}
	return health.Place{Provider: c.prov.Name, Model: model, Key: key}
}

// noModel stands for the operations that name no model. It is no model's name.
const noModel = "(no model)"

// keysOf are the names of a provider's keys; one without a name where the agent's
// own is used.
func keysOf(p *policy.Provider) []string {
	if len(p.Keys) == 0 {
		return []string{""}
	}
	return p.Secrets()
}

// keyOrder is the order in which a candidate's keys are tried.
func keyOrder(p *policy.Provider) []string {
	if len(p.Keys) < 2 {
		return keysOf(p)
	}
	left := slices.Clone(p.Keys)
	out := make([]string, 0, len(left))
	for len(left) > 0 {
		sum := uint64(0)
		for _, k := range left {
			sum += uint64(k.Weight)
		}
		at, i := rand.Uint64N(max(sum, 1)), 0
		for ; i < len(left)-1 && at >= uint64(left[i].Weight); i++ {
			at -= uint64(left[i].Weight)
		}
		out = append(out, left[i].Secret)
		left = slices.Delete(left, i, i+1)
	}
	return out
}

// conversations remembers who answered a conversation. It is bounded: what was
// used least lately goes first.
type conversations struct {
	mu  sync.Mutex
	now map[[16]byte]stay
	old map[[16]byte]stay // the generation before
}

// stay is where a conversation is.
type stay struct {
	provider, model string
	tier            int
	until           time.Time
}

const (
	maxConversations = 8192 // of each generation
	stayFor          = time.Hour
)

// find is where a conversation is; ok is false when nobody knows.
func (c *conversations) find(key [16]byte, now time.Time) (s stay, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok = c.now[key]; !ok {
		if s, ok = c.old[key]; !ok {
			return s, false
		}
	}
	return s, now.Before(s.until)
}

// keep notes where it is now.
func (c *conversations) keep(key [16]byte, s stay) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil || len(c.now) >= maxConversations {
		c.old, c.now = c.now, make(map[[16]byte]stay)
	}
	c.now[key] = s
}

// conversation is what a conversation is known by: who holds it, on which route,
// and how it began. ok is false where nothing stands for its beginning.
func (x *exchange) conversation() (key [16]byte, ok bool) {
	t := &x.tape
	h := sha256.New()
	for _, part := range []string{x.c.Sandbox, x.d.name, x.way.Doc, x.way.ID} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	for _, name := range beginnings {
		i, has := t.member(0, name)
		if !has {
			continue
		}
		n := &t.nodes[i]
		if n.kind == kindArray && t.hasChildren(i) {
			n, ok = &t.nodes[i+1], true // the first element
			if t.firstIsSystem(i) && t.nodes[i+1].next < t.nodes[i].next {
				h.Write(t.src[n.start:n.end])
				n = &t.nodes[t.nodes[i+1].next]
			}
		}
		h.Write(t.src[n.start:n.end])
		h.Write([]byte{0})
		ok = ok || n.kind == kindString
	}
	sum := h.Sum(nil)
	return [16]byte(sum[:16]), ok
}

// beginnings are the members whose first element a conversation keeps.
var beginnings = []string{"system", "instructions", "messages", "input", "contents"}

// firstIsSystem says whether the first message of a list is for the whole
// conversation, so that the second one tells conversations apart.
func (t *tape) firstIsSystem(i uint32) bool {
	role, ok := t.member(i+1, "role")
	if !ok {
		return false
	}
	s, _ := t.text(role)
	return s == "system" || s == "developer"
}

// lasts is where the conversation of a sticky route is, if anybody knows.
func (x *exchange) lasts() (s stay, ok bool) {
	if x.way == nil || !x.way.Sticky {
		return s, false
	}
	if !x.talks {
		if x.talk, x.talks = x.conversation(); !x.talks {
			return s, false
		}
	}
	return x.r.talks.find(x.talk, x.start)
}

// stay puts the candidate first that answered the conversation before.
func (x *exchange) stay() {
	s, ok := x.lasts()
	if !ok {
		return
	}
	i := slices.IndexFunc(x.list, func(c candidate) bool { return c.prov.Name == s.provider && c.model == s.model })
	if i > 0 && slices.ContainsFunc(keysOf(x.list[i].prov), func(k string) bool { return x.r.health.Ready(x.list[i].place(k), x.agent()) }) {
		c := x.list[i]
		copy(x.list[1:i+1], x.list[:i])
		x.list[0] = c
	}
}

// stayed notes who answers.
func (x *exchange) stayed(c *candidate) {
	if x.talks {
		x.r.talks.keep(x.talk, stay{provider: c.prov.Name, model: c.model, tier: x.tierAt, until: x.start.Add(stayFor)})
	}
}
