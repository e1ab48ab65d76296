// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/price"
)

// fill puts the usage into a record. TokensIn is all of the prompt, whatever of it a
// cache held, TokensOut all of the answer.
func (u *usage) fill(ev *event.Event) {
	ev.TokensIn, ev.TokensOut, ev.Estimated = u.PromptTokens(), u.AnswerTokens(), u.estimated
	ev.TokensCached, ev.TokensCacheWrite5m, ev.TokensCacheWrite1h = u.Usage[price.CachedInput], u.Usage[price.CacheWrite5m], u.Usage[price.CacheWrite1h]
	ev.TokensAudioIn, ev.TokensImageIn = u.Usage[price.AudioInput], u.Usage[price.ImageInput]
	ev.TokensReasoning, ev.TokensAudioOut, ev.TokensImageOut = u.Usage[price.Reasoning], u.Usage[price.AudioOutput], u.Usage[price.ImageOutput]
	ev.Images, ev.WebSearches = u.Usage[price.Image], u.Usage[price.WebSearch]
}

// charge prices a usage and says so in the record. m is what price.Unknown.Decide
// gave before the call, and estimated likewise. An amount that is out of range is not
// known. It returns the cost in nano-dollars, and whether it is known.
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
