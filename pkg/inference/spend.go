// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/price"
)

// FindPrice is the price of a model at a provider. A table may name the provider by
// the name of its document; else it is of the provider's platform, or of its dialect
// where it has none. What happens without a price the document says: estimated is a
// price of another model, and ok is false where a call must not be made if its cost
// has to be known. See price.Unknown.
func FindPrice(b *price.Book, p *policy.Provider, upstream string, at time.Time) (m price.Match, estimated, ok bool) {
	if m = b.Lookup(p.Name, upstream, at); m.Known() {
		return m, false, true
	}
	kind := p.Platform
	if kind == "" {
		kind = p.Dialect
	}
	return price.Unknown(p.UnknownPrice).Decide(b, kind, upstream, at)
}

// trialPrice is the version in records of calls that the trial provider answers:
// they cost nothing.
const trialPrice = "trial"

// settled notes what an answer took and cost. m is nil where the answer does not say
// what it took.
func (x *exchange) settled(a *answer, m *meter, broken bool) {
	r := x.rec
	if m != nil {
		r.usage = m.total(&x.tape, broken)
		r.usage.estimated = r.usage.estimated || a.from == nil
	}
	switch {
	case a.from == nil:
		r.ev.Price, r.ev.PriceVersion, r.costKnown = event.PriceKnown, trialPrice, true
	case m != nil:
		match, estimated := price.Match{}, false
		if x.r.opt.Prices != nil {
			match, estimated, _ = FindPrice(x.r.opt.Prices(), a.from.prov, a.from.upstream, x.start)
		}
		r.cost, r.costKnown = r.usage.charge(&r.ev, match, estimated)
	case x.route.binary:
		r.ev.Price = event.PriceUnknown // sound is priced by what nobody reports
	}
}

// fill puts the usage into a record. TokensIn is all of the prompt, whatever of it a
// cache held, TokensOut all of the answer.
func (u *usage) fill(ev *event.Event) {
	ev.TokensIn, ev.TokensOut, ev.Estimated = u.PromptTokens(), u.AnswerTokens(), u.estimated
	ev.TokensCached, ev.TokensCacheWrite5m, ev.TokensCacheWrite1h = u.Usage[price.CachedInput], u.Usage[price.CacheWrite5m], u.Usage[price.CacheWrite1h]
	ev.TokensAudioIn, ev.TokensImageIn = u.Usage[price.AudioInput], u.Usage[price.ImageInput]
	ev.TokensReasoning, ev.TokensAudioOut, ev.TokensImageOut = u.Usage[price.Reasoning], u.Usage[price.AudioOutput], u.Usage[price.ImageOutput]
	ev.Images, ev.WebSearches = u.Usage[price.Image], u.Usage[price.WebSearch]
}

// charge prices a usage and says so in the record. It returns the cost in
// nano-dollars, and whether it is known: an amount that is out of range is not.
func (u *usage) charge(ev *event.Event, m price.Match, estimated bool) (int64, bool) {
	ev.Cost, ev.Price, ev.PriceVersion, ev.PriceModel = 0, event.PriceUnknown, "", ""
	c, err := m.Cost(&u.Usage)
	if err != nil {
		return 0, false
	}
	switch {
	case estimated:
		ev.Price = event.PriceEstimated
	case c.Unpriced != 0:
		ev.Price = event.PricePartial
	case c.Assumed != 0:
		ev.Price = event.PriceAssumed
	default:
		ev.Price = event.PriceKnown
	}
	ev.Cost, ev.PriceVersion, ev.PriceModel = uint64(c.Nano), m.Version, m.Model.Provider+"/"+m.Model.Name
	return c.Nano, true
}
