// SPDX-License-Identifier: Apache-2.0

package event

import "strconv"

// What Event.Price says of Event.Cost.
const (
	PriceKnown     = "known"     // the model's own price, for everything that was used
	PriceAssumed   = "assumed"   // for some units another unit's price was taken
	PricePartial   = "partial"   // something was used of which no price is known: the cost is too low
	PriceEstimated = "estimated" // another model's price
	PriceUnknown   = "unknown"   // no price: the cost is not zero but not known
)

// Priced says whether the cost of the event says something.
func (e *Event) Priced() bool { return e.Price != "" && e.Price != PriceUnknown }

func appendSpend(j *jsonBuf, e *Event) {
	j.num("tokens_cache_write_5m", e.TokensCacheWrite5m)
	j.num("tokens_cache_write_1h", e.TokensCacheWrite1h)
	j.num("tokens_reasoning", e.TokensReasoning)
	j.num("tokens_audio_in", e.TokensAudioIn)
	j.num("tokens_audio_out", e.TokensAudioOut)
	j.num("tokens_image_in", e.TokensImageIn)
	j.num("tokens_image_out", e.TokensImageOut)
	j.num("images", e.Images)
	j.num("web_searches", e.WebSearches)
	if e.Priced() {
		j.numAlways("cost_nano_usd", e.Cost)
	}
	j.str("price", e.Price)
	j.str("price_version", e.PriceVersion)
	j.str("price_model", e.PriceModel)
}

// parsedSpend is what appendSpend wrote.
type parsedSpend struct {
	CacheWrite5m uint64 `json:"tokens_cache_write_5m"`
	CacheWrite1h uint64 `json:"tokens_cache_write_1h"`
	Reasoning    uint64 `json:"tokens_reasoning"`
	AudioIn      uint64 `json:"tokens_audio_in"`
	AudioOut     uint64 `json:"tokens_audio_out"`
	ImageIn      uint64 `json:"tokens_image_in"`
	ImageOut     uint64 `json:"tokens_image_out"`
	Images       uint64 `json:"images"`
	WebSearches  uint64 `json:"web_searches"`
	Cost         uint64 `json:"cost_nano_usd"`
	Price        string `json:"price"`
	PriceVersion string `json:"price_version"`
	PriceModel   string `json:"price_model"`
}

func (p *parsedSpend) give(e *Event) {
	e.TokensCacheWrite5m, e.TokensCacheWrite1h, e.TokensReasoning = p.CacheWrite5m, p.CacheWrite1h, p.Reasoning
	e.TokensAudioIn, e.TokensAudioOut, e.TokensImageIn, e.TokensImageOut = p.AudioIn, p.AudioOut, p.ImageIn, p.ImageOut
	e.Images, e.WebSearches = p.Images, p.WebSearches
	e.Cost, e.Price, e.PriceVersion, e.PriceModel = p.Cost, p.Price, p.PriceVersion, p.PriceModel
}

// spent is the cost in dollars, rounded up to a millionth: "$0.001235"; "" where
// nothing was priced.
func (e *Event) spent() string {
	switch {
	case e.Price == "":
		return ""
	case !e.Priced():
		return "price unknown"
	}
	const micro, dollar = 1000, 1_000_000
	n := e.Cost / micro
	if e.Cost%micro != 0 {
		n++
	}
	frac := strconv.FormatUint(n%dollar+dollar, 10)[1:]
	s := "$" + strconv.FormatUint(n/dollar, 10) + "." + frac
	if e.Price == PriceEstimated || e.Estimated {
		return "~" + s
	}
	return s
}
